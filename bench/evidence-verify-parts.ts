import { join } from 'node:path'
import { verifyEvidence, type Verdict } from '../src/evidence/verify.ts'
import { daysSource } from '../src/evidence/verify-source.ts'
import { dayAfter } from '../src/evidence/verify-forms.ts'
import { canonicalFile } from '../src/proof/canonical.ts'
import type { PublicHalf } from '../src/proof/ed25519.ts'
import { checkpointNote, nextPack, startChain, testKey, writePack } from '../test/evidence-verify/packs.ts'

/** What the bench measures, bundled by it: packs as large as those of a busy day, and their verification. */

export type Made = {
  readonly key: PublicHalf
  readonly pem: string
  readonly checkpoint: string
  readonly rows: number
  readonly bytes: number
}

export async function makeDays(root: string, days: number): Promise<Made> {
  const key = testKey()
  const chain = startChain(key)
  let bytes = 0
  for (let n = 0; n < days; n += 1) {
    const day = dayAfter('2026-01-01', n)
    const actions = Array.from({ length: 2000 }, (_, seq) => ({
      action: 'flags.set',
      at: `${day}T12:00:00.000000Z`,
      seq: String(seq),
      row_hash: seq.toString(16).padStart(64, '0'),
      who: 'ada',
    }))
    const facts = { 'audit_digest.json': canonicalFile({ actions, type: 'tms-audit-v1' }) }
    const { files } = await nextPack(chain, day, key, { rows: 100, facts })
    for (const content of files.values()) bytes += content.length
    writePack(join(root, day), files)
  }
  const checkpoint = await checkpointNote(chain.ledger, key)
  return { key, pem: key.publicKeyPem, checkpoint, rows: chain.ledger.lines.length, bytes }
}

export async function verifyDays(root: string, { key, checkpoint }: Made): Promise<Verdict> {
  const source = await daysSource(root)
  const found = await verifyEvidence(source, {
    keys: [key],
    checkpoint: { name: 'kept.txt', note: checkpoint, since: null },
  })
  return found.verdict
}
