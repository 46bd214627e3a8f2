import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { rotateAccount } from '../../src/accounts/accounts.ts'
import { parseKeys, type KeyRing } from '../../src/door/keys.ts'
import { openDoor, type Door, type DoorOptions } from '../../src/door/server.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { loadCatalogue, readCatalogue } from '../../src/flags/catalogue.ts'
import { createLogger, type LogEntry } from '../../src/redaction/logger.ts'
import { signRequest } from '../../src/signing/request.ts'
import { postgresSubject } from '../contract/subjects.ts'
import { makeEmbedded } from '../servers/schema.ts'
import { policy } from '../fleet/fleet.ts'

/** A database in which a fleet may work, and connections as the accounts that a door works as. */
export type House = {
  readonly operator: Driver
  readonly driver: Driver
  readonly replay: Driver
  readonly reads: Driver
  sql(text: string, parameters?: unknown[]): Promise<readonly Record<string, unknown>[]>
  /** A new key of a service account. */
  key(account: string): Promise<SigningKey>
  stop(): Promise<void>
}

export type SigningKey = { readonly id: string; readonly secret: string }

type Opened = Omit<House, 'key'>

export const houses = { embedded: embeddedHouse, postgres: postgresHouse } as const

async function embeddedHouse(): Promise<House> {
  const folder = await mkdtemp(join(tmpdir(), 'tms-door-'))
  const directory = join(folder, '.tms')
  const connection = { driver: 'embedded', directory, create: false, callTimeoutMs: 20_000 } as const
  await makeEmbedded(directory)
  const owner = await openEmbedded(connection, { localUser: 'operator' })
  await owner.administration?.transaction((run) => run('select 1'))
  const as = (account: 'n8n' | 'dlq' | 'autopilot') => openEmbedded({ ...connection, account })
  const [driver, replay, reads] = [await as('n8n'), await as('dlq'), await as('autopilot')]
  return furnish({
    operator: owner,
    driver,
    replay,
    reads,
    sql: async (text, parameters) => (await owner.administration?.transaction((run) => run(text, parameters))) ?? [],
    async stop() {
      for (const each of [driver, replay, reads, owner]) await each.close()
      await rm(folder, { recursive: true, force: true })
    },
  })
}

async function postgresHouse(): Promise<House> {
  const subject = await postgresSubject()
  const as = async (account: string) => subject.as(await subject.account(account))
  const operator = await subject.operator()
  const [driver, replay, reads] = [await as('n8n'), await as('dlq'), await as('autopilot')]
  return furnish({
    operator,
    driver,
    replay,
    reads,
    sql: (text, parameters) => subject.sql(text, parameters),
    async stop() {
      for (const each of [driver, replay, reads, operator]) await each.close()
      await subject.stop()
    },
  })
}

async function furnish(opened: Opened): Promise<House> {
  const { operator } = opened
  granted(
    await operator.call('environment_init', {
      request_id: randomUUID(),
      environment: 'development',
      override_token_sha256: 'ab'.repeat(32),
      signing_key_fingerprint: null,
    }),
  )
  await loadCatalogue(operator, await readCatalogue([join(import.meta.dirname, '../../policies')]))
  const flags = [
    ['agents.autonomousEnabled', true],
    ['autonomy.mode', 'FULL'],
    ['ops.replayEnabled', true],
  ] as const
  for (const [key, value] of flags) {
    const set = { request_id: randomUUID(), key, level: 'global', value, why: 'the test says so' } as const
    granted(await operator.call('flags_set', set))
  }
  for (const key of ['acme', 'globex']) {
    granted(await operator.call('tenants_add', { request_id: randomUUID(), key, name: key }))
  }
  granted(await operator.call('agents_policies_load', { request_id: randomUUID(), policies: [policy('demo')] }))
  return {
    ...opened,
    async key(account) {
      const name = `${account}-${randomBytes(4).toString('hex')}`
      const rotation = { account, kind: 'key', name, overlap: '24h', now: new Date() } as const
      const { secret } = await rotateAccount(operator, rotation)
      return { id: name, secret: secret ?? '' }
    },
  }
}

