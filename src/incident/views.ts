import { moment } from '../agents/views.ts'
import type { Incident, LeverChange } from '../drivers/contract/incidents.ts'
import type { Block, Cell, Tone } from '../ui/blocks.ts'
import type { CertifiedLater } from './certify.ts'
import type { Listed, Opened, Shown, Worked } from './incidents.ts'
import type { Degraded, RollbackPlan, RolledBack, SafeMode } from './levers.ts'
import type { Pressed } from './press.ts'
import type { Rehearsal } from './rehearse.ts'
import type { Report } from './report.ts'
import type { Resumed } from './resume.ts'
import { stopFileRows } from './stop-file.ts'

const count = (n: number | string, one: string) => `${n} ${one}${String(n) === '1' ? '' : 's'}`

export function pressedView(p: Pressed): readonly Block[] {
  const { certificate } = p
  return [
    {
      kind: 'text',
      text: p.fenced
        ? { text: 'HALTED: nothing autonomous commits', tone: 'good' }
        : { text: 'NOT FENCED: something may still commit', tone: 'bad' },
    },
    {
      kind: 'facts',
      rows: [
        ['database', p.target],
        ['workers', p.workers === null ? { text: 'unknown', tone: 'warn' } : count(p.workers, 'worker')],
        ['incident', p.incidentId === null ? { text: 'none was opened', tone: 'warn' } : p.incidentId],
        ...(p.already ? ([['since', `${moment(p.since)} UTC, pressed by ${p.by ?? 'somebody'}`]] as const) : []),
        ['epoch', p.epoch],
        ['time to fence', `${p.ms_to_fence} ms`],
        ['in flight', p.in_flight === null ? 'unknown' : count(p.in_flight, 'task')],
        ...(certificate === null
          ? []
          : ([
              ['acknowledged', names(certificate.acknowledged)],
              ['silent', silent(certificate.silent)],
            ] as const)),
        ['terminated', p.terminated.map((t) => `${t.login ?? '?'} (${t.pid})`).join(', ') || 'none'],
        ...(p.survivors.length === 0 ? [] : ([['survivors', { text: p.survivors.join(', '), tone: 'bad' }]] as const)),
        ['signed', signed(certificate)],
      ],
    },
    ...(p.files.length === 0 ? [] : ([{ kind: 'list', items: p.files }] as const)),
    {
      kind: 'next',
      commands:
        p.incidentId === null
          ? ['tms incident list']
          : [
              `tms incident show ${p.incidentId}`,
              `tms incident resume ${p.incidentId}`,
              ...(certificate?.signature === null ? [`tms incident certify ${p.incidentId}`] : []),
            ],
    },
  ]
}

function names(workers: readonly { readonly worker: string }[]): string {
  return workers.length === 0 ? 'none' : workers.map(({ worker }) => worker).join(', ')
}
function silent(workers: readonly { readonly worker: string; readonly host: string }[]): Cell {
  if (workers.length === 0) return 'none'
  return { text: workers.map(({ worker, host }) => `${worker} on ${host}`).join(', '), tone: 'warn' }
}
function signed(certificate: Pressed['certificate']): Cell {
  if (certificate === null) return { text: 'no certificate', tone: 'warn' }
  if (certificate.signature === null) return { text: 'not yet', tone: 'warn' }
  return `by key ${certificate.signature.fingerprint.slice(0, 8)}`
}

export function certifiedView({ incidentId, target, certificates }: CertifiedLater): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['incident', incidentId],
        ['database', target],
        ...certificates.map(
          ({ halt, fingerprint, before }) =>
            [`halt ${halt}`, `${before ? 'was signed already' : 'signed'} by key ${fingerprint.slice(0, 8)}`] as const,
        ),
      ],
    },
    { kind: 'list', items: [...new Set(certificates.flatMap(({ files }) => files))] },
    ...certificates.flatMap(({ halt, aside }): Block[] =>
      aside === null
        ? []
        : [
            {
              kind: 'text',
              text: {
                text: `The certificate of halt ${halt} that lay there says something else than the database. It is kept as ${aside}`,
                tone: 'warn',
              },
            },
          ],
    ),
  ]
}

export function degradedView(d: Degraded): readonly Block[] {
  const of = d.tenant === null ? 'of the whole fleet' : `of tenant ${d.tenant}`
  return [
    {
      kind: 'text',
      text: {
        text: d.changes.length === 0 ? `Soft degrade ${of}: nothing was left to lower` : `Soft degrade is on, ${of}`,
        tone: 'strong',
      },
    },
    {
      kind: 'facts',
      rows: [
        ['database', `${d.target}, ${count(d.workers, 'worker')}`],
        ['tenant', d.tenant ?? 'all: the whole fleet'],
        ['incident', `${d.incident}${d.joined ? ' (open before)' : ''}`],
        ['slots', `${d.slots_before} -> ${d.slots_after}`],
      ],
    },
    changesTable(d.changes),
    { kind: 'next', commands: [`tms incident resume ${d.incident}`, `tms incident show ${d.incident}`] },
  ]
}

