import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { until } from '../servers/process.ts'
import { bundle, connectionTo, type Bundle } from './bundle.ts'
import { endChildren, startChild, type Child } from './children.ts'

let built: Bundle
beforeAll(async () => {
  built = await bundle()
  await built.database()
})
afterEach(endChildren)
afterAll(() => built.remove())

const full = process.env.TMS_TEST_FULL === '1'
const many = full ? 20 : 10

async function using<T>(directory: string, work: (driver: Driver) => Promise<T>): Promise<T> {
  const driver = await openEmbedded(connectionTo(directory), built.internals)
  try {
    return await work(driver)
  } finally {
    await driver.close()
  }
}

/** Request id and how often it was applied. */
function applied(directory: string): Promise<Map<string, number>> {
  return using(directory, async (driver) => {
    const rows = await driver.administration?.transaction((run) =>
      run('select request_id, count(*) as times from tms.effects group by 1'),
    )
    return new Map(rows?.map((row) => [String(row['request_id']), Number(row['times'])]))
  })
}

function ownerPid(directory: string): number {
  const numbers = readdirSync(directory).flatMap((name) => /^owner\.(\d+)\.json$/.exec(name)?.[1] ?? [])
  const highest = Math.max(...numbers.map(Number))
  const record: { pid: number } = JSON.parse(readFileSync(join(directory, `owner.${highest}.json`), 'utf8'))
  return record.pid
}

const isOpen = (fact: { opened?: true }) => fact.opened === true
const opened = (child: Child) => child.said('open', isOpen)

test(
  `of ${many} processes that change something while the owner is killed, no acknowledged change is lost and none applied twice`,
  async () => {
    const directory = await built.database()
    const acknowledged = new Set<string>()
    for (let round = 0; round < (full ? 20 : 1); round++) {
      const children = Array.from({ length: many }, () => startChild(built.childFile, 'caller', directory, 60_000))
      await Promise.all(children.map(opened))
      const requests = new Map<string, Child>()
      for (const child of children) {
        for (let i = 0; i < 5; i++) {
          const request_id = randomUUID()
          requests.set(request_id, child)
          child.tell({ fn: 'tenants_add', args: { request_id, key: 'k', name: `round ${round}` }, tag: request_id })
        }
      }
      const answered = () => children.flatMap((child) => child.facts.filter((fact) => fact.tag !== undefined))
      await until('work in full swing', () => answered().length >= 10)
      const victim = children.find((child) => child.pid === ownerPid(directory))
      if (!victim) throw new Error('the owner is none of them')
      victim.kill('SIGKILL')
      expect(await victim.ended).toBe('SIGKILL')

      for (const child of children) child.tell('close')
      await Promise.all(children.filter((child) => child !== victim).map((child) => child.ended))
      for (const fact of answered()) {
        expect(fact).toMatchObject({ answer: { tenant: { key: 'k' } } })
        if (fact.tag !== undefined) acknowledged.add(fact.tag)
      }
      // Those that survive get all their answers; only the victim's own are lost with it.
      for (const [id, child] of requests) if (child !== victim) expect(acknowledged).toContain(id)
    }
    const stored = await applied(directory)
    for (const id of acknowledged) expect(stored.get(id)).toBe(1)
  },
  full ? 600_000 : 180_000,
)

test(`${many} short processes at once all get their change done, one after the other or through each other`, async () => {
  const directory = await built.database()
  const children = Array.from({ length: many }, () => startChild(built.childFile, 'caller', directory, 60_000))
  for (const child of children) {
    child.tell({ fn: 'tenants_add', args: { request_id: randomUUID(), key: 'k', name: 'short' }, tag: 'only' })
    child.tell('close')
  }
  expect(await Promise.all(children.map((child) => child.ended))).toEqual(Array(many).fill(0))
  expect((await applied(directory)).size).toBe(many)
})

test('a directory whose owner was killed opens again, with everything that was acknowledged', async () => {
  const directory = await built.database()
  const owner = startChild(built.childFile, 'caller', directory)
  await opened(owner)
  owner.tell({ fn: 'tenants_add', args: { request_id: 'the one', key: 'k', name: 'n' }, tag: 'done' })
  await owner.said('the answer', (fact) => fact.tag === 'done')
  owner.kill('SIGKILL')
  await owner.ended
  expect(await applied(directory)).toEqual(new Map([['the one', 1]]))
  expect(readdirSync(directory).sort()).toEqual(['db', 'owner.1.json', 'owner.2.json'])
})

test('an owner that is stopped is never robbed: others give up in time, name it, and work when it goes on', async () => {
  const directory = await built.database()
  const owner = startChild(built.childFile, 'caller', directory)
  await opened(owner)
  owner.kill('SIGSTOP')
  const others = Array.from({ length: 5 }, () => startChild(built.childFile, 'caller', directory, 700))
  for (const other of others) {
    other.tell({ fn: 'tenants_add', args: { request_id: randomUUID(), key: 'k', name: 'n' }, tag: 'while stopped' })
    const fact = await other.said('giving up', ({ tag }) => tag === 'while stopped')
    expect(fact.error).toMatch(/^(DB_TIMEOUT|OWNER_BUSY)$/)
    expect(fact.why).toContain(`Process ${owner.pid} owns the database`)
    expect(fact.next).toContain(`kill -CONT ${owner.pid}`)
  }
  expect(ownerPid(directory)).toBe(owner.pid)
  expect(readdirSync(directory).filter((name) => name.endsWith('.json'))).toEqual(['owner.1.json'])
  owner.kill('SIGCONT')
  for (const other of others) {
    other.tell({ fn: 'tenants_add', args: { request_id: randomUUID(), key: 'k', name: 'n' }, tag: 'after' })
    await other.said('an answer', ({ tag, answer }) => tag === 'after' && answer !== undefined)
    other.tell('close')
  }
  owner.tell('close')
  expect(await owner.ended).toBe(0)
})
