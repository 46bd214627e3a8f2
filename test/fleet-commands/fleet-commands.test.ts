import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { EndedTask } from '../../src/drivers/contract/fleet.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { embeddedSubject } from '../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'
import { json, surroundings, tms } from './run.ts'

/** Every command of agents, outbox and dlq on one embedded database, as super_admin. */

let fleet: Fleet
let folder: string
let restore: () => void

beforeAll(async () => {
  fleet = await readyFleet(await embeddedSubject(), [policy('rates'), policy('loads', { breaker_samples: 2 })])
  granted(
    await fleet.operator.call('outbox_targets_set', {
      request_id: randomUUID(),
      targets: [{ name: 'billing', kind: 'file', topics: ['rates.*'], config: {} }],
    }),
  )
  folder = await mkdtemp(join(tmpdir(), 'tms-fleet-commands-'))
  const directory = fleet.operator.target.name.replace('embedded ', '')
  writeFileSync(join(folder, 'tms.config.yaml'), `driver: embedded\ndirectory: ${directory}\n`)
  restore = surroundings(folder)
})
afterAll(async () => {
  restore()
  await fleet.stop()
  await rm(folder, { recursive: true, force: true })
})
afterEach(() => vi.restoreAllMocks())

const why = ['--why', 'the test says so'] as const

/** Behind the contract: to look, and to make time pass. */
const sql = (text: string) => fleet.operator.administration?.transaction((run) => run(text)) ?? []

/** Takes everything there is and ends it so; answers what became of each task. */
async function work(how: (id: string) => Omit<EndedTask, 'id' | 'claim'>, agents = ['rates', 'loads']) {
  const worker = await fleet.hello(agents, 50)
  const outcomes: Record<string, string> = {}
  const tasks = granted(await fleet.worker.call('tasks_claim', { worker, limit: 50 })).tasks
  const rest = tasks.map(({ id, claim }) => ({ id, claim, ...how(id) }))
  Object.assign(outcomes, granted(await fleet.worker.call('tasks_finish', { worker, rest })).outcomes)
  await fleet.worker.call('worker_bye', { worker })
  return outcomes
}

const invalid = () => ({ outcome: 'failed', class: 'validation', error: 'no such load' }) as const
const completed = () => ({ outcome: 'completed', effects: {} }) as const

/** So many dead letters of the tenant, by their ids. */
async function dead(tenant: string, n = 1): Promise<string[]> {
  await fleet.enqueue(
    tenant,
    Array.from({ length: n }, (_, i) => ({ function: 'rates.one', payload: { load: `L${i}` } })),
  )
  await work(invalid)
  const { letters } = granted(await fleet.operator.call('dlq_list', { tenant, status: 'open', limit: 1000 }))
  return letters.slice(0, n).map(({ id }) => id)
}

const careless = { password: 'hunter2', note: 'card 4111 1111 1111 1111 ada@example.com', load: 'L1' }

function expectCareful(answer: unknown): void {
  const said = JSON.stringify(answer)
  expect(said).toMatch(/L1.*card \[redacted:card\] \[redacted:email\].*\[redacted:secret\]/)
  expect(said).not.toMatch(/hunter2|4111 1111|ada@/)
}

