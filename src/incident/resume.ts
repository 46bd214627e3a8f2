import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError, type Problem } from '../errors.ts'
import { words } from './words.ts'
import { endStopFile } from './stop-file.ts'

/**
 * The way back: the record, what a lever changed, the fence, and then the slots in three stages with a look at the
 * fleet between them. Stopped at a stage it goes on from there the next time.
 */

export type Health = Contract['incident_health']['result']
type Step = Contract['incident_resume']['result']

export type Way = {
  readonly id: string
  readonly why: string
  /** How long a stage is watched. */
  readonly watchMs: number
  readonly everyMs: number
  readonly now: () => number
  readonly pause: (ms: number) => Promise<void>
  /** How the fleet does; the database's own figures unless somebody knows better. */
  readonly health?: ((id: string) => Promise<Health>) | undefined
  readonly report: (text: string) => void
  /** What may still stop this host's workers: a resume ends that too. */
  readonly stopFile?: string
  /** That it is over: whoever was alerted then hears of it. */
  readonly relieve?: () => Promise<void>
}

export type Stage = { readonly percent: number; readonly state: Health['state'] | null; readonly why: string }

export type Resumed = {
  readonly incidentId: string
  readonly target: string
  readonly epoch: number
  readonly lifted: boolean
  /** What its lever had lowered was back before: nothing was undone, and the slots are as they were. */
  readonly needless: boolean
  readonly percent: number
  readonly workers: number
  readonly stages: readonly Stage[]
  readonly undone: Step['undone']
  readonly kept: Step['kept']
  /** Guarded tables take no writes yet: that is left by its own command. */
  readonly safeMode: boolean
  /** Why it stands at this stage; null when all of it is back. */
  readonly stopped: Stage | null
}

export type Standing = {
  readonly target: string
  /** What is typed to consent: which database, and which incident of it. To agree as the second person has another name. */
  readonly names: { readonly resume: string; readonly approve: string }
  readonly type: string
  readonly title: string
  readonly halted: boolean
  readonly epoch: number
  readonly safeMode: boolean
  readonly percent: number
  /** Its own resume was begun and stopped at a stage. */
  readonly begun: boolean
  /** It was resumed to its end, by whom. */
  readonly resumedBy: string | null
  readonly tenant: string | null
  readonly levers: number
  /** What else is open with the highest priority: the looks at the fleet's health between the stages don't judge by it. */
  readonly others: readonly string[]
}

/** What would be resumed, for whoever has to consent. */
export async function standing(driver: Driver, id: string): Promise<Standing> {
  const { incident, fence, slots_percent, resuming, levers } = granted(
    await driver.call('incident_show', { id, limit: 1 }),
  )
  const { incidents } = granted(await driver.call('incident_list', {}))
  return {
    target: driver.target.name,
    names: {
      resume: `${driver.target.consentName}@incident-${id}`,
      approve: `${driver.target.consentName}@approve-${id}`,
    },
    type: incident.type,
    title: incident.title,
    halted: fence.halted,
    epoch: fence.epoch,
    safeMode: fence.safe_mode,
    percent: slots_percent,
    begun: resuming === incident.id,
    resumedBy: incident.resolution === 'resumed' ? incident.resolved_by : null,
    tenant: incident.tenant,
    levers: levers.filter(({ kind, undone_at }) => kind === 'soft_degrade' && undone_at === null).length,
    others: incidents
      .filter((other) => other.priority === 'P1' && other.id !== incident.id)
      .map((other) => `Incident ${other.id} is open too, with priority P1: ${other.title}`),
  }
}

export async function approveResume(driver: Driver, id: string, why: string): Promise<Step> {
  return granted(
    await driver.call('incident_resume', { request_id: randomUUID(), id, step: 'approve', why: words(why, 1000) }),
  )
}

export async function resumeIncident(driver: Driver, way: Way, again = 5): Promise<Resumed> {
  try {
    return await goThrough(driver, way)
  } catch (error) {
    if (again === 0 || !(error instanceof TmsError) || (error.code !== 'CONFLICT' && error.code !== 'STAGE_REFUSED'))
      throw error
    // Somebody else may be resuming it too: then it stands further on, or is over, and that is no failure.
    const now = await standing(driver, way.id)
    if (now.halted || now.levers > 0 || !(now.begun || (now.resumedBy !== null && now.percent === 100))) throw error
    if (now.begun) return resumeIncident(driver, way, again - 1)
    const { workers } = granted(await driver.call('incident_health', { id: way.id }))
    const { target, epoch, percent, safeMode } = now
    const stages = [{ percent, state: null, why: `all of it is back: ${now.resumedBy ?? 'somebody'} resumed it` }]
    const nothing = { lifted: false, needless: false, undone: [], kept: [], stopped: null }
    return { incidentId: way.id, target, epoch, percent, workers, stages, safeMode, ...nothing }
  }
}

