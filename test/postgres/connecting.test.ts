import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import type { Database, Postgres } from '../servers/postgres.ts'
import { query, startPostgres, startReplica } from '../servers/postgres.ts'
import { freePort, until } from '../servers/process.ts'
import { startWire } from '../servers/wire.ts'
import { ask, connectionTo, createTinySchema, define, everythingOf, failureOf, says, using } from './schema.ts'

const secret = 'Sw0rdf1sh'
let postgres: Postgres
let database: Database
beforeAll(async () => {
  postgres = await startPostgres({
    hba: [
      'host all barred 127.0.0.1/32 reject',
      'hostssl all tls_only all scram-sha-256',
      'host all tls_only all reject',
    ],
  })
  database = await postgres.createDatabase()
  await createTinySchema(database)
  await define(database, 'contract_version', says('current_user'))
  await query(
    postgres.superuserUrl,
    `create role vera login password '${secret}'; create role barred login password '${secret}';
     create role tls_only login password '${secret}'; create role crowded login connection limit 0 password '${secret}';
     create role workless nologin password '${secret}'`,
  )
})
afterAll(() => postgres.stop())

const whyNot = async (url: string, more = {}) => {
  const error = await failureOf(using(connectionTo(url, more), ask))
  expect(everythingOf(error)).not.toContain(secret)
  return error
}

test('a login with the right password gets an answer', async () => {
  expect(await using(connectionTo(database.urlAs('vera', secret)), ask)).toBe('vera')
})

test('a socket in the file system works as a host', async () => {
  const { cluster, port } = postgres
  const url = `postgres://vera:${secret}@/${database.name}?host=${cluster?.directory}&port=${port}`
  expect(await using(connectionTo(url), ask)).toBe('vera')
})

test('the target names host, port and database, and never the login', async () => {
  const driver = await openPostgres(connectionTo(`postgres://vera:${secret}@db.example.com:6000/fleet`))
  expect(driver.target).toEqual({
    name: 'postgres db.example.com:6000/fleet',
    consentName: 'db.example.com:6000/fleet',
    shared: true,
  })
  await driver.close()
  const usual = await openPostgres(connectionTo(`postgres://vera:${secret}@db.example.com/fleet`))
  expect(usual.target.consentName).toBe('db.example.com/fleet')
  await usual.close()
})

