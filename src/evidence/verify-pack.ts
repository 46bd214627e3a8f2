import { parseConsistency, type Consistency } from '../proof/consistency.ts'
import { ProofError, sha256, sha256Hex, textOf, toBase64 } from '../proof/bytes.ts'
import { leafHash, verifyConsistency, verifyInclusion } from '../proof/merkle.ts'
import { parseCheckpoint, parseNote, type Checkpoint } from '../proof/note.ts'
import { parseBundle } from '../proof/sigstore.ts'
import { parseSums } from '../proof/sums.ts'
import { parseTlogProof } from '../proof/tlog-proof.ts'
import {
  carriers,
  checkCanonicalFile,
  dayAfter,
  dayStart,
  facts,
  parseKeys,
  parseManifest,
  parseManifestRow,
  short,
  type KeyEntry,
  type Manifest,
  type ManifestRow,
} from './verify-forms.ts'
import { mostFiles, type Entries } from './verify-source.ts'

/** One thing that is wrong, and where. */
export type Place = {
  /** The folder's name, or null when it concerns no single day. */
  readonly day: string | null
  readonly file: string
  readonly what: string
  readonly expected: string | null
  readonly found: string | null
}

/** A pack as far as it can be judged without trusting anybody, and what is needed to judge the rest. */
export type ExaminedPack = {
  readonly folder: string
  readonly files: number
  readonly bytes: number
  readonly broken: readonly Place[]
  /** Couldn't be read: neither right nor wrong. */
  readonly unknown: readonly Place[]
  readonly sums: Uint8Array | null
  readonly signature: Uint8Array | null
  readonly manifest: Manifest | null
  readonly manifestSha256: string | null
  readonly keys: readonly KeyEntry[] | null
  /** The signed note, and what it says. */
  readonly note: string | null
  readonly checkpoint: Checkpoint | null
  readonly row: ManifestRow | null
  readonly consistency: Consistency | null
  readonly bundle: string | null
}

const required = [...facts, ...carriers, 'SHA256SUMS', 'SHA256SUMS.sig']
const isCarrier: ReadonlySet<string> = new Set(carriers)
const plainName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$/

