import { describe, expect, it } from 'vitest'
import { startReceiver } from './receiver.ts'
import { task, tracing } from './setup.ts'

const secret = 'sk_live_51Hxyzzy'

/** Like the real one in what matters here: texts, names and values, keys too. */
function redact(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll(/sk_live_\w+/g, '[redacted]')
  if (Array.isArray(value)) return value.map(redact)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [redact(key), key === 'password' ? '[redacted]' : redact(item)]),
  )
}

async function sentWith(options: { redact: (value: unknown) => unknown }) {
  const receiver = await startReceiver()
  const tracer = await tracing({ endpoint: receiver.url, serviceName: `worker ${secret}`, ...options })
  const error = Object.assign(new Error(`refused ${secret}`), { name: `Error_${secret}` })
  const work = tracer.task(task({ fn: secret, tenant: `a ${secret}` }), (trace) =>
    trace.span(
      `call ${secret}`,
      { url: `https://x/?k=${secret}`, password: 'hunter2', [secret]: 1, list: ['a', secret] },
      () => Promise.reject(error),
    ),
  )
  await expect(work).rejects.toBe(error)
  await tracer.flush()
  return { receiver, tracer, raw: Buffer.concat(receiver.bodies).toString('latin1') }
}

describe('what is exported', () => {
  it('has no secret anywhere in its bytes', async () => {
    const { receiver, raw } = await sentWith({ redact })
    expect(receiver.refusals).toEqual([])
    expect(receiver.spans).toHaveLength(2)
    expect(raw).not.toContain(secret)
    expect(raw).not.toContain('hunter2')
    expect(receiver.spans[0]?.status.message).toBe('refused [redacted]')
    expect(receiver.spans[0]?.attributes).toMatchObject({ password: '[redacted]', list: ['a', '[redacted]'] })
  })

  it('has them all without redaction, so the test above would have seen one', async () => {
    const { raw } = await sentWith({ redact: (value) => value })
    expect(raw.split(secret).length).toBeGreaterThan(12)
    expect(raw).toContain('hunter2')
  })

  it.each([
    ['throws', () => bad()],
    ['answers with something else', () => 7],
    ['answers with more than it was given', () => ({ a: secret, b: secret })],
  ])('has nothing that redaction did not clear, when redaction %s', async (_how, broken) => {
    const { receiver, tracer, raw } = await sentWith({ redact: broken })
    expect(receiver.refusals).toEqual([])
    expect(raw).not.toContain(secret)
    expect(raw).not.toContain('hunter2')
    expect(receiver.spans[0]?.name).toBe('[unreadable]')
    expect(tracer.exported()).toEqual({ spans: 2, failed: 0, dropped: 0 })
  })

  it('is cut after redaction, so half a secret does not slip through', async () => {
    const receiver = await startReceiver()
    const tracer = await tracing({ endpoint: receiver.url, redact })
    const long = `${'x'.repeat(4090)} ${secret} ${'y'.repeat(5000)}`
    await tracer.task(task(), async (trace) => trace.span('long', { long }, async () => undefined))
    await tracer.flush()
    const sent = receiver.spans[0]?.attributes['long']
    expect(sent).toMatch(/^x{4090} \[reda… \(\d+ more\)$/)
  })
})

function bad(): never {
  throw new Error('redaction is broken')
}
