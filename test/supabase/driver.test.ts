import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { RequestListener, Server } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { SupabaseConnection } from '../../src/drivers/connection.ts'
import type { ContractFunction } from '../../src/drivers/contract.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openSupabase } from '../../src/drivers/supabase/driver.ts'
import { ask, createTinySchema, define, everythingOf, failureOf, says, signals } from '../postgres/schema.ts'
import type { Database, Postgres } from '../servers/postgres.ts'
import { query, startPostgres } from '../servers/postgres.ts'
import type { Postgrest } from '../servers/postgrest.ts'
import { createApiRoles, signToken, startPostgrest } from '../servers/postgrest.ts'
import { freePort, missing, until } from '../servers/process.ts'
import { startWire } from '../servers/wire.ts'

let postgres: Postgres
let database: Database
let postgrest: Postgrest
beforeAll(async () => {
  postgres = await startPostgres()
  database = await postgres.createDatabase()
  await createApiRoles(database)
  await createTinySchema(database)
  // As the real schema does: nobody but signed-in people may call anything.
  await query(database.url, 'revoke usage on schema tms from public; grant usage on schema tms to authenticated')
  await query(database.superuserUrl, `alter role authenticated set statement_timeout = '3s'`)
  for (const fn of ['contract_version', 'whoami', 'status'] as const) await define(database, fn, says(`'yes'`))
  postgrest = await startPostgrest(database)
})
afterAll(async () => {
  await postgrest.stop()
  await postgres.stop()
})
beforeEach(() => define(database, 'contract_version', says(`'yes'`)))

const connection = (more: Partial<SupabaseConnection> = {}): SupabaseConnection => ({
  driver: 'supabase',
  url: postgrest.url,
  key: postgrest.anonKey,
  token: postgrest.tokenFor('vera'),
  callTimeoutMs: 20_000,
  pollMs: 50,
  ...more,
})

async function open(more: Partial<SupabaseConnection> = {}): Promise<Driver> {
  const driver = await openSupabase(connection(more))
  onTestFinished(() => driver.close())
  return driver
}

test('the target names the host, there is no administration', async () => {
  const driver = await open({ url: 'https://abcdefgh.supabase.co' })
  expect(driver.target).toEqual({
    name: 'supabase abcdefgh.supabase.co',
    consentName: 'abcdefgh.supabase.co',
    shared: true,
  })
  expect(driver.administration).toBeUndefined()
})

