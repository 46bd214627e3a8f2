import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Config } from '@oclif/core'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { TmsCommand } from '../../src/ui/command.ts'
import { build } from '../ui/built.ts'
import { collect, root, said } from '../ui/process.ts'

/**
 * Every command in this process, as one story on one embedded database: what it prints for people, what it prints for
 * programs, and its exit code. The fleet's commands have stories of their own. The built program is tried as a child
 * process elsewhere (test/ui, test/door, test/attacks).
 */
type CommandClass = { id: string } & (new (argv: string[], config: Config) => TmsCommand)

const sources = join(root, 'src/commands')
const ids = readdirSync(sources, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.replace(/\.ts$/, '').replaceAll('/', ' '))
const ran = new Set<string>()
/** What the command that runs now has printed. */
let printed = ''

let folder: string
let config: Config
const before = { cwd: process.cwd(), env: { ...process.env } }

beforeAll(async () => {
  build()
  folder = await mkdtemp(join(tmpdir(), 'tms-commands-'))
  process.chdir(folder)
  process.env = Object.fromEntries(
    Object.entries(before.env).filter(([name]) => !/^(TMS_|DATABASE_|SUPABASE_)/.test(name)),
  )
  config = await Config.load({ root, devPlugins: false, userPlugins: false })
})
afterAll(async () => {
  process.chdir(before.cwd)
  process.env = before.env
  await rm(folder, { recursive: true, force: true })
})

