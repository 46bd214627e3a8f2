// oclif.manifest.json: what the commands are called, their flags, summaries and examples, so that help and completion
// need not load them. It is committed; `--check` fails when it doesn't match the sources, without it it is written.
import { rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { bundle } from './bundle.js'
import { readIfPresent, writeWhole } from './files.js'

const path = (root) => join(root, 'oclif.manifest.json')

/** The manifest of the commands bundled in `root`/`dist`. */
export async function makeManifest(root, dist) {
  const { Plugin } = await import('@oclif/core')
  const { flagVariable } = await import(pathToFileURL(join(root, dist, 'variables.js')).href)
  const pjson = JSON.parse(readIfPresent(join(root, 'package.json')))
  pjson.oclif.commands = `./${dist}/commands`
  const plugin = new Plugin({ root, pjson, isRoot: true, ignoreManifest: true, errorOnManifestCreate: true })
  await plugin.load()
  const commands = Object.entries(plugin.manifest.commands).sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [, command] of commands) {
    command.relativePath = ['dist', ...command.relativePath.slice(1)]
    for (const [name, flag] of Object.entries(command.flags)) {
      const variable = flagVariable(name)
      if (variable !== null) flag.env = variable
    }
  }
  return `${JSON.stringify({ commands: Object.fromEntries(commands), version: plugin.manifest.version }, null, 2)}\n`
}

/** Bundles the sources aside and makes their manifest. */
async function manifestOfSources(root) {
  const aside = `dist.manifest-${process.pid}`
  try {
    await bundle(root, join(root, aside))
    return await makeManifest(root, aside)
  } finally {
    rmSync(join(root, aside), { recursive: true, force: true })
  }
}

export function manifestIsStale(root, manifest) {
  return readIfPresent(path(root)) !== manifest
}

export function writeManifest(root, manifest) {
  writeWhole(path(root), manifest)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = resolve(fileURLToPath(import.meta.url), '../..')
  const manifest = await manifestOfSources(root)
  if (!process.argv.includes('--check')) {
    writeManifest(root, manifest)
  } else if (manifestIsStale(root, manifest)) {
    process.stderr.write('oclif.manifest.json does not match src/commands.\nNext:\n  npm run manifest\n')
    process.exitCode = 1
  }
}
