import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { fileTarget, type OpenFile } from '../../../src/outbox/targets/file.ts'
import { openTarget, targetKinds } from '../../../src/outbox/targets/kinds.ts'
import type { Context, Event, Outcome, Secrets } from '../../../src/outbox/targets/target.ts'
import {
  aContext,
  anEvent,
  answer,
  apiToken,
  checkApi,
  checkN8n,
  checkSigned,
  hang,
  receiver,
  resetAnswer,
  resetRequest,
  signingSecret,
  type Receiver,
} from './receivers.ts'
import { checkPagerduty, routingKey } from '../../notify/pagerduty-server.ts'
import { checkSlack, slackPath } from '../../notify/slack-server.ts'

/** What every kind of target must do, whatever it talks to. */

type Trouble = 'nothing' | 'refuses' | 'hangs' | 'resets while it is sent' | 'resets in its answer'

/** A kind of target with a receiver that is real enough to be delivered to and to fail. */
type Subject = {
  send(event: Event, change?: Partial<Context>): Promise<Outcome>
  /** The delivery ids as the receiver finds them in what it accepted. */
  arrived(): readonly string[]
  trouble(kind: Trouble): void
  /** What must never get into an outcome. */
  readonly secret: readonly string[]
}

const subjects: Record<string, () => Promise<Subject>> = {
  webhook: () =>
    overHttp('webhook', checkSigned, (url) => ({ url: `${url}/hooks/path-token-31?a=b`, ...signing }), 410),
  n8n: () => overHttp('n8n', checkN8n, (url) => ({ url: `${url}/webhook/path-token-31`, ...signing }), 403),
  http: () =>
    overHttp(
      'http',
      checkApi,
      (url) => ({
        url: `${url}/loads/path-token-31`,
        hosts,
        method: 'PUT',
        headers: { authorization: { from: { env: 'API' }, prefix: 'Bearer ' } },
        body: { ref: '{{deliveryId}}', deliveryId: '{{deliveryId}}', stops: '{{payload.load.stops}}' },
      }),
      422,
    ),
  slack: () => overHttp('slack', checkSlack, () => ({ urlFrom: { env: 'SLACK' }, hosts }), 403, 'action_prohibited'),
  pagerduty: () =>
    overHttp('pagerduty', acceptPage, (url) => ({ routingKeyFrom: { env: 'PAGER' }, baseUrl: url, hosts }), 403),
  file: intoFile,
}

/** What it checks of an event is in test/notify. */
const acceptPage: Parameters<typeof receiver>[0] = (received, method) => {
  const checked = checkPagerduty(received, method)
  return 'event' in checked ? [202, JSON.stringify({ status: 'success' })] : checked.answer
}

const hosts = ['127.0.0.1']
const signing = { hosts, keyId: 'tms', secretFrom: { env: 'SIGNING' } }

async function overHttp(
  kind: string,
  check: Parameters<typeof receiver>[0],
  config: (url: string) => unknown,
  refusal: number,
  refusalText = '',
): Promise<Subject> {
  const there: Receiver = await receiver(check)
  const values: Record<string, string> = {
    SIGNING: signingSecret,
    API: apiToken,
    SLACK: there.url + slackPath,
    PAGER: routingKey,
  }
  const secrets: Secrets = async (source) => ('env' in source ? (values[source.env] ?? '') : '')
  const target = openTarget(kind, config(there.url))
  return {
    send: (event, change) => target.send(secrets, event, aContext(change)),
    arrived: () => there.received.map(({ body }) => idIn(body)),
    trouble(trouble) {
      there.misbehave = {
        nothing: null,
        // A refusal that repeats everything it was sent, as debug pages do.
        refuses: answer(refusal, {}, refusalText || `${signingSecret} ${apiToken} path-token-31`),
        hangs: hang,
        'resets while it is sent': resetRequest,
        'resets in its answer': resetAnswer,
      }[trouble]
    },
    secret: [signingSecret, apiToken, 'path-token-31', 'slack-path-secret-77', routingKey, there.url],
  }
}