describe('a call', () => {
  test('gives the answer of the function', async () => {
    const driver = await open()
    const added = await driver.call('tenants_add', { request_id: randomUUID(), key: 'acme', name: 'Acme "€" 🚚' })
    expect(added).toMatchObject({ tenant: { key: 'acme', name: 'Acme "€" 🚚' } })
    expect(await driver.call('tenants_list', {})).toMatchObject({ tenants: [{ key: 'acme' }] })
  })

  test('gives a refusal as an answer', async () => {
    const refused = { code: 'ROLE_DENIED', what: 'no', why: 'because', next: ['tms whoami'] }
    await define(database, 'contract_version', `return '${JSON.stringify({ refused })}';`)
    expect(await (await open()).call('contract_version', {})).toEqual({ refused })
  })

  test('reaches the database as the person of the token', async () => {
    await define(
      database,
      'contract_version',
      says(`current_user || ' ' || (current_setting('request.jwt.claims')::json ->> 'sub')`),
    )
    expect(await ask(await open())).toBe('authenticated vera')
  })

  test('of a function that is not in the contract is refused here, whatever its name is', async () => {
    const driver = await open()
    // The cast stands for a caller without types.
    const error = await failureOf(driver.call('../../auth/v1/admin' as ContractFunction, {}))
    expect(error).toMatchObject({ code: 'BUG' })
  })

  test.each([
    ['null', 'return null;', 'CONTRACT_MISMATCH'],
    ['another shape', `return '{"contract":"one"}';`, 'CONTRACT_MISMATCH'],
    [
      'a raise of ours',
      `raise 'the fence is up' using errcode = 'TM403', detail = 'since noon', hint = 'tms a' || chr(10) || 'tms b';`,
      'ROLE_DENIED',
    ],
    [
      'a broken constraint',
      `insert into tms.tenants (request_id, key, name) values ('same', 'k', 'n'), ('same', 'k', 'n');`,
      'INPUT_INVALID',
    ],
    ['a value of the wrong type', `perform 'rosebud'::int;`, 'INPUT_INVALID'],
    ['a missing permission', `perform pg_catalog.pg_read_file('/etc/passwd');`, 'ROLE_DENIED'],
    ['a full disk', `raise 'could not extend file' using errcode = '53100';`, 'DB_FULL'],
    ['a statement that takes too long', `perform pg_sleep(30);`, 'DB_TIMEOUT'],
    ['an error nobody foresaw', `raise 'surprise' using errcode = 'XX000';`, 'DB_ERROR'],
  ])('that ends in %s fails with the same code as on the postgres driver', async (_, body, code) => {
    await define(database, 'contract_version', body)
    const error = await failureOf(ask(await open()))
    expect(error.code).toBe(code)
    expect(error.message + error.why).not.toContain('rosebud')
    if (body.includes('fence')) {
      expect(error).toMatchObject({ message: 'the fence is up', why: 'since noon', next: ['tms a', 'tms b'] })
    }
  })

  test('of a function the database does not have says that the schema is older', async () => {
    const error = await failureOf((await open()).call('ledger_tail', { limit: 1 }))
    expect(error).toMatchObject({ code: 'SCHEMA_OLDER', next: expect.arrayContaining(['tms db export --supabase']) })
  })

  test.each(['a\u0000b', 'a\ud800b'])('with text no database can store is invalid input', async (name) => {
    const error = await failureOf((await open()).call('tenants_add', { request_id: randomUUID(), key: 'k', name }))
    expect(error.code).toBe('INPUT_INVALID')
  })

  test('that is aborted stops waiting at once', async () => {
    await define(database, 'contract_version', `perform pg_sleep(0.5); ${says('1')}`)
    const driver = await open()
    const reason = new Error('changed my mind')
    const abort = new AbortController()
    const call = driver.call('contract_version', {}, { signal: abort.signal })
    abort.abort(reason)
    await expect(call).rejects.toBe(reason)
    await expect(driver.call('contract_version', {}, { signal: abort.signal })).rejects.toBe(reason)
  })

  test.each(['40001', '40P01'])('that meets another transaction (%s) is asked again until it works', async (code) => {
    await query(
      database.url,
      'drop sequence if exists tms.attempts; create sequence tms.attempts; grant usage on tms.attempts to public',
    )
    const body = `if nextval('tms.attempts') < 4 then raise 'again' using errcode = '${code}'; end if; ${says(`currval('tms.attempts')`)}`
    await define(database, 'contract_version', body)
    expect(await ask(await open())).toBe('4')
  })
})

