import { randomUUID } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import type { Contract } from '../drivers/contract.ts'
import type { KeyRecord } from '../drivers/contract/keys.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { exit, TmsError } from '../errors.ts'
import { ProofError } from '../proof/bytes.ts'
import { publicHalf, type PublicHalf } from '../proof/ed25519.ts'
import {
  adoptKeyFile,
  createKeyFile,
  findKeyFile,
  keepKeyFile,
  keptKeyPath,
  nextKeyPath,
  writeKeyFile,
} from './files.ts'
import { introduce } from './introduction.ts'
import { openSigner, signerPlace, type SignerSources } from './open.ts'
import { exposed, makePrivateKey, readKeyFile, signerOf, signingKeyPath } from './private.ts'
import type { Signer } from './signer.ts'

export const usualDays = 400
/** From when on a key that ends is worth a word. */
const soonDays = 30

type Listed = Contract['keys_list']['result']

// ---- the key that signs

export type UsableSigner = Signer & { readonly notBefore: string; readonly notAfter: string }

/**
 * The signer that this machine has and the database knows as the key in force, inside its time. Everything that signs
 * goes through here. It goes on asking: whoever holds it for weeks doesn't sign past its end.
 */
export async function usableSigner(
  driver: Driver,
  sources: SignerSources,
  now: () => Date,
  warn: (text: string) => void = () => undefined,
): Promise<UsableSigner> {
  const { own, inForce, listed } = await signerInForce(driver, sources)
  const warning = await signerWarning(sources, own)
  if (warning !== null) warn(warning)
  // the database's time: a key made there a second ago is valid here, too, where the clock is behind
  const ahead = Date.parse(listed.now) - now().getTime()
  const check = () => {
    const problem = outOfTime(inForce, now().getTime() + ahead)
    if (problem !== null) {
      throw unusable(`the signing key ${short(own.fingerprint)} may not sign`, problem, 'tms evidence keys rotate')
    }
  }
  check()
  return {
    ...own,
    notBefore: inForce.not_before,
    notAfter: inForce.not_after,
    sign: async (bytes) => {
      check()
      return own.sign(bytes)
    },
  }
}

/** What whoever signs with this key has to be told; null: nothing. Signing goes on: to stop it would cost the day's evidence. */
async function signerWarning(sources: SignerSources, own: Signer): Promise<string | null> {
  const { name, file } = await placeOf(sources, own)
  if (!file || !(await exposed(name))) return null
  return `others of this machine can read the signing key, and sign as you: chmod 600 ${name}, then tms evidence keys rotate`
}

type InForce = {
  readonly own: Signer
  readonly inForce: KeyRecord
  readonly listed: Listed
  /** Another key took over while this was found out. */
  readonly moved: boolean
}

async function signerInForce(driver: Driver, sources: SignerSources): Promise<InForce> {
  let before: string | null = null
  for (;;) {
    const listed = granted(await driver.call('keys_list', {}))
    const inForce = listed.keys.find(({ state }) => state === 'valid')
    const own = await ownSigner(sources, inForce)
    if (!own) throw inForce ? lostKey(sources, inForce) : noKey(sources)
    if (inForce?.fingerprint === own.fingerprint) return { own, inForce, listed, moved: before !== null }
    // the database was asked before the file was read, and a rotation may have come between; asked again it says so
    const now = inForce?.fingerprint ?? ''
    if (before === now) throw notInForce(own, listed.keys)
    before = now
  }
}

/** What this machine signs with. A rotation that was killed halfway left the new key under another name: it counts. */
async function ownSigner(sources: SignerSources, inForce: KeyRecord | undefined): Promise<Signer | null> {
  if (inForce && signerPlace(sources) === null) {
    const found = await findKeyFile(sources.keysFolder, inForce.fingerprint)
    if (found) return found.signer
  }
  return openSigner(sources)
}

function outOfTime({ not_before, not_after }: KeyRecord, at: number): string | null {
  if (at < Date.parse(not_before)) return `it is valid from ${not_before}`
  if (at > Date.parse(not_after)) return `it was valid until ${not_after}`
  return null
}

