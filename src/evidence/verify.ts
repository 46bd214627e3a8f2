import type { Consistency } from '../proof/consistency.ts'
import { ProofError, textOf, toBase64 } from '../proof/bytes.ts'
import { canonicalJson } from '../proof/canonical.ts'
import { verifySignature, type PublicHalf } from '../proof/ed25519.ts'
import { verifyConsistency } from '../proof/merkle.ts'
import { parseCheckpoint, parseNote, seenBy, verifyCheckpoint, type Checkpoint, type Seen } from '../proof/note.ts'
import { inTotoStatement, parseBundle, verifyBundle } from '../proof/sigstore.ts'
import {
  dayAfter,
  dayStart,
  isDay,
  readTombstone,
  short,
  tombstonePayloadType,
  type Manifest,
  type Range,
  type Tombstone,
} from './verify-forms.ts'
import { trustKeys, whyNotAt, type Trust } from './verify-keys.ts'
import { examinePack, signedAt, treeText, type ExaminedPack, type Place } from './verify-pack.ts'
import { rangeFile, type Entry, type Source } from './verify-source.ts'

/** A checkpoint that somebody kept outside the database. */
export type OutsideCheckpoint = {
  /** The file's name, for what is said about it. */
  readonly name: string
  /** Where it lies, for the command that connects it. */
  readonly path?: string
  /** The signed note. */
  readonly note: string
  /** Since when it is known, if that is known. */
  readonly since: string | null
}

/** A proof of `tms ledger prove`. Nobody signed it: it counts between trees that are known otherwise. */
export type OutsideProof = { readonly name: string; readonly consistency: Consistency }

export type VerifyOptions = {
  /** Keys from outside. Without any, the packs are checked against the keys they name themselves: unanchored. */
  readonly keys: readonly PublicHalf[]
  readonly checkpoint?: OutsideCheckpoint | null
  /** Keys of witnesses who must have cosigned the checkpoint. Nobody else's word counts for when it was seen. */
  readonly witnesses?: readonly PublicHalf[]
  /** They connect the checkpoint with those of the packs. */
  readonly proofs?: readonly OutsideProof[]
  readonly range?: Range | null
}

export type Verdict = 'verified' | 'unanchored' | 'broken' | 'unknown'

export type VerifiedDay = {
  readonly day: string
  /** `before`: earlier than the first pack that there ever was. */
  readonly kind: 'pack' | 'tombstone' | 'missing' | 'before'
  readonly verdict: Verdict
  readonly final: boolean | null
  readonly revision: number | null
  /** What the pack says of its day. */
  readonly says: Manifest['verdict'] | null
  readonly manifest_sha256: string | null
  /** Fingerprint of the key that it says signed it. */
  readonly key: string | null
}

export type Verification = {
  readonly source: string
  readonly range: Range | null
  readonly verdict: Verdict
  readonly days: readonly VerifiedDay[]
  readonly broken: readonly Place[]
  readonly unknown: readonly Place[]
  /** Why it isn't anchored. */
  readonly unanchored: readonly string[]
  readonly checked: readonly string[]
  readonly unchecked: readonly string[]
  readonly notes: readonly string[]
  /** The keys from outside. */
  readonly keys: readonly string[]
  readonly checkpoint: { readonly name: string; readonly size: number | null } | null
  readonly files: number
}

export const predicateType = 'https://tms.invalid/green-posture/v1'

export const publicationStatement = (manifest: Manifest, sha256: string) =>
  inTotoStatement({
    subject: [{ name: 'manifest.json', sha256 }],
    predicateType,
    predicate: {
      day: manifest.day,
      revision: manifest.revision,
      final: manifest.final,
      verdict: manifest.verdict,
      as_of: manifest.as_of,
    },
  })

/** A day of which there is something: its pack, its tombstone, or both for as long as a prune is under way. */
type Known = {
  readonly day: string
  readonly pack: ExaminedPack | null
  readonly grave: Grave | null
}

type Grave = { readonly day: string; readonly text: string | null; readonly tombstone: Tombstone | null }

