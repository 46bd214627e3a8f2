import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Effects } from '../../src/drivers/contract/fleet.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import { startDelivery, type Deliverer } from '../../src/outbox/deliver.ts'
import { createLogger } from '../../src/redaction/logger.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'
import { until } from '../servers/process.ts'
import { answer, checkSigned, hang, receiver, signingSecret, type Receiver } from './targets/receivers.ts'

/** The outbox at work: real receivers that check signatures, and a database that says whose turn it is. */

type Event = NonNullable<Effects['events']>[number]

describe.each(Object.entries(subjects))('delivery through %s', (_, make) => {
  let fleet: Fleet
  /** Two connections of the one account that works. */
  let worker: Driver
  let second: Driver
  const running = new Set<Deliverer>()

  beforeAll(async () => {
    fleet = await readyFleet(await make(), [policy('demo', { approval: [] })])
    const account = await fleet.subject.account('agents')
    worker = await fleet.subject.as(account)
    second = await fleet.subject.as(account)
  })
  afterEach(async () => {
    await Promise.all([...running].map((each) => each.stop()))
    running.clear()
  })
  afterAll(async () => {
    await worker.close()
    await second.close()
    await fleet.stop()
  })

  const sql = (text: string) => sqlBeside(fleet.subject, fleet.operator)(text)

  /** Delivers until the test is over, or until it is stopped. */
  async function deliver(driver = worker, pollMs = 50): Promise<Deliverer> {
    const deliverer = await startDelivery({
      driver,
      secrets: async () => signingSecret,
      log: createLogger({ write: () => undefined, clock: () => new Date() }),
      pollMs,
      fetch,
      lookup: async () => ['127.0.0.1'],
      clock: () => new Date(),
      random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
      folder: '/nonexistent',
      timeoutMs: 60_000,
    })
    running.add(deliverer)
    return deliverer
  }

  /** These receivers and no others get what is published from now on: each takes its own topic. */
  async function targets(given: Readonly<Record<string, Receiver>>, attempts = 5): Promise<void> {
    const list = Object.entries(given).map(([name, { url }]) => ({
      name,
      kind: 'webhook' as const,
      topics: [`demo.${name}`],
      max_attempts: attempts,
      config: {
        url: `${url}/in`,
        hosts: [new URL(url).host],
        keyId: 'tms',
        secretFrom: { env: 'TMS_SECRET_HOOK' },
      },
    }))
    granted(await fleet.operator.call('outbox_targets_set', { request_id: randomUUID(), targets: list }))
  }

  /** As an agent does it: with the end of a task. */
  async function publish(events: readonly Event[], tenant = 'acme'): Promise<void> {
    await fleet.enqueue(tenant, [{ function: 'demo.one' }])
    const me = await fleet.hello(['demo'], 10, worker)
    const [task] = granted(await worker.call('tasks_claim', { worker: me, limit: 1 })).tasks
    const { id, claim } = task ?? { id: '', claim: 0 }
    const rest = [{ id, claim, outcome: 'completed' as const, effects: { events: [...events] } }]
    expect(granted(await worker.call('tasks_finish', { worker: me, rest })).outcomes).toEqual({ [id]: 'completed' })
    granted(await worker.call('worker_bye', { worker: me }))
  }

  const numbered = (name: string, count: number, order?: string): Event[] =>
    Array.from({ length: count }, (_, n) => ({
      topic: `demo.${name}`,
      payload: { n },
      ...(order === undefined ? {} : { order }),
    }))

  const statuses = async (target: string) => {
    const rows = await sql(`select status, attempts from tms.outbox_deliveries where target = '${target}' order by id`)
    return rows.map(({ status, attempts }) => ({ status: String(status), attempts: Number(attempts) }))
  }
  const all = async (target: string, status: string) => (await statuses(target)).every((each) => each.status === status)

  /** What waits for its next try needn't wait. */
  const hurry = (target: string) =>
    sql(
      `update tms.outbox_deliveries set next_at = clock_timestamp() where target = '${target}' and status = 'pending' returning 1`,
    )
  const expire = (target: string) =>
    sql(
      `update tms.outbox_deliveries set lease_until = clock_timestamp() - interval '1 second' where target = '${target}' and status = 'sending' returning 1`,
    )

  const bodies = (from: Receiver) =>
    from.received.map(({ body }) => JSON.parse(body) as { deliveryId: string; tenant: string; payload: { n: number } })
  const numbers = (from: Receiver) => bodies(from).map(({ payload }) => payload.n)

  const halt = async () => granted(await fleet.operator.call('fence_halt', { why: 'the test says so' }))
  const resume = async () => {
    for (const step of ['prepare', 'lift'] as const)
      granted(await fleet.operator.call('fence_resume', { request_id: randomUUID(), step, why: 'over' }))
  }

  test('events of one key arrive in order, also when the first fails; other keys do not wait', async () => {
    const orders = await receiver(checkSigned)
    await targets({ orders })
    const failing = new Set(['first of a'])
    orders.misbehave = (request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const body = Buffer.concat(parts).toString()
        // True by how events are written.
        const { payload } = JSON.parse(body) as { payload: { n: number; of: string } }
        if (payload.n === 0 && failing.has(`first of ${payload.of}`)) return response.writeHead(500).end()
        orders.received.push({ headers: request.headers, path: request.url ?? '', body })
        return response.writeHead(202).end()
      })
    }
    const of = (key: string) =>
      numbered('orders', 5, key).map((event) => ({
        ...event,
        payload: { n: (event.payload as { n: number }).n, of: key },
      }))
    await publish([...of('a'), ...of('b')])
    await deliver()
    const seen = (key: string) =>
      orders.received.flatMap(({ body }) => {
        const { payload } = JSON.parse(body) as { payload: { n: number; of: string } }
        return payload.of === key ? [payload.n] : []
      })
    await until('key b is done', () => seen('b').length === 5)
    expect(seen('b')).toEqual([0, 1, 2, 3, 4])
    await until('the first of a was tried', async () => (await statuses('orders'))[0]?.status === 'pending')
    expect(seen('a')).toEqual([])
    failing.clear()
    await hurry('orders')
    await until('key a is done', () => seen('a').length === 5)
    expect(seen('a')).toEqual([0, 1, 2, 3, 4])
  })

  test('the same key of another tenant is another key', async () => {
    const shared = await receiver(checkSigned)
    await targets({ shared })
    await publish(numbered('shared', 1, 'k'), 'acme')
    await publish(numbered('shared', 1, 'k'), 'globex')
    await sql(
      `update tms.outbox_deliveries set next_at = clock_timestamp() + interval '1 hour' where target = 'shared' and id = (select min(id) from tms.outbox_deliveries where target = 'shared') returning 1`,
    )
    await deliver()
    await until("globex's is there", () => shared.received.length === 1)
    expect(bodies(shared)[0]?.tenant).toBe('globex')
  })

  test('a receiver that never answers delays nobody else', async () => {
    const [stuck, quick] = [await receiver(checkSigned), await receiver(checkSigned)]
    stuck.misbehave = hang
    await targets({ stuck, quick })
    await publish([...numbered('stuck', 150), ...numbered('quick', 150)])
    await deliver()
    // Its requests would be given up after 60 s, and no sooner.
    await until('the others are delivered', () => quick.received.length === 150)
    expect(stuck.received).toEqual([])
  })

  test('failures are tried again later and later, then the delivery is dead; a retry by hand revives it', async () => {
    const poor = await receiver(checkSigned)
    poor.misbehave = answer(500)
    await targets({ poor }, 3)
    await publish(numbered('poor', 1))
    await deliver()
    // How long it waits, seen from before it failed and from after: a busy machine makes the two differ.
    const waits: { readonly atMost: number; readonly atLeast: number }[] = []
    for (let attempt = 1; attempt < 3; attempt++) {
      const [before] = await sql(`select extract(epoch from clock_timestamp())::float8 as s`)
      if (attempt > 1) await hurry('poor')
      await until(`attempt ${attempt} failed`, async () =>
        (await statuses('poor')).some((one) => one.status === 'pending' && one.attempts === attempt),
      )
      const [row] = await sql(
        `select extract(epoch from next_at)::float8 as at, extract(epoch from next_at - clock_timestamp())::float8 as s from tms.outbox_deliveries where target = 'poor'`,
      )
      waits.push({ atMost: Number(row?.['at']) - Number(before?.['s']), atLeast: Number(row?.['s']) })
    }
    await hurry('poor')
    await until('it is dead', () => all('poor', 'dead'))
    expect(await statuses('poor')).toEqual([{ status: 'dead', attempts: 3 }])
    // Half to all of one second, then of two.
    expect(waits[0]?.atLeast).toBeLessThanOrEqual(1)
    expect(waits[1]?.atMost).toBeGreaterThanOrEqual(1)
    expect(waits[1]?.atLeast).toBeLessThanOrEqual(2)

    poor.misbehave = null
    const { deliveries } = granted(await fleet.operator.call('outbox_list', { target: 'poor', limit: 10 }))
    expect(deliveries[0]).toMatchObject({ status: 'dead', error: 'answered 500' })
    granted(
      await fleet.operator.call('outbox_retry', {
        request_id: randomUUID(),
        tenant: 'acme',
        ids: deliveries.map(({ id }) => id),
        why: 'mended',
      }),
    )
    await until('it is delivered', () => all('poor', 'delivered'))
  })

  test('what will never work is dead at once', async () => {
    const wrong = await receiver(checkSigned)
    wrong.misbehave = answer(410)
    await targets({ wrong })
    await publish(numbered('wrong', 1))
    await deliver()
    await until('it is dead', () => all('wrong', 'dead'))
    expect(wrong.requests).toBe(1)
  })

  test('two deliverers at once send each event once', async () => {
    const busy = await receiver(checkSigned)
    await targets({ busy })
    await publish(numbered('busy', 300))
    await Promise.all([deliver(), deliver(second)])
    await until('all are delivered', () => all('busy', 'delivered'))
    expect(numbers(busy).sort((a, b) => a - b)).toEqual(numbered('busy', 300).map((_event, n) => n))
    expect(busy.requests).toBe(300)
  })

  test('while halted nothing is sent; after the resume all of it arrives', async () => {
    const calm = await receiver(checkSigned)
    await targets({ calm })
    await publish(numbered('calm', 20, 'k'))
    await halt()
    const looked = counting(worker)
    await deliver(looked.driver)
    await until('the outbox was looked at', () => looked.calls('outbox_claim') > 2)
    expect([calm.requests, await all('calm', 'pending')]).toEqual([0, true])
    await resume()
    await until('all are delivered', () => all('calm', 'delivered'))
    // At least once: on a busy machine one may come again.
    expect([...new Set(numbers(calm))]).toEqual(numbered('calm', 20).map((_event, n) => n))
  })

  test('what a halt finds on its way is not recorded as delivered, and comes again under its id', async () => {
    const slow = await receiver(checkSigned)
    await targets({ slow })
    await publish(numbered('slow', 20))
    const held: (() => void)[] = []
    slow.misbehave = takeAndHold(slow, held)
    await deliver()
    await until('all are on their way', () => slow.received.length === 20)
    await halt()
    // The receiver has them, and says so; whoever sent them may hear it or not.
    for (const release of held) release()
    slow.misbehave = null
    expect((await statuses('slow')).filter(({ status }) => status === 'delivered')).toEqual([])
    await resume()
    await until('those that nobody asks for any more are free', async () => {
      await expire('slow')
      await hurry('slow')
      return all('slow', 'delivered')
    })
    const ids = new Set(bodies(slow).map(({ deliveryId }) => deliveryId))
    expect(ids.size).toBe(20)
    expect(new Set(numbers(slow)).size).toBe(20)
  })

  test("the halt's own lane passes, and is recorded", async () => {
    const alarm = await receiver(checkSigned)
    await targets({ alarm })
    await halt()
    // Nothing in the contract writes this lane but the halt itself.
    await sql(`with event as (
        insert into tms.outbox_events (company_id, topic, payload)
          select id, 'demo.alarm', '{"n": 1}' from tms.companies where key = 'acme' returning id, company_id)
      insert into tms.outbox_deliveries (event_id, target, company_id, lane, created_at)
        select id, 'alarm', company_id, 'halt', clock_timestamp() from event`)
    await deliver()
    await until('it is delivered', () => all('alarm', 'delivered'))
    expect(numbers(alarm)).toEqual([1])
    await resume()
  })

  test('a halt calls back what is on its way, and none of its own lane', async () => {
    const [calm, loud] = [await receiver(checkSigned), await receiver(checkSigned)]
    const held: (() => void)[] = []
    calm.misbehave = hang
    loud.misbehave = takeAndHold(loud, held)
    await targets({ calm, loud })
    await publish(numbered('calm', 3))
    await publish(numbered('loud', 1))
    await sql(`update tms.outbox_deliveries set lane = 'halt' where target = 'loud' returning 1`)
    const deliverer = await deliver()
    await until('all are on their way', () => calm.requests + loud.received.length === 4)
    await halt()
    await until('the others are called back', () => deliverer.stats().sending === 1)
    for (const release of held) release()
    await until('it is delivered', () => all('loud', 'delivered'))
    expect(loud.received).toHaveLength(1)
    await deliverer.stop()
    await resume()
  })

  test('signals that anybody may send call nothing back', async () => {
    const patient = await receiver(checkSigned)
    patient.misbehave = (request, response) => {
      request.resume()
      setTimeout(() => response.writeHead(202).end(), 600)
    }
    await targets({ patient })
    await publish(numbered('patient', 3))
    await deliver()
    await until('they are delivered', async () => {
      await sql(`select tms._signal('control')`)
      return all('patient', 'delivered')
    })
    expect(patient.requests).toBe(3)
  })

  test('delivered, and the database did not hear of it: it comes again under the same id', async () => {
    const twice = await receiver(checkSigned)
    await targets({ twice })
    await publish(numbered('twice', 3))
    const deaf = sameWith(worker, lose(worker, 'outbox_finish'))
    const deliverer = await deliver(deaf)
    await until('they were sent', () => twice.received.length === 3)
    await deliverer.stop()
    expect(await all('twice', 'sending')).toBe(true)
    await expire('twice')
    await deliver()
    await until('they are delivered', async () => {
      await hurry('twice')
      return all('twice', 'delivered')
    })
    expect(new Set(bodies(twice).map(({ deliveryId }) => deliveryId)).size).toBe(3)
    expect(twice.received).toHaveLength(6)
  })

  test('stopping calls back what is on its way, without an attempt spent', async () => {
    const late = await receiver(checkSigned)
    late.misbehave = hang
    await targets({ late })
    await publish(numbered('late', 2))
    const deliverer = await deliver()
    await until('they are on their way', () => late.requests === 2)
    await deliverer.stop()
    expect(await statuses('late')).toEqual([
      { status: 'pending', attempts: 0 },
      { status: 'pending', attempts: 0 },
    ])
  })

  test('a target whose configuration this release cannot read is dead with the reason, and holds up nobody', async () => {
    const fine = await receiver(checkSigned)
    await targets({ fine })
    await sql(`insert into tms.outbox_targets (name, kind, topics, config, max_attempts, updated_at, updated_by)
      values ('odd', 'webhook', '{demo.odd}', '{"nonsense": true}', 5, now(), 'test')`)
    await publish([...numbered('odd', 1), ...numbered('fine', 1)])
    await deliver()
    await until('the other is delivered', () => all('fine', 'delivered'))
    await until('it is dead', () => all('odd', 'dead'))
    const { deliveries } = granted(await fleet.operator.call('outbox_list', { target: 'odd', limit: 1 }))
    expect(deliveries[0]?.error).toMatch(/not usable/)
  })

  /** As many as an agent that runs wild may have published, without a claim for each. */
  const backlog = (target: string, count: number, { tenant = 'acme', order = null as string | null } = {}) =>
    sql(`with event as (
        insert into tms.outbox_events (company_id, topic, payload, ordering_key)
          select c.id, 'demo.${target}', jsonb_build_object('n', n), ${order === null ? 'null' : `'${order}'`}
            from tms.companies c, generate_series(0, ${count - 1}) n where c.key = '${tenant}' order by n
          returning id, company_id, ordering_key)
      insert into tms.outbox_deliveries (event_id, target, company_id, ordering_key, created_at)
        select id, '${target}', company_id, ordering_key, clock_timestamp() from event order by id returning 1`)
  const ready = async (target: string) =>
    Number(
      (
        await sql(
          `select count(*)::int as n from tms.outbox_deliveries where target = '${target}' and status = 'pending' and held = '' and next_at <= clock_timestamp()`,
        )
      )[0]?.['n'],
    )
  /** Claims until there is nothing more to look at. */
  async function claimAll(name: string) {
    const taken = []
    for (let more = true; more;) {
      const answer = granted(await worker.call('outbox_claim', { limit: 100, targets: [name] }))
      taken.push(...answer.deliveries)
      more = answer.more === true
    }
    return taken
  }
  const end = async (
    list: readonly { readonly id: string; readonly claim: number }[],
    outcome: 'delivered' | 'retry' | 'rejected' | 'returned',
  ) => granted(await worker.call('outbox_finish', { results: list.map(({ id, claim }) => ({ id, claim, outcome })) }))
  // The cast is true by how `backlog` writes them.
  const ns = (list: readonly { readonly payload: unknown }[]) => list.map(({ payload }) => (payload as { n: number }).n)

  test('what waits behind a failing event of its key is looked at once, and goes when that one ends', async () => {
    await targets({ jam: await receiver(checkSigned) })
    await backlog('jam', 5000, { order: 'k' })
    await backlog('jam', 3)
    const taken = await claimAll('jam')
    expect(ns(taken)).toEqual([0, 0, 1, 2])
    // Nothing is left that the next claim would walk over.
    expect(await ready('jam')).toBe(0)
    await end(taken.slice(1), 'delivered')
    await end(taken.slice(0, 1), 'retry')
    expect(await claimAll('jam')).toEqual([])
    await hurry('jam')
    const again = await claimAll('jam')
    expect([ns(again), again[0]?.attempt]).toEqual([[0], 2])
    // Delivered, or given up: the next one's turn.
    await end(again, 'delivered')
    const next = await claimAll('jam')
    expect(ns(next)).toEqual([1])
    await end(next, 'rejected')
    const third = await claimAll('jam')
    expect(ns(third)).toEqual([2])
    // Handed back it is the first still.
    await end(third, 'returned')
    expect(ns(await claimAll('jam'))).toEqual([2])
  })

  test('one key with hundreds of events goes as fast as they are answered', async () => {
    const chain = await receiver(checkSigned)
    await targets({ chain })
    await backlog('chain', 200, { order: 'k' })
    await deliver(worker, 60_000)
    // Nobody is told but at the start: each goes because the one before was recorded.
    await until('all are delivered', () => all('chain', 'delivered'))
    expect(numbers(chain)).toEqual(Array.from({ length: 200 }, (_event, n) => n))
  })

  test("a paused tenant's backlog stands in nobody's way, and goes after its resume", async () => {
    await targets({ held: await receiver(checkSigned) })
    const scope = async (state: 'paused' | 'running') =>
      granted(
        await fleet.operator.call('agents_control', {
          request_id: randomUUID(),
          tenant: 'acme',
          state,
          why: 'the test',
        }),
      )
    await scope('paused')
    await backlog('held', 3000)
    await backlog('held', 2, { tenant: 'globex' })
    const taken = await claimAll('held')
    expect(taken.map(({ tenant }) => tenant)).toEqual(['globex', 'globex'])
    expect(await ready('held')).toBe(0)
    await end(taken, 'delivered')
    expect(await claimAll('held')).toEqual([])
    await scope('running')
    const after = await claimAll('held')
    expect(ns(after)).toEqual(Array.from({ length: 20 }, (_event, n) => n))
    await end(after, 'delivered')
    await sql(`delete from tms.outbox_deliveries where target = 'held' and status = 'pending' returning 1`)
  })

  test('a release that got lost is made up for by upkeep', async () => {
    await targets({ lost: await receiver(checkSigned) })
    await backlog('lost', 3, { order: 'a' })
    await backlog('lost', 3, { order: 'b' })
    const taken = await claimAll('lost')
    expect(ns(taken)).toEqual([0, 0])
    await sql(
      `update tms.outbox_deliveries set status = 'delivered', delivered_at = clock_timestamp() where target = 'lost' and status = 'sending' and ordering_key = 'a' returning 1`,
    )
    expect(await claimAll('lost')).toEqual([])
    granted(await worker.call('upkeep', {}))
    expect(ns(await claimAll('lost'))).toEqual([1])
  })

  test('events of one task and one order arrive as they were published, whatever their idempotency keys', async () => {
    const row = await receiver(checkSigned)
    await targets({ row })
    const keys = ['z', undefined, 'a', 'm', undefined]
    await publish(
      numbered('row', 5, 'k').map((event, n) => {
        const key = keys[n]
        return key === undefined ? event : { ...event, key: `row/${key}` }
      }),
    )
    await deliver()
    await until('all are delivered', () => all('row', 'delivered'))
    expect(numbers(row)).toEqual([0, 1, 2, 3, 4])
  })
})

