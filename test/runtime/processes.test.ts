import { randomBytes, randomUUID } from 'node:crypto'
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { rotateAccount } from '../../src/accounts/accounts.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { createSigningClient } from '../../src/signing/client.ts'
import { embeddedSubject, type Subject } from '../contract/subjects.ts'
import { startSchema } from '../servers/schema.ts'
import { policy, readyFleet } from '../fleet/fleet.ts'
import { checkSigned, receiver, signingSecret } from '../outbox/targets/receivers.ts'
import { query } from '../servers/postgres.ts'
import { until } from '../servers/process.ts'
import { startWire, type Wire } from '../servers/wire.ts'
import { bin, build } from '../ui/built.ts'
import { collect, envelopeOf, root, run, start } from '../ui/process.ts'

/** The built program as a worker: real processes, real signals, a real database. */

const secret = 'sk_live_4eC39HqLyjWDarjtT1zdp7dc'

/** What an author would have written, and installed the package next to it. */
const agentFile = `
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { defineAgent, z } from '@transbot/tms/agent'

const any = z.looseObject({})
export default defineAgent({
  name: 'demo',
  functions: {
    'demo.quick': { input: any, output: z.void(), run: async () => undefined },
    'demo.publish': { input: any, output: z.void(), run: async (context) => context.publish('demo.done', { ok: true }) },
    'demo.hold': {
      input: any,
      output: z.void(),
      run: async ({ task, signal }) => {
        writeFileSync(join(process.env.HELD, task.id + '-' + task.attempt), '')
        await new Promise((resolve) => signal.addEventListener('abort', resolve))
        signal.throwIfAborted()
      },
    },
    'demo.deaf': {
      input: any,
      output: z.void(),
      run: ({ task }) => {
        writeFileSync(join(process.env.HELD, task.id + '-' + task.attempt), '')
        return new Promise(() => undefined)
      },
    },
    'demo.crash': {
      input: any,
      output: z.void(),
      run: async () => void setTimeout(() => { throw new Error('the timer of ${secret} broke') }),
    },
    'demo.stumble': {
      input: any,
      output: z.void(),
      run: async ({ task }) => {
        if (task.attempt > 1) return
        // It outlives its process, and holds its standard output.
        const left = spawn('sleep', ['600'], { stdio: ['ignore', 'inherit', 'ignore'], detached: true })
        writeFileSync(join(process.env.HELD, 'left-behind'), String(left.pid))
        setTimeout(() => { throw new Error('a timer broke') })
      },
    },
    'demo.float': {
      input: any,
      output: z.void(),
      run: async () => void Promise.reject(new Error('the carrier refused ${secret} of jane.doe@example.com')),
    },
  },
})
`

type World = {
  /** A folder in which tms works, as the service account that works. */
  readonly cwd: string
  readonly env: Readonly<Record<string, string>>
  /** Asks as an operator. Opened and closed each time: on the embedded database the process under test is to own it. */
  ask<T>(work: (driver: Driver) => Promise<T>): Promise<T>
  /** As somebody who sees every row, while no process holds the database. */
  sql(text: string): Promise<readonly Record<string, unknown>[]>
  /** Between the process and the database, where there is one. */
  readonly wire: Wire | null
  stop(): Promise<void>
}

const functions = ['quick', 'publish', 'hold', 'deaf', 'float', 'crash', 'stumble'].map((name) => `demo.${name}`)
const demo = policy('demo', { functions, approval: [], timeout_ms: 600_000 })

async function folderFor(config: string): Promise<{ cwd: string; env: Record<string, string> }> {
  const cwd = await mkdtemp(join(tmpdir(), 'tms-processes-'))
  await mkdir(join(cwd, 'agents'))
  await mkdir(join(cwd, 'held'))
  await mkdir(join(cwd, 'node_modules/@transbot'), { recursive: true })
  await symlink(root, join(cwd, 'node_modules/@transbot/tms'))
  await writeFile(join(cwd, 'agents/demo.mjs'), agentFile)
  await mkdir(join(cwd, 'policies/agents'), { recursive: true })
  await writeFile(
    join(cwd, 'policies/agents/demo.yaml'),
    `agent: demo\ndescription: d\nowner: o\nfunctions: [${functions.join(', ')}]\nmay:\n  publish: [demo.*]\n`,
  )
  await writeFile(
    join(cwd, 'policies/targets.yaml'),
    'targets:\n  - name: events\n    kind: file\n    topics: [demo.*]\n    config: { file: events.jsonl }\n',
  )
  await writeFile(join(cwd, 'tms.config.yaml'), config)
  return { cwd, env: { HELD: join(cwd, 'held'), TMS_COLOR: 'false', TMS_POLL_MS: '100' } }
}

