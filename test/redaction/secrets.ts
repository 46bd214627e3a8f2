import * as fc from 'fast-check'

/** Made-up secrets of each class, and things that look like some and are none. */

export type Planted = { readonly kind: string; readonly secret: string; readonly text: string }

const from = (alphabet: string, minLength: number, maxLength = minLength) =>
  fc.string({ unit: fc.constantFrom(...alphabet.split('')), minLength, maxLength })
const lower = 'abcdefghijklmnopqrstuvwxyz'
const digits = '0123456789'
const upper = lower.toUpperCase()
const base64url = `${lower}${upper}${digits}-_`
const word = from(`${lower}${upper}${digits}`, 20, 40)
const hex = '0123456789abcdef'

/** Secrets that are known by their looks; `text` is how each stands in a sentence, when that isn't the bare secret. */
const bare = (kind: string, secret: fc.Arbitrary<string>): fc.Arbitrary<Planted> =>
  secret.map((it) => ({ kind, secret: it, text: it }))
const within = (kind: string, secret: fc.Arbitrary<string>, before: string[], after = ['']): fc.Arbitrary<Planted> =>
  fc
    .tuple(secret, fc.constantFrom(...before), fc.constantFrom(...after))
    .map(([it, head, tail]) => ({ kind, secret: it, text: head + it + tail }))

const email = fc
  .tuple(
    from(`${lower}${digits}`, 1, 12),
    from(`${lower}${digits}._+-`, 0, 8),
    from(lower, 1),
    from(lower, 2, 12),
    fc.constantFrom('com', 'co.uk', 'io', 'museum', 'xn--p1ai'),
  )
  .map(([first, middle, last, host, tld]) => `${first}${middle}${last}@${host}.${tld}`)

const nanp = fc
  .tuple(from('23456789', 1), from(digits, 2), from('23456789', 1), from(digits, 2), from(digits, 4))
  .map(([a, b, c, d, e]) => [a + b, c + d, e] as const)
const phone = fc.oneof(
  fc
    .tuple(
      nanp,
      fc.constantFrom('(A) B-C', '(A)B-C', 'A-B-C', 'A.B.C', 'A B C', '1-A-B-C', '+1 A B C', '+1ABC', '+1 (A) B-C'),
    )
    .map(([[area, exchange, line], form]) =>
      form.replace(/[ABC]/g, (letter) => (letter === 'A' ? area : letter === 'B' ? exchange : line)),
    ),
  fc
    .tuple(
      fc.constantFrom('44', '49', '33', '52', '353', '86'),
      from(digits, 2, 3),
      from(digits, 3, 4),
      from(digits, 3, 4),
    )
    .chain(([country, ...rest]) => fc.constantFrom('', ' ', '-', '.').map((gap) => `+${[country, ...rest].join(gap)}`)),
)

function withLuhn(body: string): string {
  for (let check = 0; check < 10; check += 1) {
    const all = Array.from(`${body}${check}`, Number).reverse()
    const sum = all.reduce((total, digit, place) => {
      const doubled = place % 2 === 1 ? digit * 2 : digit
      return total + (doubled > 9 ? doubled - 9 : doubled)
    }, 0)
    if (sum % 10 === 0) return `${body}${check}`
  }
  return body
}

const networks: readonly (readonly [string, number])[] = [
  ['4', 13],
  ['4', 16],
  ['4', 19],
  ['51', 16],
  ['55', 16],
  ['2221', 16],
  ['2720', 16],
  ['34', 15],
  ['37', 15],
  ['36', 14],
  ['6011', 16],
  ['65', 16],
  ['3528', 16],
  ['62', 17],
  ['5018', 16],
]
export const card = fc
  .constantFrom(...networks)
  .chain(([head, length]) => from(digits, length - head.length - 1).map((body) => withLuhn(head + body)))