function noKey({ keysFolder }: SignerSources): TmsError {
  return new TmsError({
    code: 'CONFIG_MISSING',
    what: 'there is no signing key',
    why: `neither TMS_SIGNING_KEY nor signing.command is set, and ${signingKeyPath(keysFolder)} does not exist`,
    next: ['tms evidence keys list', 'tms evidence keys generate'],
  })
}

/** The ways out for a machine that doesn't have the key in force: nothing else introduces another. */
function withoutKeyInForce({ keysFolder }: SignerSources, { fingerprint }: KeyRecord, then: string): string[] {
  return [
    `cp <backup of the key> ${signingKeyPath(keysFolder)}`,
    `tms evidence keys revoke ${fingerprint.slice(0, 16)} --why "the key is lost"`,
    then,
  ]
}

function lostKey(sources: SignerSources, inForce: KeyRecord): TmsError {
  return new TmsError({
    code: 'CONFIG_MISSING',
    what: `the signing key ${short(inForce.fingerprint)} is in force, and its private half is not on this machine`,
    why: `neither TMS_SIGNING_KEY nor signing.command is set, and ${signingKeyPath(sources.keysFolder)} does not exist; restore it, or sign where it is; if it is lost, revoke it and begin anew`,
    next: withoutKeyInForce(sources, inForce, 'tms evidence keys generate'),
  })
}

function notInForce({ fingerprint }: Signer, keys: readonly KeyRecord[]): TmsError {
  const what = `the signing key ${short(fingerprint)} may not sign`
  const known = keys.find((key) => key.fingerprint === fingerprint)
  if (known?.state === 'revoked') {
    return unusable(what, `it was revoked at ${known.revoked_at ?? ''}`, 'tms evidence keys generate')
  }
  if (known) return unusable(what, `another key took over at ${known.ended_at ?? ''}`, 'tms evidence keys list')
  const inForce = keys.find(({ state }) => state === 'valid')
  return inForce
    ? unusable(
        what,
        `the database knows ${short(inForce.fingerprint)} as the one in force; if that one is lost, it must be revoked first`,
        'tms evidence keys list',
        `tms evidence keys revoke ${inForce.fingerprint.slice(0, 16)} --why "the key is lost"`,
        'tms evidence keys generate --register',
      )
    : unusable(what, 'the database does not know it', 'tms evidence keys generate --register')
}

function unusable(what: string, why: string, ...next: string[]): TmsError {
  return new TmsError({ code: 'CONFIG_INVALID', what, why, next })
}

// ---- list

export type ListedKey = KeyRecord & {
  /** This machine can sign with it. */
  readonly here: boolean
  /** Of the one in force: usual | soon | ended. */
  readonly time: 'usual' | 'soon' | 'ended' | null
}

export type KeyList = {
  readonly keys: readonly ListedKey[]
  /** What this machine signs with. */
  readonly own: { readonly fingerprint: string; readonly place: string; readonly registered: boolean } | null
  /** Others of this machine can read the private half. */
  readonly exposed: boolean
  /** What init noted down before keys were registered, and nobody has registered yet. */
  readonly announced: string | null
}

/** `sources` null: only what the database knows. */
export async function listKeys(driver: Driver, sources: SignerSources | null): Promise<KeyList> {
  const { keys, announced, now } = granted(await driver.call('keys_list', {}))
  const inForce = keys.find(({ state }) => state === 'valid')
  const own = sources && (await ownSigner(sources, inForce))
  const place = sources && own ? await placeOf(sources, own) : null
  return {
    keys: keys.map((key) => ({ ...key, here: key.fingerprint === own?.fingerprint, time: timeOf(key, now) })),
    own: own && {
      fingerprint: own.fingerprint,
      place: place?.name ?? '',
      registered: keys.some(({ fingerprint }) => fingerprint === own.fingerprint),
    },
    exposed: place?.file === true && (await exposed(place.name)),
    announced: keys.length === 0 ? announced : null,
  }
}

async function placeOf(sources: SignerSources, { fingerprint }: Signer): Promise<{ name: string; file: boolean }> {
  const elsewhere = signerPlace(sources)
  if (elsewhere !== null) return { name: elsewhere, file: false }
  const found = await findKeyFile(sources.keysFolder, fingerprint)
  return { name: found?.path ?? signingKeyPath(sources.keysFolder), file: found !== null }
}

