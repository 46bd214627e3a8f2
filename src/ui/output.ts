/**
 * stdout and stderr as a command needs them: nothing lost when the process ends, nothing said when the reader left.
 */
export type Output = {
  data(text: string): void
  /** Resolves when the reader keeps up with what was written; a stream waits for it instead of filling the memory. */
  room(): Promise<void>
  note(text: string): void
  /** True once the reader of stdout went away (`| head`). */
  readonly readerGone: boolean
  /** Resolves when everything written has been taken, or can't be. `process.exit` before that cuts pipes at 64 KiB. */
  drained(): Promise<void>
}

export function openOutput(): Output {
  let readerGone = false
  let failure: NodeJS.ErrnoException | null = null
  let hasResult = false

  // oclif adds a listener that throws for everything but EPIPE; from here it would end in an uncaught exception.
  process.stdout.removeAllListeners('error')
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    readerGone = true
    // A terminal that was closed answers EIO; a file that can't take the result is another matter.
    if (error.code !== 'EPIPE' && !process.stdout.isTTY) failure = error
  })
  // Nobody reads the notes: that changes nothing about the work.
  process.stderr.removeAllListeners('error')
  process.stderr.on('error', () => {})

  return {
    data(text) {
      hasResult = true
      if (!readerGone) process.stdout.write(text)
    },
    async room() {
      if (!process.stdout.writableNeedDrain || readerGone) return
      await new Promise((resolve) => {
        for (const event of ['drain', 'error', 'close']) process.stdout.once(event, resolve)
      })
    },
    note(text) {
      process.stderr.write(text)
    },
    get readerGone() {
      return readerGone
    },
    async drained() {
      // Without a result a full disk is no news: flushing alone would fail on it.
      await Promise.all([hasResult ? flushed(process.stdout) : null, flushed(process.stderr)])
      if (failure) throw failure
    },
  }
}

function flushed(stream: NodeJS.WriteStream): Promise<void> {
  // The callback comes after all earlier writes, and also (with an error) when the stream is broken.
  return new Promise((resolve) => stream.write('', () => resolve()))
}
