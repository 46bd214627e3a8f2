import { describe, expect, it } from 'vitest'
import { spansIn, startReceiver } from './receiver.ts'
import { parent, task, tracing } from './setup.ts'

/** The bytes of one good request, to break. */
async function goodBody(): Promise<Buffer> {
  const receiver = await startReceiver()
  const tracer = await tracing({ endpoint: receiver.url })
  await tracer.task(task({ traceparent: parent.text }), async () => undefined)
  await tracer.flush()
  const [body] = receiver.bodies
  if (body === undefined) throw new Error('nothing came')
  return body
}

function replaced(body: Buffer, from: Buffer, to: Buffer): Buffer {
  const at = body.indexOf(from)
  if (at < 0) throw new Error(`no ${from.toString('hex')} in it`)
  return Buffer.concat([body.subarray(0, at), to, body.subarray(at + from.length)])
}

/** Field 7, fixed64: start_time_unix_nano. Field 8 follows. */
function times(body: Buffer): { readonly at: number; readonly both: Buffer } {
  for (let at = 0; at + 18 <= body.length; at++) {
    if (body[at] === 0x39 && body[at + 9] === 0x41) return { at, both: body.subarray(at, at + 18) }
  }
  throw new Error('no times in it')
}

describe('the receiver', () => {
  it('takes a request that is in order', async () => {
    expect(spansIn(await goodBody())).toHaveLength(1)
  })

  it('refuses a request that was cut anywhere', async () => {
    const body = await goodBody()
    for (let length = 0; length < body.length; length++) {
      expect(() => spansIn(body.subarray(0, length)), `${length} bytes`).toThrow()
    }
  })

  it('refuses a trace id of 15 bytes, also when all lengths around it fit', async () => {
    const body = await goodBody()
    const id = Buffer.from(parent.traceId, 'hex')
    // An empty string field makes up for the byte, so only the id is wrong.
    const shorter = Buffer.concat([Buffer.from([0x0a, 14]), id.subarray(0, 14), Buffer.from([0x1a, 0])])
    const broken = replaced(body, Buffer.concat([Buffer.from([0x0a, 16]), id]), shorter)
    expect(() => spansIn(broken)).toThrow()
  })

  it('refuses ids of zeros', async () => {
    const body = await goodBody()
    const traceId = replaced(body, Buffer.from(parent.traceId, 'hex'), Buffer.alloc(16))
    expect(() => spansIn(traceId)).toThrow('is no id of 16 bytes')
    const spanId = replaced(body, Buffer.from(parent.spanId, 'hex'), Buffer.alloc(8))
    expect(() => spansIn(spanId)).toThrow('is no id of 8 bytes')
  })

  it('refuses a span that ends before it starts', async () => {
    const body = await goodBody()
    const { at, both } = times(body)
    const broken = Buffer.from(body)
    broken.writeBigUInt64LE(both.readBigUInt64LE(10) + 1n, at + 1)
    expect(() => spansIn(broken)).toThrow('ends before it starts')
  })

  it('refuses a field with the wire type of another', async () => {
    const body = await goodBody()
    const { at } = times(body)
    for (const wireType of [0, 2, 5]) {
      const broken = Buffer.from(body)
      broken[at] = (7 << 3) | wireType
      expect(() => spansIn(broken), `wire type ${wireType}`).toThrow()
    }
  })

  it('refuses a field that the definitions do not know', async () => {
    const unknown = Buffer.from([(15 << 3) | 0, 1])
    const body = await goodBody()
    expect(() => spansIn(Buffer.concat([body, unknown]))).toThrow('not the encoding')
  })

  it('refuses text that is not UTF-8', async () => {
    const broken = replaced(await goodBody(), Buffer.from('acme'), Buffer.from([0x61, 0xff, 0xfe, 0x65]))
    expect(() => spansIn(broken)).toThrow('not the encoding')
  })

  it('refuses another path and another content type', async () => {
    const receiver = await startReceiver()
    const body = new Uint8Array(await goodBody())
    const post = async (path: string, type: string) =>
      (await fetch(receiver.url + path, { method: 'POST', body, headers: { 'content-type': type } })).status
    expect(await post('/v1/traces', 'application/x-protobuf')).toBe(200)
    expect(await post('/v1/traces', 'application/json')).toBe(400)
    expect(await post('/', 'application/x-protobuf')).toBe(400)
  })
})
