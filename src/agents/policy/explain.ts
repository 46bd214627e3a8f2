import type { Contract } from '../../drivers/contract.ts'
import type { Driver } from '../../drivers/driver.ts'
import { granted } from '../../drivers/refusal.ts'
import { problemLine, type Keys } from '../../policy-file.ts'
import { suggest } from '../../suggest.ts'
import { policySha256 } from './load.ts'
import type { AgentPolicies, ReadPolicy } from './read.ts'

/** What the files say about one agent and one function. */
export type FileVerdict = {
  readonly allowed: boolean
  readonly reason: 'listed' | 'not_listed' | 'no_file' | 'file_failed'
  /** `file:line` that decides; the file that would have to be there when there is none. */
  readonly where: string
  readonly why: string
  /** A person has to agree before it commits. */
  readonly approval: boolean
  readonly limits: readonly Limit[]
  readonly may: {
    readonly publish: readonly string[]
    readonly enqueue: readonly string[]
    readonly apply: readonly string[]
  }
  readonly sha256: string | null
}

/** `line` is null where nothing is written and the default applies. */
export type Limit = { readonly name: string; readonly value: string; readonly line: number | null }

/** What the database holds, which is what is enforced. */
export type HeldVerdict = {
  readonly state: 'same' | 'differs' | 'absent' | 'not_asked'
  /** Null: unknown. */
  readonly allowed: boolean | null
  readonly why: string
  readonly sha256: string | null
  /** running, paused, draining or quarantined. */
  readonly agentState: string | null
  readonly breaker: string | null
}

export type Explanation = {
  readonly agent: string
  readonly function: string
  /** By the files and, when it was asked, by the database. */
  readonly allowed: boolean
  readonly file: FileVerdict
  readonly database: HeldVerdict
  readonly next: readonly string[]
}

export type HeldAgent = Contract['agents_list']['result']['agents'][number]

/** The database's policy of this agent; null when it holds none. */
export async function heldAgent(driver: Driver, agent: string): Promise<HeldAgent | null> {
  const { agents } = granted(await driver.call('agents_list', {}))
  return agents.find((held) => held.agent === agent) ?? null
}

/** `held` is a text when the database wasn't asked: why. */
export function explain(read: AgentPolicies, agent: string, fn: string, held: HeldAgent | null | string): Explanation {
  const file = byFile(read, agent, fn)
  const database = byDatabase(file, fn, held)
  const allowed = file.allowed && database.allowed !== false
  return { agent, function: fn, allowed, file, database, next: nextOf(file, database) }
}

function byFile(read: AgentPolicies, agent: string, fn: string): FileVerdict {
  const denied = {
    allowed: false,
    approval: false,
    limits: [],
    may: { publish: [], enqueue: [], apply: [] },
    sha256: null,
  }
  const failed = read.problems.filter((problem) => problem.agent === agent)
  const [first] = failed
  if (first !== undefined) {
    const more = failed.length > 1 ? `, and ${failed.length - 1} more` : ''
    const why = `the file failed to load, so the agent is denied everything: ${problemLine(first)}${more}`
    return { ...denied, reason: 'file_failed', where: `${first.path}:${first.line}`, why }
  }
  const own = read.policies.find((policy) => policy.agent === agent)
  const other = read.policies.find((policy) => policy.agent !== agent && policy.functionLines.has(fn))
  const elsewhere = other ? `; ${other.agent} may: ${other.path}:${other.functionLines.get(fn) ?? 1}` : ''
  if (own === undefined) {
    const meant = suggest(agent, [...new Set([...read.policies, ...read.problems].map((policy) => policy.agent))])
    const why = `there is no file for ${agent}, and what has no policy is denied${meant === null ? '' : `. Did you mean ${meant}?`}${elsewhere}`
    return { ...denied, reason: 'no_file', where: `${read.folders[0] ?? 'policies/agents'}/${agent}.yaml`, why }
  }
  const details = {
    limits: limitsOf(own),
    may: { publish: own.policy.publish, enqueue: own.policy.enqueue, apply: own.policy.apply },
    sha256: policySha256(own.policy),
  }
  const line = own.functionLines.get(fn)
  if (line === undefined) {
    const meant = suggest(fn, own.policy.functions)
    return {
      ...denied,
      ...details,
      reason: 'not_listed',
      where: `${own.path}:${own.lineOf(['functions']) ?? 1}`,
      why: `${fn} isn't listed there, and what isn't listed is denied${meant === null ? '' : `. Did you mean ${meant}?`}${elsewhere}`,
    }
  }
  const approval = own.policy.approval.includes(fn)
  const why = approval ? 'listed, and a person has to approve each task before it commits' : 'listed'
  return { ...details, allowed: true, reason: 'listed', where: `${own.path}:${line}`, why, approval }
}

