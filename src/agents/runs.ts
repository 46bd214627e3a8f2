import { randomUUID } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import * as z from 'zod'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { parseSeconds } from '../duration.ts'
import { TmsError, type Problem } from '../errors.ts'
import { redact } from '../redaction/redact.ts'

export type Runs = Contract['agents_runs']['result']
export type Logs = Contract['agents_logs']['result']
export type WaitingTask = Contract['tasks_waiting']['result']['tasks'][number]

type Payload = NonNullable<Contract['tasks_enqueue']['args']['tasks'][number]['payload']> | null

const priorities = { low: -1, normal: 0, high: 1 } as const
export type Priority = keyof typeof priorities

export type NewTask = {
  readonly function: string
  readonly tenant: string
  readonly payload?: Payload | undefined
  readonly key?: string | undefined
  readonly delay?: string | undefined
  readonly priority: Priority
}

/** Answers the task's id; with a key that was used before, the id of the task it made then. */
export async function enqueue(driver: Driver, task: NewTask): Promise<{ readonly id: string }> {
  const { tenant, payload, key, delay, priority } = task
  const { ids } = granted(
    await driver.call('tasks_enqueue', {
      request_id: randomUUID(),
      tenant,
      tasks: [
        {
          function: task.function,
          payload,
          key,
          ...(delay === undefined ? {} : { delay_ms: parseSeconds(delay, { flag: '--delay', most: '365d' }) * 1000 }),
          priority: priorities[priority],
        },
      ],
    }),
  )
  const [id] = ids
  if (id === undefined) throw new Error('one task was enqueued and no id came back')
  return { id }
}

/** The text of a payload as JSON. It may be somebody's data, so the error doesn't quote it. */
export function parsePayload(text: string, source: string): Payload {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new TmsError(
      {
        code: 'INPUT_INVALID',
        what: `The payload ${source} is not JSON.`,
        why: `It has ${text.length} characters, and they can't be read as one JSON value.`,
        next: [`tms agents enqueue <function> --tenant <key> --payload '{"load":"L1"}'`],
      },
      { cause },
    )
  }
  return z.json().parse(value)
}

/** The database takes 256 KB; what is far beyond is not even read. */
const longestFile = 4 * 1024 * 1024

export async function readPayloadFile(path: string): Promise<string> {
  try {
    const { size } = await stat(path)
    if (size > longestFile) {
      throw new TmsError({
        code: 'INPUT_INVALID',
        what: `${path} is too large for a payload.`,
        why: `It has ${size} bytes, and a payload has at most 256 KB: put it into a table and its key here.`,
        next: [`ls -l ${path}`],
      })
    }
    return await readFile(path, 'utf8')
  } catch (cause) {
    if (cause instanceof TmsError) throw cause
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `${path} can't be read.`,
        why: cause instanceof Error ? cause.message : String(cause),
        next: [`ls -l ${path}`],
      },
      { cause },
    )
  }
}

export type RunsWanted = {
  readonly tenant?: string | undefined
  readonly agent?: string | undefined
  readonly task?: string | undefined
  readonly outcome?: string | undefined
  readonly limit: number
}

/** More than the database takes for a payload, so that nothing but secrets is missing. */
const longestShown = 512 * 1024

/** What a person, or whoever reads a command's output, gets of a payload. The stored one is for the work. */
export function shownPayload(payload: Payload): Payload {
  // True because redaction makes new lists and objects: nobody else has them.
  return redact(payload, { limit: longestShown }) as Payload
}

/** The attempts; of one task what went in and came out, too, without the secrets that only its agent needs. */
export async function listRuns(driver: Driver, wanted: RunsWanted): Promise<Runs> {
  if (wanted.task !== undefined) checkIds([wanted.task], 'task')
  const { tenant, agent, task, outcome, limit } = wanted
  const { task: about, runs } = granted(await driver.call('agents_runs', { tenant, agent, task, outcome, limit }))
  if (about === null) return { task: about, runs }
  return { task: { ...about, payload: shownPayload(about.payload), output: shownPayload(about.output) }, runs }
}

export type LogsWanted = Omit<RunsWanted, 'outcome'> & { readonly level?: string | undefined }

export async function listLogs(driver: Driver, wanted: LogsWanted): Promise<Logs> {
  if (wanted.task !== undefined) checkIds([wanted.task], 'task')
  const { tenant, agent, task, level, limit } = wanted
  return granted(await driver.call('agents_logs', { tenant, agent, task, level, limit }))
}

