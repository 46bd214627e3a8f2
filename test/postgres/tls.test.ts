import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Database, Postgres } from '../servers/postgres.ts'
import { query, startPostgres } from '../servers/postgres.ts'
import { missing } from '../servers/process.ts'
import { ask, connectionTo, createTinySchema, define, failureOf, says, using } from './schema.ts'

/** Certificates made by openssl: an authority, a server it signed for localhost, a client, and a server signed by itself. */
const folder = mkdtempSync(join(tmpdir(), 'tms-tls-'))
const file = (name: string): string => join(folder, name)
function openssl(...args: string[]): void {
  execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
}
function authority(name: string): void {
  openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', `/CN=${name}`,
    '-keyout', `${name}.key`, '-out', `${name}.crt`) // prettier-ignore
}
function signed(name: string, by: string, subject: string, altName: string, days = '2'): void {
  writeFileSync(file(`${name}.ext`), `subjectAltName=${altName}\n`)
  openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/CN=${subject}`,
    '-keyout', `${name}.key`, '-out', `${name}.csr`) // prettier-ignore
  openssl('x509', '-req', '-in', `${name}.csr`, '-CA', `${by}.crt`, '-CAkey', `${by}.key`, '-CAcreateserial', '-days', days,
    '-extfile', `${name}.ext`, '-out', `${name}.crt`) // prettier-ignore
}

describe.skipIf(missing('openssl'))('over TLS', () => {
  let postgres: Postgres
  let database: Database
  beforeAll(async () => {
    authority('authority')
    authority('stranger')
    signed('server', 'authority', 'localhost', 'DNS:localhost')
    signed('client', 'authority', 'certified', 'DNS:client')
    const text = (name: string): string => readFileSync(file(name), 'utf8')
    postgres = await startPostgres({
      tls: { cert: text('server.crt'), key: text('server.key'), ca: text('authority.crt') },
      hba: ['hostssl all certified all cert'],
    })
    database = await postgres.createDatabase()
    await createTinySchema(database)
    await query(database.superuserUrl, 'create role certified login')
    await define(database, 'contract_version', says('(select ssl from pg_stat_ssl where pid = pg_backend_pid())'))
  })
  afterAll(async () => {
    await postgres.stop()
    rmSync(folder, { recursive: true })
  })

  const encrypted = (parameters: string, host = '127.0.0.1'): Promise<string> =>
    using(connectionTo(`${database.url.replace('127.0.0.1', host)}?${parameters}`), ask)

  test.each([
    ['no sslmode', '', 'true'],
    ['prefer', 'sslmode=prefer', 'true'],
    ['require', 'sslmode=require', 'true'],
    ['disable', 'sslmode=disable', 'false'],
  ])('with %s the connection is encrypted or not as libpq would do it', async (_, parameters, expected) => {
    expect(await encrypted(parameters)).toBe(expected)
  })

  test('verify-full takes a certificate made out to the host by the given authority', async () => {
    expect(await encrypted(`sslmode=verify-full&sslrootcert=${file('authority.crt')}`, 'localhost')).toBe('true')
  })

  test('verify-full refuses a certificate made out to another host, verify-ca takes it', async () => {
    const root = `sslrootcert=${file('authority.crt')}`
    const error = await failureOf(encrypted(`sslmode=verify-full&${root}`))
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', why: 'The certificate is made out to another host name.' })
    expect(await encrypted(`sslmode=verify-ca&${root}`)).toBe('true')
  })

  test.each(['verify-full', 'verify-ca'])(
    '%s refuses an authority nobody here trusts, and says how to trust it',
    async (mode) => {
      const error = await failureOf(encrypted(`sslmode=${mode}`, 'localhost'))
      expect(error).toMatchObject({ code: 'DB_UNREACHABLE', why: expect.stringContaining('not trusted here') })
      expect(error.next.join('\n')).toMatch(/openssl s_client[^]*sslrootcert=/)
    },
  )

  test.each(['require', 'verify-ca', 'verify-full'])(
    '%s with the certificate of another authority refuses',
    async (mode) => {
      const error = await failureOf(encrypted(`sslmode=${mode}&sslrootcert=${file('stranger.crt')}`, 'localhost'))
      expect(error).toMatchObject({ code: 'DB_UNREACHABLE', message: expect.stringContaining('certificate') })
    },
  )

  test('a login that needs a client certificate gets in with sslcert and sslkey, and not without', async () => {
    const url = database.urlAs('certified', '')
    const own = `sslmode=verify-full&sslrootcert=${file('authority.crt')}&sslcert=${file('client.crt')}&sslkey=${file('client.key')}`
    expect(await using(connectionTo(`${url.replace('127.0.0.1', 'localhost')}?${own}`), ask)).toBe('true')
    expect(await failureOf(using(connectionTo(`${url}?sslmode=require`), ask))).toMatchObject({
      code: 'DB_AUTH_FAILED',
    })
  })

  test('a server with an expired certificate is refused where certificates are checked', async () => {
    signed('old', 'authority', 'localhost', 'DNS:localhost', '-1')
    const cert = readFileSync(file('old.crt'), 'utf8')
    const old = await startPostgres({ tls: { cert, key: readFileSync(file('old.key'), 'utf8') } })
    const url = old.superuserUrl.replace('127.0.0.1', 'localhost')
    const error = await failureOf(
      using(connectionTo(`${url}?sslmode=verify-full&sslrootcert=${file('authority.crt')}`), ask),
    )
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', why: 'The certificate has expired.' })
    await old.stop()
  })
})
