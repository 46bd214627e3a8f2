import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { TmsError } from '../../src/errors.ts'
import { parseSlo, readSlo, windowSeconds } from '../../src/posture/slo.ts'
import { shipped, shippedText, sloPath } from './facts.ts'

const problemOf = (text: string): string => {
  try {
    parseSlo('slo.yaml', text)
  } catch (error) {
    if (error instanceof TmsError) return `${error.code} ${error.message}`
  }
  return 'none'
}
const changed = (from: string, to: string) => {
  expect(shippedText).toContain(from)
  return problemOf(shippedText.replace(from, to))
}
const lineOf = (text: string) => shippedText.slice(0, shippedText.indexOf(text)).split('\n').length

test('the shipped limits are those that were promised', () => {
  const { checks, budgets, burn } = shipped
  expect([
    checks.uptime_percent.at_least,
    checks.task_success_percent.at_least,
    checks.p95_latency_ms.at_most,
    checks.outbox_lag_p95_ms.at_most,
    checks.outbox_lag_average_ms.at_most,
    checks.quarantine_percent.below,
    checks.replay_failure_percent.below,
    checks.replays_per_tenant_and_day.below,
    checks.cost_per_1000_tasks.below,
    checks.backup_age_hours.below,
    checks.drift_score.at_least,
  ]).toEqual([99.95, 98, 2500, 5000, 2000, 1, 2, 3, 5, 24, 85])
  expect(budgets).toEqual({
    agents_at_once: 150,
    replay_items: 50,
    replay_bytes: 2_097_152,
    replay_stop_percent: 20,
    replays_per_five_minutes: 3,
  })
  expect([burn.fast.factor, burn.medium.factor, burn.slow.factor]).toEqual([14.4, 6, 1])
})

test.each([
  [
    '  p95_latency_ms: { at_most: 2500',
    '  p95_latency_ms: { at_least: 2500',
    /p95_latency_ms.*"at_least" is not known here|p95_latency_ms/,
  ],
  ['below: 3 }', 'below: -3 }', /replays_per_tenant_and_day\.below: takes a number that is not negative/],
  [
    'consequences: [throttle, freeze, quarantine]',
    'consequences: [explode]',
    /consequences.*takes one of throttle, freeze/,
  ],
  ['{ report_only: true', '{ report_only: maybe', /report_only: takes true or false/],
  ['open_p1_incidents', 'open_p9_incidents', /open_p9_incidents|open_p1_incidents/],
  ['short: 6h', 'short: 1h', /short/],
  ['window: 24h', 'window: 24', /window: takes a duration from 15m to 31d/],
] as const)('%s to %s is refused with its line', (from, to, message) => {
  const said = changed(from, to)
  expect(said).toMatch(/^POLICY_INVALID slo\.yaml:\d+:\d+: /)
  expect(said).toMatch(message)
})

test('the line named is the one where it stands', () => {
  expect(changed('below: 3 }', 'below: -3 }')).toContain(`slo.yaml:${lineOf('below: 3 }')}:`)
})

test("the project's own file stands for the shipped one, also when it is broken", async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tms-slo-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  const folders = [folder, dirname(sloPath)]
  expect((await readSlo(folders)).path).toBe(sloPath)
  await writeFile(join(folder, 'slo.yaml'), shippedText.replace('at_least: 98,', 'at_least: 97,'))
  expect((await readSlo(folders)).checks.task_success_percent.at_least).toBe(97)
  await writeFile(join(folder, 'slo.yaml'), 'window: never')
  await expect(readSlo(folders)).rejects.toMatchObject({ code: 'POLICY_INVALID' })
  await expect(readSlo([])).rejects.toMatchObject({ code: 'POLICY_INVALID' })
})

test('a window on the command line has bounds', () => {
  expect([windowSeconds('24h'), windowSeconds(undefined)]).toEqual([86_400, undefined])
  expect(() => windowSeconds('1m')).toThrow('is no window')
  expect(() => windowSeconds('32d')).toThrow('is no window')
})
