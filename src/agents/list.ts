import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { readStopFile, type StopFile } from '../incident/stop-file.ts'
import { suggest } from '../suggest.ts'

export type AgentList = Contract['agents_list']['result']
export type Agent = AgentList['agents'][number]
type Halt = Contract['fence_state']['result']['halts'][number]

export async function listAgents(driver: Driver, { tenant }: { tenant?: string | undefined }): Promise<AgentList> {
  return granted(await driver.call('agents_list', { tenant }))
}

/** The agent of this name; else an error that names the one that was meant. */
export function namedAgent({ agents }: AgentList, name: string): Agent {
  const found = agents.find(({ agent }) => agent === name)
  if (found) return found
  const meant = suggest(
    name,
    agents.map(({ agent }) => agent),
  )
  throw new TmsError({
    code: 'NOT_FOUND',
    what: `there is no agent "${name.slice(0, 63)}"`,
    why: `no loaded policy names it.${meant === null ? '' : ` Did you mean ${meant}?`}`,
    next: [...(meant === null ? [] : [`tms agents show ${meant}`]), 'tms agents list', 'tms agents policy load'],
  })
}

export type AgentStanding = Agent & { readonly fence: AgentList['fence']; readonly serving: readonly string[] }

/** One agent: its policy, its state, and the workers that serve it. */
export async function showAgent(
  driver: Driver,
  { agent, tenant }: { agent: string; tenant?: string | undefined },
): Promise<AgentStanding> {
  const list = await listAgents(driver, { tenant })
  return {
    ...namedAgent(list, agent),
    fence: list.fence,
    serving: list.workers
      .filter((worker) => worker.agents.includes(agent))
      .map(({ name, host }) => `${name} on ${host}`),
  }
}

export type FleetStatus = AgentList & {
  readonly target: string
  /** What is in force; null while nothing is. */
  readonly halt: Halt | null
  readonly safeMode: Halt | null
  readonly slots: number
  /** Workers that were there at the halt and have not said that they know of it. */
  readonly silent: Halt['silent']
  /** What stops the workers of the host that asks; null: nothing does. */
  readonly stopFile: StopFile | null
}

/** Everything that keeps the fleet from working, or may. */
export async function fleetStatus(driver: Driver, stopFile: string): Promise<FleetStatus> {
  const [list, { halts, resumed_ms_ago }] = await Promise.all([
    listAgents(driver, {}),
    driver.call('fence_state', {}).then((answer) => granted(answer)),
  ])
  // The newest come first: who stopped it is the first of those that are in force, and who pressed again is not.
  const inForce = (kind: Halt['kind']) =>
    halts.findLast((halt) => halt.kind === kind && halt.resumed_at === null) ?? null
  const halt = list.fence.halted ? inForce('halt') : null
  return {
    ...list,
    target: driver.target.name,
    halt,
    safeMode: list.fence.safe_mode ? inForce('safe_mode') : null,
    slots: list.workers.reduce((sum, worker) => sum + worker.slots, 0),
    silent: halt?.silent ?? [],
    stopFile: await readStopFile(stopFile, resumed_ms_ago),
  }
}
