import { moment } from '../agents/views.ts'
import type { Block, Cell, Tone } from '../ui/blocks.ts'
import { spell, type Acted, type Action, type Actions, type Undone } from './act.ts'
import type { Check, Judgement, State } from './judge.ts'
import type { Change, Posture } from './posture.ts'
import type { Tick } from './watch.ts'

const tones: Readonly<Record<State, Tone>> = { green: 'good', red: 'bad', unknown: 'warn' }
const right = (title: string) => ({ title, align: 'right' }) as const

export function postureView(posture: Posture): readonly Block[] {
  const { checks, health } = posture
  return [
    { kind: 'facts', rows: headRows(posture) },
    {
      kind: 'table',
      columns: ['check', 'state', right('observed'), 'limit', right('samples')],
      rows: rowsOf(checks),
      empty: '',
    },
    ...whys(checks),
    ...(health === null
      ? []
      : [
          {
            kind: 'table',
            columns: ['health', right('points'), right('of'), 'because'],
            rows: health.components.map(({ name, low, high, most, why, known }): readonly Cell[] => [
              words(name),
              { text: low === high ? low : `${low} to ${high}`, tone: known ? 'strong' : 'warn' },
              most,
              why,
            ]),
            empty: '',
          } as const,
        ]),
  ]
}

function headRows({ target, scope, verdict, window, ground, health, halted, safe_mode }: Posture) {
  const rows: (readonly [string, Cell])[] = [
    ['posture', { text: verdict, tone: tones[verdict] }],
    ['of', `${scope}, ${target}`],
    ['window', `${moment(window.from)} to ${moment(window.to)} UTC`],
    ['measured', ground.state === 'measured' ? ground.why : { text: `${ground.state}: ${ground.why}`, tone: 'warn' }],
  ]
  if (health !== null) rows.push(['health', healthText(health)])
  if (halted) rows.push(['fleet', { text: 'halted', tone: 'bad' }])
  if (safe_mode) rows.push(['safe mode', { text: 'on', tone: 'bad' }])
  return rows
}

/** `C, 62 of 100`, or the range with the grade of its low end. */
export function healthText({ low, high, grade }: NonNullable<Judgement['health']>): string {
  return low === high ? `${grade}, ${low} of 100` : `${grade} at least, ${low} to ${high} of 100`
}

function rowsOf(checks: readonly Check[]): readonly (readonly Cell[])[] {
  return checks.map(({ name, state, counts, observed, comparison, limit, samples }) => [
    words(name),
    { text: state === 'unknown' && !counts ? 'aside' : state, tone: tones[state] },
    observed,
    limitText(comparison, limit),
    samples,
  ])
}

function whys(checks: readonly Check[]): readonly Block[] {
  const items = checks
    .filter(({ state, why, counts }) => (state === 'red' || (state === 'unknown' && counts)) && why !== null)
    .map(({ name, state, why }): Cell => ({ text: `${words(name)}: ${why ?? ''}`, tone: tones[state] }))
  return items.length === 0 ? [] : [{ kind: 'list', items }]
}

function words(name: string): string {
  return name.replaceAll('_', ' ')
}

const signs = { 'at least': '≥', 'at most': '≤', below: '<' } as const

function limitText(comparison: Check['comparison'], limit: string): string {
  return `${signs[comparison]} ${limit}`
}

// ---- watching

/** A screenful: what is not green first, with its course, then the rest by name. */
export function screenView(tick: Tick): readonly Block[] {
  const { posture, problem, changes, acted } = tick
  if (posture === null) {
    return [
      {
        kind: 'facts',
        rows: [['posture', { text: 'unknown: the database cannot be read', tone: 'bad' }], ...tickRows(tick)],
      },
      { kind: 'text', text: problem === null ? '' : `${problem.what} ${problem.why}` },
    ]
  }
  const { checks } = posture
  const calm = checks.filter(({ state, counts }) => state === 'green' || (state === 'unknown' && !counts))
  // What needs somebody stands on top: a screen may be too small for all.
  const order: Readonly<Record<State, number>> = { red: 0, unknown: 1, green: 2 }
  const shown = checks.filter(({ state, counts }) => state !== 'unknown' || counts)
  return [
    { kind: 'facts', rows: [...headRows(posture), ...tickRows(tick)] },
    ...changeBlocks(changes, acted),
    {
      kind: 'table',
      columns: ['check', 'state', right('observed'), 'limit', 'course'],
      rows: shown
        .toSorted((a, b) => order[a.state] - order[b.state])
        .map(({ name, state, observed, comparison, limit }) => [
          words(name),
          { text: state, tone: tones[state] },
          observed,
          limitText(comparison, limit),
          sparkline((tick.series[name] ?? []).slice(-8)),
        ]),
      empty: '',
    },
    { kind: 'text', text: `${checks.length - calm.length} to look at, ${checks.length - shown.length} aside.` },
  ]
}