type Change = Pick<LeverChange, 'key' | 'scope' | 'before' | 'after'> & { readonly before_stage?: string | null }
function changesTable(changes: readonly Change[]): Block {
  return {
    kind: 'table',
    columns: ['flag', 'where', 'before', 'after'],
    rows: changes.map((c) => [
      c.key,
      c.scope,
      `${value(c.before)}${c.before_stage ? ` (${c.before_stage})` : ''}`,
      value(c.after),
    ]),
    empty: 'No flag changes.',
  }
}
function value(v: Change['before']): string {
  return v === null ? 'default' : JSON.stringify(v)
}

export function rollbackPlanView(plan: RollbackPlan): readonly Block[] {
  const blocks = [
    {
      kind: 'facts',
      rows: [
        ['database', `${plan.target}, ${count(plan.workers, 'worker')}`],
        ['back to', plan.moment === null ? 'nothing' : `${moment(plan.moment)} UTC`],
        ['because', plan.source],
      ],
    },
    changesTable(plan.changes),
    heldList(plan.held),
  ] satisfies Block[]
  if (plan.changes.length > 0) return blocks
  return [...blocks, { kind: 'next', commands: ['tms flags history', 'tms incident rollback --to <time>'] }]
}

/** An alarm asked for it: nothing was changed, and the alarm is on record. */
export function notRolledBackView(
  plan: RollbackPlan & { readonly incident: string; readonly joined: boolean },
): readonly Block[] {
  const { incident, joined } = plan
  const same = plan.basis === 'flags' ? 'no posture on record was green' : 'the flags are what they were then'
  const why = plan.moment === null ? 'there is no state to go back to' : same
  const where = joined ? `It joined incident ${incident}.` : `Incident ${incident} is open.`
  return [
    { kind: 'text', text: { text: `Nothing was rolled back: ${why}. ${where}`, tone: 'warn' } },
    ...rollbackPlanView(plan),
  ]
}

/** What a soft degrade lowered comes back with its own resume. */
function heldList(held: RollbackPlan['held']): Block {
  return {
    kind: 'list',
    items: held.map(({ key, scope, incident }) => ({
      text: `${key} (${scope}) is left: soft degrade of incident ${incident} holds it until its resume`,
      tone: 'warn' as const,
    })),
  }
}

export function rolledBackView(done: RolledBack): readonly Block[] {
  return [
    {
      kind: 'text',
      text: {
        text: done.changes.length === 0 ? 'Nothing to roll back' : `${count(done.changes.length, 'flag')} rolled back`,
        tone: 'strong',
      },
    },
    {
      kind: 'facts',
      rows: [
        ['database', `${done.target}, ${count(done.workers, 'worker')}`],
        ['incident', done.incident ?? 'none'],
        ['state of', done.moment === null ? 'nothing' : `${moment(done.moment)} UTC`],
        ['because', done.source],
      ],
    },
    changesTable(done.changes),
    heldList(done.held),
    {
      kind: 'next',
      commands: [
        // What stood before it was done is a state too.
        ...(done.at === null ? [] : [`tms incident rollback --to ${done.at}`]),
        'tms flags verify',
        ...(done.incident === null ? [] : [`tms incident resolve ${done.incident} --why <reason>`]),
      ],
    },
  ]
}

function resumedWords({ needless, percent }: Resumed): string {
  if (!needless) return 'Resumed: all slots are back'
  return `Nothing was held back any more: the incident is over, and the slots stay at ${percent} %`
}

