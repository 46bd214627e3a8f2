import type { Block, Cell } from '../ui/blocks.ts'
import type { Exported } from './archive-forms.ts'
import type { Change, EvidenceDiff } from './diff.ts'
import type { EvidenceList, ListedDay, ShownDay } from './list.ts'
import type { Pruned, PrunePlan } from './prune.ts'
import { short } from './verify-forms.ts'
import type { Place, Verdict, Verification, VerifiedDay } from './verify.ts'

const most = 40

export function verificationView(found: Verification): readonly Block[] {
  const { days, broken, unknown, unanchored, checked, unchecked, notes, keys } = found
  return [
    { kind: 'heading', text: found.source },
    {
      kind: 'table',
      columns: ['day', 'verdict', 'says', 'kind'],
      rows: days.map((day) => [day.day, verdictCell(day.verdict), day.says ?? '', kindText(day)]),
      empty: 'No day in it.',
    },
    ...placeBlocks('Broken', broken, 'bad'),
    ...placeBlocks("Can't be read", unknown, 'warn'),
    ...notes.map((text): Block => ({ kind: 'text', text })),
    { kind: 'heading', text: 'Checked' },
    { kind: 'list', items: checked },
    { kind: 'heading', text: 'Not checked' },
    { kind: 'list', items: unchecked },
    ...unanchored.map((text): Block => ({ kind: 'text', text: { text, tone: 'warn' } })),
    {
      kind: 'facts',
      rows: [
        ['key', keys.length === 0 ? 'none from outside' : keys.map(short).join(', ')],
        ['checkpoint', found.checkpoint ? `${found.checkpoint.name}, size ${found.checkpoint.size ?? '?'}` : 'none'],
        ['verdict', verdictCell(found.verdict)],
      ],
    },
  ]
}

function placeBlocks(title: string, places: readonly Place[], tone: 'bad' | 'warn'): readonly Block[] {
  if (places.length === 0) return []
  const items = places.slice(0, most).map((place): Cell => ({ text: placeText(place), tone }))
  const more = places.length - items.length
  return [
    { kind: 'heading', text: title },
    { kind: 'list', items },
    ...(more > 0 ? [{ kind: 'text', text: `… and ${more} more (--json has all).` } as const] : []),
  ]
}

/** `2026-10-01 flags.json: its bytes are not those that were signed (expected …, found …)` */
export function placeText({ day, file, what, expected, found }: Place): string {
  const where = day === null || day === file ? file : `${day} ${file}`
  const seen = [
    ...(expected === null ? [] : [`expected ${short(expected)}`]),
    ...(found === null ? [] : [`found ${short(found)}`]),
  ].join(', ')
  return `${where}: ${what}${seen === '' ? '' : ` (${seen})`}`
}

function kindText({ kind, final, revision }: VerifiedDay): string {
  switch (kind) {
    case 'pack':
      return final === false ? `provisional, revision ${revision ?? '?'}` : 'final'
    case 'tombstone':
      return 'expired, tombstone'
    case 'missing':
      return 'MISSING'
    case 'before':
      return 'before the first pack'
  }
}

export function verdictText(verdict: Verdict): string {
  return verdict === 'unknown' ? "can't tell" : verdict
}

function verdictCell(verdict: Verdict): Cell {
  const tone = verdict === 'verified' ? 'good' : verdict === 'broken' ? 'bad' : 'warn'
  return { text: verdict === 'broken' ? 'BROKEN' : verdictText(verdict), tone }
}

// ---- archives, expiry, what lies there

export function exportView({ out, bytes, sha256, found }: Exported): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['archive', out],
        ['size', `${bytes} bytes`],
        ['sha256', sha256],
        ['days', found.days.length],
        ['verdict', verdictCell(found.verdict)],
      ],
    },
    ...placeBlocks('Broken', found.broken, 'bad'),
    ...found.unanchored.map((text): Block => ({ kind: 'text', text: { text, tone: 'dim' } })),
    { kind: 'next', commands: [`tms evidence verify ${out} --key key.pem --checkpoint kept.txt`] },
  ]
}

