import { expect, test } from 'vitest'
import { withDefaults } from '../../src/outbox/defaults.ts'
import { openTarget } from '../../src/outbox/targets/kinds.ts'
import { parseTargets } from '../../src/outbox/targets-file.ts'
import { problemLine } from '../../src/policy-file.ts'

const none = { path: null, targets: [], problems: [] }
const all = {
  SLACK_WEBHOOK_URL: 'https://hooks.slack.com/services/secret',
  PAGERDUTY_ROUTING_KEY: 'secret-key',
  ALERT_WEBHOOK_URL: 'https://alerts.example/secret',
}
const names = (read: ReturnType<typeof withDefaults>) => read.targets.map(({ name, kind }) => `${name} ${kind}`)

test('each variable that is set stands for a target, whose configuration names it and does not hold it', () => {
  const read = withDefaults(none, all)
  expect(names(read)).toEqual(['default-slack slack', 'default-pagerduty pagerduty', 'default-alerts http'])
  for (const { kind, config } of read.targets) expect(openTarget(kind, config)).toBeDefined()
  expect(JSON.stringify(read)).not.toContain('secret')
  expect(withDefaults(none, {}).targets).toEqual([])
  expect(withDefaults(none, { SLACK_WEBHOOK_URL: '' }).targets).toEqual([])
})

test('a secret makes the alerts signed', () => {
  expect(names(withDefaults(none, { ALERT_WEBHOOK_URL: all.ALERT_WEBHOOK_URL, TMS_SECRET_ALERTS: 'x' }))).toEqual([
    'default-alerts webhook',
  ])
})

test('a target of the file that names a variable takes the place of its default', () => {
  const read = parseTargets(
    'targets.yaml',
    `targets:\n  - { name: ops, kind: slack, topics: [incident.opened], config: { urlFrom: { env: SLACK_WEBHOOK_URL } } }\n`,
  )
  expect(names(withDefaults(read, all))).toEqual(['ops slack', 'default-pagerduty pagerduty', 'default-alerts http'])
})

test('a file can say that it wants none, and a wrong file gets none', () => {
  expect(withDefaults(parseTargets('t', 'targets: []\ndefaults: false\n'), all).targets).toEqual([])
  const wrong = parseTargets('t', 'targets: [1]\n')
  expect(withDefaults(wrong, all)).toEqual(wrong)
})

test('a pager that begins alerts and never hears of their end is refused with its line', () => {
  const file = (topics: string) =>
    `targets:\n  - name: pager\n    kind: pagerduty\n    topics: [${topics}]\n    config: { routingKeyFrom: { env: PAGERDUTY_ROUTING_KEY } }\n`
  for (const topics of ['incident.opened', 'incident.late', 'incident.escalated', 'fleet.halted', 'fleet.*'])
    expect(parseTargets('t.yaml', file(topics)).problems.map(problemLine)).toEqual([
      expect.stringContaining('4:5: targets.0.topics: takes incident.resolved'),
    ])
  for (const topics of ['incident.*', 'incident.late, incident.resolved', 'fleet.resumed', 'deploy.*'])
    expect(parseTargets('t.yaml', file(topics)).problems).toEqual([])
})
