import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from 'esbuild'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { collect, envelopeOf, idle, noTerminal, onTerminal, root, run, said, start, type Options } from './process.ts'

/** The command base, through commands that do one thing each (fixture/commands.ts). */

const folder = mkdtempSync(join(tmpdir(), 'tms-command-'))
const program = join(folder, 'fixture.js')
const { version } = JSON.parse(readFileSync(join(root, 'oclif.manifest.json'), 'utf8'))
const fixture = {
  FIXTURE_ROOT: root,
  FIXTURE_VERSION: version,
  DATABASE_URL: 'postgres://ann:hunter2hunter2@db.example/tms',
}

beforeAll(async () => {
  await build({
    entryPoints: [join(root, 'test/ui/fixture/commands.ts')],
    outfile: program,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    external: ['typescript', '@electric-sql/pglite', 'pg-native'],
    banner: {
      js: `import { createRequire } from 'node:module'\nconst require = createRequire(${JSON.stringify(`${root}package.json`)})\nconst __dirname = '', __filename = ''`,
    },
    plugins: [
      {
        name: 'fixture-driver',
        setup(building) {
          building.onResolve({ filter: /drivers\/open\.ts$/ }, () => ({ path: join(root, 'test/ui/fixture/open.ts') }))
        },
      },
    ],
  })
})

afterAll(() => rmSync(folder, { recursive: true, force: true }))

const command = (argv: readonly string[], options: Options = {}) =>
  run([program, ...argv], { ...options, env: { ...fixture, ...options.env } })

describe('results', () => {
  test('a result goes to stdout, a warning to stderr, and the exit code is 0', async () => {
    expect(await command(['show'])).toEqual({ code: 0, stdout: 'done\n', stderr: 'Warning: look out\n' })
  })

  test('--json prints one envelope on stdout and nothing on stderr', async () => {
    const { code, stdout, stderr } = await command(['show', '--json'])
    expect(code).toBe(0)
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toEqual({
      ok: true,
      command: 'show',
      data: { words: 'done' },
      warnings: ['look out'],
      error: null,
    })
  })

  test('TMS_JSON=1 stands for --json', async () => {
    const { stdout } = await command(['show'], { env: { TMS_JSON: '1' } })
    expect(envelopeOf(stdout)).toMatchObject({ ok: true })
  })

  test('a finding is a result with exit code 1 and no error, with --json too', async () => {
    expect(await command(['finding'])).toMatchObject({ code: 1, stdout: 'no\n', stderr: '' })
    const { code, stdout } = await command(['finding', '--json'])
    expect(code).toBe(1)
    expect(envelopeOf(stdout)).toMatchObject({ ok: false, data: { words: 'no' }, error: null })
  })

  test('an unknown answer keeps its data and ends with exit code 3', async () => {
    const { code, stdout } = await command(['large-failure', '--json'])
    expect(code).toBe(3)
    expect(envelopeOf(stdout)).toMatchObject({ ok: false, error: { code: 'NO_DATA', next: ['tms up'] } })
  })

  test('wide integers and control characters survive as JSON that a terminal cannot obey', async () => {
    const { code, stdout } = await command(['wide', '--json'])
    expect(code).toBe(0)
    expect(stdout).not.toContain('\u009b')
    expect(envelopeOf(stdout).data).toEqual({ wide: '9223372036854775808', text: 'caf\u009bé' })
  })

  test('showing two results is a bug, not a second envelope', async () => {
    const { code, stdout } = await command(['twice', '--json'])
    expect(code).toBe(70)
    expect(stdout.trim().split('\n')).toHaveLength(1)
  })

  test.each([
    ['large', 0],
    ['large-failure', 3],
  ])('all of a large result arrives through a slow pipe (%s)', async (name, code) => {
    const child = start([program, name, '--json'], { env: fixture })
    // Nothing is read until the process has filled the pipe and has nothing left to do but end.
    child.stdout.pause()
    await new Promise((resolve) => child.once('spawn', resolve))
    await new Promise((resolve) => child.stdout.once('readable', resolve))
    const ended = await collect(child)
    expect(ended.code).toBe(code)
    expect(envelopeOf(ended.stdout).data.words).toHaveLength(1_000_000)
  })

  test('a stream prints one object a line and the envelope last', async () => {
    const { stdout } = await command(['stream', '--json'])
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown)
    expect(lines).toEqual([
      { words: 'item 0' },
      { words: 'item 1' },
      { words: 'item 2' },
      { ok: true, command: 'stream', data: null, warnings: [], error: null },
    ])
  })
})