async function intoFile(): Promise<Subject> {
  const folder = mkdtempSync(join(tmpdir(), 'outbox-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'events.jsonl')
  let openFile: OpenFile = open
  const target = fileTarget((...args) => openFile(...args))
  const config = target.parseConfig({ file: 'events.jsonl' })
  return {
    send: (event, change) => target.send(config, async () => '', event, aContext({ folder, ...change })),
    arrived: () => readFileSync(path, 'utf8').split('\n').map(idIn).filter(Boolean),
    trouble(trouble) {
      if (trouble === 'nothing') openFile = open
      else if (trouble === 'refuses') symlinkSync('/etc/hostname', path)
      else if (trouble === 'hangs') openFile = () => new Promise(() => undefined)
      else openFile = async (...args) => takesHalf(await open(...args))
    },
    secret: [folder],
  }
}

/** A disk that is full in the middle of a line. */
function takesHalf(handle: FileHandle): FileHandle {
  return new Proxy(handle, {
    get(real, name) {
      if (name === 'write') return (line: Buffer) => real.write(line.subarray(0, line.length / 2))
      const value: unknown = Reflect.get(real, name, real)
      return typeof value === 'function' ? (value.bind(real) as unknown) : value
    },
  })
}

/** The delivery id wherever the kind puts it; nothing in what is no JSON. */
function idIn(body: string): string {
  try {
    const read: Record<string, unknown> = JSON.parse(body)
    if (typeof read.deliveryId === 'string') return read.deliveryId
  } catch {
    return ''
  }
  // PagerDuty has no place for it: the event's own id is what makes a repeat the same alert.
  if (body.includes(`"dedup_key":"${anEvent().topic}:${anEvent().id}"`)) return anEvent().deliveryId
  return /delivery ([0-9a-f-]{36})/.exec(body)?.[1] ?? ''
}

test('every kind is tested here', () => {
  expect(Object.keys(subjects).sort()).toEqual([...targetKinds].sort())
})

describe.each(Object.entries(subjects))('a target of kind %s', (_, make) => {
  /** Sends, and looks for secrets in whatever comes out. */
  async function attempt(subject: Subject, event: Event, change?: Partial<Context>): Promise<Outcome> {
    const outcome = await subject.send(event, change)
    for (const secret of subject.secret) expect(JSON.stringify(outcome)).not.toContain(secret)
    return outcome
  }

  test('delivers an event to a receiver that checks what it gets', async () => {
    const subject = await make()
    expect(await attempt(subject, anEvent())).toMatchObject({ kind: 'delivered' })
    expect(subject.arrived()).toEqual([anEvent().deliveryId])
  })

  test('delivers again under the same id', async () => {
    const subject = await make()
    await attempt(subject, anEvent())
    expect(await attempt(subject, anEvent({ attempt: 2 }))).toMatchObject({ kind: 'delivered' })
    expect(subject.arrived()).toEqual([anEvent().deliveryId, anEvent().deliveryId])
  })

  test('gives up after its time and tries later', async () => {
    const subject = await make()
    subject.trouble('hangs')
    const outcome = await attempt(subject, anEvent(), { timeoutMs: 60 })
    expect(outcome).toMatchObject({ kind: 'retry', why: expect.stringContaining('60 ms') })
  })

  test('does not try again what the receiver refuses', async () => {
    const subject = await make()
    subject.trouble('refuses')
    expect(await attempt(subject, anEvent())).toMatchObject({ kind: 'rejected' })
  })

  test.each(['resets while it is sent', 'resets in its answer'] as const)(
    'tries again when the other side %s, because nobody knows what it did',
    async (trouble) => {
      const subject = await make()
      subject.trouble(trouble)
      expect(
        await attempt(subject, anEvent({ payload: { text: 'x'.repeat(100_000), load: { stops: [] } } })),
      ).toMatchObject({
        kind: 'retry',
      })
    },
  )

  test('stops when the worker stops, and may be tried again', async () => {
    const subject = await make()
    subject.trouble('hangs')
    const stop = new AbortController()
    const outcome = attempt(subject, anEvent(), { signal: stop.signal })
    stop.abort()
    expect(await outcome).toMatchObject({ kind: 'retry', why: expect.stringContaining('stopped') })
  })

  test('sends nothing when the worker was stopped before', async () => {
    const subject = await make()
    await attempt(subject, anEvent())
    const outcome = await attempt(subject, anEvent({ attempt: 2 }), { signal: AbortSignal.abort() })
    expect(outcome).toMatchObject({ kind: 'retry', why: expect.stringContaining('stopped') })
    expect(subject.arrived()).toHaveLength(1)
  })

  test('delivers after the trouble is over', async () => {
    const subject = await make()
    subject.trouble('resets in its answer')
    await attempt(subject, anEvent())
    subject.trouble('nothing')
    expect(await attempt(subject, anEvent({ attempt: 2 }))).toMatchObject({ kind: 'delivered' })
    expect(subject.arrived()).toEqual([anEvent().deliveryId])
  })
})

test('an unknown kind is refused with the list of those there are', () => {
  expect(() => openTarget('pigeon', {})).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }))
  expect(() => openTarget('__proto__', {})).toThrow(/no such kind/)
})

test('a folder in place of the file is refused', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'outbox-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'events.jsonl'))
  const outcome = await openTarget('file', { file: 'events.jsonl' }).send(
    async () => '',
    anEvent(),
    aContext({ folder }),
  )
  expect(outcome).toMatchObject({ kind: 'rejected' })
})
