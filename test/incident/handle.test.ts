import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { readAlarmTypes } from '../../src/incident/alarm-types.ts'
import { readAlarm, wholeFleet } from '../../src/incident/handle.ts'
import { words } from '../../src/incident/words.ts'
import { root } from '../ui/process.ts'

const unread = () => Promise.reject(new Error('a lever by itself needs no policy'))
const unmapped = () => Promise.resolve({ types: new Map(), problems: [] })
const alarm = (value: unknown, policy: Parameters<typeof readAlarm>[1] = unread) =>
  readAlarm(JSON.stringify(value), policy)

describe('an alarm that pulls a lever', () => {
  test.each([
    ['a description of 5000 characters', { level: 'critical', type: 'emergency_stop', description: 'x'.repeat(5000) }],
    ['an empty description', { level: 'critical', type: 'emergency_stop', description: '' }],
    ['a description that is no text', { level: 'critical', type: 'emergency_stop', description: { a: 1 } }],
    ['characters that no database takes', { type: 'emergency_stop', description: 'a\u0000b\ud800' }],
    ['its type alone', { type: 'emergency_stop' }],
    ['a level of another list', { level: 'P1', type: 'emergency_stop', description: 'x' }],
    ['capital letters', { level: 'Critical', type: 'Emergency_Stop', description: 'x' }],
    ['other separators', { level: 'critical', type: ' EMERGENCY-STOP ', description: 'x' }],
    ['an exclamation mark', { level: 'critical', type: 'Emergency Stop!' }],
    ['camel case', { level: 'critical', type: 'emergencyStop' }],
    ['full stops and quotes', { level: 'critical', type: '"emergency.stop"...' }],
  ])('presses with %s', async (_what, value) => {
    const read = await alarm(value)
    expect(read).toMatchObject({ lever: 'emergency_stop', type: 'emergency_stop' })
    expect(read.description.length).toBeLessThanOrEqual(1000)
    expect(read.description).not.toMatch(/\u0000|\p{Surrogate}/u)
  })

  test('soft degrade is as easy', async () => {
    expect(await alarm({ type: 'Soft_Degrade' })).toMatchObject({ lever: 'soft_degrade', description: '' })
    expect(await alarm({ type: 'Roll back!' })).toMatchObject({ lever: 'rollback' })
  })

  test('says its name and nothing more', async () => {
    for (const type of ['emergency_stop_drill', 'не emergency_stop'])
      expect(await alarm({ level: 'low', type }, unmapped)).toMatchObject({ lever: null })
  })
})

test("one tenant's alarm that pulls a lever of the whole fleet says so, and is pulled", async () => {
  const said = async (type: string, tenant?: string) => wholeFleet(await alarm({ type }), tenant)
  expect(await said('emergency_stop', 'acme')).toBe('The button halts the whole fleet, not acme alone.')
  expect(await said('rollback', 'acme')).toContain('the whole fleet, not of acme alone')
  expect(await said('soft_degrade', 'acme')).toBeNull()
  expect(await said('emergency_stop')).toBeNull()
})

describe('an alarm that opens an incident', () => {
  test.each([
    ['capital letters', { level: ' Critical', type: 'SystemFailure', description: 'x' }, 'systemfailure', 'x'],
    ['blanks', { level: 'critical', type: 'Database Failure', description: 'x' }, 'database_failure', 'x'],
    ['a number in front', { level: 'CRITICAL', type: '3rd party', description: 'x' }, 'alarm_3rd_party', 'x'],
    ['no description', { level: 'critical', type: 'slow' }, 'slow', 'slow'],
    ['a description that is no text', { level: 'critical', type: 'slow', description: 7 }, 'slow', 'slow'],
  ])('is taken with %s', async (_what, value, type, description) => {
    expect(await alarm(value, unmapped)).toMatchObject({ priority: 'P1', lever: null, type, description })
  })

  test('is taken with a stack trace, and with the mark that some editors put in front', async () => {
    const text = JSON.stringify({ level: 'high', type: 'x'.repeat(200), description: 'at line\n'.repeat(1000) })
    const read = await readAlarm(`\uFEFF${text}`, unmapped)
    expect([read.type.length, read.priority]).toEqual([80, 'P2'])
    expect(read.description.length).toBeLessThanOrEqual(1000)
  })

  test.each([
    ['in whatever script', ['Ошибка базы', 'платежи', 'データ損失', '数据库', 'Störung', 'st_rung', '🔥', '💥']],
    ['however long', ['я', 'ю', ''].map((end) => 'x'.repeat(90) + end)],
  ])('joins no other type, %s', async (_what, types) => {
    const read = await Promise.all(types.map((type) => alarm({ level: 'high', type }, unmapped)))
    expect(new Set(read.map(({ type }) => type)).size).toBe(types.length)
    for (const { type } of read) expect(type).toMatch(/^[a-z][a-z0-9_.-]{0,79}$/)
  })

  test('of one type is one, however it is typed, and says what was said where its word does not', async () => {
    const typed = [' Störung ', 'STÖRUNG', 'Störung'.normalize('NFD')]
    const read = await Promise.all(typed.map((type) => alarm({ level: 'high', type }, unmapped)))
    expect(read[0]?.type).toMatch(/^st_rung_[0-9a-f]{8}$/)
    expect(new Set(read.map(({ type }) => type)).size).toBe(1)
    expect(await alarm({ level: 'high', type: 'платежи' }, unmapped)).toMatchObject({
      type: 'alarm_3b477354',
      description: 'платежи',
    })
  })

  test.each([
    ['slow.rates-2', 'slow.rates-2'],
    ['a $ + ~ b', 'a_b'],
    ['!!!', 'alarm__'],
    ['Rates —\u00a0slow…', 'rates_slow_'],
  ])('of the type %s has a word without a digest', async (type, word) => {
    expect(await alarm({ level: 'high', type }, unmapped)).toMatchObject({ type: word, description: word })
  })

  test.each([
    ['no type', { level: 'high', description: 'x' }],
    ['an empty type', { level: 'high', type: ' ', description: 'x' }],
    ['a level of another list', { level: 'urgent', type: 'slow', description: 'x' }],
  ])('is turned away with %s', async (_what, value) => {
    await expect(alarm(value, unmapped)).rejects.toMatchObject({ exit: 2 })
  })
})

