import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { ratio, type Check, type Consequence } from './judge.ts'
import type { Posture } from './posture.ts'
import type { Limits } from './slo.ts'

export type Acted = {
  readonly action: Consequence
  readonly check: string
  /** What the database made of it, or why it wasn't asked. */
  readonly acted: Contract['posture_act']['result']['acted'] | 'too few samples' | 'no agent to blame' | 'refused'
  readonly id: string | null
  readonly subject: string
  readonly before: string
  readonly after: string
  /** Why it was refused. */
  readonly why: string | null
}

/**
 * Draws the consequences of a posture that is on record (`recordPosture`): the database refuses others. Called each
 * time, it acts once for each breach; whether it acts or only reports stands in the policy.
 */
export async function actOnPosture(driver: Driver, posture: Posture, slo: Limits): Promise<readonly Acted[]> {
  const acted: Acted[] = []
  for (const check of posture.checks) {
    if (check.state !== 'red' || check.observed === null) continue
    for (const action of check.consequences) acted.push(await draw(driver, action, check, posture, slo))
  }
  return acted
}

async function draw(driver: Driver, action: Consequence, check: Check, posture: Posture, slo: Limits): Promise<Acted> {
  const policy = slo.consequences[action]
  const nothing = { action, check: check.name, id: null, subject: 'fleet', before: '', after: '', why: null }
  if (check.samples < policy.samples) return { ...nothing, acted: 'too few samples' }
  const agent = action === 'quarantine' ? offender(posture, slo) : null
  if (action === 'quarantine' && agent === null) return { ...nothing, acted: 'no agent to blame' }
  try {
    const answer = granted(
      await driver.call('posture_act', {
        request_id: randomUUID(),
        action,
        check: check.name,
        ...(agent === null ? {} : { agent }),
        report_only: policy.report_only,
        ...(action === 'throttle'
          ? { percent: slo.consequences.throttle.percent, least: slo.consequences.throttle.least }
          : {}),
        observed: `${check.observed ?? ''} ${check.unit}`,
        limit: `${check.comparison} ${check.limit}`,
        samples: String(check.samples),
      }),
    )
    if (answer.acted === 'done' && action === 'quarantine') await settle(driver)
    const { acted, id, subject } = answer
    return { ...nothing, acted, id, subject, before: spell(answer.before), after: spell(answer.after) }
  } catch (error) {
    // One that is refused (a flag the catalogue lacks) must not keep the others from happening.
    if (!(error instanceof TmsError) || error.code !== 'CONFLICT') throw error
    return { ...nothing, acted: 'refused', why: error.why }
  }
}

/** The agent with the lowest success of its own, of those with enough samples and below the limit. */
export function offender({ agents }: Pick<Posture, 'agents'>, slo: Limits): string | null {
  const limit = slo.checks.task_success_percent.at_least
  const named = { name: '', group: 'service', source: '', window: 'now' } as const
  const guilty = agents.flatMap(({ agent, completed, failed }) => {
    const ended = BigInt(completed) + BigInt(failed)
    if (ended < BigInt(slo.consequences.quarantine.samples)) return []
    const own = ratio(named, BigInt(completed), ended, 'at least', limit, {})
    return own.state === 'red' ? [{ agent, share: Number(completed) / Number(ended) }] : []
  })
  return guilty.toSorted((a, b) => a.share - b.share || a.agent.localeCompare(b.agent))[0]?.agent ?? null
}

/** The quarantine stands already; this only waits for what had passed before it. */
async function settle(driver: Driver): Promise<void> {
  try {
    granted(await driver.call('agents_settle', {}))
  } catch (error) {
    if (!(error instanceof TmsError)) throw error
  }
}

// ---- looking at them, and undoing

export type Action = Contract['posture_actions']['result']['actions'][number]
export type Actions = Contract['posture_actions']['result']

export async function listActions(driver: Driver, { limit }: { limit: number }): Promise<Actions> {
  return granted(await driver.call('posture_actions', { limit }))
}

/** One of them, for whoever consents to undoing it. */
export async function actionToUndo(driver: Driver, id: string): Promise<Action & { readonly name: string }> {
  const { actions } = /^\d{1,18}$/.test(id)
    ? granted(await driver.call('posture_actions', { limit: 1, id }))
    : { actions: [] }
  const [action] = actions
  if (action) return { ...action, name: `${action.action}/${action.id}` }
  throw new TmsError({
    code: 'NOT_FOUND',
    what: `there is no action ${id.slice(0, 20)}`,
    why: 'none has this number',
    next: ['tms posture actions'],
  })
}

export type Undone = Contract['posture_undo']['result']

export async function undoAction(driver: Driver, id: string, why: string): Promise<Undone> {
  return granted(await driver.call('posture_undo', { request_id: randomUUID(), id, why }))
}

export function spell(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}