function timeOf({ state, not_after }: KeyRecord, now: string): ListedKey['time'] {
  if (state !== 'valid') return null
  const left = Date.parse(not_after) - Date.parse(now)
  return left < 0 ? 'ended' : left < soonDays * 86_400_000 ? 'soon' : 'usual'
}

/** Why evidence can't be signed, or soon can't; null when all is well. `here`: by this machine. */
export function keysFinding({ keys, own, exposed }: KeyList, here = true): string | null {
  const inForce = keys.find(({ state }) => state === 'valid')
  if (!inForce) return 'no key is in force'
  if (exposed) return 'others of this machine can read the private key'
  if (here && own?.fingerprint !== inForce.fingerprint) return 'this machine does not have the key in force'
  if (inForce.time === 'ended') return 'the key in force has ended'
  return inForce.time === 'soon' ? `the key in force ends within ${soonDays} days` : null
}

// ---- generate, register

export type Made = {
  readonly fingerprint: string
  readonly place: string
  readonly made: boolean
  readonly not_before: string
  readonly not_after: string
  readonly introduced_by: string | null
  readonly kept: string | null
  readonly next: readonly string[]
}

export type Generation = {
  readonly days: number
  /** Registers the key that is there instead of making one. */
  readonly register: boolean
}

/** A first key, or a first one after the last was revoked: the beginning of a chain. */
export async function generateKey(driver: Driver, sources: SignerSources, wanted: Generation): Promise<Made> {
  const listed = granted(await driver.call('keys_list', {}))
  const inForce = listed.keys.find(({ state }) => state === 'valid')
  const there = await openSigner(sources)
  if (inForce) {
    const here = (await ownSigner(sources, inForce))?.fingerprint === inForce.fingerprint
    const then = `tms evidence keys generate${there || wanted.register ? ' --register' : ''}`
    throw new TmsError({
      code: 'CONFLICT',
      what: `the key ${short(inForce.fingerprint)} is in force${here ? '' : ', and its private half is not on this machine'}`,
      why: here
        ? 'a new one takes over by being introduced by it'
        : 'a new one takes over by being introduced by it; where it is lost, it must be revoked first',
      next: here ? ['tms evidence keys list', 'tms evidence keys rotate'] : withoutKeyInForce(sources, inForce, then),
    })
  }
  if (wanted.register) {
    if (!there) throw noKey(sources)
    return begin(driver, sources, there, listed.now, wanted.days, false)
  }
  const revoked = listed.keys.some(({ fingerprint }) => fingerprint === there?.fingerprint)
  if (there && signerPlace(sources) !== null) throw makeItThere(sources, 'generate --register')
  if (there && !revoked) throw alreadyThere(sources, there)
  const pem = makePrivateKey()
  const signer = madeSigner(pem)
  if (there) {
    // the revoked one signs no more; what becomes of it is for a person to decide
    await keepOld(sources, there)
    const next = nextKeyPath(sources.keysFolder, signer.fingerprint)
    await writeKeyFile(next, pem)
    const made = await orRemove(next, () => begin(driver, sources, signer, listed.now, wanted.days, true))
    await adoptKeyFile(sources.keysFolder, next)
    return made
  }
  if (!(await createKeyFile(sources.keysFolder, pem))) throw alreadyThere(sources, null)
  return orRemove(signingKeyPath(sources.keysFolder), () =>
    begin(driver, sources, signer, listed.now, wanted.days, true),
  )
}

export type OwnKey = { readonly signer: Signer; readonly place: string; readonly made: boolean }

/** The key of this machine, or a new one. Only `init` calls this: nothing else makes a key silently. */
export async function ensureKey(sources: SignerSources): Promise<OwnKey> {
  const place = signerPlace(sources) ?? signingKeyPath(sources.keysFolder)
  const there = await openSigner(sources)
  if (there) return { signer: there, place, made: false }
  const made = await createKeyFile(sources.keysFolder, makePrivateKey())
  const signer = await openSigner(sources)
  if (!signer) throw noKey(sources)
  return { signer, place, made }
}

