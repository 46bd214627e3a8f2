import { describe, expect, it, vi } from 'vitest'
import { parseTraceparent } from '../../src/tracing/traceparent.ts'
import { parent, task, tracing } from './setup.ts'

const loaded = vi.hoisted(() => ({ packages: [] as string[] }))

vi.mock('@opentelemetry/api', () => refuse('api'))
vi.mock('@opentelemetry/resources', () => refuse('resources'))
vi.mock('@opentelemetry/sdk-trace', () => refuse('sdk-trace'))
vi.mock('@opentelemetry/otlp-transformer', () => refuse('otlp-transformer'))

function refuse(name: string): never {
  loaded.packages.push(name)
  throw new Error(`${name} was loaded`)
}

describe.each([
  ['not enabled', { enabled: false, endpoint: 'http://127.0.0.1:4318' }],
  ['without a collector', { enabled: true, endpoint: null }],
])('tracing that is %s', (_what, options) => {
  it('loads nothing of OpenTelemetry and gives every task its ids', async () => {
    const tracer = await tracing(options)
    const trace = await tracer.task(task(), async (given) =>
      given.span('agent.fn.rate', {}, async (inner) => {
        inner.fail(new Error('nobody sees it'))
        return inner
      }),
    )
    expect(parseTraceparent(trace.traceparent)).toEqual({
      traceId: trace.traceId,
      spanId: expect.stringMatching(/^[0-9a-f]{16}$/),
      sampled: false,
    })
    expect(loaded.packages).toEqual([])
    expect(tracer.exported()).toEqual({ spans: 0, failed: 0, dropped: 0 })
  })

  it('passes on the context that a task came with', async () => {
    const tracer = await tracing(options)
    const trace = await tracer.task(task({ traceparent: parent.text }), async (given) => given)
    expect(trace.traceparent).toMatch(new RegExp(`^00-${parent.traceId}-(?!${parent.spanId})[0-9a-f]{16}-01$`))
  })

  it('fails with the error of the work', async () => {
    const tracer = await tracing(options)
    const error = new Error('the carrier said no')
    await expect(tracer.task(task(), () => Promise.reject(error))).rejects.toBe(error)
  })
})

describe('tracing with a collector', () => {
  it('loads OpenTelemetry, so the tests above would have seen it', async () => {
    await expect(tracing({ endpoint: 'http://127.0.0.1:4318' })).rejects.toThrow()
    expect(loaded.packages).not.toEqual([])
  })
})