/** The driver, and how often each function was called through it. */
function counting(driver: Driver): { readonly driver: Driver; calls(fn: string): number } {
  const counts = new Map<string, number>()
  const call: Driver['call'] = (fn, ...rest) => {
    counts.set(fn, (counts.get(fn) ?? 0) + 1)
    return driver.call(fn, ...rest)
  }
  return { driver: sameWith(driver, call), calls: (fn) => counts.get(fn) ?? 0 }
}

/** A driver whose connection is lost whenever this function is called. */
function lose(driver: Driver, lost: string): Driver['call'] {
  return (fn, ...rest) =>
    fn === lost
      ? Promise.reject(new TmsError({ code: 'DB_UNREACHABLE', what: 'the connection was lost', why: '', next: [] }))
      : driver.call(fn, ...rest)
}

function sameWith(driver: Driver, call: Driver['call']): Driver {
  return {
    target: driver.target,
    call,
    listen: (channel, heard) => driver.listen(channel, heard),
    close: () => driver.close(),
  }
}

/** Takes the event at once and answers when it is told to. */
function takeAndHold(into: Receiver, held: (() => void)[]) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      into.received.push({ headers: request.headers, path: request.url ?? '', body: Buffer.concat(parts).toString() })
      held.push(() => response.writeHead(202).end())
    })
  }
}
