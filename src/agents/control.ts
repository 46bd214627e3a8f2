import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError, type Problem } from '../errors.ts'
import { listAgents, namedAgent } from './list.ts'

/** What a lever moves: one agent everywhere, or all agents for one tenant. */
export type Steerable = { readonly kind: 'agent' | 'tenant'; readonly name: string }
type State = Contract['agents_control']['result']['after']

/** The verbs people type, and the state each leads to. */
const stateAfter = {
  pause: 'paused',
  drain: 'draining',
  quarantine: 'quarantined',
  resume: 'running',
} as const satisfies Record<string, State>
export type Verb = keyof typeof stateAfter

export type Steered = {
  readonly verb: Verb
  readonly what: Steerable
  /** Which database, and how many workers it knows: a lever that was pulled in the wrong folder shows here. */
  readonly target: string
  readonly workers: number | null
  readonly before: State
  readonly after: State
  /** Tasks in hand now; null when that couldn't be read. */
  readonly running: number | null
  /** Whether anything of it may still commit. Null where that was not asked: what drains may end. */
  readonly settled: boolean | null
  readonly settle_ms: number | null
  /** Who may still commit. */
  readonly survivors: readonly string[]
  /** Why it is unknown whether anything may still commit. */
  readonly unknown: string | null
}

export function steerable(verb: Verb, agent: string | undefined, tenant: string | undefined): Steerable {
  if (agent !== undefined && tenant === undefined) return { kind: 'agent', name: agent }
  if (tenant !== undefined && agent === undefined) return { kind: 'tenant', name: tenant }
  throw new TmsError({
    code: 'USAGE',
    what: agent === undefined ? 'It is not said what to steer.' : 'Both an agent and a tenant are given.',
    why: 'Name an agent, or a tenant with --tenant (or TMS_TENANT), and not both.',
    next: [`tms agents ${verb} --help`],
  })
}

/** Pulls the lever, and then tells what became of the work that was under way. */
export async function steer(driver: Driver, verb: Verb, what: Steerable, why: string): Promise<Steered> {
  const scope = what.kind === 'tenant' ? { tenant: what.name } : {}
  const changed = await control(driver, verb, what, why)
  const settling = verb === 'pause' || verb === 'quarantine'
  const settled = settling ? await settle(driver, scope) : nothingAsked
  return { verb, what, target: driver.target.name, ...changed, ...settled, ...(await lookAround(driver, what)) }
}

async function control(
  driver: Driver,
  verb: Verb,
  what: Steerable,
  why: string,
): Promise<Contract['agents_control']['result']> {
  const scope = what.kind === 'tenant' ? { tenant: what.name } : { agent: what.name }
  try {
    return granted(
      await driver.call('agents_control', { request_id: randomUUID(), ...scope, state: stateAfter[verb], why }),
    )
  } catch (error) {
    // Looked up only now: nothing is read before a stop is sent.
    if (error instanceof TmsError && error.code === 'NOT_FOUND' && what.kind === 'agent') {
      namedAgent(await listAgents(driver, {}), what.name)
    }
    throw error
  }
}

/** The state before a start, for whoever has to consent to it. An agent or tenant that isn't there is an error. */
export async function standing(driver: Driver, what: Steerable): Promise<string> {
  if (what.kind === 'agent') {
    const { state, breaker, why, breaker_why } = namedAgent(await listAgents(driver, {}), what.name)
    if (state !== 'running') return `${state}${because(why)}`
    return breaker === 'closed' ? 'running already' : `held by its breaker${because(breaker_why)}`
  }
  const { tenants } = await listAgents(driver, { tenant: what.name })
  const stopped = tenants.find(({ tenant }) => tenant === what.name)
  return stopped ? `${stopped.state}${because(stopped.why)}` : 'running already'
}

/** What keeps a stop from being one; null when nothing of it can commit any more, or may. */
export function notSettled({ verb, what, after, settled, survivors, unknown, settle_ms }: Steered): Problem | null {
  if (settled !== false) return null
  const named = `${what.kind} ${what.name}`
  const again = what.kind === 'agent' ? what.name : `--tenant ${what.name}`
  return {
    code: 'DB_BUSY',
    what:
      unknown === null
        ? `${named} is ${after}, and ${survivors.join(', ')} may still commit.`
        : `${named} is ${after}, and it is unknown whether something of it still commits.`,
    why: unknown ?? `What was committing when it was stopped did not end within ${settle_ms ?? 0} ms.`,
    next: [`tms agents ${verb} ${again} --why "look again"`, 'tms agents status'],
  }
}

const nothingAsked = { settled: null, settle_ms: null, survivors: [], unknown: null } as const

type Settling = Pick<Steered, 'settled' | 'settle_ms' | 'survivors' | 'unknown'>

/** The stop stands already, so what goes wrong from here on is a part of the answer and not its end. */
async function settle(driver: Driver, scope: { readonly tenant?: string }): Promise<Settling> {
  try {
    const { settled, ms, survivors } = granted(await driver.call('agents_settle', scope))
    return { settled, settle_ms: ms, survivors: survivors.map(holder), unknown: null }
  } catch (error) {
    if (!(error instanceof TmsError)) throw error
    return { settled: false, settle_ms: null, survivors: [], unknown: `${error.message} ${error.why}` }
  }
}

/** `3/42/1234`: a virtual transaction and the pid of its session; 0 where a prepared transaction has none. */
function holder(survivor: string): string {
  const [, transaction = survivor, pid = '0'] = /^(.*)\/(\d+)$/.exec(survivor) ?? []
  return pid === '0' ? `the prepared transaction ${transaction}` : `the database session ${pid}`
}

async function lookAround(driver: Driver, what: Steerable): Promise<Pick<Steered, 'workers' | 'running'>> {
  try {
    const all = await listAgents(driver, {})
    const concerned =
      what.kind === 'agent'
        ? all.agents.filter(({ agent }) => agent === what.name)
        : (await listAgents(driver, { tenant: what.name })).agents
    return { workers: all.workers.length, running: concerned.reduce((sum, agent) => sum + agent.running, 0) }
  } catch (error) {
    if (!(error instanceof TmsError)) throw error
    return { workers: null, running: null }
  }
}

function because(why: string): string {
  return why === '' ? '' : `: ${why}`
}