test('a stream waits for a slow reader instead of filling the memory', async (context) => {
  if (process.platform !== 'linux') return context.skip('needs /proc')
  const child = start([program, 'stream', '--json', '--items', '1000000000'], { env: fixture })
  let ahead = false
  child.stderr.on('data', () => (ahead = true))
  await new Promise((resolve) => child.stdout.once('readable', resolve))
  await Promise.race([idle(child), said(child.stderr, 'far ahead')])
  expect(ahead).toBe(false)
})

describe('a reader that goes away', () => {
  test.each([
    [['large', '--json'], 0],
    [['large'], 0],
    [['large-failure', '--json'], 3],
  ])('changes nothing about the exit code and is not mentioned (%j)', async (argv, code) => {
    const child = start([program, ...argv], { env: fixture })
    const ended = collect(child)
    child.stdout.once('data', () => child.stdout.destroy())
    const { code: actual, stderr } = await ended
    expect(actual).toBe(code)
    expect(stderr).not.toMatch(/EPIPE|Error/)
  })

  test('ends a stream', async () => {
    const child = start([program, 'stream', '--items', '1000000000'], { env: fixture })
    const ended = collect(child)
    child.stdout.once('data', () => child.stdout.destroy())
    expect(await ended).toMatchObject({ code: 0, stderr: 'stream ended\n' })
  })
})

describe('errors', () => {
  test('say what happened, why and what to type, without a stack or a password', async () => {
    const { code, stdout, stderr } = await command(['bug'])
    expect(code).toBe(70)
    expect(stdout).toBe('')
    expect(stderr).toContain('BUG: This is a bug in tms')
    expect(stderr).toContain('TMS_DEBUG=1 tms bug')
    expect(stderr).not.toMatch(/hunter2|\n\s+at /)
  })

  test('show their stack with TMS_DEBUG=1, still without the password', async () => {
    const { stderr } = await command(['bug'], { env: { TMS_DEBUG: '1' } })
    expect(stderr).toMatch(/\n\s+at /)
    expect(stderr).not.toContain('hunter2')
  })

  test('leave out the secrets of the settings wherever they turn up', async () => {
    const people = await command(['settings'])
    const programs = await command(['settings', '--json'])
    expect(people.stderr).toContain('DB_ERROR: refused ********')
    expect(people.stderr + programs.stdout).not.toContain('hunter2')
    expect(envelopeOf(programs.stdout).warnings).toEqual(['connected to postgres://ann:********@db.example/tms'])
  })

  test('of code that nobody waits for end the command as a bug too', async () => {
    const { code, stdout, stderr } = await command(['background-bug', '--json'])
    expect(code).toBe(70)
    expect(envelopeOf(stdout)).toMatchObject({ error: { code: 'BUG' } })
    expect(stdout + stderr).not.toMatch(/hunter2|\n\s+at /)
  })

  test('a result that does not fit on the disk is no success', async () => {
    const ended = await onDevFull([program, 'large'])
    expect(ended).toMatchObject({ code: 3 })
    expect(ended.stderr).toContain('DISK_FULL')
  })

  test('an error that leaves no room wanting keeps its code on a full disk', async () => {
    const ended = await onDevFull([program, 'parsed', '--bogus'])
    expect(ended).toMatchObject({ code: 2 })
    expect(ended.stderr).not.toContain('DISK_FULL')
  })
})

