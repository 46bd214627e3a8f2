import { kindOfField, type FieldKind, type Kind } from './fields.ts'
import { findIbans, findNumbers, type Add } from './numbers.ts'

export type Span = { readonly start: number; readonly end: number; readonly kind: Kind }

const marker = /^\[redacted:[a-z-]+\]$/
const longestMarker = '[redacted:authorization]'.length

export function isMarker(text: string): boolean {
  return text.length <= longestMarker && marker.test(text)
}

/**
 * Where the secrets of a text are, sorted and apart. Where finders overlap the earlier finder names the kind, and the
 * whole stretch goes. Each is linear in the length of the text, on hostile texts too: it scans forward by hand, or with
 * expressions whose repeats are bounded or can't fail behind the repeat. Nothing looks back without a bound.
 */
export function findSecrets(text: string): readonly Span[] {
  const found: (Span & { readonly rank: number })[] = []
  const add: Add = (start, end, kind) => {
    if (end <= start || (end - start <= longestMarker && isMarker(text.slice(start, end)))) return
    found.push({ start, end, kind, rank: found.length })
  }
  findPrivateKeys(text, add)
  findWebhooks(text, add)
  const hosts = findUrlCredentials(text, add)
  findJwts(text, add)
  findApiKeys(text, add)
  findAssignments(text, add)
  findPairs(text, add)
  findYamlPairs(text, add)
  findOtherForms(text, add)
  findLogins(text, add)
  findAuthorization(text, add)
  findEmails(text, hosts, add)
  if (/\d/.test(text)) {
    const plain = withoutIdentifiers(text)
    findIbans(plain, add)
    findNumbers(plain, add)
  }
  found.sort((a, b) => a.start - b.start || b.end - a.end)
  const spans: (Span & { rank: number })[] = []
  for (const span of found) {
    const last = spans.at(-1)
    if (last && span.start < last.end) {
      const first = span.rank < last.rank ? span : last
      spans[spans.length - 1] = { ...first, start: last.start, end: Math.max(last.end, span.end) }
    } else spans.push(span)
  }
  return spans
}

/** Also with its line ends written as \n, and without its end: a key that was cut is still most of a key. */
function findPrivateKeys(text: string, add: Add): void {
  const begin = '-----BEGIN '
  const stillKey = /[A-Za-z0-9+/=\s\\:,.-]*/y
  let endsAhead = true
  let at = text.indexOf(begin)
  while (at !== -1) {
    const end: number = endsAhead ? text.indexOf('-----END ', at) : -1
    endsAhead = end !== -1
    const close = endsAhead ? text.indexOf('-----', end + 9) : -1
    let stop = close + 5
    if (close === -1) {
      stillKey.lastIndex = at
      stillKey.test(text)
      stop = stillKey.lastIndex
    }
    add(at, stop, 'private-key')
    at = text.indexOf(begin, stop)
  }
}

const webhook =
  /(?:hooks\.slack\.com\/(?:services|workflows|triggers|commands)\/|discord(?:app)?\.com\/api\/(?:v\d{1,2}\/)?webhooks\/|hooks\.zapier\.com\/hooks\/|\.webhook\.office\.com\/webhookb?2?\/|api\.telegram\.org\/bot)(?=[\w%])/gi

function findWebhooks(text: string, add: Add): void {
  if (!text.includes('/')) return
  const path = /[\w\-/.+=~%:@?&]+/y
  webhook.lastIndex = 0
  for (let match = webhook.exec(text); match; match = webhook.exec(text)) {
    const start = webhook.lastIndex
    path.lastIndex = start
    path.test(text)
    add(start, path.lastIndex, 'webhook')
    webhook.lastIndex = path.lastIndex
  }
}

/** `://`, also with its slashes escaped as JSON may, and percent-encoded, as often as may be. */
const urlSign = /(?::|%(?:25){0,4}3A)(?:\\?\/|%(?:25){0,4}2F){2}/gi
const urlEnd = new RegExp(`[\\s"'\`<>]|${urlSign.source}`, 'gi')
/** Within a parameter the next parameter ends it. */
const parameterEnd = new RegExp(`&|${urlEnd.source}`, 'gi')

