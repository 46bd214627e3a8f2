import { describe, expect, test } from 'vitest'
import { readAlarm } from '../../src/incident/handle.ts'
import { words } from '../../src/incident/words.ts'

const alarm = (value: unknown) => readAlarm(JSON.stringify(value))

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
  ])('presses with %s', (_what, value) => {
    const read = alarm(value)
    expect(read).toMatchObject({ lever: 'emergency_stop', type: 'emergency_stop' })
    expect(read.description.length).toBeLessThanOrEqual(1000)
    expect(read.description).not.toMatch(/\u0000|\p{Surrogate}/u)
  })

  test('soft degrade is as easy', () => {
    expect(alarm({ type: 'Soft_Degrade' })).toMatchObject({ lever: 'soft_degrade', description: '' })
  })
})

test('what is said is kept without its secrets, also where it is cut', () => {
  const text = 'password=hunter2 sk_live_51H8xYzKq0aBcDeFgHiJkLmN rates are wrong'
  expect(words(text)).toContain('rates are wrong')
  expect(words(text)).not.toMatch(/hunter2|51H8xYz/)
  const read = alarm({ level: 'high', type: 'slow_rates', description: text })
  expect(read.description).not.toMatch(/hunter2|51H8xYz/)
  const cut = words(`${'x'.repeat(990)} sk_live_51H8xYzKq0aBcDeFgHiJkLmN`, 1000)
  expect(cut).not.toContain('sk_live')
})
