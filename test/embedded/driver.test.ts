import { randomUUID } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { EmbeddedConnection } from '../../src/drivers/connection.ts'
import type { Driver, RunSql } from '../../src/drivers/driver.ts'
import { openEmbedded, type Internals } from '../../src/drivers/embedded/driver.ts'
import { TmsError } from '../../src/errors.ts'
import { until } from '../servers/process.ts'
import { bundle, connectionTo, type Bundle } from './bundle.ts'
import { tinySchema } from './schema.ts'
import { dial, repliesOn } from './dial.ts'
import { endChildren, startChild } from './children.ts'

let built: Bundle
const open: Driver[] = []
beforeAll(async () => {
  built = await bundle()
  await built.database()
})
afterEach(async () => {
  for (const driver of open.splice(0).reverse()) await driver.close()
  await endChildren()
})
afterAll(() => built.remove())

async function opened(
  directory: string,
  more: Partial<EmbeddedConnection> = {},
  internals: Internals = {},
): Promise<Driver> {
  const driver = await openEmbedded(connectionTo(directory, more), { ...built.internals, ...internals })
  open.push(driver)
  return driver
}

const add = (key: string, request_id: string = randomUUID()) => ({ request_id, key, name: `name of ${key}` })
const busyFor = (milliseconds: number) => ({ channel: 'busy', after: String(milliseconds) })

async function failure(work: Promise<unknown>): Promise<TmsError> {
  const error = await work.then(
    (value) => value,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof TmsError)) throw new Error(`no TmsError but ${inspect(error)}`)
  expect(error.next).not.toEqual([])
  return error
}

async function administer<T>(driver: Driver, work: (run: RunSql) => Promise<T>): Promise<T> {
  if (!driver.administration) throw new Error('this driver has no administration')
  return driver.administration.transaction(work)
}

async function tenants(driver: Driver): Promise<string[]> {
  const answer = await driver.call('tenants_list', {})
  if ('refused' in answer) throw new Error(answer.refused.what)
  return answer.tenants.map(({ key }) => key)
}

async function identity(driver: Driver): Promise<string> {
  const answer = await driver.call('contract_version', {})
  return 'refused' in answer ? answer.refused.what : answer.server
}

describe('a call', () => {
  test('is answered the same by the owner and through its socket', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const client = await opened(directory)
    const request = add('acme')
    const answer = await owner.call('tenants_add', request)
    expect(answer).toMatchObject({ tenant: { key: 'acme', name: 'name of acme' } })
    expect(await client.call('tenants_add', request)).toEqual(answer)
    expect(await tenants(client)).toEqual([request.request_id])
  })

  test('runs as the local user, whoever asks and from wherever', async () => {
    const directory = await built.database()
    const owner = await opened(directory, {}, { localUser: `o'hara "x"` })
    const client = await opened(directory, {}, { localUser: 'somebody else' })
    expect(await identity(owner)).toBe(`tms_local tms_local o'hara "x" off`)
    expect(await identity(client)).toBe(`tms_local tms_local o'hara "x" off`)
  })

  test('runs as the user of the operating system by default', async () => {
    expect(await identity(await opened(await built.database()))).toContain(` ${userInfo().username} `)
  })

  test('reads no table directly', async () => {
    const driver = await opened(await built.database())
    expect(await failure(driver.call('signals', { channel: 'table', after: '0' }))).toMatchObject({
      code: 'ROLE_DENIED',
    })
  })

  test('gives a refusal as a value', async () => {
    const directory = await built.database()
    for (const driver of [await opened(directory), await opened(directory)]) {
      expect(await driver.call('signals', { channel: 'refused', after: '0' })).toEqual({
        refused: { code: 'ROLE_DENIED', what: 'No.', why: 'Because.', next: ['tms whoami'] },
      })
    }
  })

  test('fails with the code that the database gave', async () => {
    const directory = await built.database()
    for (const driver of [await opened(directory), await opened(directory)]) {
      expect(await failure(driver.call('signals', { channel: 'fails', after: '0' }))).toMatchObject({
        code: 'NOT_FOUND',
        message: 'no such thing',
        next: ['tms status'],
      })
    }
  })

  test('with an answer that is not in the contract is a mismatch', async () => {
    const driver = await opened(await built.database())
    expect(await failure(driver.call('signals', { channel: 'nonsense', after: '0' }))).toMatchObject({
      code: 'CONTRACT_MISMATCH',
    })
  })

  test('of a function that the database does not have asks for a newer schema', async () => {
    const driver = await opened(await built.database())
    expect(await failure(driver.call('whoami', {}))).toMatchObject({
      code: 'SCHEMA_OLDER',
      next: expect.arrayContaining(['tms db push']),
    })
  })

  test('takes 2 MB and refuses what is longer than a line, as owner and as client', async () => {
    const directory = await built.database()
    for (const driver of [await opened(directory), await opened(directory)]) {
      const big = await driver.call('tenants_add', { ...add('big'), name: 'é'.repeat(1024 * 1024) })
      expect('tenant' in big && big.tenant.name.length).toBe(1024 * 1024)
      const tooBig = driver.call('tenants_add', { ...add('bigger'), name: 'x'.repeat(5 * 1024 * 1024) })
      expect(await failure(tooBig)).toMatchObject({ code: 'INPUT_INVALID' })
      expect(await driver.call('signals', { channel: 'busy', after: '0' })).toEqual({ cursor: '0', signals: 0 })
    }
  })

  test('that is aborted stops waiting with the reason of the abort', async () => {
    const driver = await opened(await built.database())
    const stop = new AbortController()
    const waiting = driver.call('signals', busyFor(300), { signal: stop.signal })
    stop.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    expect(await tenants(driver)).toEqual([])
  })
})

