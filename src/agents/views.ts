import { stopFileRows } from '../incident/stop-file.ts'
import type { Block, Cell } from '../ui/blocks.ts'
import type { Steered } from './control.ts'
import type { Agent, AgentList, AgentStanding, FleetStatus } from './list.ts'
import {
  effectNames,
  type Decided,
  type EffectNames,
  type Logs,
  type Runs,
  type waitingTasks,
  type WaitingTask,
} from './runs.ts'

const right = (title: string) => ({ title, align: 'right' }) as const

/** To the second, and with a space: a narrow column breaks it there and not inside a number. */
export function moment(at: string): string
export function moment(at: string | null): string | null
export function moment(at: string | null): string | null {
  return at === null ? null : at.slice(0, 19).replace('T', ' ')
}

export function agentsView({ agents }: AgentList): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['agent', 'state', right('running'), right('waiting'), right('to approve')],
      rows: agents.map((agent) => [
        agent.agent,
        standing(agent),
        agent.running,
        many(agent.waiting),
        agent.awaiting_approval,
      ]),
      empty: 'No agents: load their policies with tms agents policy load',
    },
  ]
}

export function agentView(agent: AgentStanding): readonly Block[] {
  const { policy } = agent
  const limit = (value: string | number | null, unit = '') => (value === null ? 'no limit' : `${value}${unit}`)
  return [
    {
      kind: 'facts',
      rows: [
        ['agent', agent.agent],
        ['state', standing(agent)],
        ...(agent.state === 'running'
          ? []
          : ([
              ['since', moment(agent.since)],
              ['why', agent.why],
            ] as const)),
        ...(agent.fence.halted ? [['fleet', { text: 'halted', tone: 'bad' }] as const] : []),
        ['tasks', `${agent.running} running, ${many(agent.waiting)} waiting, ${agent.awaiting_approval} to approve`],
        ['served by', agent.serving.join(', ') || 'no worker that you may see'],
      ],
    },
    { kind: 'heading', text: `Policy ${agent.policy_sha256.slice(0, 12)}` },
    {
      kind: 'facts',
      rows: [
        ['functions', policy.functions.join(' ')],
        ['need approval', policy.approval.join(' ') || 'none'],
        ['may publish', policy.publish.join(' ') || 'nothing'],
        ['may enqueue', policy.enqueue.join(' ') || 'nothing'],
        ['may apply', policy.apply.join(' ') || 'nothing'],
        ['attempts', `${policy.max_attempts}, each at most ${policy.timeout_ms} ms`],
        ['backoff', `${policy.backoff_ms} ms, doubled up to ${policy.backoff_cap_ms} ms`],
        ['at once', limit(policy.concurrency)],
        ['a minute', limit(policy.requests_per_minute, ' requests')],
        [
          'a task',
          `tokens ${limit(policy.tokens_per_task)}, calls ${limit(policy.calls_per_task)}, cost ${limit(policy.cost_per_task)}`,
        ],
        [
          'a day',
          `tokens ${limit(policy.tokens_per_day)}, calls ${limit(policy.calls_per_day)}, cost ${limit(policy.cost_per_day)}`,
        ],
        [
          'breaker',
          `opens at ${policy.breaker_percent} % errors of ${policy.breaker_samples} or more, for ${policy.breaker_seconds} s`,
        ],
      ],
    },
  ]
}

