import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'

/** Breaks each layer rule on purpose, in a small tree of its own, and expects dependency-cruiser to say so. */

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'tms-layers-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** What is allowed; nothing in it may be reported. */
const good = {
  'src/run.ts': `import '@oclif/core'\nimport './ui/command.ts'`,
  'src/ui/command.ts': `import '@oclif/core'\nimport '../drivers/open.ts'\nimport '../config/settings.ts'`,
  'src/ui/blocks.ts': `export type Block = string`,
  'src/config/settings.ts': `import 'zod'\nimport type { Connection } from '../drivers/connection.ts'\nexport type C = Connection`,
  'src/drivers/connection.ts': `export type Connection = string`,
  'src/drivers/open.ts': `import './postgres/driver.ts'\nimport './embedded/driver.ts'\nimport './supabase/driver.ts'`,
  'src/drivers/postgres/driver.ts': `import 'pg'\nimport './insides.ts'`,
  'src/drivers/postgres/insides.ts': `export {}`,
  'src/drivers/embedded/driver.ts': `import '@electric-sql/pglite'`,
  'src/drivers/supabase/driver.ts': `import '@supabase/supabase-js'`,
  'src/flags/flags.ts': `import '../tenants/tenants.ts'\nimport type { Block } from '../ui/blocks.ts'\nexport type B = Block`,
  'src/tenants/tenants.ts': `export {}`,
  'src/commands/flags/list.ts': `import '../../ui/command.ts'\nimport '../../flags/flags.ts'`,
}

/** One file each; `rule` must be among what is reported about it. */
const bad = [
  ['no-cycles', 'src/flags/chicken.ts', `import './egg.ts'`],
  ['no-orphans', 'src/flags/orphan.ts', `export {}`],
  ['no-unresolvable', 'src/commands/nowhere.ts', `import '../flags/missing.ts'`],
  ['commands-stay-thin', 'src/commands/sql.ts', `import 'pg'`],
  ['commands-stay-thin', 'src/commands/driver.ts', `import '../drivers/open.ts'`],
  ['commands-do-not-call-commands', 'src/commands/caller.ts', `import './flags/list.ts'`],
  ['topics-know-no-command-line', 'src/tenants/oclif.ts', `import '@oclif/core'`],
  ['topics-know-no-command-line', 'src/tenants/config.ts', `import '../config/settings.ts'`],
  ['topics-know-no-command-line', 'src/tenants/ui.ts', `import '../ui/command.ts'`],
  ['topics-know-no-command-line', 'src/tenants/command.ts', `import '../commands/flags/list.ts'`],
  ['topics-know-no-driver', 'src/tenants/pg.ts', `import 'pg'`],
  ['topics-know-no-driver', 'src/tenants/pglite.ts', `import '@electric-sql/pglite'`],
  ['topics-know-no-driver', 'src/tenants/supabase.ts', `import '@supabase/supabase-js'`],
  ['topics-know-no-driver', 'src/tenants/opener.ts', `import '../drivers/open.ts'`],
  ['drivers-are-the-ground-floor', 'src/drivers/topic.ts', `import '../flags/flags.ts'`],
  ['drivers-are-the-ground-floor', 'src/drivers/ui.ts', `import '../ui/command.ts'`],
  ['drivers-are-apart', 'src/drivers/supabase/borrowed.ts', `import '../postgres/insides.ts'`],
  ['one-door-to-drivers', 'src/db/insides.ts', `import '../drivers/postgres/driver.ts'`],
  ['only-the-ui-opens-databases', 'src/config/open.ts', `import '../drivers/open.ts'`],
  ['oclif-stays-in-front', 'src/ui/flags.ts', `import '@oclif/core'`],
  ['config-knows-no-command-line', 'src/config/ui.ts', `import '../ui/command.ts'`],
  ['ui-knows-no-command', 'src/ui/shortcut.ts', `import '../commands/flags/list.ts'`],
  ['source-knows-no-test', 'src/flags/tested.ts', `import '../../test/example.ts'`],
  ['no-dev-dependency-in-source', 'src/flags/dev.ts', `import 'vitest'`],
] as const

function cruise(files: Readonly<Record<string, string>>): readonly { rule: string; from: string }[] {
  const tree = mkdtempSync(join(folder, 'tree-'))
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(tree, path)), { recursive: true })
    writeFileSync(join(tree, path), `${text}\n`)
  }
  for (const name of ['package.json', 'tsconfig.json', '.dependency-cruiser.cjs'])
    cpSync(join(root, name), join(tree, name))
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'))
  const program = join(root, 'node_modules/dependency-cruiser/bin/dependency-cruise.mjs')
  const { stdout, stderr } = spawnSync(process.execPath, [program, '--output-type', 'json', 'src'], {
    cwd: tree,
    encoding: 'utf8',
  })
  if (stdout === '') throw new Error(stderr)
  const { summary } = JSON.parse(stdout) as { summary: { violations: { rule: { name: string }; from: string }[] } }
  return summary.violations.map(({ rule, from }) => ({ rule: rule.name, from }))
}

const extras = {
  'src/flags/egg.ts': `import './chicken.ts'`,
  'test/example.ts': `export {}`,
}
const badTree = cruise({ ...good, ...extras, ...Object.fromEntries(bad.map(([, path, text]) => [path, text])) })

test('what the design allows is not reported', () => {
  expect(cruise(good)).toEqual([])
})

test.each(bad)('%s: %s is reported', (rule, path) => {
  expect(badTree).toContainEqual({ rule, from: path })
})

test('drivers/open.ts may not look into a driver', () => {
  const violations = cruise({ ...good, 'src/drivers/open.ts': `import './postgres/insides.ts'` })
  expect(violations).toContainEqual({ rule: 'open-uses-the-front-door', from: 'src/drivers/open.ts' })
})
