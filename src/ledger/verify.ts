import type { RowFinding } from '../drivers/contract/ledger.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import type { Problem } from '../errors.ts'
import { ProofError, toBase64 } from '../proof/bytes.ts'
import type { PublicHalf } from '../proof/ed25519.ts'
import { parseCheckpoint, parseNote, seenBy, verifyCheckpoint } from '../proof/note.ts'
import { sealBeforeJudging } from './ledger.ts'
import { inWords, mostFindings, rowsText, type Finding, type Verification } from './findings.ts'

/** A sixth of a second each, so that two at a time keep two cores busy and no request lasts. */
const rowsAtOnce = 16_384
const inboxAtOnce = 100_000

export type VerifyInput = {
  /** A checkpoint that was kept outside this database. */
  readonly checkpoint?: string | undefined
  readonly key?: PublicHalf | undefined
  /** Keys of witnesses who must have cosigned that checkpoint. */
  readonly witnesses?: readonly PublicHalf[] | undefined
  readonly report?: (checked: number, of: number) => void
  readonly sealing?: (sealed: number) => void
}

/**
 * Everything the database can tell about its own ledger, after what waits was sealed: lines, chain, tree, bodies, no gap, nothing forgotten; and that the
 * tree still contains the checkpoint. Whoever may write all tables can rewrite all of it in step: only the checkpoint shows that.
 */
export async function verifyLedger(
  driver: Driver,
  { checkpoint, key, witnesses = [], report, sealing }: VerifyInput,
): Promise<Verification> {
  const notSealed = await sealBeforeJudging(driver, sealing)
  const end = granted(await driver.call('ledger_verify_end', {}))
  const size = Number(end.size)
  const findings: Finding[] = endFindings(end)
  const rows: RowFinding[] = []
  let checked = 0
  let wrong = 0
  await sideBySide(ranges(0, size, rowsAtOnce), async ([from, to]) => {
    const part = granted(await driver.call('ledger_verify', { from: String(from), to: String(to) }))
    checked += Number(part.checked)
    wrong += Number(part.wrong)
    if (rows.length < 10 * mostFindings) rows.push(...part.findings)
    report?.(checked, size)
  })
  rows.sort((a, b) => Number(a.seq) - Number(b.seq))
  const beside = await recordFindings(driver)
  findings.push(...inWords(rows), ...beside.findings)
  const signed = await storedCheckpoints(driver, key, findings)

  const outside =
    checkpoint === undefined ? null : await heldAgainst(driver, checkpoint, key, end.origin, size, findings)
  const unseen = checkpoint === undefined ? [] : unseenWitnesses(checkpoint, witnesses, findings)
  const broken = findings.length > 0
  const waiting = await inboxFindings(driver, notSealed)
  findings.push(...waiting)
  const head = granted(await driver.call('ledger_head', { size: end.size }))
  const anchored = outside?.holds === true && outside.signed === true
  return {
    of: driver.target.name,
    verdict: broken
      ? 'broken'
      : waiting.length > 0
        ? 'unsealed'
        : size === 0
          ? 'empty'
          : anchored
            ? 'verified'
            : 'unanchored',
    origin: end.origin,
    from: 0,
    to: size,
    checked,
    hidden: 0,
    root: head.root,
    checkpoint: outside,
    findings: findings.slice(0, mostFindings),
    more: Math.max(0, findings.length - mostFindings) + Math.max(0, wrong - rows.length) + beside.more,
    unchecked: [...notChecked({ size, outside, key, signed, notSealed }), ...unseen],
  }
}

type End = {
  readonly rows: string
  readonly size: string
  readonly sealed: string
  readonly nodes_beyond: string
  readonly findings: readonly {
    readonly kind: 'cut' | 'rewritten'
    readonly size: string
    readonly expected: string
    readonly found: string | null
  }[]
}

