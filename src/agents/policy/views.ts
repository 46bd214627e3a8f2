import { problemLine, type FileProblem } from '../../policy-file.ts'
import type { Block } from '../../ui/blocks.ts'
import type { Explanation, HeldVerdict } from './explain.ts'
import type { Loaded } from './load.ts'
import type { AgentPolicies, AgentProblem } from './read.ts'

export type PolicyCheck = {
  readonly policies: readonly {
    readonly agent: string
    readonly path: string
    readonly owner: string
    readonly functions: readonly string[]
    readonly approval: readonly string[]
  }[]
  readonly problems: readonly AgentProblem[]
  readonly folders: readonly string[]
}

/** What is told of the files: data only, for --json too. */
export function policyCheck({ policies, problems, folders }: AgentPolicies): PolicyCheck {
  return {
    policies: policies.map(({ agent, path, owner, policy }) => ({
      agent,
      path,
      owner,
      functions: policy.functions,
      approval: policy.approval,
    })),
    problems,
    folders,
  }
}

export function policyCheckView({ policies, problems, folders }: PolicyCheck): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: [
        'agent',
        { title: 'functions', align: 'right' },
        { title: 'need approval', align: 'right' },
        'owner',
        'file',
      ],
      rows: policies.map(({ agent, path, owner, functions, approval }) => [
        agent,
        functions.length,
        approval.length,
        owner,
        path,
      ]),
      empty: `No policy is in order in ${folders.join(' or ')}: every agent is denied.`,
    },
    ...problemBlocks(problems),
  ]
}

export type PolicyLoad = Loaded & { readonly target: string; readonly problems: readonly AgentProblem[] }

export function policyLoadView({ target, loaded, changed, removed, problems }: PolicyLoad): readonly Block[] {
  const same = changed.length + removed.length === 0
  return [
    {
      kind: 'text',
      text: same ? `${target} holds these policies already.` : `Loaded into ${target}.`,
    },
    {
      kind: 'facts',
      rows: [
        ['policies', loaded.length],
        ['changed', changed.join(' ') || 'none'],
        ['removed: denied from now on', removed.join(' ') || 'none'],
      ],
    },
    ...problemBlocks(problems),
  ]
}

export function explanationView(explanation: Explanation): readonly Block[] {
  const { agent, function: fn, allowed, file, database, next } = explanation
  const verdict = allowed ? (file.approval ? 'allowed, with approval' : 'allowed') : 'denied'
  const { publish, enqueue, apply } = file.may
  return [
    { kind: 'text', text: { text: `${agent} ${fn}: ${verdict}`, tone: allowed ? 'good' : 'bad' } },
    {
      kind: 'facts',
      rows: [
        ['file', file.where],
        ['it says', file.why],
        ['database', { text: database.why, tone: heldTone(file.allowed, database) }],
        ...(database.agentState !== null && database.agentState !== 'running'
          ? [['agent is', { text: database.agentState, tone: 'warn' as const }] as const]
          : []),
        ...(database.breaker !== null && database.breaker !== 'closed'
          ? [['breaker is', { text: database.breaker, tone: 'warn' as const }] as const]
          : []),
      ],
    },
    ...(file.allowed
      ? ([
          {
            kind: 'table',
            columns: ['limit', 'value', 'line'],
            rows: file.limits.map(({ name, value, line }) => [name, value, line ?? 'default']),
            empty: '',
          },
          {
            kind: 'facts',
            rows: [
              ['may publish', publish.join(' ') || 'nothing'],
              ['may enqueue', enqueue.join(' ') || 'nothing'],
              ['may apply', apply.join(' ') || 'nothing'],
            ],
          },
        ] as const)
      : []),
    ...(next.length > 0 ? [{ kind: 'next' as const, commands: next }] : []),
  ]
}

function heldTone(fileAllows: boolean, { state, allowed }: HeldVerdict): 'good' | 'warn' | 'dim' {
  if (state === 'not_asked') return 'dim'
  return state === 'same' || (state === 'absent' && !fileAllows && allowed === false) ? 'good' : 'warn'
}

function problemBlocks(problems: readonly FileProblem[]): readonly Block[] {
  if (problems.length === 0) return []
  return [
    { kind: 'heading', text: 'Problems' },
    { kind: 'list', items: problems.map((problem) => ({ text: problemLine(problem), tone: 'bad' as const })) },
  ]
}