describe('a token', () => {
  const claims = (more = {}) => ({
    role: 'authenticated',
    sub: 'vera',
    exp: Math.floor(Date.now() / 1000) + 60,
    ...more,
  })
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

  test.each<[string, () => string]>([
    ['with the algorithm none', () => signToken(claims(), { secret: postgrest.secret, alg: 'none' })],
    ['with the algorithm nOnE', () => signToken(claims(), { secret: postgrest.secret, alg: 'nOnE' })],
    ['with another algorithm than it says', () => signToken(claims(), { secret: postgrest.secret, alg: 'RS256' })],
    ['signed with another key', () => signToken(claims(), { secret: 'x'.repeat(43) })],
    ['signed with no key', () => signToken(claims(), { secret: '' })],
    ['that has expired', () => signToken(claims({ exp: 1_700_000_000 }), { secret: postgrest.secret })],
    ['that is not valid yet', () => signToken(claims({ nbf: 4_000_000_000 }), { secret: postgrest.secret })],
    ['without a signature', () => signToken(claims(), { secret: postgrest.secret }).replace(/\.[^.]*$/, '.')],
    [
      'with the claims of another',
      () =>
        signToken(claims(), { secret: postgrest.secret }).replace(/\.[^.]+\./, `.${part(claims({ sub: 'root' }))}.`),
    ],
    ['that is no token', () => 'let-me-in'],
  ])('%s is not accepted', async (_, make) => {
    const token = make()
    const error = await failureOf(ask(await open({ token })))
    expect(error).toMatchObject({ code: 'TOKEN_REJECTED', exit: 3 })
    expect(everythingOf(error)).not.toContain(token)
  })

  test.each(['anon', 'service_role', 'deployer', 'authenticator', 'pg_read_all_data'])(
    'with the role %s has no rights here, rightly signed as it is',
    async (role) => {
      const token = signToken(claims({ role }), { secret: postgrest.secret })
      expect(await failureOf(ask(await open({ token })))).toMatchObject({ code: 'ROLE_DENIED', exit: 4 })
    },
  )

  test('is not needed where the key is one; the anonymous key has no rights either', async () => {
    const { url, key, callTimeoutMs, pollMs } = connection()
    const driver = await openSupabase({ driver: 'supabase', url, key, callTimeoutMs, pollMs })
    expect(await failureOf(ask(driver))).toMatchObject({ code: 'ROLE_DENIED' })
  })

  test.each(['key', 'token'])(
    'or key that would start a header of its own is refused before anything is sent (%s)',
    async (name) => {
      for (const evil of ['a\r\nX-Injected: 1', 'a\nb', 'a b', '', 'ä', 'a\u0000b']) {
        const error = await failureOf(open({ [name]: evil }))
        expect(error).toMatchObject({ code: 'CONFIG_INVALID', exit: 2, message: expect.stringContaining(name) })
        if (evil !== '' && evil !== 'a b') expect(everythingOf(error)).not.toContain(evil)
      }
    },
  )

  test('says nothing about itself in headers of the caller: arguments stay in the body', async () => {
    await define(database, 'contract_version', says(`current_setting('request.headers')::json ->> 'x-injected'`))
    const add = { request_id: randomUUID(), key: 'k', name: '"}\r\nX-Injected: 1\r\n\r\n{"' }
    const driver = await open()
    expect(await driver.call('tenants_add', add)).toMatchObject({ tenant: { name: add.name } })
    expect(await failureOf(ask(driver))).toMatchObject({ code: 'CONTRACT_MISMATCH' })
  })
})

describe('a URL that is not usable', () => {
  test.each([
    ['is none', 'abcdefgh'],
    ['is for another protocol', 'postgres://vera:Sw0rdf1sh@db/fleet'],
    ['holds a password', 'https://vera:Sw0rdf1sh@abcdefgh.supabase.co'],
  ])('is refused when it %s, without showing it', async (_, url) => {
    const error = await failureOf(open({ url }))
    expect(error).toMatchObject({ code: 'CONFIG_INVALID', exit: 2 })
    expect(everythingOf(error)).not.toContain('Sw0rdf1sh')
  })
})

describe('no connection', () => {
  const whyNot = async (url: string, more = {}) => {
    const error = await failureOf(ask(await open({ url, callTimeoutMs: 2_000, ...more })))
    expect(everythingOf(error)).not.toContain(postgrest.anonKey)
    expect(error.exit).toBe(3)
    return error
  }

  test('when nothing listens, the name is unknown, or there is no route: said at once', async () => {
    expect(await whyNot(`http://127.0.0.1:${await freePort()}`)).toMatchObject({
      code: 'DB_UNREACHABLE',
      why: expect.stringContaining('nothing listens'),
    })
    expect(await whyNot('https://no-such-project.invalid')).toMatchObject({
      code: 'DB_UNREACHABLE',
      message: expect.stringContaining('cannot be resolved'),
    })
    const started = Date.now()
    // The kernel itself answers that there is no way to this one; no packet leaves.
    expect((await whyNot('http://255.255.255.255')).code).toMatch(/DB_UNREACHABLE|DB_TIMEOUT/)
    expect(Date.now() - started).toBeLessThan(8_000)
  })

  test('when the URL has a path too many', async () => {
    const error = await whyNot(`${postgrest.url}/dashboard`)
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', message: expect.stringContaining('no PostgREST below') })
  })

  test('when the project does not serve the schema', async () => {
    const other = await startPostgrest(database, { schemas: 'public' })
    onTestFinished(() => other.stop())
    const token = other.tokenFor('vera')
    const error = await whyNot(other.url, { token })
    expect(error).toMatchObject({
      code: 'SCHEMA_ABSENT',
      message: expect.stringContaining('does not serve the schema'),
    })
  })

  test('when the gateway has nothing behind it', async () => {
    const other = await startPostgrest(database)
    onTestFinished(() => other.stop())
    await other.stopBehindGateway()
    expect(await whyNot(other.url)).toMatchObject({
      code: 'DB_UNREACHABLE',
      message: expect.stringContaining('HTTP 502'),
    })
  })

  test('when PostgREST has no database behind it, after trying until the time is up', async () => {
    const cluster = await startPostgres({ own: true })
    const theirs = await cluster.createDatabase()
    await createTinySchema(theirs)
    await define(theirs, 'contract_version', says(`'yes'`))
    const other = await startPostgrest(theirs)
    onTestFinished(() => other.stop())
    await cluster.stop()
    const error = await whyNot(other.url, { token: other.tokenFor('vera') })
    // The last attempt may be one that PostgREST leaves without an answer while it looks for its database.
    expect(error.code).toMatch(/DB_UNREACHABLE|DB_TIMEOUT/)
  })

  test.skipIf(missing('openssl'))('when the certificate is signed by itself', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tms-https-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=localhost',
      '-keyout', 'key', '-out', 'crt'], { cwd: folder, stdio: 'pipe' }) // prettier-ignore
    const read = (name: string): string => readFileSync(join(folder, name), 'utf8')
    const port = await listening(createSecureServer({ key: read('key'), cert: read('crt') }))
    const error = await whyNot(`https://localhost:${port}`)
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', message: expect.stringContaining('certificate') })
  })
})