describe('looking at agents', () => {
  test('list shows every agent with its state and its queue', async () => {
    const { code, out } = await tms('agents list')
    expect([code, out]).toEqual([0, expect.stringMatching(/loads +running +0 +0 +0\nrates +running +0 +0 +0/)])
    expect(await json('agents list', '--tenant', 'acme')).toMatchObject({ code: 0, ok: true, error: null })
    expect((await json('agents list', '--tenant', 'nosuch')).error?.code).toBe('NOT_FOUND')
  })

  test('show tells the policy and the state, and which agent was meant', async () => {
    const { code, out } = await tms('agents show', 'rates')
    expect([code, out]).toEqual([0, expect.stringMatching(/need approval +rates\.careful/)])
    const missing = await json('agents show', 'ratse')
    expect([missing.code, missing.error]).toEqual([
      2,
      expect.objectContaining({
        code: 'NOT_FOUND',
        why: expect.stringContaining('rates'),
        next: ['tms agents show rates', 'tms agents list', 'tms agents policy load'],
      }),
    ])
  })

  test('status sums the slots of the workers against the limit', async () => {
    const worker = await fleet.hello(['rates'], 20)
    expect((await tms('agents status')).out).toMatch(/fence +open \(epoch 0\)[^]*slots +20 of at most 150/)
    await fleet.worker.call('worker_bye', { worker })
    expect((await json('agents status')).data).toMatchObject({ slots: 0, limit: 150, halt: null, silent: [] })
  })

  test('status names what is stopped, and every breaker that is not closed', async () => {
    await fleet.enqueue('globex', [{ function: 'loads.one' }, { function: 'loads.one' }])
    await work(invalid, ['loads'])
    await tms('agents pause', '--tenant', 'acme', '--why', 'ticket 4711')
    const { code, out } = await tms('agents status')
    await tms('agents resume', '--tenant', 'acme', ...why, '--confirm', 'acme')
    expect([code, out]).toEqual([0, expect.stringMatching(/tenant acme +paused +\S+ \S+ +ticket 4711/)])
    expect(out).toMatch(/loads +open +20/)
    expect((await tms('agents resume', 'loads', ...why, '--confirm', 'loads')).code).toBe(0)
    expect((await tms('agents status')).out).toContain('2, all running')
  })

  test('status shows a halt, by whom and why, and the workers that are silent since', async () => {
    const worker = await fleet.hello(['rates'])
    granted(await fleet.operator.call('fence_halt', { why: 'a drill' }))
    const { code, out } = await tms('agents status')
    const replay = await tms('dlq replay', '--tenant', 'acme')
    for (const step of ['prepare', 'lift'] as const) {
      granted(await fleet.operator.call('fence_resume', { request_id: randomUUID(), step, why: 'the drill is over' }))
    }
    await fleet.worker.call('worker_bye', { worker })
    expect([code, out]).toEqual([0, expect.stringMatching(/fence +HALTED since \S+ \S+ by \S+: a drill/)])
    expect(out).toMatch(/silent since the halt +host[^]*test +test/)
    expect([replay.code, replay.err]).toEqual([0, expect.stringContaining('the fleet is halted')])
  })
})

