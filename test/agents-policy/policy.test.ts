import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { stringify } from 'yaml'
import { agentPolicy } from '../../src/drivers/contract/fleet.ts'
import { functionNameRule } from '../../src/agents/policy/form.ts'
import { parseAgentPolicy, readAgentPolicies } from '../../src/agents/policy/read.ts'
import { problemLine } from '../../src/policy-file.ts'
import { folderWith, policyText } from './folder.ts'

const head = 'agent: rates\ndescription: prices loads\nowner: pricing\n'

function problemsOf(text: string): readonly string[] {
  const result = parseAgentPolicy('rates.yaml', 'rates', text)
  return 'problems' in result ? result.problems.map(problemLine) : []
}

function policyOf(text: string) {
  const result = parseAgentPolicy('rates.yaml', 'rates', text)
  if ('problems' in result) throw new Error(result.problems.map(problemLine).join('\n'))
  return result
}

describe('a policy', () => {
  test('becomes what the database takes, field by field', () => {
    const { policy, functionLines, owner } = policyOf(`${head}functions:
  - rates.price_one
  - { name: rates.commit, approval: true }
limits:
  timeout: 2m
  attempts: 3
  concurrency: 10
  requests_per_minute: 600
  per_task: { tokens: 20000, calls: 10, cost: '0.50' }
  per_tenant_per_day: { tokens: 2000000, calls: 1000, cost: '20' }
backoff: { first: 2s, most: 1h }
breaker: { errors_percent: 2.5, samples: 50, pause: 5m }
may:
  publish: [rates.*]
  enqueue: [loads.match, loads.route.*]
  apply: [freight.set_price]
`)
    expect(policy).toEqual({
      agent: 'rates',
      functions: ['rates.price_one', 'rates.commit'],
      approval: ['rates.commit'],
      publish: ['rates.*'],
      enqueue: ['loads.match', 'loads.route.*'],
      apply: ['freight.set_price'],
      max_attempts: 3,
      timeout_ms: 120_000,
      backoff_ms: 2000,
      backoff_cap_ms: 3_600_000,
      requests_per_minute: 600,
      concurrency: 10,
      tokens_per_task: 20_000,
      calls_per_task: 10,
      cost_per_task: '0.50',
      tokens_per_day: 2_000_000,
      calls_per_day: 1000,
      cost_per_day: '20',
      breaker_percent: 2.5,
      breaker_samples: 50,
      breaker_seconds: 300,
    })
    expect(agentPolicy.parse(policy)).toEqual(policy)
    expect([owner, ...functionLines]).toEqual(['pricing', ['rates.price_one', 5], ['rates.commit', 6]])
  })

  test('allows nothing that is not written', () => {
    expect(policyOf(`${head}functions: []\n`).policy).toEqual({
      agent: 'rates',
      functions: [],
      approval: [],
      publish: [],
      enqueue: [],
      apply: [],
      max_attempts: 5,
      timeout_ms: 30_000,
      backoff_ms: 5000,
      backoff_cap_ms: 600_000,
      requests_per_minute: null,
      concurrency: null,
      tokens_per_task: 0,
      calls_per_task: 0,
      cost_per_task: '0',
      tokens_per_day: null,
      calls_per_day: null,
      cost_per_day: null,
      breaker_percent: 5,
      breaker_samples: 20,
      breaker_seconds: 60,
    })
  })

  const body = `${head}functions: [rates.price_one]\n`
  const wrong: readonly (readonly [what: string, text: string, problem: string])[] = [
    ['an unknown key', `${body}limit: {}\n`, '5:1: limit: "limit" is not known here. Did you mean limits?'],
    [
      'an unknown key further in',
      `${body}limits:\n  per_task:\n    tokns: 5\n`,
      '7:5: limits.per_task.tokns: "tokns" is not known here. Did you mean tokens?',
    ],
    [
      'an unknown key of a function',
      `${head}functions:\n  - name: rates.a\n    aproval: true\n`,
      '6:5: functions.0.aproval: "aproval" is not known here. Did you mean approval?',
    ],
    ['a key nothing is like', `${body}may:\n  zzzzzz: 1\n`, '6:3: may.zzzzzz: "zzzzzz" is not known here; there are'],
    ['a missing key', 'agent: rates\ndescription: d\nfunctions: []\n', '1:1: owner: is missing: it takes text'],
    ['an empty key', `${body}limits:\n`, '5:1: limits: is empty: it takes timeout, attempts'],
    ['empty functions', `${head}functions:\n`, '4:1: functions: is empty: it takes a list'],
    [
      'another agent than the file',
      body.replace('rates', 'quotes'),
      '1:1: agent: names quotes, but the file is that of rates',
    ],
    [
      'a function without an area',
      `${head}functions:\n  - a.b\n  - price\n`,
      '6:5: functions.1.name: takes the name of a function',
    ],
    [
      'a pattern as a function',
      `${head}functions: [rates.*]\n`,
      '4:13: functions.0.name: takes the name of a function',
    ],
    ['capitals in a function', `${head}functions: [rates.priceOne]\n`, '4:13: functions.0.name: takes the name'],
    ['a long function', `${head}functions: [a.${'b'.repeat(119)}]\n`, '4:13: functions.0.name: takes the name'],
    ['a number as a function', `${head}functions: [7]\n`, '4:13: functions.0: takes a function'],
    ['a function twice', `${head}functions:\n  - a.b\n  - { name: a.b }\n`, '6:5: functions.1: a.b is listed twice'],
    [
      'approval that is no boolean',
      `${head}functions: [{ name: a.b, approval: 'no' }]\n`,
      '4:26: functions.0.approval: takes true or false',
    ],
    ['a key that is written twice', `${body}owner: me\n`, '5:1: "owner" is written twice'],
    [
      'a bare number as a duration',
      `${body}limits:\n  timeout: 30\n`,
      '6:3: limits.timeout: takes a duration from 1s to 24h',
    ],
    ['a quoted number as a duration', `${body}limits:\n  timeout: '30'\n`, '6:3: limits.timeout: takes a duration'],
    ['no time at all', `${body}limits: { timeout: 0s }\n`, '5:11: limits.timeout: takes a duration from 1s to 24h'],
    ['too long a time', `${body}limits: { timeout: 2d }\n`, '5:11: limits.timeout: takes a duration from 1s to 24h'],
    ['no attempts', `${body}limits: { attempts: 0 }\n`, '5:11: limits.attempts: takes a whole number from 1 to 100'],
    [
      'half an attempt',
      `${body}limits: { attempts: 1.5 }\n`,
      '5:11: limits.attempts: takes a whole number from 1 to 100',
    ],
    ['no concurrency', `${body}limits: { concurrency: 0 }\n`, '5:11: limits.concurrency: takes a whole number'],
    [
      'endless requests',
      `${body}limits: { requests_per_minute: .inf }\n`,
      '5:11: limits.requests_per_minute: takes a whole',
    ],
    [
      'money as a number',
      `${body}limits:\n  per_task: { cost: 0.5 }\n`,
      "6:15: limits.per_task.cost: takes an amount in quotes: '0.50'",
    ],
    [
      'negative money',
      `${body}limits:\n  per_task: { cost: '-1' }\n`,
      '6:15: limits.per_task.cost: takes an amount in quotes',
    ],
    [
      'money as an exponent',
      `${body}limits:\n  per_task: { cost: '1e9' }\n`,
      '6:15: limits.per_task.cost: takes an amount',
    ],
    [
      'a task budget without a day',
      `${body}limits:\n  per_task:\n    cost: '0.50'\n`,
      '7:5: limits.per_task.cost: needs limits.per_tenant_per_day.cost too',
    ],
    [
      'a day without a task budget',
      `${body}limits:\n  per_tenant_per_day:\n    calls: 5\n`,
      '7:5: limits.per_tenant_per_day.calls: needs limits.per_task.calls too',
    ],
    [
      'a day that is less than a task',
      `${body}limits:\n  per_task: { cost: '10' }\n  per_tenant_per_day: { cost: '9.999999' }\n`,
      '7:25: limits.per_tenant_per_day.cost: is less than one task may spend',
    ],
    [
      'a day of nothing',
      `${body}limits:\n  per_tenant_per_day: { cost: '0.00' }\n`,
      '6:25: limits.per_tenant_per_day.cost: takes more than nothing',
    ],
    ['a retry that shrinks', `${body}backoff:\n  first: 1h\n`, '5:1: backoff: first is longer than most'],
    [
      'a breaker that never opens',
      `${body}breaker: { errors_percent: 100 }\n`,
      '5:12: breaker.errors_percent: takes a number from 0 to 50',
    ],
    [
      'a breaker in thousandths',
      `${body}breaker: { errors_percent: 0.001 }\n`,
      '5:12: breaker.errors_percent: takes a number',
    ],
    [
      'a breaker that waits for ever',
      `${body}breaker: { samples: 100000 }\n`,
      '5:12: breaker.samples: takes a whole number from 1 to 1000',
    ],
    ['publishing everything', `${body}may:\n  publish: ['*']\n`, '6:13: may.publish.0: takes a topic'],
    ['a star in the middle', `${body}may:\n  publish: ['a.*.b']\n`, '6:13: may.publish.0: takes a topic'],
    ['enqueueing everything', `${body}may:\n  enqueue: [a.b, '*']\n`, '6:18: may.enqueue.1: takes a function'],
    ['half a name to enqueue', `${body}may:\n  enqueue: [rates]\n`, '6:13: may.enqueue.0: takes a function'],
    ['a pattern to apply', `${body}may:\n  apply: ['freight.*']\n`, '6:11: may.apply.0: takes a SQL function'],
    [
      "one of tms's own to apply",
      `${body}may:\n  apply: [tms.flags_set]\n`,
      '6:11: may.apply.0: is a function of the system or of tms',
    ],
    [
      "one of the system's to apply",
      `${body}may:\n  apply: [pg_catalog.set_config]\n`,
      '6:11: may.apply.0: is a function of the system',
    ],
    ['a list as the whole', '- agent: rates\n', '1:1: takes agent, description, owner and functions at least'],
    ['an unknown tag', `${head}functions: !!js/function [a.b]\n`, '4:12: Unresolved tag'],
    ['an alias that leads nowhere', `${head}functions: *a\n`, '4:12: Unresolved alias'],
    ['a list that contains itself', `${head}functions: &a [*a]\n`, ': '],
    ['a merge', `${body}<<: { owner: x }\n`, '5:1: <<: "<<" is not known here'],
    ['a key that schemas skip', `${body}__proto__: { functions: [a.b] }\n`, '5:1: "__proto__" is not known here'],
    ['a key that is a list', `${body}? [a, b]\n: 1\n`, '5:3: a key is text'],
    ['two documents', `${body}---\n${body}`, '5:1: Source contains multiple documents'],
    ['no YAML', `${head}functions: [a.b\n`, ': Flow sequence'],
  ]
  test.each(wrong)('is refused with its place: %s', (_, text, problem) => {
    const found = problemsOf(text)
    expect(found[0]).toMatch(/^rates\.yaml:\d+:\d+: /)
    expect(found.join('\n')).toContain(problem.startsWith(':') ? problem : `rates.yaml:${problem}`)
  })

  test('names all of its problems at once', () => {
    const found = problemsOf(`${head}functions: [a]\nlimits: { timeout: 1, attempts: x }\nmay: { send: [] }\n`)
    expect(found).toHaveLength(4)
  })

  test('keeps small and large amounts apart to the last digit', () => {
    const of = (task: string, day: string) =>
      problemsOf(
        `${head}functions: []\nlimits:\n  per_task: { cost: '${task}' }\n  per_tenant_per_day: { cost: '${day}' }\n`,
      )
    expect(of('999999999.000001', '999999999.000001')).toEqual([])
    expect(of('999999999.000002', '999999999.000001')).toHaveLength(1)
  })
})