/** Everything that can be checked without a database and without the network. */
export async function verifyEvidence(source: Source, options: VerifyOptions): Promise<Verification> {
  const broken: Place[] = []
  const unknown: Place[] = []
  const notes: string[] = []

  for (const { file, what } of source.problems ?? []) broken.push(place(null, file, what))
  const packs: ExaminedPack[] = []
  for (const { folder, read } of source.packs) packs.push(examinePack(folder, await read()))
  for (const pack of packs) {
    broken.push(...pack.broken)
    unknown.push(...pack.unknown)
  }
  const graves: Grave[] = []
  for (const { file, read } of source.tombstones) graves.push(readGrave(file, await read(), broken, unknown))

  const beside = await besideOf(source, packs, broken, unknown)
  const everyPack = [...packs, ...beside.packs]
  const given = options.keys.length > 0 ? options.keys : claimedKeys(everyPack)
  const trust = trustKeys(given, everyPack)
  broken.push(...trust.broken)
  for (const pack of packs) broken.push(...signatures(pack, trust, options.keys))
  const allGraves = [...graves, ...beside.graves].map((grave) => signedGrave(grave, trust, broken))
  const known = knownDays(everyPack, allGraves)
  const judged = new Set([...packs.map(({ folder }) => folder), ...graves.map(({ day }) => day)])

  const asked = options.range ?? source.stated ?? null
  const range = options.range ?? (source.kind === 'pack' ? null : rangeOf(judged, asked))
  const absent = [
    ...(range ? missingDays(range, known, broken) : []),
    ...(source.kind === 'pack' ? [] : missingBeginning(asked?.from ?? null, known, judged, broken)),
  ]
  broken.push(...oneLedger(packs), ...graveFits(known), ...previousOnes(known, judged))

  const trees = knownTrees(everyPack, allGraves)
  const edges = provenEdges(everyPack)
  const outside = checkpointOutside(options, trust, everyPack, trees, edges, broken)
  broken.push(...sameSizeSameRoot(trees))

  const wrongDays = new Set(broken.map(({ day }) => day))
  const unsureDays = new Set(unknown.map(({ day }) => day))
  const anchored = anchoredDays(known, outside, edges, wrongDays)

  const days: VerifiedDay[] = [...known.values()]
    .filter(({ day }) => judged.has(day))
    .map(({ day, pack, grave }) => ({
      day,
      kind: pack ? ('pack' as const) : ('tombstone' as const),
      verdict: wrongDays.has(day)
        ? ('broken' as const)
        : unsureDays.has(day)
          ? ('unknown' as const)
          : options.keys.length > 0 && anchored.has(day)
            ? ('verified' as const)
            : ('unanchored' as const),
      final: pack?.manifest?.final ?? null,
      revision: pack?.manifest?.revision ?? null,
      says: pack?.manifest?.verdict ?? null,
      manifest_sha256: pack?.manifestSha256 ?? grave?.tombstone?.manifest_sha256 ?? null,
      key: pack?.manifest?.key ?? null,
    }))
  for (const { day, kind } of absent) {
    const verdict = kind === 'missing' ? 'broken' : 'unanchored'
    days.push({ day, kind, verdict, final: null, revision: null, says: null, manifest_sha256: null, key: null })
  }
  days.sort((a, b) => (a.day < b.day ? -1 : 1))

  const unanchored = whyUnanchored(source, options, { days, known, outside, edges })
  if (days.length === 0 && broken.length === 0) unknown.push(place(null, source.name, 'has no day in it'))
  for (const pack of packs) {
    if (pack.manifest?.final === false) {
      notes.push(`${pack.folder} is provisional (revision ${pack.manifest.revision}): that day was not over.`)
    }
  }
  return {
    source: source.name,
    range,
    verdict: verdictOf(broken, unknown, unanchored),
    days,
    broken,
    unknown,
    unanchored,
    ...whatWasChecked(source, options, {
      packs,
      graves,
      range,
      asked,
      outside,
      connected: anchored.size > 0,
      known,
      judged,
    }),
    notes,
    keys: options.keys.map(({ fingerprint }) => fingerprint),
    checkpoint: options.checkpoint ? { name: options.checkpoint.name, size: outside?.tree.size ?? null } : null,
    files: packs.reduce((sum, { files }) => sum + files, graves.length),
  }
}

function verdictOf(broken: readonly Place[], unknown: readonly Place[], unanchored: readonly string[]): Verdict {
  if (broken.length > 0) return 'broken'
  if (unknown.length > 0) return 'unknown'
  return unanchored.length > 0 ? 'unanchored' : 'verified'
}

// ---- one pack under the keys that may be believed