function endFindings(end: End): Finding[] {
  const findings: Finding[] = []
  const size = Number(end.size)
  const sealed = Number(end.sealed)
  const plain = { expected: null, found: null }
  if (size < sealed)
    findings.push({ place: rowsText(size, sealed - 1), what: 'sealed, and cut off the end of the ledger', ...plain })
  if (size > sealed)
    findings.push({ place: rowsText(sealed, size - 1), what: 'put into the ledger, and not by the sealer', ...plain })
  if (end.nodes_beyond !== '0') {
    findings.push({
      place: 'tree',
      what: `${end.nodes_beyond} subtrees reach beyond the last row: the end was cut off`,
      ...plain,
    })
  }
  for (const { kind, size: covers, expected, found } of end.findings) {
    findings.push({
      place: `stored checkpoint of ${covers} rows`,
      what:
        kind === 'cut'
          ? `the end was cut off: the ledger has ${size} rows`
          : 'the rows it covers were rewritten, or it was',
      expected,
      found,
    })
  }
  return findings
}

/** Rows that are still in no chain although all was sealed that could be. */
async function inboxFindings(driver: Driver, notSealed: string | null): Promise<Finding[]> {
  const findings: Finding[] = []
  const look = async (from: number) =>
    granted(await driver.call('ledger_verify_inbox', { from: String(from), to: String(from + inboxAtOnce) }))
  const first = await look(0)
  const parts = [first]
  await sideBySide(ranges(inboxAtOnce, Number(first.end), inboxAtOnce), async ([from]) => {
    parts.push(await look(from))
  })
  const unsealed = parts.reduce((sum, part) => sum + Number(part.unsealed), 0)
  if (unsealed > 0) {
    const ids = parts
      .flatMap((part) => [part.first_id, part.last_id])
      .flatMap((id) => (id === null ? [] : [Number(id)]))
    const oldest = parts.flatMap((part) => (part.oldest === null ? [] : [part.oldest])).sort()[0] ?? null
    findings.push({
      place: `inbox ${Math.min(...ids)}-${Math.max(...ids)}`,
      what: `${unsealed} rows wait for more than a minute to be sealed: ${notSealed ?? 'the sealer has passed them by (tms ledger seal --everything)'}`,
      expected: null,
      found: oldest,
    })
  }
  return findings
}

/** What is kept beside the ledger (checkpoints, packs, keys) against the rows that its making left. */
async function recordFindings(driver: Driver): Promise<{ findings: Finding[]; more: number }> {
  const look = async (from: number) =>
    granted(await driver.call('ledger_verify_records', { from: String(from), to: String(from + inboxAtOnce) }))
  const first = await look(0)
  const parts = [first]
  await sideBySide(ranges(inboxAtOnce, Number(first.end), inboxAtOnce), async ([from]) => {
    parts.push(await look(from))
  })
  const found = parts.flatMap((part) => part.findings).toSorted((a, b) => Number(a.id) - Number(b.id))
  const slippedIn = Object.entries(first.kept).flatMap(([action, kept]): Finding[] => {
    const without = Number(kept) - parts.reduce((sum, { said }) => sum + Number(said[action] ?? 0), 0)
    if (without <= 0) return []
    return [{ place: action, what: `${without} more are kept than rows speak of`, expected: null, found: null }]
  })
  return {
    findings: [...found.map(({ place, what }) => ({ place, what, expected: null, found: null })), ...slippedIn],
    more: parts.reduce((sum, part) => sum + Number(part.wrong) - part.findings.length, 0),
  }
}

/** Signatures of what is stored here, by this key. Answers how many; wrong ones are findings. */
async function storedCheckpoints(driver: Driver, key: PublicHalf | undefined, findings: Finding[]): Promise<number> {
  if (!key) return 0
  const { checkpoints } = granted(await driver.call('ledger_checkpoints', { limit: 1000 }))
  const own = checkpoints.filter((stored) => stored.key === key.fingerprint)
  for (const stored of own) {
    try {
      const { size, origin } = parseCheckpoint(parseNote(stored.note).text)
      verifyCheckpoint(stored.note, origin, key)
      if (String(size) !== stored.size) throw new ProofError(`it is of ${size} rows`)
    } catch (error) {
      if (!(error instanceof ProofError)) throw error
      findings.push({
        place: `stored checkpoint of ${stored.size} rows`,
        what: error.message,
        expected: null,
        found: null,
      })
    }
  }
  return own.length
}

