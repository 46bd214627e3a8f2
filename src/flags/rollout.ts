import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { parseSeconds } from '../duration.ts'
import { checkPercentage, getFlag } from './flags.ts'
import { parseValue } from './value.ts'

export type RolloutState = Contract['flags_rollout_state']['result']

export async function rolloutState(driver: Driver, key: string): Promise<RolloutState> {
  return granted(await driver.call('flags_rollout_state', { key }))
}

/** One step, checked and ready. `stage` is what it enters; `consent` is the name a person gives, or null for none. */
export type RolloutStep = {
  readonly key: string
  readonly stage: 'canary' | 'cohort' | 'all' | 'off'
  readonly consent: string | null
  readonly args: Omit<Contract['flags_rollout']['args'], 'request_id' | 'consent' | 'why'>
}

export type RolloutPlan = {
  readonly value: string
  readonly canary: readonly string[]
  /** `early=10`: a name and a percentage. */
  readonly cohort: string
  readonly wait?: string | undefined
}

export async function planStart(driver: Driver, key: string, plan: RolloutPlan): Promise<RolloutStep> {
  const [name, percentage, ...more] = plan.cohort.split('=')
  if (!name || !percentage || more.length > 0) {
    throw new TmsError({
      code: 'USAGE',
      what: `"${plan.cohort}" is no cohort`,
      why: 'it takes a name and a percentage: early=10',
      next: [`tms flags rollout ${key} --help`],
    })
  }
  checkPercentage(percentage)
  const { flag } = await getFlag(driver, { key })
  return {
    key,
    stage: 'canary',
    consent: await consentFor(driver, key, 'canary'),
    args: {
      key,
      step: 'start',
      value: parseValue(flag, plan.value),
      canary: [...plan.canary],
      cohort: { name, percentage },
      ...(plan.wait === undefined ? {} : { wait_seconds: parseSeconds(plan.wait, { flag: '--wait', most: '30d' }) }),
    },
  }
}

export async function planNext(driver: Driver, key: string): Promise<RolloutStep> {
  const state = await rolloutState(driver, key)
  const stage = state.since === null ? null : state.next_stage
  // Without a next stage the database refuses and says why; it is asked all the same.
  if (stage !== 'cohort' && stage !== 'all') return { key, stage: 'all', consent: null, args: { key, step: 'next' } }
  return { key, stage, consent: await consentFor(driver, key, stage), args: { key, step: 'next' } }
}

/** Turning off never asks. */
export function planOff(key: string): RolloutStep {
  return { key, stage: 'off', consent: null, args: { key, step: 'off' } }
}

export async function takeStep(driver: Driver, step: RolloutStep, why: string): Promise<RolloutState> {
  return granted(
    await driver.call('flags_rollout', {
      ...step.args,
      request_id: randomUUID(),
      ...(step.consent === null ? {} : { consent: step.consent }),
      why,
    }),
  )
}

async function consentFor(driver: Driver, key: string, stage: string): Promise<string | null> {
  const { health } = await rolloutState(driver, key)
  return health === 'green' ? null : `${key}@${stage}`
}