function signatures(pack: ExaminedPack, trust: Trust, given: readonly PublicHalf[]): readonly Place[] {
  const { folder, manifest, sums, signature } = pack
  const places: Place[] = []
  const wrong = (file: string, what: string, expected: string | null = null, found: string | null = null): void => {
    places.push(place(folder, file, what, expected, found))
  }
  if (!manifest) {
    const any = sums && signature && [...trust.keys.values()].some(({ half }) => verifySignature(half, sums, signature))
    if (!any) wrong('SHA256SUMS.sig', 'is no signature of this SHA256SUMS by a key that may be believed')
    return places
  }
  const key = trust.keys.get(manifest.key)
  if (!key) {
    const own = pack.keys?.find(({ fingerprint }) => fingerprint === manifest.key)
    const really =
      own !== undefined && sums !== null && signature !== null && verifySignature(own.half, sums, signature)
    wrong(
      'SHA256SUMS.sig',
      really ? 'is by an unknown key: nobody who may be believed introduced it' : 'is by an unknown key, or by none',
      given.map(({ fingerprint }) => fingerprint).join(', ') || 'a key in keys.json',
      manifest.key,
    )
    return places
  }
  if (sums && signature && !verifySignature(key.half, sums, signature)) {
    wrong('SHA256SUMS.sig', `is no signature of this SHA256SUMS by the key ${short(manifest.key)}`)
  }
  if (pack.keys && !pack.keys.some(({ fingerprint }) => fingerprint === manifest.key)) {
    wrong('keys.json', 'does not have the key that signed', manifest.key)
  }
  const moment = signedAt(pack) ?? manifest.as_of
  const whyNot = whyNotAt(key, moment)
  if (whyNot !== null) wrong('SHA256SUMS.sig', `is by the key ${short(manifest.key)}, and ${whyNot}`, null, moment)
  const { note, bundle, manifestSha256 } = pack
  if (note !== null) says('checkpoint.txt', () => verifyCheckpoint(note, manifest.database.origin, key.half))
  if (bundle !== null && manifestSha256 !== null) {
    says('attestation.sigstore.json', () => {
      const statement = verifyBundle(bundle, key.half)
      if (canonicalJson(statement) !== canonicalJson(publicationStatement(manifest, manifestSha256))) {
        throw new ProofError('it attests something else than manifest.json')
      }
    })
  }
  return places

  function says(file: string, check: () => unknown): void {
    try {
      check()
    } catch (error) {
      if (!(error instanceof ProofError)) throw error
      wrong(file, error.message)
    }
  }
}

/** Without a key from outside: whom the packs say they are signed by. */
function claimedKeys(packs: readonly ExaminedPack[]): readonly PublicHalf[] {
  const claimed = new Map<string, PublicHalf>()
  for (const { keys } of packs) for (const { half } of keys ?? []) claimed.set(half.fingerprint, half)
  return [...claimed.values()]
}

// ---- tombstones

function readGrave(file: string, entry: Entry, broken: Place[], unknown: Place[]): Grave {
  const [, day = ''] = /^(.*)\.json$/.exec(file) ?? []
  const name = `tombstones/${file}`
  const nothing = { day: isDay(day) ? day : file, text: null, tombstone: null }
  if (!isDay(day)) broken.push(place(nothing.day, name, 'is not named after a day'))
  else if (entry.kind === 'unreadable') unknown.push(place(day, name, "can't be read", null, entry.why))
  else if (entry.kind !== 'file') broken.push(place(day, name, 'is no ordinary file', 'file', entry.kind))
  else {
    try {
      return { ...nothing, text: textOf(entry.bytes) }
    } catch (error) {
      if (!(error instanceof ProofError)) throw error
      broken.push(place(day, name, error.message))
    }
  }
  return nothing
}

function signedGrave(grave: Grave, trust: Trust, broken: Place[]): Grave {
  const { day, text } = grave
  if (text === null) return grave
  const name = `tombstones/${day}.json`
  try {
    const { hint } = parseBundle(text)
    const key = trust.keys.get(hint)
    if (!key) {
      broken.push(place(day, name, 'is by an unknown key: nobody who may be believed introduced it', null, hint))
      return grave
    }
    const tombstone = readTombstone(verifyBundle(text, key.half, tombstonePayloadType))
    if (tombstone.day !== day) broken.push(place(day, name, 'is the tombstone of another day', day, tombstone.day))
    const end = isDay(day) ? dayStart(dayAfter(day)) : ''
    if (tombstone.expired_at < end) {
      broken.push(
        place(day, name, 'says that its day expired before it was over', `${end} or later`, tombstone.expired_at),
      )
    }
    const whyNot = whyNotAt(key, tombstone.expired_at)
    if (whyNot !== null) {
      broken.push(place(day, name, `is by the key ${short(hint)}, and ${whyNot}`, null, tombstone.expired_at))
    }
    return { ...grave, tombstone }
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    broken.push(place(day, name, error.message))
    return grave
  }
}

