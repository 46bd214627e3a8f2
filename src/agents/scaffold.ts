import { randomBytes } from 'node:crypto'
import { constants, existsSync } from 'node:fs'
import { copyFile, link, lstat, mkdir, open, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { stringify } from 'yaml'
import { TmsError } from '../errors.ts'
import { fileProblem } from '../files.ts'
import type { Block } from '../ui/blocks.ts'
import { agentNameRule } from './policy/form.ts'
import { readAgentPolicies } from './policy/read.ts'

export type Scaffold = {
  readonly agent: string
  readonly function: string
  /** Agent, policy, test. */
  readonly files: readonly string[]
  /** What to type to run the test, from the project's folder. */
  readonly test: string
  /** Whether the project has the package that the agent imports. */
  readonly installed: boolean
}

export type ScaffoldInput = {
  readonly name: string
  /** The project: agents/ and test/ are made in it. */
  readonly root: string
  /** The project's policies first. */
  readonly policyFolders: readonly [string, ...string[]]
}

/** Writes a new agent, its policy and its test: all three or none, and over nothing that is there. */
export async function scaffoldAgent({ name, root, policyFolders }: ScaffoldInput): Promise<Scaffold> {
  if (!agentNameRule.test(name)) {
    throw new TmsError({
      code: 'USAGE',
      what: `"${name}" can't be the name of an agent`,
      why: 'it takes small letters, digits, _ and -, begins with a letter, and has at most 63 characters',
      next: ['tms agents new rates'],
    })
  }
  const fn = `${name.replaceAll('-', '_')}.greet`
  await refuseTaken(name, fn, policyFolders)
  const test = join('test', 'agents', `${name}.test.mjs`)
  const files = [
    { path: join(root, 'agents', `${name}.mjs`), content: agentText(name, fn) },
    { path: join(policyFolders[0], 'agents', `${name}.yaml`), content: policyText(name, fn) },
    { path: join(root, test), content: testText(name, fn) },
  ]
  await writeAllOrNone(files)
  const installed = existsSync(join(root, 'node_modules/@transbot/tms'))
  return { agent: name, function: fn, files: files.map(({ path }) => path), test: `node --test ${test}`, installed }
}

export function scaffoldView({ agent, function: fn, files, test, installed }: Scaffold): readonly Block[] {
  return [
    { kind: 'text', text: `Agent ${agent} with the function ${fn}:` },
    { kind: 'list', items: files },
    {
      kind: 'next',
      commands: [
        ...(installed ? [] : ['npm install @transbot/tms']),
        test,
        `tms agents policy explain ${agent} ${fn} --offline`,
        'tms agents policy load',
      ],
    },
  ]
}

/** A function that two policies list denies both agents: a new one must not stop one that works. */
async function refuseTaken(name: string, fn: string, policyFolders: readonly string[]): Promise<void> {
  const { policies } = await readAgentPolicies(policyFolders)
  const holder = policies.find((policy) => policy.agent === name || policy.functionLines.has(fn))
  if (holder === undefined) return
  throw new TmsError({
    code: 'CONFLICT',
    what:
      holder.agent === name ? `there is an agent ${name} already` : `${holder.agent} has the function ${fn} already`,
    why: `${holder.path} says so; nothing was written`,
    next: [`tms agents policy explain ${holder.agent} ${fn} --offline`],
  })
}

type NewFile = { readonly path: string; readonly content: string }

async function writeAllOrNone(files: readonly NewFile[]): Promise<void> {
  for (const { path } of files) await refusePresent(path)
  const aside: string[] = []
  const made: string[] = []
  try {
    for (const { path, content } of files) {
      await mkdir(dirname(path), { recursive: true })
      const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
      aside.push(temporary)
      await writeSynced(temporary, content)
    }
    for (const [index, { path }] of files.entries()) {
      await putInPlace(aside[index] ?? '', path)
      made.push(path)
    }
  } catch (error) {
    // Only what this run made: a file that somebody else put there meanwhile is theirs.
    await Promise.all(made.map((path) => rm(path, { force: true })))
    throw error
  } finally {
    await Promise.all(aside.map((path) => rm(path, { force: true })))
  }
}

async function refusePresent(path: string): Promise<void> {
  try {
    await lstat(path)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null
    if (code === 'ENOENT') return
    throw fileProblem(path, error)
  }
  throw present(path)
}

async function writeSynced(path: string, content: string): Promise<void> {
  try {
    const file = await open(path, 'wx', 0o644)
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fileProblem(path, error)
  }
}

/** Unlike a rename, a link fails where something is. */
async function putInPlace(temporary: string, path: string): Promise<void> {
  try {
    try {
      await link(temporary, path)
    } catch (error) {
      // Not every file system has links.
      const code = error instanceof Error && 'code' in error ? String(error.code) : ''
      if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].includes(code)) throw error
      await copyFile(temporary, path, constants.COPYFILE_EXCL)
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') throw present(path)
    throw fileProblem(path, error)
  }
}

function present(path: string): TmsError {
  return new TmsError({
    code: 'CONFLICT',
    what: `${path} is there already`,
    why: 'nothing is overwritten, and the three files are written together or not at all; nothing was written',
    next: [`ls -l ${path}`],
  })
}

function agentText(name: string, fn: string): string {
  return `// @ts-check
import { defineAgent, z } from '@transbot/tms/agent'

// What this agent may do is in policies/agents/${name}.yaml: a function that isn't listed there is denied.
export default defineAgent({
  name: '${name}',
  functions: {
    '${fn}': {
      input: z.object({ name: z.string().min(1) }),
      output: z.object({ greeting: z.string() }),
      async run(ctx, { name }) {
        // Events leave when the task commits, and not at all when it fails.
        ctx.publish('${fn.replace(/\.greet$/, '.greeted')}', { name })
        return { greeting: \`Hello, \${name}\` }
      },
    },
  },
})
`
}

function testText(name: string, fn: string): string {
  return `// @ts-check
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runForTest } from '@transbot/tms/agent'
import agent from '../../agents/${name}.mjs'

test('${fn} greets and says that it did', async () => {
  const { output, events } = await runForTest(agent, '${fn}', { name: 'Ada' })
  assert.deepEqual(output, { greeting: 'Hello, Ada' })
  assert.deepEqual(events.map(({ topic, payload }) => ({ topic, payload })), [
    { topic: '${fn.replace(/\.greet$/, '.greeted')}', payload: { name: 'Ada' } },
  ])
})
`
}

function policyText(name: string, fn: string): string {
  return `# What the agent ${name} may do. What isn't written here is denied. The fields: docs/agents.md of @transbot/tms.
agent: ${stringify(name).trimEnd()}
description: says what it is for
owner: operations

functions:
  - ${fn}
  # - { name: ${fn.replace(/\.greet$/, '.commit')}, approval: true }   a person approves before it commits

may:
  publish: [${fn.replace(/\.greet$/, '.greeted')}]
  enqueue: []
  apply: []

limits:
  timeout: 30s
  attempts: 5
  # Tokens, calls and money: none unless written, for a task and for a day.
  # per_task: { tokens: 20000, calls: 10, cost: '0.50' }
  # per_tenant_per_day: { tokens: 2000000, calls: 1000, cost: '20' }
`
}