const cardAsWritten = fc.tuple(card, fc.constantFrom('', ' ', '-', '.', '/', '_')).map(([number, gap]) => {
  const groups = number.length === 15 ? /^(\d{4})(\d{6})(\d{5})$/ : /(\d{4})(?=\d)/g
  return number.length === 15 ? number.replace(groups, `$1${gap}$2${gap}$3`) : number.replace(groups, `$1${gap}`)
})

const ssn = fc
  .tuple(fc.integer({ min: 1, max: 899 }), fc.integer({ min: 1, max: 99 }), fc.integer({ min: 1, max: 9999 }))
  .filter(([area]) => area !== 666)
  .map(([a, b, c]) => `${String(a).padStart(3, '0')}-${String(b).padStart(2, '0')}-${String(c).padStart(4, '0')}`)

function withCheckDigits(country: string, account: string): string {
  const number = `${account}${country}00`.replace(/[A-Z]/g, (letter) => String(parseInt(letter, 36)))
  return `${country}${String(98n - (BigInt(number) % 97n)).padStart(2, '0')}${account}`
}
const iban = fc
  .tuple(
    fc.oneof(
      from(digits, 18).map((account) => withCheckDigits('DE', account)),
      fc.tuple(from(upper, 4), from(digits, 14)).map(([bank, rest]) => withCheckDigits('GB', bank + rest)),
      from(digits, 12).map((account) => withCheckDigits('BE', account)),
    ),
    fc.boolean(),
  )
  .map(([compact, spaced]) => (spaced ? compact.replace(/(.{4})(?=.)/g, '$1 ') : compact))

const apiKey = fc.oneof(
  word.map((it) => `sk_live_${it}`),
  word.map((it) => `sk-proj-1${it}`),
  word.map((it) => `xoxb-${it}`),
  from(`${lower}${digits}`, 36).map((it) => `ghp_${it}`),
  from(`${lower}${digits}_`, 60).map((it) => `github_pat_${it}`),
  from(`${upper}${digits}`, 16).map((it) => `AKIA${it}`),
  from(base64url, 35).map((it) => `AIza${it}`),
  from(base64url, 20).map((it) => `glpat-${it}`),
  from(`${lower}${upper}${digits}`, 36).map((it) => `npm_${it}`),
  from(base64url, 22, 43).map((it) => `tms-override-${it}`),
)

const base64 = (text: string) => Buffer.from(text).toString('base64url')
const jwt = fc
  .tuple(fc.constantFrom('HS256', 'RS256', 'EdDSA'), fc.uuid(), from(base64url, 20, 86))
  .map(([alg, sub, signature]) => `${base64(JSON.stringify({ alg }))}.${base64(JSON.stringify({ sub }))}.${signature}`)