// ---- the days among themselves

async function besideOf(
  source: Source,
  packs: readonly ExaminedPack[],
  broken: Place[],
  unknown: Place[],
): Promise<{ readonly packs: readonly ExaminedPack[]; readonly graves: readonly Grave[] }> {
  const day = packs[0]?.manifest?.previous?.day
  if (!source.beside || day === undefined) return { packs: [], graves: [] }
  const { pack, tombstone } = await source.beside(day)
  return {
    packs: pack ? [examinePack(day, pack)] : [],
    graves: tombstone ? [readGrave(`${day}.json`, tombstone, broken, unknown)] : [],
  }
}

function knownDays(packs: readonly ExaminedPack[], graves: readonly Grave[]): ReadonlyMap<string, Known> {
  const known = new Map<string, Known>()
  for (const pack of packs) known.set(pack.folder, { day: pack.folder, pack, grave: null })
  for (const grave of graves) {
    known.set(grave.day, { day: grave.day, pack: known.get(grave.day)?.pack ?? null, grave })
  }
  return new Map([...known].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** From the first day to the last, of those that are here and of those that an archive says it holds. */
function rangeOf(days: ReadonlySet<string>, stated: Range | null): Range | null {
  const sorted = [...days, ...(stated ? [stated.from, stated.to] : [])].filter(isDay).sort()
  const [from] = sorted
  const to = sorted.at(-1)
  return from !== undefined && to !== undefined ? { from, to } : null
}

function missingDays(
  range: Range,
  known: ReadonlyMap<string, Known>,
  broken: Place[],
): readonly { readonly day: string; readonly kind: 'missing' | 'before' }[] {
  // The first pack that there ever was says so in its signed manifest; days before it have none.
  const first = [...known.values()].find(
    ({ pack }) => pack?.manifest?.final === true && pack.manifest.previous === null,
  )
  const absent: { day: string; kind: 'missing' | 'before' }[] = []
  for (let day = range.from; day <= range.to && isDay(day); day = dayAfter(day)) {
    if (known.has(day)) continue
    const kind = first && day < first.day ? 'before' : 'missing'
    absent.push({ day, kind })
    if (kind === 'missing') broken.push(place(day, day, 'the day is missing: neither a pack nor a tombstone', 'a pack'))
  }
  return absent
}

/**
 * The oldest day here names the one before it. That one is missing unless it is before the days that were asked for, or
 * before those that the archive says it holds.
 */
function missingBeginning(
  from: string | null,
  known: ReadonlyMap<string, Known>,
  judged: ReadonlySet<string>,
  broken: Place[],
): readonly { readonly day: string; readonly kind: 'missing' }[] {
  const first = [...known.values()].find(({ day }) => judged.has(day))
  if (!first || (from !== null && first.day >= from)) return []
  const named = first.pack?.manifest?.previous
  if (named && !known.has(named.day)) {
    const what = `the day is missing: neither a pack nor a tombstone, and the pack of ${first.day} names it`
    broken.push(place(named.day, named.day, what, named.manifest_sha256))
    return [{ day: named.day, kind: 'missing' }]
  }
  const before = first.pack ? null : first.grave?.tombstone?.previous_manifest_sha256
  if (before) {
    const what = 'names a pack before it, and neither that nor its tombstone is here'
    broken.push(place(first.day, `tombstones/${first.day}.json`, what, before))
  }
  return []
}

function oneLedger(packs: readonly ExaminedPack[]): readonly Place[] {
  const origin = packs.find(({ manifest }) => manifest)?.manifest?.database.origin ?? null
  return packs.flatMap(({ folder, manifest }) =>
    manifest && manifest.database.origin !== origin
      ? [place(folder, 'manifest.json', 'is of another ledger than the days before', origin, manifest.database.origin)]
      : [],
  )
}

/** While a prune is under way the tombstone stands beside the pack: then it must be that pack's. */
function graveFits(known: ReadonlyMap<string, Known>): readonly Place[] {
  return [...known.values()].flatMap(({ day, pack, grave }) =>
    pack?.manifestSha256 && grave?.tombstone && grave.tombstone.manifest_sha256 !== pack.manifestSha256
      ? [
          place(
            day,
            `tombstones/${day}.json`,
            'is of another pack than the one beside it',
            pack.manifestSha256,
            grave.tombstone.manifest_sha256,
          ),
        ]
      : [],
  )
}

function manifestOf({ pack, grave }: Known): string | null {
  return pack?.manifestSha256 ?? grave?.tombstone?.manifest_sha256 ?? null
}

function checkpointOf({ pack, grave }: Known): { readonly size: number; readonly root: Uint8Array } | null {
  if (pack) return pack.checkpoint
  return grave?.tombstone ? graveTree(grave.tombstone) : null
}

function graveTree({ checkpoint_size, checkpoint_root }: Tombstone) {
  return { size: checkpoint_size, root: new Uint8Array(Buffer.from(checkpoint_root, 'base64')) }
}

/** Each pack names the last final one before it, and its proof begins where that one's checkpoint ends. */
function previousOnes(known: ReadonlyMap<string, Known>, judged: ReadonlySet<string>): readonly Place[] {
  const places: Place[] = []
  const ordered = [...known.values()]
  for (const [index, item] of ordered.entries()) {
    const { day, pack, grave } = item
    const manifest = pack?.manifest
    if (!judged.has(day)) continue
    if (!manifest) {
      const before = ordered[index - 1]
      const expected = before && dayAfter(before.day) === day ? manifestOf(before) : null
      if (grave?.tombstone && expected !== null && grave.tombstone.previous_manifest_sha256 !== expected) {
        places.push(
          place(
            day,
            `tombstones/${day}.json`,
            `names another pack of ${before?.day ?? ''}`,
            expected,
            grave.tombstone.previous_manifest_sha256,
          ),
        )
      }
      continue
    }
    const named = manifest.previous
    const previous = named && known.get(named.day)
    // One that was cut after this one could not be named by it.
    const skipped = ordered
      .slice(0, index)
      .findLast(
        (other) =>
          other.day > (named?.day ?? '') &&
          (other.pack?.manifest?.final ?? other.grave?.tombstone !== undefined) &&
          cutBefore(other, pack),
      )
    if (skipped) {
      places.push(
        place(day, 'manifest.json', 'does not name the last pack before it', skipped.day, named?.day ?? 'none at all'),
      )
    }
    if (!named || !previous) continue
    const found = manifestOf(previous)
    if (found !== null && found !== named.manifest_sha256) {
      places.push(
        place(
          day,
          'manifest.json',
          `names another manifest of ${named.day} than lies there`,
          named.manifest_sha256,
          found,
        ),
      )
    }
    const checkpoint = checkpointOf(previous)
    const from = pack.consistency?.from
    if (checkpoint && from && !sameTree(checkpoint, from)) {
      places.push(
        place(
          day,
          'consistency.txt',
          `does not begin at the checkpoint of ${named.day}`,
          treeText(checkpoint),
          treeText(from),
        ),
      )
    }
    const before = previous.pack?.manifest
    if (before && manifest.as_of < before.as_of) {
      const what = `its facts were gathered before those of ${before.day}`
      places.push(place(day, 'manifest.json', what, `${before.as_of} or later`, manifest.as_of))
    }
    const rowBefore = previous.pack?.row
    if (rowBefore && pack.row && pack.row.at < rowBefore.at) {
      const what = `was recorded before the row of ${named.day}`
      places.push(place(day, 'manifest-row.txt', what, `${rowBefore.at} or later`, pack.row.at))
    }
    if (
      before &&
      manifest.final &&
      dayAfter(before.day) === day &&
      before.ledger.tree_size !== manifest.ledger.from_seq
    ) {
      places.push(
        place(
          day,
          'manifest.json',
          `rows of the ledger are of two days or of none: ${before.day} ends elsewhere than this begins`,
          String(before.ledger.tree_size),
          String(manifest.ledger.from_seq),
        ),
      )
    }
  }
  return places
}

function cutBefore(other: Known, pack: ExaminedPack): boolean {
  if (!pack.row) return false
  if (other.pack) return other.pack.row !== null && other.pack.row.seq < pack.row.seq
  const size = other.grave?.tombstone?.checkpoint_size
  return size !== undefined && size <= pack.row.seq
}

// ---- trees: checkpoints, and what is proven between them

type Tree = { readonly size: number; readonly root: Uint8Array }
type KnownTree = Tree & { readonly day: string | null; readonly file: string }
type Edge = { readonly from: string; readonly to: string }

function sameTree(a: Tree, b: Tree): boolean {
  return treeKey(a) === treeKey(b)
}

function treeKey({ size, root }: Tree): string {
  return `${size} ${toBase64(root)}`
}

function knownTrees(packs: readonly ExaminedPack[], graves: readonly Grave[]): KnownTree[] {
  return [
    ...packs.flatMap(({ folder, checkpoint }) =>
      checkpoint ? [{ ...checkpoint, day: folder, file: 'checkpoint.txt' }] : [],
    ),
    ...graves.flatMap(({ day, tombstone }) =>
      tombstone ? [{ ...graveTree(tombstone), day, file: `tombstones/${day}.json` }] : [],
    ),
  ]
}

function provenEdges(packs: readonly ExaminedPack[]): Edge[] {
  return packs.flatMap(({ consistency, broken }) =>
    consistency && !broken.some(({ file }) => file === 'consistency.txt')
      ? [{ from: treeKey(consistency.from), to: treeKey(consistency.to) }]
      : [],
  )
}

/** Two trees of one size are two histories, and one of them is a lie. */
function sameSizeSameRoot(trees: readonly KnownTree[]): readonly Place[] {
  const bySize = new Map<number, KnownTree>()
  return trees.flatMap((tree) => {
    const other = bySize.get(tree.size)
    if (!other) bySize.set(tree.size, tree)
    if (!other || sameTree(other, tree)) return []
    const what = `the ledger of ${tree.size} rows is another one in ${other.day ?? ''} ${other.file}: history was rewritten`
    return [place(tree.day, tree.file, what.replace('  ', ' '), treeText(other), treeText(tree))]
  })
}

type Outside = { readonly tree: Tree; readonly witnessed: Seen | null }

function checkpointOutside(
  { checkpoint, witnesses = [], proofs = [] }: VerifyOptions,
  trust: Trust,
  packs: readonly ExaminedPack[],
  trees: KnownTree[],
  edges: Edge[],
  broken: Place[],
): Outside | null {
  if (!checkpoint) return null
  const tree = signedBySomeone(checkpoint, packs, trust, broken)
  if (!tree) return null
  trees.unshift({ size: tree.size, root: tree.root, day: null, file: checkpoint.name })
  const witnessed = witnessesOf(checkpoint, witnesses, broken)
  const since = checkpoint.since ?? earliest(witnessed)
  for (const { folder, manifest, checkpoint: own } of packs) {
    if (since !== null && manifest && own && manifest.as_of > since && own.size < tree.size) {
      const what = `is smaller than ${checkpoint.name}, which is known since ${since}: the ledger's tail was cut`
      broken.push(place(folder, 'checkpoint.txt', what, `${tree.size} rows or more`, `${own.size} rows`))
    }
  }
  for (const { name, consistency } of proofs) {
    const { origin, from, to, hashes } = consistency
    if (origin !== tree.origin) broken.push(place(null, name, 'is of another ledger', tree.origin, origin))
    else if (
      !verifyConsistency({ from: from.size, to: to.size, fromRoot: from.root, toRoot: to.root, proof: hashes })
    ) {
      const what = `does not show that the ledger of ${from.size} rows is the beginning of the one of ${to.size}`
      broken.push(place(null, name, what))
    } else edges.push({ from: treeKey(from), to: treeKey(to) })
  }
  return { tree, witnessed }
}

function witnessesOf({ name, note }: OutsideCheckpoint, keys: readonly PublicHalf[], broken: Place[]): Seen | null {
  try {
    return seenBy(note, keys)
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    broken.push(place(null, name, error.message))
    return null
  }
}

function earliest(witnessed: Seen | null): string | null {
  const times = (witnessed?.seen ?? []).map(({ time }) => time).filter((seconds) => seconds < 253_402_300_800)
  return times.length === 0 ? null : new Date(Math.min(...times) * 1000).toISOString().replace('Z', '000Z')
}

function signedBySomeone(
  { name, note }: OutsideCheckpoint,
  packs: readonly ExaminedPack[],
  trust: Trust,
  broken: Place[],
): Checkpoint | null {
  try {
    const said = parseCheckpoint(parseNote(note).text)
    const origin = packs.find(({ manifest }) => manifest)?.manifest?.database.origin
    if (origin !== undefined && said.origin !== origin) {
      broken.push(place(null, name, 'is a checkpoint of another ledger', origin, said.origin))
      return null
    }
    for (const { half } of trust.keys.values()) {
      try {
        return verifyCheckpoint(note, said.origin, half)
      } catch (error) {
        if (!(error instanceof ProofError)) throw error
      }
    }
    broken.push(place(null, name, 'is not signed by a key that may be believed'))
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    broken.push(place(null, name, error.message))
  }
  return null
}

/**
 * Anchored is a day whose manifest's row is in the tree of the checkpoint from outside, or whose manifest's digest is
 * named by the manifest of an anchored day.
 */
function anchoredDays(
  known: ReadonlyMap<string, Known>,
  outside: Outside | null,
  edges: readonly Edge[],
  wrong: ReadonlySet<string | null>,
): ReadonlySet<string> {
  const anchored = new Set<string>()
  if (!outside) return anchored
  const key = treeKey(outside.tree)
  const before = reached(key, edges, 'to', 'from')
  const after = reached(key, edges, 'from', 'to')
  let named: string | null = null
  for (const item of [...known.values()].reverse()) {
    const { day, pack } = item
    const tree = checkpointOf(item)
    const inside =
      tree !== null &&
      (before.has(treeKey(tree)) ||
        (after.has(treeKey(tree)) && pack?.row !== undefined && pack.row !== null && pack.row.seq < outside.tree.size))
    const manifest = manifestOf(item)
    if (!wrong.has(day) && (inside || (manifest !== null && manifest === named))) {
      anchored.add(day)
      named = pack?.manifest?.previous?.manifest_sha256 ?? item.grave?.tombstone?.previous_manifest_sha256 ?? null
    }
  }
  return anchored
}

function reached(start: string, edges: readonly Edge[], near: keyof Edge, far: keyof Edge): ReadonlySet<string> {
  const seen = new Set([start])
  const open = [start]
  for (let tree = open.pop(); tree !== undefined; tree = open.pop()) {
    for (const edge of edges) {
      if (edge[near] === tree && !seen.has(edge[far])) {
        seen.add(edge[far])
        open.push(edge[far])
      }
    }
  }
  return seen
}

// ---- words

function whyUnanchored(
  source: Source,
  { keys, checkpoint, proofs = [] }: VerifyOptions,
  {
    days,
    known,
    outside,
    edges,
  }: {
    readonly days: readonly VerifiedDay[]
    readonly known: ReadonlyMap<string, Known>
    readonly outside: Outside | null
    readonly edges: readonly Edge[]
  },
): readonly string[] {
  const why: string[] = []
  if (keys.length === 0) {
    why.push('No key from outside was given (--key): whoever made the packs also made the keys they were checked with.')
  }
  if (!checkpoint) {
    why.push(
      'No checkpoint from outside was given (--checkpoint): a ledger that was cut or rewritten as a whole passes.',
    )
  }
  if (!checkpoint || !outside || keys.length === 0) return why
  const loose = days
    .filter(({ verdict, kind }) => verdict === 'unanchored' && (kind === 'pack' || kind === 'tombstone'))
    .flatMap(({ day }) => known.get(day) ?? [])
  const { size } = outside.tree
  const called = `${checkpoint.name} (${size} rows)`
  const newer = loose.filter((item) => !mayHold(size, item))
  const apart = loose.filter((item) => mayHold(size, item))
  if (newer.length > 0) {
    why.push(`The checkpoint ${called} is older than ${daysText(newer)}: keep a newer one (tms ledger checkpoint).`)
  }
  if (apart.length > 0) {
    const command = proveCommand(source, checkpoint, size, apart)
    why.push(
      `Nothing connects the checkpoint ${called} with ${daysText(apart)}. ` +
        `This makes a proof for --proof where the database is; when it refuses, the tail was cut or the past was changed: ${command}`,
    )
    const ends = new Set([
      ...reached(treeKey(outside.tree), edges, 'to', 'from'),
      ...reached(treeKey(outside.tree), edges, 'from', 'to'),
    ])
    for (const { name, consistency } of proofs) {
      const { from, to } = consistency
      if (!ends.has(treeKey(from)) && !ends.has(treeKey(to))) {
        why.push(`${name} is not connected with ${called}: it leads from ${treeText(from)} to ${treeText(to)}.`)
      }
    }
  }
  return why
}

/** Whether a ledger of so many rows can have this day's manifest in it. */
function mayHold(size: number, { pack, grave }: Known): boolean {
  return pack?.row ? pack.row.seq < size : (grave?.tombstone?.checkpoint_size ?? 0) <= size
}

/** From the newest pack below the checkpoint: those before it are connected with it already. */
function proveCommand(
  source: Source,
  { name, path = name }: OutsideCheckpoint,
  size: number,
  apart: readonly Known[],
): string {
  const sized = apart.flatMap(({ day, pack }) => (pack?.checkpoint ? [{ day, size: pack.checkpoint.size }] : []))
  const below = sized.findLast((pack) => pack.size <= size)
  const day = (below ?? sized[0])?.day ?? '<day>'
  const root = source.kind === 'archive' ? 'unpacked' : source.name.replace(/\/+$/, '')
  const own = `${source.kind === 'pack' ? root : `${root}/${day}`}/checkpoint.txt`
  const [from, to] = below ? [own, path] : [path, own]
  return `tms ledger prove --from ${from} --to ${to} --out proof.txt`
}

function daysText(items: readonly Known[]): string {
  const [first] = items
  return items.length === 1 ? (first?.day ?? '') : `${items.length} days, ${first?.day ?? ''} the first`
}

function whatWasChecked(
  source: Source,
  options: VerifyOptions,
  {
    packs,
    graves,
    range,
    asked,
    outside,
    connected,
    known,
    judged,
  }: {
    readonly packs: readonly ExaminedPack[]
    readonly graves: readonly Grave[]
    readonly range: Range | null
    readonly asked: Range | null
    readonly outside: Outside | null
    /** Whether that checkpoint holds any of the days. */
    readonly connected: boolean
    readonly known: ReadonlyMap<string, Known>
    readonly judged: ReadonlySet<string>
  },
): { readonly checked: readonly string[]; readonly unchecked: readonly string[] } {
  const { keys, checkpoint, proofs = [] } = options
  const files = packs.reduce((sum, pack) => sum + pack.files, 0)
  const checked: string[] = []
  const unchecked: string[] = []
  if (packs.length > 0) {
    checked.push(
      `${files} files of ${packs.length === 1 ? 'one pack' : `${packs.length} packs`}: exactly these, byte for byte as signed`,
      `signatures over SHA256SUMS, checkpoint and attestation, by ${keys.length > 0 ? 'the key you gave or one it leads to' : 'the keys that the packs name'}`,
      'each key: valid when it signed, not revoked before, as far as the packs tell',
      "the row of each manifest: in the ledger of its pack's checkpoint",
      'the ledger: only added to, from the checkpoint before each pack to its own',
    )
  }
  if (graves.length > 0) checked.push(`${graves.length} tombstones: signature, place in the chain`)
  if (range) checked.push(`no day without pack or tombstone from ${range.from} to ${range.to}`)
  if (outside)
    checked.push(`the checkpoint from outside: ${connected ? 'signature, one history with the packs' : 'signature'}`)
  for (const { name, time } of outside?.witnessed?.seen ?? []) {
    checked.push(`the witness ${name}: saw that checkpoint at ${new Date(time * 1000).toISOString()}`)
  }
  if (outside && proofs.length > 0) checked.push(`proofs given: ${proofs.map(({ name }) => name).join(', ')}`)

  const firstDay = [...known.values()].find(({ day }) => judged.has(day))
  const before = firstDay?.pack?.manifest?.previous
  if (before && !known.has(before.day)) {
    unchecked.push(
      `the pack of ${before.day} and those before it: not here, or not asked for (its manifest is ${before.manifest_sha256})`,
    )
  }
  if (source.kind !== 'pack' && range) {
    unchecked.push(
      options.range
        ? `days before ${range.from} and after ${range.to}`
        : `days after ${range.to}: one that was taken away from ${dayAfter(range.to)} on is not seen (name the days you expect: --days)`,
    )
    if (asked && !options.range) {
      unchecked.push(
        `that it begins with ${asked.from} and ends with ${asked.to}: its ${rangeFile} says so, and is not signed (--days)`,
      )
    }
  }
  if (source.kind === 'pack') unchecked.push('days after this one')
  if (keys.length === 0) unchecked.push('who made the packs: no key from outside')
  if (!checkpoint) unchecked.push('that the ledger was not rewritten or cut as a whole: no checkpoint from outside')
  else unchecked.push('rows of the ledger after the checkpoint from outside')
  const others = outside?.witnessed?.unchecked ?? []
  if (others.length > 0) unchecked.push(`that witnesses saw it, and when: ${others.join(', ')} (--witness-key)`)
  unchecked.push('a revocation that happened after the newest pack here')
  unchecked.push('the rows of the ledger themselves (tms ledger verify), and whether what the facts say is true')
  if (source.others.length > 0) {
    const some = source.others.slice(0, 5).join(', ')
    unchecked.push(`what lies beside the days: ${some}${source.others.length > 5 ? ' …' : ''}`)
  }
  return { checked, unchecked }
}

function place(
  day: string | null,
  file: string,
  what: string,
  expected: string | null = null,
  found: string | null = null,
): Place {
  return { day, file, what, expected, found }
}

export type { Place, Range }
