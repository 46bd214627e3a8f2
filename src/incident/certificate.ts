import { mkdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import type { HaltFacts } from '../drivers/contract/incidents.ts'
import { fileProblem, writeFileAtomically } from '../files.ts'
import type { Signer } from '../keys/signer.ts'
import { canonicalJson } from '../proof/canonical.ts'

/** The certificate of a halt: what the database knows of it, as bytes that `openssl` can check. */

export type Certificate = {
  readonly type: 'tms-halt-certificate-v1'
  readonly incident: string
  readonly halt: string
  readonly epoch: number
  readonly target: string
  readonly database: string | null
  readonly environment: string | null
  readonly at: string
  readonly by: string
  readonly why: string
  readonly fenced: boolean
  /** Milliseconds from the call to the moment after which nothing autonomous could commit. */
  readonly ms_to_fence: string
  /** Transactions that had passed before the mark and were waited for. */
  readonly waited_for: number
  /** Tasks that ran then; none of them can commit. */
  readonly in_flight: number
  /** How many workers the database saw. */
  readonly workers: number
  readonly acknowledged: HaltFacts['acknowledged']
  readonly silent: HaltFacts['silent']
  readonly terminated: HaltFacts['terminated']
  readonly survivors: HaltFacts['survivors']
}

export type CertifiedBy = { readonly fingerprint: string; readonly signature: string }

export type Origin = {
  readonly incident: string
  readonly target: string
  readonly database: string | null
  readonly environment: string | null
}

export function certificateOf(facts: HaltFacts, { incident, target, database, environment }: Origin): Certificate {
  return {
    type: 'tms-halt-certificate-v1',
    incident,
    halt: facts.halt,
    epoch: facts.epoch,
    target,
    database,
    environment,
    at: facts.at,
    by: facts.by,
    why: facts.why,
    fenced: facts.fenced,
    ms_to_fence: facts.ms_to_fence,
    waited_for: facts.waited_for,
    in_flight: facts.in_flight,
    workers: facts.acknowledged.length + facts.silent.length,
    acknowledged: facts.acknowledged,
    silent: facts.silent,
    terminated: facts.terminated,
    survivors: facts.survivors,
  }
}

/** These bytes are stored, written and signed: no newline at the end, or they would be two different texts. */
export function certificateText(certificate: Certificate): string {
  return canonicalJson(certificate)
}

export async function signText(text: string, signer: Signer): Promise<CertifiedBy> {
  const signature = await signer.sign(new TextEncoder().encode(text))
  return { fingerprint: signer.fingerprint, signature: Buffer.from(signature).toString('base64') }
}

export type CertificateFiles = {
  /** The folder of this incident. */
  readonly folder: string
  readonly halt: string
  readonly text: string
  readonly signed: (CertifiedBy & { readonly publicKeyPem: string }) | null
}

/** Each press its own: of two at once nobody knows which is the first, and none may write over the other's. */
const nameOf = (halt: string) => `certificate-${halt}.json`

/** The bytes that a press left here although the database did not get them: signed again, never made anew. */
export async function certificateLeft(
  folder: string,
  facts: { readonly incident: string; readonly halt: string; readonly epoch: number; readonly at: string },
): Promise<string | null> {
  const file = join(folder, nameOf(facts.halt))
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
    throw fileProblem(file, error)
  }
  try {
    const left: unknown = JSON.parse(text)
    const fits = z.object({
      incident: z.literal(facts.incident),
      halt: z.literal(facts.halt),
      epoch: z.literal(facts.epoch),
      at: z.literal(facts.at),
    })
    return fits.safeParse(left).success ? text : null
  } catch {
    return null
  }
}

/** Out of the way of the one that the database takes: what is there stays to be looked at. */
export async function setAside(folder: string, halt: string): Promise<string> {
  const aside = join(folder, `refused-${nameOf(halt)}`)
  try {
    await rename(join(folder, nameOf(halt)), aside)
  } catch (error) {
    throw fileProblem(aside, error)
  }
  return aside
}

/** Writes certificate, signature and how to check it. The same press writes the same files again. */
export async function writeCertificate(files: CertificateFiles): Promise<readonly string[]> {
  const { folder, halt, text, signed } = files
  const name = nameOf(halt)
  const instructions = `HOW-TO-CHECK-${halt}.txt`
  try {
    await mkdir(folder, { recursive: true })
  } catch (error) {
    throw fileProblem(folder, error)
  }
  const written = [join(folder, name)]
  await writeFileAtomically(join(folder, name), text)
  if (signed !== null) {
    await writeFileAtomically(join(folder, `${name}.sig`), Buffer.from(signed.signature, 'base64'))
    const key = `key-${signed.fingerprint.slice(0, 8)}.pem`
    await writeFileAtomically(join(folder, key), signed.publicKeyPem)
    written.push(join(folder, `${name}.sig`), join(folder, key))
  }
  await writeFileAtomically(join(folder, instructions), howToCheck(name, signed))
  written.push(join(folder, instructions))
  return written
}

function howToCheck(name: string, signed: CertificateFiles['signed']): string {
  if (signed === null) {
    return `${name} says who halted the fleet, when, and what was stopped. It is not signed yet.
Sign it with: tms incident certify <incident>
`
  }
  const key = `key-${signed.fingerprint.slice(0, 8)}.pem`
  return `${name} says who halted the fleet, when, and what was stopped.

1. Is the key the right one? This must print ${signed.fingerprint}
   and that must be the fingerprint you know from elsewhere: a key that lies beside
   what it signed proves nothing by itself.

   openssl pkey -pubin -in ${key} -outform DER | openssl dgst -sha256 -r

2. Is the certificate what was signed? OpenSSL 3 says "Signature Verified Successfully":

   openssl pkeyutl -verify -pubin -inkey ${key} -rawin -in ${name} -sigfile ${name}.sig
`
}
