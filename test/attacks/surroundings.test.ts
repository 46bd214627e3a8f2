import { execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { build, bin } from '../ui/built.ts'
import { until } from '../servers/process.ts'
import { query, startPostgres, startReplica, type Database, type Postgres, type Replica } from '../servers/postgres.ts'

/**
 * The command line in bad company: each ends with the right code, says what to type next, prints no stack, never hangs and
 * leaves nothing half written.
 */
const isRoot = process.getuid?.() === 0
const full = process.env['TMS_TEST_FULL'] === '1'
const root = mkdtempSync(join(tmpdir(), 'tms-surroundings-'))
// somebody else must be able to come in
chmodSync(root, 0o755)
const mounts: string[] = []
let count = 0

beforeAll(() => build())
afterAll(() => {
  for (const mount of mounts) spawnSync('umount', ['-l', mount])
  rmSync(root, { recursive: true, force: true })
})

type Ended = { code: number | null; stdout: string; stderr: string; ms: number }
type Options = { cwd?: string; env?: Record<string, string | undefined>; input?: string | Uint8Array; program?: string }

function tms(args: string[], { cwd = root, env = {}, input = '', program = bin }: Options = {}): Promise<Ended> {
  const since = Date.now()
  const bare = {
    PATH: process.env['PATH'],
    XDG_CONFIG_HOME: join(root, 'config'),
    TMS_TIMEOUT: '10',
    TMS_CONNECT_TIMEOUT: '3',
  }
  const child = spawn(process.execPath, [program, ...args], { cwd, env: { ...bare, ...env }, stdio: 'pipe' })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  return new Promise((resolve) =>
    child.once('close', (code) => resolve({ code, stdout, stderr, ms: Date.now() - since })),
  )
}

/** The errors whose envelope was seen. */
const enveloped = new Set<string>()

/** The shape of every failure; and the same again with --json: each at full size, else once for each error. */
async function fails(args: string[], exit: number, code: string, options: Options = {}): Promise<Ended> {
  const plain = await tms(args, options)
  expect([plain.code, plain.stderr]).toEqual([exit, expect.stringMatching(new RegExp(`^${code}: `, 'm'))])
  expect(plain.stderr).toMatch(/^Next:\n {2}\S/m)
  expect(plain.stderr).not.toMatch(/\n\s+at .*[:(]\d+/)
  expect(plain.stdout).toBe('')
  expect(plain.ms).toBeLessThan(25_000)
  if (!full && enveloped.has(code)) return plain
  enveloped.add(code)
  const json = await tms([...args, '--json'], options)
  const envelope = JSON.parse(json.stdout.trim().split('\n').at(-1) ?? '') as {
    ok: boolean
    error: { code: string; next: string[] }
  }
  expect([json.code, envelope.ok, envelope.error.code]).toEqual([exit, false, code])
  expect(envelope.error.next.length).toBeGreaterThan(0)
  expect(json.ms).toBeLessThan(25_000)
  return plain
}

function folder(): string {
  const path = join(root, `f${(count += 1)}`)
  mkdirSync(path)
  return path
}

/** A folder with an initialised embedded database; made once and copied. */
let template: string | undefined
async function initialised(): Promise<string> {
  if (template === undefined) {
    template = folder()
    const { code, stderr } = await tms(['init', '--yes'], { cwd: template })
    expect([code, stderr]).toEqual([0, expect.any(String)])
  }
  const path = folder()
  cpSync(template, path, { recursive: true })
  return path
}

/** `tms up` in this folder; what it answers ends it. Beside it a command costs a third of what it costs alone. */
async function owned(cwd: string): Promise<() => Promise<unknown>> {
  const owner = spawn(process.execPath, [bin, 'up'], {
    cwd,
    env: { PATH: process.env['PATH'] },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const ended = new Promise((resolve) => owner.once('close', resolve))
  onTestFinished(() => void owner.kill('SIGKILL'))
  await new Promise((resolve) => owner.stdout.once('data', resolve))
  return () => {
    owner.kill('SIGTERM')
    return ended
  }
}

describe('on the embedded database', () => {
  test('a pipe that is closed after one byte ends it silently with the code it would have had', async () => {
    const cwd = await initialised()
    for (const [args, code] of [
      [['flags', 'list', '--json'], 0],
      [['flags', 'get', 'no.such', '--json'], 2],
    ] as const) {
      const shell = `set -o pipefail; "$0" "$@" | head -c 1 >/dev/null; echo "\${PIPESTATUS[0]}"`
      const { stdout, stderr } = spawnSync('bash', ['--norc', '-c', shell, process.execPath, bin, ...args], {
        cwd,
        encoding: 'utf8',
        env: { PATH: process.env['PATH'], XDG_CONFIG_HOME: join(root, 'config') },
      })
      expect([stdout.trim(), stderr]).toEqual([String(code), ''])
    }
  })

  test('closed stdin, no HOME and NO_COLOR change nothing', async () => {
    const cwd = await initialised()
    const { stdout, status } = spawnSync(
      'bash',
      ['--norc', '-c', `exec "$0" "$@" <&-`, process.execPath, bin, 'flags', 'verify'],
      {
        cwd,
        encoding: 'utf8',
        env: { PATH: process.env['PATH'], NO_COLOR: '1' },
      },
    )
    expect([status, stdout]).toEqual([0, expect.stringContaining('GREEN')])
  })

  test('in a folder without a database it says so, creates nothing, and names init', async () => {
    const cwd = folder()
    await fails(['flags', 'list'], 2, 'CONFIG_MISSING', { cwd })
    expect(readdirSync(cwd)).toEqual([])
    writeFileSync(join(cwd, 'tms.config.yaml'), 'driver: embedded\n')
    await fails(['flags', 'list'], 2, 'CONFIG_MISSING', { cwd })
    expect(readdirSync(cwd)).toEqual(['tms.config.yaml'])
  })

  test('in a folder it may not write to, init says so and leaves nothing', async () => {
    const cwd = folder()
    if (isRoot) {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m,ro', 'tmpfs', cwd])
      mounts.push(cwd)
    } else chmodSync(cwd, 0o555)
    await fails(['init', '--yes'], 3, 'FILE_UNWRITABLE', { cwd })
    expect(readdirSync(cwd)).toEqual([])
  })

  test('on a full disk init leaves nothing behind, and works when there is room', async (context) => {
    if (!isRoot) return context.skip('a small file system takes root to mount')
    const cwd = folder()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', cwd])
    mounts.push(cwd)
    await fails(['init', '--yes'], 3, 'DISK_FULL', { cwd })
    expect(readdirSync(cwd).filter((name) => name !== '.tms')).toEqual([])
    execFileSync('mount', ['-o', 'remount,size=300m', cwd])
    expect((await tms(['init', '--yes'], { cwd })).code).toBe(0)
    expect((await tms(['flags', 'verify'], { cwd })).code).toBe(0)
  })

  test('on a disk that fills up later a change is refused or kept, and nothing before it is lost', async (context) => {
    if (!isRoot) return context.skip('a small file system takes root to mount')
    const cwd = folder()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=300m', 'tmpfs', cwd])
    mounts.push(cwd)
    expect((await tms(['init', '--yes'], { cwd })).code).toBe(0)
    const set = (n: number) =>
      tms(['flags', 'set', 'budget.agents.maxConcurrent', String(n), '--why', `change ${n}`], { cwd })
    expect((await set(1)).code).toBe(0)
    const { bavail, bsize } = statfsSync(cwd)
    writeFileSync(join(cwd, 'ballast'), Buffer.alloc(bavail * bsize))
    const ended = await set(2)
    expect([0, 3]).toContain(ended.code)
    if (ended.code === 3) expect(ended.stderr).toMatch(/^(DISK_FULL|DB_FULL): [\s\S]*^Next:/m)
    rmSync(join(cwd, 'ballast'))
    const { code, stdout } = await tms(['flags', 'get', 'budget.agents.maxConcurrent', '--json'], { cwd })
    const { data } = JSON.parse(stdout) as { data: { flag: { value: number } } }
    expect([code, data.flag.value]).toEqual([0, ended.code === 0 ? 2 : 1])
  })

  test('with half a snapshot, or a flipped bit in it, init says so and creates nothing', async () => {
    const copy = folder()
    for (const part of ['bin', 'dist', 'sql', 'policies', 'package.json', 'oclif.manifest.json']) {
      cpSync(join(bin, '../..', part), join(copy, part), { recursive: true })
    }
    execFileSync('ln', ['-s', join(bin, '../../node_modules'), join(copy, 'node_modules')])
    const snapshot = join(copy, 'dist/embedded.tar.gz')
    const whole = readFileSync(snapshot)
    for (const spoil of [
      () => truncateSync(snapshot, Math.floor(whole.length / 2)),
      () =>
        writeFileSync(
          snapshot,
          whole.map((byte, i) => (i === 100_000 ? byte ^ 1 : byte)),
        ),
    ]) {
      copyFileSync(join(bin, '../../dist/embedded.tar.gz'), snapshot)
      spoil()
      const cwd = folder()
      await fails(['init', '--yes'], 3, 'SNAPSHOT_BROKEN', { cwd, program: join(copy, 'bin/run.js') })
      expect(readdirSync(join(cwd, '.tms')).filter((name) => name.startsWith('db'))).toEqual([])
    }
  })

  test.each(['deleted and made anew', 'replaced by a backup'])(
    'a folder that is %s under a living owner is not written to by it',
    async (how) => {
      const cwd = await initialised()
      cpSync(join(cwd, '.tms'), join(cwd, 'backup'), { recursive: true })
      const stopOwner = await owned(cwd)
      for (const key of ['old1', 'old2', 'old3']) expect((await tms(['tenants', 'add', key], { cwd })).code).toBe(0)
      // The owner may write a file into a folder that is being emptied; whoever reads "not empty" types it again.
      await until('the folder is deleted', () => spawnSync('rm', ['-rf', join(cwd, '.tms')]).status === 0)
      if (how === 'replaced by a backup') cpSync(join(cwd, 'backup'), join(cwd, '.tms'), { recursive: true })
      else expect((await tms(['init', '--yes'], { cwd })).code).toBe(0)
      for (const key of ['new1', 'new2', 'new3']) {
        expect((await tms(['tenants', 'add', key], { cwd })).code).toBe(0)
      }
      await stopOwner()
      const { code, stdout } = await tms(['tenants', 'list'], { cwd })
      expect([code, stdout]).toEqual([0, expect.stringMatching(/new1[\s\S]*new2[\s\S]*new3/)])
      expect(stdout).not.toContain('old')
    },
    90_000,
  )

  test("root in somebody else's folder leaves nothing there that locks its owner out", async (context) => {
    if (!isRoot) return context.skip('only root can act in a folder of somebody else')
    const cwd = await initialised()
    execFileSync('chown', ['-R', '65534:65534', cwd])
    expect((await tms(['flags', 'verify'], { cwd })).code).toBe(0)
    const left = execFileSync('find', [join(cwd, '.tms'), '-uid', '0'], { encoding: 'utf8' })
    expect(left).toBe('')
  })

  test('a result that cannot be printed is not said to be undone', async () => {
    const cwd = await initialised()
    const { stderr, status } = spawnSync(
      'bash',
      ['--norc', '-c', `exec "$0" "$@" >/dev/full`, process.execPath, bin, 'tenants', 'add', 'printed'],
      {
        cwd,
        encoding: 'utf8',
        env: { PATH: process.env['PATH'] },
      },
    )
    expect([status, stderr]).toEqual([3, expect.stringContaining('is done')])
    expect(stderr).not.toContain('nothing was changed')
    expect((await tms(['tenants', 'list'], { cwd })).stdout).toContain('printed')
  })

  test('a damaged or unreadable database is not called an absent one', async () => {
    const cwd = await initialised()
    rmSync(join(cwd, '.tms/db/PG_VERSION'))
    await fails(['flags', 'list'], 3, 'FILE_UNREADABLE', { cwd })
    await fails(['init', '--yes'], 3, 'FILE_UNREADABLE', { cwd })
  })

  test('a configuration that is a pipe does not hang', async () => {
    const cwd = folder()
    execFileSync('mkfifo', [join(cwd, 'tms.config.yaml')])
    await fails(['flags', 'list'], 2, 'CONFIG_INVALID', { cwd })
  })

  test('init and db push are no-ops beside a running owner, when there is nothing to do', async () => {
    const cwd = await initialised()
    const stopOwner = await owned(cwd)
    expect((await tms(['init', '--yes'], { cwd })).code).toBe(0)
    const pushed = await tms(['db', 'push'], { cwd })
    expect([pushed.code, pushed.stderr]).toEqual([0, ''])
    const second = await tms(['up'], { cwd, env: { TMS_TIMEOUT: '2' } })
    expect([second.code, second.stderr]).toEqual([3, expect.stringContaining('OWNER_BUSY')])
    await stopOwner()
  })

  test('a value that cannot be stored is turned away with its reason', async () => {
    const cwd = await initialised()
    const stopOwner = await owned(cwd)
    const set = ['flags', 'set', 'obs.otelSampling', '-', '--why', 'x']
    await fails(set, 2, 'INPUT_INVALID', { cwd, input: 'x'.repeat(2 * 1024 * 1024) })
    await fails(set, 2, 'INPUT_INVALID', { cwd, input: '5\0' })
    // a lone surrogate cannot be written in UTF-8: these bytes are one all the same
    await fails(set, 2, 'INPUT_INVALID', { cwd, input: Buffer.from([0x35, 0xed, 0xa0, 0x80]) })
    await fails(
      ['flags', 'set', 'ops.replayEnabled', 'true', '--percentage', '101', '--why', 'x'],
      2,
      'INPUT_INVALID',
      { cwd },
    )
    await fails(['flags', 'set', 'ops.replayEnabled', 'perhaps', '--why', 'x'], 2, 'INPUT_INVALID', { cwd })
    await fails(['flags', 'set', 'ops.replayEnabled', 'true', '--tenant', 'nosuch', '--why', 'x'], 2, 'NOT_FOUND', {
      cwd,
    })
    await fails(['flags', 'history', '--limit', 'many'], 2, 'USAGE', { cwd })
    await fails(['flags', 'list', '--nosuch'], 2, 'USAGE', { cwd })
    await fails(['flags', 'lst'], 2, 'USAGE', { cwd })
    const { stdout } = await tms(['flags', 'history', '--json'], { cwd })
    expect(
      (JSON.parse(stdout) as { data: { changes: { why: string }[] } }).data.changes.every(({ why }) => why !== 'x'),
    ).toBe(true)
    await stopOwner()
  })

  test('a configuration that is wrong is named with line and column', async () => {
    const cwd = folder()
    const config = (text: string) => writeFileSync(join(cwd, 'tms.config.yaml'), text)
    config('driver: embedded\ntimeout: soon\n')
    expect((await fails(['flags', 'list'], 2, 'CONFIG_INVALID', { cwd })).stderr).toContain('tms.config.yaml:2:1')
    config('driver: embedded\n  timeout: [\n')
    expect((await fails(['flags', 'list'], 2, 'CONFIG_INVALID', { cwd })).stderr).toMatch(/tms\.config\.yaml:\d+:\d+/)
    config('driver: embedded\n')
    await fails(['flags', 'list', '--profile', 'nosuch'], 2, 'PROFILE_UNKNOWN', { cwd })
  })

  test('an edited migration is refused by name', async () => {
    const cwd = await initialised()
    const copy = folder()
    for (const part of ['bin', 'dist', 'sql', 'policies', 'package.json', 'oclif.manifest.json']) {
      cpSync(join(bin, '../..', part), join(copy, part), { recursive: true })
    }
    execFileSync('ln', ['-s', join(bin, '../../node_modules'), join(copy, 'node_modules')])
    writeFileSync(join(copy, 'sql/migrations/0001_foundation.sql'), '-- edited')
    const { stderr } = await fails(['db', 'push'], 2, 'MIGRATION_CHANGED', { cwd, program: join(copy, 'bin/run.js') })
    expect(stderr).toContain('0001_foundation.sql')
  })

  test('what needs consent asks nobody without a terminal, and names the command to type', async () => {
    const cwd = await initialised()
    for (const extra of [[], ['--yes']]) {
      const { code, stderr } = await tms(['db', 'reset', ...extra], { cwd })
      if (extra.length === 0)
        expect([code, stderr]).toEqual([4, expect.stringContaining('tms db reset --confirm .tms')])
      else expect(code).toBe(2)
    }
    await fails(['db', 'reset', '--confirm', 'other'], 4, 'CONSENT_MISSING', { cwd })
    expect((await tms(['flags', 'verify'], { cwd })).code).toBe(0)
    expect((await tms(['db', 'reset', '--confirm', '.tms'], { cwd })).code).toBe(0)
  })
})

describe('on Postgres', () => {
  let server: Postgres
  let database: Database
  const silent: Server[] = []

  beforeAll(async () => {
    server = await startPostgres({ own: true })
    database = await server.createDatabase()
    const consent = `127.0.0.1:${server.port}/${database.name}`
    const refused = await tms(['init', '--yes', '--environment', 'staging'], { env: { DATABASE_URL: database.url } })
    expect([refused.code, refused.stderr]).toEqual([4, expect.stringContaining('--confirm')])
    const name = /--confirm (\S+)/.exec(refused.stderr)?.[1] ?? consent
    expect(name).toContain(database.name)
    const done = await tms(['init', '--yes', '--environment', 'staging', '--confirm', name], {
      env: { DATABASE_URL: database.url },
      cwd: folder(),
    })
    expect([done.code, done.stderr]).toEqual([0, expect.any(String)])
    expect(done.stdout).not.toContain(new URL(database.url).password)
  })
  afterAll(async () => {
    for (const one of silent) one.close()
    await server.stop()
  })
  const on = (url: string, extra: Record<string, string> = {}): Options => ({ env: { DATABASE_URL: url, ...extra } })

  test('it works, and doctor finds nothing but what a bare test server lacks', async () => {
    expect((await tms(['flags', 'verify'], on(database.url))).stdout).toContain('GREEN')
    const { stdout } = await tms(['doctor', '--json'], on(database.url))
    const { data } = JSON.parse(stdout) as { data: { checks: { check: string; state: string }[] } }
    expect(data.checks.filter(({ state }) => state !== 'ok')).toEqual([])
  })

  test('a wrong password, database or port each has its own error, and none prints the password', async () => {
    const wrong = new URL(database.url)
    wrong.password = 'not-the-password'
    const { stderr } = await fails(['flags', 'list'], 3, 'DB_AUTH_FAILED', on(wrong.href))
    expect(stderr).not.toContain('not-the-password')
    const nowhere = new URL(database.url)
    nowhere.pathname = '/nosuch'
    await fails(['flags', 'list'], 3, 'DB_AUTH_FAILED', on(nowhere.href))
    const closed = new URL(database.url)
    closed.port = '1'
    await fails(['flags', 'list'], 3, 'DB_UNREACHABLE', on(closed.href))
  })

  test('a server that says nothing, and one that hangs up, end in time', async () => {
    for (const greet of ['nothing', 'hang up'] as const) {
      const one = createServer((socket) => {
        socket.on('error', () => undefined)
        if (greet === 'hang up') socket.destroy()
      })
      silent.push(one)
      await new Promise<void>((resolve) => one.listen(0, '127.0.0.1', resolve))
      const url = new URL(database.url)
      url.port = String((one.address() as AddressInfo).port)
      await fails(['flags', 'list'], 3, 'DB_UNREACHABLE', on(url.href))
    }
  })

  test("a database without the schema says to push; with a neighbour's it works; with a distant one it says which side to change", async () => {
    const empty = await server.createDatabase()
    const { stderr } = await fails(['flags', 'list'], 3, 'SCHEMA_ABSENT', on(empty.url))
    expect(stderr).toContain('tms db push')
    const speak = (version: number) =>
      query(
        database.superuserUrl,
        `create or replace function tms.contract_version(args jsonb) returns jsonb language sql stable as $$ select jsonb_build_object('contract', ${version}, 'server', '15') $$`,
      )
    try {
      for (const neighbour of [0, 2]) {
        await speak(neighbour)
        const { code, stderr: said } = await tms(['flags', 'verify'], on(database.url))
        expect([code, said]).toEqual([0, expect.stringMatching(/^Warning: .*one version (older|newer)/)])
      }
      await speak(3)
      await fails(['flags', 'list'], 3, 'SCHEMA_NEWER', on(database.url))
      await speak(-1)
      await fails(['flags', 'list'], 3, 'SCHEMA_OLDER', on(database.url))
    } finally {
      await speak(1)
    }
  })

  test('a replica ten minutes behind is not asked', async () => {
    const replica: Replica = await startReplica(server, { applyDelay: '10min' })
    try {
      expect((await tms(['tenants', 'add', 'fresh'], on(database.url))).code).toBe(0)
      const { stdout } = await tms(
        ['tenants', 'list'],
        on(database.url, { DATABASE_REPLICA_URL: replica.urlOf(database.url) }),
      )
      expect(stdout).toContain('fresh')
    } finally {
      await replica.stop()
    }
  })

  test('somebody the database does not know is refused, with whom to ask', async () => {
    await query(database.superuserUrl, `create role stranger login password 'stranger' in role tms_caller`)
    await fails(['flags', 'list'], 4, 'IDENTITY_UNKNOWN', on(database.urlAs('stranger', 'stranger')))
  })
})