/** What an approval lets happen: names, without the data that goes with them. */
export type EffectNames = {
  readonly apply: readonly string[]
  readonly publish: readonly string[]
  readonly enqueue: readonly string[]
}

/** What waits for somebody's yes, and what it will do then. Null effects: this role may not see them. */
export async function waitingTasks(
  driver: Driver,
  { tenant, limit }: { tenant?: string | undefined; limit: number },
): Promise<{ readonly tasks: readonly (Omit<WaitingTask, 'effects'> & { readonly effects: EffectNames | null })[] }> {
  const { tasks } = granted(await driver.call('tasks_waiting', { tenant, limit }))
  return { tasks: tasks.map((task) => ({ ...task, effects: effectNames(task) })) }
}

/** As the database parks them. */
const parked = z.object({
  effects: z
    .object({
      apply: z.array(z.object({ fn: z.string() })).default([]),
      events: z.array(z.object({ topic: z.string() })).default([]),
      tasks: z.array(z.object({ function: z.string() })).default([]),
    })
    .nullish(),
})

export function effectNames({ effects }: Pick<WaitingTask, 'effects'>): EffectNames | null {
  if (effects === null) return null
  const { apply = [], events = [], tasks = [] } = parked.parse(effects).effects ?? {}
  return {
    apply: apply.map(({ fn }) => fn),
    publish: events.map(({ topic }) => topic),
    enqueue: tasks.map((task) => task.function),
  }
}

/**
 * The task that is to be approved, so that whoever consents sees what it will do. Null when the caller may approve it and
 * may not look at it. A task that awaits nothing is an error, before anybody is asked.
 */
export async function taskToApprove(
  driver: Driver,
  { task, tenant }: { task: string; tenant: string },
): Promise<WaitingTask | null> {
  checkIds([task], 'task')
  try {
    const waiting = granted(await driver.call('tasks_waiting', { tenant, limit: 1000 }))
    const found = waiting.tasks.find(({ id }) => id === task)
    if (found) return found
    const about = await listRuns(driver, { tenant, task, limit: 1 })
    if (about.task?.status === 'awaiting_approval') return null
    throw new TmsError({
      code: 'CONFLICT',
      what: `task ${task} awaits no approval`,
      why: `it is ${about.task?.status ?? 'not there'}`,
      next: [`tms agents approve --list --tenant ${tenant}`],
    })
  } catch (error) {
    // Some roles approve without reading agents; the database decides about the approval itself.
    if (error instanceof TmsError && error.code === 'ROLE_DENIED') return null
    throw error
  }
}

export type Decision = {
  readonly task: string
  readonly tenant: string
  readonly approve: boolean
  readonly why: string
}
export type Decided = Decision & { readonly outcome: string | null }

export async function decide(driver: Driver, decision: Decision): Promise<Decided> {
  const { task, tenant, approve, why } = decision
  checkIds([task], 'task')
  const { outcome } = granted(
    await driver.call('tasks_approve', { request_id: randomUUID(), tenant, id: task, approve, why }),
  )
  return { ...decision, outcome }
}

/** Why an approval changed nothing; null when it did something. */
export function nothingDecided({ task, tenant, approve, outcome }: Decided): Problem | null {
  if (!approve || (outcome !== 'paused' && outcome !== 'stale')) return null
  return {
    code: outcome === 'paused' ? 'PAUSED' : 'CONFLICT',
    what: `Task ${task} was not approved.`,
    why:
      outcome === 'paused' ? 'Its agent or its tenant is paused; it still waits.' : 'Somebody else ended it meanwhile.',
    next: outcome === 'paused' ? ['tms agents status'] : [`tms agents runs --task ${task} --tenant ${tenant}`],
  }
}

/** Ids as they were typed, each once. Said here, because what a cast says names no command. */
export function checkIds(words: readonly string[], of: string): string[] {
  const wrong = words.find((word) => !/^\d{1,18}$/.test(word))
  if (wrong === undefined) return [...new Set(words)]
  throw new TmsError({
    code: 'INPUT_INVALID',
    what: `"${wrong.slice(0, 60)}" is no id of a ${of}.`,
    why: 'Ids are whole numbers, as the lists show them.',
    next: [{ task: 'tms agents runs', delivery: 'tms outbox list' }[of] ?? 'tms dlq list'],
  })
}
