// Runs the suite on other Node lines, through the npm package `node`: `npm run verify:nodes [-- 22 24]`. Not part of CI:
// it downloads a Node for each.
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build, install, requireNode, root } from './install.js'

requireNode()
install()
build()
const versions = process.argv.slice(2).length > 0 ? process.argv.slice(2) : ['22', '24']
const failed = []
for (const version of versions) {
  const folder = mkdtempSync(join(tmpdir(), 'tms-node-'))
  // Some tests run it as another user.
  chmodSync(folder, 0o755)
  try {
    // What the package `node` fetches in its install script, which npm may have been told not to run.
    const packaged = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`
    const got = spawnSync(
      'npm',
      ['install', '--prefix', folder, '--no-audit', '--no-fund', '--loglevel=error', `${packaged}@${version}`],
      { stdio: 'inherit' },
    )
    if (got.status !== 0) throw new Error(`${packaged}@${version} could not be installed`)
    const binary = join(folder, 'node_modules', packaged, 'bin/node')
    mkdirSync(join(folder, 'bin'))
    symlinkSync(binary, join(folder, 'bin/node'))
    const { stdout } = spawnSync(binary, ['--version'], { encoding: 'utf8' })
    process.stdout.write(`\n== Node ${stdout}`)
    const env = { ...process.env, PATH: `${join(folder, 'bin')}:${process.env.PATH}` }
    const { status } = spawnSync(binary, ['node_modules/vitest/vitest.mjs', 'run'], {
      cwd: root,
      env,
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    if (status !== 0) failed.push(version)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
process.stdout.write(
  failed.length === 0
    ? `\nThe suite passes on Node ${versions.join(' and ')}.\n`
    : `\nThe suite fails on Node ${failed.join(' and ')}.\n`,
)
process.exitCode = failed.length === 0 ? 0 : 1