const pem = fc
  .tuple(
    fc.constantFrom('PRIVATE KEY', 'RSA PRIVATE KEY', 'ENCRYPTED PRIVATE KEY'),
    fc.array(from(`${lower}${upper}${digits}+/`, 64), { minLength: 1, maxLength: 4 }),
    fc.constantFrom('\n', '\\n', '\r\n'),
  )
  .map(([label, lines, gap]) => ({
    kind: 'private-key',
    secret: lines[0] ?? '',
    text: [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`].join(gap),
  }))

/** Two classes of characters in each, so that it isn't a word of the sentence around it. */
const password = fc
  .tuple(from(upper, 2), from(`${lower}${upper}${digits}!#$%*+-_`, 6, 20), from(digits, 2))
  .map(([a, b, c]) => a + b + c)

const inText: readonly fc.Arbitrary<Planted>[] = [
  bare('email', email),
  bare('phone', phone),
  bare('card', cardAsWritten),
  bare('ssn', ssn),
  bare('iban', iban),
  bare('api-key', apiKey),
  bare('jwt', jwt),
  pem,
  within('bearer', from(base64url, 24, 60), ['Bearer ', 'Authorization: Bearer ', 'bearer ']),
  within(
    'basic',
    password.map((it) => Buffer.from(`user:${it}`).toString('base64')),
    ['Authorization: Basic ', 'Basic '],
  ),
  within(
    'url',
    password.map(encodeURIComponent),
    ['postgres://tms:', 'https://ann:', 'redis://:'],
    ['@db.example:5432/x'],
  ),
  within('assignment', password, ['password=', 'token: ', 'api_key=', 'secret=', 'PGPASSWORD=', 'X-Api-Key: ']),
  within('json', password, ['{"password":"', '{"x":{"api_key": "'], ['"}', '","n":1}']),
  within('json in json', password, ['{\\"clientSecret\\":\\"'], ['\\"}']),
  within('python', password, ["{'token': '"], ["'}"]),
  within('query', word, ['https://x.example/y?token=', 'https://x.example/y?a=1&api_key='], ['&z=1', '']),
  within('webhook', word, ['https://hooks.slack.com/services/T012AB/B345CD/', 'https://discord.com/api/webhooks/123/']),
]
export const planted: fc.Arbitrary<Planted> = fc.oneof(...inText)

/** What may stand directly before and after a secret in a sentence. */
export const around = fc.tuple(
  fc.constantFrom('', ' ', '(', '"', ' <', '\n', 'x=', ', ', '[', 'for: ', '|', 'to_'),
  fc.constantFrom('', ' ', ')', '",', '>', '\n', ', next', ']', '. Then', '|', ';'),
)

const digest = fc.constantFrom(16, 32, 40, 64).chain((length) => from(hex, length - 2).map((it) => `a${it}9`))
const date = fc.date({ min: new Date('2001-01-01'), max: new Date('2059-12-31'), noInvalidDate: true })

/** What an incident is read by: it must come out as it went in. */
export const harmless = fc.oneof(
  fc.uuid(),
  date.map((it) => it.toISOString()),
  date.map((it) => it.toISOString().replace('T', ' ').replace('Z', '123+00')),
  date.map((it) => String(it.getTime())),
  date.map((it) => `${String(it.getTime())}${String(it.getTime() % 1000).padStart(3, '0')}`).filter((it) => it < '2'),
  fc.integer({ min: 1, max: 999_999_999 }).map((it) => `task ${it}`),
  fc.integer({ min: 1, max: 9_999_999 }).map((it) => `LD-2024-${it}`),
  digest,
  fc.tuple(from(hex, 32), from(hex, 16)).map(([trace, span]) => `00-${trace}-${span}-01`),
  fc
    .tuple(fc.integer({ min: 0, max: 9_999_999 }), from(digits, 2))
    .map(([whole, cents]) => `$${whole.toLocaleString('en-US')}.${cents}`),
  fc.integer({ min: 0, max: 99_999 }).map((it) => `${it}.50 USD`),
  // A tenant of letters that no name of a secret is made of alone.
  fc.tuple(from('bdfghjlmqruvxyz', 3, 10), from(lower, 3, 10)).map(([a, b]) => `flags:tenant-key-${a}:${b}`),
  fc.constantFrom(
    'duplicate key value violates unique constraint "agent_tasks_pkey"',
    'Key (company_id, load_number)=(9f1c, LD-2024-001) already exists.',
    'null value in column "email" of relation "users" violates not-null constraint',
    'invalid input syntax for type uuid: "abc"',
    'syntax error at or near "token"',
    'password authentication failed for user "tms_worker"',
    'canceling statement due to statement timeout',
    'connect ECONNREFUSED 127.0.0.1:5432',
    'Bearer authentication is required',
    'WWW-Authenticate: Bearer realm="tms"',
    'tokens: 512, max_tokens=4096',
    'at Object.<anonymous> (/srv/tms/src/flags/flags.ts:12:34)',
    'postgres 15.20 on host db-1.internal:5432',
    'https://x.example/loads/123?page=2&sort=key',
    'role tms_worker@localhost',
    '+05:30 and -12.5 and +1.25',
    'tms flags set autonomy.mode FULL --reason "x"',
  ),
)
