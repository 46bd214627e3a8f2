import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as z from 'zod'
import { defineAgent } from '../../src/agents/define.ts'
import { removeStopFile, stopFilePath, watchStopFile, writeStopFile } from '../../src/incident/stop-file.ts'
import { createLogger } from '../../src/redaction/logger.ts'
import { startWorker } from '../../src/runtime/worker.ts'
import { startTracing } from '../../src/tracing/tracer.ts'
import { embeddedSubject } from '../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'
import { until } from '../servers/process.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tms-stop-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const note = { at: '2026-11-20T03:00:00Z', by: 'me', why: 'a test', target: 'postgres db:5432/tms' }

describe('the stop file', () => {
  test('is obeyed until the epoch has passed, by those who saw it and by those who start later', async () => {
    const path = stopFilePath(folder, 'one')
    const early = watchStopFile(path)
    expect(await early(4)).toBe(false)
    await writeStopFile(path, note)
    expect(await early(4)).toBe(true)
    expect(await early(null)).toBe(true)
    expect(await early(5)).toBe(false)
    // Started after the resume: it learns from the note beside the file that this one is over.
    expect(await watchStopFile(path)(5)).toBe(false)
    expect(await watchStopFile(path)(4)).toBe(true)
  })

  test('written again it is another stop', async () => {
    const path = stopFilePath(folder, 'two')
    const worker = watchStopFile(path)
    await writeStopFile(path, note)
    expect(await worker(1)).toBe(true)
    expect(await worker(2)).toBe(false)
    await writeStopFile(path, note)
    expect(await worker(2)).toBe(true)
  })

  test('that cannot be read is obeyed, and one that is removed is over', async () => {
    const path = stopFilePath(join(folder, 'three'), 'x')
    await writeStopFile(path, note)
    expect(await watchStopFile(join(path, '..'))(1)).toBe(true)
    const worker = watchStopFile(path)
    expect(await worker(1)).toBe(true)
    expect(await removeStopFile(path)).toBe(true)
    expect(await worker(1)).toBe(false)
    expect(await removeStopFile(path)).toBe(false)
  })
})

describe('a worker of this host', () => {
  let fleet: Fleet
  beforeAll(async () => {
    fleet = await readyFleet(await embeddedSubject(), [policy('demo')])
  }, 60_000)
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
      await writeStopFile(path, note)
      await until('it was aborted', () => aborted === 1 && worker.stats().running === 0)
      await fleet.enqueue('acme', [{ function: 'demo.one' }])
      expect(worker.stats()).toMatchObject({ halted: true, completed: 0 })
      await removeStopFile(path)
      await until('both are done', () => worker.stats().completed === 2)
    } finally {
      await worker.stop(0)
    }
  })
})
