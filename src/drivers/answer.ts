import type * as z from 'zod'
import { TmsError } from '../errors.ts'
import type { Contract, ContractFunction } from './contract.ts'
import { contract, contractVersion, refusalSchema } from './contract.ts'
import type { Refused } from './driver.ts'

/**
 * Answers are parsed on arrival, so that everything above a driver can trust its types, and a database that speaks
 * another contract is named as such instead of surfacing as `undefined` somewhere else.
 */
export function parseAnswer<F extends ContractFunction>(fn: F, answer: unknown): Contract[F]['result'] | Refused {
  const refusal = refusalSchema.safeParse(answer)
  if (refusal.success) return refusal.data
  const result = schemaOf(fn).safeParse(answer)
  // The cast is true because Contract[F]['result'] is by definition the output of this schema.
  if (result.success) return result.data as Contract[F]['result']
  const first = result.error.issues[0]
  throw new TmsError({
    code: 'CONTRACT_MISMATCH',
    what: `The database's answer to ${fn} doesn't follow contract ${contractVersion}.`,
    // Only the place and the kind of difference: the value itself may hold anything.
    why: first ? `At ${first.path.join('.') || 'the top'}: ${first.code}.` : 'It has an unknown shape.',
    next: ['tms db status', 'tms db push'],
  })
}

const schemas = new Map<ContractFunction, z.ZodType>()

function schemaOf(fn: ContractFunction): z.ZodType {
  const known = schemas.get(fn)
  if (known) return known
  const made = contract[fn].result()
  schemas.set(fn, made)
  return made
}
