import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

/** The build, in a copy of the sources that may be broken. */

const root = fileURLToPath(new URL('../..', import.meta.url))
const copy = mkdtempSync(join(tmpdir(), 'tms-build-'))
const at = (path: string) => join(copy, path)
const script = (name: string, ...argv: string[]) =>
  spawnSync(process.execPath, [at(`scripts/${name}.js`), ...argv], { cwd: copy, encoding: 'utf8' })

beforeAll(() => {
  for (const path of [
    'src',
    'sql',
    'policies',
    'scripts',
    'bin',
    'package.json',
    'package-lock.json',
    'oclif.manifest.json',
    'docs',
  ]) {
    cpSync(join(root, path), at(path), { recursive: true })
  }
  symlinkSync(join(root, 'node_modules'), at('node_modules'))
  // A stand-in: what matters here is when it runs, and the real one takes seconds.
  writeFileSync(
    at('scripts/snapshot.js'),
    `import { existsSync, writeFileSync } from 'node:fs'
if (existsSync('fail')) process.exit(1)
writeFileSync(process.argv[2] + '/snapshot', String(process.hrtime.bigint()))
if (existsSync('hang')) { process.stderr.write('hanging'); setInterval(() => undefined, 1000) }\n`,
  )
  expect(script('build').status).toBe(0)
})
afterAll(() => rmSync(copy, { recursive: true, force: true }))

let sources = 0
const changeSources = () => appendFileSync(at('src/suggest.ts'), `// ${sources++}\n`)
const leftovers = () => readdirSync(copy).filter((name) => /^dist\./.test(name))

describe('build', () => {
  test('does nothing when nothing changed', () => {
    expect(script('build').stdout).toBe('dist is up to date.\n')
  })

  test('builds again when a source changed, and keeps the snapshot that did not', () => {
    const before = readFileSync(at('dist/snapshot'), 'utf8')
    changeSources()
    expect(script('build').stdout).toBe('dist is built.\n')
    expect(readFileSync(at('dist/snapshot'), 'utf8')).toBe(before)
  })

  test('makes a new snapshot when the SQL changed', () => {
    const before = readFileSync(at('dist/snapshot'), 'utf8')
    appendFileSync(at('sql/prelude.sql'), '-- changed\n')
    expect(script('build').status).toBe(0)
    expect(readFileSync(at('dist/snapshot'), 'utf8')).not.toBe(before)
  })

  test('that fails leaves the dist that was', () => {
    const before = readFileSync(at('dist/.stamp'), 'utf8')
    appendFileSync(at('sql/prelude.sql'), '-- changed again\n')
    writeFileSync(at('fail'), '')
    expect(script('build').status).not.toBe(0)
    rmSync(at('fail'))
    expect(readFileSync(at('dist/.stamp'), 'utf8')).toBe(before)
    expect(leftovers()).toEqual([])
  })

  test('with a syntax error names the place and shows no stack of the bundler', () => {
    const good = readFileSync(at('src/suggest.ts'), 'utf8')
    appendFileSync(at('src/suggest.ts'), 'const const\n')
    const { status, stderr } = script('build')
    writeFileSync(at('src/suggest.ts'), good)
    expect(status).toBe(1)
    expect(stderr).toContain('src/suggest.ts:')
    expect(stderr).not.toContain('node_modules/esbuild')
  })

  test('that is killed leaves nothing that looks whole, and the next one cleans up', async () => {
    const before = readFileSync(at('dist/.stamp'), 'utf8')
    appendFileSync(at('sql/prelude.sql'), '-- and again\n')
    writeFileSync(at('hang'), '')
    // In a group of its own: the snapshot it started must die with it.
    const child = spawn(process.execPath, [at('scripts/build.js')], { cwd: copy, detached: true })
    await once(child.stderr, 'data')
    if (child.pid === undefined) throw new Error('no process')
    process.kill(-child.pid, 'SIGKILL')
    await once(child, 'close')
    rmSync(at('hang'))
    expect(leftovers()).toHaveLength(1)
    expect(readFileSync(at('dist/.stamp'), 'utf8')).toBe(before)
    expect(script('build').status).toBe(0)
    expect(leftovers()).toEqual([])
    expect(existsSync(at('dist/run.js'))).toBe(true)
  })
})

describe('what is committed', () => {
  beforeEach(() => {
    for (const path of ['src/commands', 'oclif.manifest.json', 'docs']) {
      rmSync(at(path), { recursive: true })
      cpSync(join(root, path), at(path), { recursive: true })
    }
  })

  test('what npm makes executable when it installs is executable already, so that no checkout becomes dirty', () => {
    expect(statSync(join(root, 'bin/run.js')).mode & 0o111).toBe(0o111)
  })

  test('the manifest matches the commands, and the check notices when it does not', () => {
    expect(script('manifest', '--check').stderr).toBe('')
    const path = at('src/commands/whoami.ts')
    writeFileSync(path, readFileSync(path, 'utf8').replace('who you are', 'who you were'))
    expect(script('manifest', '--check')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('npm run manifest'),
    })
    script('manifest')
    expect(script('manifest', '--check').status).toBe(0)
  })

  test('docs/commands.md matches the manifest, and the check notices when it does not', () => {
    expect(script('docs', '--check').stderr).toBe('')
    const path = at('oclif.manifest.json')
    writeFileSync(path, readFileSync(path, 'utf8').replace('who you are', 'who you were'))
    expect(script('docs', '--check')).toMatchObject({ status: 1, stderr: expect.stringContaining('npm run docs') })
  })

  test('a build says that the manifest is stale and does not touch it', () => {
    const path = at('oclif.manifest.json')
    writeFileSync(path, '{}')
    changeSources()
    expect(script('build')).toMatchObject({ status: 0, stderr: expect.stringContaining('npm run manifest') })
    expect(readFileSync(path, 'utf8')).toBe('{}')
  })
})
