// What a fresh clone lacks before anything else can run. Plain node: nothing is installed yet.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = resolve(fileURLToPath(import.meta.url), '../..')

export function requireNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > 20 || (major === 20 && minor >= 19)) return
  process.stderr.write(`This is Node ${process.version}, and tms needs 20.19 or later: https://nodejs.org\n`)
  process.exit(2)
}

/** Installs the packages of package-lock.json, unless they are there. */
export function install() {
  const marker = join(root, 'node_modules/.package-lock.json')
  const lock = join(root, 'package-lock.json')
  if (existsSync(marker) && sameVersions(marker, lock)) return
  process.stdout.write('Installing packages (once, about half a minute) ...\n')
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])
}

function sameVersions(marker, lock) {
  const versions = (file) =>
    Object.entries(JSON.parse(readFileSync(file, 'utf8')).packages)
      .filter(([path, entry]) => path !== '' && !entry.optional)
      .map(([path, entry]) => `${path} ${entry.version}`)
      // The two files don't list them in one order.
      .sort()
      .join('\n')
  return versions(marker) === versions(lock)
}

export function build() {
  run(process.execPath, ['scripts/build.js'])
}

/** Runs to the end with its output shown; ends this process with its code when it fails. */
export function run(command, args, env = process.env) {
  const { status, signal, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env,
  })
  if (status === 0) return
  process.stderr.write(`${[command, ...args].join(' ')} ended with ${error?.message ?? signal ?? status}\n`)
  process.exit(status ?? 3)
}
