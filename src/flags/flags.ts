import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { suggest } from '../suggest.ts'
import { checkText, parseValue } from './value.ts'

export async function listFlags(
  driver: Driver,
  { tenant, match }: { tenant?: string | undefined; match?: string | undefined },
): Promise<Contract['flags_list']['result']> {
  const { scope, flags } = granted(await driver.call('flags_list', { tenant }))
  return { scope, flags: match === undefined ? flags : flags.filter((flag) => flag.key.includes(match)) }
}

export async function getFlag(
  driver: Driver,
  { key, tenant }: { key: string; tenant?: string | undefined },
): Promise<Contract['flags_get']['result']> {
  return withSuggestion(driver, key, async () => granted(await driver.call('flags_get', { key, tenant })))
}

export type FlagChange = {
  readonly key: string
  /** What was typed; null takes the setting away. */
  readonly text: string | null
  readonly tenant?: string | undefined
  readonly environment: boolean
  readonly percentage?: string | undefined
  readonly canary?: readonly string[] | undefined
  readonly why: string
}

export async function setFlag(driver: Driver, change: FlagChange): Promise<Contract['flags_set']['result']> {
  const { key, text, tenant, environment, percentage, canary, why } = change
  checkText('--why', why)
  if (percentage !== undefined) checkPercentage(percentage)
  // What is taken away needs no type, and may have left the catalogue.
  const value =
    text === null ? { unset: true } : { value: parseValue((await getFlag(driver, { key, tenant })).flag, text) }
  return granted(
    await driver.call('flags_set', {
      request_id: randomUUID(),
      key,
      level: tenant !== undefined ? 'tenant' : environment ? 'environment' : 'global',
      ...value,
      tenant,
      percentage,
      canary: canary && [...canary],
      why,
    }),
  )
}

export async function flagHistory(
  driver: Driver,
  input: { key?: string | undefined; tenant?: string | undefined; limit: number },
): Promise<Contract['flags_history']['result']> {
  const read = async () => granted(await driver.call('flags_history', input))
  return input.key === undefined ? read() : withSuggestion(driver, input.key, read)
}

export async function verifyFlags(driver: Driver): Promise<Contract['flags_verify']['result']> {
  return granted(await driver.call('flags_verify', {}))
}

export function checkPercentage(percentage: string): void {
  if (/^\d{1,3}(\.\d{1,2})?$/.test(percentage) && Number(percentage) <= 100) return
  throw new TmsError({
    code: 'INPUT_INVALID',
    what: `${percentage} is no percentage`,
    why: 'it lies between 0 and 100 and has at most two decimals',
    next: ['tms flags set --help'],
  })
}

/** "There is no flag x" is more use with the flag that was meant. */
async function withSuggestion<T>(driver: Driver, key: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof TmsError) || error.code !== 'NOT_FOUND' || !error.message.includes('no flag')) throw error
    const { flags } = granted(await driver.call('flags_list', {}))
    const meant = suggest(
      key,
      flags.map((flag) => flag.key),
    )
    if (meant === null) throw error
    throw new TmsError({
      code: error.code,
      what: error.message,
      why: `${error.why}. Did you mean ${meant}?`,
      next: [`tms flags get ${meant}`, ...error.next],
    })
  }
}
