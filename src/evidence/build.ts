import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError, type Problem } from '../errors.ts'
import type { Signer } from '../keys/signer.ts'
import { canonicalFile } from '../proof/canonical.ts'
import { sha256Hex } from '../proof/bytes.ts'
import type { Judgement } from '../posture/judge.ts'
import { factFiles, packFacts, type DayFacts } from './facts.ts'
import { settleFolders, writePackFolder, type Self, type Written } from './folder.ts'
import type { ManifestFile } from './schemas/manifest.ts'
import { noDay } from './named-day.ts'
import { readable, sealedFiles, storedFiles, type Cut, type Pack } from './seal.ts'
import { dayAfter, isDay } from './verify-forms.ts'

/**
 * Builds the pack of a day, in steps of which each can be the last one that a process makes:
 *
 *   facts    what the database knows of the day, and what the posture makes of it
 *   cut      they are frozen, and their digest enters the ledger; the first builder wins
 *   seal     the row gets its place; checkpoint, proofs and signatures are made for it
 *   store    all bytes are kept, once; the first builder wins
 *   folder   rendered from what is stored, whole or not at all
 *
 * Who comes later, or second, goes on where the steps before ended. A day that has its final pack is only rendered.
 */

export type BuildInput = {
  readonly driver: Driver
  /** The folder of the days. */
  readonly root: string
  readonly self: Self
  /** A date, `today` or `yesterday`: of the database's calendar, in UTC. */
  readonly day: string
  /** Asked for only when something is to be signed. Throws when there is no usable key. */
  readonly signer: () => Promise<Signer>
  readonly judge: (facts: DayFacts) => Promise<Judgement>
  readonly traceLink: string | null
  readonly note: (text: string) => void
  /** Waits a moment, for the ledger's sealer. */
  readonly pause: () => Promise<void>
}

export type Built = {
  readonly day: string
  readonly revision: number
  readonly final: boolean
  readonly verdict: ManifestFile['verdict']
  readonly as_of: string
  readonly folder: string
  readonly manifest_sha256: string
  readonly key: string
  readonly files: number
  readonly bytes: number
  /** `same`: it lay there already. `kept`: a newer revision lies there. */
  readonly written: Written
  /** Made by this run, by another one (which this run may have ended), or there before. */
  readonly by: 'this run' | 'another run' | 'an earlier run'
}

type State = Contract['evidence_state']['result']
/** A provisional cut that another builder left is finished all the same; older than this it is followed by a new one. */
const freshMs = 60_000

export async function buildPack(input: BuildInput): Promise<Built> {
  const { driver, root } = input
  await settleFolders(root, input.self)
  let state = await stateOf(driver, await dayOf(driver, input.day))
  refuseImpossible(state)
  if (state.expired) input.note(`${state.day} has expired and has a tombstone; the next prune deletes its folder again`)
  let by: Built['by'] = 'an earlier run'
  // Each round ends a step that somebody may have taken meanwhile; a handful of builders at once need a few.
  for (let round = 0; state.final === null; round += 1) {
    if (round >= 20) throw crowded(state.day)
    const signer = await input.signer()
    const waiting = usableCut(state, signer)
    const cut = waiting ?? (await cutDay(input, state, signer))
    if (cut !== null) {
      if (waiting || cut.other) input.note(`another run cut ${state.day} at ${cut.as_of}; going on from there`)
      const stored = await finish(input, state, cut, signer)
      if (!stored) input.note(`another run stored revision ${cut.revision} of ${state.day} first; its bytes count`)
      by = stored && !waiting && !cut.other ? 'this run' : 'another run'
      if (cut.final || !waiting || Date.parse(state.now) - Date.parse(cut.as_of) < freshMs) break
    }
    state = await stateOf(driver, state.day)
  }
  return render(input, state.day, by)
}

// ---- which day

async function dayOf(driver: Driver, wanted: string): Promise<string | undefined> {
  if (wanted === 'today') return undefined
  if (wanted === 'yesterday') return dayAfter((await stateOf(driver, undefined)).today, -1)
  if (isDay(wanted)) return wanted
  throw noDay(wanted)
}

async function stateOf(driver: Driver, day: string | undefined): Promise<State> {
  return granted(await driver.call('evidence_state', day === undefined ? {} : { day }))
}

function refuseImpossible({ day, today, begun, first_day }: State): void {
  const usage = (what: string, why: string, next: string) =>
    new TmsError({ code: 'INPUT_INVALID', what, why, next: [next] })
  if (begun === null || first_day === null) {
    throw usage('there is nothing to show yet', 'this database was never made ready', 'tms init')
  }
  if (day > today) {
    throw usage(`${day} has not come yet`, `it is ${today} in UTC, by the clock of the database`, 'tms evidence build')
  }
  if (day < first_day) {
    throw usage(
      `this database knows nothing of ${day}`,
      `it was made ready at ${begun}`,
      `tms evidence build --date ${first_day}`,
    )
  }
}

function crowded(day: string): TmsError {
  return new TmsError({
    code: 'CONFLICT',
    what: `the pack of ${day} was not built`,
    why: 'other runs were at it each time; nothing was lost',
    next: [`tms evidence build --date ${day}`],
  })
}

// ---- the cut

