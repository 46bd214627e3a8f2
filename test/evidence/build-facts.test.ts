import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { buildPack } from '../../src/evidence/build.ts'
import { packSource } from '../../src/evidence/verify-source.ts'
import { verifyEvidence } from '../../src/evidence/verify.ts'
import { generateKey, rotateKey, usableSigner } from '../../src/keys/keys.ts'
import { postgresSubject, subjects } from '../contract/subjects.ts'
import { bytesIn, jsonIn, readyDesk, type Desk } from './desk.ts'

/** What a pack says, against what is known of the day in other ways. */

type Run = { readonly ms: number; readonly outcome: string; readonly second: number }

/** The day before today, as the clock of machines has it. */
const day = new Date(Date.now() - 86_400_000).toISOString().slice(0, 10)

function someRuns(n: number, seed: number): Run[] {
  let state = seed
  const random = () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648
  }
  return Array.from({ length: n }, () => ({
    ms: Math.max(1, Math.round(40 * Math.exp(random() * 6))),
    outcome: random() < 0.03 ? 'failed' : random() < 0.05 ? 'retried' : 'completed',
    second: Math.floor(random() * 86_400),
  }))
}

async function insertRuns(desk: Desk, runs: readonly Run[]): Promise<void> {
  await desk.sql(
    `insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, started_at, finished_at, ms, epoch, trace_id)
     select 100000 + r.n, 1, 1, (select c.id from tms.companies c where c.key = 'acme'), 'demo', 'demo.one', r.outcome, null,
            '${day} 00:00+00'::timestamptz + r.second * interval '1 second', r.ms, 0, md5(r.n::text || r.ms::text)
       from jsonb_to_recordset($1::text::jsonb) r (n integer, ms integer, outcome text, second integer)`,
    [JSON.stringify(runs.map((run, n) => ({ n, ...run })))],
  )
}

/** The database was there for days. */
async function age(desk: Desk): Promise<void> {
  await desk.sql(`update tms.environment set initialised_at = now() - interval '9 days'`)
}

async function probeAll(desk: Desk, of: string): Promise<void> {
  await desk.sql(
    `insert into tms.probes (minute, kind, up, down, ms, why)
       select m, 'database', 2, 0, 3, '' from generate_series('${of} 00:00+00'::timestamptz, '${of} 23:59+00', '1 minute') m`,
  )
}

describe.each(Object.entries(subjects))('the numbers of a pack on %s', (_, start) => {
  let desk: Desk
  beforeAll(async () => {
    desk = await readyDesk(await start())
    await age(desk)
  })
  afterAll(async () => desk.stop())

  test('success and p95 agree with the raw runs, folded or not, for the day and for each quarter of an hour', async () => {
    const folded = someRuns(1500, 7)
    const fresh = someRuns(700, 11)
    await insertRuns(desk, folded)
    // What a worker's upkeep does.
    granted(await desk.fleet.worker.call('upkeep', {}))
    await insertRuns(desk, fresh)
    const { runs } = granted(await desk.driver.call('evidence_facts', { day }))

    const all = [...folded, ...fresh]
    const ended = all.filter(({ outcome }) => outcome !== 'retried')
    const completed = all.filter(({ outcome }) => outcome === 'completed').length
    expect(runs).toMatchObject({
      completed: String(completed),
      failed: String(all.filter(({ outcome }) => outcome === 'failed').length),
      retried: String(all.filter(({ outcome }) => outcome === 'retried').length),
      samples: String(ended.length),
    })
    expect(Number(runs.success_percent)).toBeCloseTo((completed / ended.length) * 100, 3)
    const error = 1 + Number(runs.error_percent) / 100
    const within = (said: string | null, times: readonly number[], share: number) => {
      const sorted = [...times].sort((a, b) => a - b)
      const exact = sorted[Math.ceil(sorted.length * share) - 1] ?? NaN
      expect(Number(said)).toBeGreaterThanOrEqual(exact * 0.999)
      expect(Number(said)).toBeLessThanOrEqual(exact * error * 1.01)
    }
    within(
      runs.p50_ms,
      all.map(({ ms }) => ms),
      0.5,
    )
    within(
      runs.p95_ms,
      all.map(({ ms }) => ms),
      0.95,
    )
    for (const [n, quarter] of runs.quarters.entries()) {
      const begin = (Date.parse(quarter.at) - Date.parse(`${day}T00:00:00Z`)) / 1000
      const here = all.filter(({ second }) => second >= begin && second < begin + 900)
      within(
        quarter.p95_ms,
        here.map(({ ms }) => ms),
        0.95,
      )
      expect([n, quarter.completed]).toEqual([n, String(here.filter(({ outcome }) => outcome === 'completed').length)])
    }
  })

  test('the pack says the same numbers as the posture, and three traces to look at', async () => {
    const built = await desk.build({ day })
    const slo = jsonIn(built.folder, 'slo_snapshot.json') as {
      runs: { completed: string; p95_ms: string }
      checks: { name: string; observed: string | null; samples: number }[]
      quarters: unknown[]
    }
    const check = (name: string) => slo.checks.find((other) => other.name === name)
    expect(check('p95_latency_ms')?.observed).toBe(slo.runs.p95_ms)
    expect(check('task_success_percent')?.samples).toBeGreaterThan(1000)
    expect(slo.quarters).toHaveLength(96)
    const traces = bytesIn(built.folder)['trace-sample.txt'] ?? ''
    expect(traces.match(/https:\/\/traces\.example\.com\/trace\/[0-9a-f]{32}/g)).toHaveLength(3)
    expect(traces).toMatch(/failed/)
    // Three in a hundred failed, and ninety-eight must succeed.
    expect(built.verdict).toBe('red')
    expect((await desk.verify(built.folder)).broken).toEqual([])
  })
})