/** What `init` does: registers the key of this machine where the database has none yet. False when it has some. */
export async function registerFirstKey(driver: Driver, signer: Signer): Promise<boolean> {
  const { keys, now } = granted(await driver.call('keys_list', {}))
  if (keys.length > 0)
    return keys.some(({ fingerprint, state }) => fingerprint === signer.fingerprint && state === 'valid')
  await add(driver, signer, signer, now, usualDays, null)
  return true
}

async function begin(
  driver: Driver,
  sources: SignerSources,
  signer: Signer,
  now: string,
  days: number,
  made: boolean,
): Promise<Made> {
  const { key } = await add(driver, signer, signer, now, days, null)
  return shown(key, signerPlace(sources) ?? signingKeyPath(sources.keysFolder), made, null, [
    'tms evidence keys export',
  ])
}

function alreadyThere({ keysFolder }: SignerSources, there: Signer | null): TmsError {
  const which = there ? ` (${short(there.fingerprint)})` : ''
  return new TmsError({
    code: 'CONFLICT',
    what: `${signingKeyPath(keysFolder)} exists already${which}`,
    why: 'it was not made by this run, and the database does not know it',
    next: ['tms evidence keys list', 'tms evidence keys generate --register'],
  })
}

function makeItThere(sources: SignerSources, then: string): TmsError {
  return new TmsError({
    code: 'USAGE',
    what: `the private key is in ${signerPlace(sources) ?? ''}, where tms makes none`,
    why: 'make a new key there; its public half is all that tms needs',
    next: [`tms evidence keys ${then}`],
  })
}

// ---- rotate

export type Takeover = {
  readonly days: number
  /** Keeps the private half of the old key. */
  readonly keep: boolean
  /** The new public half (PEM), where the private one isn't for tms to make. */
  readonly to: string | null
}

/** A new key, introduced by the one in force. A kill at any moment leaves one that can sign. */
export async function rotateKey(driver: Driver, sources: SignerSources, wanted: Takeover): Promise<Made> {
  const { own: old, listed, moved } = await signerInForce(driver, sources)
  const { keysFolder } = sources
  if (moved) throw rotatedMeanwhile(keysFolder)
  const { now } = listed
  const place = signerPlace(sources)
  if (wanted.to !== null) {
    const { key } = await add(driver, readPublicHalf(wanted.to), old, now, wanted.days, old.fingerprint)
    return shown(key, 'where you made it', false, place ?? signingKeyPath(keysFolder), ['tms evidence keys list'])
  }
  if (place !== null) throw makeItThere(sources, 'rotate --to <new-public.pem>')

  const pem = makePrivateKey()
  const signer = madeSigner(pem)
  const from = await findKeyFile(keysFolder, old.fingerprint)
  const shared = from?.path === keptKeyPath(keysFolder, old.fingerprint)
  // signing.pem is another database's then: this one's keys stay under names of their own
  const next = (shared ? keptKeyPath : nextKeyPath)(keysFolder, signer.fingerprint)
  // 1. what an earlier rotation, killed halfway, left under another name
  if (from && !shared) await adoptKeyFile(keysFolder, from.path)
  const kept = wanted.keep ? (shared ? from.path : await keepOld(sources, old)) : null
  // 2. the new key is on disk before anybody knows of it, 3. the database makes it the one in force: from then on it is
  // found under this name, 4. it takes the place of the old one
  await writeKeyFile(next, pem)
  const { key } = await orRemove(next, () => add(driver, signer, old, now, wanted.days, old.fingerprint))
  if (!shared) await adoptKeyFile(keysFolder, next)
  else if (!wanted.keep) await rm(from.path, { force: true })
  return shown(key, shared ? next : signingKeyPath(keysFolder), true, kept, ['tms evidence keys export'])
}

/** What was refused is certain: the new private half goes. After anything else the database may know it, and it stays. */
async function orRemove<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const refused = error instanceof TmsError && (error.exit === exit.refused || error.code === 'INPUT_INVALID')
    if (refused) await rm(path, { force: true })
    throw error
  }
}

