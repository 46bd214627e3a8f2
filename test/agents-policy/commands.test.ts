import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Config } from '@oclif/core'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import AgentsNew from '../../src/commands/agents/new.ts'
import AgentsPolicyCheck from '../../src/commands/agents/policy/check.ts'
import AgentsPolicyExplain from '../../src/commands/agents/policy/explain.ts'
import AgentsPolicyLoad from '../../src/commands/agents/policy/load.ts'
import OutboxTargets from '../../src/commands/outbox/targets.ts'
import { readSqlFiles } from '../../src/db/files.ts'
import { push } from '../../src/db/schema.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { sqlFolder } from '../servers/schema.ts'
import { query, startPostgres, type Postgres } from '../servers/postgres.ts'
import { envelopeOf, root } from '../ui/process.ts'
import { folderWith, policyText } from './folder.ts'

const commands = {
  'agents new': AgentsNew,
  'agents policy check': AgentsPolicyCheck,
  'agents policy explain': AgentsPolicyExplain,
  'agents policy load': AgentsPolicyLoad,
  'outbox targets': OutboxTargets,
}

let config: Config
const before = { cwd: process.cwd(), env: { ...process.env } }
beforeAll(async () => {
  config = await Config.load({ root, devPlugins: false, userPlugins: false })
})
beforeEach(() => {
  process.env = Object.fromEntries(
    Object.entries(before.env).filter(([name]) => !/^(TMS_|DATABASE_|SUPABASE_)/.test(name)),
  )
})
afterAll(() => {
  process.chdir(before.cwd)
  process.env = before.env
})