export function prunePlanView({ before, go, stay }: PrunePlan): readonly Block[] {
  return [
    {
      kind: 'text',
      text: go.length === 0 ? `Nothing before ${before} is to be deleted.` : `To be deleted: ${daysText(go)}.`,
    },
    ...stayBlocks(stay),
  ]
}

export function prunedView({ pruned, stay }: Pruned): readonly Block[] {
  return [
    {
      kind: 'text',
      text:
        pruned.length === 0
          ? 'No pack was deleted.'
          : `${pruned.length} packs deleted, each with a signed tombstone: ${daysText(pruned)}.`,
    },
    ...stayBlocks(stay),
  ]
}

function stayBlocks(stay: PrunePlan['stay']): readonly Block[] {
  if (stay.length === 0) return []
  return [
    { kind: 'heading', text: 'Expired, and left' },
    { kind: 'list', items: stay.map(({ day, why }): Cell => ({ text: `${day}: ${why}`, tone: 'bad' })) },
    { kind: 'next', commands: stay.slice(0, 1).map(({ day }) => `tms evidence verify ${day} --key key.pem`) },
  ]
}

function daysText(days: readonly string[]): string {
  const [first] = days
  const last = days.at(-1)
  return first === undefined || days.length < 4 ? days.join(', ') : `${first} to ${last ?? ''} (${days.length} days)`
}

export function listView({ root, days }: EvidenceList): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['day', 'says', 'kind', { title: 'files', align: 'right' }, { title: 'bytes', align: 'right' }],
      rows: days.map((day) => [
        day.day,
        saysCell(day.says),
        day.kind === 'provisional' ? `provisional ${day.revision ?? ''}` : day.kind,
        day.files,
        day.kind === 'tombstone' ? '' : day.bytes,
      ]),
      empty: `No packs in ${root}.`,
    },
    ...(days.length === 0 ? [{ kind: 'next', commands: ['tms evidence build'] } as const] : []),
  ]
}

export function dayView({ day, manifest, manifest_sha256, tombstone, files }: ShownDay): readonly Block[] {
  return [
    { kind: 'heading', text: day },
    {
      kind: 'facts',
      rows: [
        ...(manifest
          ? ([
              ['says', saysCell(manifest.verdict)],
              ['kind', manifest.final ? 'final' : `provisional, revision ${manifest.revision}`],
              ['as of', manifest.as_of],
              ['environment', manifest.database.environment],
              ['ledger', manifest.database.origin],
              ['its rows', `${manifest.ledger.from_seq} to before ${manifest.ledger.tree_size}`],
              ['before it', manifest.previous?.day ?? 'none: the first pack'],
              ['key', manifest.key],
              ['manifest', manifest_sha256],
            ] as const)
          : []),
        ...(tombstone
          ? ([
              ['expired', tombstone.expired_at],
              ['because', tombstone.reason],
              ['manifest', tombstone.manifest_sha256],
            ] as const)
          : []),
      ],
    },
    {
      kind: 'table',
      columns: ['file', { title: 'bytes', align: 'right' }],
      rows: files.map(({ name, bytes }) => [name, bytes]),
      empty: 'The pack expired; its tombstone is left.',
    },
    { kind: 'next', commands: [`tms evidence verify ${day} --key key.pem`] },
  ]
}

export function diffView({ from, to, changes, same }: EvidenceDiff): readonly Block[] {
  return [
    { kind: 'heading', text: `${from} and ${to}` },
    {
      kind: 'list',
      items: changes.slice(0, 200).map(changeText),
    },
    ...(changes.length > 200
      ? [{ kind: 'text', text: `… and ${changes.length - 200} more (--json has all).` } as const]
      : []),
    {
      kind: 'text',
      text: changes.length === 0 ? 'The same facts on both days.' : `The same: ${same.join(', ') || 'nothing'}.`,
    },
  ]
}

function changeText({ file, what, before, after }: Change): string {
  const where = `${file}: ${what}`
  if (before === null) return `${where} is new: ${after ?? ''}`
  if (after === null) return `${where} is gone: it was ${before}`
  return `${where} was ${before}, and is ${after}`
}

function saysCell(says: ListedDay['says']): Cell {
  if (says === null) return ''
  return { text: says, tone: says === 'green' ? 'good' : says === 'red' ? 'bad' : 'warn' }
}
