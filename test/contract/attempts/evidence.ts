import { makePrivateKey, signerOf } from '../../../src/keys/private.ts'
import type { Attempt } from './attempt.ts'
import { retentionAttempts } from './retention.ts'

export const evidenceAttempts: readonly Attempt[] = [
  ...retentionAttempts,
  { fn: 'keys_add', args: newKey },
  { fn: 'evidence_state', args: () => ({}) },
  { fn: 'evidence_facts', args: () => ({ day: '2026-10-31' }) },
  { fn: 'evidence_pack', args: () => ({ day: '2026-10-31' }) },
  // Past the permission they are told what is wrong with them: nothing was cut.
  { fn: 'evidence_cut', args: () => ({ day: '2026-10-31', manifest: '{}', files: {} }) },
  {
    fn: 'evidence_store',
    args: () => ({ day: '2026-10-31', revision: 1, files: {}, signature: `${'A'.repeat(86)}==` }),
  },
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
