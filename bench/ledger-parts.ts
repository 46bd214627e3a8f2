import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { readSqlFiles } from '../src/db/files.ts'
import { push } from '../src/db/schema.ts'
import { openPostgres } from '../src/drivers/postgres/driver.ts'
import { granted } from '../src/drivers/refusal.ts'
import { writeFileAtomically } from '../src/files.ts'
import { registerFirstKey } from '../src/keys/keys.ts'
import { makePrivateKey, signerOf } from '../src/keys/private.ts'
import { makeLedgerCheckpoint } from '../src/ledger/checkpoint.ts'
import { exportText, planExport } from '../src/ledger/export.ts'
import { verifyExportFile } from '../src/ledger/files.ts'
import { ledgerHead, sealLedger } from '../src/ledger/ledger.ts'
import { proveRow } from '../src/ledger/prove.ts'
import { verifyLedger } from '../src/ledger/verify.ts'
import { query, startPostgres } from '../test/servers/postgres.ts'

/** What `bench/ledger.js` runs. */
export async function measure(root: string, rows: number, say: (line: string) => void): Promise<void> {
  const server = await startPostgres({
    own: true,
    durable: true,
    settings: { shared_buffers: '1GB', max_wal_size: '4GB' },
  })
  const folder = await mkdtemp(join(tmpdir(), 'tms-bench-ledger-'))
  try {
    const database = await server.createDatabase()
    const driver = await openPostgres({
      driver: 'postgres',
      url: database.url,
      connectTimeoutMs: 10_000,
      callTimeoutMs: 120_000,
    })
    await push(driver, await readSqlFiles(`${root}/sql`))
    await query(database.url, `select tms._bootstrap('postgres', session_user::text, 'bench@example.com')`)
    const signer = signerOf(makePrivateKey())
    if (!signer) throw new Error('a new key signs')
    granted(
      await driver.call('environment_init', {
        request_id: randomUUID(),
        environment: 'production',
        override_token_sha256: 'ab'.repeat(32),
        signing_key_fingerprint: signer.fingerprint,
      }),
    )
    await registerFirstKey(driver, signer)
    say(`${rows} rows, load ${loadavg()[0]?.toFixed(1) ?? ''}`)
    for (let made = 0; made < rows; made += 100_000) {
      await query(
        database.superuserUrl,
        `insert into tms.ledger_inbox (principal_id, who, credential, role, fn, action, outcome, subject, why, body, body_sha256)
         select gen_random_uuid(), 'ann' || g % 7 || '@acme.example', 'postgres:' || gen_random_uuid(), 'super_admin', 'flags_set', 'flag.set', 'done',
                'ops.flag' || g % 50, 'ticket ' || g, b, encode(sha256(convert_to(b, 'UTF8')), 'hex')
           from generate_series(${made + 1}, ${Math.min(made + 100_000, rows)}) g,
                lateral (select '{"key": "ops.flag' || g % 50 || '", "after": {"value": true, "rollout": 10000}, "before": null, "n": ' || g || '}' as b) x`,
      )
    }
    await query(database.superuserUrl, 'vacuum analyze tms.ledger_inbox')

    const timed = async (what: string, n: number, work: () => Promise<void>) => {
      const before = { database: await busy(database.superuserUrl), own: process.cpuUsage(), at: performance.now() }
      await work()
      const seconds = (performance.now() - before.at) / 1000
      const own = process.cpuUsage(before.own)
      const used = (await busy(database.superuserUrl)) - before.database
      const rate = (time: number) => (time > 0 ? Math.round(n / time).toLocaleString('en') : '–')
      say(
        `${what.padEnd(34)} ${seconds.toFixed(2)} s  ${rate(seconds)} rows/s   processor: database ${used.toFixed(2)} s, here ${((own.user + own.system) / 1e6).toFixed(2)} s`,
      )
    }

    await timed('seal', rows, async () => {
      await sealLedger(driver)
    })
    await query(database.superuserUrl, 'vacuum analyze')
    await timed('verify in the database', rows, async () => {
      const { verdict, findings } = await verifyLedger(driver, {})
      if (verdict === 'broken') throw new Error(JSON.stringify(findings))
    })
    await timed('checkpoint', 1, async () => {
      await makeLedgerCheckpoint(driver, signer)
    })
    await timed('one proof of inclusion', 1, async () => {
      await proveRow(driver, String(Math.floor(rows / 3)))
    })
    await timed('root of an old size', 1, async () => {
      await ledgerHead(driver, rows - 7)
    })
    const out = join(folder, 'ledger.jsonl')
    await timed('export', rows, async () => {
      const input = { redacted: false }
      await writeFileAtomically(out, exportText(driver, await planExport(driver, input), input))
    })
    await timed('verify the export', rows, async () => {
      const { verdict, findings } = await verifyExportFile(out, { key: signer })
      if (verdict !== 'verified') throw new Error(JSON.stringify(findings))
    })
    say(`memory of this process: ${Math.round(process.resourceUsage().maxRSS / 1024)} MB at most`)
    await driver.close()
  } finally {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

/** Seconds of processor that the server's sessions have used so far; 0 where the system doesn't tell. */
async function busy(url: string): Promise<number> {
  const rows = await query(
    url,
    `select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()`,
  )
  return rows.reduce((sum, row) => {
    try {
      const fields = readFileSync(`/proc/${String(row['pid'])}/stat`, 'utf8').split(' ')
      return sum + (Number(fields[13]) + Number(fields[14])) / 100
    } catch {
      return sum
    }
  }, 0)
}
