import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bin, build } from './built.ts'
import { collect, envelopeOf, noTerminal, onTerminal, root, run, start, type Options } from './process.ts'

/** The built program as it is installed, run as a process. */

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'tms-cli-')))
const project = join(folder, 'project')

beforeAll(() => {
  build()
  chmodSync(folder, 0o755)
  mkdirSync(join(project, 'deep/er'), { recursive: true })
  writeFileSync(join(project, 'tms.config.yaml'), 'driver: embedded\n')
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A reason to print when nobody can be made here who owns nothing and has no entry in passwd. */
const noStranger =
  asStranger('require("node:fs").accessSync(process.argv[1])') === 0 ? null : 'needs root and a readable checkout'

function asStranger(script: string): number | null {
  const program = `process.setgid(54321); process.setuid(54321); ${script}`
  return spawnSync(process.execPath, ['-e', program, bin], { env: {}, cwd: root }).status
}

/** Runs the program after it with its output on a disk that is full. */
const onDevFull = `
  const { openSync } = require('node:fs')
  const { spawnSync } = require('node:child_process')
  const stdio = ['ignore', openSync('/dev/full', 'w'), 'inherit']
  process.exitCode = spawnSync(process.execPath, process.argv.slice(1), { stdio }).status
`

const tms = (argv: readonly string[], options: Options = {}) => run([bin, ...argv], { cwd: project, ...options })

describe('finding the command', () => {
  test.each([[['--version']], [['-v']], [['version']]])('%j prints the version', async (argv) => {
    const { code, stdout, stderr } = await tms(argv)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^@transbot\/tms\/\d+\.\d+\.\d+ \S+ node-v\d+\.\d+\.\d+\n$/)
  })

  test('a version that does not fit on the disk is no success, one that nobody reads is', async () => {
    const full = await run(['-e', onDevFull, bin, '--version'])
    expect(full.code).toBe(3)
    expect(full.stderr).toMatch(/^The version could not be written to where standard output goes: ENOSPC\.\nNext:/)
    expect(full.stderr).not.toMatch(/\n\s+at /)
    const child = start([bin, '--version'])
    child.stdout.destroy()
    expect(await collect(child)).toEqual({ code: 0, stdout: '', stderr: '' })
  })

  test.each([[[]], [['--help']], [['-h']], [['help']]])('%j lists the topics', async (argv) => {
    const { code, stdout, stderr } = await tms(argv)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/TOPICS[^]*config {2}[^]*COMMANDS[^]*whoami {2}[^]*EXIT CODES/)
  })

  test.each([[['config']], [['config', '--help']], [['help', 'config']]])(
    '%j lists the commands of the topic',
    async (argv) => {
      const { code, stdout } = await tms(argv)
      expect(code).toBe(0)
      expect(stdout).toContain('config show  ')
    },
  )

  test.each([[['config', 'show', '--help']], [['help', 'config', 'show']], [['--json', 'config', 'show', '-h']]])(
    '%j explains the command with its variables and two examples',
    async (argv) => {
      const { code, stdout } = await tms(argv)
      expect(code).toBe(0)
      expect(stdout).toContain('TMS_PROFILE')
      expect(stdout.match(/^ {2}\$ tms config show/gm)?.length).toBeGreaterThanOrEqual(2)
    },
  )

  test('flags may stand before the command', async () => {
    const { code, stdout } = await tms(['--driver', 'embedded', '--json', 'config', 'show'])
    expect(code).toBe(0)
    expect(envelopeOf(stdout)).toMatchObject({ ok: true, command: 'config show' })
  })

  test.each([
    [['conifg', 'show'], 'Did you mean config?'],
    [['config', 'shwo'], 'Did you mean config show?'],
    [['whoam'], 'Did you mean whoami?'],
    [['config', 'show', '--profle', 'x'], 'Did you mean --profile?'],
    [['xyzzy'], 'There is no such topic.'],
    [['help', 'config', 'shwo'], 'Did you mean config show?'],
    [['config', '--json=no'], 'No command of config is given.'],
    [['--bogus'], 'No command is given.'],
  ])('%j is a usage error that helps', async (argv, hint) => {
    const { code, stdout, stderr } = await tms(argv)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain(hint)
    expect(stderr).toMatch(/\nNext:\n {2}tms /)
  })

  test('an unknown command with --json is the envelope and nothing else', async () => {
    const { code, stdout, stderr } = await tms(['nope', '--json'])
    expect({ code, stderr }).toEqual({ code: 2, stderr: '' })
    expect(JSON.parse(stdout)).toMatchObject({ ok: false, data: null, error: { code: 'USAGE', next: ['tms --help'] } })
  })

  test.each([[['--json', '--help']], [['-h', '--json']], [['--version', '--json']], [['--json', '--version']]])(
    '%j is text',
    async (argv) => {
      const { code, stdout, stderr } = await tms(argv)
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).not.toMatch(/^\{/)
    },
  )

  test('completion takes no --json', async () => {
    const { code, stdout } = await tms(['autocomplete', 'script', 'zsh', '--json'])
    expect(code).toBe(2)
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'USAGE', next: ['tms autocomplete script --help'] } })
  })

  test('completion is set up by its own command', async () => {
    const { code, stdout } = await tms(['autocomplete', 'bash'], { env: { HOME: folder } })
    expect(code).toBe(0)
    expect(stdout).toContain('tms autocomplete script bash')
  })

  test('completion that cannot be written says so', async () => {
    const { code, stderr } = await tms(['autocomplete', 'bash'], { env: { XDG_CACHE_HOME: '/dev/null/none' } })
    expect(code).toBe(3)
    expect(stderr).toContain('FILE_UNWRITABLE')
  })
})

