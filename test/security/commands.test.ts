import { writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { embeddedSubject } from '../contract/subjects.ts'
import { surroundings, tms } from '../fleet-commands/run.ts'
import { readyFleet, type Fleet } from '../fleet/fleet.ts'
import { routingKey, startPagerduty } from '../notify/pagerduty-server.ts'
import { answer } from '../outbox/targets/receivers.ts'

/** The commands of security and notify on one embedded database, as super_admin. */

let fleet: Fleet
let folder: string
let restore: () => void
const variables = ['PAGERDUTY_ROUTING_KEY', 'PAGERDUTY_URL']
beforeAll(async () => {
  fleet = await readyFleet(await embeddedSubject())
  folder = await mkdtemp(join(tmpdir(), 'tms-security-'))
  const directory = fleet.operator.target.name.replace('embedded ', '')
  writeFileSync(join(folder, 'tms.config.yaml'), `driver: embedded\ndirectory: ${directory}\n`)
  restore = surroundings(folder)
})
afterAll(async () => {
  restore()
  await fleet.stop()
  await rm(folder, { recursive: true, force: true })
})
afterEach(() => {
  vi.restoreAllMocks()
  for (const name of variables) Reflect.deleteProperty(process.env, name)
})

test('nothing tried and nobody shut out is said so', async () => {
  expect(await tms('security events')).toMatchObject({ code: 0, out: expect.stringContaining('Nothing was tried') })
  expect(await tms('security blocks')).toMatchObject({ code: 0, out: expect.stringContaining('Nobody is shut out') })
})

test('what was tried and who is shut out reads well in 60 columns, and letting in needs consent by name', async () => {
  const door = await fleet.subject.as(await fleet.subject.account('n8n'))
  const event = { kind: 'signature', address: '203.0.113.9', key_id: '', reason: 'missing', count: 25 } as const
  await door.call('door_report', { events: [event] })
  await door.close()
  const events = await tms('security events')
  expect([events.code, events.out]).toEqual([0, expect.stringMatching(/wrong signatures\s+25/)])
  expect((await tms('security blocks')).out).toContain('203.0.113.9')

  const argv = ['203.0.113.9', '--why', 'mended'] as const
  const asked = await tms('security unblock', ...argv)
  expect([asked.code, asked.err]).toEqual([4, expect.stringContaining('--confirm 203.0.113.9')])
  const lifted = await tms('security unblock', ...argv, '--confirm', '203.0.113.9')
  expect([lifted.code, lifted.out]).toEqual([0, expect.stringContaining('let in again')])
  const again = await tms('security unblock', ...argv, '--confirm', '203.0.113.9')
  expect([again.code, again.err]).toEqual([2, expect.stringContaining('tms security blocks')])
})

test('a test of the pager arrives, or exits 3; that nobody is told is a finding', async () => {
  const nobody = await tms('notify status')
  expect([nobody.code, nobody.out]).toEqual([1, expect.stringContaining('NOBODY')])
  const pager = await startPagerduty()
  const here = () => Object.assign(process.env, { PAGERDUTY_ROUTING_KEY: routingKey, PAGERDUTY_URL: pager.url })
  here()
  const loaded = await tms('outbox targets', '--load')
  expect([loaded.code, loaded.out]).toEqual([0, expect.stringContaining('default-pagerduty')])
  expect(loaded.out + loaded.err).not.toContain(routingKey)

  const told = await tms('notify test', 'default-pagerduty')
  expect([told.code, told.out]).toEqual([0, expect.stringContaining('ARRIVED')])
  expect(pager.alerts).toMatchObject([{ state: 'resolved' }])
  pager.misbehave = answer(500)
  const failed = await tms('notify test', 'default-pagerduty')
  expect([failed.code, failed.err]).toEqual([3, expect.stringContaining('answered 500')])
  Reflect.deleteProperty(process.env, 'PAGERDUTY_ROUTING_KEY')
  const without = await tms('notify test', 'default-pagerduty')
  expect([without.code, without.err]).toEqual([3, expect.stringContaining('PAGERDUTY_ROUTING_KEY')])
  // a test goes there directly: of what incidents send, nothing has arrived yet
  expect(await tms('notify status')).toMatchObject({ code: 3, out: expect.stringContaining('UNKNOWN') })
  expect((await tms('notify test', 'nobody')).code).toBe(2)
})
