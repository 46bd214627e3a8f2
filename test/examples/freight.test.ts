import { readdirSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Agent } from '../../src/agents/define.ts'
import { loadAgents } from '../../src/agents/load.ts'
import { explain } from '../../src/agents/policy/explain.ts'
import { readAgentPolicies } from '../../src/agents/policy/read.ts'
import { runForTest } from '../../src/agents/rehearse.ts'
import { readTargets } from '../../src/outbox/targets-file.ts'
import { until } from '../servers/process.ts'
import { bin, build } from '../ui/built.ts'
import { collect, envelopeOf, root, run, start } from '../ui/process.ts'

/** The example as it stands: its files are in order, its agents do what they say, and its README's commands work. */

const folder = join(root, 'examples/freight')
const policies = join(folder, 'policies')

let agents: ReadonlyMap<string, Agent>

beforeAll(async () => {
  // Agents import the package by its name, which is the built one.
  build()
  agents = new Map((await loadAgents([join(folder, 'agents')])).map((agent) => [agent.name, agent]))
})

function agent(name: string): Agent {
  const found = agents.get(name)
  if (found) return found
  throw new Error(`the example has no agent ${name}`)
}

describe('the files of freight', () => {
  test('policies and targets are in order, and the policies allow every function there is', async () => {
    const read = await readAgentPolicies([policies])
    expect(read.problems).toEqual([])
    expect((await readTargets([policies])).problems).toEqual([])
    const all = [...agents.values()].flatMap(({ name, functions }) => Object.keys(functions).map((fn) => [name, fn]))
    expect(all.length).toBeGreaterThan(1)
    for (const [name = '', fn = ''] of all) expect(explain(read, name, fn, 'offline')).toMatchObject({ allowed: true })
  })

  test('the list of examples names every folder', async () => {
    const readme = await readFile(join(root, 'examples/README.md'), 'utf8')
    const folders = readdirSync(join(root, 'examples'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
    for (const { name } of folders) expect(readme).toContain(`(${name})`)
  })
})

describe('rates', () => {
  test('prices a load, tells it, and asks for the invoice: once each, whatever is tried again', async () => {
    const load = { load: 'L-1', miles: 420 }
    const { output, events, tasks, logs, failure } = await runForTest(agent('rates'), 'rates.price_one', load)
    expect([output, failure]).toEqual([{ load: 'L-1', price: '987.00' }, null])
    expect(events).toMatchObject([
      { topic: 'rates.priced', payload: { load: 'L-1', price: '987.00' }, key: 'priced/L-1', order: 'L-1' },
    ])
    expect(tasks).toMatchObject([{ function: 'invoices.build', payload: output, key: 'invoice/L-1' }])
    expect(logs).toMatchObject([{ level: 'info', message: 'priced' }])
  })

  test('refuses a load without miles', async () => {
    const { failure } = await runForTest(agent('rates'), 'rates.price_one', { load: 'L-1', miles: 0 })
    expect(failure?.class).toBe('validation')
  })
})

describe('invoices', () => {
  const input = { load: 'L-1', price: '987.00' }

  test('are refused while the tenant lets no machine build them', async () => {
    const { failure, events } = await runForTest(agent('invoices'), 'invoices.build', input)
    expect(failure).toEqual({ class: 'policy', error: 'finance.autoInvoice is off for test' })
    expect(events).toEqual([])
  })

  test('are built where the flag is on', async () => {
    const flags = { 'finance.autoInvoice': true }
    const { output, events } = await runForTest(agent('invoices'), 'invoices.build', input, { flags })
    expect(output).toEqual({ invoice: 'INV-L-1' })
    expect(events).toMatchObject([{ topic: 'invoices.built', order: 'L-1' }])
  })
})

test('the commands of its README do what it says', async () => {
  const readme = await readFile(join(folder, 'README.md'), 'utf8')
  const cwd = await mkdtemp(join(tmpdir(), 'tms-freight-'))
  onTestFinished(() => rm(cwd, { recursive: true, force: true }))
  // The database goes elsewhere; agents and policies are the example's own.
  const env = {
    TMS_AGENTS: join(folder, 'agents'),
    TMS_POLICIES: policies,
    TMS_KEYS: join(cwd, 'keys'),
    TMS_COLOR: 'false',
  }
  const lines = /```sh\n([\s\S]*?)```/.exec(readme)?.[1]?.trim().split('\n') ?? []
  const commands = lines.map((line) => wordsOf(line.replace(/\s+#.*$/, '')))
  expect(commands.map(([tms, ...words]) => [tms, words.slice(0, 2).join(' ')])).toEqual([
    ['tms', 'init --yes'],
    ['tms', 'tenants add'],
    ['tms', 'up'],
    ['tms', 'agents enqueue'],
    ['tms', 'agents runs'],
    ['tms', 'dlq list'],
  ])
  for (const [, ...words] of commands) {
    if (words[0] === 'up') {
      const up = start([bin, 'up', '--json'], { cwd, env })
      const ended = collect(up)
      let said = ''
      up.stdout.on('data', (part: Buffer) => (said += part.toString()))
      await until('it works', () => said.includes('"agents":["invoices","rates"]'))
      onTestFinished(async () => {
        up.kill('SIGTERM')
        await ended
      })
      continue
    }
    const { code, stderr } = await run([bin, ...words], { cwd, env })
    expect(code, `${words.join(' ')}: ${stderr}`).toBe(0)
  }
  const letters = async () =>
    envelopeOf((await run([bin, 'dlq', 'list', '--tenant', 'acme', '--json'], { cwd, env })).stdout).data
  await until('the invoice is a dead letter', async () => JSON.stringify(await letters()).includes('invoices.build'))
  const events = await readFile(join(cwd, 'artifacts/outbox/events.jsonl'), 'utf8')
  expect(events).toContain('rates.priced')
})

/** As a shell takes a line apart, as far as the README goes: single quotes and spaces. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '')
}
