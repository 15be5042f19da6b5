import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

export type Theme = 'system' | 'light' | 'dark'
const KEPT = 'imagefleet.theme'

/** Light or dark, as the system has it or as one likes it. */
export const useTheme = defineStore('theme', () => {
  const system = matchMedia('(prefers-color-scheme: dark)')
  const systemDark = ref(system.matches)
  const chosen = ref<Theme>(read())
  const shown = computed(() => (chosen.value === 'system' ? (systemDark.value ? 'dark' : 'light') : chosen.value))

  system.addEventListener('change', (event) => {
    systemDark.value = event.matches
    apply()
  })

  function choose(theme: Theme): void {
    chosen.value = theme
    localStorage.setItem(KEPT, theme)
    apply()
  }

  function apply(): void {
    document.documentElement.dataset['theme'] = shown.value
  }

  return { chosen, shown, choose, apply }
})

function read(): Theme {
  const kept = localStorage.getItem(KEPT)
  return kept === 'light' || kept === 'dark' ? kept : 'system'
}
