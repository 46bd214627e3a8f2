import type { PublicHalf } from '../proof/ed25519.ts'
import { verifySignature } from '../proof/ed25519.ts'
import { isIntroducedBy, short, type KeyEntry } from './verify-forms.ts'
import type { ExaminedPack, Place } from './verify-pack.ts'

/** A key that may be believed, and since when and until when. */
type TrustedKey = {
  readonly half: PublicHalf
  readonly how: string
  /** Null: no pack tells. */
  readonly notBefore: string | null
  readonly notAfter: string | null
  readonly revokedAt: string | null
  /** Since when another one signs in its place. */
  readonly endedAt: string | null
}

export type Trust = {
  readonly keys: ReadonlyMap<string, TrustedKey>
  /** Packs that contradict each other about a key. */
  readonly broken: readonly Place[]
}

/**
 * Which keys may be believed, beginning with those from outside.
 *
 * Forward: a key that a believed one introduced. The introduction is a signature, so it needs no other trust, except
 * that a revoked key introduces nobody from its revocation on. Backward: the keys that introduced a believed one, as its
 * own packs list them: somebody who holds today's key must be able to check last year's packs. Nobody else is believed,
 * and what a pack tells of keys counts only when a believed key signed that pack.
 */
export function trustKeys(given: readonly PublicHalf[], packs: readonly ExaminedPack[]): Trust {
  const halves = new Map<string, { readonly half: PublicHalf; readonly how: string }>(
    given.map((half) => [half.fingerprint, { half, how: 'given' }]),
  )
  const vouched = new Set<ExaminedPack>()
  for (let before = -1; before !== halves.size + vouched.size;) {
    before = halves.size + vouched.size
    for (const pack of packs) {
      if (!pack.keys) continue
      if (!vouched.has(pack) && signedByOneOf(pack, halves)) vouched.add(pack)
      introduceForward(pack.keys, halves)
      if (vouched.has(pack)) listBackward(pack, halves)
    }
  }

  const broken: Place[] = []
  const told = new Map<string, { readonly entry: KeyEntry; readonly day: string }>()
  const revoked = new Map<string, string>()
  const ended = new Map<string, string>()
  // In the order of their days, so that what is said later about a revocation is the contradiction.
  const inOrder = [...vouched].sort((a, b) => ((a.manifest?.as_of ?? '') < (b.manifest?.as_of ?? '') ? -1 : 1))
  for (const pack of inOrder) {
    for (const entry of pack.keys ?? []) {
      const own = entry.introduced_by === null && entry.introduction !== null
      const older = own ? entry : halves.get(entry.introduced_by ?? '')
      if (older && !isIntroducedBy(entry, older.half)) {
        broken.push({
          day: pack.folder,
          file: 'keys.json',
          what: `the introduction of the key ${short(entry.fingerprint)} by ${short(older.half.fingerprint)} is wrong`,
          expected: 'a signature over this key and this validity',
          found: window(entry),
        })
      }
      const earlier = told.get(entry.fingerprint)
      if (!earlier) told.set(entry.fingerprint, { entry, day: pack.folder })
      else if (window(earlier.entry) !== window(entry)) {
        broken.push({
          day: pack.folder,
          file: 'keys.json',
          what: `tells another validity of the key ${short(entry.fingerprint)} than the pack of ${earlier.day}`,
          expected: window(earlier.entry),
          found: window(entry),
        })
      }
      for (const [what, known, now] of [
        ['revocation', revoked, entry.revoked_at],
        ['end', ended, entry.ended_at],
      ] as const) {
        const since = known.get(entry.fingerprint)
        if (since !== undefined && now !== since) {
          broken.push({
            day: pack.folder,
            file: 'keys.json',
            what: `tells otherwise about the ${what} of the key ${short(entry.fingerprint)} than an earlier pack`,
            expected: since,
            found: now,
          })
        } else if (now !== null) known.set(entry.fingerprint, now)
      }
    }
  }
  const keys = new Map<string, TrustedKey>()
  for (const [fingerprint, { half, how }] of halves) {
    const entry = told.get(fingerprint)?.entry
    keys.set(fingerprint, {
      half,
      how,
      notBefore: entry?.not_before ?? null,
      notAfter: entry?.not_after ?? null,
      revokedAt: revoked.get(fingerprint) ?? null,
      endedAt: ended.get(fingerprint) ?? null,
    })
  }
  return { keys: withoutLateIntroductions(keys, told), broken }
}

type Halves = Map<string, { readonly half: PublicHalf; readonly how: string }>

function introduceForward(keys: readonly KeyEntry[], halves: Halves): void {
  // A chain in any order of its entries: as many rounds as there are keys, at most.
  for (let before = -1; before !== halves.size;) {
    before = halves.size
    for (const entry of keys) {
      if (halves.has(entry.fingerprint) || entry.introduced_by === null) continue
      const older = halves.get(entry.introduced_by)
      if (older && isIntroducedBy(entry, older.half)) {
        halves.set(entry.fingerprint, { half: entry.half, how: `introduced by ${short(entry.introduced_by)}` })
      }
    }
  }
}

function listBackward(pack: ExaminedPack, halves: Halves): void {
  const byFingerprint = new Map((pack.keys ?? []).map((entry) => [entry.fingerprint, entry]))
  let entry = byFingerprint.get(pack.manifest?.key ?? '')
  while (entry && entry.introduced_by !== null) {
    const older = byFingerprint.get(entry.introduced_by)
    if (!older || !isIntroducedBy(entry, older.half)) return
    if (!halves.has(older.fingerprint)) {
      halves.set(older.fingerprint, { half: older.half, how: `introduced ${short(entry.fingerprint)}` })
    }
    byFingerprint.delete(entry.fingerprint)
    entry = older
  }
}

/** A key that was introduced by one already revoked when it began is the thief's. */
function withoutLateIntroductions(
  keys: ReadonlyMap<string, TrustedKey>,
  told: ReadonlyMap<string, { readonly entry: KeyEntry }>,
): ReadonlyMap<string, TrustedKey> {
  return new Map(
    [...keys].filter(([fingerprint, { how }]) => {
      const entry = told.get(fingerprint)?.entry
      const revokedAt = keys.get(entry?.introduced_by ?? '')?.revokedAt
      return !how.startsWith('introduced by') || !entry || !revokedAt || entry.not_before < revokedAt
    }),
  )
}

function signedByOneOf(pack: ExaminedPack, halves: Halves): boolean {
  const by = halves.get(pack.manifest?.key ?? '')
  if (!by || !pack.sums || !pack.signature) return false
  // keys.json must be the one that was signed
  const changed = pack.broken.some(({ file }) => file === 'keys.json' || file === 'SHA256SUMS')
  return !changed && verifySignature(by.half, pack.sums, pack.signature)
}

function window({ not_before, not_after }: KeyEntry): string {
  return `${not_before} to ${not_after}`
}

/** Why this key may not sign at this moment; null when it may. */
export function whyNotAt(key: TrustedKey, at: string): string | null {
  if (key.revokedAt !== null && key.revokedAt <= at) return `the key is revoked since ${key.revokedAt}`
  if (key.notBefore !== null && at < key.notBefore) return `the key is valid only from ${key.notBefore}`
  if (key.endedAt !== null && key.endedAt < at) return `another key took over at ${key.endedAt}`
  if (key.notAfter !== null && key.notAfter <= at) return `the key has expired at ${key.notAfter}`
  return null
}