describe('where it runs', () => {
  test('the configuration is found from folders below it', async () => {
    const { stdout } = await tms(['config', 'show', '--json'], { cwd: join(project, 'deep/er') })
    expect(envelopeOf(stdout).data.file).toBe(join(project, 'tms.config.yaml'))
  })

  test('the variables of the flags that every command has are told apart from the flags', async () => {
    const env = { TMS_TIMEOUT: '7', TMS_DRIVER: 'embedded' }
    const { stdout } = await tms(['config', 'show', '--json', '--driver', 'embedded'], { env })
    expect(envelopeOf(stdout).data.settings).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ name: 'timeout', value: 7, from: 'TMS_TIMEOUT' }),
        expect.objectContaining({ name: 'driver', value: 'embedded', from: '--driver' }),
      ]),
    )
  })

  test('in the wrong folder it says so and touches nothing', async () => {
    const { code, stderr } = await tms(['config', 'show'], { cwd: folder })
    expect(code).toBe(2)
    expect(stderr).toContain('CONFIG_MISSING')
    expect(stderr).toContain('tms init')
  })

  test('in a folder that was deleted it says so', async () => {
    const gone = join(folder, 'gone')
    mkdirSync(gone)
    const script = `
      const { spawnSync } = require('node:child_process')
      process.chdir(${JSON.stringify(gone)})
      require('node:fs').rmdirSync(${JSON.stringify(gone)})
      const { status, stderr } = spawnSync('/bin/sh', ['-c', '"$0" "$1" config show', process.execPath, ${JSON.stringify(bin)}])
      process.stderr.write(stderr)
      process.exitCode = status`
    const { code, stderr } = await run(['-e', script])
    expect(stderr).toContain('CONFIG_MISSING')
    expect(code).toBe(2)
  })

  test.skipIf(noStranger !== null)(
    `it works without HOME, for a uid that no passwd knows${noStranger ? ` (skipped: ${noStranger})` : ''}`,
    () => {
      const script = `
        const { spawnSync } = require('node:child_process')
        const argv = [process.argv[1], 'config', 'show', '--json']
        const { status, stdout } = spawnSync(process.execPath, argv, { env: {}, cwd: ${JSON.stringify(project)} })
        process.exitCode = JSON.parse(stdout).ok ? status : 99`
      expect(asStranger(script)).toBe(0)
    },
  )

  test('an override token that nobody could read is shown by the next init, and by none after it', async () => {
    const cwd = mkdtempSync(join(folder, 'unshown-'))
    const env = { XDG_CONFIG_HOME: join(cwd, 'config') }
    const init = [bin, 'init', '--yes']
    const left = () => readdirSync(join(cwd, 'config/tms/keys')).filter((name) => name.startsWith('override-token-'))

    const full = await run(['-e', onDevFull, ...init], { cwd, env })
    expect(full.code, full.stderr).toBe(3)
    expect(full.stderr.replace(/\s+/g, ' ')).toContain('tms init shows it')
    expect(full.stderr).not.toContain('tms-override-')
    const file = left()
    expect(file).toHaveLength(1)

    const unread = start([...init, '--json'], { cwd, env })
    unread.stdout.destroy()
    const { stderr } = await collect(unread)
    expect(stderr).toContain(file[0])
    expect(left()).toEqual(file)

    const shown = await run([...init, '--json'], { cwd, env })
    expect([shown.code, shown.stderr]).toEqual([0, ''])
    expect(envelopeOf(shown.stdout).data['overrideToken']).toMatch(/^tms-override-/)
    expect(left()).toEqual([])
    const again = await run(init, { cwd, env })
    expect([again.code, again.stdout]).toEqual([0, expect.stringContaining('is not shown again')])
  })

  test("a service account's secret that nobody could read is said to be lost, with the command to run again", async () => {
    const cwd = mkdtempSync(join(folder, 'lost-'))
    const env = { XDG_CONFIG_HOME: join(cwd, 'config') }
    expect((await run([bin, 'init', '--yes'], { cwd, env })).code).toBe(0)
    const rotate = [bin, 'accounts', 'rotate', 'ci', '--kind', 'key', '--overlap', '1h']
    const full = await run(['-e', onDevFull, ...rotate], { cwd, env })
    expect(full.code, full.stderr).toBe(3)
    expect(full.stderr.replace(/\s+/g, ' ')).toContain('Rotate again: tms accounts rotate ci --kind key --overlap 1h')
    expect((await run(rotate, { cwd, env })).stderr).toBe('')
  })

  test.skipIf(noStranger !== null)(
    `a database that its owner may not write is no damaged one${noStranger ? ` (skipped: ${noStranger})` : ''}`,
    async () => {
      const cwd = mkdtempSync(join(folder, 'unwritable-'))
      chmodSync(cwd, 0o777)
      const work = `
        const { spawnSync } = require('node:child_process')
        const { chmodSync } = require('node:fs')
        process.setgid(54321)
        process.setuid(54321)
        const tms = (...argv) => spawnSync(process.execPath, [process.argv[1], ...argv])
        const made = tms('init', '--yes')
        if (made.status !== 0) throw new Error(String(made.stderr))
        chmodSync('.tms/db', 0o500)
        const { status, stderr } = tms('flags', 'set', 'ops.replayEnabled', 'true', '--why', 'x')
        process.stderr.write(stderr)
        process.exitCode = status`
      const { code, stderr } = await run(['-e', work, bin], { cwd, env: { XDG_CONFIG_HOME: join(cwd, 'config') } })
      expect(code, stderr).toBe(3)
      expect(stderr).toMatch(/^FILE_UNWRITABLE: The folder \S+\/\.tms\/db can't be used\.\n +The system says EACCES/)
      expect(stderr).not.toContain('damaged')
    },
  )

  test('it works with stdin closed', async () => {
    const child = start(
      [
        '-e',
        `
      const { spawnSync } = require('node:child_process')
      const { status, stdout } = spawnSync('/bin/sh', ['-c', '"$0" "$1" config show --json <&-', process.execPath, ${JSON.stringify(bin)}])
      process.stdout.write(stdout)
      process.exitCode = status`,
      ],
      { cwd: project },
    )
    child.stdin.end()
    expect(await collect(child)).toMatchObject({ code: 0 })
  })

  test('piped output is plain, aligned columns', async () => {
    const { stdout } = await tms(['config', 'show'])
    expect(stdout).toMatch(/^setting +value +from$/m)
    expect(stdout).toMatch(/^driver +embedded +\S+tms\.config\.yaml:1$/m)
    expect(stdout).not.toMatch(/[\u001b│┌]/)
  })

  test('FORCE_COLOR colours pipes, NO_COLOR wins over it', async () => {
    const forced = await tms(['config', 'show'], { env: { FORCE_COLOR: '1' } })
    const both = await tms(['config', 'show'], { env: { FORCE_COLOR: '1', NO_COLOR: '1' } })
    expect(forced.stdout).toContain('\u001b[')
    expect(both.stdout).not.toContain('\u001b[')
  })
})