export function statusView(status: FleetStatus): readonly Block[] {
  const { fence, halt, safeMode, workers, agents, tenants, silent, slots, limit } = status
  const total = (count: (agent: Agent) => number) => agents.reduce((sum, agent) => sum + count(agent), 0)
  const stopped = [
    ...agents
      .filter(({ state }) => state !== 'running')
      .map((a) => [`agent ${a.agent}`, a.state, a.since, a.why] as const),
    ...tenants.map((t) => [`tenant ${t.tenant ?? ''}`, t.state, t.since, t.why] as const),
  ]
  const breakers = agents.filter(({ breaker }) => breaker !== 'closed')
  const begun = (by: typeof halt) =>
    by === null ? '' : ` since ${moment(by.at)} by ${by.by}${by.why && `: ${by.why}`}`
  return [
    {
      kind: 'facts',
      rows: [
        ['database', status.target],
        [
          'fence',
          fence.halted
            ? { text: `HALTED${begun(halt)} (epoch ${fence.epoch})`, tone: 'bad' }
            : { text: `open (epoch ${fence.epoch})`, tone: 'good' },
        ],
        ['safe mode', fence.safe_mode ? { text: `ON${begun(safeMode)}`, tone: 'bad' } : 'off'],
        ...stopFileRows(status.stopFile),
        ['workers', workers.length === 0 ? 'none that you may see' : workers.length],
        [
          'slots',
          workers.length === 0
            ? `at most ${limit}`
            : { text: `${slots} of at most ${limit}`, tone: slots > limit ? 'bad' : 'strong' },
        ],
        [
          'tasks',
          `${total((a) => a.running)} running, ${many(total((a) => a.waiting))} waiting, ${total((a) => a.awaiting_approval)} to approve`,
        ],
        ['agents', stopped.length === 0 ? `${agents.length}, all running` : agents.length],
      ],
    },
    {
      kind: 'table',
      columns: ['stopped', 'state', 'since', 'why'],
      rows: stopped.map(([who, state, since, why]) => [who, { text: state, tone: 'warn' }, moment(since), why]),
      empty: '',
    },
    {
      kind: 'table',
      columns: ['agent', 'breaker', 'until', 'why'],
      rows: breakers.map((a) => [
        a.agent,
        { text: a.breaker.replace('_', ' '), tone: 'warn' },
        moment(a.breaker_until),
        a.breaker_why,
      ]),
      empty: '',
    },
    {
      kind: 'table',
      columns: ['silent since the halt', 'host', 'lease until'],
      rows: silent.map(({ worker, host, lease_until }) => [{ text: worker, tone: 'warn' }, host, moment(lease_until)]),
      empty: '',
    },
    {
      kind: 'table',
      columns: ['worker', 'host', right('slots'), right('holds'), 'agents'],
      rows: workers.map((w) => [
        w.name,
        `${w.host} ${w.pid}`,
        w.slots === w.wanted ? w.slots : `${w.slots} of ${w.wanted}`,
        w.holds,
        w.agents.join(' '),
      ]),
      empty: '',
    },
  ]
}

export function steeredView(steered: Steered): readonly Block[] {
  const { what, target, before, after, running, workers, settled } = steered
  const named = `${what.kind} ${what.name}`
  return [
    {
      kind: 'text',
      text: {
        text: before === after ? `${named} is ${after}, as before` : `${named}: ${before} -> ${after}`,
        tone: 'strong',
      },
    },
    {
      kind: 'facts',
      rows: [
        ['database', `${target}, ${workers === null ? 'workers unknown' : count(workers, 'worker')}`],
        ['in hand', inHand(after, running)],
        ...(settled === null ? [] : [['settled', settling(steered)] as const]),
      ],
    },
    {
      kind: 'next',
      commands:
        after === 'running'
          ? []
          : [`tms agents resume ${what.kind === 'agent' ? what.name : `--tenant ${what.name}`} --why <reason>`],
    },
  ]
}

function inHand(after: Steered['after'], running: number | null): string {
  if (running === null) return 'unknown'
  const tasks = count(running, 'task')
  if (after === 'running' || running === 0) return tasks
  return after === 'draining' ? `${tasks}, which may end` : `${tasks}, which will not commit`
}

function settling({ settled, survivors, unknown }: Steered): Cell {
  if (settled) return { text: 'nothing of it commits any more', tone: 'good' }
  return { text: unknown === null ? `NO: ${survivors.join(', ')}` : 'UNKNOWN', tone: 'bad' }
}

/** The id and nothing else: `id=$(tms agents enqueue ...)`. */
export function enqueuedView({ id }: { readonly id: string }): readonly Block[] {
  return [{ kind: 'text', text: id }]
}

export function runsView({ task, runs }: Runs): readonly Block[] {
  return [
    ...(task === null
      ? []
      : [
          {
            kind: 'facts',
            rows: [
              ['task', task.id],
              ['tenant', task.tenant],
              ['function', task.function],
              ['status', { text: task.status.replace('_', ' '), tone: taskTone(task.status) }],
              ['attempts', `${task.attempts} of ${task.max_attempts}`],
              ['created', moment(task.created_at)],
              ...(task.status === 'pending' ? [['next', moment(task.next_run_at)] as const] : []),
              ...(task.finished_at === null ? [] : [['finished', moment(task.finished_at)] as const]),
              ...(task.class === null ? [] : [['failed by', `${task.class}: ${task.error ?? 'not shown'}`] as const]),
              ['payload', JSON.stringify(task.payload)],
              ...(task.output === null ? [] : [['output', JSON.stringify(task.output)] as const]),
            ],
          } as const,
        ]),
    {
      kind: 'table',
      columns: ['finished', 'task', 'function', 'outcome', right('ms'), 'error'],
      rows: runs.map((run) => [
        moment(run.finished_at),
        `${run.task}#${run.attempt}`,
        `${run.tenant} ${run.function}`,
        { text: run.outcome.replace('_', ' '), tone: run.outcome === 'completed' ? 'good' : 'warn' },
        run.ms,
        run.class === null ? '' : `${run.class}${run.error === null ? '' : `: ${run.error}`}`,
      ]),
      empty: task === null ? 'No runs in the last day.' : 'Not tried yet.',
    },
  ]
}

