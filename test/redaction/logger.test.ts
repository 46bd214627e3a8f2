import { expect, test } from 'vitest'
import { createLogger, type LogEntry } from '../../src/redaction/logger.ts'

const clock = () => new Date('2026-01-02T03:04:05.678Z')

function collect() {
  const entries: LogEntry[] = []
  return { entries, write: (entry: LogEntry) => entries.push(entry) }
}

test('a line has time, level, message and fields, and all of it is redacted', () => {
  const { entries, write } = collect()
  const log = createLogger({ write, clock, bindings: { worker: 'w1', token: 'Hidden' } })
  log.warn('mail to ann@example.com failed', { password: 'Hidden', cause: new Error('Bearer abcDEF123456') })
  expect(entries).toMatchObject([
    {
      at: '2026-01-02T03:04:05.678Z',
      level: 'warn',
      message: 'mail to [redacted:email] failed',
      fields: { worker: 'w1', token: '[redacted:secret]', password: '[redacted:secret]' },
    },
  ])
  expect(JSON.stringify(entries)).not.toMatch(/Hidden|abcDEF123456|ann@/)
})

test('lines below the level are not written, and their fields are not even looked at', () => {
  const { entries, write } = collect()
  const log = createLogger({ write, clock, level: 'warn' })
  const never = {
    get field() {
      throw new Error('looked at')
    },
  }
  log.debug('a', never)
  log.info('b', never)
  log.warn('c')
  log.error('d')
  expect(entries.map(({ level }) => level)).toEqual(['warn', 'error'])
})

test('the level is info unless told otherwise', () => {
  const { entries, write } = collect()
  const log = createLogger({ write, clock })
  log.debug('a')
  log.info('b')
  expect(entries.map(({ message }) => message)).toEqual(['b'])
})

test('a child adds its bindings, redacted, and a line its fields; the later wins', () => {
  const { entries, write } = collect()
  const parent = createLogger({ write, clock, bindings: { a: 1, b: 1, c: 1 } })
  parent.child({ b: 2, c: 2, email: 'ann@example.com' }).info('x', { c: 3 })
  parent.info('y')
  expect(entries.map(({ fields }) => fields)).toEqual([
    { a: 1, b: 2, c: 3, email: '[redacted:email]' },
    { a: 1, b: 1, c: 1 },
  ])
})

test('nothing that goes wrong in a line of log reaches the caller', async () => {
  const fail = () => {
    throw new Error('no')
  }
  const { entries, write } = collect()
  createLogger({ write: fail, clock }).error('a')
  createLogger({ write: () => Promise.reject(new Error('no')), clock }).error('b')
  createLogger({ write, clock: fail }).error('c', new Proxy({}, { ownKeys: fail, get: fail, getPrototypeOf: fail }))
  createLogger({ write, clock: () => new Date(NaN) }).error('d')
  // An unhandled rejection would end the run here.
  await new Promise(setImmediate)
  expect(entries.map(({ at, message }) => [at, message])).toEqual([
    ['', 'c'],
    ['', 'd'],
  ])
})

test('a line is bounded', () => {
  const { entries, write } = collect()
  createLogger({ write, clock }).info('x'.repeat(1e6), { big: 'y'.repeat(1e6) })
  expect(JSON.stringify(entries).length).toBeLessThan(40_000)
})
