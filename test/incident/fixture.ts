import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import type { Contract } from '../../src/drivers/contract.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { sqlBeside, embeddedSubject, postgresSubject, supabaseSubject, type Subject } from '../contract/subjects.ts'
import { readyFleet, type Fleet } from '../fleet/fleet.ts'

export const subjects: Readonly<Record<Subject['name'], () => Promise<Subject>>> = {
  embedded: embeddedSubject,
  postgres: postgresSubject,
  supabase: supabaseSubject,
}

/** A fleet, its operator, and SQL of the test's own beside it. */
export type Scene = {
  readonly fleet: Fleet
  readonly operator: Driver
  sql(text: string, parameters?: unknown[]): Promise<readonly Record<string, unknown>[]>
  /** As this service account; closed with the scene. */
  account(name: string): Promise<Driver>
  stop(): Promise<void>
}

/** A super_admin that is nobody else; its id. */
export async function another(scene: Pick<Scene, 'sql'>, name = `second-${randomUUID().slice(0, 8)}`): Promise<string> {
  const [made] = await scene.sql(
    `with p as (insert into tms.principals (kind, name) values ('human', '${name}') returning id)
     insert into tms.memberships (principal_id, role) select id, 'super_admin' from p returning principal_id::text as id`,
  )
  return String(made?.['id'])
}

/** The certificate of an incident that has one halt. */
export function certificateIn(folder: string): string {
  const [name, another] = readdirSync(folder).filter((file) => /^certificate-\d+\.json$/.test(file))
  if (name === undefined || another !== undefined) throw new Error(`not one certificate but ${name} and ${another}`)
  return name
}

export async function openScene(subject: Subject): Promise<Scene> {
  const fleet = await readyFleet(subject)
  const others: Driver[] = []
  return {
    fleet,
    operator: fleet.operator,
    sql: sqlBeside(subject, fleet.operator),
    async account(name) {
      const driver = await subject.as(await subject.account(name))
      others.push(driver)
      return driver
    },
    async stop() {
      for (const driver of others) await driver.close()
      await fleet.stop()
    },
  }
}

type Show = Contract['incident_show']['result']
export const showOf = async (driver: Driver, id: string): Promise<Show> =>
  granted(await driver.call('incident_show', { id }))

export async function haltAndResume(driver: Driver): Promise<void> {
  const halt = granted(await driver.call('fence_halt', { why: 'a test' }))
  const pressed = await driver.call('incident_press', { request_id: randomUUID(), halt: halt.halt ?? '' })
  await resumeNow(driver, granted(pressed).incident)
}

export async function resumeNow(driver: Driver, id: string): Promise<void> {
  const step = async (args: Pick<Contract['incident_resume']['args'], 'step' | 'percent'>) =>
    granted(await driver.call('incident_resume', { request_id: randomUUID(), id, why: 'the test goes on', ...args }))
  await step({ step: 'prepare' })
  const { incident } = await showOf(driver, id)
  if (incident.type === 'emergency_stop') await step({ step: 'lift' })
  await step({ step: 'slots', percent: 50 })
  await step({ step: 'slots', percent: 100 })
}
