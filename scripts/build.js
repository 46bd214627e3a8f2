// Builds dist/: the bundle, the embedded database's snapshot and a stamp of the sources it was made from. Written
// aside and swapped in as a whole, so an interrupted build leaves the old one or none, never half of one.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundle } from './bundle.js'
import { readIfPresent } from './files.js'
import { makeManifest, manifestIsStale, writeManifest } from './manifest.js'

const root = resolve(fileURLToPath(import.meta.url), '../..')
const dist = join(root, 'dist')
const aside = `dist.new-${process.pid}`

/** Whatever ends up in dist or decides how. */
const sources = ['src', 'sql', 'policies', 'scripts', 'package.json', 'package-lock.json']

const stamp = stampOf(sources)
const isCurrent = () => readIfPresent(join(dist, '.stamp')) === stamp

if (isCurrent()) {
  process.stdout.write('dist is up to date.\n')
} else {
  sweep()
  try {
    await bundle(root, join(root, aside))
    await checkManifest()
    takeSnapshot()
    writeFileSync(join(root, aside, '.stamp'), stamp)
    // Somebody else built the same meanwhile and may be running it.
    if (!isCurrent()) swap()
    process.stdout.write('dist is built.\n')
  } finally {
    rmSync(join(root, aside), { recursive: true, force: true })
  }
}

/** A build must not repair what is committed, or the check for it could never fail. bin/dev.js may. */
async function checkManifest() {
  const manifest = await makeManifest(root, aside)
  if (!manifestIsStale(root, manifest)) return
  if (process.argv.includes('--manifest')) writeManifest(root, manifest)
  else
    process.stderr.write('oclif.manifest.json does not match src/commands: help is wrong.\nNext:\n  npm run manifest\n')
}

/**
 * The database that a first start unpacks instead of creating one. Making it takes ten times as long as everything else,
 * so the one of the last build is kept while nothing changed that it is made from.
 */
function takeSnapshot() {
  const script = join(root, 'scripts/snapshot.js')
  if (!existsSync(script)) return
  const made = stampOf(['sql', 'src/db', 'src/drivers/embedded', 'scripts', 'package-lock.json'])
  const last = JSON.parse(readIfPresent(join(dist, '.snapshot')) ?? '{}')
  if (last.made === made) {
    for (const file of [...last.files, '.snapshot']) copyFileSync(join(dist, file), join(root, aside, file))
    return
  }
  const before = new Set(readdirSync(join(root, aside)))
  const { status, error } = spawnSync(process.execPath, [script, join(root, aside)], { stdio: 'inherit' })
  if (error) throw error
  if (status !== 0) throw new Error(`scripts/snapshot.js ended with ${status}`)
  const files = readdirSync(join(root, aside)).filter((file) => !before.has(file))
  writeFileSync(join(root, aside, '.snapshot'), JSON.stringify({ made, files }))
}

function swap() {
  const old = `${dist}.old-${process.pid}`
  // Another build may put its own dist between the two renames; then that one is moved away too.
  for (let attempt = 0; ; attempt++) {
    if (existsSync(dist)) renameSync(dist, old)
    try {
      renameSync(join(root, aside), dist)
      break
    } catch (error) {
      if (attempt === 5) throw error
    } finally {
      rmSync(old, { recursive: true, force: true })
    }
  }
}

/** What builds left that were killed: folders whose process is gone. */
function sweep() {
  for (const name of readdirSync(root)) {
    const pid = /^dist\.(?:new|old|manifest)-(\d+)$/.exec(name)?.[1]
    if (pid && !existsSync(`/proc/${pid}`)) rmSync(join(root, name), { recursive: true, force: true })
  }
}

function stampOf(paths) {
  const hash = createHash('sha256').update(process.version)
  for (const path of paths.flatMap(filesOf)) {
    hash.update(`\0${path}\0`).update(readFileSync(join(root, path)))
  }
  return hash.digest('hex')
}

function filesOf(path) {
  if (!existsSync(join(root, path))) return []
  if (!statSync(join(root, path)).isDirectory()) return [path]
  return readdirSync(join(root, path), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
    .sort()
}
