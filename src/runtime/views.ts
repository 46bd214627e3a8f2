import type { Block } from '../ui/blocks.ts'
import type { FleetStats } from './fleet.ts'

export type Started = {
  readonly target: string
  readonly worker: string | null
  readonly agents: readonly string[]
  readonly slots: number
  readonly halted: boolean
  /** Where the door listens; null when it is shut. */
  readonly door: string | null
}

export function startedView({ target, worker, agents, slots, halted, door }: Started): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['database', target],
        ['worker', worker ?? 'signing in'],
        ['agents', agents.length > 0 ? agents.join(', ') : { text: 'none: nothing is worked here', tone: 'warn' }],
        ['slots', slots],
        ['fleet', halted ? { text: 'HALTED: nothing is worked until the resume', tone: 'bad' } : 'running'],
        ...(door === null ? [] : ([['door', door]] as const)),
      ],
    },
  ]
}

export type Supervising = { readonly target: string; readonly processes: number; readonly slots: number }

export function supervisingView({ target, processes, slots }: Supervising): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['database', target],
        ['processes', processes],
        ['slots', `${slots} each`],
      ],
    },
  ]
}

export function supervisedView({
  processes,
  crashes,
}: {
  readonly processes: number
  readonly crashes: number
}): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['processes', processes],
        ['crashed', crashes === 0 ? 0 : { text: String(crashes), tone: 'bad' }],
      ],
    },
  ]
}

export function endedView(stats: FleetStats): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['completed', stats.completed],
        ['failed', stats.failed],
        ['handed back', stats.returned],
        ['delivered', stats.delivered],
      ],
    },
  ]
}

/** One line of a worker's day. */
export function pulse(stats: FleetStats): string {
  const state = stats.halted ? 'HALTED' : stats.reachable ? 'working' : 'DATABASE AWAY'
  return `${state}: ${stats.running} running of ${stats.slots}, ${stats.waiting} waiting here, ${stats.completed} completed, ${stats.failed} failed, ${stats.delivered} delivered`
}