export function resumedView(r: Resumed): readonly Block[] {
  return [
    {
      kind: 'text',
      text:
        r.stopped === null
          ? r.safeMode
            ? { text: `${resumedWords(r)}, and SAFE MODE IS STILL ON`, tone: 'warn' }
            : { text: resumedWords(r), tone: 'good' }
          : { text: `It stands at ${r.percent} % of the slots: ${r.stopped.why}`, tone: 'bad' },
    },
    {
      kind: 'facts',
      rows: [
        ['database', `${r.target}, ${count(r.workers, 'worker')}`],
        ['incident', r.incidentId],
        ['epoch', r.epoch],
        ['fence', r.lifted ? 'lifted' : 'was not closed'],
        ...(r.safeMode ? ([['safe mode', { text: 'ON: nobody writes to guarded tables', tone: 'bad' }]] as const) : []),
        ...r.stages.map(
          ({ percent, state, why }) => [`${percent} %`, state === null ? why : `${state}: ${why}`] as const,
        ),
      ],
    },
    ...(r.undone.length === 0 ? [] : [changesTable(r.undone.map((c) => ({ ...c, before: c.after, after: c.before })))]),
    ...(r.kept.length === 0
      ? []
      : ([
          {
            kind: 'list',
            items: r.kept.map(({ key, scope, why }) => ({
              text: `${key} (${scope}) is left: ${why}`,
              tone: 'warn' as const,
            })),
          },
        ] as const)),
    {
      kind: 'next',
      commands:
        r.stopped === null
          ? [
              ...(r.safeMode ? ['tms incident safe-mode off'] : []),
              `tms incident report ${r.incidentId}`,
              `tms incident close ${r.incidentId}`,
            ]
          : [`tms incident resume ${r.incidentId}`, 'tms incident soft-degrade', 'tms incident big-red-button'],
    },
  ]
}

export function approvedView({ id, target, by }: { id: string; target: string; by: string }): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['incident', id],
        ['database', target],
        ['agrees', by],
      ],
    },
    { kind: 'next', commands: [`tms incident resume ${id} (the other person)`] },
  ]
}

export function safeModeView(s: SafeMode): readonly Block[] {
  return [
    {
      kind: 'text',
      text: s.on
        ? s.fenced === false
          ? { text: 'SAFE MODE IS ON, and something may still commit', tone: 'bad' }
          : { text: 'Safe mode is on: nobody writes to guarded tables', tone: 'good' }
        : { text: 'Safe mode is off', tone: 'strong' },
    },
    {
      kind: 'facts',
      rows: [
        ['database', s.workers === undefined ? s.target : `${s.target}, ${count(s.workers, 'worker')}`],
        ...(s.already === true && s.since !== undefined
          ? ([['since', `${moment(s.since)} UTC, by ${s.by ?? 'somebody'}`]] as const)
          : []),
        ['epoch', s.epoch],
        ...(s.terminated === undefined || s.terminated.length === 0
          ? []
          : ([['terminated', s.terminated.map(({ login, pid }) => `${login ?? '?'} (${pid})`).join(', ')]] as const)),
        ...(s.survivors === undefined || s.survivors.length === 0
          ? []
          : ([['survivors', { text: s.survivors.join(', '), tone: 'bad' }]] as const)),
      ],
    },
    { kind: 'next', commands: s.on ? ['tms incident safe-mode off'] : [] },
  ]
}

const tones = { P1: 'bad', P2: 'warn', P3: 'dim', P4: 'dim' } as const satisfies Record<Incident['priority'], Tone>

export function incidentsView({
  target,
  fence,
  slots_percent,
  resuming,
  incidents,
  more,
  times,
  stopFile,
}: Listed): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['database', target],
        [
          'fleet',
          fence.halted
            ? { text: `HALTED, epoch ${fence.epoch}`, tone: 'bad' }
            : slots_percent < 100
              ? { text: `coming back: ${slots_percent} % of the slots`, tone: 'warn' }
              : 'working',
        ],
        ...(fence.safe_mode ? ([['safe mode', { text: 'ON', tone: 'bad' }]] as const) : []),
        ...stopFileRows(stopFile),
        ['acted after', mean(times.mtta_seconds, times.acted)],
        ['over after', mean(times.mttr_seconds, times.resolved)],
      ],
    },
    {
      kind: 'table',
      columns: ['id', '', 'status', 'since', 'title'],
      rows: incidents.map((i) => [
        i.id,
        { text: i.priority, tone: tones[i.priority] },
        i.status,
        moment(i.opened_at),
        `${i.tenant === null ? '' : `${i.tenant}: `}${i.title}`,
      ]),
      empty: 'No open incidents.',
    },
    ...(more === 0 ? [] : [{ kind: 'text', text: `${more} more, less grave or older: --limit` } as const]),
    { kind: 'next', commands: resuming === null ? [] : [`tms incident resume ${resuming}`] },
  ]
}

function mean(seconds: string | null, of: string): Cell {
  return seconds === null
    ? { text: 'unknown', tone: 'dim' }
    : `${Math.round(Number(seconds))} s on average (${of}, 30 days)`
}