describe('no connection', () => {
  test('when nothing listens: said at once', async () => {
    const started = Date.now()
    const error = await whyNot(`postgres://vera:${secret}@127.0.0.1:${await freePort()}/fleet`)
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', why: expect.stringContaining('nothing listens') })
    expect(Date.now() - started).toBeLessThan(4_500)
  })

  test('when nothing listens on either address of localhost', async () => {
    const error = await whyNot(`postgres://vera:${secret}@localhost:${await freePort()}/fleet`)
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', why: expect.stringContaining('nothing listens') })
  })

  test('when the host has no address', async () => {
    const error = await whyNot(`postgres://vera:${secret}@no-such-host.invalid/fleet`)
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE' })
    expect(error.message).toBe('The host name no-such-host.invalid cannot be resolved.')
  })

  test('when packets are dropped: no longer than the connect timeout', async () => {
    const started = Date.now()
    const url = `postgres://vera:${secret}@127.0.0.1:${await blackHole()}/fleet`
    const error = await whyNot(url, { connectTimeoutMs: 1_000 })
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', why: expect.stringContaining('firewall') })
    expect(Date.now() - started).toBeLessThan(4_500)
  })

  test('when there is no route to the host: no longer than the connect timeout', async () => {
    const started = Date.now()
    // The kernel itself answers that there is no way to this one; no packet leaves.
    const error = await whyNot(`postgres://vera:${secret}@255.255.255.255/fleet`, { connectTimeoutMs: 1_000 })
    expect(error.code).toBe('DB_UNREACHABLE')
    expect(Date.now() - started).toBeLessThan(4_500)
  })

  test('when the socket file is missing', async () => {
    const error = await whyNot(`postgres://vera:${secret}@/fleet?host=/nowhere/at/all`)
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', why: 'There is no socket at that path.' })
  })

  test('when the password is wrong', async () => {
    const error = await whyNot(database.urlAs('vera', `${secret}x`))
    expect(error).toMatchObject({ code: 'DB_AUTH_FAILED', exit: 3 })
    expect(error.message).toContain('did not accept the password of vera')
  })

  test('when the login does not exist', async () => {
    const error = await whyNot(database.urlAs('nobody_here', secret))
    expect(error).toMatchObject({ code: 'DB_AUTH_FAILED', why: expect.stringContaining('there is no such login') })
  })

  test('when the role may not log in', async () => {
    const error = await whyNot(database.urlAs('workless', secret))
    expect(error).toMatchObject({ code: 'DB_AUTH_FAILED', why: 'It may not log in.' })
  })

  test('when the server wants a password and there is none', async () => {
    const url = new URL(database.urlAs('vera', secret))
    url.password = ''
    const error = await whyNot(url.toString())
    expect(error).toMatchObject({ code: 'DB_AUTH_FAILED', why: expect.stringContaining('PGPASSWORD') })
  })

  test('when the database does not exist', async () => {
    const error = await whyNot(database.urlAs('vera', secret).replace(database.name, 'no_such_database'))
    expect(error).toMatchObject({ code: 'DB_AUTH_FAILED' })
    expect(error.message).toContain('There is no database no_such_database')
  })

  test('when pg_hba.conf lets the login in from nowhere', async () => {
    const error = await whyNot(database.urlAs('barred', secret))
    expect(error).toMatchObject({ code: 'DB_AUTH_FAILED' })
    expect(error.message).toContain('does not let barred in from here')
  })

  test('when the login needs TLS: the next step is sslmode=require', async () => {
    const error = await whyNot(database.urlAs('tls_only', secret))
    expect(error).toMatchObject({ code: 'DB_AUTH_FAILED' })
    expect(error.next[0]).toContain('sslmode=require')
  })

  test('when TLS is demanded and the server has none', async () => {
    const error = await whyNot(`${database.urlAs('vera', secret)}?sslmode=require`)
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', message: expect.stringContaining('does not offer TLS') })
  })

  test('when every connection is taken, after trying until the time is up', async () => {
    const error = await whyNot(database.urlAs('crowded', secret), { callTimeoutMs: 2_000 })
    expect(error).toMatchObject({ code: 'DB_BUSY', message: expect.stringContaining('no connection left for crowded') })
  })

  test('when the server is starting, after waiting for it until the time is up', async () => {
    const cluster = await startPostgres({ own: true })
    // A standby that takes no queries says what a starting server says, for as long as the test needs.
    const standby = await startReplica(cluster, { settings: { hot_standby: 'off' }, takesQueries: false })
    onTestFinished(async () => {
      await standby.stop()
      await cluster.stop()
    })
    const error = await whyNot(standby.urlOf(cluster.superuserUrl), { callTimeoutMs: 2_000 })
    expect(error).toMatchObject({
      code: 'DB_UNREACHABLE',
      message: expect.stringContaining('starting or shutting down'),
    })
  })

  test('when the server is shutting down', async () => {
    const cluster = await startPostgres({ own: true })
    onTestFinished(() => cluster.stop())
    // A smart shutdown waits for this session and turns others away.
    const lingering = new pg.Client({ connectionString: cluster.superuserUrl })
    lingering.on('error', () => undefined)
    await lingering.connect()
    cluster.cluster?.kill('SIGTERM')
    await until('the server shuts down', async () => /smart shutdown/.test((await cluster.cluster?.log()) ?? ''))
    const error = await whyNot(cluster.superuserUrl, { callTimeoutMs: 2_000 })
    expect(error).toMatchObject({
      code: 'DB_UNREACHABLE',
      message: expect.stringContaining('starting or shutting down'),
    })
  })
})

