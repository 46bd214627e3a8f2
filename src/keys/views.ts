import type { KeyRecord } from '../drivers/contract/keys.ts'
import type { Block, Cell } from '../ui/blocks.ts'
import { keysFinding, type KeyList, type ListedKey, type Made } from './keys.ts'

export function keysView(list: KeyList): readonly Block[] {
  const { keys, own, announced } = list
  const finding = keysFinding(list)
  return [
    {
      kind: 'table',
      columns: ['key', 'state', 'from', 'until', 'introduced by', 'here'],
      rows: keys.map((key) => [
        key.fingerprint.slice(0, 16),
        stateOf(key),
        key.not_before.slice(0, 10),
        key.not_after.slice(0, 10),
        key.introduced_by?.slice(0, 16) ?? 'itself',
        key.here ? 'yes' : '',
      ]),
      empty: 'The database knows no key.',
    },
    {
      kind: 'facts',
      rows: [
        ['this machine', own ? `${own.fingerprint} (${own.place})` : 'has no key'],
        ...(announced === null ? [] : [['init made', `${announced}, not registered yet`] as const]),
        ...(finding === null ? [] : [['finding', { text: finding, tone: 'bad' }] as const]),
      ],
    },
    { kind: 'next', commands: nextOf(list) },
  ]
}

function nextOf({ keys, own, exposed }: KeyList): readonly string[] {
  const inForce = keys.find(({ state }) => state === 'valid')
  if (!inForce) return [own && !own.registered ? 'tms evidence keys generate --register' : 'tms evidence keys generate']
  if (exposed && own) return [`chmod 600 ${own.place}`, 'tms evidence keys rotate']
  if (own?.fingerprint !== inForce.fingerprint) {
    return [
      `tms evidence keys revoke ${inForce.fingerprint.slice(0, 16)} --why "the key is lost"`,
      `tms evidence keys generate${own ? ' --register' : ''}`,
    ]
  }
  return inForce.here && inForce.time !== 'usual' ? ['tms evidence keys rotate'] : []
}

function stateOf({ state, time, why }: ListedKey): Cell {
  if (state === 'revoked') return { text: why ? `revoked: ${why}` : 'revoked', tone: 'bad' }
  if (state === 'retired') return { text: 'retired', tone: 'dim' }
  if (time === 'ended') return { text: 'ended', tone: 'bad' }
  return time === 'soon' ? { text: 'in force, ends soon', tone: 'warn' } : { text: 'in force', tone: 'good' }
}

export function madeKeyView(key: Made): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['fingerprint', { text: key.fingerprint, tone: 'strong' }],
        ['private half', `${key.place}${key.made ? '' : ' (was there)'}`],
        ['valid', `${key.not_before.slice(0, 10)} to ${key.not_after.slice(0, 10)}`],
        ['introduced by', key.introduced_by ?? 'itself: the beginning of a chain'],
        ...(key.kept === null ? [] : [['old private half', key.kept] as const]),
      ],
    },
    ...(key.introduced_by === null
      ? [
          {
            kind: 'text' as const,
            text: 'Tell auditors this fingerprint by another way than the packs: their trust begins with it.',
          },
        ]
      : []),
    { kind: 'next', commands: key.next },
  ]
}

export function revokedKeyView({ key }: { readonly key: KeyRecord }): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['fingerprint', key.fingerprint],
        ['revoked', { text: key.revoked_at, tone: 'bad' }],
        ['why', key.why],
      ],
    },
    { kind: 'text', text: 'Tell everybody who trusts it. What it signed before stands as far as the ledger holds it.' },
    { kind: 'next', commands: ['tms evidence keys list', 'tms evidence keys generate'] },
  ]
}

export function pemView({ keys }: { readonly keys: readonly KeyRecord[] }): readonly Block[] {
  const text = keys.map(({ public_pem }) => public_pem).join('')
  return [{ kind: 'verbatim', text: text.trimEnd() }]
}