describe('what an empty day says', () => {
  const grounds = async (desk: Desk) => {
    const built = await desk.build({ day, root: desk.folder() })
    const { ground } = jsonIn(built.folder, 'slo_snapshot.json') as { ground: { state: string } }
    return [built.verdict, ground.state]
  }
  const ready = async () => readyDesk(await postgresSubject())

  test('an hour-old install, an idle Sunday and a day that nobody watched are three different answers', async () => {
    const [young, idle, unwatched] = await Promise.all([ready(), ready(), ready()])
    try {
      await young.sql(`update tms.environment set initialised_at = '${day} 23:00+00'`)
      await age(idle)
      await probeAll(idle, day)
      await age(unwatched)
      expect(await grounds(young)).toEqual(['unknown', 'young'])
      expect(await grounds(idle)).toEqual(['unknown', 'idle'])
      expect(await grounds(unwatched)).toEqual(['unknown', 'unwatched'])
    } finally {
      await Promise.all([young.stop(), idle.stop(), unwatched.stop()])
    }
  })
})

describe('the ledger of a day', () => {
  let desk: Desk
  beforeAll(async () => {
    desk = await readyDesk(await postgresSubject())
    await age(desk)
  })
  afterAll(async () => desk.stop())

  const before = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 10)
  const range = (of: string) =>
    (jsonIn(join(desk.root, of), 'manifest.json') as { ledger: { from_seq: number; tree_size: number } }).ledger

  test('days touch: each row is of one day, in whatever order their packs are built', async () => {
    // Rows of three days, and one that was written on the second day and came late.
    for (const [days, n] of [
      [3, 4],
      [2, 5],
      [1, 6],
      [2, 1],
    ] as const) {
      await desk.sql(
        `insert into tms.ledger_inbox (at, principal_id, who, credential, role, fn, action, outcome, subject, why, body, body_sha256)
           select '${before(days)} 12:00+00'::timestamptz + g * interval '1 second', null, 'login x', 'unknown:x', '', 'test', 'flag.test', 'done', 'x', '', 'null', tms._sha256('null') from generate_series(1, ${n}) g`,
      )
      granted(await desk.driver.call('ledger_seal', {}))
    }
    // The rows of making this database come first, and are of today: the days asked about begin after them.
    for (const days of [3, 1, 2]) await desk.build({ day: before(days) })
    const [third, second, first] = [range(before(3)), range(before(2)), range(before(1))]
    expect(third.tree_size).toBe(second.from_seq)
    expect(second.tree_size).toBe(first.from_seq)
  })

  test('the chain of packs verifies, and the late one says that it was cut later', async () => {
    for (const days of [3, 2, 1]) expect((await desk.verify(join(desk.root, before(days)))).broken).toEqual([])
    const manifest = jsonIn(join(desk.root, before(2)), 'manifest.json') as { previous: { day: string } }
    expect(manifest.previous.day).toBe(before(3))
  })
})

