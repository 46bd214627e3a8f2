import { createHash, randomUUID } from 'node:crypto'
import type { DoorOperation } from '../drivers/contract/door.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { verifySignature, type ReceivedHeaders } from '../signing/request.ts'
import { DoorRefusal } from './answers.ts'
import type { KeyRing } from './keys.ts'

/** A request whose signature is right by this host's keys and clock. The database has not been asked yet. */
export type Signed = {
  readonly keyId: string
  readonly keySha256: string
  readonly nonce: string
  readonly timestamp: number
}

export type Received = {
  readonly headers: ReceivedHeaders
  readonly method: string
  readonly path: string
  readonly body: Uint8Array
}

/** The first look: no database, no nonce, nobody's rate. All that fails here looks the same from outside. */
export function verify(received: Received, keys: KeyRing, now: Date): Signed {
  const verdict = verifySignature({
    ...received,
    now,
    keys: (keyId) => {
      const key = keys.get(keyId)
      return key ? [key.secret] : []
    },
  })
  if (verdict.kind !== 'ok') throw new DoorRefusal('SIGNATURE_INVALID', verdict.kind)
  const { keyId, nonce, timestamp } = verdict
  return { keyId, nonce, timestamp, keySha256: keys.get(keyId)?.sha256 ?? '' }
}

/**
 * The second look: one call that judges, counts and remembers. Its request id is new each time, so that the driver may ask
 * again after a lost connection and a repeated nonce is still a repeat.
 */
export async function admit(
  driver: Driver,
  signed: Signed,
  asked: { readonly operation: DoorOperation; readonly tenant: string; readonly address: string },
): Promise<{ readonly account: string; readonly tenant: string }> {
  return granted(
    await driver.call('door_admit', {
      request_id: randomUUID(),
      key_id: signed.keyId,
      key_sha256: signed.keySha256,
      nonce: signed.nonce,
      timestamp: signed.timestamp,
      ...asked,
    }),
  )
}

/** The id of the work that a nonce stands for: were it ever done twice, the second would get the first one's answer. */
export function workId({ nonce }: Signed): string {
  const hex = createHash('sha256').update(`door\n${nonce}`).digest('hex')
  // Version 8: made by our own rule.
  const variant = ((Number.parseInt(hex.slice(16, 18), 16) & 0x3f) | 0x80).toString(16)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(18, 20)}-${hex.slice(20, 32)}`
}

/** Said at the start, where a person reads it, and not at the first request. */
export async function checkAccount(driver: Driver, operations: readonly string[], account: string): Promise<void> {
  const { principal, operations: may } = granted(await driver.call('whoami', {}))
  const missing = operations.filter((operation) => !may.includes(operation))
  if (missing.length === 0) return
  throw new TmsError({
    code: 'ROLE_DENIED',
    what: `the door can't work as ${principal}`,
    why: `it needs ${missing.join(' and ')}; the service account ${account} has that`,
    next: [`tms accounts rotate ${account} --kind postgres`, 'tms serve --profile <a profile with that login>'],
  })
}
