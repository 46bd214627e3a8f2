import { randomUUID } from 'node:crypto'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { registerFirstKey } from '../../src/keys/keys.ts'
import { makePrivateKey, signerOf } from '../../src/keys/private.ts'
import type { Signer } from '../../src/keys/signer.ts'
import { sqlBeside, type Subject } from '../contract/subjects.ts'

/** A database whose ledger can be filled, and somebody who signs. */
export type Book = {
  readonly subject: Subject
  readonly operator: Driver
  readonly signer: Signer
  /** As superuser: to look behind the contract, and to attack. */
  sql(text: string): Promise<readonly Record<string, unknown>[]>
  /** Records so many actions as functions would, in one transaction. */
  record(n: number): Promise<void>
  stop(): Promise<void>
}

export async function openBook(subject: Subject, signer: Signer = newSigner()): Promise<Book> {
  const operator = await subject.operator()
  granted(
    await operator.call('environment_init', {
      request_id: randomUUID(),
      environment: 'development',
      override_token_sha256: 'ab'.repeat(32),
      signing_key_fingerprint: signer.fingerprint,
    }),
  )
  await registerFirstKey(operator, signer)
  const sql: Book['sql'] = sqlBeside(subject, operator)
  return {
    subject,
    operator,
    signer,
    sql,
    record: async (n) => {
      await sql(rows(n))
    },
    async stop() {
      await operator.close()
      await subject.stop()
    },
  }
}

export function newSigner(): Signer {
  const signer = signerOf(makePrivateKey())
  if (!signer) throw new Error('a new key signs')
  return signer
}

/** Rows with everything that is awkward in a line: newlines, other alphabets, empty fields. */
export const rows = (n: number) => `
  insert into tms.ledger_inbox (principal_id, who, credential, role, fn, action, outcome, subject, why, trace_id, body, body_sha256)
  select gen_random_uuid(), 'ann' || g || E'\\n@acme.example', 'postgres:x', 'super_admin', 'flags_set', 'flag.set', 'done', E'ops.flag\\n' || g, 'für Łódź ' || g,
         case when g % 2 = 0 then repeat('ab', 16) end, b, encode(sha256(convert_to(b, 'UTF8')), 'hex')
    from generate_series(1, ${n}) g, lateral (select '{"n": ' || g || ', "why": "日本"}' as b) x`
