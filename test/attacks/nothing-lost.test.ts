import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { exit, TmsError } from '../../src/errors.ts'
import { policy } from '../fleet/fleet.ts'
import { until } from '../servers/process.ts'
import { startWire, type Wire } from '../servers/wire.ts'
import { ask, startArena, without, type Arena } from './fleet/arena.ts'
import { findings } from './fleet/bookkeeping.ts'
import { startCrew, type Crew } from './fleet/crew.ts'
import { startReceiver, type Receiver } from './fleet/receiver.ts'

/** Whatever dies, and whenever: each task's effects happen once, or not at all and with a reason that is kept. */

const full = process.env['TMS_TEST_FULL'] === '1'
const size = full
  ? { tasks: 50_000, seconds: 110, slots: 24, workMs: 200, awayMs: 10_000, frozenMs: 18_000, drainMs: 200_000 }
  : { tasks: 1500, seconds: 10, slots: 8, workMs: 120, awayMs: 1000, frozenMs: 2500, drainMs: 40_000 }
const timeoutMs = 1500

/** Of 20 tasks, these. */
const mix = [
  ...Array<string>(5).fill('demo.plain'),
  ...Array<string>(4).fill('demo.tell'),
  ...Array<string>(2).fill('demo.flaky'),
  ...['demo.quiet', 'demo.quiet', 'demo.parent', 'demo.steps', 'demo.slow'],
  ...['frail.half', 'frail.doomed', 'frail.broken', 'frail.unfit'],
]

const rules = { approval: [], apply: ['app.effect'], timeout_ms: timeoutMs, breaker_percent: 100 }
const policies = [
  policy('demo', {
    ...rules,
    functions: [...new Set([...mix.filter((fn) => fn.startsWith('demo.')), 'demo.child'])],
    max_attempts: 100,
    backoff_ms: 20,
    backoff_cap_ms: 200,
  }),
  policy('frail', {
    ...rules,
    functions: [...new Set(mix.filter((fn) => fn.startsWith('frail.')))],
    publish: ['demo.*'],
    max_attempts: 2,
    backoff_ms: 20,
    backoff_cap_ms: 200,
  }),
]

let arena: Arena
let wire: Wire
let receiver: Receiver
let operator: Driver

beforeAll(async () => {
  arena = await startArena({ policies })
  wire = await startWire(arena.server.port)
  receiver = await startReceiver()
  operator = await openPostgres({
    driver: 'postgres',
    url: over(arena.database.url),
    connectTimeoutMs: 5000,
    callTimeoutMs: 5000,
  })
  const url = `${receiver.url}/told`
  const target = {
    name: 'told',
    kind: 'http' as const,
    topics: ['demo.*'],
    max_attempts: 100,
    config: { url, hosts: [new URL(url).host] },
  }
  granted(await arena.fleet.operator.call('outbox_targets_set', { request_id: randomUUID(), targets: [target] }))
})
afterAll(async () => {
  await operator.close()
  await receiver.stop()
  await wire.stop()
  await arena.stop()
})

/** The same database, through the wire that may be cut. */
const over = (url: string) => Object.assign(new URL(url), { port: String(wire.port) }).href

/** Puts them in while everything falls over. The same request until there is an answer. */
async function enqueueAll(during: number): Promise<void> {
  const tasks = Array.from({ length: size.tasks }, (_, n) => ({ function: mix[n % mix.length] ?? '', payload: { n } }))
  const batch = Math.ceil(size.tasks / 50)
  // A backlog first, the rest little by little.
  const first = Math.floor(size.tasks * 0.3)
  for (let from = 0; from < size.tasks; from += batch) {
    const call = {
      request_id: randomUUID(),
      tenant: (from / batch) % 2 === 0 ? 'acme' : 'globex',
      tasks: tasks.slice(from, from + batch),
    }
    for (let known = false; !known;) {
      known = await operator.call('tasks_enqueue', call).then(
        (answer) => granted(answer).ids.length === call.tasks.length,
        (error: unknown) => {
          if (error instanceof TmsError && error.exit === exit.outside) return false
          throw error
        },
      )
    }
    if (from >= first) await pause((during * 1000 * batch) / (size.tasks - first))
  }
}

/** What only saves waiting for what is certain: the lease of a process that is gone, or of all that is being sent. */
const expire = (pid: number) =>
  moved(
    `update tms.workers set lease_until = clock_timestamp() - interval '1 second' where pid = ${pid} and stopped_at is null`,
  )
const expireSending = () =>
  moved(
    `update tms.outbox_deliveries set lease_until = clock_timestamp() - interval '1 second' where status = 'sending'`,
  )