describe.skipIf(noTerminal !== null)(`on a terminal${noTerminal ? ` (skipped: ${noTerminal})` : ''}`, () => {
  const env = { TMS_CONFIG: join(project, 'tms.config.yaml') }

  test('no line is wider than a terminal of 60 columns', async () => {
    const { code, screen } = await onTerminal([bin, 'config', 'show', '--no-color'], [], { columns: 60, env })
    expect(code).toBe(0)
    expect(screen).toMatch(/^setting +value +from/m)
    expect(Math.max(...screen.split('\r\n').map((line) => line.length))).toBeLessThanOrEqual(60)
  })

  test('NO_COLOR prints no escape at all', async () => {
    const { screen } = await onTerminal([bin, 'config', 'show'], [], { env: { ...env, NO_COLOR: '1' } })
    expect(screen).not.toContain('\u001b')
  })

  test('init asks what the database is and who operates it, and does as it is told', async () => {
    const cwd = mkdtempSync(join(folder, 'asked-'))
    const { code, screen } = await onTerminal(
      [bin, 'init'],
      [
        ['What is this database?', '\u001b[B\r'],
        ['Name of the first operator?', '\r'],
      ],
      { cwd, env: { XDG_CONFIG_HOME: join(cwd, 'config') } },
    )
    expect(screen).toContain('Preparing the database')
    expect(code, screen).toBe(0)
    const { stdout } = await tms(['status', '--json'], { cwd })
    expect(envelopeOf(stdout).data).toMatchObject({ environment: 'staging' })
  })

  test('a terminal that says it has no columns is one of usual width, without a spinner', async () => {
    const cwd = mkdtempSync(join(folder, 'narrow-'))
    const { code, screen } = await onTerminal([bin, 'init', '--yes'], [], {
      cwd,
      columns: 0,
      env: { XDG_CONFIG_HOME: join(cwd, 'config') },
    })
    expect(code, screen).toBe(0)
  })
})

describe('an installation that is not whole', () => {
  test('without dist it names the command that builds it', async () => {
    const copy = join(folder, 'unbuilt')
    mkdirSync(join(copy, 'bin'), { recursive: true })
    copyFileSync(bin, join(copy, 'bin/run.js'))
    copyFileSync(join(root, 'package.json'), join(copy, 'package.json'))
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
    const { code, stderr } = await run([join(copy, 'bin/run.js'), 'whoami'])
    expect(code).toBe(2)
    expect(stderr).toBe('tms is not built yet.\nNext:\n  npm run build\n')
  })

  test('an old Node is named, with the version it takes', async () => {
    const pretend = join(folder, 'old.mjs')
    writeFileSync(
      pretend,
      `Object.defineProperty(process.versions, 'node', { value: '18.20.4' })\nObject.defineProperty(process, 'version', { value: 'v18.20.4' })\nawait import(${JSON.stringify(bin)})\n`,
    )
    const { code, stderr } = await run([pretend, 'whoami'])
    expect(code).toBe(2)
    expect(stderr).toContain('tms needs Node 20.19 or later, and this is v18.20.4.')
  })
})