export const ringOf = (...keys: readonly SigningKey[]): KeyRing =>
  parseKeys(keys.map(({ id, secret }) => `${id}=${secret}`).join('\n'), 'the test')

export type TestDoor = Door & { readonly logs: readonly LogEntry[]; readonly port: number }

/** A door on a free port, closed when the test ends. */
export async function doorOf(
  house: House,
  options: Partial<DoorOptions> & { readonly keys: () => KeyRing },
): Promise<TestDoor> {
  const logs: LogEntry[] = []
  const clock = options.clock ?? (() => new Date())
  const door = await openDoor({
    host: '127.0.0.1',
    port: 0,
    driver: house.driver,
    replay: house.replay,
    reads: house.reads,
    sources: new Map(),
    logger: createLogger({ write: (entry) => logs.push(entry), clock, level: 'debug' }),
    clock,
    ...options,
  })
  onTestFinished(() => door.close())
  return { ...door, logs, port: Number(new URL(door.url).port) }
}

export type Sent = {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

export type Request = {
  readonly method?: string
  readonly path?: string
  readonly body?: string | Uint8Array
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
  /** Signed with it, unless the headers say something else. */
  readonly key?: SigningKey
  readonly at?: Date
}

/** Exactly these headers and bytes, on a connection of its own. */
export function send(door: { readonly port: number }, given: Request): Promise<Sent> {
  const { method = 'POST', path = '/v1/tasks', body = '', key, at = new Date() } = given
  const signed = key ? sign(key, { method, path, body, at }) : {}
  const headers: Record<string, string | readonly string[]> = {
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    ...signed,
    ...given.headers,
  }
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      // Node wants a list it may change.
      { host: '127.0.0.1', port: door.port, method, path, agent: false, headers: headers as Record<string, string> },
      (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('error', reject)
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text: Buffer.concat(parts).toString(),
          }),
        )
      },
    )
    request.on('error', reject)
    request.end(body)
  })
}

export function sign(
  key: SigningKey,
  { method = 'POST', path = '/v1/tasks', body = '', at = new Date() }: Pick<Request, 'method' | 'path' | 'body' | 'at'>,
): Record<string, string> {
  return { ...signRequest({ keyId: key.id, secret: key.secret, method, path, body, now: at, nonce: randomBytes(18) }) }
}

/** Raw bytes; everything the server says until it ends the connection. */
export function sendRaw(door: { readonly port: number }, ...pieces: readonly (string | Uint8Array)[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    const socket = connect(door.port, '127.0.0.1', () => {
      for (const piece of pieces) socket.write(piece)
    })
    socket.on('data', (part) => parts.push(part))
    socket.on('error', (error) => (parts.length > 0 ? undefined : reject(error)))
    socket.on('close', () => resolve(Buffer.concat(parts).toString()))
    onTestFinished(() => void socket.destroy())
  })
}

export const tasks = (tenant = 'acme', fn = 'demo.one'): string =>
  JSON.stringify({ tenant, tasks: [{ function: fn, payload: { load: 'L1' } }] })

/** Rows that only an admitted request may make. */
export async function stored(house: House): Promise<Record<string, unknown>> {
  const [row] = await house.sql(`select
    (select count(*) from tms.agent_tasks)::int as tasks, (select count(*) from tms.edge_nonces)::int as nonces,
    (select count(*) from tms.replay_runs)::int as replays, (select count(*) from tms.outbox_events)::int as events,
    (select count(*) from tms.edge_rate_limits where subject like 'tenant:%')::int as tenant_rates,
    (select count(*) from tms.dead_letter_queue where status <> 'open')::int as letters`)
  return row ?? {}
}

export async function neverShutOut({ operator }: House): Promise<void> {
  for (const key of ['security.block.signatures', 'security.block.nonces']) {
    const set = { request_id: randomUUID(), key, level: 'global', value: 0, why: 'the test says so' } as const
    granted(await operator.call('flags_set', set))
  }
}
