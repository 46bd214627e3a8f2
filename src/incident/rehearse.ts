import { randomUUID } from 'node:crypto'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { exit, TmsError, type Problem } from '../errors.ts'
import type { Signer } from '../keys/signer.ts'
import { postmortem } from './report.ts'
import { openIncident, showIncident, workOn } from './incidents.ts'
import { softDegrade } from './levers.ts'
import { reason } from './limits.ts'
import { resumeIncident } from './resume.ts'

/** The whole chain, walked in a tenant of its own. It touches no other tenant and halts nothing. */

export type Rehearsal = {
  readonly target: string
  readonly tenant: string
  readonly incidentId: string | null
  readonly steps: readonly { readonly name: string; readonly ok: boolean; readonly why: string }[]
  /** Why the chain could not be walked, which says nothing about the chain; null when it could. */
  readonly problem: Problem | null
}

export const rehearsalTenant = 'tms-incident-test'

export async function rehearse(driver: Driver, signer: () => Promise<Signer | null>): Promise<Rehearsal> {
  const steps: { name: string; ok: boolean; why: string }[] = []
  let incidentId: string | null = null
  let problem: Problem | null = null
  const tenant = rehearsalTenant
  const key = `rehearsal ${randomUUID()}`
  const title = 'Rehearsal: this is not a real incident'
  const must = (holds: boolean, why: string) => {
    if (!holds) throw new Error(why)
  }
  const step = async (name: string, work: () => Promise<string>) => {
    // What comes after a step that failed would fail for that reason alone.
    if (steps.some(({ ok }) => !ok)) return
    try {
      steps.push({ name, ok: true, why: await work() })
    } catch (error) {
      problem = hindrance(error)
      steps.push({ name, ok: false, why: reason(error) })
    }
  }
  const id = () => incidentId ?? ''
  const play = async (of: string, step: 'late' | 'attempt' | 'turn' | 'heal' | 'look') =>
    granted(await driver.call('incident_rehearse', { request_id: randomUUID(), id: of, step }))

  await step('a tenant of its own', async () => {
    try {
      granted(await driver.call('tenants_add', { request_id: randomUUID(), key: tenant, name: 'Incident rehearsals' }))
      return 'made'
    } catch (error) {
      if (error instanceof TmsError && error.code === 'CONFLICT') return 'there'
      throw error
    }
  })
  await step('what an earlier one left is ended', async () => {
    const { incidents } = granted(await driver.call('incident_list', { tenant, limit: 1000 }))
    // One that is under way is somebody's. A soft degrade is ended below.
    const left = incidents.filter((i) => i.type === 'rehearsal' && Date.now() - Date.parse(i.opened_at) > 600_000)
    for (const { id } of left) {
      await workOn(driver, 'resolve', { id, tenant, text: 'left by a rehearsal that was cut short' })
      await workOn(driver, 'close', { id, tenant })
    }
    return left.length === 0 ? 'nothing' : left.map(({ id }) => `incident ${id}`).join(', ')
  })
  await step('open', async () => {
    const { incident, joined } = await openIncident(driver, { priority: 'P4', title, key, tenant, type: 'rehearsal' })
    incidentId = incident.id
    must(!joined, 'it joined another one')
    return `incident ${incident.id}`
  })
  await step('a second symptom joins', async () => {
    const { incident, joined } = await openIncident(driver, { priority: 'P4', title, key, tenant, type: 'rehearsal' })
    must(joined && incident.id === id(), 'it opened another one')
    return `seen ${incident.occurrences} times`
  })
  await step('snapshot', async () => {
    const { snapshot } = await showIncident(driver, id())
    must(snapshot !== null, 'there is none')
    return `${Object.keys(snapshot ?? {}).length} parts`
  })
  await step('late when nobody acts in time', async () => {
    const { incident } = await play(id(), 'late')
    must(incident.late_at !== null, 'it is not late')
    return incident.priority
  })
  await step('acknowledge', async () => {
    const { incident } = await workOn(driver, 'ack', { id: id(), tenant })
    return `by ${incident.acked_by ?? 'nobody'}`
  })
  await step('attempts that do not help escalate it', async () => {
    for (let attempt = 0; attempt < 3; attempt += 1) await play(id(), 'attempt')
    const { incident } = await play(id(), 'turn')
    must(incident.status === 'ESCALATED' && incident.attempts === 3, `it is ${incident.status}`)
    return `${incident.attempts} attempts`
  })
  await step('what clears heals by itself', async () => {
    const { incident } = await openIncident(driver, { priority: 'P4', title, tenant, type: 'rehearsal' })
    await play(incident.id, 'attempt')
    const { incident: after } = await play(incident.id, 'heal')
    must(after.status === 'RESOLVED' && after.resolution === 'auto_healed', `it is ${after.status}`)
    await workOn(driver, 'close', { id: incident.id, tenant })
    return `incident ${incident.id}`
  })
  await step('soft degrade and resume', async () => {
    const { incident } = await softDegrade(driver, { tenant, why: title })
    const { kept } = await resumeIncident(driver, {
      id: incident,
      why: title,
      watchMs: 0,
      everyMs: 0,
      now: () => 0,
      pause: () => Promise.resolve(),
      report: () => undefined,
    })
    must(kept.length === 0, `${kept.map((flag) => flag.key).join(', ')} was not restored`)
    const { incident: after } = await showIncident(driver, incident)
    must(after.status === 'RESOLVED', `it is ${after.status}`)
    return 'as before'
  })
  await step('note, resolve, close', async () => {
    await workOn(driver, 'note', { id: id(), tenant, text: title })
    await workOn(driver, 'resolve', { id: id(), tenant, text: 'the rehearsal is over' })
    const { incident } = await workOn(driver, 'close', { id: id(), tenant })
    must(incident.status === 'CLOSED', `it is ${incident.status}`)
    return 'CLOSED'
  })
  await step('what is over stays over', async () => {
    try {
      await workOn(driver, 'ack', { id: id(), tenant })
    } catch (error) {
      if (error instanceof TmsError && error.code === 'CONFLICT') return 'refused'
      throw error
    }
    throw new Error('a closed incident was acknowledged')
  })
  await step('timeline', async () => {
    const kinds = (await showIncident(driver, id())).events.map(({ kind }) => kind).join(' ')
    must(kinds === 'opened late acked attempt attempt attempt escalated note resolved closed', kinds)
    return kinds
  })
  await step('notification', async () => {
    const { told } = await play(id(), 'look')
    const topics = told.map(({ topic }) => topic.replace('incident.', '')).join(' ')
    must(topics === 'opened late acked escalated resolved closed', `only these were announced: ${topics}`)
    const targets = [...new Set(told.flatMap((one) => one.targets))]
    return targets.length === 0 ? 'in the outbox; no target takes it' : `on its way to ${targets.join(', ')}`
  })
  await step('report', async () => {
    const shown = await showIncident(driver, id())
    const draft = postmortem(shown, granted(await driver.call('incident_impact', { id: id() })), driver.target.name)
    must(draft.includes('## Open questions'), 'it is not whole')
    return `${draft.split('\n').length} lines`
  })
  await step('signing key', async () => {
    const found = await signer()
    if (found === null) throw new Error('there is none: certificates stay unsigned')
    await found.sign(new TextEncoder().encode(title))
    return found.fingerprint.slice(0, 8)
  })
  return { target: driver.target.name, tenant, incidentId, steps, problem }
}

/** Who may not, and what could not be reached: neither is a chain that doesn't hold. */
function hindrance(error: unknown): Problem | null {
  if (!(error instanceof TmsError)) return null
  const denied = error.code === 'ROLE_DENIED' || error.code === 'IDENTITY_UNKNOWN'
  if (!denied && error.exit !== exit.outside) return null
  return { code: error.code, what: error.message, why: error.why, next: error.next }
}
