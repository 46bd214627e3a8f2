import { makePrivateKey, signerOf } from '../../../src/keys/private.ts'
import type { Attempt } from './attempt.ts'

export const evidenceAttempts: readonly Attempt[] = [
  { fn: 'keys_add', args: newKey },
  { fn: 'keys_revoke', args: () => ({ fingerprint: 'a'.repeat(64), why: 'the walk' }) },
]

function newKey(): Record<string, unknown> {
  const signer = signerOf(makePrivateKey())
  const moment = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString().replace('Z', '000Z')
  return {
    fingerprint: signer?.fingerprint,
    public_pem: signer?.publicKeyPem,
    not_before: moment(0),
    not_after: moment(400),
    introduced_by: null,
    introduction: `${'A'.repeat(86)}==`,
  }
}