test('what is said is kept without its secrets, also where it is cut', async () => {
  const text = 'password=hunter2 sk_live_51H8xYzKq0aBcDeFgHiJkLmN rates are wrong'
  expect(words(text)).toContain('rates are wrong')
  expect(words(text)).not.toMatch(/hunter2|51H8xYz/)
  const read = await alarm({ level: 'high', type: 'slow_rates', description: text }, unmapped)
  expect(read.description).not.toMatch(/hunter2|51H8xYz/)
  const cut = words(`${'x'.repeat(990)} sk_live_51H8xYzKq0aBcDeFgHiJkLmN`, 1000)
  expect(cut).not.toContain('sk_live')
})

describe('policies/incidents.yaml', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tms-alarms-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const policy = (text: string) => {
    writeFileSync(join(folder, 'incidents.yaml'), text)
    return () => readAlarmTypes([folder, join(root, 'policies')])
  }

  test('maps a type to a lever, or to a level whatever the alarm says, in any spelling', async () => {
    const mapped = policy('types:\n  system_failure: { lever: emergency_stop }\n  slow_rates: { level: critical }\n')
    for (const type of ['System_Failure', ' system failure ', 'SYSTEM FAILURE', 'System failure!', 'systemFailure'])
      expect(await alarm({ type }, mapped)).toMatchObject({ lever: 'emergency_stop', problem: null })
    expect(await alarm({ type: 'slow_rates', level: 'low', description: 'x' }, mapped)).toMatchObject({
      lever: null,
      priority: 'P1',
      type: 'slow_rates',
    })
    expect(await alarm({ type: 'SlowRates!', description: 'x' }, mapped)).toMatchObject({ type: 'slow_rates' })
    expect(await alarm({ type: 'SlowRätes' }, policy('types:\n  slowr_tes: { lever: rollback }\n'))).toMatchObject({
      lever: 'rollback',
    })
    expect(await alarm({ type: 'other', level: 'low', description: 'x' }, mapped)).toMatchObject({ priority: 'P4' })
  })

  test.each([
    [
      'a button that is mapped away',
      'types:\n  emergency_stop: { level: low }\n',
      /:2:\d+: types.emergency_stop: is a lever/,
    ],
    ['a button in another spelling', 'types:\n  emergency-stop: { level: low }\n', /types.emergency-stop: is a lever/],
    ['a lever that does not exist', 'types:\n  a_type: { lever: stop }\n', /:2:\d+: types.a_type.lever: takes one of/],
    ['both', 'types:\n  a_type: { lever: rollback, level: low }\n', /:2:\d+: types.a_type: takes lever or level/],
    ['neither', 'types:\n  a_type: {}\n', /:2:\d+: types.a_type: takes lever or level/],
  ])('with %s says where, and loses no alarm', async (_what, text, said) => {
    const broken = policy(text)
    const read = await alarm({ type: 'slow_rates', level: 'high', description: 'x' }, broken)
    expect(read).toMatchObject({ priority: 'P2', problem: { code: 'POLICY_INVALID' } })
    expect(read.problem?.why).toMatch(said)
    expect(await alarm({ type: 'emergency_stop' }, broken)).toMatchObject({ lever: 'emergency_stop' })
  })

  test('the shipped one maps nothing', async () => {
    expect(await readAlarmTypes([join(root, 'policies')])).toEqual({ types: new Map(), problems: [] })
  })
})
