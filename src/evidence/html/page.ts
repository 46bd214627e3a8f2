import type { AuditDigestFile } from '../schemas/audit-digest.ts'
import type { ControlsFile } from '../schemas/controls.ts'
import type { FlagsFile } from '../schemas/flags.ts'
import type { ManifestFile } from '../schemas/manifest.ts'
import type { OutboxLagFile } from '../schemas/outbox-lag.ts'
import type { Check, SloSnapshotFile } from '../schemas/slo-snapshot.ts'
import { chartSvg, type Chart, type Point } from './chart.ts'
import { style } from './style.ts'
import { clock, duration, escape, grouped, moment, plural, trimmed } from './text.ts'

/** index.html: the pack as a person reads it. Made from the frozen files and from nothing else, so it says what they say. */

export type Page = {
  readonly manifest: ManifestFile
  readonly manifestSha256: string
  readonly flags: FlagsFile
  readonly slo: SloSnapshotFile
  readonly outbox: OutboxLagFile
  readonly audit: AuditDigestFile
  readonly controls: ControlsFile
  readonly traces: string
}

type Verdict = Check['state']

export function pageHtml(page: Page): string {
  const { manifest } = page
  const body = [
    header(page),
    checksSection(page),
    chartsSection(page),
    workSection(page),
    alertsSection(page),
    actionsSection(page),
    flagsSection(page),
    controlsSection(page),
    verifySection(page),
  ].join('\n')
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>Evidence of ${manifest.day}: ${manifest.verdict}</title>
<style>
${style}
</style>
</head>
<body>
<main>
${body}
<footer>Made by tms from the files beside this page. The page says what they say; where they differ, the files count: their digests are in manifest.json.</footer>
</main>
</body>
</html>
`
}

// ---- the head: the verdict first

const words: Readonly<Record<Verdict, readonly [sign: string, word: string]>> = {
  green: ['✓', 'green'],
  red: ['✕', 'red'],
  unknown: ['?', 'unknown'],
}

function header({ manifest, manifestSha256, slo, audit }: Page): string {
  const { day, verdict, final, previous, key, ledger, database, revision } = manifest
  const [sign, word] = words[verdict]
  return `<header>
<p class="over">Green posture, one day of a fleet of agents</p>
<h1>Evidence of ${longDay(day)}</h1>
<div class="verdict ${verdict}"><b>${sign} ${word.toUpperCase()}</b><p>${escape(verdictWords(slo))}</p></div>
${final ? '' : `<p class="note"><strong>Provisional, revision ${revision}.</strong> The day was not over when these facts were gathered: a later revision replaces this one.</p>`}
${facts([
  [
    'day',
    `${day}, ${clock(slo.window.from)} to ${slo.window.until.slice(0, 10) === day ? clock(slo.window.until) : '24:00'} UTC`,
  ],
  ['gathered', `${moment(manifest.as_of)}, revision ${revision}${final ? ', final' : ''}`],
  ['database', `${database.environment}<br><span class="mono soft">${escape(database.origin)}</span>`],
  [
    'ledger',
    ledger.tree_size === ledger.from_seq
      ? 'no row of this day'
      : `rows ${grouped(String(ledger.from_seq))} to ${grouped(String(ledger.tree_size - 1))}: ${plural(audit.rows, 'row')}`,
  ],
  ['signed by', `<span class="mono">${inGroups(key)}</span>`],
  ['manifest', `<span class="mono">${inGroups(manifestSha256)}</span>`],
  [
    'pack before',
    previous === null
      ? 'none: this is the first one'
      : `${previous.day}<br><span class="mono soft">${inGroups(previous.manifest_sha256)}</span>`,
  ],
])}
</header>`
}

function verdictWords({ checks, ground, verdict }: SloSnapshotFile): string {
  const red = checks.filter(({ state }) => state === 'red')
  const unknown = checks.filter(({ state }) => state === 'unknown')
  const named = (some: readonly Check[]) =>
    `${some
      .slice(0, 3)
      .map(({ name }) => title(name))
      .join(', ')}${some.length > 3 ? ` and ${some.length - 3} more` : ''}`
  const aside =
    unknown.length > 0 ? ` ${plural(unknown.length, 'check')} had nothing to measure: ${named(unknown)}.` : ''
  if (verdict === 'red') {
    return `${red.length} of ${plural(checks.length, 'check')} did not hold: ${named(red)}.${aside}`
  }
  if (verdict === 'unknown') {
    return `${grounds[ground.state]}: ${ground.why}. Nothing was red, but not enough was measured to call the day green.${aside}`
  }
  return `${checks.length - unknown.length} of ${plural(checks.length, 'check')} held, and none was red.${aside}`
}

const grounds: Readonly<Record<SloSnapshotFile['ground']['state'], string>> = {
  measured: 'Some of it could not be measured',
  idle: 'Nobody worked on this day',
  young: 'This database did not see the whole day',
  unwatched: 'Nobody watched whether the system was up',
}

// ---- checks and health

const order: readonly Verdict[] = ['red', 'unknown', 'green']

function checksSection({ slo }: Page): string {
  const sorted = order.flatMap((state) => slo.checks.filter((check) => check.state === state))
  return `<section>
<h2>What was checked</h2>
<p>Each check has the value that was observed, the limit it is held against, and the samples behind it. Without samples it is unknown, never green.</p>
${table(
  ['check', 'state', 'observed', 'must be', 'samples', 'window', 'what it says'],
  sorted.map((check) => [
    { head: escape(title(check.name)) },
    state(check.state),
    num(check.observed === null ? '–' : quantity(check.observed, check.unit.split(',')[0] ?? '')),
    { text: escape(`${check.comparison} ${quantity(check.limit, check.unit)}`) },
    num(grouped(String(check.samples))),
    { text: escape(check.window === 'now' ? 'then' : span(check.window)), className: 'nowrap' },
    { text: escape(check.why ?? '') },
  ]),
  'No check was made.',
)}
${health(slo)}
</section>`
}

function health({ health: score }: SloSnapshotFile): string {
  if (score === null) return ''
  const sure = score.low === score.high
  return `<h3>Health score</h3>
<p class="score"><b>${escape(score.grade)}</b> <span>${sure ? score.low : `${score.low} to ${score.high}`} of 100${sure ? '' : ', depending on what is unknown; the grade is that of the lower end'}</span></p>
${table(
  ['part', 'points', 'of', 'why'],
  score.components.map(({ name, low, high, known, of, why }) => [
    { head: escape(title(name)) },
    num(known ? low : `${low} to ${high}`),
    num(of),
    { text: escape(why) },
  ]),
  'No parts.',
  'narrow',
)}`
}

// ---- charts

function chartsSection({ slo, outbox }: Page): string {
  const limitOf = (name: string, otherwise: number) =>
    Number(slo.checks.find((check) => check.name === name)?.limit ?? otherwise)
  const success = limitOf('task_success_percent', 98)
  const p95 = limitOf('p95_latency_ms', 2500) / 1000
  const lag = limitOf('outbox_lag_p95_ms', Number(outbox.limits.p95_ms)) / 1000
  const charts: readonly Chart[] = [
    {
      title: 'Tasks that succeeded',
      unit: 'percent',
      points: pointsOf(slo.quarters, ({ success_percent }) => success_percent),
      limit: { value: success, words: `at least ${trimmed(success, 2)} %`, keep: 'above' },
      most: 100,
    },
    {
      title: 'Duration of 95 of 100 runs',
      unit: 'seconds',
      points: pointsOf(slo.quarters, ({ p95_ms }) => p95_ms).map(inSeconds),
      limit: { value: p95, words: `at most ${trimmed(p95, 2)} s`, keep: 'below' },
      least: 0,
    },
    {
      title: 'Outbox lag of 95 of 100 deliveries',
      unit: 'seconds',
      points: pointsOf(outbox.quarters, ({ p95_ms }) => p95_ms).map(inSeconds),
      limit: { value: lag, words: `at most ${trimmed(lag, 2)} s`, keep: 'below' },
      least: 0,
    },
    {
      title: 'Queue',
      unit: 'tasks that wait',
      points: pointsOf(slo.queue, ({ waiting }) => waiting),
      least: 0,
    },
  ]
  return `<section>
<h2>The day in four charts</h2>
<p class="soft small">A point is a quarter of an hour, UTC. Shaded: nothing was measured. Red: beyond the limit.</p>
<div class="charts">
${charts.map((chart) => `<figure><figcaption>${escape(chart.title)} <span>${escape(chart.unit)}</span></figcaption>${chartSvg(chart)}</figure>`).join('\n')}
</div>
<details><summary>The numbers behind the charts</summary>
${numbers(slo, outbox)}
</details>
</section>`
}

function pointsOf<T extends { readonly at: string }>(
  rows: readonly T[],
  value: (row: T) => string | null,
): readonly Point[] {
  return rows.flatMap((row) => {
    const text = value(row)
    return text === null ? [] : [{ quarter: quarterOf(row.at), value: Number(text) }]
  })
}

function quarterOf(at: string): number {
  return Number(at.slice(11, 13)) * 4 + Math.floor(Number(at.slice(14, 16)) / 15)
}

function inSeconds({ quarter, value }: Point): Point {
  return { quarter, value: value / 1000 }
}

function numbers(slo: SloSnapshotFile, outbox: OutboxLagFile): string {
  const runs = new Map(slo.quarters.map((row) => [row.at, row]))
  const lags = new Map(outbox.quarters.map((row) => [row.at, row]))
  const queues = new Map(slo.queue.map((row) => [row.at, row]))
  const times = [...new Set([...runs.keys(), ...lags.keys(), ...queues.keys()])].sort()
  return table(
    ['from', 'succeeded', 'failed', 'success', 'p95', 'deliveries', 'lag p95', 'waiting'],
    times.map((at) => {
      const [run, lag, queue] = [runs.get(at), lags.get(at), queues.get(at)]
      return [
        { head: clock(at) },
        num(run ? grouped(run.completed) : ''),
        num(run ? grouped(run.failed) : ''),
        num(run === undefined || run.success_percent === null ? '' : `${run.success_percent} %`),
        num(run === undefined || run.p95_ms === null ? '' : duration(run.p95_ms)),
        num(lag ? grouped(lag.samples) : ''),
        num(lag ? duration(lag.p95_ms) : ''),
        num(queue ? grouped(queue.waiting) : ''),
      ]
    }),
    'Nothing was measured in this day.',
  )
}

// ---- work

function workSection({ slo, outbox, traces }: Page): string {
  const { runs } = slo
  const tooHigh = trimmed(Number(runs.error_percent), 1)
  return `<section>
<h2>Work</h2>
${facts([
  [
    'runs',
    `${plural(runs.completed, 'task')} done, ${grouped(runs.failed)} failed, ${grouped(runs.retried)} tried again, ${grouped(runs.lost)} lost with their worker`,
  ],
  [
    'success',
    runs.success_percent === null
      ? 'unknown: no run ended in this day'
      : `${runs.success_percent} % of ${plural(runs.samples, 'task')}`,
  ],
  [
    'duration',
    runs.p95_ms === null
      ? 'unknown: no run ended in this day'
      : `half took at most ${duration(runs.p50_ms ?? runs.p95_ms)}, 95 of 100 at most ${duration(runs.p95_ms)} <span class="soft">(counted in steps: true values are lower by ${tooHigh} % of it at most)</span>`,
  ],
  ['spent', `${grouped(runs.tokens)} tokens, ${plural(runs.calls, 'API call')}, cost ${grouped(runs.cost)}`],
  [
    'deliveries',
    outbox.p95_ms === null || outbox.avg_ms === null
      ? 'unknown: no event was written in this day'
      : `${grouped(outbox.samples)}: on average ${duration(outbox.avg_ms)}, 95 of 100 at most ${duration(outbox.p95_ms)}; ${grouped(outbox.waiting)} still waiting, ${grouped(outbox.dead)} given up`,
  ],
])}
<h3>Traces to look at</h3>
<pre>${linked(traces)}</pre>
</section>`
}

/** Addresses become links; everything else stays text. */
function linked(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [, before = '', address] = /^(\s*)(https?:\/\/\S+)$/.exec(line) ?? []
      return address === undefined
        ? escape(line)
        : `${before}<a href="${escape(address)}" rel="noopener noreferrer">${escape(address)}</a>`
    })
    .join('\n')
}

// ---- alerts

function alertsSection({ slo }: Page): string {
  const { count, listed } = slo.alerts
  return `<section>
<h2>Alerts</h2>
${table(
  ['incident', 'priority', 'state', 'what', 'tenant', 'opened', 'ended'],
  listed.map((row) => [
    { head: escape(row.id) },
    { text: escape(row.priority) },
    row.status === 'OPEN' ? { text: 'open', className: 'state red' } : { text: 'ended', className: 'state green' },
    { text: `${escape(row.title)}<br><span class="soft small">${escape(row.type)}</span>`, className: 'long' },
    { text: escape(row.tenant ?? 'the fleet'), className: 'long' },
    { text: moment(row.opened_at), className: 'nowrap' },
    { text: row.ended_at === null ? '' : moment(row.ended_at), className: 'nowrap' },
  ]),
  'No incident was open at any time of this day.',
)}
${count > listed.length ? `<p class="soft">${plural(count - listed.length, 'more incident')} not listed.</p>` : ''}
</section>`
}

// ---- actions

const shownActions = 30

function actionsSection({ audit }: Page): string {
  const { listed, counts, critical } = audit
  const rest = Number(critical) - Math.min(shownActions, listed.length)
  return `<section>
<h2>Critical actions</h2>
<p>The ledger has ${plural(audit.rows, 'row')} of this day, ${grouped(critical)} of them critical. Levers come first, then rights, changes and refusals. People appear as a word that stays the same for the same person; names and reasons are in the ledger, under the row's number.</p>
${table(
  ['row', 'at', 'action', 'who', 'role', 'to', 'tenant', 'hash'],
  listed.slice(0, shownActions).map((row) => [
    { head: `<span class="nowrap">${grouped(row.seq)}</span>` },
    { text: clockSeconds(row.at), className: 'nowrap' },
    {
      text: `${escape(row.action)}${row.outcome === 'refused' ? ' <span class="state red">refused</span>' : ''}`,
    },
    { text: escape(row.who) },
    { text: escape(row.role), className: 'nowrap' },
    { text: escape(row.subject ?? ''), className: 'long' },
    { text: escape(row.tenant ?? ''), className: 'long' },
    { text: `<span class="mono nowrap">${row.row_hash.slice(0, 10)}…</span>` },
  ]),
  'Nothing critical was done in this day.',
)}
${rest > 0 ? `<p class="soft">${plural(rest, 'more critical row')}; audit_digest.json lists ${grouped(String(listed.length))} of them, the ledger all.</p>` : ''}
<h3>How often what was done</h3>
${table(
  ['action', 'outcome', 'times'],
  counts
    .slice(0, 60)
    .map(({ action, outcome, count }) => [
      { head: escape(action) },
      { text: outcome === 'done' ? 'done' : '<span class="state red">refused</span>' },
      num(grouped(count)),
    ]),
  'The ledger has no row of this day.',
  'narrow',
)}
${audit.actions > Math.min(60, counts.length) ? `<p class="soft">${plural(audit.actions - Math.min(60, counts.length), 'more kind')}; see audit_digest.json.</p>` : ''}
</section>`
}

function clockSeconds(instant: string): string {
  return instant.slice(11, 19)
}

// ---- flags

function flagsSection({ flags }: Page): string {
  const required = flags.flags.filter(({ required: demanded }) => demanded !== null)
  const set = flags.flags.filter(({ source, required: demanded }) => source !== 'default' && demanded === null)
  return `<section>
<h2>Flags and budgets</h2>
<p>As they stood at ${moment(flags.observed_at)}, for the environment and ${plural(flags.tenants, 'tenant')}.</p>
<h3>Required posture</h3>
${table(
  ['flag', 'value', 'required', 'state'],
  required.map((flag) => [
    { head: `<span class="mono">${escape(flag.key)}</span>` },
    { text: `<code>${shown(flag.value)}</code>` },
    { text: `<code>${shown(flag.required)}</code>` },
    state(flag.meets === true ? 'green' : 'red'),
  ]),
  'No flag is required.',
  'narrow',
)}
${
  flags.findings.count === 0
    ? ''
    : `<h3>Where it was not met</h3>
${table(
  ['flag', 'where', 'observed', 'required'],
  flags.findings.listed
    .slice(0, 40)
    .map((row) => [
      { head: `<span class="mono">${escape(row.key)}</span>` },
      { text: escape(row.tenant === null ? 'the environment' : `tenant ${row.tenant}`) },
      { text: `<code>${shown(row.observed)}</code>` },
      { text: `<code>${shown(row.expected)}</code>` },
    ]),
  '',
  'narrow',
)}${flags.findings.count > 40 ? `<p class="soft">${plural(flags.findings.count - 40, 'more place')}.</p>` : ''}`
}
<h3>Other flags that were set</h3>
${table(
  ['flag', 'value', 'where'],
  [
    ...set.map((flag): Cells => [
      { head: `<span class="mono">${escape(flag.key)}</span>` },
      { text: `<code>${shown(flag.value)}</code>` },
      { text: escape(flag.source) },
    ]),
    ...flags.others.listed.slice(0, 40).map((flag): Cells => [
      { head: `<span class="mono">${escape(flag.key)}</span>` },
      { text: `<code>${shown(flag.value)}</code>` },
      {
        text: escape(
          flag.tenant === null
            ? `${flag.percentage} % of the tenants${flag.canaries ? `, ${plural(flag.canaries, 'canary', 'canaries')}` : ''}`
            : `tenant ${flag.tenant}`,
        ),
      },
    ]),
  ],
  'None: all others had their defaults.',
  'narrow',
)}
${flags.others.count > 40 ? `<p class="soft">${plural(flags.others.count - 40, 'more flag')} set for tenants; see flags.json.</p>` : ''}
<h3>Budgets of the day</h3>
${table(
  ['tenant', 'agent', 'cost', 'of', 'tokens', 'of', 'API calls', 'of'],
  flags.spend.listed
    .slice(0, 40)
    .map((row) => [
      { head: escape(row.tenant ?? 'the fleet') },
      { text: escape(row.agent) },
      num(grouped(row.cost)),
      num(row.cost_limit === null ? '–' : grouped(row.cost_limit)),
      num(grouped(row.tokens)),
      num(row.tokens_limit === null ? '–' : grouped(row.tokens_limit)),
      num(grouped(row.calls)),
      num(row.calls_limit === null ? '–' : grouped(row.calls_limit)),
    ]),
  'Nothing was spent in this day.',
)}
</section>`
}

function shown(value: string | number | boolean | null): string {
  return value === null ? 'unknown' : escape(typeof value === 'string' ? value : String(value))
}

// ---- controls

function controlsSection({ controls }: Page): string {
  const reasons = new Map<string, string[]>()
  for (const { id, why } of controls.not_covered) reasons.set(why, [...(reasons.get(why) ?? []), id])
  return `<section>
<h2>What it says about controls</h2>
<p>${escape(controls.framework)}. ${escape(controls.notice)}</p>
${table(
  ['criterion', 'facts of this day', 'strength', 'state of the facts', 'not shown here'],
  controls.criteria.map((row) => [
    { head: `${escape(row.id)}<br><span class="soft small">${escape(row.about)}</span>` },
    {
      text: row.facts
        .map(
          (fact) =>
            `${escape(fact.shows)} <span class="soft small">(${escape(fact.file)}: ${escape(fact.fact)})</span>`,
        )
        .join('<br>'),
    },
    { text: escape(row.strength) },
    state(row.state),
    { text: escape(row.not_shown) },
  ]),
  '',
)}
<h3>Criteria that this pack does not cover</h3>
<ul class="plain small">
${[...reasons].map(([why, ids]) => `<li><strong>${escape(ids.join(', '))}</strong>: ${escape(why)}</li>`).join('\n')}
</ul>
</section>`
}

// ---- how to check

function verifySection({ manifest }: Page): string {
  return `<section>
<h2>How to check this</h2>
<p>Take the public key and VERIFY.sh from whoever you trust, not out of this folder, and compare the key's fingerprint with the one above. Then, without tms and without a network:</p>
<pre>sh VERIFY.sh key.pem ${escape(manifest.day)}</pre>
<p>With tms, also the ledger, the days before, rotations of the key, and a checkpoint that you kept:</p>
<pre>tms evidence verify ${escape(manifest.day)} --key key.pem --checkpoint checkpoint.txt</pre>
<p class="soft small">Rows of the ledger after the last checkpoint that somebody outside has kept are not protected against being cut off. Keep checkpoint.txt.</p>
</section>`
}

// ---- parts

type Cell = { readonly text: string; readonly className?: string }
type Cells = readonly ({ readonly head: string } | Cell)[]

/** Cells are HTML already. On a narrow screen each row becomes a card, with the labels in front. */
function table(
  columns: readonly string[],
  rows: readonly Cells[],
  empty: string,
  kind: 'wide' | 'narrow' = 'wide',
): string {
  if (rows.length === 0) return empty === '' ? '' : `<p class="soft">${escape(empty)}</p>`
  const numeric = (at: number) => rows.every((row) => isNumber(row[at]))
  const head = columns
    .map((name, at) => `<th scope="col"${numeric(at) ? ' class="num"' : ''}>${escape(name)}</th>`)
    .join('')
  const body = rows
    .map(
      (row) =>
        `<tr>${row
          .map((cell, at) =>
            'head' in cell
              ? `<th scope="row">${cell.head}</th>`
              : `<td${cell.className === undefined ? '' : ` class="${cell.className}"`} data-label="${escape(columns[at] ?? '')}">${cell.text}</td>`,
          )
          .join('')}</tr>`,
    )
    .join('\n')
  return `<table class="${kind}"><thead><tr>${head}</tr></thead><tbody>\n${body}\n</tbody></table>`
}

function isNumber(cell: Cells[number] | undefined): boolean {
  return cell !== undefined && 'className' in cell && cell.className === 'num'
}

function num(text: string): Cell {
  return { text: escape(text), className: 'num' }
}

function state(verdict: Verdict): Cell {
  const [sign, word] = words[verdict]
  return { text: `${sign} ${word}`, className: `state ${verdict}` }
}

/** Values are HTML already. */
function facts(rows: readonly (readonly [label: string, html: string])[]): string {
  return `<dl class="facts">${rows.map(([label, html]) => `<dt>${escape(label)}</dt><dd>${html}</dd>`).join('')}</dl>`
}

function quantity(value: string, unit: string): string {
  if (!/^-?\d+(\.\d+)?$/.test(value)) return value
  if (unit === 'ms') return duration(value)
  return `${grouped(value)}${unit === 'percent' ? '\u00a0%' : unit === '' ? '' : ` ${unit}`}`
}

/** How long a window is: that it ends with the day is said above. */
function span({ from, until }: { readonly from: string; readonly until: string }): string {
  return duration(String(Date.parse(until) - Date.parse(from)))
}

function title(name: string): string {
  return name.replace(/_(?:percent|ms|hours|seconds)$/, '').replaceAll('_', ' ')
}

/** So that two people can compare sixty-four digits over the telephone. Copied, they are one word. */
function inGroups(hex: string): string {
  return (hex.match(/.{1,8}/g) ?? []).map((group) => `<span class="group">${group}</span>`).join('<wbr>')
}

const months = 'January February March April May June July August September October November December'.split(' ')

function longDay(day: string): string {
  const [year = '', month = '', date = ''] = day.split('-')
  return `${Number(date)} ${months[Number(month) - 1] ?? ''} ${year}`
}
