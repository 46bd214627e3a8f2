import type { View } from './blocks.ts'
import { render } from './render.ts'
import type { Surface } from './terminal.ts'

/** Draws over what it drew before. Nothing to restore when the process is killed: no other screen, no hidden cursor. */
export type Screen<T> = { draw(data: T): Promise<void> }

export function openScreen<T>(view: View<T>, surface: Surface): Screen<T> {
  return {
    async draw(data) {
      const lines = (await render(view(data), surface)).split('\n')
      // Asked each time: windows are resized. What doesn't fit would scroll and leave its top behind at each draw.
      const room = Math.max((process.stdout.rows || 24) - 2, 5)
      const shown =
        lines.length <= room ? lines : [...lines.slice(0, room - 1), `… ${lines.length - room + 1} more lines`]
      process.stdout.write(`\u001b[H\u001b[J${shown.join('\n')}\n`)
    },
  }
}
