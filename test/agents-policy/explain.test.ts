import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { explain, heldAgent } from '../../src/agents/policy/explain.ts'
import { loadAgentPolicies, policySha256 } from '../../src/agents/policy/load.ts'
import { readAgentPolicies } from '../../src/agents/policy/read.ts'
import { explanationView } from '../../src/agents/policy/views.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { loadTargets, parseTargets, targetsToRemove } from '../../src/outbox/targets-file.ts'
import { postgresSubject, type Subject } from '../contract/subjects.ts'
import { folderWith, policyText } from './folder.ts'

const rates = `# prices
agent: rates
description: d
owner: o
functions:
  - rates.price_one
  - name: rates.commit
    approval: true
limits:
  timeout: 2m
breaker: { errors_percent: 2.25 }
`

async function files() {
  const folder = await folderWith({
    'agents/rates.yaml': rates,
    'agents/loads.yaml': policyText('loads', 'loads.match'),
    'agents/broken.yaml': `${policyText('broken', 'broken.run')}limits: { timeout: 30 }\nmay: []\n`,
  })
  return { read: await readAgentPolicies([folder]), path: (agent: string) => join(folder, 'agents', `${agent}.yaml`) }
}

const offline = 'not asked: no database is configured here'

describe('without a database', () => {
  test('what is listed is allowed, and the line that lists it is named', async () => {
    const { read, path } = await files()
    const { allowed, file, database } = explain(read, 'rates', 'rates.price_one', offline)
    expect([allowed, file.reason, file.where, file.approval]).toEqual([true, 'listed', `${path('rates')}:6`, false])
    expect(file.limits.find(({ name }) => name === 'timeout')).toEqual({ name: 'timeout', value: '2m', line: 10 })
    expect(file.limits.find(({ name }) => name === 'attempts')).toEqual({ name: 'attempts', value: '5', line: null })
    expect(database).toMatchObject({ state: 'not_asked', allowed: null, why: offline })
  })

  test('what needs approval says so', async () => {
    const { read, path } = await files()
    const explanation = explain(read, 'rates', 'rates.commit', offline)
    expect(explanation.file).toMatchObject({ allowed: true, approval: true, where: `${path('rates')}:7` })
    expect(JSON.stringify(explanationView(explanation))).toContain('allowed, with approval')
  })

  test('what is not listed is denied by the line of the list, with what was meant', async () => {
    const { read, path } = await files()
    const { allowed, file, next } = explain(read, 'rates', 'rates.price_on', offline)
    expect([allowed, file.reason, file.where]).toEqual([false, 'not_listed', `${path('rates')}:5`])
    expect(file.why).toContain('Did you mean rates.price_one?')
    expect(next).toEqual([`vi +5 ${path('rates')}`])
  })

  test("another agent's function is denied, and the other agent is named", async () => {
    const { read, path } = await files()
    expect(explain(read, 'rates', 'loads.match', offline).file.why).toContain(`; loads may: ${path('loads')}:4`)
  })

  test('without a file everything is denied, and the file that would allow it is named', async () => {
    const { read, path } = await files()
    const { allowed, file } = explain(read, 'rate', 'rates.price_one', offline)
    expect([allowed, file.reason, file.where]).toEqual([false, 'no_file', path('rate')])
    expect(file.why).toContain('Did you mean rates?')
  })

  test('with a file that failed to load everything is denied, and the line that failed is named', async () => {
    const { read, path } = await files()
    const { allowed, file } = explain(read, 'broken', 'broken.run', offline)
    expect([allowed, file.reason, file.where]).toEqual([false, 'file_failed', `${path('broken')}:5`])
    expect(file.why).toContain(`${path('broken')}:5:11: limits.timeout: takes a duration`)
    expect(file.why).toContain('and 1 more')
  })
})

describe('with a database', () => {
  let subject: Subject
  let db: Driver
  beforeAll(async () => {
    subject = await postgresSubject()
    db = await subject.operator()
  })
  afterAll(async () => {
    await db.close()
    await subject.stop()
  })

  const about = async (read: Awaited<ReturnType<typeof readAgentPolicies>>, agent: string, fn: string) =>
    explain(read, agent, fn, await heldAgent(db, agent))

  test('loading stores what the files say, denies what they do not, and changes nothing the second time', async () => {
    const { read } = await files()
    await loadAgentPolicies(db, { policies: [] })
    expect((await about(read, 'rates', 'rates.price_one')).allowed).toBe(false)
    expect(await loadAgentPolicies(db, read)).toEqual({
      loaded: ['loads', 'rates'],
      changed: ['loads', 'rates'],
      removed: [],
    })
    expect(await loadAgentPolicies(db, read)).toMatchObject({ changed: [], removed: [] })
    expect(await heldAgent(db, 'broken')).toBeNull()
    const own = read.policies.find(({ agent }) => agent === 'rates')
    expect(own).toBeDefined()
    if (own === undefined) return
    expect(await heldAgent(db, 'rates')).toMatchObject({ policy: own.policy, policy_sha256: policySha256(own.policy) })
    expect(await about(read, 'rates', 'rates.price_one')).toMatchObject({
      allowed: true,
      database: { state: 'same', allowed: true, sha256: policySha256(own.policy), agentState: 'running' },
    })
  })

  test('a file that broke since the last load takes its agent out of the database', async () => {
    const { read } = await files()
    await loadAgentPolicies(db, read)
    const broken = await readAgentPolicies([
      await folderWith({
        'agents/rates.yaml': rates.replace('2m', '2'),
        'agents/loads.yaml': policyText('loads', 'l.m'),
      }),
    ])
    expect(await loadAgentPolicies(db, broken)).toEqual({ loaded: ['loads'], changed: ['loads'], removed: ['rates'] })
  })

  test('a version that the database does not hold is no permission', async () => {
    const { read } = await files()
    await loadAgentPolicies(db, read)
    const newer = await readAgentPolicies([
      await folderWith({ 'agents/rates.yaml': rates.replace('rates.price_one', 'rates.price_all') }),
    ])
    expect(await about(newer, 'rates', 'rates.price_all')).toMatchObject({
      allowed: false,
      file: { allowed: true },
      database: { state: 'differs', allowed: false },
      next: ['tms agents policy load'],
    })
    // The other way round: the file forbids it, and the database doesn't know yet.
    expect(await about(newer, 'rates', 'rates.price_one')).toMatchObject({
      allowed: false,
      file: { allowed: false },
      database: { state: 'differs', allowed: true },
    })
  })

  test('targets replace those that were there, and those that would go are named first', async () => {
    const two = parseTargets(
      'targets.yaml',
      `targets:
  - { name: log, kind: file, topics: [rates.*], config: { file: events.jsonl } }
  - { name: old, kind: file, topics: [loads.matched], max_attempts: 3, config: { file: old.jsonl } }
`,
    )
    expect(await loadTargets(db, two)).toEqual({ targets: ['log', 'old'], removed: 0 })
    const one = { ...two, targets: two.targets.slice(0, 1) }
    expect(await targetsToRemove(db, one)).toEqual([{ name: 'old', waiting: 0 }])
    expect(await loadTargets(db, one)).toEqual({ targets: ['log'], removed: 1 })
  })

  test('neither a broken nor an absent file of targets removes any', async () => {
    const broken = parseTargets('targets.yaml', 'targets: [{ name: log }]')
    await expect(loadTargets(db, broken)).rejects.toThrow('none of it is loaded')
    await expect(loadTargets(db, { path: null, targets: [], problems: [] })).rejects.toThrow('there is no targets.yaml')
  })
})
