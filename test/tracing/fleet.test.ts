import { randomBytes, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import * as z from 'zod'
import { defineAgent, TaskFailure } from '../../src/agents/define.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { postgresSubject } from '../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'
import { checkSigned, receiver as webhookReceiver, signingSecret } from '../outbox/targets/receivers.ts'
import { started } from '../privacy/started.ts'
import { freePort, until } from '../servers/process.ts'
import { listen } from '../signing/listen.ts'
import { startReceiver, type ReceivedSpan } from './receiver.ts'
import { parent } from './setup.ts'

/** From a task's enqueueing to the webhook behind the outbox: one trace, through workers and a real collector. */

const secret = 'jane.doe@example.com'

const agent = defineAgent({
  name: 'demo',
  functions: {
    'demo.one': {
      input: z.object({ call: z.string().optional() }),
      output: z.void(),
      run: async (context, { call }) => {
        context.publish('demo.done', { ok: true })
        context.enqueue('demo.two', { how: 'well' })
        if (call !== undefined) {
          await context.span('call the carrier', async () => {
            await (await context.fetch(call)).text()
          })
        }
      },
    },
    'demo.two': {
      input: z.object({ how: z.string() }),
      output: z.looseObject({ n: z.number() }),
      run: async (context, { how }) => {
        if (how === 'badly') throw new TaskFailure('external_api', `no answer for ${secret}`)
        if (how === 'wrong output') return { n: secret }
        if (how === 'not JSON') return { n: 1, twice: 2n }
        if (how === 'too long') await new Promise((resolve) => context.signal.addEventListener('abort', resolve))
        return { n: 1 }
      },
    },
  },
})

let fleet: Fleet

beforeAll(async () => {
  fleet = await readyFleet(await postgresSubject(), [
    policy('demo', { approval: [], timeout_ms: 3000, max_attempts: 1 }),
  ])
  await fleet.set('obs.otelEnabled', true)
  await fleet.set('obs.otelSampling', '100')
})
afterAll(() => fleet.stop())

async function working(options: Parameters<typeof started>[2]) {
  const running = await started(fleet.worker, [agent], options)
  let stopped = false
  const stop = async () => {
    if (!stopped) await running.stop(0)
    stopped = true
  }
  onTestFinished(stop)
  return { ...running, stop }
}

async function enqueue(fn: string, payload: Record<string, string>, traceparent?: string): Promise<string> {
  const task = { function: fn, payload, ...(traceparent === undefined ? {} : { traceparent }) }
  const answer = await fleet.operator.call('tasks_enqueue', {
    request_id: randomUUID(),
    tenant: 'acme',
    tasks: [task],
  })
  return granted(answer).ids[0] ?? ''
}

async function ended(id: string) {
  const look = async () => granted(await fleet.operator.call('agents_runs', { task: id, limit: 10 }))
  await until(`task ${id} has ended`, async () => (await look()).runs.length > 0)
  return look()
}

const named = (spans: readonly ReceivedSpan[], name: string) => spans.filter((span) => span.name === name)

describe('a task that came with a trace', () => {
  test('goes on in it: spans, run, follow-up, event, webhook and requests', async () => {
    const collector = await startReceiver()
    const seen: (string | undefined)[] = []
    const carrier = await listen((request, response) => {
      seen.push(request.headers['traceparent']?.toString())
      response.end('ok')
    })
    const webhook = await webhookReceiver(checkSigned)
    granted(
      await fleet.operator.call('outbox_targets_set', {
        request_id: randomUUID(),
        targets: [
          {
            name: 'hook',
            kind: 'webhook',
            topics: ['demo.*'],
            config: {
              url: `${webhook.url}/in`,
              hosts: [new URL(webhook.url).host],
              keyId: 'tms',
              secretFrom: { env: 'TMS_SECRET_HOOK' },
            },
          },
        ],
      }),
    )
    const running = await working({ collector: collector.url, secrets: async () => signingSecret })
    const { runs } = await ended(await enqueue('demo.one', { call: carrier }, parent.text))
    await until('the webhook was called', () => webhook.received.length > 0)
    await until('the follow-up has ended', () => running.stats().completed === 2)
    await running.stop()

    expect(collector.refusals).toEqual([])
    expect(runs).toMatchObject([{ outcome: 'completed', trace_id: parent.traceId }])
    const [first, second] = named(collector.spans, 'agent.task.execute')
    expect(first).toMatchObject({
      traceId: parent.traceId,
      parentSpanId: parent.spanId,
      attributes: { 'tms.agent': 'demo', 'tms.fn': 'demo.one', 'tms.tenant': 'acme', 'tms.task.attempt': 1 },
      resource: { 'service.name': 'tms', 'service.version': '1.2.3', 'deployment.environment.name': 'development' },
    })
    const [fn] = named(collector.spans, 'agent.fn.demo.one')
    expect(fn).toMatchObject({ traceId: parent.traceId, parentSpanId: first?.spanId })
    expect(named(collector.spans, 'call the carrier')).toMatchObject([{ parentSpanId: fn?.spanId }])
    // The follow-up hangs below the function that asked for it.
    expect(second).toMatchObject({ traceId: parent.traceId, parentSpanId: fn?.spanId })
    expect(named(collector.spans, 'agent.fn.demo.two')).toMatchObject([{ parentSpanId: second?.spanId }])

    const context = `00-${parent.traceId}-${fn?.spanId ?? ''}-01`
    expect(webhook.received.map(({ headers }) => headers['traceparent'])).toEqual([context])
    expect(seen).toEqual([expect.stringMatching(new RegExp(`^00-${parent.traceId}-[0-9a-f]{16}-01$`))])
  })
})

describe('a task that fails', () => {
  test.each([
    ['badly', 'external_api', /^no answer for /],
    ['wrong output', 'validation', /output doesn't fit/],
    ['not JSON', 'validation', /a value that JSON cannot hold/],
    ['too long', 'timeout', /longer than 3000 ms/],
  ])('%s has the status ERROR, and no secret in its bytes', async (how, kind, message) => {
    const collector = await startReceiver()
    const running = await working({ collector: collector.url })
    const { runs } = await ended(await enqueue('demo.two', { how }))
    await running.stop()
    expect(runs).toMatchObject([{ outcome: 'failed', class: kind, error: expect.stringMatching(message) }])
    expect(collector.refusals).toEqual([])
    for (const name of ['agent.task.execute', 'agent.fn.demo.two']) {
      const [span] = named(collector.spans, name)
      expect(span?.status, name).toMatchObject({ code: 2, message: expect.stringMatching(message) })
      expect(span?.traceId).toBe(runs[0]?.trace_id)
    }
    expect(Buffer.concat(collector.bodies).toString('latin1')).not.toContain('jane')
  })

  test('because its input does not fit has the status ERROR too', async () => {
    const collector = await startReceiver()
    const running = await working({ collector: collector.url })
    const { runs } = await ended(await enqueue('demo.two', { [secret]: secret }))
    await running.stop()
    expect(named(collector.spans, 'agent.task.execute')).toMatchObject([{ status: { code: 2 } }])
    expect(runs[0]?.trace_id).toBe(collector.spans[0]?.traceId)
    expect(Buffer.concat(collector.bodies).toString('latin1')).not.toContain('jane')
  })
})

describe('a collector that is not there', () => {
  test('costs spans and no task', async () => {
    const running = await working({ collector: `http://127.0.0.1:${await freePort()}` })
    const ids = await fleet.enqueue(
      'acme',
      Array.from({ length: 300 }, () => ({ function: 'demo.two', payload: { how: 'well' } })),
    )
    await until('all have ended', () => running.stats().completed === ids.length)
    await running.stop()
    expect(running.stats()).toMatchObject({ completed: 300, failed: 0, spans: 0 })
  })
})

describe('without the flag', () => {
  test('nothing is sent, and the run has a trace id all the same; a trace that came is passed on', async () => {
    await fleet.set('obs.otelEnabled', false)
    onTestFinished(() => fleet.set('obs.otelEnabled', true))
    const collector = await startReceiver()
    const running = await working({ collector: collector.url })
    const fresh = await ended(await enqueue('demo.two', { how: 'well' }))
    const given = await ended(await enqueue('demo.two', { how: 'well' }, parent.text))
    await running.stop()
    expect(fresh.runs[0]?.trace_id).toMatch(/^(?!0{32})[0-9a-f]{32}$/)
    expect(given.runs[0]?.trace_id).toBe(parent.traceId)
    expect(collector.requests).toEqual([])
  })
})

describe('with one trace in a hundred', () => {
  test('a task that came sampled is recorded, one that came unsampled is not', async () => {
    await fleet.set('obs.otelSampling', '0')
    onTestFinished(() => fleet.set('obs.otelSampling', '100'))
    const collector = await startReceiver()
    const running = await working({ collector: collector.url })
    const other = randomBytes(16).toString('hex')
    await ended(await enqueue('demo.two', { how: 'well' }))
    await ended(await enqueue('demo.two', { how: 'well' }, `00-${other}-${parent.spanId}-00`))
    await ended(await enqueue('demo.two', { how: 'well' }, parent.text))
    await running.stop()
    expect(new Set(collector.spans.map(({ traceId }) => traceId))).toEqual(new Set([parent.traceId]))
  })
})
