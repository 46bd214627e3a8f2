import { createHash, randomUUID } from 'node:crypto'
import type { Contract } from '../../drivers/contract.ts'
import type { AgentPolicy } from '../../drivers/contract/fleet.ts'
import type { Driver } from '../../drivers/driver.ts'
import { granted } from '../../drivers/refusal.ts'
import type { AgentPolicies } from './read.ts'

export type Loaded = Contract['agents_policies_load']['result']

/**
 * Makes the database's policies these, and no others: an agent whose file is broken or gone is denied from then on. The
 * problems aren't the database's business; whoever calls reports them.
 */
export async function loadAgentPolicies(
  driver: Driver,
  { policies }: Pick<AgentPolicies, 'policies'>,
): Promise<Loaded> {
  return granted(
    await driver.call('agents_policies_load', {
      request_id: randomUUID(),
      policies: policies.map(({ policy }) => policy),
    }),
  )
}

/** The same as the database makes of it: two of them are equal when nothing in the policy differs. */
export function policySha256(policy: AgentPolicy): string {
  return createHash('sha256').update(jsonbText(policy)).digest('hex')
}

type Plain = string | number | null | readonly string[] | { readonly [key: string]: Plain }

/**
 * How Postgres writes a jsonb value down: shorter keys first, then by their bytes. Enough for policies, whose texts are
 * letters, digits and a few signs and whose numbers have at most two decimals.
 */
function jsonbText(value: Plain): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (isList(value)) return `[${value.map(jsonbText).join(', ')}]`
  const entries = Object.entries(value).toSorted(([a], [b]) => a.length - b.length || (a < b ? -1 : 1))
  return `{${entries.map(([key, inner]) => `${JSON.stringify(key)}: ${jsonbText(inner)}`).join(', ')}}`
}

function isList(value: readonly string[] | { readonly [key: string]: Plain }): value is readonly string[] {
  return Array.isArray(value)
}