/**
 * `scheme://user:password@host`: who and with what goes, where to stays. Returns where the hosts' `@` are.
 */
function findUrlCredentials(text: string, add: Add): ReadonlySet<number> {
  const hosts = new Set<number>()
  for (const { 0: sign, index: at } of text.matchAll(urlSign)) {
    const start = at + sign.length
    // People write / and # unescaped into database passwords; in web addresses these end the host.
    const web = /(?:https?|wss?|ftp)$/i.test(text.slice(Math.max(0, at - 5), at))
    const encoded = sign.includes('%')
    const end = encoded ? parameterEnd : urlEnd
    end.lastIndex = start
    const whole = text.slice(start, end.exec(text)?.index ?? text.length)
    const length = encoded ? encodedUser(whole, web) : user(whole, web)
    if (length < 0) continue
    add(start, start + length, 'credentials')
    hosts.add(start + length)
  }
  return hosts
}

/** How long what stands before the host's `@` is. */
function user(whole: string, web: boolean): number {
  const authority = /^[^/?#\\]*/.exec(whole)?.[0] ?? ''
  // Behind a colon that begins no port there is a password, with a slash in it.
  const cut = web ? !authority.includes('@') && /^[^[].*:(?!\d*$)/.test(authority) : authority.includes(':')
  const query = whole.search(/\?[\w.-]+=/)
  return (cut ? whole.slice(0, query === -1 ? whole.length : query) : authority).lastIndexOf('@')
}

/** The same where `/`, `:`, `?` and `@` are percent-encoded, or some of them. */
function encodedUser(whole: string, web: boolean): number {
  const authority = before(whole, /[/?#\\]|%(?:25){0,4}(?:2F|3F|23)/i)
  const colon = web ? /(?:.:|%(?:25){0,4}3A)(?!\d{0,5}$)/i : /:|%(?:25){0,4}3A/i
  const cut = colon.test(authority) && !(web && sign.test(authority))
  let last = -1
  for (const { index } of (cut ? before(whole, /(?:\?|%(?:25){0,4}3F)[\w.-]/i) : authority).matchAll(signs))
    last = index
  return last
}

const sign = /@|%(?:25){0,4}40/
const signs = new RegExp(sign.source, 'g')

function before(text: string, end: RegExp): string {
  const at = text.search(end)
  return at === -1 ? text : text.slice(0, at)
}

function findJwts(text: string, add: Add): void {
  const run = /[\w-]+/y
  const rest = /(?:\.[\w-]+){1,4}\.?/y
  for (let at = text.indexOf('ey'); at !== -1; at = text.indexOf('ey', at)) {
    run.lastIndex = at
    run.test(text)
    const end = run.lastIndex
    // The header is a JSON object, `{"` or `{ ` in base64. Whatever begins later in the same run ends with it.
    const header = /ey[JA][\w-]{8}/.exec(text.slice(at, end))
    if (header && text[end] === '.') {
      rest.lastIndex = end
      if (rest.test(text)) {
        add(at + header.index, rest.lastIndex, 'jwt')
        at = rest.lastIndex
        continue
      }
    }
    at = end
  }
}

const apiKey =
  /[sprk]k_(?:live|test)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=_-]{16,}|(?<![A-Za-z0-9])sk-[\w-]{16,}|xox[a-z](?:\.xox[a-z])?-[\w-]{10,}|xapp-[\w-]{10,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}|gl(?:pat|dt|rt|cbt|ptt|agent)-[\w-]{16,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{20,}|hf_[A-Za-z0-9]{24,}|dop_v1_[a-f0-9]{32,}|sb(?:p|_secret)_\w{20,}|AGE-SECRET-KEY-1[A-Z0-9]{30,}|(?<!\d)\d{8,10}:AA[\w-]{30,}|tms-override-[\w.~+/=-]{6,}/g

function findApiKeys(text: string, add: Add): void {
  for (const { 0: key, index } of text.matchAll(apiKey)) {
    // "sk-" is also how words end up in file names; a key holds digits.
    if (key.startsWith('sk-') && !/\d/.test(key)) continue
    add(index, index + key.length, 'api-key')
  }
}

/** Names whose value in running text is taken only when it looks like one: "address: unknown host" is an error message. */
const numeric: ReadonlySet<Kind> = new Set<Kind>(['account', 'birth-date', 'card', 'document', 'iban', 'phone', 'ssn'])
const wordy: ReadonlySet<Kind> = new Set<Kind>(['address', 'email', 'name'])

/** Behind the name of a number its digits begin within this. */
const nearby = 64

const parameterOfSecret = /^(?:sig|signature|key|x-amz-signature|x-amz-credential|x-goog-signature|sas|pass)$/i
const nothing = /^(?:null|undefined|true|false|nil|none|yes|no|\*+)$/i

/** `password=…`, `"token": "…"`, `Key (ssn)=(…)`, `?sig=…`, `Cookie: …`: the name decides. */
function findAssignments(text: string, add: Add): void {
  const sign = /[=:]/g
  for (let match = sign.exec(text); match; match = sign.exec(text)) {
    const at = match.index
    const named = nameBefore(text, at)
    if (!named) continue
    const { field, start, quoted, tuple } = named
    // "://" and "::" assign nothing; ":=", "==" and "=>" do.
    const skip = /(?::(?!:|\/\/)[=]?|=[=>]{0,2})[ \t]{0,4}(?:\r?\n[ \t]{0,40}(?=["'{[]))?/y
    skip.lastIndex = at
    if (!skip.test(text)) continue
    const value = readValue(text, skip.lastIndex, { field, quoted, tuple, before: text[start - 1] ?? '' })
    if (!value) continue
    add(value.start, value.end, field.kind)
    sign.lastIndex = Math.max(value.end, at + 1)
  }
}

/** Letters, digits and `_ . - [ ]`. Asked for each character before each colon, so not by an expression. */
function isNameCharacter(code: number): boolean {
  if (code < 58) return code > 47 || code === 45 || code === 46
  return (code > 64 && code < 92) || code === 93 || code === 95 || (code > 96 && code < 123)
}

type Named = { readonly field: FieldKind; readonly start: number; readonly quoted: boolean; readonly tuple: boolean }

function nameBefore(text: string, sign: number): Named | null {
  let end = sign
  while (sign - end < 4 && (text[end - 1] === ' ' || text[end - 1] === '\t')) end -= 1
  const last = text[end - 1]
  if (last === undefined) return null
  if (last === ')' && text[sign] === '=') {
    const columns = text.slice(Math.max(0, end - 300), end - 1)
    const open = columns.lastIndexOf('(')
    if (open === -1) return null
    for (const column of columns.slice(open + 1).split(',')) {
      const field = kindOfField(column)
      if (field) return { field, start: end - columns.length - 1 + open, quoted: true, tuple: true }
    }
    return null
  }
  const quoted = last === '"' || last === "'" || last === '`'
  if (quoted) {
    end -= 1
    while (text[end - 1] === '\\' && sign - end < 16) end -= 1
  }
  let start = end
  while (start > 0 && end - start < 64 && isNameCharacter(text.charCodeAt(start - 1))) start -= 1
  if (start === end || text.slice(Math.max(0, start - 10), start) === '[redacted:') return null
  if (quoted && text[start - 1] !== last) return null
  const name = text.slice(start, end)
  const field =
    kindOfField(name) ??
    (/[?&;]/.test(text[start - 1] ?? '') && parameterOfSecret.test(name) ? { kind: 'secret', countable: false } : null)
  return field ? { field, start, quoted, tuple: false } : null
}

type Place = {
  readonly field: FieldKind
  readonly quoted: boolean
  readonly tuple: boolean
  /** What stands before the name: a quote there also ends the value, as in curl's `-H 'Cookie: …'`. */
  readonly before: string
}

function readValue(text: string, from: number, { field, quoted, tuple, before }: Place) {
  if (tuple) {
    if (text[from] !== '(') return null
    const end = /\)(?=\s|$|[.,;])/g
    end.lastIndex = from
    return { start: from + 1, end: end.exec(text)?.index ?? text.length }
  }
  const folded = /(?:[!&][\w!-]{1,40}[ \t]{1,4})?[>|](?:\d[+-]|[+-]?\d?)[ \t]{0,44}/y
  const comment = /(?:#[^\n\\]{0,200})?/y
  folded.lastIndex = from
  if (folded.test(text)) {
    comment.lastIndex = folded.lastIndex
    comment.test(text)
    const lines = indentedLines(text, comment.lastIndex)
    if (lines) return lines
    // The line ends were escapes.
    from = folded.lastIndex
  }
  const open = /(\\*)(["'`])/y
  open.lastIndex = from
  const [opening, slashes = '', quote = ''] = open.exec(text) ?? []
  if (opening !== undefined) {
    if (wordy.has(field.kind) && !quoted) return null
    return { start: from + opening.length, end: closingQuote(text, from + opening.length, quote, slashes.length) }
  }
  if (field.kind === 'cookie' || field.kind === 'authorization') return headerValue(text, from, field.kind, before)
  const first = text[from]
  if ((first === '{' || first === '[') && !text.startsWith('[redacted:', from)) {
    return quoted && !field.countable ? { start: from, end: closingBracket(text, from) } : null
  }
  if (!quoted && wordy.has(field.kind)) return null
  // Before the whole run is read: a run of nothing but such names would be read from each of them to its end.
  if (!quoted && numeric.has(field.kind) && !/\d/.test(text.slice(from, from + nearby))) return null
  const run = bareValue(text, from)
  const value = text.slice(run.start, run.end)
  if (value === '' || nothing.test(value) || (value.length < 200 && !/[\p{L}\p{N}]/u.test(value))) return null
  if (field.countable && /^[\d.,]+$/.test(value)) return null
  if (quoted) return run
  if (!numeric.has(field.kind)) return run
  // Digits in groups: "phone: 020 7946 0958" ends after the last one.
  const digits = /\+?\(?\d(?:[ ()./-]{0,2}\d){2,20}/y
  digits.lastIndex = from
  digits.test(text)
  const end = Math.max(run.end, digits.lastIndex)
  const count = text.slice(from, end).replace(/\D/g, '').length
  const short = field.kind === 'card' ? /^\d{3,4}$/.test(value) : field.kind === 'ssn' || field.kind === 'birth-date'
  return count >= (short ? 3 : 7) ? { start: from, end } : null
}

/** What YAML has below `password: >-`, empty lines included; the line ends may be written as \n, in JSON that is itself text. */
function indentedLines(text: string, from: number) {
  const lineEnd = /[ \t]{0,44}(?:\r?\n|(\\{1,8})(?:r\\{1,8})?n)/y
  const indent = /[ \t]{1,40}(?=\S)/y
  let at = from
  let slashes = 0
  lineEnd.lastIndex = at
  for (let match = lineEnd.exec(text); match; match = lineEnd.exec(text)) {
    at = lineEnd.lastIndex
    slashes = match[1]?.length ?? 0
  }
  indent.lastIndex = at
  const [blanks] = at === from ? [] : (indent.exec(text) ?? [])
  if (blanks === undefined) return null
  const start = at + blanks.length
  let end = endOfLine(text, start, slashes)
  for (;;) {
    at = end
    lineEnd.lastIndex = at
    while (lineEnd.test(text)) at = lineEnd.lastIndex
    if (at === end || !text.startsWith(blanks, at)) return { start, end }
    end = endOfLine(text, at + blanks.length, slashes)
  }
}

/** With line ends of backslashes also the quote that ends the text they are in: it has fewer of them. */
function endOfLine(text: string, from: number, slashes: number): number {
  const ends = slashes === 0 ? /\r?\n/g : /\r?\n|(\\{1,8})(?:r\\{1,8})?n|(\\{0,8})"/g
  ends.lastIndex = from
  for (let match = ends.exec(text); match; match = ends.exec(text)) {
    if (match[2] === undefined || match[2].length < slashes) return match.index
  }
  return text.length
}

/** As JSON and its nestings escape: inside two backslashes and a quote, only the same or fewer backslashes close. */
function closingQuote(text: string, from: number, quote: string, slashes: number): number {
  for (let at = text.indexOf(quote, from); at !== -1; at = text.indexOf(quote, at + 1)) {
    let before = 0
    while (at - before > from && text[at - before - 1] === '\\') before += 1
    if (slashes === 0 ? before % 2 === 0 : before <= slashes) return at - Math.min(before, slashes)
  }
  return text.length
}

function closingBracket(text: string, from: number): number {
  const bracket = /[[\]{}]/g
  bracket.lastIndex = from
  let depth = 0
  for (let match = bracket.exec(text); match; match = bracket.exec(text)) {
    depth += match[0] === '[' || match[0] === '{' ? 1 : -1
    if (depth === 0) return match.index + 1
  }
  return text.length
}

const scheme = /(?:bearer|basic|token|apikey|negotiate|ntlm)[ \t]+/iy
const schemeOfMany = /(?:digest|aws4|hawk|hmac|signature|oauth)/iy

/** The rest of the line for cookies and for schemes with parameters; else one word, for "authorization: denied" is prose. */
function headerValue(text: string, from: number, kind: Kind, before: string) {
  scheme.lastIndex = from
  schemeOfMany.lastIndex = from
  const start = scheme.test(text) ? scheme.lastIndex : from
  if (kind === 'authorization' && !schemeOfMany.test(text)) {
    const run = bareValue(text, start)
    return run.end > run.start && !nothing.test(text.slice(run.start, run.end)) ? run : null
  }
  const stop = before === '"' ? /\n|\\n|"/g : before === "'" ? /\n|\\n|'/g : /\n|\\n/g
  stop.lastIndex = start
  let end = stop.exec(text)?.index ?? text.length
  while (end > start && /\s/.test(text[end - 1] ?? '')) end -= 1
  return end > start ? { start, end } : null
}

/**
 * Up to white space or a quote. A comma, semicolon or ampersand ends it only where the next name begins: passwords hold
 * them too. Brackets, commas and full stops at the end belong to the sentence.
 */
function bareValue(text: string, start: number) {
  const stop = /[\s"`<>\\]|'(?!\w)|[,;&](?=\s*["']?[\w.%[\]-]{1,64}["']?\s{0,4}[=:])|[,;&]\s/g
  stop.lastIndex = start
  let end = stop.exec(text)?.index ?? text.length
  const value = text.slice(start, end)
  const trailing = /[,;:.)\]}]/
  const opened = new Map<string, boolean>()
  while (end > start && trailing.test(text[end - 1] ?? '')) {
    const last = text[end - 1]
    const opening = last === ')' ? '(' : last === ']' ? '[' : last === '}' ? '{' : ''
    if (opening !== '') {
      let holds = opened.get(opening)
      if (holds === undefined) opened.set(opening, (holds = value.includes(opening)))
      if (holds) break
    }
    end -= 1
  }
  return { start, end }
}

/** `<password>…</password>`, `--token …`, `PASSWORD '…'`, and the row that Postgres prints when a check fails. */
function findOtherForms(text: string, add: Add): void {
  if (text.includes('</')) {
    for (const { 0: all, 1: name = '', 2: value = '', index } of text.matchAll(
      /<([A-Za-z][\w.:-]{0,63})(?:\s[^<>]{0,500})?>(?:<!\[CDATA\[)?([^<]+)<\//g,
    )) {
      const field = kindOfField(name)
      const start = index + all.length - 2 - value.length
      const length = value.length - (value.endsWith(']]>') ? 3 : 0)
      if (field && !nothing.test(value.slice(0, length).trim())) add(start, start + length, field.kind)
    }
  }
  if (text.includes('--')) {
    for (const { 0: all, 1: name = '', index } of text.matchAll(/--([a-z][a-z\d-]{1,40})[ \t]{1,4}(?=[^\s<>|-])/gi)) {
      const field = kindOfField(name)
      if (!field || wordy.has(field.kind)) continue
      const value = readValue(text, index + all.length, { field, quoted: false, tuple: false, before: '' })
      if (value) add(value.start, value.end, field.kind)
    }
  }
  // Only with the quotes of SQL values: `column "password" …` names a column.
  for (const { 0: all, index } of text.matchAll(/password[ \t]{1,4}'(?=[^'\s])/gi)) {
    const start = index + all.length
    add(start, closingQuote(text, start, "'", 0), 'secret')
  }
  findNetrc(text, add)
  if (text.includes('=')) findAttributes(text, add)
  const row = 'Failing row contains ('
  let at = text.indexOf(row)
  while (at !== -1) {
    const end = /\)\.?(?=\s*(?:\n|$|["\\]))/g
    end.lastIndex = at + row.length
    const stop = end.exec(text)?.index ?? text.length
    add(at + row.length, stop, 'row')
    at = text.indexOf(row, stop)
  }
}

/** What a value is called that has its name beside it, and what that name is called. */
const valueName = /^(?:v|val|values?|content)$/i
const nameName = /^(?:name|k|key|field|header|title|label|id|param|parameter|property|variable)$/i

/** Objects within objects, of which what stood in them is still known. */
const deepestPairs = 32

type Pair = { field: FieldKind | null; value: { start: number; end: number } | null }

/** `{"name":"password","value":"…"}` in a text, in any order, escaped or not. Each value is read once, or its text is. */
function findPairs(text: string, add: Add): void {
  const sign = /[{}]|(["'])(\w{1,9})\\{0,15}\1\s{0,40}:\s{0,40}/g
  const open = /(\\{0,15})(["'])/y
  // The text may begin within an object.
  let outside: Pair = { field: null, value: null }
  const objects: Pair[] = []
  for (let match = sign.exec(text); match; match = sign.exec(text)) {
    const [all, , key = ''] = match
    if (all === '{') {
      if (objects.length === deepestPairs) objects.shift()
      objects.push({ field: null, value: null })
      continue
    }
    if (all === '}') {
      if (!objects.pop()) outside = { field: null, value: null }
      continue
    }
    const pair = objects.at(-1) ?? outside
    const from = sign.lastIndex
    if (nameName.test(key)) {
      open.lastIndex = from
      const [opening, slashes = '', quote = ''] = open.exec(text) ?? []
      if (opening === undefined) continue
      const start = from + opening.length
      const end = closingQuote(text, start, quote, slashes.length)
      sign.lastIndex = end
      if (pair === outside) pair.field = null
      pair.field ??= end - start > 200 ? null : kindOfField(text.slice(start, end))
      const { field, value } = pair
      if (field && value && !(field.countable && /^[\d.,]{1,40}$/.test(text.slice(value.start, value.end))))
        add(value.start, value.end, field.kind)
      if (pair === outside) pair.value = null
    } else if (valueName.test(key)) {
      const field = pair.field ?? { kind: 'secret', countable: false }
      if (!pair.field && /[{[]/.test(text[from] ?? '')) continue
      const value = readValue(text, from, { field, quoted: true, tuple: false, before: '' })
      if (!value) continue
      if (pair.field) add(value.start, value.end, field.kind)
      else pair.value = value
      sign.lastIndex = Math.max(value.end, from)
    }
  }
}

/** `- name: DB_PASSWORD` and below it `value: …`, as YAML lists environments. */
function findYamlPairs(text: string, add: Add): void {
  const pair =
    /\b(?:name|key):[ \t]{1,4}["']?([\w.-]{1,100})["']?[ \t]{0,9}(?:\r?\n|\\{1,8}n)[ \t]{1,40}value:[ \t]{1,4}(?=[^\s\\])/gi
  for (let match = pair.exec(text); match; match = pair.exec(text)) {
    const field = kindOfField(match[1] ?? '')
    const value = field && readValue(text, pair.lastIndex, { field, quoted: true, tuple: false, before: '' })
    if (!value) continue
    add(value.start, value.end, field.kind)
    pair.lastIndex = Math.max(value.end, pair.lastIndex)
  }
}

/** `<input type="password" value="…">`, `<add key="ApiKey" value="…"/>`: in any order. */
function findAttributes(text: string, add: Add): void {
  const tag = /<[a-z][\w.:-]{0,63}(?=[\s\\/])/gi
  const attribute = /(?:[\s/]|\\[nrt]){0,99}([^\s"'<>/=\\]{1,64})(?:\s{0,9}(=)\s{0,9}(\\{0,8})(["']?))?/iy
  for (let match = tag.exec(text); match; match = tag.exec(text)) {
    let at = tag.lastIndex
    let field: FieldKind | null = null
    const values: { start: number; end: number }[] = []
    for (let count = 0; count < 100; count += 1) {
      attribute.lastIndex = at
      const [all, name = '', assigned = '', slashes = '', quote = ''] = attribute.exec(text) ?? []
      if (all === undefined) break
      at += all.length
      if (assigned === '') continue
      const start = at
      const end = quote === '' ? bareAttribute(text, at) : closingQuote(text, at, quote, slashes.length)
      at = quote === '' || end === text.length ? end : text.indexOf(quote, end) + 1
      if (valueName.test(name)) values.push({ start, end })
      else if (end - start <= 200) field ??= kindOfAttribute(name, text.slice(start, end))
    }
    for (const { start, end } of field ? values : []) {
      const value = text.slice(start, Math.min(end, start + 200))
      if (field && !nothing.test(value) && !(field.countable && /^[\d.,]+$/.test(value))) add(start, end, field.kind)
    }
    tag.lastIndex = at
  }
}

function bareAttribute(text: string, from: number): number {
  const run = /[^\s"'`<>\\]*/y
  run.lastIndex = from
  run.test(text)
  return run.lastIndex
}

function kindOfAttribute(name: string, value: string): FieldKind | null {
  if (/^type$/i.test(name)) return /^password$/i.test(value) ? { kind: 'secret', countable: false } : null
  return nameName.test(name) ? kindOfField(value) : null
}

/**
 * `machine h login u password p`, on one line or several: with its login before or behind, for "the machine room password
 * changed" is prose.
 */
const netrc =
  /\b(?:machine[\s\\]{1,40}[^\s\\]{1,255}|default)(?:[\s\\]{1,40}(?:login|account|port)[\s\\]{1,40}(?!(?:and|or|with|to|the|is|page)\b)[^\s\\]{1,255}){0,3}[\s\\]{1,40}password[\s\\]{1,40}(?=[^\s\\])/g
const loginBehind = /["']?[\s\\]{1,40}(?:login|account)[\s\\]{1,40}(?!(?:and|or|with|to|the|is|page)\b)[^\s\\]/y

function findNetrc(text: string, add: Add): void {
  if (!text.includes('password')) return
  netrc.lastIndex = 0
  for (let match = netrc.exec(text); match; match = netrc.exec(text)) {
    const quoted = text[netrc.lastIndex] === '"'
    const from = netrc.lastIndex + (quoted ? 1 : 0)
    const end = quoted ? closingQuote(text, from, '"', 0) : bareValue(text, from).end
    loginBehind.lastIndex = end
    if (/[\s\\](?:login|account)[\s\\]/.test(match[0]) || loginBehind.test(text)) add(from, end, 'secret')
    netrc.lastIndex = Math.max(end, netrc.lastIndex)
  }
}

/** As the shell reads it, with what it has in single quotes behind a colon, and with escaped characters. */
function endOfArgument(text: string, from: number): number {
  const quoted = /[^\s"'`\\:]{0,200}:'/y
  quoted.lastIndex = from
  if (quoted.test(text)) return closingQuote(text, quoted.lastIndex, "'", 0)
  let { end } = bareValue(text, from)
  for (let parts = 0; parts < 50; parts += 1) {
    if (text[end] !== '\\' || !/[$!&*()#;|<> ]/.test(text[end + 1] ?? '')) return end
    end = bareValue(text, end + 2).end
  }
  return end
}

/** Of one command, however long it is: `-u` this far behind the word curl is curl's. */
const longestCommand = 4096
const login =
  /\b(?:curl|wget)\b|(?<=[\s"'])(?:-[a-z\d#]{0,8}[uU]|--(?:proxy-|http-|ftp-)?user)(?:\\{0,8}["'],\s{0,8}(?=["'\\])|[=\s](?:\s|\\\r?\n){0,8})?/gi

/** `curl -u user:password`, and the other spellings of it. Only behind the word curl or wget: other programs' `-u` is anything. */
function findLogins(text: string, add: Add): void {
  const open = /(\\{0,8})(["'])/y
  const domain = /[\w.-]{1,64}\\{1,2}(?=[\w.-])/y
  let command = -Infinity
  login.lastIndex = 0
  for (let match = login.exec(text); match; match = login.exec(text)) {
    if (!match[0].startsWith('-')) {
      command = match.index
      continue
    }
    let from = login.lastIndex
    if (from - command > longestCommand) continue
    open.lastIndex = from
    const [opening = '', slashes = '', quote = ''] = open.exec(text) ?? []
    from += opening.length
    domain.lastIndex = from
    const start = from
    if (opening === '' && domain.test(text)) from = domain.lastIndex
    const end = opening === '' ? endOfArgument(text, from) : closingQuote(text, from, quote, slashes.length)
    const value = text.slice(start, end)
    // Without a password the name may be the key of an account: `-u sk_…:`.
    if (/^[^:]*:./.test(value) || (text[end] === ':' && /\d/.test(value)) || /\d.*:$/.test(value))
      add(start, end, 'credentials')
    login.lastIndex = Math.max(end, login.lastIndex)
  }
}

function findAuthorization(text: string, add: Add): void {
  const scheme = /(?:bearer|basic)(?:[ \t]|%20|\+){1,4}(?=[A-Za-z0-9._~+/=-])/gi
  const token = /[A-Za-z0-9._~+/=-]+/y
  for (let match = scheme.exec(text); match; match = scheme.exec(text)) {
    const start = scheme.lastIndex
    token.lastIndex = start
    token.test(text)
    const end = token.lastIndex
    // "Bearer authentication", "Basic Auth", `Bearer realm="…"`: words. A token of small letters alone is 20 long at least.
    const words = end - start < 6 || (end - start < 20 && /^[A-Z]?[a-z]+[.=]?$/.test(text.slice(start, end)))
    if (words) continue
    add(start, end, 'authorization')
    scheme.lastIndex = end
  }
}

const localCharacter = /[\w.%+~!#$*^'-]/
const domain = /^(?:[\p{L}\p{M}\p{N}-]{1,63}\.){1,20}(?:xn--[a-z\d-]{2,59}|[\p{L}\p{M}]{2,63})/iu

function findEmails(text: string, hosts: ReadonlySet<number>, add: Add): void {
  const sign = /@|%40/g
  // "%40" is made of characters that addresses hold: without it each sign would look back over all the earlier ones.
  let floor = 0
  for (let match = sign.exec(text); match; match = sign.exec(text)) {
    const at = match.index
    if (hosts.has(at)) continue
    const behind = at + match[0].length
    const host = domain.exec(text.slice(behind, behind + 320))?.[0]
    if (host === undefined) continue
    let start = at
    if (text[at - 1] === '"') start -= /"[^"\n]{1,64}"$/.exec(text.slice(Math.max(0, at - 66), at))?.[0].length ?? 0
    else while (start > floor && isLocal(text, start - 1)) start -= 1
    while (start < at && text[start] === "'") start += 1
    if (start < at) add(start, behind + host.length, 'email')
    floor = behind
  }
}

function isLocal(text: string, at: number): boolean {
  const character = text[at] ?? ''
  return character < '\x80' ? localCharacter.test(character) : !/\s/.test(character)
}

const identifier =
  /\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\b|(?<![A-Za-z0-9])(?=[0-9]{0,128}[a-f])(?:[0-9a-f]{16}|[0-9a-f]{24}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{56}|[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})(?![A-Za-z0-9])|(?<!\d)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d)(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?:Z|[+-]\d{2}(?::?\d{2})?(?!\d))?)?/gi

/** The text with ids, digests and timestamps filled up: an incident needs its trace ids, and their digits mean nobody. */
function withoutIdentifiers(text: string): string {
  // A Belgian IBAN could be a span id, were it not in capitals.
  return text.replace(identifier, (found) =>
    /^[A-Z]{2}\d{2}[A-Z\d]+$/.test(found) ? found : '\u0001'.repeat(found.length),
  )
}
