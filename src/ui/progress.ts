import type { Surface } from './terminal.ts'

export type Progress = {
  update(text: string): void
  done(text?: string): void
  failed(text?: string): void
}

/** A spinner on a terminal; elsewhere a plain line at the start, at the end, and for an update now and then. */
export async function startProgress(text: string, surface: Surface, note: (line: string) => void): Promise<Progress> {
  if (surface.isTerminal) {
    const { default: ora } = await import('ora')
    const spinner = ora({
      text,
      stream: process.stderr,
      isEnabled: true,
      // Would put stdin into raw mode, where Ctrl-C is a byte and no signal.
      discardStdin: false,
      ...(surface.colour ? {} : { color: false as const }),
    }).start()
    return {
      update: (next) => (spinner.text = next),
      done: (last) => spinner.stopAndPersist({ symbol: '✓', text: last ?? spinner.text }),
      failed: (last) => spinner.stopAndPersist({ symbol: '✗', text: last ?? spinner.text }),
    }
  }
  let saidAt = performance.now()
  note(`${text}\n`)
  return {
    update(next) {
      // Logs of a long run should show that it moves, not every step of it.
      if (performance.now() - saidAt < 10_000) return
      saidAt = performance.now()
      note(`${next}\n`)
    },
    done: (last) => last !== undefined && note(`${last}\n`),
    failed: (last) => last !== undefined && note(`${last}\n`),
  }
}
