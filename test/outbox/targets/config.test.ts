import { expect, test } from 'vitest'
import { TmsError } from '../../../src/errors.ts'
import { openTarget, targetKinds } from '../../../src/outbox/targets/kinds.ts'

const from = { env: 'TMS_SECRET_A' }
const signed = { url: 'https://h.example/x', keyId: 'k', secretFrom: from }

/** What a person reads about a configuration that doesn't fit. */
function problemOf(kind: string, config: unknown): string {
  try {
    openTarget(kind, config)
  } catch (error) {
    if (!(error instanceof TmsError)) throw error
    expect(error.code).toBe('INPUT_INVALID')
    return `${error.message}\n${error.why}\n${error.next.join('\n')}`
  }
  return 'accepted'
}

test.each([
  ['webhook', signed],
  ['webhook', { ...signed, url: undefined, urlFrom: { file: '/run/secrets/url' } }],
  ['webhook', { ...signed, secretFrom: [from, { env: 'TMS_SECRET_B' }], hosts: ['n8n:5678', '[::1]'] }],
  ['n8n', { ...signed, url: 'https://n8n.example/webhook/abc' }],
  ['slack', { urlFrom: { env: 'SLACK_WEBHOOK_URL' }, traceUrl: 'https://traces.example/{traceId}' }],
  ['http', { url: 'https://h.example/x', body: { a: ['{{payload.a}}'] }, headers: { 'X-Api-Key': { from } } }],
  ['file', { file: 'out.jsonl' }],
])('%s takes %j', (kind, config) => {
  expect(problemOf(kind, config)).toBe('accepted')
})

test.each([
  ['webhook', { ...signed, secretFrom: 'hunter2' }, /secretFrom: takes the place of a secret, never the secret/],
  ['webhook', { ...signed, secret: 'hunter2' }, /secret is not known here\nname the place of the secret/],
  ['webhook', { ...signed, url: 'https://u:hunter2@h.example/' }, /url: must not hold a user or password/],
  ['webhook', { ...signed, url: 'ftp://h.example/hunter2' }, /url: takes an https or http URL/],
  ['webhook', { ...signed, url: 'hunter2' }, /url: is no URL/],
  ['webhook', { ...signed, url: 'https://h.example/#hunter2' }, /fragment/],
  ['webhook', { ...signed, urlFrom: from }, /either url or urlFrom/],
  ['webhook', { keyId: 'k', secretFrom: from }, /either url or urlFrom/],
  ['webhook', { ...signed, hosts: ['*.example'] }, /hosts.0: takes lower-case host names/],
  ['webhook', { ...signed, secretFrom: { file: 'relative/hunter2' } }, /secretFrom/],
  ['slack', { url: 'https://hooks.slack.com/services/hunter2' }, /urlFrom/],
  ['slack', { urlFrom: { env: 'https://hooks.slack.com/services/hunter2' } }, /urlFrom/],
  ['slack', { urlFrom: from, traceUrl: 'https://traces.example/' }, /traceUrl: takes a URL with \{traceId\}/],
  ['http', { url: 'https://h.example', headers: { Authorization: 'Bearer hunter2' } }, /Authorization: holds a secret/],
  [
    'http',
    { url: 'https://h.example', headers: { 'content-length': '1' } },
    /content-length: is a header that tms sets/,
  ],
  ['http', { url: 'https://h.example', headers: { 'a b': 'c' } }, /name of a header/],
  ['http', { url: 'https://h.example', body: '{{secrets.x}}' }, /body: \{\{secrets.x\}\} is not in an event/],
  ['http', { url: 'https://h.example', body: ['{{topic.x}}'] }, /leads nowhere/],
  ['http', { url: 'https://h.example', method: 'GET' }, /method/],
  ['file', {}, /file/],
])('%s says what is wrong with %j and repeats no secret', (kind, config, expected) => {
  const text = problemOf(kind, config)
  expect(text).toMatch(expected)
  expect(text).not.toContain('hunter2')
})

test('what is no object at all is refused by every kind', () => {
  for (const kind of targetKinds) {
    for (const config of [null, undefined, [], 'x', 1]) expect(problemOf(kind, config)).toContain(`a ${kind} target`)
  }
})