describe('the time limit', () => {
  test('ends the call that exceeds it, and the calls behind it are answered', async () => {
    const directory = await built.database()
    const owner = await opened(directory, { callTimeoutMs: 4_000 })
    const client = await opened(directory, { callTimeoutMs: 20_000 })
    await client.call('tenants_add', add('before'))
    const endless = failure(owner.call('signals', busyFor(60_000)))
    const behind = Promise.all(['a', 'b', 'c'].map((key) => client.call('tenants_add', add(key))))
    expect(await endless).toMatchObject({ code: 'DB_TIMEOUT', exit: 3 })
    expect(await behind).toMatchObject([{ tenant: { key: 'a' } }, { tenant: { key: 'b' } }, { tenant: { key: 'c' } }])
    expect(await identity(client)).toContain('tms_local')
    expect(await tenants(client)).toHaveLength(4)
  })

  test('says of a change that gets no answer that it may have been made', async () => {
    const directory = await built.database()
    const owner = await opened(directory, { callTimeoutMs: 20_000 })
    const client = await opened(directory, { callTimeoutMs: 500 })
    const busy = failure(owner.call('signals', busyFor(60_000), { timeoutMs: 3_000 }))
    expect(await failure(client.call('tenants_add', add('late')))).toMatchObject({
      code: 'DB_TIMEOUT',
      why: expect.stringContaining('may have been made'),
      next: expect.arrayContaining(['tms ledger tail']),
    })
    expect(await busy).toMatchObject({ code: 'DB_TIMEOUT' })
  })

  test('ends a call of another process all the same', async () => {
    const directory = await built.database()
    await opened(directory, { callTimeoutMs: 2_000 })
    const client = await opened(directory, { callTimeoutMs: 60_000 })
    expect(await failure(client.call('signals', busyFor(60_000)))).toMatchObject({ code: 'DB_TIMEOUT' })
  })

  test.each(['the owner', 'another process'])('is a call of %s its own, where that is sooner', async (who) => {
    const directory = await built.database()
    const owner = await opened(directory, { callTimeoutMs: 20_000 })
    const driver = who === 'the owner' ? owner : await opened(directory, { callTimeoutMs: 20_000 })
    const late = await failure(driver.call('signals', busyFor(60_000), { timeoutMs: 300 }))
    expect(late).toMatchObject({ code: 'DB_TIMEOUT', why: expect.stringContaining('no answer within 300 ms') })
    expect(await tenants(driver)).toEqual([])
  })

  test('is not put off by a call with a longer one', async () => {
    const owner = await opened(await built.database(), { callTimeoutMs: 1_000 })
    expect(await failure(owner.call('signals', busyFor(60_000), { timeoutMs: 40_000 }))).toMatchObject({
      code: 'DB_TIMEOUT',
    })
  })
})

