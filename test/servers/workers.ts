import { subscribe } from 'node:diagnostics_channel'
import type { ChildProcess } from 'node:child_process'

/** For vitest, which only says that one "exited unexpectedly": by which signal, or with which code, and after how long. */
export function setup(): void {
  subscribe('child_process', (message) => {
    // True because that is what Node publishes here.
    const { process: child } = message as { readonly process: ChildProcess }
    const began = Date.now()
    child.once('exit', (code, signal) => {
      // SIGTERM is how vitest itself ends one that doesn't go by itself.
      if (code === 0 || signal === 'SIGTERM' || !isWorker(child)) return
      const how = signal === null ? `with code ${code}` : `by ${signal}`
      const seconds = Math.round((Date.now() - began) / 1000)
      process.stderr.write(`\na worker of the test runner ended ${how}: process ${child.pid}, after ${seconds} s\n`)
    })
  })
}

function isWorker({ spawnargs }: ChildProcess): boolean {
  return spawnargs.some((argument) => /vitest[\\/]dist[\\/]workers[\\/]/.test(argument))
}