describe('a proxy that answers itself', () => {
  const proxied = async (listener: RequestListener, more = {}) => {
    const url = `http://127.0.0.1:${await listening(createServer(listener))}`
    return open({ url, callTimeoutMs: 2_000, ...more })
  }
  const html = '<html><body>Sign in</body></html>'

  test.each([
    [200, 'DB_UNREACHABLE', 'not JSON'],
    [401, 'TOKEN_REJECTED', 'HTTP 401'],
    [403, 'TOKEN_REJECTED', 'HTTP 403'],
    [404, 'DB_UNREACHABLE', 'no PostgREST below'],
    [413, 'INPUT_INVALID', 'this large'],
    [429, 'DB_BUSY', 'HTTP 429'],
    [500, 'DB_UNREACHABLE', 'HTTP 500'],
    [503, 'DB_UNREACHABLE', 'HTTP 503'],
    [504, 'DB_TIMEOUT', 'HTTP 504'],
    [540, 'DB_UNREACHABLE', 'HTTP 540'],
  ])('with a page and status %i is named as what it is', async (status, code, what) => {
    const driver = await proxied((_, answer) => answer.writeHead(status, { 'content-type': 'text/html' }).end(html))
    const error = await failureOf(ask(driver))
    expect(error).toMatchObject({ code, message: expect.stringContaining(what) })
    expect(error.message + error.why).not.toContain('<html>')
  })

  test('with an empty 404 is not taken for an empty answer', async () => {
    const driver = await proxied((_, answer) => answer.writeHead(404).end())
    expect(await failureOf(ask(driver))).toMatchObject({ code: 'DB_UNREACHABLE' })
  })

  test('with a redirect is not followed, because the key would go along', async () => {
    let asked = 0
    const elsewhere = await listening(createServer((_, answer) => void (asked++, answer.end('{}'))))
    const driver = await proxied((_, answer) =>
      answer.writeHead(307, { location: `http://127.0.0.1:${elsewhere}/` }).end(),
    )
    expect(await failureOf(ask(driver))).toMatchObject({ code: 'DB_UNREACHABLE' })
    expect(asked).toBe(0)
  })

  test('with 429 is asked again, and not before it wants to', async () => {
    const times: number[] = []
    const driver = await proxied(
      (_, answer) => {
        times.push(Date.now())
        if (times.length === 1) answer.writeHead(429, { 'retry-after': '1' }).end(html)
        else answer.end('{"contract":1,"server":"later"}')
      },
      { callTimeoutMs: 20_000 },
    )
    expect(await ask(driver)).toBe('later')
    expect(Number(times[1]) - Number(times[0])).toBeGreaterThanOrEqual(1_000)
  })
})