/** One line a tick, for logs: the verdict, what changed, what was done. */
export function tickLineView(tick: Tick): readonly Block[] {
  const { posture, problem, changes, acted } = tick
  const at = posture === null ? '' : `${moment(posture.as_of)} `
  const state = posture === null ? `unknown: ${problem?.what ?? ''}` : posture.verdict
  const score = posture?.health ? `, health ${healthText(posture.health)}` : ''
  const red = posture?.checks.filter((check) => check.state === 'red').map(({ name }) => name) ?? []
  return [
    {
      kind: 'text',
      text: {
        text: `${at}${state}${score}${red.length === 0 ? '' : `, red: ${red.join(' ')}`}`,
        tone: posture === null ? 'bad' : tones[posture.verdict],
      },
    },
    ...changeBlocks(changes, acted),
  ]
}

export function watchedView({ tick, posture }: Pick<Tick, 'tick' | 'posture'>): readonly Block[] {
  const last = posture === null ? 'unknown' : posture.verdict
  return [{ kind: 'text', text: `Looked ${tick === 1 ? 'once' : `${tick} times`}; the last time it was ${last}.` }]
}

function tickRows({ tick, probed, recording, announced }: Tick): readonly (readonly [string, Cell])[] {
  const answers = probed?.probes.map(({ kind, up, ms, why }) => `${kind} ${up ? `${ms} ms` : (why ?? 'down')}`) ?? []
  const fleet =
    probed?.fleet === undefined || probed.fleet === null ? [] : [probed.fleet ? 'fleet alive' : 'no live worker']
  const late = probed !== null && probed.waiting > 0 ? [`${probed.waiting} to be recorded later`] : []
  return [
    ['look', `${tick}${announced ? ', announced' : ''}`],
    [
      'probes',
      recording
        ? { text: [...answers, ...fleet, ...late].join(', '), tone: probed?.recorded === false ? 'bad' : 'strong' }
        : { text: 'none: this role may look and not record', tone: 'warn' },
    ],
  ]
}

function changeBlocks(changes: readonly Change[], acted: readonly Acted[]): readonly Block[] {
  const items: readonly Cell[] = [
    ...changes.map(({ check, from, to }): Cell => ({
      text: `${words(check)}: ${from ?? 'new'} to ${to ?? 'gone'}`,
      tone: to === null ? 'dim' : tones[to],
    })),
    ...acted.filter(isNews).map((one): Cell => ({ text: actedText(one), tone: one.acted === 'done' ? 'bad' : 'warn' })),
  ]
  return items.length === 0 ? [] : [{ kind: 'list', items }]
}

/** What was drawn already, or needs nobody, is said once and not each time. */
function isNews({ acted }: Acted): boolean {
  return acted === 'done' || acted === 'reported' || acted === 'refused'
}

export function actedText({ action, check, acted, id, subject, before, after, why }: Acted): string {
  const because = `because of ${words(check)}`
  if (acted === 'done') return `${words(action)} of ${subject} ${because}: ${before} to ${after} (action ${id ?? ''})`
  if (acted === 'reported') return `would ${words(action)} ${subject} ${because}: ${before} to ${after}, reported only`
  return `${words(action)} ${because}: ${acted}${why === null ? '' : `: ${why}`}`
}

const bars = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] as const

/** Between their own lowest and highest; what wasn't observed is a gap. */
export function sparkline(values: readonly (number | null)[]): string {
  const known = values.filter((value): value is number => value !== null && Number.isFinite(value))
  const low = Math.min(...known)
  const span = Math.max(...known) - low
  return values
    .map((value) => {
      if (value === null) return '·'
      if (!Number.isFinite(value)) return bars[7]
      return bars[span === 0 ? 0 : Math.min(7, Math.floor(((value - low) / span) * 8))] ?? bars[0]
    })
    .join('')
}

// ---- actions

export function actionsView({ actions }: Actions): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['id', 'at', 'action', 'of', 'state', 'because'],
      rows: actions.map((action) => [
        action.id,
        moment(action.at),
        `${words(action.action)}: ${spell(action.before)} to ${spell(action.after)}`,
        action.subject,
        stateCell(action),
        `${words(action.check)} was ${action.observed}, limit ${action.limit}`,
      ]),
      empty: 'Nothing was done because of the posture.',
    },
    {
      kind: 'next',
      commands: actions
        .filter(({ state, action }) => state === 'in force' && action !== 'safe_mode')
        .slice(0, 3)
        .map(({ id }) => `tms posture undo ${id} --why <reason>`),
    },
  ]
}

function stateCell({ state, undone_at, undone_by }: Action): Cell {
  if (state === 'in force') return { text: state, tone: 'bad' }
  if (state === 'reported') return { text: 'reported only', tone: 'dim' }
  return { text: `undone ${moment(undone_at) ?? ''}${undone_by === null ? '' : ` by ${undone_by}`}`, tone: 'good' }
}

export function undoneView({ id, action, subject, restored, left }: Undone): readonly Block[] {
  return [
    { kind: 'text', text: `Action ${id} is undone: ${words(action)} of ${subject}, ${restored} put back.` },
    ...(left.length === 0
      ? []
      : [
          {
            kind: 'text',
            text: { text: 'Somebody changed these since, so they stay as they are:', tone: 'warn' },
          } as const,
          { kind: 'list', items: left } as const,
        ]),
  ]
}
