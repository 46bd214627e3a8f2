import * as z from 'zod'
import { redact, redactText } from '../redaction/redact.ts'
import { settingsTable, type SettingName, type SettingRow } from './settings.ts'

const mask = '********'

/** Query parameters of connection URLs that are credentials. */
const secretParameter = /^(password|passwd|sslpassword|apikey|api_key|key|token|secret)$/i

/** The parts of a setting's value that nobody may read over a shoulder. */
export function secretsIn(name: SettingName, value: string | number): string[] {
  const row: SettingRow = settingsTable[name]
  if (row.secret === undefined || typeof value === 'number') return []
  // a key in PEM is secret in its middle line alone
  if (row.secret === 'whole') return [value, ...(value.match(/[A-Za-z0-9+/=]{40,}/g) ?? [])]
  if (row.secret === 'template') {
    const bare = partsOf(value).map((part) => part.replaceAll(place, ''))
    return bare.flatMap((part) => takenOut(part, redactText(part)))
  }
  if (row.secret === 'words') {
    const words = wordsOf(value)
    return maskedWords(words).flatMap((shown, at) => takenOut(words[at] ?? '', shown))
  }
  const url = parseUrl(value)
  if (!url) return [value]
  const parameters = [...url.searchParams].filter(([key]) => secretParameter.test(key)).map(([, text]) => text)
  return [url.password, decoded(url.password), ...parameters].filter((text) => text !== '')
}

export function hasSecret(name: SettingName, value: string | number): boolean {
  return secretsIn(name, value).length > 0
}

/** The value as it may be shown. */
export function masked(name: SettingName, value: string | number): string | number {
  const row: SettingRow = settingsTable[name]
  if (row.secret === undefined || typeof value === 'number') return value
  if (row.secret === 'template') return partsOf(value).map(maskedPart).join('')
  if (row.secret === 'words') return JSON.stringify(maskedWords(wordsOf(value)))
  const url = row.secret === 'url' ? parseUrl(value) : null
  if (!url) return mask
  if (url.password) url.password = mask
  for (const key of [...url.searchParams.keys()]) {
    if (secretParameter.test(key)) url.searchParams.set(key, mask)
  }
  return url.toString()
}

const wordList = z.array(z.string())

function wordsOf(value: string): string[] {
  return wordList.parse(JSON.parse(value))
}

/** One for each word, however long: `--pin` says what the word behind it is. */
function maskedWords(words: readonly string[]): string[] {
  return wordList
    .parse(redact(words, { limit: Number.MAX_SAFE_INTEGER }))
    .map((word, at) => maskedLogin(word, words[at - 1]))
}

/** `-u name:password`, as curl and others take it, in two words or one. */
function maskedLogin(word: string, before: string | undefined): string {
  const option = /^(-u|--user=)/.exec(word)?.[0] ?? ''
  const colon = word.indexOf(':', option.length)
  const isLogin = option !== '' || before === '-u' || before === '--user'
  return isLogin && colon !== -1 ? `${word.slice(0, colon + 1)}[redacted:password]` : word
}

const place = '{traceId}'

/** Parameter by parameter: a value ends where the next one begins. */
function partsOf(template: string): string[] {
  const query = template.search(/[?#]/)
  const end = query === -1 ? template.length : query
  return [template.slice(0, end), ...template.slice(end).split(/(?=[&#])/)]
}

/** What is filled in later stays readable; a secret around it is found only without it. */
function maskedPart(part: string): string {
  const shown = part.split(place).map(redactText).join(place)
  const bare = shown.replaceAll(place, '')
  const safe = redactText(bare)
  return safe === bare ? shown : safe + place
}

/** The stretches of the text that a redaction took out. */
function takenOut(text: string, shown: string): string[] {
  const left = shown.split(/\[redacted:[a-z-]+\]/)
  let from = left[0]?.length ?? 0
  return left.slice(1).map((piece, at) => {
    const isLast = at === left.length - 2
    const to = isLast ? text.length - piece.length : text.indexOf(piece, from + 1)
    const taken = text.slice(from, to)
    from = to + piece.length
    return taken
  })
}

function parseUrl(text: string): URL | null {
  return URL.canParse(text) ? new URL(text) : null
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
