import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildSync } from 'esbuild'
import { describe, expect, test } from 'vitest'
import { explain } from '../../src/agents/policy/explain.ts'
import { readAgentPolicies } from '../../src/agents/policy/read.ts'
import { scaffoldAgent, scaffoldView } from '../../src/agents/scaffold.ts'
import { root } from '../ui/process.ts'
import { folderWith, policyText } from './folder.ts'

const make = (folder: string, name = 'rates') =>
  scaffoldAgent({ name, root: folder, policyFolders: [join(folder, 'policies')] })

async function filesIn(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name)
}

describe('a new agent', () => {
  test('has three files, and a policy that is in order and allows its function', async () => {
    const folder = await folderWith({})
    const made = await make(folder, 'load-matcher')
    expect(made.files.map((path) => path.slice(folder.length + 1))).toEqual([
      'agents/load-matcher.mjs',
      'policies/agents/load-matcher.yaml',
      'test/agents/load-matcher.test.mjs',
    ])
    expect(await filesIn(folder)).toHaveLength(3)
    const read = await readAgentPolicies([join(folder, 'policies')])
    expect(read.problems).toEqual([])
    expect(explain(read, 'load-matcher', 'load_matcher.greet', 'offline')).toMatchObject({ allowed: true })
    expect(read.policies[0]?.policy.publish).toEqual(['load_matcher.greeted'])
    expect(JSON.stringify(scaffoldView(made))).toContain('node --test test/agents/load-matcher.test.mjs')
  })

  test('may have a name that YAML would take for something else', async () => {
    const folder = await folderWith({})
    await make(folder, 'true')
    const read = await readAgentPolicies([join(folder, 'policies')])
    expect(read.problems).toEqual([])
    expect(read.policies[0]?.policy.agent).toBe('true')
  })

  test('is told to install the package only where it is not there', async () => {
    const folder = await folderWith({})
    const words = 'npm install @transbot/tms'
    expect(JSON.stringify(scaffoldView(await make(folder)))).toContain(words)
    await installStandIn(folder)
    expect(JSON.stringify(scaffoldView(await make(folder, 'loads')))).not.toContain(words)
  })

  test('has a test that passes', async () => {
    const folder = await folderWith({})
    const made = await make(folder)
    await installStandIn(folder)
    const [, ...words] = made.test.split(' ')
    const { status, stdout } = spawnSync(process.execPath, words, { cwd: folder, encoding: 'utf8' })
    expect([status, stdout]).toEqual([0, expect.stringMatching(/# pass 1|pass 1/)])
  })

  test('has a test that fails when the agent does something else', async () => {
    const folder = await folderWith({})
    const made = await make(folder)
    await installStandIn(folder)
    const [agent = ''] = made.files
    await writeFile(agent, (await readFile(agent, 'utf8')).replace('Hello', 'Bye'))
    const [, ...words] = made.test.split(' ')
    expect(spawnSync(process.execPath, words, { cwd: folder }).status).toBe(1)
  })
})

describe('nothing is written', () => {
  test.each(['agents/rates.mjs', 'policies/agents/rates.yaml', 'test/agents/rates.test.mjs'])(
    'when %s is there already, and it stays as it is',
    async (path) => {
      const folder = await folderWith({ [path]: '# mine\n' })
      await expect(make(folder)).rejects.toMatchObject({ code: 'CONFLICT' })
      expect(await readFile(join(folder, path), 'utf8')).toBe('# mine\n')
      expect(await filesIn(folder)).toHaveLength(1)
    },
  )

  test('over a link that leads nowhere', async () => {
    const folder = await folderWith({ 'agents/README.md': '' })
    await symlink('nowhere', join(folder, 'agents/rates.mjs'))
    await expect(make(folder)).rejects.toMatchObject({ code: 'CONFLICT' })
    expect(existsSync(join(folder, 'agents/nowhere'))).toBe(false)
  })

  test('when the last of the three can not be written', async () => {
    const folder = await folderWith({ test: 'a file where a folder belongs' })
    await expect(make(folder)).rejects.toMatchObject({ code: 'FILE_UNWRITABLE' })
    expect(await filesIn(folder)).toEqual(['test'])
  })

  test('when somebody else puts one of the three there meanwhile; that one stays', async () => {
    const folder = await folderWith({ 'test/agents/README.md': '' })
    const theirs = join(folder, 'test/agents/rates.test.mjs')
    let ended = false
    const making = make(folder).finally(() => (ended = true))
    const meddle = () => {
      // The files are prepared under other names first: from then on nobody looks whether one is there.
      if (readdirSync(join(folder, 'test/agents')).some((name) => name.endsWith('.tmp')))
        writeFileSync(theirs, 'theirs')
      else if (!ended) setImmediate(meddle)
    }
    meddle()
    await expect(making).rejects.toMatchObject({ code: 'CONFLICT' })
    expect(await readFile(theirs, 'utf8')).toBe('theirs')
    expect(new Set(await filesIn(folder))).toEqual(new Set(['README.md', 'rates.test.mjs']))
  })

  test('when two make the same agent at once, but for one of them', async () => {
    const folder = await folderWith({})
    const ended = await Promise.allSettled([make(folder), make(folder), make(folder)])
    expect(ended.filter(({ status }) => status === 'fulfilled').length).toBeLessThanOrEqual(1)
    const left = (await filesIn(folder)).length
    expect(ended.some(({ status }) => status === 'fulfilled') ? 3 : 0).toBe(left)
  })

  test('when another agent has the function: two that list it would both be denied', async () => {
    const folder = await folderWith({ 'policies/agents/old.yaml': policyText('old', 'rates.greet') })
    await expect(make(folder)).rejects.toThrow('old has the function rates.greet already')
    expect(await filesIn(folder)).toEqual(['old.yaml'])
  })

  test.each(['', 'Rates', '../x', 'a/b', 'a.b', '1a', 'a b', '-a', 'a\n', `a${'b'.repeat(63)}`])(
    'for %j, which can not be the name of an agent',
    async (name) => {
      const folder = await folderWith({})
      await expect(make(folder, name)).rejects.toMatchObject({ code: 'USAGE' })
      expect(await filesIn(folder)).toEqual([])
    },
  )
})

/** `@transbot/tms/agent` with the real defineAgent, and of runForTest as much as the written test needs. */
async function installStandIn(folder: string): Promise<void> {
  const home = join(folder, 'node_modules/@transbot/tms')
  await mkdir(home, { recursive: true })
  // Else a package.json above the temporary folder would say what the project is.
  await writeFile(join(folder, 'package.json'), '{"name":"project","private":true}')
  await writeFile(
    join(home, 'package.json'),
    '{"name":"@transbot/tms","type":"module","exports":{"./agent":"./agent.js"}}',
  )
  const contents = `export { defineAgent } from './define.ts'
export * as z from 'zod'
export async function runForTest(agent, name, input) {
  const events = []
  const ctx = { publish: (topic, payload) => void events.push({ topic, payload }) }
  const fn = agent.functions[name]
  return { output: fn.output.parse(await fn.run(ctx, fn.input.parse(input))), events }
}`
  buildSync({
    stdin: { contents, resolveDir: join(root, 'src/agents'), loader: 'js' },
    bundle: true,
    format: 'esm',
    platform: 'node',
    outfile: join(home, 'agent.js'),
  })
}
