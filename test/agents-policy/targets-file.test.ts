import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { problemLine } from '../../src/policy-file.ts'
import { parseTargets, readTargets, targetsProblem, targetsView } from '../../src/outbox/targets-file.ts'
import { folderWith } from './folder.ts'

const target = (fields: string) => `targets:\n  - name: log\n    kind: file\n    topics: [rates.*]\n${fields}`
const good = target('    config: { file: events.jsonl }\n')

function problemsOf(text: string): readonly string[] {
  const { problems, targets } = parseTargets('targets.yaml', text)
  if (problems.length > 0) expect(targets).toEqual([])
  return problems.map(problemLine)
}

test('targets become what the database takes', () => {
  const text = `targets:
  - name: log
    kind: file
    topics: [rates.*, loads.matched]
    config: { file: events.jsonl }
  - name: acme-hook
    kind: webhook
    topics: [rates.priced]
    tenant: acme
    max_attempts: 3
    config: { url: 'https://hooks.example/x', keyId: one, secretFrom: { env: HOOK_SECRET } }
`
  expect(parseTargets('targets.yaml', text)).toEqual({
    path: 'targets.yaml',
    problems: [],
    targets: [
      { name: 'log', kind: 'file', topics: ['rates.*', 'loads.matched'], config: { file: 'events.jsonl' } },
      {
        name: 'acme-hook',
        kind: 'webhook',
        topics: ['rates.priced'],
        tenant: 'acme',
        max_attempts: 3,
        config: { url: 'https://hooks.example/x', keyId: 'one', secretFrom: { env: 'HOOK_SECRET' } },
      },
    ],
  })
})

test.each([
  ['an unknown key', `${good}    topic: x\n`, '6:5: targets.0.topic: "topic" is not known here. Did you mean topics?'],
  ['a missing configuration', target(''), '2:5: targets.0.config: is missing'],
  ['an unknown kind', good.replace('kind: file', 'kind: ftp'), '3:5: targets.0.kind: takes one of webhook'],
  ['no topics', good.replace('[rates.*]', '[]'), '4:5: targets.0.topics: takes at least one topic'],
  ['every topic', good.replace('[rates.*]', "['*']"), '4:14: targets.0.topics.0: takes a topic'],
  ['a name with a space', good.replace('name: log', 'name: my log'), '2:5: targets.0.name: takes a name'],
  ['a name twice', good + good.slice('targets:\n'.length), '6:5: targets.1.name: there are two targets named log'],
  ['no attempts', `${good}    max_attempts: 0\n`, '6:5: targets.0.max_attempts: takes a whole number from 1 to 100'],
  ['a tenant that can not be', `${good}    tenant: A B\n`, '6:5: targets.0.tenant: takes the key of a tenant'],
  [
    'a path where a file name belongs',
    target('    config:\n      file: ../x\n'),
    '6:7: targets.0.config.file: file: takes',
  ],
  [
    'an unknown configuration',
    target('    config:\n      file: x\n      mode: 1\n'),
    '7:7: targets.0.config.mode: mode is not',
  ],
  ['no list', 'targets: log\n', '1:1: targets: takes a list of targets'],
  ['nothing', '', '1:1: targets: is missing: it takes a list of targets'],
])('%s is refused with its place', (_, text, problem) => {
  expect(problemsOf(text)[0]).toContain(`targets.yaml:${problem}`)
})

test('what is wrong with a configuration is said without its values', () => {
  const secret = 'xoxb-4711-secret'
  const text = target('').replace('kind: file', 'kind: webhook')
  const config = `    config: { url: 'https://u:${secret}@x.example', keyId: one, secretFrom: ${secret} }\n`
  expect(problemsOf(text + config).join()).not.toContain(secret)
  expect(problemsOf(text + config)).toHaveLength(1)
})

test("the project's file stands for the one that comes along", async () => {
  const own = await folderWith({ 'targets.yaml': 'targets: []\n' })
  const shipped = await folderWith({ 'targets.yaml': good })
  const none = await folderWith({})
  expect(await readTargets([own, shipped])).toEqual({ path: join(own, 'targets.yaml'), targets: [], problems: [] })
  expect((await readTargets([none, shipped])).targets).toHaveLength(1)
  const absent = await readTargets([none])
  expect([absent.path, targetsProblem(absent)]).toEqual([null, null])
  expect(JSON.stringify(targetsView({ ...absent, loaded: null }))).toContain('There is no targets.yaml')
})

test('a configuration whose aliases expand without end is a problem and no hang', () => {
  const bomb = Array.from('bcdefghij').reduce(
    (text, key, i) => `${text}      ${key}: &${key} [${`*${'abcdefghij'[i] ?? ''},`.repeat(9)}]\n`,
    '      a: &a [x]\n',
  )
  expect(problemsOf(target(`    config:\n${bomb}`))[0]).toContain('Excessive alias count')
})

test('random text never crashes and never loads half of a file', () => {
  const word = fc.constantFrom(
    ...[
      'targets',
      ': ',
      '- ',
      '\n',
      '\n  ',
      '{',
      '}',
      '[',
      ']',
      'name',
      'kind',
      'file',
      'topics',
      'config',
      'x.*',
      '*',
      '&a',
      '*a',
      ',',
    ],
  )
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 100 }),
    fc.array(word, { maxLength: 40 }).map((words) => words.join('')),
    fc.array(word, { maxLength: 20 }).map((words) => good + words.join('')),
  )
  fc.assert(
    fc.property(text, (text) => void problemsOf(text)),
    { numRuns: 500 },
  )
})
