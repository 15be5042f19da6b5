import { fileURLToPath } from 'node:url'

import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'
import { VitePWA } from 'vite-plugin-pwa'

import { precompress } from './plugins/precompress.ts'

const api = process.env.IMAGEFLEET_URL ?? 'http://127.0.0.1:8420'

export default defineConfig({
  plugins: [
    vue(),
    VitePWA({
      registerType: 'autoUpdate',
      injectRegister: false,
      manifest: {
        id: '/',
        name: 'Imagefleet',
        short_name: 'Imagefleet',
        description: 'A fleet of workers that draw pictures.',
        start_url: '/draw',
        scope: '/',
        display: 'standalone',
        theme_color: '#14161c',
        background_color: '#14161c',
        icons: [
          { src: '/icons/icon-192.png', sizes: '192x192', type: 'image/png' },
          { src: '/icons/icon-512.png', sizes: '512x512', type: 'image/png' },
          { src: '/icons/maskable-512.png', sizes: '512x512', type: 'image/png', purpose: 'maskable' },
          { src: '/favicon.svg', sizes: 'any', type: 'image/svg+xml' },
        ],
      },
      workbox: {
        // One file: the server names the few that lie at its root.
        inlineWorkboxRuntime: true,
        sourcemap: false,
        globPatterns: ['assets/*.{js,css,woff2}', 'favicon.svg', 'offline.html', 'offline.css'],
        // Pages come from the server while it answers, and say honestly when it does not: nothing here works without it.
        navigateFallback: null,
        runtimeCaching: [
          {
            urlPattern: ({ request, url }) =>
              request.mode === 'navigate' && !/^\/(v1|sdapi|flower|docs|openapi\.json|metrics)(\/|$)/.test(url.pathname),
            handler: 'NetworkOnly',
            options: { precacheFallback: { fallbackURL: '/offline.html' } },
          },
        ],
      },
    }),
    precompress(),
  ],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  build: {
    outDir: fileURLToPath(new URL('../broker_api/static/app', import.meta.url)),
    emptyOutDir: true,
    target: 'es2022',
    // Small files stay files: the page's policy allows no inlined fonts or scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: Object.fromEntries(
      ['/v1', '/sdapi', '/flower', '/docs', '/openapi.json', '/healthz', '/readyz'].map((path) => [
        path,
        { target: api, ws: path === '/v1', changeOrigin: false },
      ]),
    ),
  },
})
