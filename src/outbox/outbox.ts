import { randomUUID } from 'node:crypto'
import { checkIds } from '../agents/runs.ts'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError, type Problem } from '../errors.ts'

export type Outbox = Contract['outbox_list']['result']
export type Delivery = Outbox['deliveries'][number]

export type OutboxWanted = {
  readonly tenant?: string | undefined
  readonly target?: string | undefined
  readonly status?: string | undefined
  readonly limit: number
}

export async function listOutbox(driver: Driver, wanted: OutboxWanted): Promise<Outbox> {
  const { tenant, target, status, limit } = wanted
  return granted(await driver.call('outbox_list', { tenant, target, status, limit }))
}

/** One delivery with its payload, as far as the caller may see it. */
export async function showDelivery(
  driver: Driver,
  { id, tenant }: { id: string; tenant?: string | undefined },
): Promise<Delivery> {
  checkIds([id], 'delivery')
  const { deliveries } = granted(await driver.call('outbox_list', { tenant, id, limit: 1 }))
  const [delivery] = deliveries
  if (delivery) return delivery
  throw new TmsError({
    code: 'NOT_FOUND',
    what: `there is no delivery ${id}`,
    why: "it never was, it expired, or it is another tenant's",
    next: ['tms outbox list'],
  })
}

/** Without a tenant: the product's own deliveries. */
export type Retry = { readonly tenant?: string | undefined; readonly ids: readonly string[]; readonly why: string }
export type Retried = { readonly tenant: string | null; readonly ids: readonly string[]; readonly retried: number }

export async function retryDeliveries(driver: Driver, { tenant, ids, why }: Retry): Promise<Retried> {
  const wanted = checkIds(ids, 'delivery')
  const answer = await driver.call('outbox_retry', { request_id: randomUUID(), tenant, ids: wanted, why })
  return { tenant: tenant ?? null, ids: wanted, retried: granted(answer).retried }
}

/** What deliveries may take at most. */
export const lagSlo = { p95_ms: 5000, avg_ms: 2000 } as const

export type Lag = Contract['outbox_lag']['result'] & {
  /** Unknown without a delivery to measure; never ok then. */
  readonly verdict: 'ok' | 'breached' | 'unknown'
  readonly slo: typeof lagSlo
}

export async function outboxLag(
  driver: Driver,
  { tenant, minutes }: { tenant?: string | undefined; minutes?: number | undefined },
): Promise<Lag> {
  const lag = granted(await driver.call('outbox_lag', { tenant, minutes }))
  return { ...lag, verdict: verdictOf(lag), slo: lagSlo }
}

export function verdictOf({ p95_ms, avg_ms }: Pick<Lag, 'p95_ms' | 'avg_ms'>): Lag['verdict'] {
  if (p95_ms === null || avg_ms === null) return 'unknown'
  return Number(p95_ms) <= lagSlo.p95_ms && Number(avg_ms) <= lagSlo.avg_ms ? 'ok' : 'breached'
}

/** Why there is no verdict; null when there is one. */
export function lagUnknown({ verdict, dead, since }: Lag): Problem | null {
  if (verdict !== 'unknown') return null
  return {
    code: 'NO_DATA',
    what: 'The lag of the outbox is unknown.',
    why:
      dead === '0'
        ? `Nothing was delivered or waited since ${since.slice(0, 19)}.`
        : `${dead} ${dead === '1' ? 'delivery' : 'deliveries'} died since ${since.slice(0, 19)}, and nothing was delivered or waits.`,
    next: dead === '0' ? ['tms outbox lag --minutes 1440'] : ['tms outbox list --status dead'],
  }
}