export function incidentView(shown: Shown): readonly Block[] {
  const { incident: i, events, halts, levers, certificates, snapshot } = shown
  return [
    { kind: 'heading', text: `${i.priority} ${i.title}` },
    {
      kind: 'facts',
      rows: [
        ['incident', `${i.id} (${i.type})`],
        ['whose', i.tenant ?? 'the whole fleet'],
        ['status', i.status],
        ['opened', `${moment(i.opened_at)} UTC by ${i.opened_by}`],
        ['seen', `${count(i.occurrences, 'time')}, last ${moment(i.last_seen_at)}`],
        ['respond until', `${moment(i.response_due)}${i.late_at === null ? '' : ', LATE'}`],
        ['acknowledged', i.acked_at === null ? 'no' : `${moment(i.acked_at)} by ${i.acked_by ?? 'somebody'}`],
        ...(i.resolved_at === null
          ? []
          : ([
              ['over', `${moment(i.resolved_at)} by ${i.resolved_by ?? 'somebody'} (${i.resolution ?? ''})`],
            ] as const)),
        ...(snapshot === null ? [] : ([['snapshot', `${moment(i.opened_at)}, with --json`]] as const)),
      ],
    },
    timelineTable(events),
    ...(halts.length === 0
      ? []
      : ([
          {
            kind: 'table',
            columns: ['halt', 'at', 'by', 'terminated', 'silent', 'signed'],
            rows: halts.map((h) => [
              h.halt,
              moment(h.at),
              h.by,
              h.terminated.length,
              h.silent.length,
              certificates.some(({ halt, signed_by }) => halt === h.halt && signed_by.length > 0) ? 'yes' : 'no',
            ]),
            empty: '',
          },
        ] as const)),
    ...levers.map((lever) => changesTable(lever.changes)),
    { kind: 'next', commands: nextOf(shown) },
  ]
}

function nextOf({ incident: i, fence, resuming, levers }: Shown): string[] {
  const resume = `tms incident resume ${i.id}`
  // Whatever its state: until then slots are missing.
  if (resuming === i.id) return [resume]
  if (i.status === 'RESOLVED') return [`tms incident report ${i.id}`, `tms incident close ${i.id}`]
  if (i.status === 'CLOSED') return []
  const held = levers.some(({ kind, undone_at }) => kind === 'soft_degrade' && undone_at === null)
  return [
    ...(i.acked_at === null ? [`tms incident ack ${i.id}`] : []),
    held || (i.type === 'emergency_stop' && fence.halted) ? resume : `tms incident resolve ${i.id} --why <reason>`,
  ]
}

function timelineTable(events: Shown['events']): Block {
  return {
    kind: 'table',
    columns: ['at', 'what', 'who', 'words'],
    rows: events.map(({ at, kind, who, text }) => [moment(at), kind, who, text]),
    empty: 'Nothing happened yet.',
  }
}

export function timelineView({ incident, events }: Shown): readonly Block[] {
  return [{ kind: 'heading', text: `${incident.priority} ${incident.title}` }, timelineTable(events)]
}

export function openedView({ target, joined, incident: i }: Opened): readonly Block[] {
  return [
    {
      kind: 'text',
      text: { text: joined ? `Joined incident ${i.id}` : `Incident ${i.id} is open`, tone: 'strong' },
    },
    {
      kind: 'facts',
      rows: [
        ['database', target],
        ['priority', i.priority],
        ['title', i.title],
        ['respond until', moment(i.response_due)],
        ['seen', count(i.occurrences, 'time')],
      ],
    },
    { kind: 'next', commands: [`tms incident show ${i.id}`, `tms incident ack ${i.id}`] },
  ]
}

const done = { ack: 'acknowledged', note: 'noted', resolve: 'resolved', close: 'closed' } as const
export function workedView({ action, changed, incident: i }: Worked): readonly Block[] {
  return [
    {
      kind: 'text',
      text: changed
        ? `Incident ${i.id}: ${done[action]}.`
        : `Incident ${i.id} was ${done[action]} before, by ${i.acked_by ?? 'somebody'}.`,
    },
    {
      kind: 'next',
      commands:
        action === 'resolve'
          ? [`tms incident report ${i.id}`, `tms incident close ${i.id}`]
          : [`tms incident show ${i.id}`],
    },
  ]
}

export function reportView({ file }: Report): readonly Block[] {
  return [{ kind: 'text', text: `The draft is in ${file}. Its open questions are yours.` }]
}

export function rehearsalView({ target, tenant, steps }: Rehearsal): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['database', target],
        ['tenant', tenant],
      ],
    },
    {
      kind: 'table',
      columns: ['step', '', 'outcome'],
      rows: steps.map(({ name, ok, why }) => [
        name,
        ok ? { text: 'ok', tone: 'good' } : { text: 'FAILED', tone: 'bad' },
        why,
      ]),
      empty: '',
    },
  ]
}
