import { introduce } from '../../src/keys/introduction.ts'
import { sha256Hex, toBase64 } from '../../src/proof/bytes.ts'
import type { Subject } from '../contract/subjects.ts'
import type { Pack, TestKey } from './packs.ts'

type Sql = Subject['sql']

/** The database as it is after these packs were built with it. */
export async function withPacks(sql: Sql, key: TestKey, packs: readonly Pack[]): Promise<void> {
  const introduction = await introduce(
    { fingerprint: key.fingerprint, public_pem: key.publicKeyPem, not_before: key.notBefore, not_after: key.notAfter },
    key,
  )
  await sql(
    `insert into tms.signing_keys (fingerprint, public_pem, not_before, not_after, introduction, added_at)
       values ($1, $2, $3::timestamptz, $4::timestamptz, $5, now())`,
    [key.fingerprint, key.publicKeyPem, key.notBefore, key.notAfter, introduction],
  )
  await insertPacks(sql, packs)
}

export async function insertPacks(sql: Sql, made: readonly Pack[]): Promise<void> {
  for (const { day, files, manifest } of made) {
    const texts = Object.fromEntries(
      [...files]
        .filter(([name]) => name !== 'SHA256SUMS.sig')
        .map(([name, bytes]) => [name, Buffer.from(bytes).toString()]),
    )
    await sql(
      `insert into tms.evidence_packs (day, revision, final, as_of, from_seq, tree_size, verdict, manifest_sha256, sums_sha256, files, signature)
         values ($1::date, 1, true, $2::timestamptz, $3::bigint, $4::bigint, 'green', $5, $6, $7::jsonb, $8)`,
      [
        day,
        manifest.as_of,
        String(manifest.ledger.from_seq),
        String(manifest.ledger.tree_size),
        sha256Hex(files.get('manifest.json') ?? ''),
        sha256Hex(files.get('SHA256SUMS') ?? ''),
        JSON.stringify(texts),
        toBase64(files.get('SHA256SUMS.sig') ?? new Uint8Array()),
      ],
    )
  }
}
