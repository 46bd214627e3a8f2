import type { Contract } from '../drivers/contract.ts'
import type { Block } from '../ui/blocks.ts'
import type { MadeCheckpoint, Witnessed } from './checkpoint.ts'
import type { ExportPlan } from './export.ts'
import type { Verification } from './findings.ts'
import { rowsText } from './findings.ts'
import type { LedgerRow, Sealed } from './ledger.ts'
import type { Proof } from './prove.ts'

const right = (title: string) => ({ title, align: 'right' }) as const

export function ledgerView({ rows }: Contract['ledger_tail']['result']): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: [right('row'), 'at', 'who', 'role', 'did', 'outcome', 'to', 'tenant', 'why'],
      rows: rows.map((row) => [
        row.seq ?? { text: 'waits', tone: 'dim' },
        row.at.slice(0, 19),
        row.who,
        row.role,
        row.action,
        { text: row.outcome, tone: row.outcome === 'done' ? 'good' : 'warn' },
        row.subject,
        row.tenant ?? '',
        row.why,
      ]),
      empty: 'Nothing happened yet.',
    },
  ]
}

export function rowView(row: LedgerRow): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['row', row.seq],
        ['at', row.at],
        ['who', row.who],
        ['as', row.role],
        ['by', row.credential],
        ['through', row.fn],
        ['did', row.action],
        ['outcome', { text: row.outcome, tone: row.outcome === 'done' ? 'good' : 'warn' }],
        ['to', row.subject],
        ['tenant', row.tenant ?? 'none'],
        ['why', row.why],
        ...(row.trace_id === null ? [] : [['trace', row.trace_id] as const]),
        ['inbox id', row.id],
        ['sealed', row.sealed_at],
        ['row hash', row.row_hash],
        ['follows (prev hash)', row.prev_hash],
        ['leaf', row.leaf],
        ['body sha256', row.body_sha256],
        ['body', row.body ?? 'redacted'],
      ],
    },
    { kind: 'next', commands: [`tms ledger prove ${row.seq}`] },
  ]
}

export function sealedView({ sealed, size, pending, busy }: Sealed): readonly Block[] {
  return [
    {
      kind: 'text',
      text: busy
        ? `Somebody else is sealing. The ledger has ${size} rows.`
        : `Sealed ${sealed} rows. The ledger has ${size}${pending === null || pending === '0' ? '.' : `, and ${pending === '1000' ? '1000 or more' : pending} wait.`}`,
    },
  ]
}

/** The note itself: stdout may be a file. */
export function noteView({ note }: MadeCheckpoint | Witnessed): readonly Block[] {
  return [{ kind: 'verbatim', text: note }]
}

export function proofView({ text }: Proof): readonly Block[] {
  return [{ kind: 'verbatim', text }]
}

export function writtenView({ out, what }: { readonly out: string; readonly what: string }): readonly Block[] {
  return [{ kind: 'text', text: `Wrote ${what} to ${out}.` }]
}

export type Exported = ExportPlan & { readonly out: string; readonly redacted: boolean }

export function exportedView({ header, end, out, redacted }: Exported): readonly Block[] {
  return [
    {
      kind: 'text',
      text: `Wrote ${rowsText(header.from, header.to - 1)} to ${out}${redacted ? ', without subjects, reasons and bodies' : ''}.`,
    },
    {
      kind: 'text',
      text:
        end.checkpoint === null
          ? { text: 'No checkpoint covers them all: nobody signed them.', tone: 'warn' }
          : `They lead to the checkpoint of ${end.size} rows, which is at the end.`,
    },
    {
      kind: 'next',
      commands:
        end.checkpoint === null
          ? ['tms ledger checkpoint']
          : [`tms evidence keys export > key.pem`, `tms ledger verify --export ${out} --key key.pem`],
    },
  ]
}

export function verificationView(v: Verification): readonly Block[] {
  const { verdict, checkpoint } = v
  return [
    {
      kind: 'text',
      text: {
        text: `${v.of}: ${sentence[verdict]}`,
        tone: verdict === 'broken' ? 'bad' : verdict === 'verified' ? 'good' : 'warn',
      },
    },
    {
      kind: 'facts',
      rows: [
        ['rows', v.to > v.from ? `${v.from}-${v.to - 1}` : 'none'],
        ['checked', v.checked],
        ...(v.hidden > 0 ? [['by hash alone', v.hidden] as const] : []),
        ['root', v.root ?? 'none'],
        [
          'checkpoint',
          checkpoint === null
            ? 'none'
            : `${checkpoint.size} rows, ${checkpoint.holds ? 'holds' : 'does not hold'}, ${checkpoint.signed === null ? 'signature not checked' : checkpoint.signed ? 'signed by the key' : 'not signed by the key'}`,
        ],
      ],
    },
    {
      kind: 'list',
      items: [
        ...v.findings.map(({ place, what, expected, found }) => ({
          text: `${place}: ${what}${expected === null && found === null ? '' : ` (expected ${expected ?? 'nothing'}, found ${found ?? 'nothing'})`}`,
          tone: 'bad' as const,
        })),
        ...(v.more > 0 ? [`and ${v.more} more`] : []),
        ...v.unchecked.map((text) => ({ text: `Not checked: ${text}`, tone: 'dim' as const })),
      ],
    },
  ]
}

const sentence: Record<Verification['verdict'], string> = {
  verified: 'verified. Every row is what the key signed.',
  unanchored: 'all fits together, and nothing from outside vouches for it.',
  unsealed: 'what is sealed fits together, and some rows have no place in it yet.',
  broken: 'broken. Something was changed.',
  empty: 'nothing is sealed, so there was nothing to verify.',
}
