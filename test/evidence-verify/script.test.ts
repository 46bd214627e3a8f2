import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { verifyScript } from '../../src/evidence/verify-script.ts'
import { temporary } from './fixture.ts'
import { nextPack, seal, startChain, testKey, writePack, type Files, type TestKey } from './packs.ts'

/** VERIFY.sh in the shells that people have, against packs that somebody made to fool it. */

function there(program: string, ...args: string[]): boolean {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0
}

const tools = spawnSync('sh', ['-c', 'command -v openssl sha256sum'], { encoding: 'utf8' })
const shells: { name: string; words: string[]; missing: boolean }[] = [
  { name: 'dash', words: ['dash'], missing: !there('dash', '-c', ':') },
  { name: 'bash --posix', words: ['bash', '--posix'], missing: !there('bash', '-c', ':') },
  { name: 'busybox sh', words: ['busybox', 'sh'], missing: !there('busybox', 'true') },
]

type Run = { readonly code: number | null; readonly said: string; readonly broken: string[] }

let home: string
let script: string
let keyFile: string
let key: TestKey
let pack: string

beforeEach(async () => {
  // blanks, quotes and a leading dash in the way to it
  home = temporary()
  script = join(home, 'my VERIFY.sh')
  writeFileSync(script, verifyScript)
  key = testKey()
  keyFile = join(home, "an auditor's key.pem")
  writeFileSync(keyFile, key.publicKeyPem)
  pack = join(home, '-packs $(reboot) *', '2026-10-01')
  writePack(pack, (await nextPack(startChain(key), '2026-10-01', key)).files)
})