export function logsView({ logs }: Logs): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['at', 'level', 'agent', 'task', 'message'],
      rows: logs.map((log) => [
        moment(log.at),
        { text: log.level, tone: log.level === 'error' ? 'bad' : log.level === 'warn' ? 'warn' : 'dim' },
        log.agent,
        log.task,
        log.message,
      ]),
      empty: 'No logs.',
    },
  ]
}

export function waitingView({ tasks }: Awaited<ReturnType<typeof waitingTasks>>): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['task', 'tenant', 'function', 'waits since', 'will'],
      rows: tasks.map((task) => [
        task.id,
        task.tenant,
        task.function,
        moment(task.parked_at ?? task.created_at),
        willDo(task.effects),
      ]),
      empty: 'Nothing waits for approval.',
    },
    {
      kind: 'next',
      commands: tasks.slice(0, 1).map(({ id, tenant }) => `tms agents approve ${id} --list --tenant ${tenant}`),
    },
  ]
}

export function waitingTaskView({ task, about }: { task: string; about: WaitingTask | null }): readonly Block[] {
  if (about === null) return [{ kind: 'text', text: `Task ${task}: your role may not see what it will do.` }]
  const { id, tenant, agent, effects } = about
  return [
    {
      kind: 'facts',
      rows: [
        ['task', id],
        ['tenant', tenant],
        ['agent', agent],
        ['function', about.function],
        ['waits since', moment(about.parked_at ?? about.created_at)],
        ['will', { text: willDo(effectNames(about)), tone: 'strong' }],
        ['in full', effects === null ? 'not shown to this role' : JSON.stringify(effects)],
      ],
    },
    { kind: 'next', commands: [`tms agents approve ${id} --tenant ${tenant} --why <reason>`] },
  ]
}

/** What whoever consents is told; null: they may not look at the task. */
export function purpose(about: WaitingTask | null): string {
  return about === null ? 'do what your role may not see' : willDo(effectNames(about))
}

/** In words: `publish rates.quoted, enqueue rates.two`. */
function willDo(effects: EffectNames | null): string {
  if (effects === null) return 'not shown to this role'
  const parts = [
    ...effects.apply.map((name) => `apply ${name}`),
    ...effects.publish.map((name) => `publish ${name}`),
    ...effects.enqueue.map((name) => `enqueue ${name}`),
  ]
  return parts.join(', ') || 'end, and nothing else'
}

export function decidedView({ task, approve, outcome }: Decided): readonly Block[] {
  const done = !approve || outcome === 'completed'
  return [
    {
      kind: 'text',
      text: {
        text: approve
          ? outcome === 'completed'
            ? `Task ${task} is approved: what it wanted to do is done.`
            : `Task ${task} was approved and could not be ended so: it is ${outcome ?? 'unknown'}.`
          : `Task ${task} is rejected: nothing of it was done.`,
        tone: done ? 'good' : 'bad',
      },
    },
    { kind: 'next', commands: done ? [] : [`tms agents runs --task ${task}`] },
  ]
}

function standing({ state, breaker }: Pick<Agent, 'state' | 'breaker'>): Cell {
  if (state !== 'running') return { text: state, tone: 'warn' }
  if (breaker !== 'closed') return { text: `breaker ${breaker.replace('_', ' ')}`, tone: 'warn' }
  return { text: 'running', tone: 'good' }
}

function taskTone(status: NonNullable<Runs['task']>['status']): 'good' | 'bad' | 'warn' | 'strong' {
  if (status === 'completed') return 'good'
  if (status === 'failed' || status === 'quarantined') return 'bad'
  return status === 'awaiting_approval' ? 'warn' : 'strong'
}

/** The database counts to a thousand in each queue, so a large number is a lower bound. */
function many(waiting: number): string {
  return waiting >= 1000 ? `${waiting}+` : String(waiting)
}

function count(n: number, one: string): string {
  return `${n} ${one}${n === 1 ? '' : 's'}`
}
