import { execFileSync } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Contract } from '../../src/drivers/contract.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { startDelivery, type Deliverer } from '../../src/outbox/deliver.ts'
import { createLogger } from '../../src/redaction/logger.ts'
import { startArena, type Arena } from '../attacks/fleet/arena.ts'
import { routingKey } from '../notify/pagerduty-server.ts'
import { answer, resetRequest } from '../outbox/targets/receivers.ts'
import { until } from '../servers/process.ts'
import { startWire, type Wire } from '../servers/wire.ts'
import { bin, build } from '../ui/built.ts'
import { collect, envelopeOf, run, said, start, type Ended } from '../ui/process.ts'
import { resumeNow } from './fixture.ts'

/**
 * Every lever where things are broken, as whole commands. All the while Slack cuts its connections, one PagerDuty answers
 * 429 and another one 500. What only the button does (certificates, the stop file, who is told directly) is in press.test.ts.
 */

let arena: Arena
let wire: Wire
let delivery: Deliverer
const folder = mkdtempSync(join(tmpdir(), 'tms-levers-'))
const token = 'the override token of this test'
const hash = createHash('sha256').update(token).digest('hex')
const people: { readonly server: Server; tried: number }[] = []

/** Somebody who should be told and can't be. */
async function deaf(misbehave: RequestListener): Promise<string> {
  const server = createServer((request, response) => {
    person.tried++
    misbehave(request, response)
  })
  const person = { server, tried: 0 }
  people.push(person)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return `http://127.0.0.1:${typeof address === 'object' ? (address?.port ?? 0) : 0}`
}

type Call = keyof Contract
type Lever = {
  /** What has to be there before it can be pulled; it answers what is typed. */
  readonly prepare: () => Promise<readonly string[]>
  readonly stdin?: string
  /** Whether it was pulled, and once. */
  readonly pulled: () => Promise<boolean>
  /** The call that does it. */
  readonly call: Call
  /** Whether Ctrl-C reaches it: then it ends, and the same again goes on. */
  readonly interruptible?: true
  /** The second of two at once may find that somebody was faster. */
  readonly second?: string
}

const operator = () => arena.fleet.operator
const list = async () => granted(await operator().call('incident_list', {}))
const open = async (type: string) => (await list()).incidents.filter((incident) => incident.type === type)
const halted = async () => (await list()).fence.halted && (await open('emergency_stop')).length === 1
const degraded = async () => (await open('soft_degrade')).length === 1
const limit = async () =>
  (await arena.sql(`select value from tms.feature_flags_v2 where key = 'finance.approvalLimit'`))[0]?.['value']
