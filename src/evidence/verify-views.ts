import type { Block, Cell } from '../ui/blocks.ts'
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
