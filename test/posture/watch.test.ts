import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import { openProber, startProbing, type ProbeReach } from '../../src/posture/probe.ts'
import { screenView } from '../../src/posture/views.ts'
import { watchPosture, type Tick, type Watching } from '../../src/posture/watch.ts'
import { render } from '../../src/ui/render.ts'
import { embeddedSubject } from '../contract/subjects.ts'
import { json, surroundings, tms } from '../fleet-commands/run.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'
import { shipped, shippedText } from './facts.ts'

/** Probing, watching and the commands, on one embedded database. */

let fleet: Fleet
let autopilot: Driver
let folder: string
let restore: () => void

beforeAll(async () => {
  fleet = await readyFleet(await embeddedSubject(), [policy('demo')])
  await fleet.set('obs.otelEnabled', true)
  autopilot = await fleet.subject.as(await fleet.subject.account('autopilot'))
  folder = await mkdtemp(join(tmpdir(), 'tms-posture-'))
  const directory = fleet.operator.target.name.replace('embedded ', '')
  await writeFile(join(folder, 'tms.config.yaml'), `driver: embedded\ndirectory: ${directory}\n`)
  restore = surroundings(folder)
})
afterAll(async () => {
  restore()
  await autopilot.close()
  await fleet.stop()
  await rm(folder, { recursive: true, force: true })
})
afterEach(() => vi.restoreAllMocks())
beforeEach(() =>
  sql(`delete from tms.probes; delete from tms.posture_checks; delete from tms.posture_states; delete from tms.posture_actions; delete from tms.workers;
    delete from tms.outbox_events where topic like 'posture.%'; delete from tms.outbox_keys where topic like 'posture.%'; select 1`),
)

const sql = async (text: string) => (await fleet.operator.administration?.transaction((run) => run(text))) ?? []

/** The same database, and a switch that takes it away. */
function breakable(driver: Driver) {
  let broken = false
  const gone = new TmsError({ code: 'DB_UNREACHABLE', what: 'No connection.', why: 'It was cut.', next: [] })
  return {
    driver: {
      ...driver,
      target: driver.target,
      call: (fn, args, options) => (broken ? Promise.reject(gone) : driver.call(fn, args, options)),
    } satisfies Driver,
    cut: (is: boolean) => (broken = is),
  }
}

/** Time that stands until it is moved. */
function clock() {
  let ms = 0
  return { now: () => ms, pass: (by: number) => (ms += by) }
}

const minutes = async (kind: string) =>
  (
    await sql(
      `select kind, up, down, why, extract(epoch from date_trunc('minute', clock_timestamp()) - minute)::int / 60 as ago from tms.probes where kind = '${kind}' order by minute`,
    )
  ).map(({ up, down, why, ago }) => [Number(ago), Number(up), Number(down), why])