async function tms(id: string, ...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const name = `${id.replaceAll(' ', '/')}.ts`
  // True because every file in src/commands exports one command class.
  const { default: Class } = (await import(join(sources, name))) as { default: CommandClass }
  Class.id = id.replaceAll(' ', ':')
  let out = ''
  let err = ''
  printed = ''
  const collect =
    (add: (text: string) => void) =>
    (chunk: unknown, ...rest: unknown[]) => {
      add(String(chunk))
      const done = rest.at(-1)
      // True because the last argument of write, when it is a function, is the callback.
      if (typeof done === 'function') queueMicrotask(done as () => void)
      return true
    }
  const spies = [
    vi.spyOn(process.stdout, 'write').mockImplementation(collect((text) => (printed = out += text))),
    vi.spyOn(process.stderr, 'write').mockImplementation(collect((text) => (err += text))),
  ]
  try {
    const code = await new Class(argv, config).execute()
    ran.add(id)
    return { code, out, err }
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
}

async function json(id: string, ...argv: string[]) {
  const { code, out } = await tms(id, ...argv, '--json')
  // True enough for a test: what is in it is compared.
  const envelope = JSON.parse(out.trim().split('\n').at(-1) ?? '') as {
    ok: boolean
    data: never
    error: { code: string } | null
  }
  return { code, ...envelope }
}

/** Beside an owner of the database a command needs a tenth of a second, and without one half a second to open it. */
let owner: ChildProcessWithoutNullStreams | undefined
async function own(): Promise<void> {
  owner = spawn(process.execPath, [join(root, 'bin/run.js'), 'up', '--no-work'])
  await said(owner.stdout, 'Serving embedded')
}
async function disown(): Promise<void> {
  if (owner === undefined) return
  const ended = collect(owner)
  owner.kill('SIGTERM')
  owner = undefined
  expect((await ended).code).toBe(143)
}

describe('in order', () => {
  afterAll(disown)

  test('init makes the database, the key, the configuration, and shows the token once', async () => {
    const first = await tms('init', '--yes', '--keys', 'keys')
    expect(first).toMatchObject({
      code: 0,
      out: expect.stringMatching(/override token +tms-override-\S{32}/) as string,
    })
    expect(await readFile(join(folder, 'tms.config.yaml'), 'utf8')).toContain('driver: embedded')
    const again = await json('init', '--yes')
    expect([again.code, again.data]).toEqual([0, expect.objectContaining({ first: false, overrideToken: null })])
  })

  test('status, whoami and config show say where and who one is', async () => {
    expect((await tms('status')).out).toMatch(/environment +development/)
    expect((await tms('whoami')).out).toMatch(/super_admin/)
    expect((await tms('config show')).out).toMatch(/directory .*tms\.config\.yaml:\d+/)
  })

  test('doctor is content', async () => {
    const { code, out } = await tms('doctor')
    expect([code, out]).toEqual([0, expect.not.stringContaining('problem ')])
    expect(out).not.toContain('Next:')
  })

  test('db status, push and export', async () => {
    await own()
    expect(await json('db status')).toMatchObject({ code: 0, data: { upToDate: true } })
    expect((await tms('db push')).out).toContain('up to date')
    const exported = await tms('db export', '--supabase', '--folder', 'migrations')
    expect([exported.code, exported.out]).toEqual([0, expect.stringContaining('supabase db push')])
    expect((await tms('db export', '--supabase', '--folder', 'migrations')).out).toContain('up to date')
  })

  test('tenants are added once', async () => {
    expect((await tms('tenants list')).out).toContain('tms tenants add')
    expect((await tms('tenants add', 'acme', '--name', 'Acme Freight')).code).toBe(0)
    const twice = await tms('tenants add', 'acme')
    expect([twice.code, twice.err]).toEqual([4, expect.stringContaining('CONFLICT')])
    const bad = await tms('tenants add', 'Bad Key')
    expect([bad.code, bad.err]).toEqual([2, expect.stringContaining('Next:\n  tms tenants add --help\n')])
    expect((await json('tenants add', 'Bad Key')).error).toMatchObject({ next: ['tms tenants add --help'] })
    expect((await tms('tenants list')).out).toContain('Acme Freight')
  })

  test('people get roles and lose them', async () => {
    const granted = await tms(
      'users grant',
      'ann@acme.example',
      '--role',
      'ops_manager',
      '--tenant',
      'acme',
      '--local',
      'ann',
      '--expires',
      '30d',
    )
    expect([granted.code, granted.out]).toEqual([0, expect.stringContaining('ops_manager in acme until')])
    expect((await tms('users list', '--tenant', 'acme')).out).toContain('local ann')
    expect((await tms('users grant', 'ann@acme.example', '--role', 'king')).code).toBe(2)
    expect((await tms('users revoke', 'ann@acme.example')).out).toContain('no role')
    expect((await tms('users revoke', 'nobody', '--role', 'viewer')).code).toBe(2)
    const forever = await tms('users grant', 'ann@acme.example', '--role', 'viewer', '--expires', '99999999d')
    expect([forever.code, forever.err]).toEqual([2, expect.stringContaining('USAGE: --expires takes at most 3650d')])
  })

  test('service accounts rotate, and the secret is shown once', async () => {
    expect((await tms('accounts list')).code).toBe(0)
    const rotated = await json('accounts rotate', 'agents', '--kind', 'key', '--overlap', '1h')
    expect(rotated).toMatchObject({ code: 0, data: { account: 'agents', secret: expect.stringMatching(/^\S{43}$/) } })
    expect((await tms('accounts rotate', 'agents', '--kind', 'jwt')).code).toBe(2)
    const long = await tms('accounts rotate', 'agents', '--kind', 'key', '--overlap', '999999999d')
    expect([long.code, long.err]).toEqual([2, expect.stringContaining('USAGE: --overlap takes at most 30d')])
    expect((await tms('accounts rotate', 'ci', '--kind', 'key')).out).toMatch(/secret \(shown once\)/)
    expect((await tms('accounts rotate', 'ci', '--kind', 'postgres')).err).toContain('--kind key')
    expect((await tms('accounts rotate', 'nosuch', '--kind', 'key')).code).toBe(2)
    expect((await tms('accounts list')).out).toMatch(/agents +fleet +ok/)
  })

  test('portals open for whom they are', async () => {
    expect((await tms('portals list')).out).toMatch(/broker +\/broker +on/)
    expect((await tms('portals check', 'broker', '--as', 'dispatcher')).code).toBe(0)
    expect((await tms('portals check', 'broker', '--as', 'driver')).code).toBe(1)
    expect((await tms('portals check', 'broker', '--tenant', 'nosuch')).code).toBe(2)
  })

  // Two dozen commands, each of which opens the database.
  test('flags are set, rolled out with consent, taken back, and verified', async () => {
    const flag = 'ops.notificationsEnabled'
    expect((await tms('flags list', '--match', 'budget.')).out).toContain('budget.agents.maxConcurrent')
    expect((await tms('flags set', 'budget.agents.maxConcurrent', '100', '--why', 'x')).out).toContain('not set -> 100')
    expect((await tms('flags set', 'budget.agents.maxConcurrent', '100', '--why', 'x')).out).toContain(
      'nothing changed',
    )
    expect((await tms('flags set', 'budget.agents.maxConcurrent', '--unset', '--why', 'x')).out).toContain(
      '100 -> not set',
    )
    expect((await tms('flags set', 'budget.agents.maxConcurrent', '--why', 'x')).code).toBe(2)
    expect((await tms('flags set', flag, 'true', '--for-environment', '--why', 'x')).out).toContain(
      'environment development',
    )
    expect((await tms('flags set', flag, '--unset', '--for-environment', '--why', 'x')).code).toBe(0)
    expect((await tms('flags get', flag)).out).toContain('Set nowhere')

    const start = [
      'flags rollout',
      flag,
      '--start',
      'true',
      '--canary',
      'acme',
      '--cohort',
      'early=10',
      '--wait',
      '0s',
      '--why',
      'x',
    ] as const
    const [id, ...argv] = start
    const endless = await tms(id, ...argv.map((word) => (word === '0s' ? '999999999d' : word)))
    expect([endless.code, endless.err]).toEqual([2, expect.stringContaining('USAGE: --wait takes at most 30d')])
    const unconsented = await tms(...start)
    expect([unconsented.code, unconsented.err]).toEqual([4, expect.stringContaining(`--confirm ${flag}@canary`)])
    expect((await tms(...start, '--confirm', `${flag}@canary`)).out).toContain('canary: acme')
    expect((await tms('flags rollout', flag)).out).toContain('cohort, not before')
    expect((await tms('flags rollout', flag, '--next')).code).toBe(2)
    expect((await tms('flags rollout', flag, '--next', '--why', 'x', '--confirm', `${flag}@cohort`)).out).toContain(
      '10 %',
    )
    expect((await tms('flags get', flag, '--tenant', 'acme')).out).toContain('true (for tenant acme)')
    expect((await tms('flags rollout', flag, '--off', '--why', 'x')).out).toContain('off: the default applies')
    expect(
      (await tms('flags rollout', flag, '--start', 'true', '--canary', 'acme', '--cohort', 'early', '--why', 'x')).code,
    ).toBe(2)

    expect((await tms('flags verify')).out).toContain('GREEN')
    expect((await tms('flags set', 'autonomy.mode', 'ASSIST', '--tenant', 'acme', '--why', 'x')).code).toBe(0)
    const red = await tms('flags verify')
    expect([red.code, red.out]).toEqual([1, expect.stringMatching(/RED[\s\S]*autonomy\.mode +tenant acme +ASSIST/)])
    expect((await tms('flags set', 'autonomy.mode', '--unset', '--tenant', 'acme', '--why', 'x')).code).toBe(0)
    expect((await tms('flags history', flag, '--limit', '3')).out).toMatch(/true 10 %/)
  })

  test('the ledger tells who did what', async () => {
    const { out } = await tms('ledger tail', '--limit', '100')
    expect(out).toMatch(/flag\.rollout +done/)
    expect(out).toMatch(/user\.grant +done/)
    expect(out).toMatch(/flags_rollout +refused|CONFLICT/)
  })

  test('up serves until it is told to end', async () => {
    await disown()
    const running = tms('up')
    await expect.poll(() => printed).toContain('Serving embedded')
    process.emit('SIGTERM')
    expect((await running).code).toBe(143)
    await own()
  })

  test('agents start works until it is told to end', async () => {
    const done = join(folder, 'done')
    await mkdir(join(folder, 'agents'))
    await mkdir(join(folder, 'policies/agents'), { recursive: true })
    await writeFile(
      join(folder, 'policies/agents/story.yaml'),
      'agent: story\ndescription: writes a file\nowner: tests\nfunctions: [story.write]\n',
    )
    await writeFile(
      join(folder, 'agents/story.mjs'),
      `import { writeFileSync } from 'node:fs'
       import { defineAgent, z } from '${pathToFileURL(join(root, 'dist/agent.js')).href}'
       const run = async () => { writeFileSync(${JSON.stringify(done)}, '') }
       export default defineAgent({ name: 'story', functions: { 'story.write': { input: z.object({}), output: z.void(), run } } })`,
    )
    expect((await tms('agents policy load')).code).toBe(0)
    expect((await tms('agents enqueue', 'story.write', '--tenant', 'acme')).code).toBe(0)
    const running = tms('agents start')
    await expect.poll(() => existsSync(done)).toBe(true)
    process.emit('SIGTERM')
    const { code, out } = await running
    expect([code, out]).toEqual([143, expect.stringMatching(/story/)])
    expect((await tms('agents runs', '--tenant', 'acme')).out).toMatch(/story\.write +.*completed/)
  })

  test('the ledger is sealed, signed, proved and exported, and verifies', async () => {
    expect((await tms('ledger seal')).out).toMatch(/^Sealed \d+ rows/)
    expect((await tms('ledger show', '0')).out).toMatch(/^row +0\n/)
    expect((await tms('ledger checkpoint', '--out', 'known.txt')).code).toBe(0)
    expect((await tms('ledger prove', '1')).out).toMatch(/^c2sp\.org\/tlog-proof@v1\nindex 1\n/)
    expect((await tms('ledger export', '--out', 'ledger.jsonl')).code).toBe(0)
    await writeFile(join(folder, 'key.pem'), (await tms('evidence keys export')).out)
    const outside = ['--checkpoint', 'known.txt', '--key', 'key.pem']
    expect((await tms('ledger verify', ...outside)).out).toContain('verified')
    expect((await tms('ledger verify', '--export', 'ledger.jsonl', '--key', 'key.pem')).code).toBe(0)
    const { privateKey } = generateKeyPairSync('ed25519')
    await writeFile(join(folder, 'witness.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
    const seen = await tms('ledger witness', 'known.txt', '--key', 'witness.pem', '--name', 'witness.example/w')
    expect([seen.code, seen.out]).toEqual([0, expect.stringContaining('witness.example/w')])
  })

  test('a pack is built, listed, shown, compared, exported and verified', async () => {
    expect((await tms('flags set', 'autonomy.mode', 'ASSIST', '--tenant', 'acme', '--why', 'x')).code).toBe(0)
    const { code, data } = await json('evidence build')
    const { day } = data as { day: string }
    expect(code, 'a required flag was changed: red, and written all the same').toBe(1)
    expect((await tms('evidence list')).out).toContain(day)
    expect((await tms('evidence show', day)).out).toContain('provisional')
    expect((await tms('evidence diff', day, day)).out).toContain('The same facts')
    expect((await tms('evidence export', '--from', day, '--to', day)).code).toBe(0)
    expect((await tms('evidence verify', day, '--key', 'key.pem')).code, 'no checkpoint from outside').toBe(1)
    expect((await tms('evidence verify', day, '--key', 'key.pem', '--allow-unanchored')).code).toBe(0)
    expect((await tms('evidence prune')).code, 'nothing is old enough').toBe(0)
    expect(JSON.parse((await tms('evidence schema', 'manifest.json')).out)).toHaveProperty('title')
    expect((await json('evidence keys generate')).error?.code).toBe('CONFLICT')
    expect((await json('evidence keys revoke', 'f'.repeat(64), '--why', 'lost')).code).toBeGreaterThan(1)
  })

  test('an incident lives from its opening to its close', async () => {
    const { data } = await json('incident open', 'rates do not load', '--priority', 'P2')
    const { incident: opened } = data as { incident: { id: string } }
    const incident = opened.id
    expect((await tms('incident note', incident, 'called them')).code).toBe(0)
    expect((await tms('incident soft-degrade', '--why', 'too many errors')).out).toContain(
      'Soft degrade is on, of the whole fleet',
    )
    // Also where it comes from a forgotten variable.
    process.env['TMS_TENANT'] = 'acme'
    expect((await tms('incident soft-degrade', '--why', 'everything')).out).toMatch(/Soft degrade.*of tenant acme/)
    delete process.env['TMS_TENANT']
    const open = (await json('incident list')).data as { incidents: { id: string; type: string }[] }
    const degraded = open.incidents.find(({ id }) => id !== incident)?.id ?? ''
    const resumed = await tms('incident resume', degraded, '--watch', '0s', '--confirm', `.tms@incident-${degraded}`)
    expect(resumed.code, resumed.err).toBe(0)
    for (const id of [incident, degraded]) {
      await tms('incident resolve', id, '--why', 'over')
      expect((await tms('incident close', id)).code).toBe(0)
    }
    expect((await tms('incident show', incident)).out).toContain('CLOSED')
    expect((await tms('incident timeline', incident)).out).toContain('called them')
  })

  test('nothing was done because of the posture, nobody is shut out, and nobody is told', async () => {
    expect((await tms('posture check')).code, 'a required flag was changed above').toBe(1)
    expect((await tms('posture watch', '--ticks', '1')).code).toBe(1)
    expect((await tms('posture actions')).out).toContain('Nothing was done')
    expect((await json('posture undo', '1', '--why', 'x', '--confirm', '1')).error?.code).toBe('NOT_FOUND')
    expect((await tms('security events')).code).toBe(0)
    expect((await tms('security blocks')).out).toContain('Nobody is shut out')
    expect((await json('security unblock', 'nobody', '--why', 'x', '--confirm', 'nobody')).code).toBeGreaterThan(1)
    expect((await tms('notify status')).out).toContain('NOBODY')
    expect((await json('notify test', 'none')).error?.code).toBe('NOT_FOUND')
  })

  test('db reset removes everything, with consent', async () => {
    await disown()
    expect((await json('db reset')).error?.code).toBe('CONSENT_MISSING')
    expect((await tms('db reset', '--confirm', '.tms')).code).toBe(0)
    const { code } = await tms('flags verify')
    expect(code, 'nothing is required by an empty catalogue: unknown, not green').toBe(3)
  })

  test('every command was tried', () => {
    const elsewhere = ['fleet-commands', 'agents-policy', 'door', 'incident', 'invariants', 'keys']
      .flatMap((area) => readdirSync(join(root, 'test', area)).map((name) => join(root, 'test', area, name)))
      .map((path) => readFileSync(path, 'utf8'))
      .join('')
    const tried = (id: string) =>
      ran.has(id) || elsewhere.includes(`'${id}'`) || elsewhere.includes(`'${id.replaceAll(' ', "', '")}'`)
    expect(ids.filter((id) => !tried(id))).toEqual([])
  })
})