describe('who may build', () => {
  let desk: Desk
  beforeAll(async () => {
    desk = await readyDesk(await postgresSubject())
  })
  afterAll(async () => desk.stop())

  test('the autopilot may, with what its role grants and nothing more', async () => {
    const { subject } = desk.fleet
    const driver = await subject.as(await subject.account('autopilot'))
    try {
      const built = await desk.build({ driver, root: desk.folder() })
      expect((await desk.verify(built.folder)).broken).toEqual([])
    } finally {
      await driver.close()
    }
  })

  test('counts what was done and refused, lists the gravest first, and names people by a word only', async () => {
    const built = await desk.build()
    const audit = jsonIn(built.folder, 'audit_digest.json') as {
      counts: { action: string }[]
      listed: { seq: string; who: string; action: string; row_hash: string; subject: string | null }[]
    }
    expect(audit.counts.map(({ action }) => action)).toEqual(
      expect.arrayContaining(['flag.set', 'key.begin', 'tenant.add']),
    )
    expect(audit.listed.every(({ who }) => /^(person [0-9a-f]{12}|unknown login|[a-z0-9]+)$/.test(who))).toBe(true)
    expect(JSON.stringify(audit)).not.toContain('operator')
    for (const row of audit.listed.slice(0, 5)) {
      const [found] = await desk.sql(`select row_hash from tms.ledger where seq = $1`, [row.seq])
      expect(found).toEqual({ row_hash: row.row_hash })
    }
  })

  test('a worker may not, and leaves nothing', async () => {
    const root = desk.folder()
    await expect(desk.build({ driver: desk.fleet.worker, root })).rejects.toMatchObject({ exit: 4 })
    expect(bytesIn(root)).toEqual({})
  })

  test('an expired key signs nothing, and neither does a revoked one', async () => {
    const root = desk.folder()
    await desk.clock('500 days')
    await expect(desk.build({ root })).rejects.toMatchObject({ exit: 2, next: ['tms evidence keys rotate'] })
    await desk.clock('0')
    granted(
      await desk.driver.call('keys_revoke', {
        request_id: randomUUID(),
        fingerprint: desk.signer.fingerprint,
        why: 'the test says so',
      }),
    )
    await expect(desk.build({ root })).rejects.toMatchObject({ exit: 2 })
    // Whoever holds the key still, and asks nobody: the database takes no cut for it.
    await expect(buildPack(desk.input({ root, signer: async () => desk.signer }))).rejects.toMatchObject({ exit: 2 })
    expect(bytesIn(root)).toEqual({})
  })

  test('a pack says of each key how it stands, and when it ended', async () => {
    const sources = { keysFolder: desk.folder(), environment: {} }
    const older = await generateKey(desk.driver, sources, { days: 400, register: false })
    await rotateKey(desk.driver, sources, { days: 400, keep: false, to: null })
    const signer = await usableSigner(desk.driver, sources, () => new Date())
    const { folder } = await desk.build({ root: desk.folder(), signer: async () => signer })
    const keys = jsonIn(folder, 'keys.json')['keys'] as Record<string, unknown>[]
    const stands = (fingerprint: string) => keys.find((key) => key['fingerprint'] === fingerprint)
    expect(stands(signer.fingerprint)).toMatchObject({ state: 'valid', ended_at: null, revoked_at: null })
    expect(stands(older.fingerprint)).toMatchObject({
      state: 'retired',
      ended_at: expect.stringMatching(/Z$/),
      revoked_at: null,
    })
    const revoked = stands(desk.signer.fingerprint)
    expect(revoked).toMatchObject({ state: 'revoked', ended_at: revoked?.['revoked_at'] })
    expect((await verifyEvidence(await packSource(folder), { keys: [signer] })).broken).toEqual([])
  })
})