async function tms(
  name: keyof typeof commands,
  ...argv: string[]
): Promise<{ code: number; out: string; err: string }> {
  const Class = commands[name]
  Class.id = name.replaceAll(' ', ':')
  const said = { out: '', err: '' }
  const collect =
    (to: 'out' | 'err') =>
    (chunk: unknown, ...rest: unknown[]) => {
      said[to] += String(chunk)
      const done = rest.at(-1)
      // True because the last argument of write, when it is a function, is the callback.
      if (typeof done === 'function') queueMicrotask(done as () => void)
      return true
    }
  const spies = [
    vi.spyOn(process.stdout, 'write').mockImplementation(collect('out')),
    vi.spyOn(process.stderr, 'write').mockImplementation(collect('err')),
  ]
  try {
    return { code: await new Class(argv, config).execute(), ...said }
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
}

async function inFolder(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await folderWith(files)
  process.chdir(folder)
  return folder
}

const hook = 'targets:\n  - { name: log, kind: file, topics: [rates.*], config: { file: events.jsonl } }\n'

describe('without a database', () => {
  test('check ends with 0 when all is in order, and with 2 and every problem when it is not', async () => {
    await inFolder({ 'policies/agents/good.yaml': policyText('good', 'good.run') })
    expect(await tms('agents policy check')).toMatchObject({ code: 0, out: expect.stringContaining('good') })
    await writeFile('policies/agents/bad.yaml', `${policyText('bad', 'bad')}limit: 1\n`)
    const { code, out, err } = await tms('agents policy check')
    expect([code, err]).toEqual([2, expect.stringContaining('bad: the policy is wrong')])
    expect(out).toMatch(/bad\.yaml:4:13: functions\.0\.name[^]*bad\.yaml:5:1: limit: "limit" is not known/)
    const envelope = envelopeOf((await tms('agents policy check', '--json')).out)
    expect(envelope).toMatchObject({
      ok: false,
      error: { code: 'POLICY_INVALID' },
      data: {
        policies: expect.arrayContaining([expect.objectContaining({ agent: 'good', functions: ['good.run'] })]),
        problems: [
          { agent: 'bad', line: 4, column: 13 },
          { agent: 'bad', line: 5, column: 1 },
        ],
      },
    })
  })

  test('explain ends with 0 when allowed and 1 when denied, and says that no database was asked', async () => {
    await inFolder({ 'policies/agents/rates.yaml': policyText('rates', 'rates.price_one') })
    const yes = await tms('agents policy explain', 'rates', 'rates.price_one')
    expect(yes).toMatchObject({ code: 0, out: expect.stringMatching(/rates\.yaml:4[^]*no database is configured/) })
    const no = await tms('agents policy explain', 'rates', 'rates.drop_all', '--json')
    expect([no.code, envelopeOf(no.out)]).toMatchObject([1, { ok: false, data: { allowed: false }, error: null }])
  })

  test('targets ends with 0 or with 2', async () => {
    await inFolder({ 'policies/targets.yaml': hook })
    expect(await tms('outbox targets')).toMatchObject({ code: 0, out: expect.stringContaining('log') })
    await writeFile('policies/targets.yaml', hook.replace('file: events.jsonl', 'folder: x'))
    expect(await tms('outbox targets')).toMatchObject({ code: 2, out: expect.stringMatching(/targets\.yaml:2:\d+: /) })
  })

  test('new writes into the project of the configuration file, and check is content with it', async () => {
    const folder = await inFolder({ 'tms.config.yaml': 'driver: embedded\npolicies: rules\n', 'sub/README.md': '' })
    process.chdir(join(folder, 'sub'))
    const { code, out } = await tms('agents new', 'rates')
    expect([code, out]).toEqual([0, expect.stringContaining('node --test test/agents/rates.test.mjs')])
    expect(await readFile(join(folder, 'rules/agents/rates.yaml'), 'utf8')).toContain('agent: rates')
    expect(await tms('agents policy check')).toMatchObject({ code: 0 })
    expect(await tms('agents new', 'rates')).toMatchObject({ code: 4, err: expect.stringContaining('CONFLICT') })
    expect(await tms('agents new', 'Rates')).toMatchObject({ code: 2 })
  })

  test('explain creates no database where the configured one is not there yet, and does not guess', async () => {
    const folder = await inFolder({
      'tms.config.yaml': 'driver: embedded\n',
      'policies/agents/rates.yaml': policyText('rates', 'rates.run'),
    })
    const { code, out } = await tms('agents policy explain', 'rates', 'rates.run')
    expect([code, out]).toEqual([expect.not.stringMatching('0'), expect.stringContaining('could not be read')])
    expect([2, 3]).toContain(code)
    expect(existsSync(join(folder, '.tms'))).toBe(false)
  })
})

describe('with a database', () => {
  let server: Postgres
  let url: string
  beforeAll(async () => {
    server = await startPostgres()
    const database = await server.createDatabase()
    url = database.url
    const driver = await openPostgres({ driver: 'postgres', url, connectTimeoutMs: 10_000, callTimeoutMs: 20_000 })
    await push(driver, await readSqlFiles(sqlFolder))
    await driver.close()
    await query(url, `select tms._bootstrap('postgres', session_user::text, 'operator@example.com')`)
  })
  afterAll(() => server.stop())

  test('load puts the policies there, and explain sees that it is the same version', async () => {
    await inFolder({ 'policies/agents/rates.yaml': policyText('rates', 'rates.run') })
    process.env.DATABASE_URL = url
    expect(await tms('agents policy explain', 'rates', 'rates.run')).toMatchObject({ code: 1 })
    expect(await tms('agents policy explain', 'rates', 'rates.run', '--offline')).toMatchObject({ code: 0 })
    expect(await tms('agents policy load')).toMatchObject({ code: 0, out: expect.stringMatching(/changed +rates/) })
    const { code, out } = await tms('agents policy explain', 'rates', 'rates.run')
    expect([code, out]).toEqual([0, expect.stringContaining('the database holds the same version')])
  })

  test('load loads the files that are in order and ends with 2 for those that are not', async () => {
    await inFolder({
      'policies/agents/good.yaml': policyText('good', 'good.run'),
      'policies/agents/rates.yaml': 'agent: rates\n',
    })
    process.env.DATABASE_URL = url
    const { code, out } = await tms('agents policy load', '--json')
    expect([code, envelopeOf(out)]).toMatchObject([
      2,
      {
        data: { loaded: expect.arrayContaining(['good']), problems: [{ agent: 'rates' }, {}, {}] },
        error: { code: 'POLICY_INVALID' },
      },
    ])
  })

  test('explain ends with 3 when the database does not answer, and shows what the files say', async () => {
    await inFolder({ 'policies/agents/rates.yaml': policyText('rates', 'rates.run') })
    process.env.DATABASE_URL = 'postgres://nobody@127.0.0.1:1/none'
    const { code, out } = await tms('agents policy explain', 'rates', 'rates.run')
    expect([code, out]).toEqual([3, expect.stringMatching(/rates\.yaml:4[^]*could not be read/)])
  })

  test('loading targets asks for consent only to take one away', async () => {
    await inFolder({ 'policies/targets.yaml': hook })
    process.env.DATABASE_URL = url
    expect(await tms('outbox targets', '--load')).toMatchObject({ code: 0 })
    await writeFile('policies/targets.yaml', hook.replace('log', 'other'))
    const refused = await tms('outbox targets', '--load')
    expect([refused.code, refused.err]).toEqual([4, expect.stringContaining('--confirm log')])
    expect(await tms('outbox targets', '--load', '--confirm', 'log')).toMatchObject({ code: 0 })
    expect(await query(url, 'select name from tms.outbox_targets')).toEqual([{ name: 'other' }])
  })

  test('a folder without targets.yaml takes no target away', async () => {
    await inFolder({})
    process.env.DATABASE_URL = url
    expect(await tms('outbox targets', '--load')).toMatchObject({ code: 2 })
    expect(await query(url, 'select name from tms.outbox_targets')).toEqual([{ name: 'other' }])
  })
})
