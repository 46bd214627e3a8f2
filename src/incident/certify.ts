import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import type { Signer } from '../keys/signer.ts'
import { verifySignature } from '../proof/ed25519.ts'
import {
  certificateLeft,
  certificateOf,
  certificateText,
  setAside,
  signText,
  writeCertificate,
  type CertifiedBy,
} from './certificate.ts'

export type CertifiedLater = {
  readonly incidentId: string
  readonly target: string
  readonly certificates: readonly {
    readonly halt: string
    readonly sha256: string
    readonly fingerprint: string
    /** It was signed by this key before; the files were written again. */
    readonly before: boolean
    /** Where the certificate lies now that was in the folder and says something else than the database. */
    readonly aside: string | null
    readonly files: readonly string[]
  }[]
}

/**
 * Signs what the button couldn't: the bytes that are kept, or, where the database has none, those that the press left in the
 * folder; else, and where those say something else than the database, what the database knows of the halt now.
 */
export async function certifyLater(
  driver: Driver,
  id: string,
  { signer, folder }: { readonly signer: Signer | null; readonly folder: string },
): Promise<CertifiedLater> {
  if (signer === null) {
    throw new TmsError({
      code: 'CONFIG_MISSING',
      what: 'There is no signing key here.',
      why: 'The certificate is signed with the key that `tms init` made, or the one in TMS_SIGNING_KEY.',
      next: ['tms evidence keys list', 'tms doctor'],
    })
  }
  const answer = await driver.call('incident_certificates', { id })
  // It looks among the fleet's incidents only: a tenant's has no halt, and whoever may read it is told so.
  if ('refused' in answer && answer.refused.code === 'NOT_FOUND') {
    if (!('refused' in (await driver.call('incident_show', { id })))) throw noHalt(id)
  }
  const { incident, halts, database_id, environment } = granted(answer)
  if (halts.length === 0) throw noHalt(id)
  const certificates: CertifiedLater['certificates'][number][] = []
  for (const { facts, certificate, signed_by } of halts) {
    const signOnce = async (text: string) => {
      // The database can't tell a wrong signature from a right one: whoever may press could have put one there.
      const there = signed_by.find(
        (by) =>
          by.fingerprint === signer.fingerprint &&
          verifySignature(signer, new TextEncoder().encode(text), Buffer.from(by.signature, 'base64')),
      )
      return { text, before: there !== undefined, by: there ?? (await signText(text, signer)) }
    }
    const keep = (text: string, by: CertifiedBy) =>
      driver.call('incident_certified', {
        request_id: randomUUID(),
        halt: facts.halt,
        certificate: text,
        fingerprint: by.fingerprint,
        signature: by.signature,
      })
    const known = () =>
      certificateText(
        certificateOf(facts, { incident, target: driver.target.name, database: database_id, environment }),
      )
    const left = certificate === null ? await certificateLeft(join(folder, incident), { incident, ...facts }) : null
    let signed = await signOnce(certificate ?? left ?? known())
    // First the database: what lies in the folder and isn't so gets no signature beside it.
    let answer = await keep(signed.text, signed.by)
    let aside: string | null = null
    if (left !== null && 'refused' in answer && answer.refused.code === 'CONFLICT') {
      signed = await signOnce(known())
      answer = await keep(signed.text, signed.by)
      if (!('refused' in answer)) aside = await setAside(join(folder, incident), facts.halt)
    }
    const kept = granted(answer)
    const files = await writeCertificate({
      folder: join(folder, incident),
      halt: facts.halt,
      text: signed.text,
      signed: { ...signed.by, publicKeyPem: signer.publicKeyPem },
    })
    certificates.push({
      halt: facts.halt,
      sha256: kept.sha256,
      fingerprint: signed.by.fingerprint,
      before: signed.before,
      aside,
      files,
    })
  }
  return { incidentId: incident, target: driver.target.name, certificates }
}

function noHalt(id: string): TmsError {
  return new TmsError({
    code: 'NOT_FOUND',
    what: `Incident ${id} has no halt.`,
    why: 'Only an emergency stop has a certificate.',
    next: ['tms incident list --all'],
  })
}