for (const { name, words, missing } of shells) {
  describe.skipIf(missing || tools.status !== 0)(
    `VERIFY.sh under ${name}${missing ? ': skipped, it is not installed' : tools.status !== 0 ? ': skipped, sha256sum or openssl is not installed' : ''}`,
    () => {
      const run = (...args: string[]) => start(words, [script, ...args])

      test('passes what nobody touched, from any folder, and says what it did not check', () => {
        for (const { code, said, broken } of [
          run(keyFile, pack),
          start(words, [script, keyFile], { cwd: pack, own: join(pack, 'VERIFY.sh') }),
          start(words, ['my VERIFY.sh', "an auditor's key.pem", '-packs $(reboot) */2026-10-01'], { cwd: home }),
          start(words, ['../../my VERIFY.sh', keyFile, '.'], { cwd: pack }),
        ]) {
          expect(broken).toEqual([])
          expect(code).toBe(0)
          expect(said).toContain('ok       SHA256SUMS.sig is a signature of SHA256SUMS by that key')
          expect(said.indexOf('Not checked here')).toBeGreaterThan(said.indexOf('RESULT   every check'))
        }
      })

      test('names a dropped, an added, a hidden and a changed file, a link, a folder, a pipe', () => {
        rmSync(join(pack, 'controls.json'))
        writeFileSync(join(pack, 'added file.txt'), '')
        writeFileSync(join(pack, '.hidden'), '')
        writeFileSync(join(pack, '..more'), '')
        writeFileSync(join(pack, '-n'), '')
        writeFileSync(join(pack, 'two\nlines'), '')
        writeFileSync(join(pack, 'esc\u001b[2Jape'), '')
        appendFileSync(join(pack, 'flags.json'), ' ')
        rmSync(join(pack, 'index.html'))
        symlinkSync('/etc/passwd', join(pack, 'index.html'))
        mkdirSync(join(pack, 'folder'))
        spawnSync('mkfifo', [join(pack, 'pipe')])
        const { code, broken, said } = run(keyFile, pack)
        expect(code).toBe(1)
        for (const text of [
          'controls.json: is missing',
          'added file.txt: a pack has no file with such a name',
          '.hidden: a pack has no file with such a name',
          '..more: a pack has no file with such a name',
          '-n: a pack has no file with such a name',
          'two?lines: a pack has no file with such a name',
          'esc??2Jape: a pack has no file with such a name',
          'flags.json: its bytes are not those that SHA256SUMS names',
          'index.html: is a link; a pack has only files',
          'folder: is no ordinary file; a pack has only files',
          'pipe: is no ordinary file; a pack has only files',
        ]) {
          expect(broken).toContain(text)
        }
        expect(said).not.toContain('\u001b')
      })

      test('follows nothing that a forged SHA256SUMS says, even when the signer himself signed it', async () => {
        const sums = readFileSync(join(pack, 'SHA256SUMS'), 'utf8')
        const [first = ''] = sums.split('\n')
        const digest = first.slice(0, 64)
        const forgeries: Record<string, string> = {
          'line 17 names what it may not name: ../../key': `${sums}${digest}  ../../key\n`,
          'line 17 names what it may not name: /etc/passwd': `${sums}${digest}  /etc/passwd\n`,
          "is not '<64 lower-case hex digits>  <name>': ": `\\${sums}`,
          'names VERIFY.sh twice': `${first}\n${sums}`,
          'SHA256SUMS: line 1 names what it may not name: VERIFY.sh?': sums.replaceAll('\n', '\r\n'),
          "SHA256SUMS: line 1 is not '<64": sums.replace(digest, digest.toUpperCase()),
          'is not in its one spelling': sums.slice(0, -1),
          'SHA256SUMS: line 17 names what it may not name: SHA256SUMS': `${sums}${digest}  SHA256SUMS\n`,
          'flags.json: is in the folder and not in SHA256SUMS': sums
            .split('\n')
            .filter((line) => !line.endsWith('flags.json'))
            .join('\n'),
          "SHA256SUMS: line 2 is not '<64": sums.replace('\n', '\n\n'),
          "SHA256SUMS: line 1 is not '<64 ": sums.replace('  ', ' *'),
          'SHA256SUMS:': `${sums}\0`,
        }
        for (const [expected, text] of Object.entries(forgeries)) {
          writeFileSync(join(pack, 'SHA256SUMS'), text)
          writeFileSync(join(pack, 'SHA256SUMS.sig'), await key.sign(Buffer.from(text)))
          const { code, broken } = run(keyFile, pack)
          expect([code, broken.join('\n')]).toEqual([1, expect.stringContaining(expected)])
        }
      })

      test('a huge file is refused and not read to its end', () => {
        truncateSync(join(pack, 'flags.json'), 1024 ** 4)
        const { code, broken } = run(keyFile, pack)
        expect(code).toBe(1)
        expect(broken).toContain('flags.json: is larger than 67108864 bytes')
      })

      test('two days that changed places, another key and a signature that is none are named', async () => {
        const other = join(pack, '..', '2026-10-02')
        cpSync(pack, other, { recursive: true })
        expect(run(keyFile, other).broken).toContain(
          'the folder is named 2026-10-02 and manifest.json is of the day 2026-10-01',
        )
        const stranger = join(home, 'stranger.pem')
        const given = testKey()
        writeFileSync(stranger, given.publicKeyPem)
        const { code, broken, said } = run(stranger, pack)
        expect(code).toBe(1)
        expect(broken).toContain(
          `manifest.json: names another key: signed by ${key.fingerprint}, you gave ${given.fingerprint}`,
        )
        expect(said).toContain(
          '\nKeys that were replaced are not followed here. Whether yours took over from that key, or that key from yours, says\n' +
            '  tms evidence verify <folder> --key <the key you gave>\n',
        )
        expect(run(keyFile, pack).said).not.toContain('Keys that were replaced')
        expect(broken).toContain('SHA256SUMS.sig: is no signature of this SHA256SUMS by the key you gave')
        appendFileSync(join(pack, 'SHA256SUMS.sig'), 'x')
        expect(run(keyFile, pack).broken.join()).toContain('SHA256SUMS.sig')
      })

      test('a fact that the manifest does not name is named, though all is signed', async () => {
        const files: Files = (await nextPack(startChain(key), '2026-10-01', key)).files
        files.set('more.json', Buffer.from('{}\n'))
        await seal(files, key)
        writePack(pack, files)
        const { code, broken } = run(keyFile, pack)
        expect([code, broken]).toEqual([1, ['manifest.json: its list of facts is not what lies in the folder']])
      })

      test("can't tell without openssl, with one too old, without sha256sum, without a key or a folder", () => {
        const bare = only(words, ['sha256sum', 'head', 'tr', 'wc'])
        expect(start(words, [script, keyFile, pack], { path: bare }).code).toBe(3)
        writeFileSync(
          join(bare, 'openssl'),
          '#!/bin/sh\n[ "$1" = pkeyutl ] || exec real-openssl "$@"\necho "pkeyutl: Unrecognized flag rawin" >&2\nexit 1\n',
        )
        chmodSync(join(bare, 'openssl'), 0o755)
        symlinkSync(tools.stdout.split('\n')[0] ?? '', join(bare, 'real-openssl'))
        const old = start(words, [script, keyFile, pack], { path: bare })
        expect(old.code).toBe(3)
        expect(old.said).toContain('3.0 and later can')
        expect(start(words, [script, keyFile, pack], { path: only(words, ['openssl', 'head', 'tr', 'wc']) }).code).toBe(
          3,
        )
        expect(run(join(home, 'absent.pem'), pack).code).toBe(3)
        expect(run(script, pack).code).toBe(3)
        expect(run(keyFile, join(home, 'absent')).code).toBe(3)
        expect(run().code).toBe(3)
        // what is broken stays broken where signatures can't be checked
        appendFileSync(join(pack, 'flags.json'), ' ')
        expect(start(words, [script, keyFile, pack], { path: bare }).code).toBe(1)
      })

      test('settings of the shell that calls it change nothing', () => {
        writeFileSync(join(pack, 'added.txt'), '')
        const { code, broken } = start(words, [script, keyFile, pack], {
          env: { GLOBIGNORE: '*added*', CDPATH: home, BASHOPTS: 'nullglob:dotglob', LC_ALL: 'tr_TR.UTF-8', IFS: 'a' },
        })
        expect(code).toBe(1)
        expect(broken).toContain('added.txt: is in the folder and not in SHA256SUMS')
      })
    },
  )
}

