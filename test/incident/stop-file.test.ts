import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as z from 'zod'
import { defineAgent } from '../../src/agents/define.ts'
import { endStopFile, readStopFile, stopFilePath, watchStopFile, writeStopFile } from '../../src/incident/stop-file.ts'
import { createLogger } from '../../src/redaction/logger.ts'
import { startWorker } from '../../src/runtime/worker.ts'
import { startTracing } from '../../src/tracing/tracer.ts'
import { embeddedSubject } from '../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'
import { haltAndResume } from './fixture.ts'
import { until } from '../servers/process.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tms-stop-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const said = { by: 'me', why: 'a test', target: 'postgres db:5432/tms' }
const minute = 60_000
/** As a press wrote it this long ago. */
const written = (path: string, agoMs = minute) =>
  writeStopFile(path, { ...said, at: new Date(Date.now() - agoMs).toISOString() })

describe('the stop file', () => {
  test('is obeyed until a resume came after it, by those who work and by those who start later', async () => {
    const path = stopFilePath(folder, 'one')
    const early = watchStopFile(path)
    expect(await early(5)).toBe(false)
    await written(path)
    expect(await early(null)).toBe(true)
    expect(await early(minute * 2)).toBe(true)
    expect(await early(minute / 2)).toBe(false)
    expect(await watchStopFile(path)(minute * 2)).toBe(true)
    expect(await watchStopFile(path)(minute / 2)).toBe(false)
  })

  test('written again it is another stop', async () => {
    const path = stopFilePath(folder, 'two')
    await written(path)
    expect(await watchStopFile(path)(minute / 2)).toBe(false)
    await written(path, 0)
    expect(await watchStopFile(path)(minute / 2)).toBe(true)
  })

  test('that cannot be read is obeyed, and one written by hand counts from then', async () => {
    const path = stopFilePath(join(folder, 'three'), 'x')
    await written(path)
    expect(await watchStopFile(join(path, '..'))(1)).toBe(true)
    await writeFile(path, 'everybody stop')
    expect(await watchStopFile(path)(minute)).toBe(true)
    const then = new Date(Date.now() - minute)
    await utimes(path, then, then)
    expect(await watchStopFile(path)(minute / 2)).toBe(false)
  })

  test('goes with the resume that ended it, and a newer one stays', async () => {
    const path = stopFilePath(folder, 'four')
    expect(await endStopFile(path, 1)).toBeNull()
    await written(path)
    expect(await endStopFile(path, minute * 2)).toMatchObject({ over: false, by: 'me' })
    expect(await readStopFile(path, null)).toMatchObject({ over: false })
    expect(await endStopFile(path, minute / 2)).toMatchObject({ over: true })
    expect(await readStopFile(path, null)).toBeNull()
  })
})

describe('a worker of this host', () => {
  let fleet: Fleet
  beforeAll(async () => {
    fleet = await readyFleet(await embeddedSubject(), [policy('demo')])
  })
  afterAll(() => fleet.stop())

  test('aborts what runs and claims nothing while the file is there, and goes on after', async () => {
    const path = stopFilePath(folder, 'worker')
    let aborted = 0
    const agent = defineAgent({
      name: 'demo',
      functions: {
        'demo.one': {
          input: z.looseObject({}),
          output: z.void(),
          run: (context) =>
            new Promise<void>((resolve, reject) => {
              context.signal.addEventListener('abort', () => {
                aborted++
                reject(new Error('aborted'))
              })
              if (aborted > 0) resolve()
            }),
        },
      },
    })
    await fleet.enqueue('acme', [{ function: 'demo.one' }])
    const worker = await startWorker({
      driver: fleet.worker,
      agents: [agent],
      name: 'here',
      host: 'here',
      pid: 1,
      slots: 2,
      tracer: await startTracing({
        enabled: false,
        samplePercent: 0,
        endpoint: null,
        headers: {},
        serviceName: 'tms',
        serviceVersion: '0',
        environment: 'test',
        redact: (value) => value,
        fetchTimeoutMs: 1000,
      }),
      log: createLogger({ clock: () => new Date(), write: () => undefined }),
      fetch,
      now: () => performance.now(),
      pollMs: 100,
      stoppedHere: watchStopFile(path),
    })
    try {
      await until('it runs', () => worker.stats().running === 1)
      await written(path)
      await until('it was aborted', () => aborted === 1 && worker.stats().running === 0)
      await fleet.enqueue('acme', [{ function: 'demo.one' }])
      expect(worker.stats()).toMatchObject({ halted: true, completed: 0 })
      // A worker that starts now and finds the file of before: the database shows a resume after it.
      await haltAndResume(fleet.operator)
      await until('both are done', () => worker.stats().completed === 2)
    } finally {
      await worker.stop(0)
    }
  })
})
