// This project, from its sources, with every rail on: identity, row security, allow-list, fence, slots, run rows, trace ids.
import { readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const root = resolve(here, '../../..')

export const version = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version
export const settings = { throughput: { slots: 100 }, latency: { slots: 100 } }
export const kinds = ['event', 'apply']
export const unfinished = `select count(*)::int as jobs from tms.agent_tasks where status <> 'completed'`
export const anyUnfinished = `select exists (select 1 from tms.agent_tasks where status in ('pending', 'running')) as yes`

/** What `apply` calls: one row, as the harness of the tests does it. */
const effects = `
  create table public.bench_effects (task bigint not null);
  create function public.bench_effect(args jsonb) returns void language sql security definer set search_path = pg_catalog, pg_temp as
    $$ insert into public.bench_effects values ((args ->> 'task')::bigint) $$;`

let parts
async function load() {
  if (parts) return parts
  const file = join(here, '../node_modules', `.tms-${process.pid}.mjs`)
  try {
    const { build } = createRequire(join(root, 'package.json'))('esbuild')
    await build({
      absWorkingDir: root,
      entryPoints: ['bench/queue/tms-parts.ts'],
      outfile: file,
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      banner: {
        js: `import { createRequire as __r } from 'node:module'; const require = __r(${JSON.stringify(join(root, 'package.json'))});`,
      },
      external: ['pg-native'],
      logLevel: 'warning',
    })
    parts = await import(pathToFileURL(file).href)
    return parts
  } finally {
    rmSync(file, { force: true })
  }
}

export async function setup(urls) {
  await (await load()).prepare(root, urls, effects)
}

export async function openSender({ url, kind = 'job' }) {
  return (await load()).sender(url, `bench.${kind}`)
}

export async function openWorker({ url, aim, onStart }) {
  const start = await (await load()).work(url, settings[aim].slots, onStart)
  return { start }
}