describe('a folder of policies', () => {
  test('loses only the agent whose file is broken', async () => {
    const folder = await folderWith({
      'agents/good.yaml': policyText('good', 'good.run'),
      'agents/bad.yaml': `${policyText('bad', 'bad.run')}extra: 1\n`,
      'agents/worse.yaml': 'agent: [',
      'agents/README.md': '# not a policy',
      'agents/.hidden.yaml': 'x',
      'agents/good.yaml~': 'x',
    })
    const { policies, problems } = await readAgentPolicies([folder])
    expect(policies.map(({ agent }) => agent)).toEqual(['good'])
    expect([...new Set(problems.map(({ agent }) => agent))]).toEqual(['bad', 'worse'])
  })

  test('denies both agents that list the same function, each with the place of the other', async () => {
    const folder = await folderWith({
      'agents/a.yaml': policyText('a', 'x.one', 'x.two'),
      'agents/b.yaml': policyText('b', 'y.one', 'x.two'),
      'agents/c.yaml': policyText('c', 'z.one'),
    })
    const { policies, problems } = await readAgentPolicies([folder])
    expect(policies.map(({ agent }) => agent)).toEqual(['c'])
    const file = (agent: string) => join(folder, 'agents', `${agent}.yaml`)
    expect(problems.map(problemLine)).toEqual([
      `${file('a')}:4:20: functions.1: x.two is listed by b too, at ${file('b')}:4`,
      `${file('b')}:4:20: functions.1: x.two is listed by a too, at ${file('a')}:4`,
    ])
  })

  test("takes the project's file for the one that comes along, also when it is broken", async () => {
    const shipped = await folderWith({
      'agents/a.yaml': policyText('a', 'a.shipped'),
      'agents/b.yaml': policyText('b', 'b.shipped'),
      'agents/c.yaml': policyText('c', 'c.shipped'),
      'agents/d.yaml': policyText('d', 'd.shipped'),
    })
    const project = await folderWith({
      'agents/a.yaml': policyText('a', 'a.own'),
      'agents/b.yaml': 'agent: b\n',
      'agents/c.yml': policyText('c', 'c.own'),
    })
    const { policies, problems } = await readAgentPolicies([project, shipped, project])
    expect(policies.map(({ policy }) => policy.functions)).toEqual([['a.own'], ['d.shipped']])
    expect([...new Set(problems.map(({ agent }) => agent))]).toEqual(['b', 'c'])
  })

  test('that is not there holds no policies', async () => {
    expect(await readAgentPolicies(['/nonexistent/policies'])).toMatchObject({ policies: [], problems: [] })
  })

  test('names what can not be read as a policy: folders, links to nowhere, huge files', async () => {
    const folder = await folderWith({ 'agents/huge.yaml': `# ${'x'.repeat(70_000)}\n${policyText('huge', 'a.b')}` })
    await mkdir(join(folder, 'agents/folder.yaml'))
    await symlink('nowhere', join(folder, 'agents/link.yaml'))
    const { policies, problems } = await readAgentPolicies([folder])
    expect(policies).toEqual([])
    expect(problems.map(({ agent, message }) => [agent, message])).toEqual([
      ['folder', 'is not an ordinary file'],
      ['huge', 'is larger than 64 KB'],
      ['link', "isn't there any more, or leads nowhere"],
    ])
  })
})