/** The server may be down, or go down meanwhile; then the lease ends by itself. */
async function moved(sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: arena.database.superuserUrl })
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.query(sql)
  } catch {
    return
  } finally {
    await client.end().catch(() => undefined)
  }
}

type Part = () => Promise<void>

function chaos(crew: Crew, seconds: number): { over: Promise<unknown>; done: string[] } {
  const began = Date.now()
  const ends = began + seconds * 1000
  const done: string[] = []
  const going = () => Date.now() < ends
  const at = (part: number) => pause(Math.max(0, began + seconds * 1000 * part - Date.now()))

  const kill: Part = async () => {
    for (let n = 0; going(); n++) {
      await pause(1000)
      const pid = await crew.strike(n % 5 === 4 ? 'SIGTERM' : 'SIGKILL')
      // At full size one in six is left to its lease, and every delivery to its own.
      if (pid !== null && !(full && n % 6 === 0)) await expire(pid)
      if (!full) await expireSending()
    }
  }
  const freeze: Part = async () => {
    await at(0.1)
    while (Date.now() + size.frozenMs < ends) {
      const one = crew.freeze()
      // The worker that comes back believes that all is as it was. At full size its lease really runs out.
      if (one && !full) await expire(one.pid)
      await pause(size.frozenMs)
      one?.thaw()
      await pause(500)
    }
  }
  const lose: Part = async () => {
    const names = ['tasks_finish', 'tasks_claim', 'tasks_enqueue', 'outbox_finish', 'outbox_claim', 'worker_hello']
    for (let n = 0; going(); n++) {
      await pause(250)
      wire.loseAnswerTo(names[n % names.length] ?? '')
    }
  }
  const cut: Part = async () => {
    await at(0.45)
    await wire.refuse()
    await pause(size.awayMs)
    await wire.resume()
    done.push('the network was away')
    await at(0.8)
    // Bytes get lost on the way, and nobody is told.
    wire.stall()
    await pause(size.awayMs / 2)
    wire.cut()
    await wire.resume()
    done.push('the network was dumb')
  }
  const restart: Part = async () => {
    await at(0.25)
    const { cluster } = arena.server
    cluster?.kill('SIGINT')
    await cluster?.exited
    // Is down by now, so this only starts it.
    await arena.crash('SIGQUIT')
    done.push('a fast restart')
    await at(0.65)
    await arena.crash('SIGQUIT')
    done.push('an immediate restart')
    if (full) {
      await at(0.9)
      await arena.crash('SIGKILL')
      done.push('a crash')
    }
  }
  return { over: Promise.all([kill, freeze, lose, cut, restart].map((part) => part())), done }
}

test(
  `${size.tasks} tasks through crashes: each effect once, or none and a dead letter; each event once`,
  async () => {
    const began = Date.now()
    const crew = await startCrew({
      count: 4,
      env: {
        CREW_URL: over(arena.workerUrl),
        CREW_SLOTS: String(size.slots),
        CREW_WORK_MS: String(size.workMs),
        CREW_TIMEOUT_MS: String(timeoutMs),
      },
    })
    try {
      const { over: calm, done } = chaos(crew, size.seconds)
      await Promise.all([calm, enqueueAll(size.seconds * 0.8)])
      const chaosMs = Date.now() - began
      if (!full) await expireSending()
      const left = () =>
        arena.sql(`select (select count(*)::int from tms.agent_tasks where status in ('pending', 'running')) as tasks,
          (select count(*)::int from tms.outbox_deliveries where status in ('pending', 'sending')) as deliveries`)
      const [backlog] = await left()
      await until(
        'everything has ended',
        async () => {
          await pause(200)
          const [row] = await left()
          return row?.['tasks'] === 0 && row['deliveries'] === 0
        },
        size.drainMs,
      ).catch(() => undefined)
      const drainMs = Date.now() - began - chaosMs

      const [tasks] =
        await arena.sql(`select count(*)::int as all, count(*) filter (where parent_id is null)::int as asked,
        count(*) filter (where status = 'completed')::int as completed, count(*) filter (where status = 'failed')::int as failed,
        count(*) filter (where status = 'quarantined')::int as quarantined, max(attempts) as attempts, max(claim) as claims from tms.agent_tasks`)
      const runs = await arena.sql(`select outcome, count(*)::int as n from tms.agent_runs group by 1 order by 1`)
      const reasons = await arena.sql(
        `select error_class as class, count(*)::int as n from tms.dead_letter_queue group by 1 order by 1`,
      )
      process.stdout.write(
        `nothing-lost: ${JSON.stringify({
          chaosMs,
          drainMs,
          backlog,
          tasks,
          runs: Object.fromEntries(runs.map((r) => [r['outcome'], r['n']])),
          deadLetters: Object.fromEntries(reasons.map((r) => [r['class'], r['n']])),
          received: receiver.deliveries.size,
          repeated: receiver.repeated(),
          misplaced: await misplaced(receiver),
          connections: wire.accepted(),
          crew: crew.counts,
          done,
        })}\n`,
      )
      expect(await findings(arena)).toEqual({})
      expect(tasks?.['asked']).toBe(size.tasks)
      // What the receiver knows is what completed tasks said, and each of it under one id.
      const told = [...receiver.deliveries.values()].map(({ task }) => task).sort()
      const completed = await arena.sql(
        `select id::text as id from tms.agent_tasks where fn_name in ('demo.tell', 'demo.flaky') and status = 'completed'`,
      )
      expect(told).toEqual(completed.map(({ id }) => String(id)).sort())
      expect(crew.fell).toEqual([])
      expect(crew.complaints).toEqual([])
      // Or all of this proves nothing.
      expect(done).toHaveLength(full ? 5 : 4)
      expect(crew.counts.killed).toBeGreaterThan(size.seconds / 4)
      expect(runs.map((row) => row['outcome'])).toEqual(
        expect.arrayContaining(['completed', 'failed', 'lost', 'retried']),
      )
    } finally {
      await crew.stop()
      // who ended well holds nothing any more; of who could not sign off the lease may last
      expect(
        await arena.sql(
          'select id from tms.workers where stopped_at is null and lease_until > clock_timestamp() and pid <> all ($1)',
          [crew.cutOff],
        ),
      ).toEqual([])
    }
  },
  full ? 480_000 : 90_000,
)