describe('steering agents', () => {
  test('pausing asks nothing, settles, and names database and workers', async () => {
    const { code, out, err } = await tms('agents pause', 'rates', ...why)
    expect([code, err]).toEqual([0, ''])
    expect(out).toMatch(/agent rates: running -> paused[^]*embedded .*, 0 workers[^]*nothing of it commits any more/)
    expect((await json('agents pause', 'rates', ...why)).data).toMatchObject({
      before: 'paused',
      after: 'paused',
      settled: true,
    })
  })

  test('resuming without consent is refused with the exact command, and changes nothing', async () => {
    const refused = await json('agents resume', 'rates', ...why)
    expect([refused.code, refused.error]).toEqual([
      4,
      expect.objectContaining({
        code: 'CONSENT_MISSING',
        next: [`tms agents resume rates --why 'the test says so' --json --confirm rates`],
      }),
    ])
    expect((await tms('agents resume', 'rates', ...why, '--confirm', 'loads')).code).toBe(4)
    expect((await tms('agents show', 'rates')).out).toMatch(/state +paused[^]*the test says so/)
    expect((await tms('agents resume', 'rates', ...why, '--confirm', 'rates')).out).toContain('paused -> running')
  })

  test('what runs while it is paused does not commit', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'rates.one' }])
    const worker = await fleet.hello(['rates'])
    const [task] = granted(await fleet.worker.call('tasks_claim', { worker, limit: 1 })).tasks
    expect((await tms('agents pause', 'rates', ...why)).out).toMatch(/in hand +1 task, which will not commit/)
    const rest: EndedTask[] = [{ id, claim: task?.claim ?? 0, outcome: 'completed', effects: {} }]
    expect(granted(await fleet.worker.call('tasks_finish', { worker, rest })).outcomes).toEqual({ [id]: 'returned' })
    await fleet.worker.call('worker_bye', { worker })
    await tms('agents resume', 'rates', ...why, '--confirm', 'rates')
    expect(await work(completed)).toEqual({ [id]: 'completed' })
  })

  test('draining says how much may still end; quarantine takes an agent out', async () => {
    const drained = await tms('agents drain', '--tenant', 'acme', ...why)
    expect([drained.code, drained.out]).toEqual([0, expect.stringContaining('tenant acme: running -> draining')])
    expect(drained.out).not.toContain('settled')
    expect((await json('agents resume', '--tenant', 'acme', ...why, '--confirm', 'acme')).data).toMatchObject({
      before: 'draining',
      after: 'running',
      what: { kind: 'tenant', name: 'acme' },
    })
    expect((await json('agents quarantine', 'rates', ...why)).data).toMatchObject({
      after: 'quarantined',
      settled: true,
    })
    expect((await tms('agents list')).out).toMatch(/rates +quarantined/)
    expect((await tms('agents resume', 'rates', ...why, '--confirm', 'rates')).code).toBe(0)
  })

  test.each([
    ['agents pause', []],
    ['agents pause', ['rates', '--tenant', 'acme']],
    ['agents resume', ['rates', '--tenant', 'acme', '--confirm', 'rates']],
    ['agents drain', []],
  ])('%s %j names neither one agent nor one tenant: exit 2', async (id, argv) => {
    expect(await json(id, ...argv, ...why)).toMatchObject({ code: 2, error: { code: 'USAGE' } })
  })

  test('a lever needs a reason, and an agent that is there', async () => {
    expect((await tms('agents pause', 'rates')).err).toContain('--why')
    const missing = await json('agents pause', 'ratse', ...why)
    expect([missing.code, missing.error?.next[0]]).toEqual([2, 'tms agents show rates'])
    expect((await json('agents resume', 'ratse', ...why)).error?.code).toBe('NOT_FOUND')
  })

  test('the reason may come from TMS_WHY; consent has no variable', async () => {
    const put = surroundings(folder, { TMS_WHY: 'from outside', TMS_CONFIRM: 'rates' })
    try {
      expect((await tms('agents pause', 'rates')).code).toBe(0)
      expect((await tms('agents resume', 'rates')).code).toBe(4)
      expect((await tms('agents resume', 'rates', '--confirm', 'rates')).code).toBe(0)
    } finally {
      put()
    }
  })
})

