import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import type { Tracer } from '../../src/tracing/tracer.ts'
import { freePort, until } from '../servers/process.ts'
import { ExportTraceServiceResponse } from './definitions.ts'
import { startReceiver } from './receiver.ts'
import { task, tracing } from './setup.ts'

const limits = { queue: 20, batch: 5, everyMs: 1 }

async function run(tracer: Tracer, tasks: number): Promise<number[]> {
  return Promise.all(Array.from({ length: tasks }, (_, i) => tracer.task(task(), async () => i)))
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i)

describe('a collector that never answers', () => {
  it('holds up no task; what the queue does not hold is dropped and counted', async () => {
    const receiver = await startReceiver(() => undefined)
    const tracer = await tracing({ endpoint: receiver.url, limits, fetchTimeoutMs: 1000 })
    expect(await run(tracer, 100)).toEqual(numbers(100))
    // Five under way, twenty wait.
    expect(tracer.exported()).toEqual({ spans: 0, failed: 0, dropped: 75 })
    await tracer.flush()
    await tracer.stop()
    const { spans, failed, dropped } = tracer.exported()
    expect({ spans, all: failed + dropped }).toEqual({ spans: 0, all: 100 })
  })

  it('does not keep stop waiting for every batch', async () => {
    const receiver = await startReceiver(() => undefined)
    const tracer = await tracing({ endpoint: receiver.url, limits, fetchTimeoutMs: 50 })
    await run(tracer, 25)
    await tracer.stop()
    expect(receiver.requests.length).toBeLessThan(3)
    expect(tracer.exported().failed + tracer.exported().dropped).toBe(25)
  })
})

describe('a collector that answers without end', () => {
  it('byte by byte is given up', async () => {
    const receiver = await startReceiver(trickle)
    const tracer = await tracing({ endpoint: receiver.url, limits, fetchTimeoutMs: 100 })
    await run(tracer, 1)
    await tracer.stop()
    expect(tracer.exported()).toEqual({ spans: 0, failed: 1, dropped: 0 })
  })

  it('as fast as it can is cut off early', async () => {
    const poured: Poured = { bytes: 0, closed: false }
    const receiver = await startReceiver((response) => pour(response, poured))
    const tracer = await tracing({ endpoint: receiver.url, limits })
    await run(tracer, 1)
    await tracer.stop()
    await until('the connection is closed', () => poured.closed)
    // Buffers of both sides hold some of it; without a limit it would be all.
    expect(poured.bytes).toBeLessThan(allOfIt / 2)
    expect(tracer.exported()).toEqual({ spans: 1, failed: 0, dropped: 0 })
  })
})

describe('a collector that is not there', () => {
  it('holds up no task, and its spans count as failed', async () => {
    const tracer = await tracing({ endpoint: `http://127.0.0.1:${await freePort()}`, limits, fetchTimeoutMs: 100 })
    expect(await run(tracer, 5)).toEqual(numbers(5))
    await tracer.flush()
    await tracer.stop()
    expect(tracer.exported()).toEqual({ spans: 0, failed: 5, dropped: 0 })
  })

  it('does not keep stop waiting', async () => {
    const tracer = await tracing({
      endpoint: `http://127.0.0.1:${await freePort()}`,
      limits,
      fetchTimeoutMs: 3_600_000,
    })
    await run(tracer, 5)
    await tracer.stop()
    expect(tracer.exported()).toEqual({ spans: 0, failed: 5, dropped: 0 })
  })
})