async function goThrough(driver: Driver, way: Way): Promise<Resumed> {
  const { id, report } = way
  const step = async (args: Pick<Contract['incident_resume']['args'], 'step' | 'percent'>) =>
    granted(await driver.call('incident_resume', { request_id: randomUUID(), id, why: words(way.why, 1000), ...args }))
  const before = await standing(driver, id)
  // Begun before and stopped at a stage: the record and the fence are behind it.
  const goesOn = !before.halted && before.levers === 0 && (before.begun || before.type === 'emergency_stop')
  let lifted = false
  let last: Step | null = null
  let undone: Step['undone'] = []
  let kept: Step['kept'] = []
  let needless = false
  if (!goesOn) {
    const prepared = await step({ step: 'prepare' })
    last = prepared
    ;({ undone, kept } = prepared)
    if (before.type === 'emergency_stop') {
      last = await step({ step: 'lift' })
      lifted = true
      report('The fence is lifted.')
    } else if (undone.length === 0) {
      // Unless somebody else has undone it just now: then it goes on from there.
      needless = !(await standing(driver, id)).begun
    }
  }
  // Before the stages are watched: what stops this host must not outlive a resume that is broken off.
  if (before.type === 'emergency_stop') await endStop(driver, way)
  const stages: Stage[] = []
  let percent = last?.percent ?? before.percent
  let stopped: Stage | null = null
  if (before.tenant === null && !needless) {
    while (percent < 100 && stopped === null) {
      const { state, why } = await watch(driver, way, percent)
      const stage = { percent, state, why }
      stages.push(stage)
      if (state === 'green' || state === 'idle') {
        last = await step({ step: 'slots', percent: percent < 50 ? 50 : 100 })
        percent = last.percent
        report(`${percent} % of the slots.`)
      } else stopped = stage
    }
    // All slots were there already: what is left is to say that it is over.
    if (stages.length === 0) last = await step({ step: 'slots', percent: 100 })
  }
  const { safeMode } = await standing(driver, id)
  return {
    incidentId: id,
    target: before.target,
    epoch: last?.epoch ?? 0,
    lifted,
    needless,
    percent,
    workers: last?.workers ?? 0,
    stages: [
      ...stages,
      ...(stopped === null
        ? [{ percent, state: null, why: needless ? 'nothing was held back any more' : 'all of it is back' }]
        : []),
    ],
    undone,
    kept,
    safeMode,
    stopped,
  }
}

async function endStop(driver: Driver, { stopFile, relieve, report }: Way): Promise<void> {
  if (stopFile === undefined) return
  const { resumed_ms_ago } = granted(await driver.call('fence_state', {}))
  const found = await endStopFile(stopFile, resumed_ms_ago)
  if (found === null) return
  if (found.over) await relieve?.()
  report(
    found.over
      ? `The stop file of this host is gone: ${stopFile}.`
      : `The stop file of this host is newer than the last halt, and its workers stand still: press again, then resume. ${stopFile}.`,
  )
}

const repeatMs = 10_000

/** Watched to the end of its time; what is red ends it at once. */
async function watch(driver: Driver, way: Way, percent: number): Promise<Health> {
  const look = way.health ?? (async (id: string) => granted(await driver.call('incident_health', { id })))
  const until = way.now() + way.watchMs
  let said = { text: '', at: 0 }
  for (;;) {
    const health = await look(way.id)
    const left = until - way.now()
    const text = `${percent} % of the slots: ${health.state}, ${health.why}.`
    // What is no news is said now and then: somebody may read it in a log.
    if (text !== said.text || way.now() - said.at >= repeatMs) {
      way.report(text)
      said = { text, at: way.now() }
    }
    if (health.state === 'red' || left <= 0) return health
    await way.pause(Math.min(way.everyMs, left))
  }
}

export function stoppedProblem({ stopped, incidentId }: Resumed): Problem | null {
  if (stopped === null || stopped.state === 'red') return null
  return {
    code: 'NO_DATA',
    what: `It stands at ${stopped.percent} % of the slots: nothing shows yet whether the fleet is well.`,
    why: `${stopped.why}. Unknown is not green.`,
    next: [`tms incident resume ${incidentId}`, 'tms agents status'],
  }
}

export function mayResume(standing: Standing, id: string): void {
  if (standing.type === 'emergency_stop' || standing.type === 'soft_degrade') return
  throw new TmsError({
    code: 'CONFLICT',
    what: `Incident ${id} has nothing to resume.`,
    why: `It is about ${standing.type}.`,
    next: ['tms incident list', `tms incident resolve ${id} --why <reason>`],
  })
}
