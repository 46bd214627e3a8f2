import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { eventKinds } from '../drivers/contract/security.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import type { Verification } from '../ledger/findings.ts'

/** What was tried, who is shut out for it, and letting them in again. */

export type SecurityEvents = Contract['security_events']['result']
export type SecurityBlocks = Contract['security_blocks']['result'] & { readonly all: boolean }
export type Unblocked = Contract['security_unblock']['result']

export type EventsWanted = {
  readonly tenant?: string | undefined
  readonly kind?: (typeof eventKinds)[number] | undefined
  readonly minutes: number
  readonly limit: number
}

export async function listEvents(driver: Driver, wanted: EventsWanted): Promise<SecurityEvents> {
  return granted(await driver.call('security_events', wanted))
}

export async function listBlocks(
  driver: Driver,
  { all, limit }: { readonly all: boolean; readonly limit: number },
): Promise<SecurityBlocks> {
  return { ...granted(await driver.call('security_blocks', { all, limit })), all }
}

/** `source`: an address with all keys at it, key@address, or a person's name. */
export async function unblock(
  driver: Driver,
  { source, why }: { readonly source: string; readonly why: string },
): Promise<Unblocked> {
  return granted(await driver.call('security_unblock', { request_id: randomUUID(), source, why }))
}

/** As many places as an incident shows. */
const mostPlaces = 20

/** A ledger that doesn't verify is an incident of the highest priority; the number of it, the same while it is open. */
export async function reportBrokenLedger(
  driver: Driver,
  { findings, more }: Pick<Verification, 'findings' | 'more'>,
): Promise<{ readonly incident: string }> {
  const places = findings.slice(0, mostPlaces).map(({ place, what }) => `${place}: ${what}`.slice(0, 300))
  const detail = { places, more: more + findings.length - places.length }
  return granted(await driver.call('security_ledger_broken', { request_id: randomUUID(), detail }))
}
