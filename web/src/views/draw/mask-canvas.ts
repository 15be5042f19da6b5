/** A stroke, in the picture's own pixels. */
export interface Stroke {
  size: number
  erase: boolean
  points: { x: number; y: number }[]
}

/** Seen well on any picture; only where it is painted counts. */
const INK = '#ff2d6f'
const INK_BYTES = [255, 45, 111] as const

type Step = Stroke | 'invert' | 'clear' | ImageBitmap

/** A mask as the list of what was done to it: undo drops the last step and paints the rest again. */
export class MaskCanvas {
  private readonly steps: Step[] = []
  private undone: Step[] = []
  private readonly pen: CanvasRenderingContext2D

  constructor(readonly canvas: HTMLCanvasElement) {
    const pen = canvas.getContext('2d', { willReadFrequently: true })
    if (!pen) throw new Error('This browser cannot paint.')
    this.pen = pen
  }

  get canUndo(): boolean {
    return this.steps.length > 0
  }

  get canRedo(): boolean {
    return this.undone.length > 0
  }

  do(step: Step): void {
    this.steps.push(step)
    this.undone = []
    this.paint(step)
  }

  /** Go on with the stroke that was begun last. */
  extend(point: { x: number; y: number }): void {
    const stroke = this.steps.at(-1)
    if (!stroke || typeof stroke === 'string' || stroke instanceof ImageBitmap) return
    const from = stroke.points.at(-1) ?? point
    stroke.points.push(point)
    this.paint({ ...stroke, points: [from, point] })
  }

  undo(): void {
    const step = this.steps.pop()
    if (!step) return
    this.undone.push(step)
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height)
    this.steps.forEach((each) => this.paint(each))
  }

  redo(): void {
    const step = this.undone.pop()
    if (!step) return
    this.steps.push(step)
    this.paint(step)
  }

  /** Return whether anything is painted. */
  get isEmpty(): boolean {
    const { data } = this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height)
    for (let place = 3; place < data.length; place += 4) if ((data[place] ?? 0) > 127) return false
    return true
  }

  /** Return the mask as requests take it: white where it is painted, black elsewhere. */
  async toPng(): Promise<Blob> {
    const { width, height } = this.canvas
    const pixels = this.pen.getImageData(0, 0, width, height)
    const { data } = pixels
    for (let place = 0; place < data.length; place += 4) {
      data.fill((data[place + 3] ?? 0) > 127 ? 255 : 0, place, place + 3)
      data[place + 3] = 255
    }
    const plain = new OffscreenCanvas(width, height)
    plain.getContext('2d')?.putImageData(pixels, 0, 0)
    return plain.convertToBlob({ type: 'image/png' })
  }

  private paint(step: Step): void {
    const { pen, canvas } = this
    if (step === 'clear') {
      pen.clearRect(0, 0, canvas.width, canvas.height)
    } else if (step === 'invert') {
      pen.globalCompositeOperation = 'xor'
      pen.fillStyle = INK
      pen.fillRect(0, 0, canvas.width, canvas.height)
    } else if (step instanceof ImageBitmap) {
      this.paintPicture(step)
    } else {
      this.paintStroke(step)
    }
    pen.globalCompositeOperation = 'source-over'
  }

  private paintStroke({ size, erase, points }: Stroke): void {
    const { pen } = this
    const [first, ...rest] = points
    if (!first) return
    pen.globalCompositeOperation = erase ? 'destination-out' : 'source-over'
    pen.strokeStyle = INK
    pen.lineWidth = size
    pen.lineCap = 'round'
    pen.lineJoin = 'round'
    pen.fillStyle = INK
    pen.beginPath()
    if (rest.every((point) => point.x === first.x && point.y === first.y)) {
      // A line of no length has no ends that could be round.
      pen.arc(first.x, first.y, size / 2, 0, 2 * Math.PI)
      pen.fill()
      return
    }
    pen.moveTo(first.x, first.y)
    for (const point of rest) pen.lineTo(point.x, point.y)
    pen.stroke()
  }

  private paintPicture(picture: ImageBitmap): void {
    const { pen, canvas } = this
    pen.clearRect(0, 0, canvas.width, canvas.height)
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height)
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height)
    for (let place = 0; place < pixels.data.length; place += 4) {
      pixels.data[place + 3] = (pixels.data[place] ?? 0) > 127 ? 255 : 0
      pixels.data.set(INK_BYTES, place)
    }
    pen.putImageData(pixels, 0, 0)
  }
}