describe('tasks', () => {
  const enqueue = async (...argv: string[]) =>
    (await tms('agents enqueue', 'rates.one', '--tenant', 'acme', ...argv)).out.trim()
  const payloadOf = async (id: string) =>
    granted(await fleet.operator.call('agents_runs', { task: id, limit: 1 })).task?.payload

  test('enqueue prints the id and nothing else', async () => {
    const id = await enqueue('--payload', '{"load":"L1"}')
    expect(id).toMatch(/^\d+$/)
    expect(await payloadOf(id)).toEqual({ load: 'L1' })
    expect(await payloadOf(await enqueue())).toEqual({})
    await work(completed)
  })

  test('the payload comes from a file or from standard input', async () => {
    writeFileSync(join(folder, 'load.json'), '{"load":"L2"}\n')
    expect(await payloadOf(await enqueue('--payload', '@load.json'))).toEqual({ load: 'L2' })
    vi.spyOn(process, 'stdin', 'get').mockReturnValue(
      // True as far as it is used: it is read to its end.
      Readable.from([Buffer.from('{"load":"L3"}\n')]) as unknown as typeof process.stdin,
    )
    expect(await payloadOf(await enqueue('--payload', '-'))).toEqual({ load: 'L3' })
    await work(completed)
  })

  test('a payload that is no JSON is refused without being quoted', async () => {
    const { code, err } = await tms('agents enqueue', 'rates.one', '--tenant', 'acme', '--payload', '{secret')
    expect([code, err]).toEqual([2, expect.not.stringContaining('{secret')])
    expect((await json('agents enqueue', 'rates.one', '--tenant', 'acme', '--payload', '@nowhere')).error?.code).toBe(
      'FILE_UNREADABLE',
    )
  })

  test('a key makes one task; delay and priority arrive', async () => {
    const id = await enqueue('--key', 'L7', '--delay', '1h', '--priority', 'high')
    expect(await enqueue('--key', 'L7')).toBe(id)
    const [row] = await sql(
      `select priority, next_run_at > now() + interval '59 minutes' as later from tms.agent_tasks where id = ${id}`,
    )
    expect(row).toEqual({ priority: 1, later: true })
    expect((await tms('agents enqueue', 'rates.one', '--tenant', 'acme', '--delay', 'soon')).code).toBe(2)
    expect((await json('agents enqueue', 'other.one', '--tenant', 'acme')).error?.code).toBe('POLICY_DENIED')
  })

  test('runs lists attempts without payloads, and one task with its own', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'rates.two', payload: { load: 'secret-load' } }])
    await work(completed)
    const list = await tms('agents runs', '--agent', 'rates', '--outcome', 'completed')
    expect([list.code, list.out]).toEqual([0, expect.stringMatching(new RegExp(`${id}#1 +acme rates.two +completed`))])
    expect(JSON.stringify((await json('agents runs')).data)).not.toContain('secret-load')
    expect((await tms('agents runs', '--task', id)).out).toMatch(
      /status +completed[^]*payload +\{"load":"secret-load"\}/,
    )
    expect((await json('agents runs', '--task', '999999')).code).toBe(2)
    expect((await json('agents runs', '--task', '1; drop')).error?.code).toBe('INPUT_INVALID')
    expect((await tms('agents runs', '--outcome', 'great')).code).toBe(2)
  })

  test('a payload and an output are shown without their secrets, also as JSON, and stay stored as they are', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'rates.two', payload: careless }])
    await work(() => ({ ...completed(), output: careless }))
    const shown = [await tms('agents runs', '--task', id), await json('agents runs', '--task', id)]
    for (const answer of shown) expectCareful(answer)
    expect(await payloadOf(id)).toEqual(careless)
  })

  test('logs shows what a task said', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'rates.one' }])
    const worker = await fleet.hello(['rates'])
    const [task] = granted(await fleet.worker.call('tasks_claim', { worker, limit: 1 })).tasks
    granted(
      await fleet.worker.call('tasks_finish', {
        worker,
        rest: [{ id, claim: task?.claim ?? 0, outcome: 'completed', effects: {} }],
        logs: [
          { at: new Date().toISOString(), task: id, claim: task?.claim ?? 0, level: 'warn', message: 'price is old' },
        ],
      }),
    )
    await fleet.worker.call('worker_bye', { worker })
    expect((await tms('agents logs', '--task', id)).out).toMatch(/warn +rates +\d+ +price is old/)
    expect((await tms('agents logs', '--level', 'error')).out).toContain('No logs.')
    expect((await json('agents logs', '--task', 'x')).code).toBe(2)
  })
})

