import { printable } from './escape.ts'
import type { Surface } from './terminal.ts'

export type Progress = {
  update(text: string): void
  done(text?: string): void
  /** Does nothing after `done`: the command base calls it for whatever still spins when a command fails. */
  failed(text?: string): void
}

/** A spinner on a terminal; elsewhere a plain line at the start, at the end, and for an update now and then. */
export async function startProgress(text: string, surface: Surface, note: (line: string) => void): Promise<Progress> {
  // ora divides by the width: on a terminal that says it has none (a fresh pseudo-terminal, a serial line) it loops for ever.
  if (surface.isTerminal && process.stderr.columns > 0) {
    const { default: ora } = await import('ora')
    const spinner = ora({
      text: printable(text),
      stream: process.stderr,
      isEnabled: true,
      // Would put stdin into raw mode, where Ctrl-C is a byte and no signal.
      discardStdin: false,
      ...(surface.colour ? {} : { color: false as const }),
    }).start()
    const end = (symbol: string, last = spinner.text) => {
      if (spinner.isSpinning) spinner.stopAndPersist({ symbol, text: printable(last) })
    }
    return {
      update: (next) => (spinner.text = printable(next)),
      done: (last) => end('✓', last),
      failed: (last) => end('✗', last),
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
