import { Worker } from 'node:worker_threads'
import { TmsError } from '../../errors.ts'
import type { ServiceAccount } from '../connection.ts'
import type { SqlPlace } from '../database-error.ts'
import type { ContractFunction } from '../contract.ts'
import type { Channel } from '../driver.ts'
import { findArtefact } from './artefact.ts'

export type Order =
  | { readonly do: 'create'; readonly dataDirectory: string }
  | { readonly do: 'open'; readonly dataDirectory: string; readonly localUser: string }
  | {
      readonly do: 'call'
      readonly fn: ContractFunction
      readonly args: string
      readonly as: ServiceAccount | undefined
    }
  | { readonly do: 'begin' }
  | { readonly do: 'run'; readonly sql: string; readonly parameters?: readonly unknown[] | undefined }
  | { readonly do: 'end'; readonly outcome: 'commit' | 'rollback' }
  | { readonly do: 'listen'; readonly channel: Channel }
  | { readonly do: 'tidy' }
  | { readonly do: 'close'; readonly tidyMs: number }

export type ToThread = { readonly id: number; readonly order: Order }

export type ThreadError = {
  readonly message: string
  readonly sqlState?: string | undefined
  readonly severity?: string | undefined
  readonly detail?: string | undefined
  readonly hint?: string | undefined
  readonly place?: SqlPlace | undefined
  /** What the operating system last said about the database's files. */
  readonly errno?: string | undefined
}

export type FromThread =
  | { readonly id: number; readonly value: unknown; readonly tidyDue: boolean }
  | { readonly id: number; readonly error: ThreadError }
  | { readonly signal: Channel }

/** An order that the thread answered with an error, or that ended together with the thread. */
export class OrderFailed extends Error {
  readonly detail: ThreadError
  readonly kind: 'sql' | 'broken' | 'timeout'

  constructor(kind: OrderFailed['kind'], detail: ThreadError) {
    super(detail.message)
    this.name = 'OrderFailed'
    this.kind = kind
    this.detail = detail
  }
}

export type Thread = {
  /** One order at a time. An order over its limit ends the thread, for PGlite can't be interrupted. */
  obey(order: Order, limitMs: number): Promise<unknown>
  /** Ends the order it is at, and the thread with it. */
  cut(why: string): void
  /** Resolves when the thread is really gone and writes nothing more. */
  end(): Promise<void>
  readonly ended: boolean
}

export function startThread(
  file: string | undefined,
  events: { onSignal: (channel: Channel) => void; onTidyDue: () => void },
): Thread {
  // Its own empty environment and no inherited flags: --import hooks of the main program would cost their start again.
  const worker = new Worker(file ?? workerFile(), { execArgv: [], env: {}, stdin: false })
  let ended = false
  let lastId = 0
  let waiting: { id: number; resolve: (value: unknown) => void; reject: (error: OrderFailed) => void } | undefined

  worker.on('message', (message: FromThread) => {
    if ('signal' in message) return events.onSignal(message.signal)
    if (message.id !== waiting?.id) return
    const { resolve, reject } = waiting
    waiting = undefined
    if ('value' in message) {
      resolve(message.value)
      if (message.tidyDue) events.onTidyDue()
      return
    }
    // Without a SQLSTATE, or with one of the errors that end a server, it is only its ruins that still answer.
    const kind = message.error.sqlState !== undefined && message.error.severity === 'ERROR' ? 'sql' : 'broken'
    const failed = new OrderFailed(kind, message.error)
    if (kind === 'sql') reject(failed)
    else void end().then(() => reject(failed))
  })
  worker.on('error', (error) => fail('broken', error.message))
  worker.on('exit', () => fail('broken', 'the database thread ended'))

  function fail(kind: OrderFailed['kind'], message: string): void {
    ended = true
    waiting?.reject(new OrderFailed(kind, { message }))
    waiting = undefined
  }

  async function end(): Promise<void> {
    ended = true
    await worker.terminate()
  }

  function cut(message: string): void {
    const cutOff = waiting
    waiting = undefined
    void end().then(() => cutOff?.reject(new OrderFailed('timeout', { message })))
  }

  return {
    get ended() {
      return ended
    },
    cut,
    end,
    async obey(order, limitMs) {
      if (ended) throw new OrderFailed('broken', { message: 'the database thread ended' })
      const id = (lastId += 1)
      let timer: NodeJS.Timeout | undefined
      try {
        return await new Promise((resolve, reject) => {
          waiting = { id, resolve, reject }
          worker.postMessage({ id, order } satisfies ToThread)
          timer = setTimeout(() => cut(`no answer within ${limitMs} ms`), limitMs)
        })
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

function workerFile(): string {
  const file = findArtefact('embedded-worker.js')
  if (file !== undefined) return file
  throw new TmsError({
    code: 'FILE_UNREADABLE',
    what: 'A part of tms is missing: embedded-worker.js.',
    why: 'The build makes it, beside the bundle.',
    next: ['npm run build'],
  })
}