describe('approval', () => {
  const effects = { events: [{ topic: 'rates.quoted', payload: { price: 'secret-price' } }] }
  async function parked(): Promise<string> {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'rates.careful' }])
    expect(await work(() => ({ outcome: 'completed', effects }))).toEqual({ [id]: 'awaiting_approval' })
    return id
  }

  test('the list names what each would do, without the data; one task shows all of it', async () => {
    const id = await parked()
    const list = await json('agents approve', '--list')
    expect(list.data).toMatchObject({ tasks: [{ id, effects: { apply: [], publish: ['rates.quoted'], enqueue: [] } }] })
    expect(JSON.stringify(list)).not.toContain('secret-price')
    expect((await tms('agents approve', id, '--list', '--tenant', 'acme')).out).toContain('secret-price')
    expect((await tms('agents approve', id, '--tenant', 'acme', '--reject', ...why)).out).toContain('rejected')
    expect((await tms('agents approve', '--list', '--tenant', 'acme')).out).toContain('Nothing waits for approval.')
  })

  test('approving needs consent that names the task, and then does what was stored', async () => {
    const id = await parked()
    const refused = await tms('agents approve', id, '--tenant', 'acme', ...why)
    expect([refused.code, refused.err]).toEqual([
      4,
      expect.stringMatching(
        new RegExp(`publish rates.quoted[^]*tms agents approve ${id} --tenant acme --why '[^']+' --confirm ${id}`),
      ),
    ])
    expect((await json('agents runs', '--task', id)).data).toMatchObject({ task: { status: 'awaiting_approval' } })
    const approved = await json('agents approve', id, '--tenant', 'acme', ...why, '--confirm', id)
    expect(approved).toMatchObject({ code: 0, ok: true, data: { task: id, outcome: 'completed' } })
    const again = await json('agents approve', id, '--tenant', 'acme', ...why, '--confirm', id)
    expect([again.code, again.error?.code, again.error?.why]).toEqual([4, 'CONFLICT', 'it is completed'])
  })

  test('of a paused agent nothing is approved: exit 4, and it still waits', async () => {
    const id = await parked()
    await tms('agents pause', 'rates', ...why)
    const answer = await json('agents approve', id, '--tenant', 'acme', ...why, '--confirm', id)
    await tms('agents resume', 'rates', ...why, '--confirm', 'rates')
    expect([answer.code, answer.error?.code]).toEqual([4, 'PAUSED'])
    expect((await json('agents approve', id, '--tenant', 'acme', ...why, '--confirm', id)).code).toBe(0)
  })

  test('approved, and not allowed by the policy any more: exit 1', async () => {
    const id = await parked()
    await fleet.load(policy('rates', { publish: [] }), policy('loads', { breaker_samples: 2 }))
    const answer = await json('agents approve', id, '--tenant', 'acme', ...why, '--confirm', id)
    await fleet.load(policy('rates'), policy('loads', { breaker_samples: 2 }))
    expect([answer.code, answer.ok, answer.error]).toEqual([1, false, null])
    expect(answer.data).toMatchObject({ task: id, outcome: expect.not.stringMatching('completed') })
  })

  test.each([
    [[]],
    [['7']],
    [['7', '--tenant', 'acme']],
    [['--list', '--reject']],
    [['seven', '--tenant', 'acme', ...why, '--confirm', 'seven']],
  ])('agents approve %j is incomplete: exit 2', async (argv) => {
    expect((await tms('agents approve', ...argv)).code).toBe(2)
  })
})

