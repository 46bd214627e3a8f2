import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Incident, Priority } from '../drivers/contract/incidents.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { words } from './words.ts'
import { readStopFile, type StopFile } from './stop-file.ts'

/** The life of incidents, from a person's side. */

export type Listed = { readonly target: string } & Contract['incident_list']['result'] & {
    readonly times: Contract['incident_times']['result']
    /** What stops the workers of the host that asks; null: nothing does. */
    readonly stopFile: StopFile | null
  }

export async function listIncidents(
  driver: Driver,
  {
    tenant,
    all,
    limit,
    stopFile,
  }: {
    readonly tenant?: string | undefined
    readonly all: boolean
    readonly limit: number
    readonly stopFile: string
  },
): Promise<Listed> {
  const scope = tenant === undefined ? {} : { tenant }
  const [list, times, stopped] = await Promise.all([
    driver.call('incident_list', { ...scope, all, limit }),
    driver.call('incident_times', scope),
    stopOf(driver, stopFile),
  ])
  return { target: driver.target.name, ...granted(list), times: granted(times), stopFile: stopped }
}

/** Asks the database only where there is a file: who lists incidents need not be allowed to see the fleet. */
async function stopOf(driver: Driver, file: string): Promise<StopFile | null> {
  const found = await readStopFile(file, null)
  if (found === null) return null
  const answer = await driver.call('fence_state', {})
  return 'refused' in answer ? found : readStopFile(file, answer.resumed_ms_ago)
}

export type Shown = Contract['incident_show']['result']

/** With so many of the newest rows of its timeline. */
export async function showIncident(driver: Driver, id: string, limit = 200): Promise<Shown> {
  return granted(await driver.call('incident_show', { id: numberOf(id), limit }))
}

export type Opened = { readonly target: string; readonly joined: boolean; readonly incident: Incident }

export async function openIncident(
  driver: Driver,
  args: {
    readonly priority: Priority
    readonly title: string
    readonly type?: string | undefined
    readonly key?: string | undefined
    readonly tenant?: string | undefined
  },
): Promise<Opened> {
  const { priority, title, type, key, tenant } = args
  const opened = granted(
    await driver.call('incident_open', {
      request_id: randomUUID(),
      priority,
      title: words(title),
      ...(type === undefined ? {} : { type }),
      ...(key === undefined ? {} : { key }),
      ...(tenant === undefined ? {} : { tenant }),
    }),
  )
  return { target: driver.target.name, ...opened }
}

export type Action = Contract['incident_work']['args']['action']
export type Worked = { readonly action: Action; readonly changed: boolean; readonly incident: Incident }

export async function workOn(
  driver: Driver,
  action: Action,
  {
    id,
    text,
    tenant,
  }: { readonly id: string; readonly text?: string | undefined; readonly tenant?: string | undefined },
): Promise<Worked> {
  const done = granted(
    await driver.call('incident_work', {
      request_id: randomUUID(),
      id: numberOf(id),
      action,
      ...(text === undefined ? {} : { text: words(text) }),
      ...(tenant === undefined ? {} : { tenant }),
    }),
  )
  return { action, ...done }
}

export type Cycled = Contract['incident_cycle']['result']

/** One turn of the life cycle: what is late, what goes to people, what is closed. The scheduler calls it. */
export async function turnIncidents(driver: Driver): Promise<Cycled> {
  return granted(await driver.call('incident_cycle', { request_id: randomUUID() }))
}

export function numberOf(id: string): string {
  if (/^\d{1,18}$/.test(id)) return id
  throw new TmsError({
    code: 'USAGE',
    what: `"${id}" is no incident.`,
    why: 'Incidents have numbers.',
    next: ['tms incident list'],
  })
}