describe('over a wire that fails', () => {
  const wired = async (more = {}) => {
    const wire = await startWire(Number(new URL(postgrest.url).port))
    onTestFinished(() => wire.stop())
    return { wire, driver: await open({ url: `http://127.0.0.1:${wire.port}`, ...more }) }
  }

  test('a call whose answer is lost is asked again with the same request id', async () => {
    const { wire, driver } = await wired()
    const add = { request_id: randomUUID(), key: 'lost', name: 'Lost' }
    wire.loseAnswerTo(add.request_id)
    expect(await driver.call('tenants_add', add)).toMatchObject({ tenant: { key: 'lost' } })
    const rows = await query(database.url, 'select times from tms.tenants where request_id = $1', [add.request_id])
    expect(rows).toEqual([{ times: 2 }])
  })

  test('connections cut while idle are replaced without anybody noticing', async () => {
    const { wire, driver } = await wired()
    expect(await ask(driver)).toBe('yes')
    wire.cut()
    expect(await ask(driver)).toBe('yes')
  })

  test('a wire that went dead ends the call when its time is up', async () => {
    const { wire, driver } = await wired({ callTimeoutMs: 3_000 })
    expect(await ask(driver)).toBe('yes')
    wire.stall()
    const started = Date.now()
    expect(await failureOf(ask(driver))).toMatchObject({
      code: 'DB_TIMEOUT',
      exit: 3,
      why: expect.stringContaining('look before'),
      next: expect.arrayContaining(['tms ledger tail']),
    })
    expect(Date.now() - started).toBeLessThan(8_000)
  })
})

describe('listening', () => {
  const signal = (channel: string) =>
    query(database.url, 'insert into tms.signals_sent (channel) values ($1)', [channel])

  test('hears what was sent to the channel after it began, and nothing after it ended', async () => {
    await signal('flags')
    const driver = await open()
    let heard = 0
    const stop = await driver.listen('flags', () => heard++)
    await signal('control')
    await signal('flags')
    await until('the signal', () => heard > 0)
    await stop()
    await signal('flags')
    let others = 0
    const stopOthers = await driver.listen('flags', () => others++)
    await signal('flags')
    await until('another listener hears', () => others > 0)
    await stopOthers()
    expect([heard, others]).toEqual([1, 1])
  })

  test('goes on after an outage, with one signal because something may have been missed', async () => {
    await query(
      database.url,
      'drop sequence if exists tms.attempts; create sequence tms.attempts; grant usage on tms.attempts to public',
    )
    const attempts = async (): Promise<unknown> =>
      (await query(database.url, 'select last_value::int as n from tms.attempts'))[0]?.['n']
    const driver = await open()
    let heard = 0
    const stop = await driver.listen('flags', () => heard++)
    await define(database, 'signals', `perform nextval('tms.attempts'); raise 'out of order' using errcode = 'XX000';`)
    await until('it failed a few times', async () => Number(await attempts()) > 2)
    await define(database, 'signals', signals)
    await until('the signal', () => heard > 0)
    await signal('flags')
    await until('a signal as usual', () => heard > 1)
    await stop()
    expect(heard).toBe(2)
  })

  test('ends when the driver is closed, and so do calls', async () => {
    await query(
      database.url,
      'create sequence tms.asked_by_closed; create sequence tms.asked_by_open; grant usage on all sequences in schema tms to public',
    )
    const who = `current_setting('request.jwt.claims')::json ->> 'sub'`
    await define(database, 'signals', `perform nextval('tms.asked_by_' || (${who})); ${signals}`)
    const asked = async (by: 'closed' | 'open'): Promise<number> =>
      Number((await query(database.url, `select last_value from tms.asked_by_${by}`))[0]?.['last_value'])
    const closed = await open({ token: postgrest.tokenFor('closed') })
    await closed.listen('flags', () => undefined)
    await closed.close()
    await closed.close()
    const before = await asked('closed')
    const other = await open({ token: postgrest.tokenFor('open') })
    await other.listen('flags', () => undefined)
    await until('another one that listens has asked often', async () => (await asked('open')) > 4)
    expect(await asked('closed')).toBe(before)
    expect(await failureOf(ask(closed))).toMatchObject({ message: expect.stringContaining('has been closed') })
    await define(database, 'signals', signals)
  })

  test('where nothing can be asked fails as a call does', async () => {
    const driver = await open({ url: `http://127.0.0.1:${await freePort()}` })
    expect(await failureOf(driver.listen('flags', () => undefined))).toMatchObject({ code: 'DB_UNREACHABLE' })
  })
})

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