async function embedded(): Promise<World> {
  const subject = await embeddedSubject()
  const fleet = await readyFleet(subject, [demo])
  const directory = fleet.operator.target.name.replace('embedded ', '')
  await fleet.worker.close()
  await fleet.operator.close()
  const { cwd, env } = await folderFor(`driver: embedded\ndirectory: ${directory}\n`)
  return {
    cwd,
    env,
    wire: null,
    sql: (text) => subject.sql(text),
    ask: (work) => opened(() => subject.operator(), work),
    stop: async () => {
      await subject.stop()
      await rm(cwd, { recursive: true, force: true })
    },
  }
}

async function postgres(): Promise<World> {
  const { server, database } = await startSchema()
  const times = { connectTimeoutMs: 10_000, callTimeoutMs: 20_000 }
  const operator = () => openPostgres({ driver: 'postgres', url: database.url, ...times })
  await query(database.url, `select tms._bootstrap('postgres', session_user::text, 'operator@example.com')`)
  const password = randomBytes(12).toString('hex')
  const subject: Subject = {
    name: 'postgres',
    operator,
    credential: () => Promise.reject(new Error('nobody else here')),
    async account(account) {
      const name = `${account}_${randomBytes(3).toString('hex')}`
      await query(database.superuserUrl, `create role "${name}" login password '${password}' in role tms_caller`)
      await opened(operator, async (driver) =>
        granted(
          await driver.call('accounts_rotate', {
            request_id: randomUUID(),
            account,
            kind: 'postgres',
            name,
            overlap_seconds: 0,
          }),
        ),
      )
      return name
    },
    as: (name) => {
      url = database.urlAs(name, password)
      return openPostgres({ driver: 'postgres', url, ...times })
    },
    sql: (text, parameters) => query(database.superuserUrl, text, parameters),
    stop: () => server.stop(),
  }
  let url = ''
  const fleet = await readyFleet(subject, [demo])
  await fleet.worker.close()
  await fleet.operator.close()
  const wire = await startWire(server.port)
  const { cwd, env } = await folderFor('driver: postgres\n')
  const through = new URL(url)
  through.port = String(wire.port)
  return {
    cwd,
    env: { ...env, DATABASE_URL: through.href },
    wire,
    sql: (text) => subject.sql(text),
    ask: (work) => opened(operator, work),
    stop: async () => {
      await wire.stop()
      await subject.stop()
      await rm(cwd, { recursive: true, force: true })
    },
  }
}

async function opened<T>(open: () => Promise<Driver>, work: (driver: Driver) => Promise<T>): Promise<T> {
  const driver = await open()
  try {
    return await work(driver)
  } finally {
    await driver.close()
  }
}

/** A process, everything it said so far, and how it ends. */
type Running = {
  readonly child: ChildProcessWithoutNullStreams
  readonly ended: ReturnType<typeof collect>
  out(): string
  err(): string
}