/** Why there is no answer; null when there is one. */
export function verificationUnknown({ verdict, of }: Verification): Problem | null {
  if (verdict !== 'empty') return null
  return {
    code: 'NO_DATA',
    what: `The ledger of ${of} has no sealed rows: there was nothing to verify.`,
    why: 'nothing was recorded for long enough to be sealed',
    next: ['tms ledger seal', 'tms ledger tail'],
  }
}

/** The checkpoint from outside against the tree. */
async function heldAgainst(
  driver: Driver,
  note: string,
  key: PublicHalf | undefined,
  origin: string | null,
  rows: number,
  findings: Finding[],
): Promise<NonNullable<Verification['checkpoint']>> {
  const find = (what: string, expected: string | null = null, found: string | null = null) =>
    findings.push({ place: 'checkpoint', what, expected, found })
  let claim: ReturnType<typeof parseCheckpoint>
  let signed: boolean | null = null
  try {
    claim = parseCheckpoint(parseNote(note).text)
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    find(`it is no checkpoint: ${error.message}`)
    return { size: 0, holds: false, signed }
  }
  const { size } = claim
  if (key) {
    try {
      verifyCheckpoint(note, claim.origin, key)
      signed = true
    } catch (error) {
      if (!(error instanceof ProofError)) throw error
      signed = false
      find(error.message)
    }
  }
  if (claim.origin !== origin) {
    find('it is of another ledger', claim.origin, origin)
    return { size, holds: false, signed }
  }
  if (size > rows) {
    find(`the end was cut off: it covers ${size} rows, and the ledger has ${rows}`)
    return { size, holds: false, signed }
  }
  const { root } = granted(await driver.call('ledger_head', { size: String(size) }))
  const holds = root === toBase64(claim.root)
  if (!holds)
    find(`history was rewritten: something in ${rowsText(0, size - 1)} isn't what it was`, toBase64(claim.root), root)
  return { size, holds, signed }
}

/** The witnesses' signatures on the checkpoint from outside: wrong ones are findings, those without a key aren't checked. */
function unseenWitnesses(note: string, keys: readonly PublicHalf[], findings: Finding[]): string[] {
  try {
    const { unchecked } = seenBy(note, keys)
    return unchecked.length === 0 ? [] : [`Witnesses of the checkpoint: ${unchecked.join(', ')} (--witness-key).`]
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    // A note that can't be read is a finding already.
    if (keys.length > 0) findings.push({ place: 'checkpoint', what: error.message, expected: null, found: null })
    return []
  }
}

function notChecked(input: {
  size: number
  outside: Verification['checkpoint']
  key: PublicHalf | undefined
  signed: number
  notSealed: string | null
}): string[] {
  const { size, outside, key, notSealed } = input
  return [
    ...(notSealed === null ? [] : [`What was recorded last and has no place in the ledger yet: ${notSealed}.`]),
    ...(outside === null
      ? [
          'Nothing from outside was given: a superuser who rewrote every table in step would not be seen (--checkpoint).',
        ]
      : size > outside.size && outside.holds
        ? [`Rows ${outside.size}-${size - 1} are newer than the checkpoint: a cut end would not be seen there.`]
        : []),
    'When a row was sealed (sealed_at), its transaction and the id of who it was (the name is) are in no hash: a superuser may change them unseen.',
    ...(key ? [] : ['No key was given: who signed the checkpoints was not checked (--key).']),
  ]
}

function ranges(from: number, to: number, step: number): (readonly [number, number])[] {
  const parts: (readonly [number, number])[] = []
  for (let at = from; at < to; at += step) parts.push([at, Math.min(at + step, to)])
  return parts
}

/** Two at a time: the database has a core for each, and the answers are small. */
async function sideBySide<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values()
  const one = async () => {
    for (const item of left) await work(item)
  }
  await Promise.all([one(), one()])
}