describe('a halt', () => {
  test('goes before what waits, and ends what does not come to an end', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const client = await opened(directory)
    const busy = failure(owner.call('signals', busyFor(60_000)))
    const behind = Promise.all(['a', 'b'].map((key) => owner.call('tenants_add', add(key))))
    expect(await client.call('fence_halt', { why: '' })).toMatchObject({ fenced: true, waited_for: 0 })
    expect(await busy).toMatchObject({
      code: 'DB_TIMEOUT',
      why: expect.stringContaining('fence_halt does not wait for it'),
    })
    expect(await behind).toMatchObject([{ tenant: { key: 'a' } }, { tenant: { key: 'b' } }])
  })

  test('lets end what does', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const client = await opened(directory)
    await client.call('tenants_add', add('before'))
    const busy = owner.call('signals', busyFor(200))
    expect(await client.call('fence_halt', { why: '' })).toMatchObject({ waited_for: 1 })
    expect(await busy).toMatchObject({ signals: 0 })
  })

  test('says so where the database cannot be opened', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    // Its engine is ended, and what it would open again is of another version.
    const endless = failure(owner.call('signals', busyFor(60_000), { timeoutMs: 1_000 }))
    const version = readFileSync(join(directory, 'db/PG_VERSION'))
    writeFileSync(join(directory, 'db/PG_VERSION'), '9\n')
    await endless
    expect(await failure(owner.call('fence_halt', { why: '' }))).toMatchObject({ code: 'DB_ERROR', exit: 3 })
    // Nor is it done later, when somebody else has the database opened again.
    writeFileSync(join(directory, 'db/PG_VERSION'), version)
    expect(await tenants(owner)).toEqual([])
    expect(await administer(owner, (run) => run('select * from tms.halted'))).toEqual([])
  })
})

describe('administration', () => {
  test('is one transaction of the superuser: all of it or nothing', async () => {
    const driver = await opened(await built.database())
    await administer(driver, async (run) => {
      await run('create table public.a (x bigint, at timestamptz)')
      await run(`insert into public.a values (9007199254740993, '2026-01-01T00:00:00Z')`)
    })
    const failed = administer(driver, async (run) => {
      await run('insert into public.a values (1, null)')
      await run('select 1 / 0')
    })
    expect(await failure(failed)).toMatchObject({ code: 'INPUT_INVALID' })
    const rows = await administer(driver, (run) =>
      run('select x, at, session_user::text as who from public.a where x > $1', [0]),
    )
    expect(rows).toEqual([{ x: '9007199254740993', at: '2026-01-01 00:00:00+00', who: 'postgres' }])
  })

  test('gives the rows of the last of several statements', async () => {
    const driver = await opened(await built.database())
    expect(await administer(driver, (run) => run('select 1 as a; select 2 as b'))).toEqual([{ b: 2 }])
    expect(await administer(driver, (run) => run('select 1 as a; create table public.t ()'))).toEqual([])
  })

  test('that swallows an error is told that nothing was committed', async () => {
    const driver = await opened(await built.database())
    const swallowed = administer(driver, async (run) => {
      await run('create table public.lost ()')
      await run('select nonsense').catch(() => undefined)
    })
    await failure(swallowed)
    expect(await administer(driver, (run) => run(`select to_regclass('public.lost') is null as gone`))).toEqual([
      { gone: true },
    ])
  })

  test('leaves the session to the local user, however it ends and whatever it set', async () => {
    const driver = await opened(await built.database(), {}, { localUser: 'me' })
    const attacks = [
      `set tms.local_user = 'root'; set role tms_caller`,
      `set search_path = pg_temp; commit; begin; set session authorization postgres`,
      `rollback`,
      `commit; begin; set session authorization postgres; select 1 / 0`,
    ]
    for (const sql of attacks) {
      await administer(driver, (run) => run(sql)).catch(() => undefined)
      expect(await identity(driver)).toBe('tms_local tms_local me off')
    }
    await administer(driver, () => Promise.reject(new Error('our own'))).catch(() => undefined)
    expect(await identity(driver)).toBe('tms_local tms_local me off')
  })

  test('lets calls wait, and they are not inside its transaction', async () => {
    const driver = await opened(await built.database())
    let waiting: Promise<unknown> | undefined
    const failed = administer(driver, async (run) => {
      await run('select 1')
      waiting = driver.call('tenants_add', add('mine'))
      throw new Error('changed my mind')
    })
    await expect(failed).rejects.toThrow('changed my mind')
    await waiting
    expect(await tenants(driver)).toHaveLength(1)
  })

  test('makes the schema, after which calls work without opening again', async () => {
    const directory = join(built.folder(), '.tms')
    const driver = await opened(directory, { create: true })
    expect(await failure(driver.call('contract_version', {}))).toMatchObject({ code: 'SCHEMA_ABSENT' })
    await administer(driver, (run) => run(tinySchema))
    expect(await identity(driver)).toContain('tms_local')
    const attached = await administer(driver, (run) => run('select name from tms.attached'))
    expect(attached).toEqual([{ name: userInfo().username }])
  })

  test('can repair what keeps the local user from being known', async () => {
    const directory = await built.database()
    const broken = await opened(directory)
    const attach = (body: string) =>
      `create or replace function tms._attach_local(who text) returns void language plpgsql as $$ begin ${body} end $$`
    await administer(broken, (run) =>
      run(attach(`raise exception 'who?' using errcode = 'TM403', hint = 'tms db push';`)),
    )
    expect(await failure(broken.call('tenants_list', {}))).toMatchObject({ code: 'ROLE_DENIED', message: 'who?' })
    await broken.close()
    const driver = await opened(directory)
    expect(await failure(driver.call('tenants_list', {}))).toMatchObject({ code: 'ROLE_DENIED', message: 'who?' })
    await administer(driver, (run) => run(attach('')))
    expect(await tenants(driver)).toEqual([])
  })

  test('of a process that is only a client waits for the owner to end, then says who that is', async () => {
    const directory = await built.database()
    const owner = startChild(built.childFile, 'caller', directory)
    await owner.said('open', (fact) => fact.opened === true)
    const client = await opened(directory, { callTimeoutMs: 3_000 })
    const error = await failure(administer(client, (run) => run('select 1')))
    expect(error).toMatchObject({ code: 'OWNER_BUSY', exit: 3 })
    expect(error.message).toContain(String(owner.pid))
    expect(error.next.join(' ')).toContain(`kill ${owner.pid}`)
    expect(await tenants(client)).toEqual([])

    const patient = await opened(directory, { callTimeoutMs: 20_000 })
    const done = administer(patient, (run) => run('select 1 as done'))
    owner.tell('close')
    expect(await done).toEqual([{ done: 1 }])
  })

  test('of several at once in one process each get their turn', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const client = await opened(directory)
    const work = [1, 2, 3].map((i) => administer(client, (run) => run(`select ${i} as i`)))
    await owner.close()
    expect(await Promise.all(work)).toEqual([[{ i: 1 }], [{ i: 2 }], [{ i: 3 }]])
  })
})