/** Keeps the old private half under its own name; another run may have replaced it just now. */
async function keepOld({ keysFolder }: SignerSources, old: Signer): Promise<string> {
  const kept = keptKeyPath(keysFolder, old.fingerprint)
  await keepKeyFile(signingKeyPath(keysFolder), kept)
  const found = await readKeyFile(kept)
  if (found?.fingerprint === old.fingerprint) return kept
  await rm(kept, { force: true })
  throw rotatedMeanwhile(keysFolder)
}

function rotatedMeanwhile(keysFolder: string): TmsError {
  return new TmsError({
    code: 'CONFLICT',
    what: `${signingKeyPath(keysFolder)} was replaced meanwhile`,
    why: 'another rotation ran at the same time',
    next: ['tms evidence keys list'],
  })
}

// ---- revoke, export

export async function revokeKey(
  driver: Driver,
  { fingerprint, why }: { readonly fingerprint: string; readonly why: string },
): Promise<Contract['keys_revoke']['result']> {
  const { keys } = granted(await driver.call('keys_list', {}))
  const key = findKey(keys, fingerprint)
  return granted(await driver.call('keys_revoke', { request_id: randomUUID(), fingerprint: key.fingerprint, why }))
}

/** The public half of the key in force, of a named one, or the whole chain. */
export async function exportKeys(
  driver: Driver,
  { fingerprint, all }: { readonly fingerprint?: string | undefined; readonly all: boolean },
): Promise<{ readonly keys: readonly KeyRecord[] }> {
  const { keys } = granted(await driver.call('keys_list', {}))
  if (all) return { keys }
  if (fingerprint !== undefined) return { keys: [findKey(keys, fingerprint)] }
  const inForce = keys.find(({ state }) => state === 'valid')
  if (inForce) return { keys: [inForce] }
  throw new TmsError({
    code: 'NOT_FOUND',
    what: 'no key is in force',
    why: keys.length === 0 ? 'none was ever registered' : 'the last one was revoked',
    next: ['tms evidence keys list', 'tms evidence keys generate'],
  })
}

/** By its fingerprint, or by enough of its beginning. */
function findKey(keys: Listed['keys'], wanted: string): KeyRecord {
  const found = wanted.length < 8 ? [] : keys.filter(({ fingerprint }) => fingerprint.startsWith(wanted.toLowerCase()))
  const [key] = found
  if (key && found.length === 1) return key
  throw new TmsError({
    code: 'NOT_FOUND',
    what: `there is ${found.length > 1 ? 'more than one key' : 'no key'} ${wanted}`,
    why: 'a key is named by its fingerprint, or by its first 8 digits or more',
    next: ['tms evidence keys list'],
  })
}

// ---- parts

async function add(driver: Driver, key: PublicHalf, by: Signer, now: string, days: number, older: string | null) {
  const terms = {
    fingerprint: key.fingerprint,
    public_pem: key.publicKeyPem,
    not_before: now,
    not_after: daysLater(now, days),
  }
  const introduction = await introduce(terms, by)
  const request = { request_id: randomUUID(), ...terms, introduced_by: older, introduction }
  return granted(await driver.call('keys_add', request))
}

/** Six digits, as the database writes them. */
function daysLater(now: string, days: number): string {
  return new Date(Date.parse(now) + days * 86_400_000).toISOString().replace('Z', '000Z')
}

function madeSigner(pem: string): Signer {
  const signer = signerOf(pem)
  if (!signer) throw new Error('a new key is no key')
  return signer
}

/** A file that somebody names; what is in it is judged later. */
export async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `${path} can't be read`,
        why: 'it should hold a public key in PEM',
        next: [`ls -l ${path}`],
      },
      { cause: error },
    )
  }
}

function readPublicHalf(pem: string): PublicHalf {
  try {
    return publicHalf(pem)
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    throw new TmsError({
      code: 'INPUT_INVALID',
      what: 'the new key is no Ed25519 public key in PEM',
      why: error.message,
      next: ['openssl pkey -in <key.pem> -pubout'],
    })
  }
}

function shown(key: KeyRecord, place: string, made: boolean, kept: string | null, next: readonly string[]): Made {
  const { fingerprint, not_before, not_after, introduced_by } = key
  return { fingerprint, place, made, not_before, not_after, introduced_by, kept, next }
}

function short(fingerprint: string): string {
  return `${fingerprint.slice(0, 16)}…`
}
