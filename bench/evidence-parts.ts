import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { granted } from '../src/drivers/refusal.ts'
import { registerFirstKey } from '../src/keys/keys.ts'
import { makePrivateKey, signerOf } from '../src/keys/private.ts'
import { startPostgres } from '../test/servers/postgres.ts'
import { open, prepare, workerUrl } from './queue/tms-parts.ts'

/** What `evidence.js` runs: the built command, on a day that is full, before and after a history comes before it. */
export async function evidence(
  root: string,
  runs: number,
  rows: number,
  history: number,
  say: (line: string) => void,
): Promise<void> {
  const server = await startPostgres()
  const home = mkdtempSync(join(tmpdir(), 'tms-bench-'))
  try {
    say(`day: ${runs} runs, ${rows} ledger rows, ${Math.round(runs / 50)} deliveries`)
    const alone = await measureDay(root, server, home, { runs, rows, history: 0 }, say)
    const small = { runs: Math.ceil(runs / 20), rows: Math.ceil(rows / 20) }
    say(`\na twentieth of it, with nothing before, and with ${history} days like it before:`)
    const young = await measureDay(root, server, home, { ...small, history: 0 }, () => undefined)
    const old = await measureDay(root, server, home, { ...small, history }, () => undefined)
    const line = (what: string, { ms, megabytes }: Measured) =>
      say(`${what}: ${ms.toFixed(0)} ms, ${megabytes.toFixed(0)} MB`)
    line('no history', young)
    line(`${history} days of history`, old)
    say(
      `\nfull day: ${(alone.ms / 1000).toFixed(2)} s of at most 5 s, ${alone.megabytes.toFixed(0)} MB of at most 300 MB`,
    )
  } finally {
    rmSync(home, { recursive: true, force: true })
    await server.stop()
  }
}

type Measured = { readonly ms: number; readonly megabytes: number }
type Size = { readonly runs: number; readonly rows: number; readonly history: number }

async function measureDay(
  root: string,
  server: Awaited<ReturnType<typeof startPostgres>>,
  home: string,
  size: Size,
  say: (line: string) => void,
): Promise<Measured> {
  const database = await server.createDatabase()
  await prepare(root, database)
  const sql = new pg.Client({ connectionString: database.superuserUrl })
  await sql.connect()
  sql.on('error', () => undefined)
  const operator = await open(database.url)
  const worker = await open(workerUrl(database.url))
  const pem = makePrivateKey()
  const signer = signerOf(pem)
  if (!signer) throw new Error('no key')
  await registerFirstKey(operator, signer)
  await sql.query(`update tms.environment set initialised_at = now() - interval '400 days'`)

  const day = (before: number) => new Date(Date.now() - before * 86_400_000).toISOString().slice(0, 10)
  for (let before = size.history + 1; before >= 1; before -= 1) await fill(sql, day(before), size)
  const timed = async (what: string, work: () => Promise<unknown>) => {
    const began = performance.now()
    await work()
    say(`${what}: ${((performance.now() - began) / 1000).toFixed(1)} s`)
  }
  // What workers and the sealer do all day.
  await timed('rolled up', async () => {
    while (granted(await worker.call('upkeep', {})).more);
  })
  await timed('sealed', async () => {
    while (granted(await operator.call('ledger_seal', { limit: 100_000 })).more);
  })
  await sql.query('vacuum analyze')

  const built = async (artifacts: string) => build(root, database.url, pem, artifacts, day(1), home)
  const first = await built(join(home, `${database.url.split('/').at(-1) ?? ''}-first`))
  say(`built: ${first.ms.toFixed(0)} ms, ${first.megabytes.toFixed(0)} MB, exit ${first.code}`)
  const again = await built(join(home, `${database.url.split('/').at(-1) ?? ''}-again`))
  say(`rendered again: ${again.ms.toFixed(0)} ms`)
  await Promise.all([operator.close(), worker.close(), sql.end()])
  return first
}

