import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createLogger } from '../../src/redaction/logger.ts'
import { startDuties } from '../../src/runtime/duties.ts'

describe('duties', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })
  const logged: string[] = []
  const log = createLogger({ clock: () => new Date(0), write: ({ message }) => void logged.push(message) })

  test('each is done at once and then on its own beat', async () => {
    const done: string[] = []
    const duty = (name: string, everyMs: number) => ({
      name,
      everyMs,
      run: async () => {
        done.push(name)
        return false
      },
    })
    const duties = startDuties([duty('often', 10), duty('seldom', 25)], log)
    await vi.advanceTimersByTimeAsync(30)
    await duties.stop()
    await vi.advanceTimersByTimeAsync(100)
    expect(done).toEqual(['often', 'seldom', 'often', 'often', 'seldom', 'often'])
  })

  test('one that still runs is not begun a second time, and the end waits for it', async () => {
    let begun = 0
    let release: () => void = () => undefined
    const slow = {
      name: 'slow',
      everyMs: 10,
      run: async () => {
        begun++
        await new Promise<void>((resolve) => (release = resolve))
        return false
      },
    }
    const duties = startDuties([slow], log)
    await vi.advanceTimersByTimeAsync(100)
    expect(begun).toBe(1)
    let stopped = false
    const stop = duties.stop().then(() => (stopped = true))
    await vi.advanceTimersByTimeAsync(0)
    expect(stopped).toBe(false)
    release()
    await stop
    expect(stopped).toBe(true)
  })

  test('one that has more to do goes on at once, and ends when it is stopped', async () => {
    let turns = 0
    const duties = startDuties([{ name: 'more', everyMs: 1000, run: async () => ++turns < 7 }], log)
    await vi.advanceTimersByTimeAsync(0)
    expect(turns).toBe(7)
    await duties.stop()
  })

  test('a failure is logged once, keeps nobody else, and its end is logged too', async () => {
    logged.length = 0
    let fails = true
    let others = 0
    const duties = startDuties(
      [
        {
          name: 'bad',
          everyMs: 10,
          run: async () => {
            if (fails) throw new Error('no')
            return false
          },
        },
        {
          name: 'good',
          everyMs: 10,
          run: async () => {
            others++
            return false
          },
        },
      ],
      log,
    )
    await vi.advanceTimersByTimeAsync(35)
    fails = false
    await vi.advanceTimersByTimeAsync(10)
    await duties.stop()
    expect(others).toBe(5)
    expect(logged).toEqual(['bad: failed, and is tried again', 'bad: works again'])
  })
})
