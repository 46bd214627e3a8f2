import { readFileSync } from 'node:fs'
import { execSync, spawn } from 'node:child_process'
import pg from 'pg'
import { withParts } from '../parts.js'
const variants = process.argv.slice(2)
await withParts('test/servers/postgres.ts', async ({ startPostgres }) => withParts('bench/queue/tms-parts.ts', async (parts) => {
  const postgres = await startPostgres({ own: true, durable: true, settings: { fsync: 'on', synchronous_commit: 'on', shared_buffers: '1GB' } })
  try {
    const seen = {}
    for (let round = 0; round < 4; round++) for (const v of variants) {
      const database = await postgres.createDatabase()
      const { url, superuserUrl } = database
      await parts.prepare(process.cwd(), { url, superuserUrl }, 'select 1')
      if (v !== '-') { const c = new pg.Client({ connectionString: superuserUrl }); await c.connect(); await c.query(readFileSync(v, 'utf8')); await c.end() }
      const c = new pg.Client({ connectionString: superuserUrl }); await c.connect(); await c.query('checkpoint')
      const s = await parts.sender(url)
      let perf
      const began = performance.now()
      for (let i = 0; i < 50; i++) {
        await s.bulkEnqueue(Array.from({ length: 1000 }, (_, k) => ({ n: i * 1000 + k })))
        if (i === 5 && process.env.PERF && round === 1) {
          const { rows } = await c.query(`select pid from pg_stat_activity where query like '%tasks_enqueue%' and pid <> pg_backend_pid()`)
          perf = spawn('perf', ['record', '-F', '4000', '-e', 'cpu-clock', '-g', '-p', String(rows[0].pid), '-o', process.env.PERF], { stdio: 'ignore' })
        }
      }
      const ms = performance.now() - began
      perf?.kill('SIGINT'); if (perf) await new Promise((r) => perf.on('exit', r))
      ;(seen[v] ??= []).push(Math.round(50000 / ms * 1000))
      await c.end(); await database.drop().catch(()=>{})
    }
    for (const [v, l] of Object.entries(seen)) console.log(v, l.join(' '))
  } finally { await postgres.stop() }
  process.exit(0)
}))