/** A day's work of twenty tenants and ten functions, in transactions as workers make them. */
async function fill(sql: pg.Client, day: string, { runs, rows }: Size): Promise<void> {
  await sql.query(
    `insert into tms.companies (key, name) select 'c' || g, 'c' from generate_series(1, 20) g on conflict do nothing`,
  )
  // As its owner: upkeep may not touch what belongs to anybody else.
  await sql.query(`set role tms_owner; select tms._make_partitions('${day} 00:00+00'); reset role`)
  const piece = 200_000
  for (let from = 0; from < runs; from += piece) {
    await sql.query(
      `with c as materialized (select array_agg(id order by key) as ids from tms.companies)
       insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, finished_at, ms, epoch, trace_id, tokens, cost)
       select g, 1, 1, c.ids[1 + g % 20], 'bench', 'bench.f' || g % 10, case when g % 97 = 0 then 'failed' else 'completed' end,
              '${day} 00:00+00'::timestamptz + (g::float8 / ${runs}) * interval '86390 seconds', 20 + (g::bigint * 7919) % 3000, 0, md5(g::text), 10, 0.0001
         from generate_series(${from}, ${Math.min(from + piece, runs) - 1}) g, c`,
    )
  }
  await sql.query(
    `insert into tms.outbox_deliveries (event_id, target, company_id, status, created_at, delivered_at)
       select g, 'x', (select id from tms.companies order by key limit 1), 'delivered', t.at, t.at + (g % 4000) * interval '1 millisecond'
         from generate_series(1, ${Math.round(runs / 50)}) g cross join lateral (select '${day} 00:00+00'::timestamptz + (g::float8 / ${Math.round(runs / 50)}) * interval '86390 seconds' as at) t`,
  )
  await sql.query(
    `insert into tms.ledger_inbox (at, principal_id, who, credential, role, fn, action, outcome, subject, why, body, body_sha256)
       select '${day} 00:00+00'::timestamptz + (g::float8 / ${rows}) * interval '86390 seconds', p.id, 'x', 'x:1', 'super_admin', 'f',
              (array['flag.set', 'task.enqueue', 'dlq.replay', 'user.grant', 'agents.paused'])[1 + g % 5], case when g % 50 = 0 then 'refused' else 'done' end, 'x', '', 'null', tms._sha256('null')
         from generate_series(1, ${rows}) g, (select id from tms.principals limit 1) p`,
  )
  await sql.query(
    `insert into tms.probes (minute, kind, up, down, ms, why) select m, 'database', 2, 0, 3, '' from generate_series('${day} 00:00+00'::timestamptz, '${day} 23:59+00', '1 minute') m`,
  )
}

async function build(
  root: string,
  url: string,
  pem: string,
  artifacts: string,
  day: string,
  home: string,
): Promise<Measured & { readonly code: number | null }> {
  const began = performance.now()
  const child = spawn(
    process.execPath,
    [join(root, 'bin/run.js'), 'evidence', 'build', '--date', day, '--timeout', '120'],
    {
      cwd: home,
      stdio: 'ignore',
      env: { PATH: process.env['PATH'], HOME: home, DATABASE_URL: url, TMS_SIGNING_KEY: pem, TMS_ARTIFACTS: artifacts },
    },
  )
  // The most it ever had, as the system counts: looked at while it is there.
  let megabytes = 0
  const watch = setInterval(() => {
    try {
      const [, kilobytes = '0'] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid ?? 0}/status`, 'utf8')) ?? []
      megabytes = Math.max(megabytes, Number(kilobytes) / 1024)
    } catch {
      // Ended, or no /proc here.
    }
  }, 5)
  const [code] = (await once(child, 'exit')) as [number | null]
  clearInterval(watch)
  // A build that wrote nothing is fast.
  if (!existsSync(join(artifacts, 'green-posture', day, 'SHA256SUMS.sig')))
    throw new Error(`no pack was written: exit ${code}`)
  return { ms: performance.now() - began, megabytes, code }
}
