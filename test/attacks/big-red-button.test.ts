import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Certificate } from '../../src/incident/certificate.ts'
import { until } from '../servers/process.ts'
import { bin, build } from '../ui/built.ts'
import { envelopeOf, run } from '../ui/process.ts'
import { policy } from '../fleet/fleet.ts'
import { certificateIn, resumeNow } from '../incident/fixture.ts'
import { ask, startArena, without, type Arena, type Edit } from './fleet/arena.ts'
import { startCrew, type Crew } from './fleet/crew.ts'
import { attacks, everything, startStorm } from './fleet/storm.ts'

/** The command itself, under fire: what it says must be true, and the certificate must say it to strangers. */
const full = process.env['TMS_TEST_FULL'] === '1'
const clients = full ? 150 : 25

type Data = {
  readonly incidentId: string
  readonly fenced: boolean
  readonly already: boolean
  readonly since: string
  readonly by: string
  readonly ms: number
  readonly certificate: Certificate & { readonly signature: { readonly fingerprint: string } | null }
  readonly files: readonly string[]
}

describe('the button under load', () => {
  let arena: Arena
  let crew: Crew
  const folder = mkdtempSync(join(tmpdir(), 'tms-press-'))
  const keys = join(folder, 'keys')
  const key = join(folder, 'known.pem')

  const press = async (more: Record<string, string> = {}) => {
    const ended = await run([bin, 'incident', 'big-red-button', '--reason', 'rates are wrong', '--json'], {
      cwd: folder,
      env: { DATABASE_URL: arena.database.url, TMS_KEYS: keys, TMS_STOP_FOLDER: join(folder, 'stop'), ...more },
    })
    const { data, warnings } = envelopeOf(ended.stdout)
    // True by the command's own contract, which the tests below look into.
    return { code: ended.code, data: data as unknown as Data, warnings, stderr: ended.stderr }
  }

  beforeAll(async () => {
    build()
    mkdirSync(keys, { mode: 0o700 })
    const { privateKey, publicKey } = generateKeyPairSync('ed25519')
    writeFileSync(join(keys, 'signing.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
    writeFileSync(key, publicKey.export({ type: 'spki', format: 'pem' }))
    arena = await startArena({
      settings: { synchronous_commit: 'off' },
      policies: [
        policy('demo', {
          functions: ['demo.one', 'demo.two', 'demo.careful', 'demo.plain', 'demo.quiet'],
          apply: ['app.effect'],
        }),
      ],
    })
    await arena.sql(`insert into app.loads (who) select 'seed' from generate_series(1, 200)`)
    await arena.fleet.set('budget.agents.maxConcurrent', 100)
    crew = await startCrew({
      count: 4,
      env: { CREW_URL: arena.workerUrl, CREW_SLOTS: '3', CREW_WORK_MS: '20', CREW_TIMEOUT_MS: '2000' },
    })
  })
  afterAll(async () => {
    await crew.stop()
    await arena.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const signedOn = () =>
    until('four workers are there', async () => {
      const [row] = await arena.sql(
        `select count(*)::int as n from tms.workers where name like 'crew/%' and stopped_at is null and lease_until > clock_timestamp()`,
      )
      return row?.['n'] === 4
    })

  /** A worker that holds its transaction open: what no amount of waiting ends. */
  async function stuckWorker() {
    const stuck = await arena.connect(`${arena.workerUrl}?application_name=stuck-worker`)
    await ask(stuck, 'worker_hello', {
      request_id: randomUUID(),
      name: 'stuck',
      host: 'stuck',
      pid: 1,
      agents: ['demo'],
      slots: 1,
    })
    await stuck.query('begin')
    await stuck.query(`insert into app.loads (who) values ('stuck')`)
    return stuck
  }

  const enqueue = () =>
    arena.fleet.enqueue(
      'acme',
      Array.from({ length: 400 }, (_, n) => ({ function: n % 2 === 0 ? 'demo.plain' : 'demo.one', payload: { n } })),
    )

  async function pressedUnderFire() {
    await signedOn()
    await enqueue()
    const storm = startStorm(arena, attacks(), clients)
    const operator = await arena.connect(arena.database.url)
    let frozen: ReturnType<Crew['freeze']> | undefined
    try {
      await stuckWorker()
      // Last, and thawed first: beyond its lease it would be somebody new.
      frozen = crew.freeze()
      await pause(200)
      const pressed = await press()
      const [row] = (await operator.query<{ t: string }>('select clock_timestamp()::text as t')).rows
      const look = async () =>
        (await operator.query<{ state: unknown; late: number }>(everything(`'${row?.t ?? ''}'::timestamptz`))).rows[0]
      const first = await look()
      await pause(500)
      const second = await look()
      const leaked =
        (first?.late ?? 1) +
        (second?.late ?? 1) +
        (JSON.stringify(first?.state) === JSON.stringify(second?.state) ? 0 : 1)
      return { pressed, leaked, frozen: frozen?.pid }
    } finally {
      frozen?.thaw()
      await storm.stop()
    }
  }

  test(`with ${clients} writers, four workers, one stuck and one frozen: it returns 0 and nothing commits any more`, async () => {
    const { pressed, leaked, frozen } = await pressedUnderFire()
    const { code, data, warnings } = pressed
    expect({ code, warnings, fenced: data.fenced, leaked }).toEqual({
      code: 0,
      // No target is set up here.
      warnings: [expect.stringContaining('Nobody hears of this halt: no target takes incidents')],
      fenced: true,
      leaked: 0,
    })
    const { certificate } = data
    expect(certificate.silent.map(({ worker }) => worker)).toContain(`crew/${frozen ?? 0}`)
    // Within the window or, on a busy machine, after it: the certificate says which, and leaves nobody out.
    const crewed = [...certificate.acknowledged, ...certificate.silent].map(({ worker }) => worker)
    expect(crewed.filter((worker) => worker.startsWith('crew/'))).toHaveLength(4)
    await until('those that were not frozen have said that they saw it', async () => {
      const [row] = await arena.sql(
        `select count(*)::int as n from tms.workers
            where name like 'crew/%' and name <> 'crew/${frozen ?? 0}' and acknowledged_epoch = ${certificate.epoch}`,
      )
      return row?.['n'] === 3
    })
    expect(certificate.terminated.map(({ application }) => application)).toContain('stuck-worker')
    expect(certificate.survivors).toEqual([])

    // What a stranger does, with nothing of ours: openssl and the key that was known before.
    const at = join(folder, 'artifacts/incidents', data.incidentId)
    const original = join(at, certificateIn(at))
    const verify = (file: string) =>
      execFileSync(
        'openssl',
        ['pkeyutl', '-verify', '-pubin', '-inkey', key, '-rawin', '-in', file, '-sigfile', `${original}.sig`],
        { encoding: 'utf8' },
      )
    expect(verify(original)).toContain('Signature Verified Successfully')
    const text = readFileSync(original, 'utf8')
    const changed = join(folder, 'changed.json')
    writeFileSync(changed, text.replace('"silent":[{', '"silent":[ {'))
    expect(() => verify(changed)).toThrow('Command failed')
    expect(JSON.parse(text)).toMatchObject({ incident: data.incidentId, why: 'rates are wrong', fenced: true })
    const [ledger] = await arena.sql(
      `select body::jsonb ->> 'certificate_sha256' as sha, outcome from tms.ledger_inbox where action = 'incident.certificate' order by id desc limit 1`,
    )
    const [kept] = await arena.sql(
      `select sha256, body from tms.halt_certificates where incident_id = ${data.incidentId}`,
    )
    expect(ledger).toEqual({ sha: kept?.['sha256'], outcome: 'done' })
    expect(kept?.['body']).toBe(text)
  })

  test('a second press is harmless, and says since when, by whom and which incident', async () => {
    const second = await press()
    expect(second).toMatchObject({
      code: 0,
      data: { fenced: true, already: true, by: 'operator@example.com' },
    })
    const both = await Promise.all([press(), press()])
    expect(new Set(both.map(({ data }) => data.incidentId))).toEqual(new Set([second.data.incidentId]))
    expect(new Set(both.map(({ data }) => data.since))).toEqual(new Set([second.data.since]))
    const [open] = await arena.sql(
      `select count(*)::int as n from tms.incidents where type = 'emergency_stop' and status not in ('RESOLVED', 'CLOSED')`,
    )
    expect(open).toEqual({ n: 1 })
    const [told] = await arena.sql(`select count(*)::int as n from tms.outbox_events where topic = 'fleet.halted'`)
    expect(told).toEqual({ n: 1 })
  })

  test('who acknowledges later is told in the timeline, and the certificate stays what it is', async () => {
    const [before] = await arena.sql(`select sha256 from tms.halt_certificates order by halt_id limit 1`)
    await until('the worker that was frozen acknowledges', async () => {
      await arena.fleet.operator.call('incident_cycle', { request_id: randomUUID() })
      const [row] = await arena.sql(
        `select count(*)::int as n from tms.incident_events where kind = 'acknowledged_late'`,
      )
      return Number(row?.['n']) > 0
    })
    expect(await arena.sql(`select sha256 from tms.halt_certificates order by halt_id limit 1`)).toEqual([before])
  })

  test('after the resume the fleet works again, with all its slots', async () => {
    const [row] = await arena.sql(
      `select id::text from tms.incidents where type = 'emergency_stop' order by id desc limit 1`,
    )
    await resumeNow(arena.fleet.operator, String(row?.['id']))
    const [done] = await arena.sql(`select count(*)::int as n from tms.agent_runs`)
    await enqueue()
    await until('tasks are done', async () => {
      const [now] = await arena.sql(`select count(*)::int as n from tms.agent_runs`)
      return Number(now?.['n']) > Number(done?.['n'])
    })
  })

  test('with the check of the fence taken out, the same test sees what commits', async () => {
    const checks = ['_pass', 'fence_guard', 'fence_commit'].map((name): Edit => [
      name,
      /\bbegin\b/,
      'begin return null;',
    ])
    await without(arena, checks, async () => {
      const { pressed, leaked } = await pressedUnderFire()
      expect(leaked).toBeGreaterThan(0)
      await resumeNow(arena.fleet.operator, pressed.data.incidentId)
    })
  })
})