describe('outbox', () => {
  /** A delivery to `billing` that ended so. */
  async function delivered(outcome: 'delivered' | 'rejected', tenant = 'acme'): Promise<string> {
    await fleet.enqueue(tenant, [{ function: 'rates.one' }])
    await work(() => ({
      outcome: 'completed',
      effects: { events: [{ topic: 'rates.quoted', payload: { price: 'secret-price' } }] },
    }))
    const { deliveries } = granted(await fleet.worker.call('outbox_claim', { limit: 100 }))
    const error = outcome === 'rejected' ? { error: '410 gone' } : {}
    const results = deliveries.map(({ id, claim }) => ({ id, claim, outcome, ...error }))
    granted(await fleet.worker.call('outbox_finish', { results }))
    return deliveries.at(-1)?.id ?? ''
  }

  test('lists carry no payload, show does', async () => {
    const id = await delivered('rejected')
    const { code, out } = await tms('outbox list', '--status', 'dead', '--target', 'billing')
    expect([code, out]).toEqual([
      0,
      expect.stringMatching(new RegExp(`${id} +dead +billing +acme rates.quoted +1 +410 gone`)),
    ])
    expect(JSON.stringify((await json('outbox list', '--tenant', 'acme')).data)).not.toContain('secret-price')
    expect((await tms('outbox show', id)).out).toMatch(/payload +\{"price":"secret-price"\}[^]*tms outbox retry/)
    expect((await json('outbox show', '999999')).error?.code).toBe('NOT_FOUND')
    expect((await json('outbox show', 'x')).error?.code).toBe('INPUT_INVALID')
  })

  test('retry tells how many will be tried, and is a finding when not all of them', async () => {
    const id = await delivered('rejected')
    expect(await json('outbox retry', id, id, '--tenant', 'acme', ...why)).toMatchObject({
      code: 0,
      data: { ids: [id], retried: 1 },
    })
    const other = await tms('outbox retry', id, '--tenant', 'globex', ...why)
    expect([other.code, other.out]).toEqual([1, expect.stringContaining('not of tenant globex')])
    expect((await tms('outbox retry', '--tenant', 'acme', ...why)).code).toBe(2)
    expect((await tms('outbox retry', id, '--tenant', 'acme')).code).toBe(2)
  })

  test('lag is within what is allowed, or breached, or unknown', async () => {
    await delivered('delivered')
    const within = await tms('outbox lag', '--tenant', 'acme')
    expect([within.code, within.out]).toEqual([0, expect.stringMatching(/^OK[^]*p95 +0\.\d+ s of at most 5 s/)])

    await sql(
      `update tms.outbox_deliveries set created_at = created_at - interval '1 minute' where status = 'delivered'`,
    )
    const breached = await json('outbox lag', '--tenant', 'acme')
    expect([breached.code, breached.error, breached.data]).toEqual([
      1,
      null,
      expect.objectContaining({ verdict: 'breached', slo: { p95_ms: 5000, avg_ms: 2000 } }),
    ])

    const unknown = await json('outbox lag', '--tenant', 'globex')
    expect([unknown.code, unknown.ok, unknown.error?.code, unknown.data]).toEqual([
      3,
      false,
      'NO_DATA',
      expect.objectContaining({ verdict: 'unknown', samples: '0' }),
    ])
    await delivered('rejected', 'globex')
    const dead = await json('outbox lag', '--tenant', 'globex')
    expect([dead.code, dead.error?.why]).toEqual([3, expect.stringMatching(/^1 delivery died/)])
  })
})

describe('dead letters', () => {
  test('lists carry no payload, show does, stats counts', async () => {
    const [id = ''] = await dead('acme')
    const { code, out } = await tms('dlq list', '--status', 'open', '--class', 'validation')
    expect([code, out]).toEqual([0, expect.stringMatching(new RegExp(`${id} +acme +rates.one +validation +open`))])
    expect(JSON.stringify((await json('dlq list')).data)).not.toContain('"L0"')
    expect((await tms('dlq show', id)).out).toMatch(/\{"load":"L0"\}[^]*tms dlq replay --tenant acme --ids/)
    expect((await json('dlq show', id, '--tenant', 'globex')).error?.code).toBe('NOT_FOUND')
    expect((await tms('dlq stats', '--tenant', 'acme')).out).toMatch(/acme +validation +open +\d/)
    expect((await tms('dlq list', '--class', 'nosuch')).code).toBe(2)
  })

  test('one is shown without the secrets in its payload, which stays stored as it was', async () => {
    const [task = ''] = await fleet.enqueue('acme', [{ function: 'rates.one', payload: careless }])
    await work(invalid)
    const [letter] = await sql(`select id::text from tms.dead_letter_queue where task_id = ${task}`)
    const id = String(letter?.['id'])
    for (const answer of [await tms('dlq show', id), await json('dlq show', id)]) expectCareful(answer)
    expect(await sql(`select payload from tms.dead_letter_queue where id = ${id}`)).toEqual([{ payload: careless }])
    await tms('dlq discard', id, '--tenant', 'acme', ...why, '--confirm', `acme/${id}`)
  })

  test('a snoozed one is left out of replays, with the reason', async () => {
    const [id = ''] = await dead('acme')
    expect((await tms('dlq snooze', id, '--tenant', 'acme', '--for', '2h', ...why)).out).toContain(
      '1 of 1 snoozed until',
    )
    const { data } = await json('dlq replay', '--tenant', 'acme', '--ids', id)
    expect(data).toMatchObject({
      items: [],
      skipped: [{ id, why: expect.stringContaining('snoozed until') }],
      command: null,
    })
    expect((await json('dlq snooze', id, '--tenant', 'globex', '--for', '2h', ...why)).code).toBe(1)
    expect((await json('dlq snooze', id, '--tenant', 'acme', ...why)).error?.code).toBe('USAGE')
    expect((await json('dlq snooze', '--id', id, '--tenant', 'acme', '--for', '2h', ...why)).code).toBe(2)
    const past = ['--until', '2020-01-01T00:00:00Z'] as const
    expect((await json('dlq snooze', id, '--tenant', 'acme', ...past, ...why)).error?.code).toBe('INPUT_INVALID')
  })

  test('discarding needs consent that names tenant and letters', async () => {
    const [one = '', two = ''] = await dead('acme', 2)
    const refused = await json('dlq discard', one, two, '--tenant', 'acme', ...why)
    const name = [one, two].toSorted((a, b) => Number(a) - Number(b)).join(',')
    expect([refused.code, refused.error?.next[0]]).toEqual([4, expect.stringContaining(`--confirm acme/${name}`)])
    expect((await json('dlq show', one)).data).toMatchObject({ status: 'open' })
    const done = await json('dlq discard', two, one, '--tenant', 'acme', ...why, '--confirm', `acme/${name}`)
    expect(done).toMatchObject({ code: 0, data: { changed: 2, action: 'discard' } })
    const again = await tms('dlq discard', one, '--tenant', 'acme', ...why, '--confirm', `acme/${one}`)
    expect([again.code, again.out]).toEqual([1, expect.stringContaining("1 were not: they aren't open")])
  })
})

