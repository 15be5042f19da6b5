/** The one place that knows the chart library; it is loaded when a chart is first drawn. */
import {
  BarController,
  BarElement,
  CategoryScale,
  Chart,
  Legend,
  LinearScale,
  LineController,
  LineElement,
  PointElement,
  Tooltip,
} from 'chart.js'

import { stepLabel } from './ranges'
import type { Picture } from './types'

Chart.register(
  BarController, BarElement, CategoryScale, Legend, LinearScale, LineController, LineElement, PointElement, Tooltip,
)

export type Kind = 'bars' | 'lines'
export type Drawn = Chart

const SERIES = 6

/** Draw a picture onto a canvas; whoever calls destroys what was drawn before. */
export function draw(canvas: HTMLCanvasElement, kind: Kind, picture: Picture, write: (value: number) => string): Drawn {
  const style = getComputedStyle(document.documentElement)
  const token = (name: string) => style.getPropertyValue(name).trim()
  const text = token('--text-soft')
  const span = picture.times.length * picture.stepS
  const grid = { color: token('--line') }
  const font = { family: token('--font'), size: 12 }
  return new Chart<'bar' | 'line', (number | null)[], string>(canvas, {
    type: kind === 'bars' ? 'bar' : 'line',
    data: {
      labels: picture.times.map((time) => stepLabel(time, picture.stepS, span)),
      datasets: picture.lines.map((line, place) => {
        const colour = line.label === 'others' ? token('--line-strong') : token(`--series-${(place % SERIES) + 1}`)
        return {
          label: line.label,
          data: line.values,
          backgroundColor: colour,
          borderColor: colour,
          borderWidth: kind === 'bars' ? 0 : 2,
          // A step without neighbours is still to be seen.
          pointRadius: line.values.length > 60 ? 1.5 : 2.5,
          spanGaps: false,
          borderDash: place >= SERIES ? [6, 4] : [],
          tension: 0.2,
        }
      }),
    },
    options: {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      interaction: { mode: 'index', intersect: false },
      plugins: {
        legend: {
          display: picture.lines.length > 1,
          position: 'bottom',
          labels: { color: text, font, boxWidth: 10, boxHeight: 10, useBorderRadius: true, borderRadius: 3 },
        },
        tooltip: {
          callbacks: { label: (item) => `${item.dataset.label}: ${item.parsed.y === null ? '–' : write(item.parsed.y)}` },
        },
      },
      scales: {
        x: {
          stacked: kind === 'bars',
          grid: { display: false },
          border: grid,
          ticks: { color: text, font, maxRotation: 0, autoSkipPadding: 16 },
        },
        y: {
          stacked: kind === 'bars',
          beginAtZero: true,
          grid,
          border: { display: false },
          ticks: { color: text, font, maxTicksLimit: 5, callback: (value) => write(Number(value)) },
        },
      },
    },
  }) as Drawn
}

/** Return what is drawn as a PNG on the page's own ground. */
export function asPng(canvas: HTMLCanvasElement): string {
  const copy = document.createElement('canvas')
  copy.width = canvas.width
  copy.height = canvas.height
  const context = copy.getContext('2d')
  if (context === null) return ''
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--surface').trim()
  context.fillRect(0, 0, copy.width, copy.height)
  context.drawImage(canvas, 0, 0)
  return copy.toDataURL('image/png')
}
