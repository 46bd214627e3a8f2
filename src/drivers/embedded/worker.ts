import { setFlagsFromString } from 'node:v8'
import { parentPort } from 'node:worker_threads'
import { placeIn } from '../database-error.ts'
import { createDatabase } from './create.ts'
import { DurableFs } from './durable-fs.ts'
import type { Session } from './session.ts'
import { openSession } from './session.ts'
import type { FromThread, Order, ThreadError, ToThread } from './thread.ts'

/**
 * The worker thread: it holds the session and does one order at a time. It has its own thread because PGlite stops the
 * event loop while a query runs and can't be cancelled: the engine ends the thread instead.
 */
if (!parentPort) throw new Error('this file runs as a worker thread only')
const port = parentPort

/**
 * V8 compiles a WebAssembly function again, optimised, after about 2 MB of executed bytes. For a short command that is
 * a third of the processor time, on threads that the exit then waits for. With a thousand times that a command takes 0.65 s of processor,
 * opening to exit (0.82 with a hundred times), and a long-lived owner answers its first 6,000 calls in 0.90 to 1.2 ms instead of 0.85 to 1.1.
 */
setFlagsFromString('--wasm-tiering-budget=2000000000')

let session: Session | undefined
let fs: DurableFs | undefined

port.on('message', ({ id, order }: ToThread) => {
  // The engine sends an order after the answer to the one before, so nothing runs twice at a time here.
  obey(order).then(
    ({ value, tidyDue }) => tell({ id, value, tidyDue: tidyDue ?? false }),
    (error: unknown) => tell({ id, error: describe(error) }),
  )
})

function tell(message: FromThread): void {
  port.postMessage(message)
}

async function obey(order: Order): Promise<{ value?: unknown; tidyDue?: boolean }> {
  if (order.do === 'create') {
    fs = new DurableFs(order.dataDirectory)
    return { value: await createDatabase(fs) }
  }
  if (order.do === 'open') {
    fs = new DurableFs(order.dataDirectory)
    session = await openSession({ fs, localUser: order.localUser, onSignal: (signal) => tell({ signal }) })
    return {}
  }
  if (!session) throw new Error('the session is not open')
  switch (order.do) {
    case 'call': {
      const value = await session.call(order.fn, order.args, order.as)
      return { value, tidyDue: await tidyDue(session, order.args.length) }
    }
    case 'begin':
      return { value: await session.beginAdministration() }
    case 'run': {
      const value = await session.run(order.sql, order.parameters)
      return { value }
    }
    case 'end':
      await session.endAdministration(order.outcome)
      return { tidyDue: await tidyDue(session, Infinity) }
    case 'listen':
      return { value: await session.listen(order.channel) }
    case 'tidy':
      return { tidyDue: await session.tidy() }
    case 'close':
      await session.close(order.tidyMs)
      session = undefined
      return {}
  }
}

/** What is done is done: not being able to look after it is no reason to call it failed. */
function tidyDue(current: Session, bytes: number): Promise<boolean> {
  return current.tidyDue(bytes).catch(() => false)
}

function describe(error: unknown): ThreadError {
  const errno = fs?.lastErrno
  if (fs) fs.lastErrno = undefined
  if (!(error instanceof Error)) return { message: String(error), errno }
  // The cast is true of every error; PGlite's have the fields of Postgres' message, others may have a `code`.
  const fields = error as { code?: unknown; severity?: unknown; detail?: unknown; hint?: unknown }
  const text = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined)
  const code = text(fields.code)
  return {
    message: error.message,
    sqlState: code && /^[0-9A-Z]{5}$/.test(code) ? code : undefined,
    severity: text(fields.severity),
    detail: text(fields.detail),
    hint: text(fields.hint),
    place: placeIn(error),
    errno,
  }
}