describe('a port that is not a Postgres', () => {
  const listeners: Readonly<Record<string, (socket: Socket) => void>> = {
    'speaks HTTP': (socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')),
    'greets as an SSH server does': (socket) => socket.write('SSH-2.0-OpenSSH_9.2\r\n'),
    'says nothing': () => undefined,
    'hangs up at once': (socket) => socket.destroy(),
  }
  for (const mode of ['disable', 'prefer', 'require']) {
    test.each(Object.keys(listeners))(`is named as such when it %s, with sslmode=${mode}`, async (name) => {
      const server = createServer((socket) => {
        socket.on('error', () => undefined)
        listeners[name]?.(socket)
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      onTestFinished(() => void server.close())
      const { port } = server.address() as { port: number } // A TCP server's address has one.
      const url = `postgres://vera:${secret}@127.0.0.1:${port}/fleet?sslmode=${mode}`
      const error = await whyNot(url, { connectTimeoutMs: 1_000, callTimeoutMs: 2_000 })
      expect(error.code).toBe('DB_UNREACHABLE')
      expect(error.message).toBe(`What listens at 127.0.0.1:${port} does not answer as Postgres does.`)
    })
  }
})

test('a server behind a wire that goes dead during the greeting is given up after the connect timeout', async () => {
  const wire = await startWire(postgres.port)
  onTestFinished(() => wire.stop())
  wire.stall()
  const url = Object.assign(new URL(database.urlAs('vera', secret)), { port: String(wire.port) }).toString()
  const started = Date.now()
  const error = await whyNot(url, { connectTimeoutMs: 1_000 })
  expect(error.code).toBe('DB_UNREACHABLE')
  expect(Date.now() - started).toBeLessThan(4_500)
})

describe('a database URL that is not usable', () => {
  test.each([
    ['is for another protocol', `mysql://vera:${secret}@db/fleet`, 'postgres://'],
    ['has a slash in its password', `postgres://vera:${secret}/x@db:5432/fleet`, ''],
    ['has a lone percent sign', `postgres://vera:${secret}%zz@db/fleet`, '%25'],
    ['has a misspelt sslmode', `postgres://vera:${secret}@db/fleet?sslmode=verify_full`, 'verify-full'],
    ['has a misspelt parameter about TLS', `postgres://vera:${secret}@db/fleet?sslmod=verify-full`, 'sslmod'],
    ['has an impossible port', `postgres://vera:${secret}@db:70000/fleet`, ''],
    ['has an impossible port as a parameter', `postgres://vera:${secret}@/fleet?host=db&port=zero`, 'port'],
    ['is no URL', `${secret} `, ''],
  ])('is refused when it %s, before anything is opened and without showing it', async (_, url, why) => {
    const error = await failureOf(openPostgres(connectionTo(url)))
    expect(error).toMatchObject({ code: 'CONFIG_INVALID', exit: 2, why: expect.stringContaining(why) })
    expect(everythingOf(error)).not.toContain(secret)
  })

  test('is refused when a certificate file it names is missing', async () => {
    const url = `postgres://vera:${secret}@db/fleet?sslmode=verify-full&sslrootcert=/nowhere/root.crt`
    const error = await failureOf(openPostgres(connectionTo(url)))
    expect(error).toMatchObject({ code: 'FILE_UNREADABLE', message: expect.stringContaining('/nowhere/root.crt') })
    expect(everythingOf(error)).not.toContain(secret)
  })
})

/** A port of this machine that drops packets: the kernel does so when nobody accepts and the queue is full. */
async function blackHole(): Promise<number> {
  const script = `require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 0 }, function () {
    require('node:fs').writeSync(1, String(this.address().port))
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  })`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const port = await new Promise<number>((resolve) =>
    child.stdout.once('data', (text: Buffer) => resolve(Number(text))),
  )
  for (;;) {
    const filler = connect(port, '127.0.0.1')
    filler.on('error', () => undefined)
    onTestFinished(() => void filler.destroy())
    const queued = await Promise.race([once(filler, 'connect'), pause(200)])
    if (queued === undefined) return port
  }
}
