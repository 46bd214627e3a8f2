import { describe, expect, test } from 'vitest'
import { textOf } from '../../src/proof/bytes.ts'
import { distrust, formatKeys, introduce, parseKeys, vouchedFor, type Introduced } from '../../src/keys/introduction.ts'
import type { Signer } from '../../src/keys/signer.ts'
import { acceptedFlips, newSigner } from '../proof/signers.ts'

const [first, second, third, stranger] = [newSigner(), newSigner(), newSigner(), newSigner()]

async function introduced(key: Signer, by: Signer, from: string, until: string): Promise<Introduced> {
  const terms = {
    fingerprint: key.fingerprint,
    public_pem: key.publicKeyPem,
    not_before: day(from),
    not_after: day(until),
  }
  return {
    ...terms,
    introduced_by: by === key ? null : by.fingerprint,
    introduction: await introduce(terms, by),
    ended_at: null,
    revoked_at: null,
  }
}
const day = (text: string) => `${text}T00:00:00.000000Z`

const chain = [
  { ...(await introduced(first, first, '2026-01-01', '2027-01-01')), ended_at: day('2026-06-01') },
  { ...(await introduced(second, first, '2026-06-01', '2027-06-01')), ended_at: day('2026-09-01') },
  await introduced(third, second, '2026-09-01', '2027-09-01'),
]
const judge = (keys: readonly Introduced[], trusted: Signer, signer: Signer, at: string) =>
  distrust({ keys, trusted }, signer.fingerprint, day(at))

describe('a chain of keys', () => {
  test('is followed from the trusted one to later ones, and not back', () => {
    expect(vouchedFor({ keys: chain, trusted: first })).toEqual(chain)
    expect(vouchedFor({ keys: chain, trusted: second })).toEqual(chain.slice(1))
    expect(vouchedFor({ keys: chain, trusted: stranger })).toEqual([])
    expect(judge(chain, first, third, '2026-10-01')).toBeNull()
    expect(judge(chain, second, first, '2026-03-01')).toContain('neither the trusted one nor introduced by it')
  })

  test('each key signs in its time only', () => {
    expect(judge(chain, first, first, '2026-03-01')).toBeNull()
    expect(judge(chain, first, first, '2025-12-31')).toContain('was valid from 2026-01-01')
    expect(judge(chain, first, first, '2026-06-02')).toContain('another key took over')
    expect(judge(chain.slice(2), third, third, '2027-09-02')).toContain('neither')
    expect(judge(chain, first, third, '2027-09-02')).toContain('was valid until 2027-09-01')
  })

  test('a revoked key signed nothing from then on, and introduced nobody', () => {
    const [a, b, c] = chain
    if (!a || !b || !c) throw new Error('three keys')
    const revoked = [a, { ...b, revoked_at: day('2026-07-01'), ended_at: day('2026-07-01') }, c]
    expect(judge(revoked, first, second, '2026-06-15')).toBeNull()
    expect(judge(revoked, first, second, '2026-07-01')).toContain('was revoked')
    expect(judge(revoked, first, third, '2026-10-01')).toContain('neither')
  })

  test('a key that was put in, and a time that was made longer, count for nothing', async () => {
    const forged = {
      ...(await introduced(stranger, stranger, '2026-01-01', '2030-01-01')),
      introduced_by: first.fingerprint,
    }
    expect(judge([...chain, forged], first, stranger, '2026-10-01')).toContain('neither')
    const longer = chain.map((key) => ({ ...key, not_after: day('2030-01-01') }))
    expect(judge(longer, first, first, '2026-03-01')).toContain('neither')
    const swapped = chain.map((key) => ({ ...key, public_pem: stranger.publicKeyPem }))
    expect(vouchedFor({ keys: swapped, trusted: first })).toEqual([])
    const circle = chain.map((key, at) => (at === 0 ? { ...key, introduced_by: third.fingerprint } : key))
    expect(vouchedFor({ keys: circle, trusted: first })).toEqual([])
  })

  test('keys.json is read as it is written, and no bit of what was introduced can be turned over', () => {
    const text = formatKeys(chain)
    expect(parseKeys(text)).toEqual(chain)
    const last = third.fingerprint
    // who knows when a key ended is told by the pack's own signature over the file; the rest is signed by the keys
    const accepted = acceptedFlips(Buffer.from(text), (bytes) => {
      const keys = parseKeys(textOf(bytes))
      const told = (list: readonly Introduced[]) => list.map((key) => ({ ...key, ended_at: null, revoked_at: null }))
      return distrust({ keys, trusted: first }, last, day('2026-10-01')) === null && told(keys).length === 3
        ? JSON.stringify(told(keys)) !== JSON.stringify(told(chain))
        : false
    })
    expect(accepted).toEqual([])
  })

  test.each([
    ['a field more', (text: string) => text.replace('"keys":', '"extra":1,"keys":')],
    ['another type', (text: string) => text.replace('tms-keys-v1', 'tms-keys-v2')],
    ['another way to write a time', (text: string) => text.replace('T00:00:00.000000Z', 'T00:00:00Z')],
    ['no keys', () => '{"keys":[],"type":"tms-keys-v1"}\n'],
  ])('keys.json with %s is refused', (_, spoil) => {
    expect(() => parseKeys(spoil(formatKeys(chain)))).toThrow(expect.objectContaining({ name: 'ProofError' }))
  })
})
