import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseAgentPolicy } from '../../src/agents/policy/read.ts'
import { parseTargets } from '../../src/outbox/targets-file.ts'
import { root } from '../ui/process.ts'

const blocks = [...readFileSync(join(root, 'docs/agents.md'), 'utf8').matchAll(/```yaml\n([^]*?)```/g)]
const example = (start: string) => blocks.map(([, text = '']) => text).find((text) => text.startsWith(start)) ?? ''

test('the policy that the docs show is in order', () => {
  expect(parseAgentPolicy('rates.yaml', 'rates', example('agent: rates'))).toMatchObject({
    policy: { functions: ['rates.price_one', 'rates.commit'], approval: ['rates.commit'] },
  })
})

test('the targets that the docs show are in order', () => {
  expect(parseTargets('targets.yaml', example('targets:'))).toMatchObject({
    problems: [],
    targets: [{ name: 'dispatch' }],
  })
})