async function onDevFull(argv: readonly string[]) {
  const script = `exec "$0" "$@" > /dev/full`
  const child = start(
    [
      '-e',
      `
    const { spawnSync } = require('node:child_process')
    const { status, stderr } = spawnSync('sh', ['-c', ${JSON.stringify(script)}, process.execPath, ...${JSON.stringify(argv)}])
    process.stderr.write(stderr)
    process.exitCode = status
  `,
    ],
    { env: fixture },
  )
  child.stdin.end()
  return collect(child)
}

describe('arguments', () => {
  test('an unknown flag is a usage error that suggests the right one', async () => {
    const { code, stderr } = await command(['parsed', '--nmber', '3'])
    expect(code).toBe(2)
    expect(stderr).toContain('Did you mean --number?')
    expect(stderr).toContain('tms parsed --help')
  })

  test('a usage error with --json is the envelope and nothing else', async () => {
    const { code, stdout, stderr } = await command(['parsed', '--bogus', '--json'])
    expect(code).toBe(2)
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toMatchObject({ ok: false, error: { code: 'USAGE' } })
    expect(stdout.length).toBeLessThan(500)
  })

  test('the value of an unknown flag is not repeated: it may be a secret', async () => {
    const { stderr } = await command(['parsed', '--bogus=hunter2hunter2'])
    expect(stderr).not.toContain('hunter2')
  })

  test.each([
    [['--number', 'ten'], 'Wrong value for --number'],
    [['--number'], 'Flag --number expects a value'],
    [['a', 'b'], 'Unexpected argument: b'],
  ])('%j is a usage error', async (argv, message) => {
    const { code, stderr } = await command(['parsed', ...argv])
    expect(code).toBe(2)
    expect(stderr).toContain(message)
  })

  test('stdin is no argument: an absent one stays absent', async () => {
    const { stdout } = await command(['parsed', '--json'], { stdin: 'from stdin\n' })
    expect(envelopeOf(stdout).data).toMatchObject({ word: null, on: false, many: null, number: null })
  })

  test('each flag has a variable, lists and booleans too', async () => {
    const env = { TMS_ON: 'yes', TMS_MANY: 'a,b', TMS_NUMBER: '7' }
    const { stdout } = await command(['parsed', '--json'], { env })
    expect(envelopeOf(stdout).data).toMatchObject({ word: null, on: true, many: ['a', 'b'], number: 7 })
  })

  test('a flag wins over its variable', async () => {
    const { stdout } = await command(['parsed', '--json', '--number', '8'], { env: { TMS_NUMBER: '7' } })
    expect(envelopeOf(stdout).data.number).toBe(8)
  })

  test.each([
    [['--one', 'x'], { TMS_OTHER: 'y' }, { one: 'x', other: null }],
    [['--other=x'], { TMS_ONE: 'y' }, { one: null, other: 'x' }],
  ])('%j is not opposed by the variable of a flag that excludes it', async (argv, env, given) => {
    const { stdout } = await command(['parsed', '--json', ...argv], { env })
    expect(envelopeOf(stdout).data).toMatchObject(given)
  })

  test.each([[['caf\ufffd']], [['--one', 'caf\ufffd']]])('half a character is refused: %j', async (argv) => {
    const { code, stderr } = await command(['parsed', ...argv])
    expect([code, stderr]).toEqual([2, expect.stringContaining('An argument is not UTF-8.')])
  })

  test('a boolean variable that is neither true nor false is refused', async () => {
    const { code, stderr } = await command(['parsed'], { env: { TMS_ON: 'ture' } })
    expect(code).toBe(2)
    expect(stderr).toContain('TMS_ON')
  })
})

