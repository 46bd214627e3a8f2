import { randomUUID } from 'node:crypto'
import { lstat, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { fileProblem, writeFileAtomically } from '../files.ts'
import type { Signer } from '../keys/signer.ts'
import { atWork, settleFolders, type Self } from './folder.ts'
import { ProofError, textOf, toBase64 } from '../proof/bytes.ts'
import { publicHalf, type PublicHalf } from '../proof/ed25519.ts'
import { parseCheckpoint, parseNote } from '../proof/note.ts'
import { makeBundle, verifyBundle } from '../proof/sigstore.ts'
import { readTombstone, tombstonePayloadType, type Tombstone } from './verify-forms.ts'
import { daysSource, systemCode } from './verify-source.ts'
import { verifyEvidence } from './verify.ts'

/**
 * Deletes the packs of days that are older than so many days, each after its signed tombstone is in the database, in the
 * ledger and beside the packs. Whoever is killed in between leaves the pack, or the tombstone, or both; the next run ends
 * it. What doesn't verify is evidence of something else, and stays.
 */

export type PruneInput = {
  readonly driver: Driver
  /** The folder of the days. */
  readonly root: string
  readonly keep: number
}

type Expired = Contract['evidence_expired']['result']

export type PrunePlan = {
  readonly keep: number
  readonly root: string
  /** Days before this one have expired. */
  readonly before: string
  readonly go: readonly string[]
  readonly stay: readonly { readonly day: string; readonly why: string }[]
}

export type Pruned = PrunePlan & { readonly pruned: readonly string[] }

const leaving = /^\.expired-(\d{4}-\d\d-\d\d)$/
const unwritten = /^\d{4}-\d\d-\d\d\.json\.[0-9a-f]{12}\.tmp$/

export async function planPrune(input: PruneInput): Promise<PrunePlan> {
  const { root, keep } = input
  const source = await daysIn(root)
  const expired = await expiredOf(input, source?.packs.map(({ folder }) => folder) ?? [])
  const stay: { day: string; why: string }[] = []
  const go: string[] = []
  if (source && expired.days.length > 0) {
    // All days, not only these: what the days after them say of them counts too.
    const found = await verifyEvidence(source, { keys: await knownKeys(input.driver) })
    const byDay = new Map(found.days.map((day) => [day.day, day]))
    for (const { day, manifest_sha256 } of expired.days) {
      const seen = byDay.get(day)
      const place = [...found.broken, ...found.unknown].find((other) => other.day === day)
      if (place) stay.push({ day, why: `it does not verify: ${place.file}: ${place.what}` })
      else if (manifest_sha256 === null) stay.push({ day, why: 'this database made no final pack of that day' })
      else if (seen?.manifest_sha256 !== manifest_sha256)
        stay.push({ day, why: 'it is not the final pack of that day' })
      else go.push(day)
    }
  }
  return { keep, root, before: expired.before, go, stay }
}

export async function prune(
  input: PruneInput & { readonly plan: PrunePlan; readonly signer: () => Promise<Signer> },
): Promise<Pruned> {
  const { driver, root, keep, plan } = input
  const pruned: string[] = []
  const stay = [...plan.stay]
  if (plan.go.length > 0) {
    const expired = await expiredOf({ driver, root, keep }, plan.go)
    const keys = await knownKeys(driver)
    const graves = join(root, 'tombstones')
    await made(graves)
    for (const found of expired.days) {
      const text = await tombstoneOf(input, expired, found)
      const why = whyNotThat(text, found, keys) ?? (await whyNotThere(join(graves, `${found.day}.json`), text))
      if (why !== null) stay.push({ day: found.day, why })
      else {
        // Whoever verifies takes every file among the tombstones for one.
        await writeFileAtomically(join(graves, `${found.day}.json`), text, { from: root })
        await removed(root, found.day)
        pruned.push(found.day)
      }
    }
  }
  return { ...plan, stay, pruned }
}

/** Ends what killed builds and prunes began: a pack that stepped aside for good has its tombstone already. */
export async function settleEvidence(root: string, self: Self): Promise<void> {
  await settleFolders(root, self)
  const names = await readdir(root).catch(() => [])
  for (const name of names) {
    if (unwritten.test(name) && !(await atWork(join(root, name), true))) await rm(join(root, name), { force: true })
    const [, day] = leaving.exec(name) ?? []
    if (day === undefined) continue
    if (await isThere(join(root, 'tombstones', `${day}.json`)))
      await rm(join(root, name), { recursive: true, force: true })
    else if (!(await isThere(join(root, day)))) await rename(join(root, name), join(root, day))
  }
}

async function daysIn(root: string) {
  if (!(await isThere(root))) return null
  return daysSource(root)
}

async function expiredOf({ driver, keep }: PruneInput, days: readonly string[]): Promise<Expired> {
  return granted(await driver.call('evidence_expired', { keep, days: [...days] }))
}

/** The keys that this database ever had: whoever prunes is no auditor, and asks only whether these are its own packs. */
async function knownKeys(driver: Driver): Promise<readonly PublicHalf[]> {
  const { keys } = granted(await driver.call('keys_list', {}))
  return keys.map(({ public_pem }) => publicHalf(public_pem))
}

async function tombstoneOf(
  { driver, keep, signer }: PruneInput & { readonly signer: () => Promise<Signer> },
  { now }: Expired,
  { day, manifest_sha256, sums_sha256, checkpoint, previous_manifest_sha256, tombstone }: Expired['days'][number],
): Promise<string> {
  if (tombstone !== null) return tombstone
  if (manifest_sha256 === null || sums_sha256 === null || checkpoint === null) {
    throw new Error(`the plan has ${day}, and the database has no pack of it`)
  }
  const { size, root } = parseCheckpoint(parseNote(checkpoint).text)
  const payload: Tombstone = {
    type: 'tms-tombstone-v1',
    day,
    manifest_sha256,
    sums_sha256,
    previous_manifest_sha256,
    checkpoint_size: size,
    checkpoint_root: toBase64(root),
    expired_at: now,
    reason: `older than ${keep} days`,
  }
  const text = await makeBundle(payload, await signer(), tombstonePayloadType)
  const stored = granted(
    await driver.call('evidence_tombstone', {
      request_id: randomUUID(),
      keep,
      day,
      manifest_sha256,
      sums_sha256,
      tombstone: text,
    }),
  )
  return stored.tombstone
}

/** What is stored was stored by whoever may prune: before a pack is deleted for it, it must be its tombstone. */
function whyNotThat(
  text: string,
  { day, manifest_sha256, sums_sha256 }: Expired['days'][number],
  keys: readonly PublicHalf[],
) {
  for (const key of keys) {
    try {
      const said = readTombstone(verifyBundle(text, key, tombstonePayloadType))
      const own = said.day === day && said.manifest_sha256 === manifest_sha256 && said.sums_sha256 === sums_sha256
      return own ? null : 'the tombstone that is stored is of another pack'
    } catch (error) {
      if (!(error instanceof ProofError)) throw error
    }
  }
  return 'the tombstone that is stored is by no key of this database'
}

async function whyNotThere(path: string, text: string): Promise<string | null> {
  try {
    return textOf(await readFile(path)) === text ? null : 'another tombstone lies there already'
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null
    return 'what lies in place of its tombstone cannot be read'
  }
}

async function made(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true })
    await synced(join(folder, '..'))
  } catch (error) {
    throw fileProblem(folder, error)
  }
}

/** A folder can't be deleted at once: it steps aside in one step, and is gone for everybody who looks for days. */
async function removed(root: string, day: string): Promise<void> {
  const aside = join(root, `.expired-${day}`)
  try {
    await rm(aside, { recursive: true, force: true })
    await rename(join(root, day), aside)
    await synced(root)
    await rm(aside, { recursive: true, force: true })
  } catch (error) {
    // Another run was quicker.
    if (systemCode(error) !== 'ENOENT') throw fileProblem(join(root, day), error)
  }
}

async function synced(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  )
}

/** Consent names how much is kept, so that a slip of the pen in --keep is not consented to. */
export function consentName({ keep }: Pick<PrunePlan, 'keep'>): string {
  return `keep-${keep}`
}
