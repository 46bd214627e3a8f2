import * as fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { TmsError } from '../../src/errors.ts'
import { fnSpan, taskSpan, type Attributes } from '../../src/tracing/trace.ts'
import { until } from '../servers/process.ts'
import { startReceiver } from './receiver.ts'
import { parent, task, tracing } from './setup.ts'

describe('a sampled task', () => {
  it('arrives as agent.task.execute with its functions below it, in the trace that the run has', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    const traces = await tracer.task(task(), async (outer) => {
      const inner = await outer.span(fnSpan('rate'), { lane: 'DAL-ATL', miles: 781, hazmat: false }, async (given) => {
        await given.span('carrier', {}, async () => undefined, 'client')
        return given
      })
      return { outer, inner }
    })
    await tracer.flush()

    expect(receiver.refusals).toEqual([])
    const [carrier, rate, execute] = receiver.spans
    expect([execute?.name, rate?.name, carrier?.name]).toEqual([taskSpan, 'agent.fn.rate', 'carrier'])
    expect(new Set(receiver.spans.map((span) => span.traceId))).toEqual(new Set([traces.outer.traceId]))
    expect([execute?.parentSpanId, rate?.parentSpanId, carrier?.parentSpanId]).toEqual([
      '',
      execute?.spanId,
      rate?.spanId,
    ])
    // CONSUMER, INTERNAL, CLIENT
    expect([execute?.kind, rate?.kind, carrier?.kind]).toEqual([5, 1, 3])
    expect(traces.outer.traceparent).toBe(`00-${execute?.traceId ?? ''}-${execute?.spanId ?? ''}-01`)
    expect(traces.inner.traceparent).toBe(`00-${rate?.traceId ?? ''}-${rate?.spanId ?? ''}-01`)
    expect(receiver.spans.map((span) => span.status)).toEqual(Array(3).fill({ code: 0, message: '' }))
    expect(rate?.attributes).toEqual({ lane: 'DAL-ATL', miles: 781, hazmat: false })
    expect(execute?.attributes).toEqual({
      'messaging.system': 'tms',
      'messaging.operation.name': 'execute',
      'messaging.operation.type': 'process',
      'messaging.destination.name': 'quote_load',
      'messaging.consumer.group.name': 'rating',
      'messaging.message.id': '42',
      'tms.agent': 'rating',
      'tms.fn': 'quote_load',
      'tms.tenant': 'acme',
      'tms.task.attempt': 2,
    })
    expect(execute?.resource).toMatchObject({
      'service.name': 'tms-worker',
      'service.version': '1.2.3',
      'deployment.environment.name': 'staging',
      'telemetry.sdk.name': 'opentelemetry',
    })
    expect(execute?.scope).toEqual({ name: 'tms', version: '1.2.3' })
    expect(tracer.exported()).toEqual({ spans: 3, failed: 0, dropped: 0 })
  })

  it('continues the trace of the context that it came with', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url, samplePercent: 0 })
    await tracer.task(task({ traceparent: parent.text }), async () => undefined)
    await tracer.flush()
    expect(receiver.spans).toMatchObject([{ traceId: parent.traceId, parentSpanId: parent.spanId }])
    // Sampled, and the parent is of another process.
    expect(receiver.spans[0]?.flags).toBe(0x301)
  })

  it('keeps tasks that run at the same time apart', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    const runs = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        tracer.task(task({ taskId: String(i) }), async (outer) => {
          await Promise.resolve()
          await outer.span(fnSpan('rate'), { i }, async () => Promise.resolve())
          return { i, traceId: outer.traceId }
        }),
      ),
    )
    await tracer.flush()
    expect(receiver.refusals).toEqual([])
    for (const { i, traceId } of runs) {
      const [inner, outer] = receiver.spans.filter((span) => span.traceId === traceId)
      expect(outer?.attributes['messaging.message.id']).toBe(String(i))
      expect(inner).toMatchObject({ attributes: { i }, parentSpanId: outer?.spanId })
    }
  })

  it('arrives without anybody asking for it', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url, limits: { queue: 10, batch: 10, everyMs: 1 } })
    await tracer.task(task(), async () => undefined)
    await until('the span arrives', () => receiver.spans.length === 1)
  })

  it('arrives as a whole request whatever attributes, names and messages it has', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('\ud800', 'a\udc00b', '__proto__', '\0'))
    const value = fc.oneof(text, fc.double(), fc.maxSafeInteger(), fc.boolean(), fc.array(text), fc.constant(null))
    await fc.assert(
      fc.asyncProperty(text, fc.dictionary(text, value), text, async (name, attributes: Attributes, message) => {
        const error = new Error(message)
        const work = tracer.task(task(), (trace) => trace.span(`x${name}`, attributes, () => Promise.reject(error)))
        await expect(work).rejects.toBe(error)
      }),
      { numRuns: 300 },
    )
    await tracer.flush()
    expect(receiver.refusals).toEqual([])
    expect(tracer.exported()).toEqual({ spans: 600, failed: 0, dropped: 0 })
    expect(receiver.spans).toHaveLength(600)
  })

  it('carries the configured headers and none of OTEL_* variables', async () => {
    process.env['OTEL_EXPORTER_OTLP_HEADERS'] = 'x-other-vendor=his-key'
    onTestFinished(() => {
      delete process.env['OTEL_EXPORTER_OTLP_HEADERS']
    })
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: `${receiver.url}/`, headers: { 'x-api-key': 'our-key' } })
    await tracer.task(task(), async () => undefined)
    await tracer.flush()
    expect(receiver.requests).toMatchObject([{ path: '/v1/traces', headers: { 'x-api-key': 'our-key' } }])
    expect(receiver.requests[0]?.headers).not.toHaveProperty('x-other-vendor')
  })
})