const name = () => operator().target.consentName
const press = async () => {
  const { halt } = granted(await operator().call('fence_halt', { why: 'a test' }))
  const pressed = await operator().call('incident_press', { request_id: randomUUID(), halt: halt ?? '' })
  return granted(pressed).incident
}
const alarm = (type: string) => ['handle', JSON.stringify({ level: 'high', type, description: 'a test' })]
/** Two changes of a flag, the posture green between them. */
const changedSinceGreen = async () => {
  await arena.fleet.set('obs.otelEnabled', true)
  await arena.fleet.set('finance.approvalLimit', '100')
  const [{ at } = { at: '' }] = await arena.sql(
    `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
  )
  granted(
    await operator().call('posture_record', {
      request_id: randomUUID(),
      as_of: String(at),
      verdict: 'green',
      score: { low: '100', high: '100', grade: 'A' },
      checks: [{ name: 'a_check', state: 'green', observed: null, comparison: 'at most', limit: '0' }],
    }),
  )
  await arena.fleet.set('finance.approvalLimit', '5000')
  const plan = granted(await operator().call('incident_rollback_plan', {}))
  return ['--confirm', `${name()}@${plan.plan ?? ''}`]
}
let resuming = ''

const levers: Readonly<Record<string, Lever>> = {
  'big-red-button': { prepare: async () => ['big-red-button'], pulled: halted, call: 'fence_halt' },
  'handle emergency_stop': { prepare: async () => alarm('emergency_stop'), pulled: halted, call: 'fence_halt' },
  'soft-degrade': { prepare: async () => ['soft-degrade'], pulled: degraded, call: 'incident_soft_degrade' },
  'handle soft_degrade': {
    prepare: async () => alarm('soft_degrade'),
    pulled: degraded,
    call: 'incident_soft_degrade',
  },
  rollback: {
    prepare: async () => ['rollback', ...(await changedSinceGreen())],
    pulled: async () => (await limit()) === '100' && (await open('rollback')).length === 1,
    call: 'incident_rollback',
    second: 'PLAN_CHANGED',
  },
  'handle rollback': {
    prepare: async () => [...alarm('rollback'), ...(await changedSinceGreen())],
    pulled: async () => (await limit()) === '100' && (await open('rollback')).length === 1,
    call: 'incident_rollback',
    second: 'PLAN_CHANGED',
  },
  'handle another alarm': {
    prepare: async () => alarm('slow_rates'),
    pulled: async () => (await open('slow_rates')).length === 1,
    call: 'incident_open',
    interruptible: true,
  },
  resume: {
    prepare: async () => {
      resuming = await press()
      return ['resume', resuming, '--watch', '0s', '--confirm', `${name()}@incident-${resuming}`]
    },
    pulled: async () => {
      const { incident, fence, slots_percent } = granted(await operator().call('incident_show', { id: resuming }))
      return incident.status === 'RESOLVED' && !fence.halted && slots_percent === 100
    },
    call: 'incident_resume',
    interruptible: true,
  },
  'safe-mode on': {
    prepare: async () => ['safe-mode', 'on'],
    pulled: async () => (await list()).fence.safe_mode,
    call: 'safe_mode_on',
  },
  'safe-mode off': {
    prepare: async () => {
      granted(await operator().call('safe_mode_on', { why: 'a test' }))
      return ['safe-mode', 'off', '--confirm', `${name()}@safe-mode`]
    },
    stdin: token,
    pulled: async () => !(await list()).fence.safe_mode,
    call: 'safe_mode_off',
    second: 'CONFLICT',
  },
}

beforeAll(async () => {
  build()
  arena = await startArena()
  wire = await startWire(Number(new URL(arena.database.url).port))
  await arena.sql(`update tms.environment set override_token_sha256 = '${hash}'`)
  const slack = await deaf(resetRequest)
  const busy = await deaf(answer(429, { 'retry-after': '0' }))
  const broken = await deaf(answer(500))
  const places: Readonly<Record<string, string>> = { SLACK: `${slack}/services/T0/B0/x`, PAGER: routingKey }
  const hosts = ['127.0.0.1']
  const topics = ['incident.*', 'fleet.*']
  const pager = (called: string, baseUrl: string) =>
    ({ name: called, kind: 'pagerduty', topics, config: { routingKeyFrom: { env: 'PAGER' }, baseUrl, hosts } }) as const
  granted(
    await operator().call('outbox_targets_set', {
      request_id: randomUUID(),
      targets: [
        { name: 'slack', kind: 'slack', topics, config: { urlFrom: { env: 'SLACK' }, hosts } },
        pager('busy', busy),
        pager('broken', broken),
      ],
    }),
  )
  delivery = await startDelivery({
    driver: arena.fleet.worker,
    secrets: async (source) => ('env' in source ? (places[source.env] ?? '') : ''),
    log: createLogger({ write: () => undefined, clock: () => new Date() }),
    pollMs: 100,
    fetch,
    lookup: async () => hosts,
    clock: () => new Date(),
    random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
    folder: '/nonexistent',
    timeoutMs: 60_000,
  })
})
afterAll(async () => {
  await delivery.stop()
  for (const { server } of people) {
    server.closeAllConnections()
    server.close()
  }
  await wire.stop()
  await arena.stop()
  rmSync(folder, { recursive: true, force: true })
})

const here = (more: Readonly<Record<string, string>> = {}) => ({
  cwd: folder,
  env: { DATABASE_URL: arena.database.url, TMS_TIMEOUT: '20', TMS_STOP_FOLDER: join(folder, 'stop'), ...more },
})
const through = (port: number) => {
  const url = new URL(arena.database.url)
  url.port = String(port)
  url.searchParams.set('sslmode', 'disable')
  return url.href
}
const told = ({ code, stdout }: Ended) => {
  const { error, data, warnings } = envelopeOf(stdout)
  // True by the envelope's own contract.
  const problem = error as { readonly code: string; readonly next: readonly string[] } | null
  return { code, error: problem?.code ?? null, next: problem?.next ?? [], data, warnings }
}

const tooEarly = async (ended: Promise<Ended>): Promise<never> => {
  const { stdout } = await ended
  throw new Error(`it ended before: ${stdout}`)
}

/** All levers back, so that the next test finds what it needs. */
async function back(): Promise<void> {
  await wire.resume()
  const { incidents, fence, resuming: begun } = await list()
  if (fence.safe_mode)
    granted(
      await operator().call('safe_mode_off', { request_id: randomUUID(), override_token_sha256: hash, why: 'a test' }),
    )
  for (const { id, type } of incidents) {
    if (type === 'emergency_stop' || type === 'soft_degrade') await resumeNow(operator(), id)
    else await operator().call('incident_work', { request_id: randomUUID(), id, action: 'resolve', text: 'a test' })
  }
  if (begun !== null)
    await operator().call('incident_resume', { request_id: randomUUID(), id: begun, step: 'slots', percent: 100 })
}

describe.each(Object.entries(levers))('%s', (_name, lever) => {
  let words: readonly string[] = []
  /** Consent names the database by its address: over the wire it has another one. */
  const typed = (url = arena.database.url) =>
    words.map((word) => (url === '' ? word : word.replace(new URL(arena.database.url).host, new URL(url).host)))
  const pull = async (more: Readonly<Record<string, string>> = {}) =>
    told(
      await run([bin, 'incident', ...typed(more['DATABASE_URL']), '--json'], {
        ...here(more),
        ...(lever.stdin === undefined ? {} : { stdin: lever.stdin }),
      }),
    )
  /** Prepares, pulls somehow, looks, and puts everything back. */
  const scene = async (work: () => Promise<void>) => {
    try {
      words = await lever.prepare()
      expect(await lever.pulled(), 'before').toBe(false)
      await work()
    } finally {
      await back()
    }
  }

  test('without permission, without a database and in the wrong folder: each by its code, and nothing is done', () =>
    scene(async () => {
      const denied = await pull({ DATABASE_URL: arena.workerUrl })
      expect(denied).toMatchObject({ code: 4, error: 'ROLE_DENIED' })
      expect(denied.next.length).toBeGreaterThan(0)
      const down = 'postgres://nobody@127.0.0.1:1/gone'
      expect(await pull({ DATABASE_URL: down })).toMatchObject({ code: 3, error: 'DB_UNREACHABLE' })
      expect(await pull({ DATABASE_URL: '' })).toMatchObject({ code: 2, error: 'CONFIG_MISSING' })
      expect(await lever.pulled()).toBe(false)
    }))

  test('with a database that hangs it gives up, and says so', () =>
    scene(async () => {
      wire.stall()
      const hung = await pull({ DATABASE_URL: through(wire.port), TMS_CONNECT_TIMEOUT: '1', TMS_TIMEOUT: '2' })
      expect(hung).toMatchObject({ code: 3, error: expect.stringMatching(/^DB_/) as string })
      await wire.resume()
      expect(await lever.pulled()).toBe(false)
    }))

  test('with a slow database it is pulled', () =>
    scene(async () => {
      wire.slow(100)
      try {
        expect(await pull({ DATABASE_URL: through(wire.port) })).toMatchObject({ code: 0, error: null })
      } finally {
        wire.slow(0)
      }
      expect(await lever.pulled()).toBe(true)
    }))

  test('without a key and on a full disk it is pulled, and what could not be written is said', (context) => {
    if (process.getuid?.() !== 0) return context.skip('a small file system takes root to mount')
    return scene(async () => {
      const disk = mkdtempSync(join(folder, 'disk-'))
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk])
      try {
        expect(() => writeFileSync(join(disk, 'ballast'), Buffer.alloc(128 * 1024))).toThrow('ENOSPC')
        const at = { TMS_ARTIFACTS: join(disk, 'artifacts'), TMS_STOP_FOLDER: join(disk, 'stop') }
        const done = await pull({ ...at, TMS_KEYS: join(folder, 'no-keys') })
        expect(done).toMatchObject({ code: 0, error: null })
        if (lever.call === 'fence_halt')
          expect(done.warnings.join('\n')).toMatch(/no key here[\s\S]*could not be written/)
        const left = readdirSync(disk, { recursive: true, withFileTypes: true })
        expect(left.flatMap((entry) => (entry.isFile() ? [entry.name] : []))).toEqual(['ballast'])
      } finally {
        execFileSync('umount', ['-l', disk])
      }
      expect(await lever.pulled()).toBe(true)
    })
  })

  test('twice at once it is pulled once', () =>
    scene(async () => {
      const both = await Promise.all([pull(), pull()])
      const ended = both.map(({ code, error }) => (code === 0 ? 'done' : error)).sort()
      expect([['done', 'done'], ...(lever.second === undefined ? [] : [[lever.second, 'done'].sort()])]).toContainEqual(
        ended,
      )
      expect(await lever.pulled()).toBe(true)
    }))

  test('Ctrl-C while the database is at it', () =>
    scene(async () => {
      const sent = wire.holdAnswerTo(`tms.${lever.call}(`)
      const url = through(wire.port)
      const child = start([bin, 'incident', ...typed(url), '--json'], here({ DATABASE_URL: url }))
      const heard = said(child.stderr, 'can no longer be cancelled')
      heard.catch(() => undefined)
      const ended = collect(child)
      child.stdin.end(lever.stdin ?? '')
      await Promise.race([sent, tooEarly(ended)])
      child.kill('SIGINT')
      if (lever.interruptible) {
        expect(told(await ended)).toMatchObject({ code: 130, error: 'INTERRUPTED' })
        await wire.resume()
        // What the database took is done; the same again joins it or goes on from there.
        expect(await pull()).toMatchObject({ code: 0, error: null })
      } else {
        await heard
        await wire.resume()
        expect(told(await ended)).toMatchObject({ code: 0, error: null })
      }
      expect(await lever.pulled()).toBe(true)
    }))
})

test('after a Ctrl-C what follows the halt has three seconds, and the halt stands', async () => {
  const sent = wire.holdAnswerTo('tms.incident_press(')
  const child = start(
    [bin, 'incident', ...alarm('emergency_stop'), '--json'],
    here({ DATABASE_URL: through(wire.port) }),
  )
  const ended = collect(child)
  child.stdin.end()
  await Promise.race([sent, tooEarly(ended)])
  wire.stall()
  child.kill('SIGINT')
  const { code, data, warnings } = told(await ended)
  expect({ code, data }).toMatchObject({ code: 0, data: { fenced: true, certificate: null } })
  expect(warnings).toContainEqual(expect.stringContaining('it was interrupted'))
  expect((await list()).fence.halted).toBe(true)
  await wire.resume()
  await until('the press came through', async () => (await open('emergency_stop')).length === 1)
  await back()
})

test('where nothing is there to go back to, the alarm is an incident all the same', async () => {
  const handle = async (words: readonly string[]) => told(await run([bin, 'incident', ...words, '--json'], here()))
  await arena.fleet.set('obs.otelEnabled', true)
  await arena.sql('delete from tms.posture_states')
  const none = await handle(alarm('rollback'))
  // Nothing to change, and nothing on record that says it was ever green: that is no success.
  expect(none).toMatchObject({
    code: 3,
    error: 'NO_DATA',
    data: { basis: 'flags', changes: [], incident: expect.any(String) as string },
  })
  const [incident] = await open('rollback')
  expect(incident).toMatchObject({ id: none.data['incident'], priority: 'P2', title: 'Rollback: a test' })
  // Nor is it swallowed when somebody has to consent first.
  const plan = await changedSinceGreen()
  const asked = await handle(['handle', '{"level":"critical","type":"rollback","description":"worse"}'])
  expect(asked).toMatchObject({ code: 4, error: 'CONSENT_MISSING', warnings: [expect.stringContaining('is open')] })
  expect(await open('rollback')).toMatchObject([{ id: incident?.id, priority: 'P1', occurrences: '2' }])
  // Back where the recorded posture was green there is nothing to do, and that is known.
  expect(await handle([...alarm('rollback'), ...plan])).toMatchObject({ code: 0 })
  expect(await handle(alarm('rollback'))).toMatchObject({ code: 0, data: { basis: 'posture', changes: [] } })
  await back()
})

test('all that time nobody could be told, and that kept none of them', async () => {
  await until('each was tried', () => people.length === 3 && people.every(({ tried }) => tried > 0))
})