describe('replay', () => {
  test('without --execute it shows the plan and the exact command, and changes nothing', async () => {
    const [id = ''] = await dead('globex')
    const { code, out } = await tms('dlq replay', '--tenant', 'globex', '--ids', id)
    expect([code, out]).toEqual([0, expect.stringContaining('Nothing was changed.')])
    expect(out).toMatch(
      new RegExp(`tms dlq replay --tenant globex --ids ${id} --execute --why <reason> --confirm globex/\\w{12}\n`),
    )
    expect((await json('dlq show', id)).data).toMatchObject({ status: 'open', replays: 0 })
  })

  test('--execute without consent shows the plan, stops at 4, and names the plan', async () => {
    const [id = ''] = await dead('globex')
    const refused = await json('dlq replay', '--tenant', 'globex', '--ids', id, '--execute', ...why)
    const [plan] = refused.lines
    expect(plan).toMatchObject({ items: [{ id }], name: expect.stringMatching(/^globex\/\w{12}$/) })
    expect([refused.code, refused.error]).toEqual([
      4,
      expect.objectContaining({
        code: 'CONSENT_MISSING',
        next: [expect.stringContaining(`--confirm ${(plan as { name: string }).name}`)],
      }),
    ])
    expect((await json('dlq show', id)).data).toMatchObject({ status: 'open' })
    expect((await tms('dlq replay', '--tenant', 'globex', '--execute')).code).toBe(2)
  })

  test('consent to one plan is no consent to another', async () => {
    const [one = '', two = ''] = await dead('globex', 2)
    const { data } = await json('dlq replay', '--tenant', 'globex', '--ids', one)
    const name = (data as { name: string }).name
    const other = await tms(
      'dlq replay',
      '--tenant',
      'globex',
      '--ids',
      `${one},${two}`,
      '--execute',
      ...why,
      '--confirm',
      name,
    )
    expect([other.code, other.err]).toEqual([4, expect.stringContaining('CONSENT_MISSING')])
    expect((await json('dlq show', two)).data).toMatchObject({ status: 'open' })
  })

  const nameOf = async (tenant: string, ids: string) =>
    ((await json('dlq replay', '--tenant', tenant, '--ids', ids)).data as { name: string }).name

  test('--wait follows it to its end: 0 when all worked', async () => {
    const ids = (await dead('globex', 2)).join(',')
    const confirm = ['--confirm', await nameOf('globex', ids)] as const
    const running = tms(
      'dlq replay',
      '--tenant',
      'globex',
      '--ids',
      ids,
      '--execute',
      ...why,
      ...confirm,
      '--wait',
      '1m',
    )
    const open = async () => granted(await fleet.operator.call('dlq_stats', { tenant: 'globex' })).replays.length > 0
    await expect.poll(open).toBe(true)
    await expect.poll(async () => Object.values(await work(completed))).not.toEqual([])
    const { code, out } = await running
    expect([code, out]).toEqual([0, expect.stringContaining('2 of 2 worked')])
    expect((await tms('dlq stats', '--tenant', 'globex')).out).toContain('2 of 2 worked')
  })

  test('--wait answers 1 when one failed again, 3 when the time is over', async () => {
    const [id = ''] = await dead('globex')
    const confirm = ['--confirm', await nameOf('globex', id)] as const
    const late = await json(
      'dlq replay',
      '--tenant',
      'globex',
      '--ids',
      id,
      '--execute',
      ...why,
      ...confirm,
      '--wait',
      '0s',
    )
    expect([late.code, late.error?.code, late.data]).toEqual([
      3,
      'NO_DATA',
      expect.objectContaining({ outcome: expect.anything() }),
    ])
    await work(invalid)
    const again = ['--confirm', await nameOf('globex', id)] as const
    const running = json('dlq replay', '--tenant', 'globex', '--ids', id, '--execute', ...why, ...again, '--wait', '1m')
    await expect.poll(async () => Object.values(await work(invalid))).not.toEqual([])
    const ended = await running
    expect([ended.code, ended.ok, ended.error]).toEqual([1, false, null])
    expect(ended.data).toMatchObject({ items: [{ id }], outcome: { failed: 1 } })
  })

  test('a tenant that may not replay is told before anybody is asked; the dry run only warns', async () => {
    const [id = ''] = await dead('acme')
    await fleet.set('ops.replayEnabled', false, 'acme')
    const dry = await json('dlq replay', '--tenant', 'acme', '--ids', id)
    const real = await json('dlq replay', '--tenant', 'acme', '--ids', id, '--execute', ...why)
    await fleet.set('ops.replayEnabled', true, 'acme')
    expect([dry.code, dry.warnings]).toEqual([0, [expect.stringContaining('ops.replayEnabled is off')]])
    expect([real.code, real.error?.code]).toEqual([4, 'REPLAY_LIMIT'])
    expect((await json('dlq replay', '--tenant', 'acme', '--ids', '999999', '--execute', ...why)).error?.code).toBe(
      'NOT_FOUND',
    )
    expect((await json('dlq replay', '--tenant', 'acme', '--ids', 'x')).error?.code).toBe('INPUT_INVALID')
    expect((await tms('dlq replay', '--tenant', 'acme', '--limit', '51')).code).toBe(2)
    expect((await tms('dlq replay', '--tenant', 'acme', '--wait', '1m')).code).toBe(2)
  })
})

