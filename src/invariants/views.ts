import { problemLine } from '../policy-file.ts'
import type { Block, Cell } from '../ui/blocks.ts'
import type { Loaded } from './load.ts'
import type { Checked, Drift, Held, HeldInvariant, History, Scan } from './scan.ts'

export type LoadedInto = Loaded & { readonly target: string }

export function loadView({ target, loaded, changed, removed, problems, pending }: LoadedInto): readonly Block[] {
  return [
    {
      kind: 'text',
      text:
        changed.length + removed.length === 0 ? `${target} holds these invariants already.` : `Loaded into ${target}.`,
    },
    {
      kind: 'facts',
      rows: [
        ['invariants', loaded.length],
        ['changed', changed.join(' ') || 'none'],
        ['removed', removed.join(' ') || 'none'],
        ...(pending.length > 0 ? [['without their SQL', { text: pending.join(' '), tone: 'warn' }] as const] : []),
      ],
    },
    ...(problems.length === 0
      ? []
      : [
          { kind: 'heading' as const, text: 'Problems: these are unknown until they are mended' },
          {
            kind: 'list' as const,
            items: problems.map((problem) => ({ text: problemLine(problem), tone: 'bad' as const })),
          },
        ]),
    {
      kind: 'next',
      commands: pending.length > 0 ? ['tms invariants load --print', 'tms invariants scan'] : ['tms invariants scan'],
    },
  ]
}

export function scriptView(script: string): readonly Block[] {
  return [{ kind: 'text', text: script }]
}

export function listView({ invariants, drift }: Held): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['invariant', 'prio', 'state', 'since (UTC)'],
      rows: invariants.map((each) => [each.invariant, each.priority, state(each), minute(each.since)]),
      empty: 'No invariant is loaded: nothing is checked.',
    },
    ...(drift === null ? [] : driftBlocks(drift)),
    { kind: 'next', commands: [invariants.length === 0 ? 'tms invariants load' : 'tms invariants scan'] },
  ]
}

export function scanView({ target, checks, drift }: Scan): readonly Block[] {
  const wrong = checks.filter(({ outcome }) => outcome !== 'holds')
  const [first] = wrong
  return [
    { kind: 'text', text: `Checked in ${target}.` },
    {
      kind: 'table',
      columns: ['invariant', 'state', { title: 'ms', align: 'right' }],
      rows: checks.map((each) => [each.invariant, state(each), 'ms' in each ? each.ms : null]),
      empty: 'Nothing was checked: no invariant is loaded, or none is due.',
    },
    ...(wrong.length === 0
      ? []
      : [
          { kind: 'heading' as const, text: 'Why' },
          { kind: 'list' as const, items: wrong.map((each) => `${each.invariant}: ${reason(each)}`) },
        ]),
    ...driftBlocks(drift),
    ...(first === undefined
      ? []
      : [{ kind: 'next' as const, commands: [`tms invariants show ${first.invariant}`, 'tms incident list'] }]),
  ]
}