/** A cut that waits to be finished. Not one that needs another key or another release, and no provisional one of a day that is over. */
function usableCut({ cut, over }: State, { fingerprint }: Signer): (Cut & { readonly other: boolean }) | null {
  if (cut === null || cut.key !== fingerprint || (over && !cut.final) || !readable(cut)) return null
  return { ...cut, other: true }
}

/** Null: something came between, and where the day stands has to be looked at again. */
async function cutDay(
  { driver, judge, traceLink, pause }: BuildInput,
  { day, next_revision, previous, environment, cut: waiting }: State,
  { fingerprint }: Signer,
): Promise<(Cut & { readonly other: boolean }) | null> {
  await sealAll(driver, pause)
  const facts = granted(await driver.call('evidence_facts', { day }))
  const judged = await judge(facts)
  const files = factFiles(packFacts(facts, judged, traceLink))
  const manifest: ManifestFile = {
    type: 'tms-manifest-v1',
    day,
    revision: next_revision,
    final: facts.over,
    as_of: facts.as_of,
    database: { origin: facts.ledger.origin, environment: environment ?? '' },
    verdict: judged.verdict,
    previous: previous && { day: previous.day, manifest_sha256: previous.manifest_sha256 },
    ledger: { from_seq: Number(facts.ledger.from_seq), tree_size: Number(facts.ledger.tree_size) },
    files: Object.fromEntries(Object.entries(files).map(([name, text]) => [name, sha256Hex(text)])),
    key: fingerprint,
  }
  const { outcome, cut } = granted(
    await driver.call('evidence_cut', {
      request_id: randomUUID(),
      day,
      manifest: canonicalFile(manifest),
      files,
      ...(waiting && !readable(waiting) ? { instead: waiting.revision } : {}),
    }),
  )
  return cut && { ...cut, other: outcome === 'pending' }
}

/** What waits for the sealer is the day's too. Bounded: on a busy ledger there is always something new. */
async function sealAll(driver: Driver, pause: () => Promise<void>): Promise<void> {
  for (let round = 0; round < 200; round += 1) {
    const { more, busy } = granted(await driver.call('ledger_seal', { limit: 100_000 }))
    if (!more && !busy) return
    if (busy) await pause()
  }
}

// ---- seal, store, render

/** False: another builder stored its bytes first. */
async function finish(input: BuildInput, state: State, cut: Cut, signer: Signer): Promise<boolean> {
  const { driver } = input
  const sealed = cut.row ? cut : await sealedCut(input, state.day, cut)
  if (sealed === null) return false
  const { files, signature } = await sealedFiles(driver, {
    day: state.day,
    previous: state.previous,
    cut: sealed,
    signer,
  })
  const { stored } = granted(
    await driver.call('evidence_store', {
      request_id: randomUUID(),
      day: state.day,
      revision: cut.revision,
      files,
      signature,
    }),
  )
  return stored
}

/** The cut with its row's place in the ledger. Null: another builder has stored it meanwhile. */
async function sealedCut({ driver, pause }: BuildInput, day: string, cut: Cut): Promise<Cut | null> {
  for (let round = 0; round < 400; round += 1) {
    await sealAll(driver, pause)
    const { cut: now } = await stateOf(driver, day)
    if (now?.revision !== cut.revision) return null
    if (now.row) return now
    await pause()
  }
  throw new TmsError({
    code: 'DB_BUSY',
    what: `the row of this pack did not get its place in the ledger`,
    why: 'somebody else seals, or a transaction that wrote before it is still open; the facts are kept, and the next build goes on from them',
    next: ['tms ledger verify', `tms evidence build --date ${day}`],
  })
}

async function render({ driver, root, self }: BuildInput, day: string, by: Built['by']): Promise<Built> {
  let pack = await newest(driver, day)
  let written = await writePackFolder(root, { ...pack, files: storedFiles(pack) }, self)
  if (written === 'kept') {
    // A newer one, stored since; or a folder that only says so: changed, or of another database. The stored bytes count.
    const before = pack.revision
    pack = await newest(driver, day)
    const force = pack.revision === before
    written = await writePackFolder(root, { ...pack, files: storedFiles(pack), force }, self)
  }
  const files = storedFiles(pack)
  return {
    day,
    revision: pack.revision,
    final: pack.final,
    verdict: pack.verdict,
    as_of: pack.as_of,
    folder: `${root}/${day}`,
    manifest_sha256: pack.manifest_sha256,
    key: pack.key,
    files: files.size,
    bytes: [...files.values()].reduce((sum, bytes) => sum + bytes.length, 0),
    written,
    by,
  }
}

async function newest(driver: Driver, day: string): Promise<Pack> {
  const { pack } = granted(await driver.call('evidence_pack', { day }))
  if (!pack) throw crowded(day)
  return pack
}

/** Why the day has no verdict; null when it has one. The pack is written all the same. */
export function builtUnknown({ day, verdict, folder }: Built): Problem | null {
  if (verdict !== 'unknown') return null
  return {
    code: 'NO_DATA',
    what: `The pack of ${day} is written, and its verdict is unknown.`,
    why: 'nothing was red, and too little was measured to call the day green; the pack says what is missing',
    next: ['tms posture check', `tms evidence verify ${folder}`],
  }
}