describe('listening', () => {
  test('hears of changes by anybody, until it stops', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const client = await opened(directory)
    const heard = { owner: 0, client: 0, control: 0 }
    const offs = [
      await owner.listen('flags', () => (heard.owner += 1)),
      await client.listen('flags', () => (heard.client += 1)),
      await client.listen('control', () => (heard.control += 1)),
    ]
    await client.call('tenants_add', add('one'))
    await until('a signal for both', () => heard.owner === 1 && heard.client === 1)
    await owner.call('tenants_add', add('two'))
    await until('a signal for both', () => heard.owner === 2 && heard.client === 2)
    for (const off of offs) await off()
    await client.call('tenants_add', add('three'))
    expect(await tenants(client)).toHaveLength(3)
    expect(heard).toEqual({ owner: 2, client: 2, control: 0 })
  })

  test('goes on when the owner is killed, with one signal for what may have been missed', async () => {
    const directory = await built.database()
    const owner = startChild(built.childFile, 'caller', directory)
    await owner.said('open', (fact) => fact.opened === true)
    const client = await opened(directory)
    let heard = 0
    await client.listen('flags', () => (heard += 1))
    owner.kill('SIGKILL')
    await until('the signal after the loss', () => heard === 1)
    const other = await opened(directory)
    await other.call('tenants_add', add('after'))
    await until('a signal from the new owner', () => heard === 2)
  })

  test('goes on when the time limit ended the thread', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const client = await opened(directory)
    const heard = { owner: 0, client: 0 }
    await owner.listen('flags', () => (heard.owner += 1))
    await client.listen('flags', () => (heard.client += 1))
    await failure(client.call('signals', busyFor(60_000), { timeoutMs: 1_000 }))
    await until('the signal after the loss', () => heard.owner === 1 && heard.client === 1)
    await client.call('tenants_add', add('after'))
    await until('a signal after it', () => heard.owner === 2 && heard.client === 2)
  })
})