describe('signals', () => {
  test.each([
    ['SIGINT', 130, 'INTERRUPTED'],
    ['SIGTERM', 143, 'TERMINATED'],
  ] as const)('%s aborts the work, closes the database and ends with %d', async (signal, code, error) => {
    const child = start([program, 'slow'], { env: fixture })
    const ended = collect(child)
    await said(child.stderr, 'working')
    child.kill(signal)
    const { code: actual, stderr } = await ended
    expect(actual).toBe(code)
    expect(stderr).toContain('database closed')
    expect(stderr).toContain(error)
  })

  test('work that does not listen is given up after the grace, and the database is closed then too', async () => {
    const child = start([program, 'stubborn'], { env: fixture })
    const ended = collect(child)
    await said(child.stderr, 'working')
    child.kill('SIGTERM')
    const { code, stderr } = await ended
    expect(code).toBe(143)
    expect(stderr).toContain('database closed')
  })

  test('the second signal ends the process at once', async () => {
    const child = start([program, 'stubborn'], { env: fixture })
    const ended = collect(child)
    await said(child.stderr, 'working')
    child.kill('SIGINT')
    // Signals that arrive together are one: the second is sent until the process is gone.
    const again = setInterval(() => child.kill('SIGINT'), 20)
    const { code, stderr } = await ended
    clearInterval(again)
    expect(code).toBe(130)
    // It is when the grace is over, as the test before this one shows.
    expect(stderr).not.toContain('database closed')
  })

  test('a signal never cancels what can no longer be cancelled', async () => {
    const child = start([program, 'held'], { env: fixture })
    const ended = collect(child)
    await said(child.stderr, 'working')
    child.kill('SIGINT')
    await said(child.stderr, 'can no longer be cancelled')
    child.kill('SIGINT')
    child.stdin.end('answered')
    expect(await ended).toMatchObject({ code: 0, stdout: 'answered\n' })
  })

  test('a command that serves is stopped by a signal, not broken by it', async () => {
    const child = start([program, 'serve'], { env: fixture })
    const ended = collect(child)
    await said(child.stderr, 'working')
    child.kill('SIGTERM')
    const { code, stderr } = await ended
    expect(code).toBe(143)
    expect(stderr).toContain('TERMINATED: Stopped.')
  })

  test('the envelope is still printed when a signal ends the command', async () => {
    const child = start([program, 'slow', '--json'], { env: fixture })
    const ended = collect(child)
    await said(child.stderr, 'database opened')
    child.kill('SIGINT')
    const { code, stdout } = await ended
    expect(code).toBe(130)
    expect(envelopeOf(stdout)).toMatchObject({ ok: false, error: { code: 'INTERRUPTED' } })
  })
})

describe('without a terminal', () => {
  test('consent that is missing is refused with the command to type', async () => {
    const { code, stderr } = await command([
      'consent',
      "it's",
      '--url',
      'postgres://ann:hunter2hunter2@db/tms',
      '--yes',
    ])
    expect(code).toBe(4)
    expect(stderr).toContain(`tms consent 'it'\\''s' --url postgres://ann:********@db/tms --yes --confirm 'it'\\''s'`)
  })

  test('consent is given by name, and only by that name', async () => {
    expect(await command(['consent', 'db/tms', '--confirm', 'db/tms'])).toMatchObject({
      code: 0,
      stdout: 'consented\n',
    })
    expect(await command(['consent', 'db/tms', '--confirm', 'db/other'])).toMatchObject({ code: 4, stdout: '' })
  })

  test('neither --yes nor any variable gives consent', async () => {
    const env = { TMS_CONFIRM: 'db', TMS_YES: '1' }
    expect(await command(['consent', 'db', '--yes'], { env })).toMatchObject({ code: 4, stdout: '' })
  })

  test('questions take their defaults', async () => {
    expect(await command(['ask'])).toMatchObject({ code: 0, stdout: 'nobody s\n', stderr: '' })
  })

  test('progress is a plain line without colours', async () => {
    expect(await command(['progress'])).toMatchObject({ stdout: 'done\n', stderr: 'counting\ncounted\n' })
  })
})