describe('probing', () => {
  const reach = (driver: Driver, change: Partial<ProbeReach> = {}): ProbeReach => ({
    driver,
    fetch,
    now: () => performance.now(),
    ...change,
  })

  test('an outage of the database is told when it is back, and no minute of it is up', async () => {
    const { driver, cut } = breakable(autopilot)
    const { now, pass } = clock()
    const prober = openProber(reach(driver, { now }))
    cut(true)
    for (let round = 0; round < 4; round += 1) {
      expect(await prober.probe()).toMatchObject({ recorded: false, fleet: null })
      pass(60_000)
    }
    cut(false)
    expect(await prober.probe()).toMatchObject({ recorded: true, waiting: 0 })
    const recorded = await minutes('database')
    // the last of the four was a minute ago, the first four
    expect(recorded.filter(([, , down]) => Number(down) > 0).length).toBeGreaterThanOrEqual(4)
    expect(recorded.filter(([ago, up]) => Number(ago) > 1 && Number(up) > 0)).toEqual([])
    expect(recorded[0]?.[3]).toBe('DB_UNREACHABLE')
    // once told it is not told again
    const again = await minutes('database')
    await prober.probe()
    expect((await minutes('database')).slice(0, 2)).toEqual(again.slice(0, 2))
  })

  test('the door is down when it does not say that it is ready, and after two tries only', async () => {
    let answers = [503, 200]
    const server = createServer((request, response) => {
      expect(request.url).toBe('/base/readyz')
      response.writeHead(answers.shift() ?? 503).end('x')
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    const prober = openProber(reach(autopilot, { doorUrl: `http://127.0.0.1:${address.port}/base` }))
    expect((await prober.probe()).probes[1]).toMatchObject({ kind: 'door', up: true })
    answers = [503, 503]
    expect((await prober.probe()).probes[1]).toMatchObject({ up: false, why: 'HTTP_503' })
    const nowhere = openProber(reach(autopilot, { doorUrl: 'http://127.0.0.1:1' }))
    expect((await nowhere.probe()).probes[1]).toMatchObject({ up: false, why: 'UNREACHABLE' })
  })

  test('goes on until it is stopped, one round at a time', async () => {
    let tick: () => void = () => undefined
    let ended = false
    const seen: boolean[] = []
    const probing = startProbing({
      ...reach(autopilot),
      onProbed: ({ recorded }) => seen.push(recorded),
      onProblem: (error) => expect(error).toBeNull(),
      repeat: (work) => {
        tick = work
        return () => (ended = true)
      },
    })
    // while the first is under way nothing more begins
    tick()
    tick()
    await expect.poll(() => seen).toEqual([true])
    tick()
    await probing.stop()
    expect([seen, ended]).toEqual([[true, true], true])
  })

  test('who may not record is told so, each time', async () => {
    const problems: unknown[] = []
    const probing = startProbing({
      ...reach(fleet.worker),
      onProblem: (error) => problems.push(error),
      repeat: () => () => undefined,
    })
    await probing.stop()
    expect(problems).toMatchObject([{ code: 'ROLE_DENIED' }])
  })
})

describe('watching', () => {
  const watching = (change: Partial<Watching> = {}): Watching => ({
    slo: shipped,
    sqlFiles: null,
    act: false,
    everyMs: 60_000,
    ticks: 3,
    signal: new AbortController().signal,
    pause: () => Promise.resolve(),
    reach: { fetch, now: () => performance.now() },
    ...change,
  })
  const all = async (driver: Driver, change: Partial<Watching> = {}) => {
    const ticks: Tick[] = []
    for await (const tick of watchPosture(driver, watching(change))) ticks.push(tick)
    return ticks
  }
  const announced = async () =>
    Number((await sql(`select count(*)::int as n from tms.outbox_events where topic = 'posture.changed'`))[0]?.['n'])

  test('probes and records each time, and announces only what changes', async () => {
    const ticks = await all(autopilot)
    expect(ticks.map(({ announced: told, probed }) => [told, probed?.recorded])).toEqual([
      [true, true],
      [false, true],
      [false, true],
    ])
    expect(await announced()).toBe(1)
  })

  test('two at once announce a change once', async () => {
    const [one, two] = await Promise.all([all(autopilot), all(fleet.operator)])
    expect([...one, ...two].filter((tick) => tick.announced)).toHaveLength(1)
    expect(await announced()).toBe(1)
  })

  test('goes on through an outage and says what it cannot know', async () => {
    const { driver, cut } = breakable(autopilot)
    const ticks: Tick[] = []
    for await (const tick of watchPosture(driver, watching())) {
      ticks.push(tick)
      cut(tick.tick === 1)
    }
    expect(ticks.map(({ posture, problem }) => [posture === null, problem?.code])).toEqual([
      [false, undefined],
      [true, 'DB_UNREACHABLE'],
      [false, undefined],
    ])
    // what it missed counts as down, and that is a change
    expect(ticks[2]?.changes).toContainEqual({ check: 'uptime_percent', from: 'unknown', to: 'red' })
    const screen = await render(screenView(ticks[1] as Tick), { isTerminal: false, colour: false, width: 60 })
    expect(screen).toContain('unknown: the database cannot be read')
  })

  test('looks only, for a role that may not record', async () => {
    const ci = await fleet.subject.as(await fleet.subject.account('ci'))
    onTestFinished(() => ci.close())
    const ticks = await all(ci, { ticks: 1 })
    expect(ticks).toMatchObject([{ recording: false, announced: false, probed: null }])
    await expect(all(ci, { ticks: 1, act: true })).rejects.toMatchObject({ code: 'ROLE_DENIED' })
  })

  test('ends when it is told to', async () => {
    const end = new AbortController()
    const ticks = await all(autopilot, {
      ticks: null,
      signal: end.signal,
      pause: () => {
        end.abort()
        return Promise.resolve()
      },
    })
    expect(ticks).toHaveLength(1)
  })

  test('pauses to the beat and not after the work', async () => {
    const { now, pass } = clock()
    const pauses: number[] = []
    const ticks = watchPosture(
      autopilot,
      watching({
        reach: { fetch, now },
        pause: (ms) => {
          pauses.push(ms)
          pass(ms)
          return Promise.resolve()
        },
      }),
    )
    // the work of each look takes seven seconds
    while (!(await ticks.next()).done) pass(7_000)
    expect(pauses).toEqual([53_000, 53_000])
  })
})

describe('the commands', () => {
  const probedDay = () =>
    sql(`insert into tms.probes (minute, kind, up, down) select date_trunc('minute', clock_timestamp()) - m * interval '1 minute', 'database', 1, 0 from generate_series(0, 5000) m;
      update tms.environment set initialised_at = clock_timestamp() - interval '30 days' where one; select 1`)

  test('check is unknown with nothing measured: exit 3, the facts on stdout, the reason on stderr', async () => {
    await probedDay()
    const { code, out, err } = await tms('posture check')
    expect([code, out, err]).toEqual([
      3,
      expect.stringMatching(/posture +unknown/),
      expect.stringMatching(/^NO_DATA: The posture is unknown: the system was idle/),
    ])
  })

  test('check seals what waits first: an install that nobody sealed for an hour is unknown, and not red', async () => {
    await sql(`insert into tms.ledger_inbox (at, who, credential, role, fn, action, outcome, subject, why, body, body_sha256)
      values (now() - interval '1 hour', 'x', 'x', 'x', 'x', 'x', 'done', 'x', 'x', '{}', encode(sha256('{}'), 'hex')) returning id`)
    const { code, data } = await json('posture check')
    expect([code, data]).toEqual([
      3,
      expect.objectContaining({
        checks: expect.arrayContaining([expect.objectContaining({ name: 'unsealed_ledger_seconds', state: 'green' })]),
      }),
    ])
  })

  test('check is green with everything measured: exit 0', async () => {
    await probedDay()
    await sql(`insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, finished_at, ms, trace_id, epoch)
                 select g, 1, 1, c.id, 'demo', 'demo.one', 'completed', clock_timestamp(), 20, 'abc', 0 from tms.companies c, generate_series(1, 100) g where c.key = 'acme';
               insert into tms.drift_scores (score) values (100); select 1`)
    const { code, data } = await json('posture check')
    expect(data).toMatchObject({ verdict: 'green', health: { low: '90', high: '100', grade: 'A' } })
    expect(code).toBe(0)
    expect((await tms('posture check', '--tenant', 'acme')).code).toBe(0)
    expect((await json('posture check', '--tenant', 'nosuch')).error?.code).toBe('NOT_FOUND')
  })

  test('check is red when a promise is broken: exit 1, and says which', async () => {
    await sql(
      `insert into tms.incidents (priority, type, dedupe_key, title, opened_by) values ('P1', 'test', 'test', 'test', 'test'); select 1`,
    )
    try {
      const { code, out } = await tms('posture check', '--window', '1h')
      expect([code, out]).toEqual([1, expect.stringMatching(/open p1 incidents +red +1 +≤ 0/)])
    } finally {
      await sql(`delete from tms.incidents; select 1`)
    }
  })

  test('a broken slo.yaml judges nothing: exit 2, with the line', async () => {
    const policies = await mkdtemp(join(tmpdir(), 'tms-policies-'))
    onTestFinished(() => rm(policies, { recursive: true, force: true }))
    await writeFile(join(policies, 'slo.yaml'), shippedText.replace('at_least: 98,', 'at_least: most,'))
    const back = surroundings(folder, { TMS_POLICIES: policies })
    onTestFinished(back)
    const { code, out, err } = await tms('posture check')
    expect([code, out, err]).toEqual([
      2,
      '',
      expect.stringMatching(/slo\.yaml:\d+:\d+: checks\.task_success_percent\.at_least/),
    ])
  })

  test('a database that cannot be read gives no result at all: exit 3, nothing on stdout', async () => {
    const back = surroundings(folder, { TMS_DRIVER: 'postgres', DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' })
    onTestFinished(back)
    const { code, out, err } = await tms('posture check')
    expect([code, out]).toEqual([3, ''])
    expect(err).toMatch(/^DB_UNREACHABLE/)
    expect((await json('posture check')).data).toBeNull()
  })

  test('watch gives a line for each look and ends as check would', async () => {
    const { code, lines } = await json('posture watch', '--ticks', '2', '--interval', '1000')
    expect([code, lines.length]).toEqual([3, 2])
    expect((await tms('posture watch', '--ticks', '1')).out).toMatch(/unknown, health .*\nLooked once/)
    expect((await tms('posture watch', '--act', '--tenant', 'acme')).code).toBe(2)
  })

  test('undo needs consent that names the action, and puts the flag back', async () => {
    await sql(
      `insert into tms.posture_checks (name, state, since, red_since) values ('a', 'red', clock_timestamp(), clock_timestamp()); select 1`,
    )
    const made = granted(
      await autopilot.call('posture_act', {
        request_id: randomUUID(),
        action: 'freeze',
        check: 'a',
        observed: '97 percent',
        limit: 'at least 98',
      }),
    )
    const id = String(made.id)
    expect((await tms('posture actions')).out).toMatch(
      new RegExp(`${id} .*freeze: false to true +fleet +in force +a was 97 percent`),
    )
    const missing = await json('posture undo', id, '--why', 'over')
    expect([missing.code, missing.error?.next[0]]).toEqual([4, expect.stringContaining(`--confirm freeze/${id}`)])
    const undone = await json('posture undo', id, '--why', 'over', '--confirm', `freeze/${id}`)
    expect([undone.code, undone.data]).toEqual([0, expect.objectContaining({ restored: 1, left: [] })])
    expect((await json('posture undo', id, '--why', 'over', '--confirm', `freeze/${id}`)).code).toBe(4)
    expect((await json('posture undo', 'x', '--why', 'over')).error?.code).toBe('NOT_FOUND')
  })
})