describe('owners and others', () => {
  test('a client becomes the owner when the owner closes, and its calls wait for that', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const client = await opened(directory)
    await client.call('tenants_add', add('one'))
    const [, answer] = await Promise.all([owner.close(), client.call('tenants_add', add('two'))])
    expect(answer).toMatchObject({ tenant: { key: 'two' } })
    expect(await tenants(client)).toHaveLength(2)
  })

  test('an owner that closes still answers what was asked before', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const socket = await dial(directory)
    const replies = repliesOn(socket)
    const ask = (id: number, milliseconds: number) =>
      `${JSON.stringify({ id, call: 'signals', args: busyFor(milliseconds) })}\n`
    // In one piece: when the first is answered, the owner has both.
    socket.write(ask(1, 0) + ask(2, 300))
    await until('the first answer', () => replies.length === 1)
    const own = Promise.all(Array.from({ length: 20 }, (_, i) => owner.call('tenants_add', add(`own ${i}`))))
    await owner.close()
    expect(await own).toHaveLength(20)
    await until('the other answer', () => replies.length === 2)
    expect(replies[1]).toEqual({ id: 2, answer: { cursor: '0', signals: 0 } })
    await until('the end of the connection', () => socket.destroyed)
  })

  test('an owner that gave up its lock never touches the directory again, whatever still waits', async () => {
    const directory = await built.database()
    const owner = await opened(directory)
    const running = failure(owner.call('signals', busyFor(60_000)))
    const behind = failure(owner.call('tenants_add', add('too late')))
    await owner.close()
    expect(await running).toMatchObject({ code: 'DB_UNREACHABLE' })
    expect(await behind).toMatchObject({ code: 'DB_UNREACHABLE' })
    expect(await tenants(await opened(directory))).toEqual([])
  })

  test('closing leaves no socket, no temporary file and no process', async () => {
    const directory = await built.database()
    const driver = await opened(directory)
    await tenants(driver)
    await driver.close()
    expect(readdirSync(directory).sort()).toEqual(['db', 'owner.1.json'])
    expect(await failure(driver.call('tenants_list', {}))).toMatchObject({ code: 'DB_UNREACHABLE' })
    await driver.close()
  })

  test('a client has nothing of the database in its process', async () => {
    const directory = await built.database()
    const owner = startChild(built.childFile, 'caller', directory)
    await owner.said('open', (fact) => fact.opened === true)
    const client = startChild(built.childFile, 'caller', directory)
    await client.said('open', (fact) => fact.opened === true)
    const memory = (pid: number) =>
      Number(/VmSize:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
    // PGlite reserves gigabytes of address space for its memory; a process that only talks to it doesn't.
    expect(memory(owner.pid) - memory(client.pid)).toBeGreaterThan(1024 ** 3)
  })
})

describe('the directory', () => {
  test('is made for this user alone, and closed to others when it was open', async () => {
    const directory = join(built.folder(), 'new', '.tms')
    await opened(directory, { create: true })
    expect(statSync(directory).mode & 0o777).toBe(0o700)
    const loose = await built.database()
    chmodSync(loose, 0o755)
    await opened(loose)
    expect(statSync(loose).mode & 0o777).toBe(0o700)
    const socket = readdirSync(loose).find((name) => name.endsWith('.sock'))
    expect(statSync(join(loose, socket ?? '')).mode & 0o777).toBe(0o600)
  })

  test('without a database is no place for anything but init', async () => {
    const missing = join(built.folder(), '.tms')
    expect(await failure(opened(missing))).toMatchObject({ code: 'CONFIG_MISSING', exit: 2 })
    expect(existsSync(missing)).toBe(false)
    mkdirSync(missing)
    expect(await failure(opened(missing))).toMatchObject({ code: 'CONFIG_MISSING' })
    expect(readdirSync(missing)).toEqual([])
  })

  test('may have a path that is too long for a socket', async () => {
    const short = await built.database()
    const long = join(built.folder(), 'deep'.repeat(40))
    mkdirSync(long)
    renameSync(short, join(long, '.tms'))
    await opened(join(long, '.tms'))
    const client = await opened(join(long, '.tms'))
    expect(await tenants(client)).toEqual([])
  })

  test('is named as it was given, and consented to by its name from here, or in full when it lies elsewhere', async () => {
    const directory = await built.database()
    const home = process.cwd()
    try {
      process.chdir(join(directory, '..'))
      const near = await opened('.tms')
      expect(near.target).toEqual({ name: 'embedded .tms', consentName: '.tms', shared: false })
      process.chdir(built.folder())
      const far = await opened(directory)
      expect(far.target).toEqual({ name: `embedded ${directory}`, consentName: directory, shared: false })
    } finally {
      process.chdir(home)
    }
  })

  test('that vanishes is an error and not a new database', async () => {
    const directory = await built.database()
    const driver = await opened(directory)
    await failure(driver.call('signals', busyFor(60_000), { timeoutMs: 1_000 }))
    rmSync(join(directory, 'db'), { recursive: true })
    expect(await failure(driver.call('tenants_list', {}))).toMatchObject({ code: 'CONFIG_MISSING' })
    expect(existsSync(join(directory, 'db'))).toBe(false)
  })
})
