import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { invariantsToRemove, loadInvariants, loadScript, type Loaded } from '../../src/invariants/load.ts'
import { readInvariants, type Invariants } from '../../src/invariants/read.ts'
import { sqlBeside, type Subject } from '../contract/subjects.ts'
import { root } from '../ui/process.ts'

/** A database with the shop of examples/retail in it and its invariants loaded. */

export const shopPolicies = join(root, 'examples/retail/policies')

export type Shop = {
  readonly subject: Subject
  readonly operator: Driver
  sql(text: string, parameters?: unknown[]): Promise<Record<string, unknown>[]>
  /** As an administrator does it on this driver: by the command's own way, or with the script in an SQL console. */
  load(read: Invariants): Promise<Loaded>
  /** Applies the schema of examples/retail, as the first time. */
  push(): Promise<void>
  empty(): Promise<void>
  stop(): Promise<void>
}

/** Items arrive two hours ago, because what has just arrived is no orphan yet; or `now`, as the schema has it. */
export async function openShop(subject: Subject, items: 'old' | 'now' = 'old'): Promise<Shop> {
  const operator = await subject.operator()
  granted(
    await operator.call('environment_init', {
      request_id: randomUUID(),
      environment: 'development',
      override_token_sha256: 'ab'.repeat(32),
      signing_key_fingerprint: null,
    }),
  )
  const load: Shop['load'] = async (read) => {
    if (operator.administration === undefined) await subject.sql(loadScript(read))
    return loadInvariants(operator, read, await invariantsToRemove(operator, read))
  }
  const sql: Shop['sql'] = sqlBeside(subject, operator)
  const old = `alter table retail.sale_items alter column arrived_at set default now() - interval '2 hours';`
  const schema = (await readFile(join(root, 'examples/retail/schema.sql'), 'utf8')) + (items === 'old' ? old : '')
  const push = async (): Promise<void> => {
    // As whoever pushed: the owner of the tables is who may grant on them.
    if (operator.administration) await operator.administration.transaction((run) => run(schema))
    else await sql(schema)
  }
  await push()
  return {
    subject,
    operator,
    sql,
    push,
    load,
    async empty() {
      await sql(
        'truncate retail.customers, retail.stock, retail.stock_movements, retail.sales, retail.sale_items, retail.invoices, retail.payments',
      )
    },
    async stop() {
      await operator.close()
      await subject.stop()
    },
  }
}

export const readShop = (): Promise<Invariants> => readInvariants([shopPolicies])

/** Policies that a test writes, read as any others. */
export async function readPolicies(files: Readonly<Record<string, string>>): Promise<Invariants> {
  const folder = await mkdtemp(join(tmpdir(), 'tms-invariants-'))
  try {
    await mkdir(join(folder, 'invariants'))
    for (const [name, text] of Object.entries(files)) {
      await writeFile(join(folder, 'invariants', name.includes('.') ? name : `${name}.yaml`), text)
    }
    return await readInvariants([folder])
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** One policy, of which only the query matters; its limit is for what is to meet it. */
export function policyText(
  invariant: string,
  query: string,
  more = 'grants: { read: [retail.stock] }',
  timeout = '30s',
): string {
  const block = query.split('\n').map((line) => `  ${line}`)
  return [
    `invariant: ${invariant}`,
    'title: tried',
    'owner: test',
    'priority: P2',
    `timeout: ${timeout}`,
    'query: |',
    ...block,
    more,
    '',
  ].join('\n')
}