describe('an answer', () => {
  it.each([429, 502, 503, 504])('of %i is asked again until the batch is taken', async (status) => {
    let asked = 0
    const receiver = await startReceiver((response) => response.writeHead(++asked < 3 ? status : 200).end())
    const tracer = await tracing({ endpoint: receiver.url, limits })
    await run(tracer, 3)
    await tracer.flush()
    expect(asked).toBe(3)
    expect(tracer.exported()).toEqual({ spans: 3, failed: 0, dropped: 0 })
  })

  it.each([400, 401, 404, 500])('of %i is final', async (status) => {
    const receiver = await startReceiver((response) => response.writeHead(status).end())
    const tracer = await tracing({ endpoint: receiver.url, limits })
    await run(tracer, 3)
    await tracer.flush()
    expect(receiver.requests).toHaveLength(1)
    expect(tracer.exported()).toEqual({ spans: 0, failed: 3, dropped: 0 })
  })

  it('that sends elsewhere is not followed: the headers have a key', async () => {
    const elsewhere = await startReceiver()
    const receiver = await startReceiver((response) =>
      response.writeHead(307, { location: `${elsewhere.url}/v1/traces` }).end(),
    )
    const tracer = await tracing({ endpoint: receiver.url, headers: { 'x-api-key': 'our-key' }, limits })
    await run(tracer, 1)
    await tracer.flush()
    expect(receiver.requests).toHaveLength(1)
    expect(elsewhere.requests).toEqual([])
  })

  it('that takes some of the spans counts the others as failed', async () => {
    const body = ExportTraceServiceResponse.encode({
      partialSuccess: { rejectedSpans: 2, errorMessage: 'too old' },
    }).finish()
    const receiver = await startReceiver((response) => response.end(body))
    const tracer = await tracing({ endpoint: receiver.url, limits })
    await run(tracer, 5)
    await tracer.flush()
    expect(tracer.exported()).toEqual({ spans: 3, failed: 2, dropped: 0 })
  })

  it('that is no protobuf is success when the status says so', async () => {
    const receiver = await startReceiver((response) => response.end('<html>ok</html>'))
    const tracer = await tracing({ endpoint: receiver.url, limits })
    await run(tracer, 5)
    await tracer.flush()
    expect(tracer.exported()).toEqual({ spans: 5, failed: 0, dropped: 0 })
  })
})

describe('after stop', () => {
  it('everything was sent, and tasks go on without spans', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    await run(tracer, 3)
    await Promise.all([tracer.stop(), tracer.stop()])
    expect(receiver.spans).toHaveLength(3)
    expect(await tracer.task(task(), async (trace) => trace.sampled)).toBe(false)
    expect(tracer.exported()).toEqual({ spans: 3, failed: 0, dropped: 0 })
  })

  it('a task that ends late is counted as dropped', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    await tracer.task(task(), async () => tracer.stop())
    expect(tracer.exported()).toEqual({ spans: 0, failed: 0, dropped: 1 })
  })
})

describe('the address of a collector', () => {
  it.each([
    ['no address', 'collector:4318x'],
    ['another protocol', 'ftp://127.0.0.1/'],
    ['a password in it', 'http://reader:hunter2@127.0.0.1:4318'],
  ])('with %s is refused at the start, without being repeated', async (_what, endpoint) => {
    const error: unknown = await tracing({ endpoint }).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' })
    expect(String(error) + JSON.stringify(error)).not.toContain('hunter2')
  })

  it('with a header that HTTP does not allow is refused without the value', async () => {
    const start = tracing({ endpoint: 'http://127.0.0.1:4318', headers: { 'x-api-key': 'hunter2\n' + 'x\0' } })
    const error: unknown = await start.catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' })
    expect(String(error) + JSON.stringify(error)).not.toContain('hunter2')
  })

  it('may be that of its traces already', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: `${receiver.url}/v1/traces` })
    await run(tracer, 1)
    await tracer.flush()
    expect(receiver.spans).toHaveLength(1)
  })
})

function trickle(response: ServerResponse): void {
  response.writeHead(200)
  const timer = setInterval(() => response.write('x'), 5)
  response.on('close', () => clearInterval(timer))
}

type Poured = { bytes: number; closed: boolean }

const allOfIt = 128 * 1024 * 1024

function pour(response: ServerResponse, poured: Poured): void {
  response.writeHead(200)
  const block = Buffer.alloc(65_536)
  const more = (): void => {
    while (!response.destroyed && poured.bytes < allOfIt) {
      poured.bytes += block.length
      if (!response.write(block)) return
    }
    response.end()
  }
  response.on('close', () => {
    poured.closed = true
  })
  response.on('drain', more)
  more()
}