export function examinePack(folder: string, entries: Entries): ExaminedPack {
  const broken: Place[] = []
  const unknown: Place[] = []
  const place = (file: string, what: string, expected: string | null = null, found: string | null = null): void => {
    broken.push({ day: folder, file, what, expected, found })
  }
  /** What one step says is wrong is a place; the steps after it go on with what they have. */
  const attempt = <T>(file: string, read: () => T): T | null => {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof ProofError)) throw error
      place(file, error.message)
      return null
    }
  }
  const bytesOf = (file: string): Uint8Array | null => {
    const entry = entries.get(file)
    return entry?.kind === 'file' ? entry.bytes : null
  }
  const text = (file: string): string | null => {
    const bytes = bytesOf(file)
    return bytes && attempt(file, () => textOf(bytes))
  }
  const parsed = <T>(file: string, parse: (text: string) => T): T | null => {
    const content = text(file)
    return content === null ? null : attempt(file, () => parse(content))
  }

  // ---- the exact set of files

  for (const [name, entry] of entries) {
    if (name === '.') place(folder, `the day is a ${entry.kind}, not a folder`)
    else if (!plainName.test(name)) place(name, 'a pack has no file with such a name')
    else if (entry.kind === 'unreadable') {
      unknown.push({ day: folder, file: name, what: "can't be read", expected: null, found: entry.why })
    } else if (entry.kind !== 'file') {
      place(name, 'is no ordinary file of a size that packs have', 'file', entry.kind)
    }
  }
  if (entries.size > mostFiles) place('.', `has more than ${mostFiles} entries; the rest was not looked at`)
  for (const name of required) if (!entries.has(name)) place(name, 'is missing')

  // ---- SHA256SUMS

  const digests = new Map<string, string>()
  for (const [name, entry] of entries) {
    if (entry.kind === 'file' && plainName.test(name) && !/^SHA256SUMS(?:\.sig)?$/.test(name)) {
      digests.set(name, sha256Hex(entry.bytes))
    }
  }
  const sums = parsed('SHA256SUMS', parseSums)
  if (sums) {
    const listed = new Map(sums.map((sum) => [sum.name, sum.sha256]))
    for (const { name, sha256: expected } of sums) {
      const found = digests.get(name)
      if (/^SHA256SUMS(?:\.sig)?$/.test(name)) place('SHA256SUMS', `names ${name}`)
      else if (found !== undefined && found !== expected)
        place(name, 'its bytes are not those that were signed', expected, found)
      else if (found === undefined && !entries.has(name)) place(name, 'SHA256SUMS names it, and it is missing')
    }
    for (const name of digests.keys()) if (!listed.has(name)) place(name, 'is in the folder and not in SHA256SUMS')
  }

  // ---- manifest.json

  const manifest = parsed('manifest.json', parseManifest)
  const manifestSha256 = digests.get('manifest.json') ?? null
  if (manifest) {
    if (manifest.day !== folder)
      place('manifest.json', "the folder's name is not the manifest's day", folder, manifest.day)
    for (const [name, digest] of digests) {
      const named = manifest.files[name]
      if (isCarrier.has(name)) {
        if (named !== undefined) place('manifest.json', `names ${name}, which is no fact`)
      } else if (named === undefined) place(name, 'is no fact that manifest.json names')
      else if (named !== digest) place(name, 'its bytes are not those that manifest.json names', named, digest)
    }
    for (const name of Object.keys(manifest.files)) {
      if (!entries.has(name)) place(name, 'manifest.json names it, and it is missing')
    }
    const end = dayStart(dayAfter(manifest.day))
    if (manifest.final && manifest.as_of < end) {
      const what = 'is final, and of a moment at which its day was not over'
      place('manifest.json', what, `${end} or later`, manifest.as_of)
    }
    if (!manifest.final && (manifest.as_of < dayStart(manifest.day) || manifest.as_of >= end)) {
      place('manifest.json', 'is provisional, and of a moment outside its day', manifest.day, manifest.as_of)
    }
    if (manifest.ledger.from_seq > manifest.ledger.tree_size) {
      place('manifest.json', 'its rows of the ledger end before they begin')
    }
    if (manifest.previous !== null && manifest.previous.day >= manifest.day) {
      place('manifest.json', 'the pack before it is of no earlier day', `before ${manifest.day}`, manifest.previous.day)
    }
  }
  for (const name of digests.keys()) {
    if (name.endsWith('.json') && !isCarrier.has(name)) parsed(name, checkCanonicalFile)
  }

  // ---- the ledger: the manifest's row, its place in the tree, the tree before it

  const row = parsed('manifest-row.txt', parseManifestRow)
  if (row) {
    if (row.action !== 'evidence.manifest')
      place('manifest-row.txt', 'records something else', 'evidence.manifest', row.action)
    if (row.outcome !== 'done') place('manifest-row.txt', 'records what was not done', 'done', row.outcome)
    if (manifest) {
      if (row.body.manifest_sha256 !== manifestSha256) {
        place('manifest-row.txt', 'the ledger holds another manifest', row.body.manifest_sha256, manifestSha256)
      }
      if (row.body.day !== manifest.day) place('manifest-row.txt', 'is of another day', manifest.day, row.body.day)
      if (row.body.revision !== manifest.revision) {
        place('manifest-row.txt', 'is of another revision', String(manifest.revision), String(row.body.revision))
      }
      if (row.subject_sha256 !== sha256Hex(`${manifest.day}/${manifest.revision}`)) {
        place('manifest-row.txt', `its subject is not ${manifest.day}/${manifest.revision}`)
      }
      if (row.at < manifest.as_of) {
        place('manifest-row.txt', 'was recorded before the facts were gathered', manifest.as_of, row.at)
      }
      if (row.seq < manifest.ledger.tree_size) {
        place(
          'manifest-row.txt',
          "stands among the day's own rows",
          `${manifest.ledger.tree_size} or later`,
          String(row.seq),
        )
      }
    }
  }

  const note = text('checkpoint.txt')
  const checkpoint = note === null ? null : attempt('checkpoint.txt', () => parseCheckpoint(parseNote(note).text))
  if (checkpoint && manifest && checkpoint.origin !== manifest.database.origin) {
    place('checkpoint.txt', 'is of another ledger than the manifest', manifest.database.origin, checkpoint.origin)
  }

  const inclusion = parsed('inclusion.tlog-proof', parseTlogProof)
  if (inclusion) {
    if (note !== null && inclusion.checkpoint !== note) {
      place('inclusion.tlog-proof', 'holds another checkpoint than checkpoint.txt')
    }
    if (row && inclusion.index !== row.seq) {
      place('inclusion.tlog-proof', 'is about another row', String(row.seq), String(inclusion.index))
    }
    if (row && checkpoint) {
      const { size, root } = checkpoint
      const leaf = leafHash(row.line)
      if (!verifyInclusion({ index: row.seq, size, leaf, root, proof: inclusion.hashes })) {
        place('inclusion.tlog-proof', `row ${row.seq} is not in the ledger of checkpoint.txt`)
      }
    }
  }

  const consistency = parsed('consistency.txt', parseConsistency)
  if (consistency) {
    const { origin, from, to, hashes } = consistency
    if (checkpoint) {
      if (origin !== checkpoint.origin) place('consistency.txt', 'is of another ledger', checkpoint.origin, origin)
      if (to.size !== checkpoint.size || toBase64(to.root) !== toBase64(checkpoint.root)) {
        place('consistency.txt', 'does not end at checkpoint.txt', treeText(checkpoint), treeText(to))
      }
    }
    if (from.size === 0 && Buffer.compare(from.root, sha256('')) !== 0) {
      place('consistency.txt', 'begins with an empty tree that has another root than the empty tree')
    }
    if (!verifyConsistency({ from: from.size, to: to.size, fromRoot: from.root, toRoot: to.root, proof: hashes })) {
      place('consistency.txt', `the ledger of ${from.size} rows is not the beginning of the one of ${to.size}`)
    }
    if (manifest && manifest.previous === null && from.size !== 0) {
      place('consistency.txt', 'the first pack begins with the empty ledger', '0', String(from.size))
    }
  }

  // ---- what only a key can judge, as far as its form goes

  const keys = parsed('keys.json', parseKeys)
  const bundle = text('attestation.sigstore.json')
  const wellFormed = bundle !== null && attempt('attestation.sigstore.json', () => parseBundle(bundle)) !== null
  const signature = bytesOf('SHA256SUMS.sig')
  if (signature && signature.length !== 64) {
    place('SHA256SUMS.sig', 'is no signature', '64 bytes', `${signature.length} bytes`)
  }

  let bytes = 0
  for (const entry of entries.values()) if (entry.kind === 'file') bytes += entry.bytes.length
  return {
    folder,
    files: entries.size,
    bytes,
    broken,
    unknown,
    sums: bytesOf('SHA256SUMS'),
    signature,
    manifest,
    manifestSha256,
    keys,
    note: checkpoint ? note : null,
    checkpoint,
    row,
    consistency,
    bundle: wellFormed ? bundle : null,
  }
}

/** When it was signed, at the earliest: whoever signs says `as_of` himself, and the ledger says when it took the row. */
export function signedAt({ manifest, row }: ExaminedPack): string | null {
  const moments = [manifest?.as_of, row?.at].filter((moment) => moment !== undefined)
  return moments.sort().at(-1) ?? null
}

/** A tree as people compare it. */
export function treeText({ size, root }: { readonly size: number; readonly root: Uint8Array }): string {
  return `size ${size}, root ${short(toBase64(root))}`
}