type Where = { cwd?: string; path?: string; env?: Record<string, string>; own?: string }

function start(words: readonly string[], args: readonly string[], { cwd, path, env, own }: Where = {}): Run {
  const [shell = '', ...options] = words
  const [first = '', ...rest] = args
  const program = spawnSync('sh', ['-c', 'command -v "$1"', 'sh', shell], { encoding: 'utf8' }).stdout.trim()
  const result = spawnSync(program, [...options, own ?? first, ...rest], {
    cwd: cwd ?? '/',
    encoding: 'utf8',
    env: { PATH: path ?? withBusybox(words), ...env },
    timeout: 20_000,
  })
  const said = `${result.stdout}${result.stderr}`
  const broken = said
    .split('\n')
    .filter((line) => line.startsWith('BROKEN   '))
    .map((line) => line.slice(9))
  return { code: result.status, said, broken }
}

/** Under busybox its own sha256sum, head, tr and wc are used, not coreutils'. */
function withBusybox(words: readonly string[]): string {
  const path = process.env.PATH ?? ''
  return words[0] === 'busybox' ? `${only(words, [])}${delimiter}${path}` : path
}

const folders = new Map<string, string>()

/** A folder with these programs and no others; of busybox, if that is the shell. */
function only(words: readonly string[], programs: readonly string[]): string {
  const isBusybox = words[0] === 'busybox'
  const id = `${home} ${words.join(' ')} ${programs.join(' ')}`
  const made = folders.get(id)
  if (made !== undefined) return made
  const folder = join(home, `bin-${folders.size}`)
  mkdirSync(folder)
  folders.set(id, folder)
  onTestFinished(() => void folders.delete(id))
  const names = isBusybox && programs.length === 0 ? ['sha256sum', 'head', 'tr', 'wc'] : programs
  for (const program of names) {
    const real = isBusybox && program !== 'openssl' ? 'busybox' : program
    const { stdout } = spawnSync('sh', ['-c', 'command -v "$1"', 'sh', real], { encoding: 'utf8' })
    symlinkSync(stdout.trim(), join(folder, program))
  }
  return folder
}
