// What the built program consists of: one entry for bin/run.js, one per command, and what runs outside of them.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'

/** Entries that aren't commands, by their name in dist. Those whose source doesn't exist yet are left out. */
const entries = {
  run: 'src/run.ts',
  // For the scripts that make the manifest and docs/commands.md.
  variables: 'src/ui/variables.ts',
  settings: 'src/config/settings.ts',
  // What others import: package.json exports these.
  conformance: 'src/drivers/conformance.ts',
  agent: 'src/agent.ts',
  client: 'src/client.ts',
  'embedded-worker': 'src/drivers/embedded/worker.ts',
}

/**
 * PGlite finds its wasm and data files beside its own modules; pg-native is an optional addon that pg asks for; oclif
 * loads its plugins as packages, and a compiler only where it finds TypeScript sources.
 */
const external = ['@electric-sql/pglite', '@electric-sql/pglite/*', 'pg-native', '@oclif/plugin-*', 'typescript']

/** CommonJS packages inside the bundle use these three; an ES module doesn't have them. */
const banner = `import { createRequire as __createRequire } from 'node:module'
import { fileURLToPath as __fileURLToPath } from 'node:url'
const require = __createRequire(import.meta.url)
const __filename = __fileURLToPath(import.meta.url)
const __dirname = __fileURLToPath(new URL('.', import.meta.url))`

/**
 * Agents get all of zod, and esbuild keeps one copy of it for everybody: its 64 languages cost each command 15 ms, and no agent's
 * error is read in them.
 */
const onlyEnglish = {
  name: 'zod in English',
  setup({ onLoad }) {
    onLoad({ filter: /zod[\\/]v4[\\/]locales[\\/]index\.js$/ }, () => ({
      contents: `export { default as en } from './en.js'`,
    }))
  },
}

/**
 * What Node says of itself from 21 on. Without it pg makes a `Response` to find out whether this is Cloudflare, which loads all of
 * Node's fetch: 20 ms of each command on Postgres.
 */
const navigator = JSON.stringify({ userAgent: 'Node.js' })

export async function bundle(root, outdir) {
  const present = Object.entries(entries).filter(([, source]) => existsSync(join(root, source)))
  const commands = commandFiles(root).map((file) => [`commands/${file.replace(/\.ts$/, '')}`, `src/commands/${file}`])
  const { errors } = await build({
    absWorkingDir: root,
    entryPoints: Object.fromEntries([...present, ...commands]),
    outdir,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    splitting: true,
    chunkNames: 'chunks/[name]-[hash]',
    external,
    define: { navigator },
    plugins: [onlyEnglish],
    banner: { js: banner },
    legalComments: 'none',
    // 13 of the 179 ms of a command through an owner are reading comments and spaces. Lines stay short: node prints the one that threw.
    minifyWhitespace: true,
    minifySyntax: true,
    lineLimit: 160,
    logLevel: 'warning',
  }).catch((failure) => failure)
  // esbuild has printed them already, with their places; a stack trace of esbuild adds nothing.
  if (errors.length > 0) process.exit(1)
}

export function commandFiles(root) {
  return readdirSync(join(root, 'src/commands'), { recursive: true })
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'))
    .sort()
}