/**
 * Deliveries that came after a later event of their key, and how much later that one was committed. Only told, not judged: a
 * commit is stamped before others see it, so nobody can say from outside which of two close ones was written first.
 */
async function misplaced({ deliveries }: Receiver): Promise<{ came: number; after: number; ms: number }[]> {
  const rows = await arena.sql(
    `select id, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 * 1000 as ms from tms.outbox_events where ordering_key is not null`,
  )
  const at = new Map(rows.map((row) => [Number(row['id']), Number(row['ms'])]))
  const arrived = new Map<string, number[]>()
  const found: { came: number; after: number; ms: number }[] = []
  for (const { event, order } of deliveries.values()) {
    if (order === null) continue
    const before = arrived.get(order) ?? []
    for (const other of before) {
      const ms = Math.round((at.get(other) ?? 0) - (at.get(event) ?? 0))
      if (other > event && ms > 0) found.push({ came: event, after: other, ms })
    }
    arrived.set(order, [...before, event])
  }
  return found
}

test('a worker that comes back with an old claim changes nothing; with the check taken out, the books show it', async () => {
  await arena.sql(
    'truncate app.effects, tms.agent_tasks, tms.agent_runs, tms.dead_letter_queue, tms.outbox_events, tms.outbox_deliveries',
  )
  const client = await arena.connect(arena.workerUrl)
  const worker = await arena.fleet.hello(['demo'], 4)
  const twice = async () => {
    const [id] = await arena.fleet.enqueue('acme', [{ function: 'demo.plain', payload: { n: 1 } }])
    const finish = (claim: number, outcome: string) =>
      ask(client, 'tasks_finish', {
        worker,
        rest: [
          { id, claim, outcome, effects: { apply: [{ fn: 'app.effect', args: { task: id ?? '', attempt: 1 } }] } },
        ],
      })
    await ask(client, 'tasks_claim', { worker, limit: 1 })
    await finish(1, 'returned')
    await ask(client, 'tasks_claim', { worker, limit: 1 })
    await finish(2, 'completed')
    await finish(1, 'completed')
  }
  await twice()
  expect(await findings(arena)).toEqual({})
  await arena.sql('truncate app.effects, tms.agent_tasks, tms.agent_runs')
  await without(
    arena,
    [
      ['_end_tasks', 't.id = v.id and t.claim = v.claim and t.status = state', 't.id = v.id'],
      ['_end_tasks', 't.worker_id = worker and (t.run_until > stamp or', 't.worker_id = worker and (true or'],
    ],
    async () => {
      await twice()
      expect(Object.keys(await findings(arena))).toEqual(
        expect.arrayContaining(['a completed task without its one effect', 'a claim that ended twice']),
      )
    },
  )
})