function byDatabase(file: FileVerdict, fn: string, held: HeldAgent | null | string): HeldVerdict {
  if (typeof held === 'string') {
    return { state: 'not_asked', allowed: null, why: held, sha256: null, agentState: null, breaker: null }
  }
  if (held === null) {
    const why = 'the database holds no policy of this agent, so it denies everything'
    return { state: 'absent', allowed: false, why, sha256: null, agentState: null, breaker: null }
  }
  const allowed = held.functions.includes(fn)
  const state = held.policy_sha256 === file.sha256 ? 'same' : 'differs'
  const why =
    state === 'same'
      ? 'the database holds the same version'
      : `the database holds another version, and that one is enforced: it ${allowed ? 'allows' : 'denies'} ${fn}`
  return { state, allowed, why, sha256: held.policy_sha256, agentState: held.state, breaker: held.breaker }
}

function nextOf(file: FileVerdict, { state }: HeldVerdict): readonly string[] {
  const next: string[] = []
  if (file.reason === 'file_failed') next.push('tms agents policy check')
  if (file.reason === 'not_listed')
    next.push(
      `vi +${file.where.slice(file.where.lastIndexOf(':') + 1)} ${file.where.slice(0, file.where.lastIndexOf(':'))}`,
    )
  if (state === 'differs' || (state === 'absent' && file.sha256 !== null)) next.push('tms agents policy load')
  return next
}

const limitFields = [
  ['timeout', ['limits', 'timeout'], (p) => spell(p.timeout_ms / 1000)],
  ['attempts', ['limits', 'attempts'], (p) => String(p.max_attempts)],
  ['concurrency', ['limits', 'concurrency'], (p) => String(p.concurrency ?? "the fleet's")],
  ['requests a minute', ['limits', 'requests_per_minute'], (p) => String(p.requests_per_minute ?? 'no limit')],
  ['tokens a task', ['limits', 'per_task', 'tokens'], (p) => spending(p.tokens_per_task)],
  ['calls a task', ['limits', 'per_task', 'calls'], (p) => spending(p.calls_per_task)],
  ['cost a task', ['limits', 'per_task', 'cost'], (p) => spending(p.cost_per_task)],
  ['tokens a tenant and day', ['limits', 'per_tenant_per_day', 'tokens'], (p) => spending(p.tokens_per_day)],
  ['calls a tenant and day', ['limits', 'per_tenant_per_day', 'calls'], (p) => spending(p.calls_per_day)],
  ['cost a tenant and day', ['limits', 'per_tenant_per_day', 'cost'], (p) => spending(p.cost_per_day)],
  ['first retry after', ['backoff', 'first'], (p) => spell(p.backoff_ms / 1000)],
  ['later retries after, at most', ['backoff', 'most'], (p) => spell(p.backoff_cap_ms / 1000)],
  ['breaker opens above', ['breaker', 'errors_percent'], (p) => `${p.breaker_percent} % errors`],
  ['breaker counts from', ['breaker', 'samples'], (p) => `${p.breaker_samples} attempts`],
  ['breaker pauses for', ['breaker', 'pause'], (p) => spell(p.breaker_seconds)],
] as const satisfies readonly (readonly [string, Keys, (policy: ReadPolicy['policy']) => string])[]

function limitsOf({ policy, lineOf }: ReadPolicy): readonly Limit[] {
  return limitFields.map(([name, keys, value]) => ({ name, value: value(policy), line: lineOf(keys) }))
}

function spending(most: string | number | null): string {
  return most === null || Number(most) === 0 ? 'none' : String(most)
}

function spell(seconds: number): string {
  for (const [unit, size] of [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
  ] as const) {
    if (seconds % size === 0) return `${seconds / size}${unit}`
  }
  return `${seconds}s`
}