describe('on a terminal of 60 columns', () => {
  /** Commands to paste stay whole; everything else is broken to the width. */
  const tooWide = (out: string) => out.split('\n').filter((line) => line.length > 60 && !line.startsWith('  tms '))

  async function narrow(id: string, ...argv: string[]): Promise<string> {
    const { isTTY, columns } = process.stdout
    Object.assign(process.stdout, { isTTY: true, columns: 60 })
    try {
      return (await tms(id, ...argv, '--no-color')).out
    } finally {
      Object.assign(process.stdout, { isTTY, columns })
    }
  }

  test.each([
    ['agents list', []],
    ['agents show', ['rates']],
    ['agents status', []],
    ['agents pause', ['loads', '--why', 'the prices of the whole region look wrong since this morning']],
    ['agents runs', ['--limit', '3']],
    ['agents logs', []],
    ['agents approve', ['--list']],
    ['outbox list', ['--limit', '3']],
    ['outbox lag', ['--tenant', 'acme']],
    ['dlq list', ['--limit', '3']],
    ['dlq stats', []],
    ['dlq replay', ['--tenant', 'globex']],
  ])('%s %j fits', async (id, argv) => {
    const out = await narrow(id, ...argv)
    expect([out.length > 20, tooWide(out)]).toEqual([true, []])
  })
})
