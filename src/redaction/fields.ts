import { fold } from './fold.ts'

/** What was taken out: the word in `[redacted:…]`. */
export type Kind =
  | 'account'
  | 'address'
  | 'api-key'
  | 'authorization'
  | 'birth-date'
  | 'card'
  | 'cookie'
  | 'credentials'
  | 'document'
  | 'email'
  | 'iban'
  | 'jwt'
  | 'name'
  | 'phone'
  | 'private-key'
  | 'row'
  | 'secret'
  | 'ssn'
  | 'webhook'

export type FieldKind = {
  readonly kind: Kind
  /** The name is also that of a count (`tokens: 512`, `pass: 12`): numbers under it stay. */
  readonly countable: boolean
}

/** By the last word alone. Too short to be looked for inside words: "span" isn't a PAN, "discard" no card. */
const lastWords: ReadonlyMap<string, Kind> = new Map<string, Kind>([
  ['address', 'address'],
  ['bearer', 'authorization'],
  ['card', 'card'],
  ['cdl', 'document'],
  ['csc', 'card'],
  ['cvc', 'card'],
  ['cvv', 'card'],
  ['dob', 'birth-date'],
  ['fax', 'phone'],
  ['iban', 'iban'],
  ['itin', 'ssn'],
  ['jwt', 'jwt'],
  ['mobile', 'phone'],
  ['otp', 'secret'],
  ['pass', 'secret'],
  ['passport', 'document'],
  ['pin', 'secret'],
  ['psw', 'secret'],
  ['pw', 'secret'],
  ['pwd', 'secret'],
  ['ssn', 'ssn'],
  ['street', 'address'],
  ['surname', 'name'],
  ['tel', 'phone'],
  ['totp', 'secret'],
])

/** By the end of the name without its separators, so that `pgpassword`, `accessToken` and `x-api-key` are all met. */
const endings: readonly (readonly [Kind, RegExp])[] = [
  ['private-key', /privatekey$/],
  ['authorization', /(authorization|^auth|authheader|authorizationheader|(basic|proxy|http)auth)$/],
  ['cookie', /cookie$/],
  ['webhook', /webhookurl$/],
  ['email', /(email|emailaddress|mailaddress)$/],
  ['phone', /(phone|(phone|mobile|fax|cell|contact)(number|no|num))$/],
  ['card', /((credit|debit|payment)card|(card|cc)(number|no|num)|securitycode)$/],
  ['ssn', /(socialsecurity|socialsecuritynumber|socialsecurityno|taxid|ssn(number|no|num|last))$/],
  ['account', /((account|acct|routing)(number|no|num)|bankaccount)$/],
  ['iban', /iban(number|no|num)$/],
  ['birth-date', /(dateofbirth|birthdate|birthday)$/],
  ['document', /(passport|licen[cs]e|cdl)(number|no|num)$|driver(s)?licen[cs]e$/],
  [
    'name',
    /((first|last|full|middle|given|family|maiden|customer|contact|driver|recipient|employee|cardholder|accountholder)name)$/,
  ],
  ['address', /(addressline|streetaddress|homeaddress|postaladdress|mailingaddress)$/],
  [
    'secret',
    /(password|passwort|passwd|passphrase|passcode|secret|token|credential|cred|passwordhash|passwordsalt|tokenhash|secretkeybase|(api|secret|access|signing|encryption|master|hmac|auth|anon|role|routing|ssh|account|license|shared)key|(auth|access|verification|recovery|backup|otp)code|session(id|key))$/,
  ],
]

/** Says how the value is written, not what it is. */
const decoration = new Set(
  'value text raw plain clear confirm confirmation confirmed repeat again old new current input string base64 b64 hex pem v'.split(
    ' ',
  ),
)

/** `ip_address` and `rate_card` are a machine's and a price list's. */
const harmless =
  /(^|_)(ip|ipv4|ipv6|mac|bind|listen|server|host|peer|remote|local|network|memory|contract)_address$|(^|_)(rate|score|report|business|sim)_card$/

/** Part of every name that says something; most names are done with this one look. */
const stems =
  /pass|pw|psw|pin|otp|secret|token|cred|key|code|auth|bearer|session|cookie|webhook|mail|phone|mobile|tel|fax|cell|contact|card|cc|cvv|cvc|csc|ssn|itin|social|tax|iban|account|acct|jwt|routing|bank|dob|birth|licen|cdl|name|address|street/i

/** What a field's name says about its value, whatever the spelling: snake, kebab, camel, one word, plural, numbered. */
export function kindOfField(name: string): FieldKind | null {
  // Names are matched at their end; the bound keeps a megabyte of key from costing more than a word.
  // A name that was itself redacted says nothing about its value.
  const folded = fold(name.slice(-200))
    .text.replace(/\[redacted:[a-z-]+\]/g, ' x ')
    .slice(-100)
  if (!stems.test(folded)) return null
  const words = folded
    .replace(/([a-z\d])([A-Z])/g, '$1 $2')
    .replace(/([A-Z])([A-Z][a-z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^a-z\d]+/)
    .map((word) => word.replace(/\d+$/, ''))
    .filter((word) => word !== '')
  while (words.length > 1 && decoration.has(words.at(-1) ?? '')) words.pop()
  const last = words.at(-1)
  if (last === undefined) return null
  for (const singular of [last, last.replace(/s$/, ''), last.replace(/es$/, '')]) {
    const kind = kindOfWords([...words.slice(0, -1), singular])
    if (kind) return { kind, countable: last === 'pass' || (singular !== last && kind === 'secret') }
  }
  return null
}

function kindOfWords(words: readonly string[]): Kind | null {
  if (harmless.test(words.join('_'))) return null
  const joined = words.join('')
  const ending = endings.find(([, pattern]) => pattern.test(joined))
  return ending?.[0] ?? lastWords.get(words.at(-1) ?? '') ?? null
}
