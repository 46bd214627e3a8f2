import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { embeddedSubject, type Subject } from '../contract/subjects.ts'
import { policy, readyFleet } from '../fleet/fleet.ts'
import { json, surroundings, tms } from './run.ts'

/** Who may not: on an embedded database that nobody holds open between two commands. */

let subject: Subject
let folder: string
let restore: () => void
let letter: string
let parked: string

const people = {
  vera: { role: 'viewer', tenant: 'acme' },
  otto: { role: 'ops_manager', tenant: 'acme' },
  dora: { role: 'developer' },
  fritz: { role: 'finance_manager', tenant: 'acme' },
} as const

beforeAll(async () => {
  subject = await embeddedSubject()
  const fleet = await readyFleet(subject, [policy('rates')])
  const { operator, worker } = fleet
  for (const [name, membership] of Object.entries(people)) {
    granted(
      await operator.call('users_grant', {
        request_id: randomUUID(),
        principal: name,
        credential: { kind: 'local', name },
        ...membership,
      }),
    )
  }
  await fleet.enqueue('acme', [
    { function: 'rates.one', payload: { load: 'secret-load' } },
    { function: 'rates.careful' },
  ])
  const id = await fleet.hello(['rates'])
  const { tasks } = granted(await worker.call('tasks_claim', { worker: id, limit: 10 }))
  const rest = tasks.map(({ id: task, claim, fn }) =>
    fn === 'rates.one'
      ? ({ id: task, claim, outcome: 'failed', class: 'validation', error: 'no such load' } as const)
      : ({ id: task, claim, outcome: 'completed', effects: {} } as const),
  )
  granted(await worker.call('tasks_finish', { worker: id, rest }))
  granted(await worker.call('worker_bye', { worker: id }))
  parked = tasks.find(({ fn }) => fn === 'rates.careful')?.id ?? ''
  letter = granted(await operator.call('dlq_list', { limit: 1 })).letters[0]?.id ?? ''
  const directory = operator.target.name.replace('embedded ', '')
  await worker.close()
  await operator.close()
  folder = await mkdtemp(join(tmpdir(), 'tms-fleet-roles-'))
  writeFileSync(join(folder, 'tms.config.yaml'), `driver: embedded\ndirectory: ${directory}\n`)
  restore = surroundings(folder)
})
afterAll(async () => {
  restore()
  await subject.stop()
  await rm(folder, { recursive: true, force: true })
})

const why = ['--why', 'the test says so'] as const

/** While somebody holds the database open, every command there is theirs. */
async function as<T>(who: keyof typeof people, work: () => Promise<T>): Promise<T> {
  const owner = await subject.as(who)
  try {
    return await work()
  } finally {
    await owner.close()
  }
}

describe('a viewer', () => {
  let owner: Driver
  beforeAll(async () => {
    owner = await subject.as('vera')
  })
  afterAll(() => owner.close())

  test.each([
    ['agents pause', ['rates', ...why]],
    ['agents pause', ['--tenant', 'acme', ...why]],
    ['agents drain', ['rates', ...why]],
    ['agents quarantine', ['rates', ...why]],
    ['agents resume', ['rates', ...why, '--confirm', 'rates']],
    ['agents enqueue', ['rates.one', '--tenant', 'acme']],
    ['outbox list', []],
    ['outbox lag', []],
    ['outbox retry', ['1', '--tenant', 'acme', ...why]],
    ['dlq list', []],
    ['dlq stats', []],
    ['dlq snooze', ['1', '--tenant', 'acme', '--for', '1h', ...why]],
    ['dlq discard', ['1', '--tenant', 'acme', ...why, '--confirm', 'acme/1']],
    ['dlq replay', ['--tenant', 'acme']],
  ])('is refused %s %j: exit 4', async (id, argv) => {
    const { code, error } = await json(id, ...argv)
    expect([code, error?.code]).toEqual([4, 'ROLE_DENIED'])
  })

  test('may not approve, whatever is confirmed', async () => {
    const answer = await json('agents approve', parked, '--tenant', 'acme', ...why, '--confirm', parked)
    expect([answer.code, answer.error?.code]).toEqual([4, 'ROLE_DENIED'])
  })
})

describe('other roles', () => {
  test('an ops manager works for the own tenant and for no other', async () => {
    await as('otto', async () => {
      expect((await json('dlq show', letter)).data).toMatchObject({ payload: { load: 'secret-load' } })
      expect((await tms('dlq list', '--tenant', 'globex')).code).toBeGreaterThan(0)
      expect((await json('dlq replay', '--tenant', 'acme', '--ids', letter)).data).toMatchObject({
        items: [{ id: letter }],
      })
      expect((await tms('agents pause', '--tenant', 'acme', ...why)).code).toBe(4)
      expect((await tms('agents status')).out).toMatch(/workers +none that you may see/)
    })
  })

  test('a developer sees outbox and runs without what belongs to a tenant', async () => {
    const runs = await as('dora', () => json('agents runs'))
    expect(runs.code).toBe(0)
    expect(JSON.stringify(runs.data)).not.toContain('no such load')
    const waiting = await as('dora', () => tms('agents approve', '--list'))
    expect([waiting.code, waiting.out]).toEqual([0, expect.stringContaining('not shown to this role')])
  })

  test('who may approve and not look is asked all the same, and the database decides', async () => {
    const refused = await as('fritz', () => json('agents approve', parked, '--tenant', 'acme', ...why))
    expect([refused.code, refused.error?.code]).toEqual([4, 'CONSENT_MISSING'])
    const denied = await as('fritz', () =>
      json('agents approve', parked, '--tenant', 'acme', ...why, '--confirm', parked),
    )
    expect([denied.code, denied.error?.code]).toEqual([4, 'ROLE_DENIED'])
  })
})