async function working(world: World, words: readonly string[], env: Record<string, string> = {}): Promise<Running> {
  // A process group of its own, as a shell gives it one.
  const child = spawn(process.execPath, [bin, ...words], {
    cwd: world.cwd,
    env: { PATH: process.env['PATH'] ?? '', HOME: '/nonexistent', ...world.env, ...env },
    detached: true,
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  let out = ''
  let err = ''
  child.stdout.on('data', (part: Buffer) => (out += part.toString()))
  child.stderr.on('data', (part: Buffer) => (err += part.toString()))
  const ended = collect(child)
  const running = { child, ended, out: () => out, err: () => err }
  const begun = () => {
    if (child.exitCode !== null) throw new Error(`it ended: ${out}${err}`)
    return /"worker":"\d+"|worker +\d+/.test(out)
  }
  await until('the worker has begun', begun)
  return running
}

const startWords = ['agents', 'start', '--grace', '0', '--json'] as const

const linesOf = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)

// Opening the embedded database takes most of the time of a test, and these don't ask which database it is.
const full = process.env['TMS_TEST_FULL'] === '1'
if (!full)
  process.stderr.write('skipping on embedded what is about processes only: it is run there with the full sizes\n')

describe.each(Object.entries({ embedded, postgres }))('tms agents start on %s', (name, make) => {
  const ofProcesses = test.skipIf(name === 'embedded' && !full)
  let world: World
  beforeAll(async () => {
    build()
    world = await make()
  })
  // Whatever a test left, the next one begins with nothing; the processes were ended before this.
  afterEach(async () => {
    await world.sql(`update tms.workers set stopped_at = now() where stopped_at is null returning 1`)
    await clear()
  })
  afterAll(() => world.stop())

  const enqueue = (fn: string, count = 1) =>
    world.ask(async (driver) => {
      const tasks = Array.from({ length: count }, () => ({ function: `demo.${fn}` }))
      return granted(await driver.call('tasks_enqueue', { request_id: randomUUID(), tenant: 'acme', tasks })).ids
    })
  const look = (id: string) =>
    world.ask(async (driver) => granted(await driver.call('agents_runs', { task: id, limit: 20 })))
  const completed = (ids: readonly string[]) =>
    until('they are completed', () =>
      world.ask(async (driver) => {
        for (const id of ids) {
          const { task } = granted(await driver.call('agents_runs', { task: id, limit: 1 }))
          if (task?.status !== 'completed') return false
        }
        return true
      }),
    )
  const workers = () => world.ask(async (driver) => granted(await driver.call('agents_list', {})).workers)
  /** Resolves when the handler of this task runs for the n-th time. */
  const held = (id: string, attempt = 1) =>
    until(`task ${id} is held`, async () => (await readdir(join(world.cwd, 'held'))).includes(`${id}-${attempt}`))
  const clear = () =>
    world.sql(
      `update tms.agent_tasks set status = 'failed', finished_at = now(), worker_id = null, run_until = null where status in ('pending', 'running') returning 1`,
    )

  test('works off what is there, hands back at SIGTERM what runs, and its JSON ends with the envelope', async () => {
    const running = await working(world, startWords)
    await completed(await enqueue('quick', 20))
    const [id = ''] = await enqueue('hold')
    await held(id)
    running.child.kill('SIGTERM')
    const { code, stdout, stderr } = await running.ended
    expect([code, stderr]).toEqual([143, ''])
    const lines = linesOf(stdout)
    expect(lines[0]).toMatchObject({ agents: ['demo'], halted: false })
    expect(lines.at(-1)).toMatchObject({
      ok: false,
      command: 'agents start',
      data: { completed: 20, running: 0 },
      error: { code: 'TERMINATED' },
    })
    expect(lines.slice(0, -1).every((line) => !('command' in line))).toBe(true)
    const { task, runs } = await look(id)
    expect([task?.status, task?.attempts]).toEqual(['pending', 0])
    expect(runs.every(({ outcome }) => outcome === 'returned')).toBe(true)
    expect(await workers()).toEqual([])
  })

  ofProcesses('ends well though a handler ignores its signal and nobody takes its spans', async () => {
    // Where spans go: answers nobody, and the last of them are given up after five seconds.
    const collector = createServer()
    onTestFinished(() => void collector.close())
    await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve))
    const { port } = collector.address() as AddressInfo
    const traced = (on: boolean) =>
      world.ask(async (driver) =>
        granted(
          await driver.call('flags_set', {
            request_id: randomUUID(),
            key: 'obs.otelEnabled',
            level: 'global',
            value: on,
            why: 'test',
          }),
        ),
      )
    await traced(true)
    const running = await working(world, startWords, { TMS_OTEL_ENDPOINT: `http://127.0.0.1:${port}` })
    const traceparent = `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`
    const enqueued = (fn: string) =>
      world.ask(
        async (driver) =>
          granted(
            await driver.call('tasks_enqueue', {
              request_id: randomUUID(),
              tenant: 'acme',
              tasks: [{ function: `demo.${fn}`, traceparent }],
            }),
          ).ids,
      )
    const [deaf = ''] = await enqueued('deaf')
    await held(deaf)
    await completed(await enqueued('quick'))
    running.child.kill('SIGTERM')
    const { code, stdout } = await running.ended
    await traced(false)
    expect(code).toBe(143)
    expect(linesOf(stdout).at(-1)).toMatchObject({ command: 'agents start', data: { completed: 1, spans: 0 } })
  })

  test('killed with -9: its tasks come back when the lease is over', async () => {
    const running = await working(world, startWords)
    const [id = ''] = await enqueue('hold')
    await held(id)
    running.child.kill('SIGKILL')
    await running.ended
    await world.sql(
      `update tms.workers set lease_until = clock_timestamp() - interval '1 second' where stopped_at is null`,
    )
    const next = await working(world, startWords)
    await held(id, 2)
    next.child.kill('SIGINT')
    expect((await next.ended).code).toBe(130)
    const { task, runs } = await look(id)
    expect([task?.status, task?.attempts]).toEqual(['pending', 1])
    expect(runs.map(({ outcome }) => outcome)).toContain('lost')
  })

  ofProcesses('with --workers 3 three are there, and none when it has ended', async () => {
    const running = await working(world, [...startWords, '--workers', '3'])
    await until('three workers are there', async () => (await workers()).length === 3)
    const pids = (await workers()).map(({ name: label }) => Number(label.split('/').at(-1)))
    expect(new Set(pids).size).toBe(3)
    // the one that was started looks after them and runs no agent
    expect(pids).not.toContain(running.child.pid)
    await completed(await enqueue('quick', 30))
    running.child.kill('SIGTERM')
    const { code, stdout } = await running.ended
    expect(code).toBe(143)
    const lines = linesOf(stdout)
    expect(lines.at(-1)).toMatchObject({ command: 'agents start', data: { processes: 3, crashes: 0 } })
    expect(lines.slice(0, -1).every((line) => !('command' in line))).toBe(true)
    expect(await workers()).toEqual([])
    for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow('ESRCH')
  })

  test('with --workers an error that nobody caught ends one process, which comes back, and the exit code tells of it', async () => {
    const running = await working(world, [...startWords, '--workers', '2'])
    await until('two workers are there', async () => (await workers()).length === 2)
    const before = (await workers()).map(({ pid }) => pid)
    await enqueue('stumble')
    onTestFinished(async () => void process.kill(Number(await readFile(join(world.cwd, 'held/left-behind'), 'utf8'))))
    await until('one has crashed', () => running.out().includes('a worker process crashed'))
    await until('there are two again', async () => (await workers()).length === 2)
    expect((await workers()).filter(({ pid }) => before.includes(pid))).toHaveLength(1)
    await completed(await enqueue('quick', 10))
    running.child.kill('SIGTERM')
    const { code, stdout, stderr } = await running.ended
    expect(code).toBe(70)
    expect(linesOf(stdout).at(-1)).toMatchObject({
      ok: false,
      data: { processes: 2, crashes: 1 },
      error: { code: 'BUG', message: expect.stringContaining('crashed on the way') },
    })
    expect(stdout + stderr).not.toContain(secret)
    expect(await workers()).toEqual([])
  })

  ofProcesses('with --workers a broken agent ends the start with exit code 2', async () => {
    const path = join(world.cwd, 'agents/torn.mjs')
    await writeFile(path, 'export default {')
    onTestFinished(() => rm(path))
    const { code, stderr } = await run([bin, 'agents', 'start', '--workers', '2'], {
      cwd: world.cwd,
      env: { ...world.env },
    })
    expect([code, stderr]).toEqual([2, expect.stringContaining('torn.mjs')])
    expect(await workers()).toEqual([])
  })

  test('the processes of --workers end when the first one is killed, and hand back', async () => {
    const running = await working(world, [...startWords, '--workers=2'])
    await until('two workers are there', async () => (await workers()).length === 2)
    running.child.kill('SIGKILL')
    // The killed one may still have its lease, or not any more: the others have signed off, not timed out.
    await until('the others have signed off', async () =>
      (await workers()).every(({ pid }) => pid === running.child.pid),
    )
  })

  test('Ctrl-C, which reaches all its processes, is one signal for each: all hand back', async () => {
    const running = await working(world, [...startWords, '--workers', '2'])
    await until('two workers are there', async () => (await workers()).length === 2)
    const ids: string[] = []
    for (let n = 0; n < 12; n++) ids.push(...(await enqueue('hold')))
    for (const id of ids) await held(id)
    // As a terminal does it.
    const { pid = 0 } = running.child
    process.kill(-pid, 'SIGINT')
    expect((await running.ended).code).toBe(130)
    expect(await workers()).toEqual([])
    for (const id of ids) {
      const { task } = await look(id)
      expect([task?.status, task?.attempts]).toEqual(['pending', 0])
    }
  })

  ofProcesses('works on when nobody reads its output any more', async () => {
    const running = await working(world, startWords)
    running.child.stdout.destroy()
    await completed(await enqueue('quick', 5))
    running.child.kill('SIGTERM')
    expect((await running.ended).code).toBe(143)
    expect(await workers()).toEqual([])
  })

  ofProcesses('a broken agent ends the start with exit code 2 and the name of the file', async () => {
    const path = join(world.cwd, 'agents/torn.mjs')
    await writeFile(path, 'export default {')
    onTestFinished(() => rm(path))
    const { code, stderr } = await run([bin, 'agents', 'start'], { cwd: world.cwd, env: { ...world.env } })
    expect([code, stderr]).toEqual([2, expect.stringContaining('torn.mjs')])
    expect(await workers()).toEqual([])
  })

  ofProcesses(
    'an error that an agent lets fall is a line of the log without secrets, and the work goes on',
    async () => {
      const running = await working(world, ['agents', 'start', '--grace', '0'])
      const ids = await enqueue('float')
      await completed(ids)
      await completed(await enqueue('quick'))
      running.child.kill('SIGTERM')
      const { code, stdout, stderr } = await running.ended
      expect(stdout + stderr).not.toMatch(/sk_live|jane/)
      expect(stderr).toContain('the carrier refused')
      expect(code).toBe(143)
    },
  )

  ofProcesses("an error in an agent's timer ends the process, which says so and hands back what it holds", async () => {
    const running = await working(world, startWords)
    const [id = ''] = await enqueue('hold')
    await held(id)
    await enqueue('crash')
    const { code, stdout, stderr } = await running.ended
    expect(code).toBe(70)
    const lines = linesOf(stdout)
    expect(lines).toContainEqual(
      expect.objectContaining({ level: 'error', message: expect.stringContaining('an error that nobody caught') }),
    )
    expect(lines.at(-1)).toMatchObject({ ok: false, error: { code: 'BUG' } })
    expect(stdout).toContain('broke')
    expect(stdout + stderr).not.toContain(secret)
    expect(await workers()).toEqual([])
    // Each that ran may have been the one: it comes again, but not for ever.
    const { task, runs } = await look(id)
    expect([task?.status, task?.attempts]).toEqual(['pending', 1])
    expect(runs[0]).toMatchObject({ outcome: 'retried', class: 'bug', error: 'an uncaught error ended its process' })
  })

  if (name === 'postgres') {
    test('goes on when the database was away', async () => {
      // A call that finds nobody is tried again until its time is up; the worker hears of it then.
      const running = await working(world, startWords, { TMS_TIMEOUT: '3' })
      const before = await enqueue('quick', 3)
      await completed(before)
      await world.wire?.refuse()
      onTestFinished(() => world.wire?.resume().catch(() => undefined))
      await until('it says so', () => /cannot (beat|claim|reap)/.test(running.out()))
      await world.wire?.resume()
      await completed(await enqueue('quick', 3))
      running.child.kill('SIGTERM')
      const { code, stdout } = await running.ended
      expect([code, stdout]).toEqual([143, expect.stringContaining('the database answers again')])
      expect(await workers()).toEqual([])
    })

    test('killed while it sends, an event comes again under its id', async () => {
      const hook = await receiver(checkSigned)
      hook.misbehave = (request) => request.resume()
      const target = {
        name: 'hook',
        kind: 'webhook' as const,
        topics: ['demo.*'],
        config: {
          url: `${hook.url}/in`,
          hosts: [new URL(hook.url).host],
          keyId: 'tms',
          secretFrom: { env: 'TMS_SECRET_HOOK' },
        },
      }
      await world.ask(async (driver) =>
        granted(await driver.call('outbox_targets_set', { request_id: randomUUID(), targets: [target] })),
      )
      const env = { TMS_SECRET_HOOK: signingSecret }
      const running = await working(world, startWords, env)
      await completed(await enqueue('publish'))
      await until('it is sent', () => hook.requests === 1)
      running.child.kill('SIGKILL')
      await running.ended
      const [sent] = await world.sql(`select id::text, status from tms.outbox_deliveries where target = 'hook'`)
      expect(sent?.['status']).toBe('sending')
      hook.misbehave = null
      await world.sql(
        `update tms.outbox_deliveries set lease_until = clock_timestamp() - interval '1 second' where target = 'hook'`,
      )
      const next = await working(world, startWords, env)
      await until('it comes again', () => hook.received.length === 1)
      expect(hook.received[0]?.headers['idempotency-key']).toBe(sent?.['id'])
      expect(
        (await run([bin, 'outbox', 'list', '--json'], { cwd: world.cwd, env: { ...world.env } })).stdout,
      ).not.toContain(signingSecret)
      next.child.kill('SIGTERM')
      await next.ended
    })
  } else {
    test('goes on when the process that held the database was killed', async () => {
      const owner = start([bin, 'up', '--no-work', '--json'], { cwd: world.cwd, env: { ...world.env } })
      let said = ''
      owner.stdout.on('data', (part: Buffer) => (said += part.toString()))
      await until('it holds the database', () => said.includes('"held":true'))
      const running = await working(world, startWords)
      await completed(await enqueue('quick', 3))
      owner.kill('SIGKILL')
      await completed(await enqueue('quick', 3))
      running.child.kill('SIGTERM')
      expect((await running.ended).code).toBe(143)
      expect(await workers()).toEqual([])
    })

    test('tms up does all of it: policies, work, outbox and door', async () => {
      const key = await world.ask(async (driver) => {
        const rotation = { account: 'n8n', kind: 'key', name: 'n8n-1', overlap: '0s', now: new Date() } as const
        return (await rotateAccount(driver, rotation)).secret ?? ''
      })
      const running = await working(world, ['up', '--port', '0', '--grace', '0', '--json'], {
        TMS_DOOR_KEYS: JSON.stringify({ 'n8n-1': key }),
      })
      const door = /http:\/\/127\.0\.0\.1:\d+/.exec(running.out())?.[0] ?? ''
      const client = createSigningClient({ baseUrl: door, keyId: 'n8n-1', secret: key })
      const answer = await client.request('POST', '/v1/tasks', {
        tenant: 'acme',
        tasks: [{ function: 'demo.publish' }],
      })
      expect(answer.status).toBe(202)
      const events = join(world.cwd, 'artifacts/outbox/events.jsonl')
      await until('its event is delivered', () =>
        world.ask(async (driver) => {
          const { deliveries } = granted(await driver.call('outbox_list', { limit: 1 }))
          return deliveries[0]?.status === 'delivered'
        }),
      )
      expect(linesOf(await readFile(events, 'utf8'))).toMatchObject([
        { topic: 'demo.done', tenant: 'acme', payload: { ok: true } },
      ])
      running.child.kill('SIGTERM')
      const { code, stdout } = await running.ended
      expect(code).toBe(143)
      expect(linesOf(stdout).at(-1)).toMatchObject({ command: 'up', data: { delivered: 1 } })
      expect(stdout).not.toContain(key)
      expect(await workers()).toEqual([])
    })

    test('tms up whose door cannot open says so, and has claimed nothing', async () => {
      const other = createServer()
      await new Promise<void>((resolve) => void other.listen(0, '127.0.0.1', resolve))
      onTestFinished(() => void other.close())
      const { port } = other.address() as AddressInfo
      const [id = ''] = await enqueue('quick')
      const { code, stdout } = await collect(
        start([bin, 'up', '--port', String(port), '--json'], {
          cwd: world.cwd,
          env: { ...world.env, TMS_DOOR_KEYS: JSON.stringify({ 'n8n-9': secret.repeat(2) }) },
        }),
      )
      expect(code).toBe(3)
      expect(envelopeOf(stdout).error).toMatchObject({
        code: 'TOOL_FAILED',
        message: `The door cannot listen on 127.0.0.1:${port}.`,
      })
      expect((await look(id)).task?.status).toBe('pending')
      expect(await workers()).toEqual([])
    })

    test('tms up --no-work only holds the database', async () => {
      const owner = start([bin, 'up', '--no-work', '--json'], { cwd: world.cwd, env: { ...world.env } })
      const ended = collect(owner)
      let said = ''
      owner.stdout.on('data', (part: Buffer) => (said += part.toString()))
      await until('it holds the database', () => said.includes('"held":true'))
      const [id = ''] = await enqueue('quick')
      expect(await workers()).toEqual([])
      owner.kill('SIGTERM')
      const { code, stdout } = await ended
      expect([code, envelopeOf(stdout).command]).toEqual([143, 'up'])
      expect((await look(id)).task?.status).toBe('pending')
    })
  }
})