describe('whatever is in the file', () => {
  /** The most that a policy may say, whatever was written: no pattern for everything, no endless limit. */
  function expectTame(text: string): void {
    const result = parseAgentPolicy('rates.yaml', 'rates', text)
    if ('problems' in result) {
      expect(result.problems.length).toBeGreaterThan(0)
      for (const { line, column } of result.problems) expect(Math.min(line, column)).toBeGreaterThanOrEqual(1)
      return
    }
    const policy = agentPolicy.parse(result.policy)
    expect(policy.agent).toBe('rates')
    for (const name of policy.functions) {
      expect(name).toMatch(functionNameRule)
      expect(text).toContain(name)
    }
    for (const pattern of [...policy.publish, ...policy.enqueue, ...policy.apply]) {
      expect(pattern).not.toMatch(/^\*|\*./)
      expect(text).toContain(pattern)
    }
    expect(policy.apply.join()).not.toMatch(/\*|\btms\./)
    expect(policy.approval.every((name) => policy.functions.includes(name))).toBe(true)
    expect(policy.max_attempts).toBeLessThanOrEqual(100)
    expect(policy.timeout_ms).toBeGreaterThan(0)
    expect(policy.breaker_percent).toBeLessThanOrEqual(50)
    for (const unit of ['tokens', 'calls', 'cost'] as const) {
      const [task, day] = [policy[`${unit}_per_task`], policy[`${unit}_per_day`]]
      expect(Number(task)).toBeGreaterThanOrEqual(0)
      expect(day === null ? Number(task) : 0).toBe(0)
    }
  }

  test('random text never crashes and never allows more than it says', () => {
    const word = fc.constantFrom(
      ...['agent', 'rates', 'functions', 'limits', 'may', 'publish', 'per_task', 'cost', 'approval', 'name'],
      ...[
        ':',
        '- ',
        '\n',
        '\n  ',
        '{',
        '}',
        '[',
        ']',
        "'",
        '"',
        '*',
        '&a',
        '*a',
        '<<',
        '!!set',
        '|',
        '>',
        '---',
        '#',
        ',',
        '\t',
      ],
      ...['a.b', '*', '.inf', '-1', '1e999', 'null', 'true', '30s', '\u0000', '\ufeff', '__proto__'],
    )
    const garbage = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 200 }),
      fc.array(word, { maxLength: 60 }).map((words) => words.join('')),
      fc.array(word, { maxLength: 30 }).map((words) => `${head}functions: []\n${words.join('')}`),
    )
    fc.assert(
      fc.property(garbage, (text) => expectTame(text)),
      { numRuns: 1000 },
    )
  })

  test('a policy with one value replaced by anything never crashes and never allows more than it says', () => {
    const value = fc.oneof(
      fc.constantFrom<unknown>(
        '*',
        'a.*',
        'tms.flags_set',
        '9999d',
        '1e9',
        -1,
        0,
        1e300,
        Infinity,
        NaN,
        null,
        true,
        [],
        {},
      ),
      fc.jsonValue(),
      fc.array(fc.constantFrom('a.b', '*', 'x.*', 'tms.x', 'A.B', '')),
    )
    const field = fc.constantFrom(
      ...[
        'agent',
        'functions',
        'limits',
        'limits.timeout',
        'limits.attempts',
        'limits.per_task',
        'limits.per_task.cost',
      ],
      ...[
        'limits.per_task.tokens',
        'limits.per_tenant_per_day.calls',
        'breaker.errors_percent',
        'may',
        'may.publish',
        'may.apply',
      ],
    )
    fc.assert(
      fc.property(fc.array(fc.tuple(field, value), { maxLength: 3 }), (changes) => {
        const policy: Record<string, unknown> = { agent: 'rates', description: 'd', owner: 'o', functions: ['a.b'] }
        for (const [path, changed] of changes) {
          const [first = '', ...rest] = path.split('.')
          policy[first] = rest.reduceRight((inner: unknown, key) => ({ [key]: inner }), changed)
        }
        expectTame(stringify(policy))
      }),
      { numRuns: 1000 },
    )
  })

  test('nesting that overruns the stack is a problem and no crash', () => {
    expect(problemsOf(`${head}functions: ${'['.repeat(50_000)}`).length).toBeGreaterThan(0)
    const bomb = Array.from('bcdefghij').reduce(
      (text, key, i) => `${text}${key}: &${key} [${`*${'abcdefghij'[i] ?? ''},`.repeat(9)}]\n`,
      'a: &a [x]\n',
    )
    expect(problemsOf(bomb).length).toBeGreaterThan(0)
  })
})