export function invariantView(one: HeldInvariant): readonly Block[] {
  const { invariant, title, owner, priority, reads, writes, show, incident } = one
  return [
    {
      kind: 'facts',
      rows: [
        ['invariant', { text: invariant, tone: 'strong' }],
        ['says', title],
        ['state', state(one)],
        ...(one.why === '' ? [] : [['why', one.why] as const]),
        ['since', minute(one.since)],
        ['checked', minute(one.checked_at)],
        ['priority', priority],
        ['owner', owner],
        ['every', span(Number(one.every_ms))],
        ['time limit', span(one.timeout_ms)],
        ['escalates', one.escalate === 'at_once' ? 'at once' : 'the third time, or after 15 minutes'],
        ['reads', one.kind === 'own' ? "tms's own tables" : reads.join(' ')],
        ...(one.correctable
          ? [
              ['corrects', writes.join(' ')] as const,
              [
                'at most',
                `${one.rows_per_scan ?? 0} rows a scan, ${one.rows_per_violation ?? 0} for each violation`,
              ] as const,
            ]
          : [['corrects', 'nothing: a person does'] as const]),
        ...(incident === null ? [] : [['incident', incident] as const]),
      ],
    },
    ...(one.query === null ? [] : [{ kind: 'heading' as const, text: 'Query' }, text(one.query)]),
    ...(one.correction === null ? [] : [{ kind: 'heading' as const, text: 'Correction' }, text(one.correction)]),
    ...(one.sample === null || one.sample.length === 0
      ? []
      : [
          { kind: 'heading' as const, text: 'Last violations' },
          {
            kind: 'list' as const,
            items: one.sample.map((row) =>
              Object.entries(row)
                .map(([key, value]) => `${key} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
                .join(', '),
            ),
          },
          ...(show.length === 0 && one.kind === 'query'
            ? [text('Values are digests: `show` in the policy names the columns that may be kept as they are.')]
            : []),
        ]),
    {
      kind: 'next',
      commands: [
        ...(incident === null ? [] : [`tms incident show ${incident}`]),
        `tms invariants scan --id ${invariant}`,
        `tms invariants history --id ${invariant}`,
      ],
    },
  ]
}

export function historyView({ scores, violations }: History): readonly Block[] {
  return [
    ...(scores.length === 0
      ? []
      : [
          { kind: 'heading' as const, text: 'Drift score' },
          {
            kind: 'table' as const,
            columns: ['at (UTC)', { title: 'score', align: 'right' as const }, 'violated', 'unknown'],
            rows: scores.map((score) => [
              minute(score.at),
              scoreText(score),
              few(Object.keys(score.detail.violated ?? {})),
              few(score.detail.unknown ?? []),
            ]),
            empty: '',
          },
        ]),
    { kind: 'heading', text: 'Violations' },
    {
      kind: 'table',
      columns: ['invariant', 'from (UTC)', 'to', { title: 'most', align: 'right' }, 'ended'],
      rows: violations.map((each) => [
        each.invariant,
        minute(each.first_seen),
        minute(each.cleared_at) ?? { text: 'still', tone: 'bad' },
        `${each.more ? 'over ' : ''}${each.most}`,
        each.touched > 0 ? `${each.cleared_why ?? ''} (${each.touched} rows touched)` : (each.cleared_why ?? ''),
      ]),
      empty: 'None was ever found.',
    },
    { kind: 'next', commands: ['tms invariants scan'] },
  ]
}

function driftBlocks(drift: Drift): readonly Block[] {
  const bad = drift.score === null || Number(drift.score) < 85
  return [
    {
      kind: 'facts',
      rows: [['drift score', { text: `${scoreText(drift)} of 100`, tone: bad ? 'bad' : 'good' }]],
    },
    ...(drift.score === null ? [text('It is a range, because some could not be checked.')] : []),
  ]
}

function scoreText({ score, lowest, highest }: Drift): string {
  return score ?? `unknown: ${lowest ?? '0'} to ${highest ?? '100'}`
}

type Stated = Pick<HeldInvariant, 'outcome' | 'violations' | 'more'> | Checked

function state(each: Stated): Cell {
  if (each.outcome === null) return { text: 'left to another scan', tone: 'warn' }
  const { outcome, violations, more } = each
  if (outcome === 'holds') return { text: 'holds', tone: 'good' }
  if (outcome === 'unknown') return { text: 'UNKNOWN', tone: 'warn' }
  return { text: `VIOLATED${violations === null ? '' : ` ${more ? 'over ' : ''}${violations}`}`, tone: 'bad' }
}

function reason(each: Checked & { readonly title: string }): string {
  const correction = 'correction' in each ? each.correction : null
  if (correction && correction.why !== '') return `not corrected: ${correction.why}`
  return each.why === '' ? each.title : each.why
}

/** The first two, and how many more. */
function few(names: readonly string[]): string {
  return names.length <= 2 ? names.join(' ') : `${names.slice(0, 2).join(' ')} and ${names.length - 2} more`
}

/** To the minute, in UTC. */
function minute(time: string | null): string | null {
  return time === null ? null : time.slice(0, 16).replace('T', ' ')
}

function text(content: string): Block {
  return { kind: 'text', text: content }
}

function span(ms: number): string {
  return ms % 3_600_000 === 0 ? `${ms / 3_600_000}h` : ms % 60_000 === 0 ? `${ms / 60_000}m` : `${ms / 1000}s`
}