describe.skipIf(noTerminal !== null)(`on a terminal${noTerminal ? ` (skipped: ${noTerminal})` : ''}`, () => {
  const terminal = (
    argv: readonly string[],
    dialogue: readonly (readonly [string, string])[],
    options: Parameters<typeof onTerminal>[2] = {},
  ) => onTerminal([program, ...argv], dialogue, { ...options, env: { ...fixture, ...options.env } })

  test('consent is typed', async () => {
    const { code, screen } = await terminal(['consent', 'db/tms'], [['to consent', 'db/tms\r']])
    expect(code).toBe(0)
    expect(screen).toContain('consented')
  })

  test('anything else that is typed is no consent', async () => {
    const { code, screen } = await terminal(['consent', 'db/tms'], [['to consent', 'yes\r']])
    expect(code).toBe(4)
    expect(screen).toContain('CONSENT_MISSING')
    expect(screen).not.toContain('consented')
  })

  test('Ctrl-C in a question ends with 130', async () => {
    const { code, screen } = await terminal(['consent', 'db/tms'], [['to consent', '\u0003']])
    expect(code).toBe(130)
    expect(screen).toContain('INTERRUPTED')
  })

  test('Ctrl-D is no consent', async () => {
    const { code, screen } = await terminal(['consent', 'db/tms'], [['to consent', '\u0004']])
    expect(code, screen).toBe(4)
    expect(screen).toContain('tms consent db/tms --confirm db/tms')
    expect(screen).toContain('database closed')
  })

  test.each([
    [['ask'], 'Your name?', 'Give --name, or take the default with --yes.'],
    [['ask', '--name', 'ann'], 'Which size?', 'tms ask --name ann --yes'],
  ])('Ctrl-D in a question is no answer: %j', async (argv, question, words) => {
    const { code, screen } = await terminal(argv, [[question, '\u0004']])
    expect(code, screen).toBe(2)
    expect(screen.replace(/\s+/g, ' ')).toContain(words)
  })

  test('a terminal that is gone ends a question', async () => {
    const ended = join(folder, 'hung-up')
    // Of a session of its own, so that it isn't told by a signal.
    const words = `trap '' HUP; setsid --wait ${process.execPath} ${program} consent db/tms; echo $? > ${ended}`
    const shell = spawn('script', ['--quiet', '--command', words, '/dev/null'], {
      env: { ...fixture, PATH: process.env.PATH, TERM: 'xterm' },
    })
    await said(shell.stdout, 'to consent')
    shell.kill('SIGKILL')
    // With which status is not for tms to say: Node aborts at its end when it can't reset the terminal.
    await expect.poll(() => existsSync(ended) && readFileSync(ended, 'utf8'), { timeout: 10_000 }).toMatch(/^\d+\n$/)
  })

  test('questions are asked on stderr, so that stdout can be a file', async () => {
    const { code, screen } = await terminal(
      ['ask'],
      [
        ['Your name?', 'ann\r'],
        ['Which size?', '\r'],
      ],
      { redirect: '> /dev/null' },
    )
    expect(code).toBe(0)
    expect(screen).toContain('Your name?')
  })

  test('answers are used', async () => {
    const { screen } = await terminal(
      ['ask'],
      [
        ['Your name?', 'ann\r'],
        ['Which size?', '\u001b[B\r'],
      ],
    )
    expect(screen).toContain('ann l')
  })

  test.each([
    [['ask', '--yes'], {}],
    [['ask'], { CI: 'true' }],
  ])('nothing is asked with %j %j', async (argv, env) => {
    const { code, screen } = await terminal(argv, [], { env })
    expect(code).toBe(0)
    expect(screen).toContain('nobody s')
  })

  test('nothing is asked with --json, and consent stays missing', async () => {
    const { code, screen } = await terminal(['consent', 'db', '--json'], [])
    expect(code).toBe(4)
    expect(envelopeOf(screen)).toMatchObject({ error: { code: 'CONSENT_MISSING' } })
  })

  test('errors are coloured, unless NO_COLOR says no', async () => {
    expect((await terminal(['bug'], [])).screen).toContain('\u001b[31m')
    expect((await terminal(['bug'], [], { env: { NO_COLOR: '1' } })).screen).not.toContain('\u001b[')
  })

  test('a spinner ends before the error is told', async () => {
    const { code, screen } = await terminal(['broken-progress'], [])
    expect(code).toBe(3)
    expect(screen).toMatch(/✗ counting\r\n[^]*TOOL_FAILED/)
  })

  test('progress is a spinner that leaves its last word', async () => {
    const { screen } = await terminal(['progress'], [])
    expect(screen).toContain('counted')
  })
})