describe('a task that fails', () => {
  it('arrives with status ERROR and its exception, and fails with the same error', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    const error = new TypeError('no rate for DAL-ATL')
    await expect(tracer.task(task(), () => Promise.reject(error))).rejects.toBe(error)
    await tracer.flush()
    expect(receiver.spans).toMatchObject([
      {
        status: { code: 2, message: 'no rate for DAL-ATL' },
        attributes: { 'error.type': 'TypeError' },
        events: [
          {
            name: 'exception',
            attributes: {
              'exception.type': 'TypeError',
              'exception.message': 'no rate for DAL-ATL',
              'exception.stacktrace': expect.stringContaining('export.test.ts'),
            },
          },
        ],
      },
    ])
  })

  it('has the code of a TmsError as its type', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    const error = new TmsError({ code: 'DB_TIMEOUT', what: 'too slow', why: 'a lock', next: [] })
    await expect(tracer.task(task(), () => Promise.reject(error))).rejects.toBe(error)
    await tracer.flush()
    expect(receiver.spans).toMatchObject([{ attributes: { 'error.type': 'DB_TIMEOUT' } }])
  })

  it('and was reported before has one exception', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    const work = tracer.task(task(), async (trace) => {
      const error = new Error('once')
      trace.fail(error)
      throw error
    })
    await expect(work).rejects.toThrow('once')
    await tracer.flush()
    expect(receiver.spans[0]?.events).toHaveLength(1)
  })

  it('is marked when its failure was handled', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    await tracer.task(task(), async (trace) => trace.fail(new Error('handled')))
    await tracer.flush()
    expect(receiver.spans).toMatchObject([{ status: { code: 2, message: 'handled' } }])
  })

  const trap = {
    get(): never {
      throw new Error('trap')
    },
  }
  it.each([
    ['undefined', undefined],
    ['a text', 'just text'],
    ['an object without a text form', Object.create(null)],
    ['an error whose message throws', Object.defineProperty(new Error('x'), 'message', trap)],
    ['an error whose name is a symbol', Object.assign(new Error('x'), { name: Symbol('x') })],
  ])('with %s fails with just that', async (_what, thrown: unknown) => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    const caught = await tracer
      .task(task(), async () => {
        throw thrown
      })
      .catch((error: unknown) => ({ error }))
    expect(caught).toEqual({ error: thrown })
    await tracer.flush()
    expect(receiver.spans).toMatchObject([{ status: { code: 2 } }])
  })
})

describe('sampling', () => {
  it('leaves a task alone whose trace is not sampled', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url, samplePercent: 100 })
    const trace = await tracer.task(task({ traceparent: parent.unsampled }), async (given) => given)
    await tracer.flush()
    expect(trace).toMatchObject({ traceId: parent.traceId, sampled: false })
    expect(receiver.requests).toEqual([])
  })

  it('begins a new trace when the context is not valid', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url })
    const trace = await tracer.task(task({ traceparent: `${parent.text}-more` }), async (given) => given)
    expect(trace.traceId).not.toBe(parent.traceId)
    expect(trace.sampled).toBe(true)
  })

  it('is decided by the trace id alone, and can be raised', async () => {
    const receiver = await startReceiver()
    // Half of all ids are below this one.
    const random = (bytes: number) => '7f'.repeat(bytes)
    const tracer = await tracing({ endpoint: receiver.url, samplePercent: 5, random })
    const sampled = () => tracer.task(task(), async (trace) => trace.sampled)
    expect(await sampled()).toBe(false)
    tracer.setSampling(60)
    expect(await sampled()).toBe(true)
    tracer.setSampling(5)
    expect(await sampled()).toBe(false)
  })

  it.each([-1, 101, Number.NaN])('refuses %d per cent', async (percent) => {
    const tracer = await tracing({})
    expect(() => tracer.setSampling(percent)).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }))
    await expect(tracing({ samplePercent: percent })).rejects.toMatchObject({ code: 'INPUT_INVALID' })
  })
})
