import type { Contract } from '../drivers/contract.ts'
import type { Block, Cell } from '../ui/blocks.ts'
import type { FlagValue } from './value.ts'

type Flag = Contract['flags_list']['result']['flags'][number]

export function flagsView({ scope, flags }: Contract['flags_list']['result']): readonly Block[] {
  return [
    { kind: 'text', text: `Flags of ${scope}` },
    {
      kind: 'table',
      columns: ['flag', 'value', 'from', 'rollout', 'owner'],
      rows: flags.map((flag) => [flag.key, shown(flag.value), source(flag), rollout(flag), flag.owner]),
      empty: 'No flags.',
    },
  ]
}

export function flagView({ scope, flag, overrides }: Contract['flags_get']['result']): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['flag', flag.key],
        ['value', { text: `${shown(flag.value)} (for ${scope})`, tone: 'strong' }],
        ['from', source(flag)],
        ['about', flag.description],
        ['type', flag.type],
        ['default', shown(flag.default)],
        ['safe', shown(flag.safe)],
        ['owner', flag.owner],
        ...(flag.expires ? [['expires', flag.expires] as const] : []),
      ],
    },
    {
      kind: 'table',
      columns: ['set for', 'value', 'percent', 'canary', 'by', 'at', 'why'],
      rows: overrides.map((row) => [
        row.scope,
        shown(row.value),
        row.percentage,
        row.canary.join(' '),
        row.updated_by,
        row.updated_at,
        row.why,
      ]),
      empty: 'Set nowhere: the default applies.',
    },
  ]
}

export function flagSetView(change: Contract['flags_set']['result']): readonly Block[] {
  const percent = change.percentage === '100' ? '' : ` for ${change.percentage} % of the tenants`
  return [
    {
      kind: 'text',
      text: change.changed
        ? `${change.key} (${change.scope}): ${shown(change.before, 'not set')} -> ${shown(change.after, 'not set')}${percent}`
        : `${change.key} (${change.scope}) is ${shown(change.after, 'not set')} already; nothing changed.`,
    },
  ]
}

export function historyView({ changes }: Contract['flags_history']['result']): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['at', 'who', 'role', 'flag', 'for', 'before', 'after', 'why'],
      rows: changes.map((c) => [
        c.at.slice(0, 19),
        c.who,
        c.role,
        c.key,
        c.scope,
        state(c.before),
        state(c.after),
        c.why,
      ]),
      empty: 'No changes yet.',
    },
  ]
}

export function rolloutView(state: Contract['flags_rollout_state']['result']): readonly Block[] {
  const byHand = state.by_hand ?? []
  const reach = {
    off: `off: the default applies${byHand.length === 0 ? ' to everybody' : ', except where it is set by hand'}`,
    canary: `canary: ${state.canary.join(', ')}`,
    cohort: `cohort ${state.cohort ?? ''}: ${state.percentage} % of the tenants, and ${state.canary.join(', ')}`,
    all: 'all tenants',
  }[state.stage]
  return [
    {
      kind: 'facts',
      rows: [
        ['flag', state.key],
        ['value', shown(state.value)],
        ['reaches', { text: reach, tone: 'strong' }],
        ...(byHand.length === 0
          ? []
          : [['set by hand', { text: `${byHand.join(', ')}: wins over the rollout`, tone: 'warn' }] as const]),
        ['since', state.since ?? 'no rollout is under way'],
        [
          'health',
          { text: state.health, tone: state.health === 'green' ? 'good' : state.health === 'red' ? 'bad' : 'warn' },
        ],
        ...(state.next_stage && state.since
          ? [['next', `${state.next_stage}, not before ${state.next_at ?? 'now'}`] as const]
          : []),
      ],
    },
    {
      kind: 'next',
      commands: !state.since
        ? []
        : [
            ...(state.next_stage ? [`tms flags rollout ${state.key} --next --why <reason>`] : []),
            `tms flags rollout ${state.key} --off --why <reason>`,
          ],
    },
  ]
}

export function verifyView(verdict: Contract['flags_verify']['result']): readonly Block[] {
  const scopes = `the environment and ${verdict.tenants} tenant${verdict.tenants === 1 ? '' : 's'}`
  return [
    verdict.required === 0
      ? {
          kind: 'text',
          text: { text: 'UNKNOWN  the catalogue requires no value, so nothing was checked', tone: 'warn' },
        }
      : verdict.findings.length === 0
        ? {
            kind: 'text',
            text: { text: `GREEN  ${verdict.required} required flags agree, for ${scopes}`, tone: 'good' },
          }
        : { kind: 'text', text: { text: `RED  ${verdict.findings.length} differ, over ${scopes}`, tone: 'bad' } },
    ...(verdict.findings.length === 0
      ? []
      : [
          {
            kind: 'table' as const,
            columns: ['flag', 'for', 'is', 'should be', 'why'],
            rows: verdict.findings.map((f) => [f.key, f.scope, shown(f.observed), f.expected, f.why]),
            empty: '',
          },
        ]),
    ...verdict.expired.map((flag): Block => ({
      kind: 'text',
      text: { text: `${flag.key} expired on ${flag.expires}: ${flag.owner} removes or extends it`, tone: 'warn' },
    })),
  ]
}

function shown(value: FlagValue | undefined, absent = 'null'): string {
  if (value === undefined || value === null) return absent
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function source(flag: Flag): Cell {
  return flag.source === 'default' ? { text: 'default', tone: 'dim' } : flag.source
}

function rollout({ rollout: state }: Flag): string {
  if (!state) return ''
  const canary = state.canary.length > 0 ? ` + ${state.canary.join(' ')}` : ''
  return state.stage === 'canary' ? `canary${canary}` : `${state.percentage} %${canary}`
}

/** A stored state in a few words: `true`, `true 10 %`, `not set`. */
function state(value: FlagValue): string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'not set'
  const percentage = value['percentage']
  return `${shown(value['value'])}${percentage === '100' ? '' : ` ${shown(percentage)} %`}`
}
