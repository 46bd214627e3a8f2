import type { Kind } from './fields.ts'

/** Takes note of a secret. */
export type Add = (start: number, end: number, kind: Kind) => void

/** Phone numbers, payment cards, social security numbers. Ids, timestamps and prices have been taken out before. */
export function findNumbers(text: string, add: Add): void {
  if (!/\d(?:[^\d]{0,3}\d){6}/.test(text)) return
  findPhones(text, add)
  findCards(text, add)
  findSsns(text, add)
}

/** Digits, and what stands between them and the group before. */
type Group = { readonly start: number; readonly digits: string; readonly gap: string }

function findCards(text: string, add: Add): void {
  let groups: Group[] = []
  let end = -1
  for (const { 0: digits, index } of text.matchAll(/\d+/g)) {
    const gap = end === -1 || index - end > 4 ? '' : text.slice(end, index)
    if (!separator.test(gap)) {
      cardsIn(groups, add)
      groups = []
    }
    groups.push({ start: index, digits, gap })
    end = index + digits.length
  }
  cardsIn(groups, add)
}

const plainGap = /^[ -]{1,2}$/
const lineEnd = /^ ?\r?\n ?$/
const separator = /^(?:[ -]{1,2}|[./_]| ?\r?\n ?)$/

function cardsIn(groups: readonly Group[], add: Add): void {
  const all = groups.map(({ digits }) => digits).join('')
  for (let first = 0, offset = 0; first < groups.length; first += 1) {
    const from = groups[first]
    if (!from) return
    let length = 0
    let end = -1
    let last = first
    // Tables of numbers have many groups: only those that may begin a card are looked at, and nothing is built for them.
    const begins = from.digits >= '2' && from.digits < '7'
    for (let next = first; begins && next < groups.length; next += 1) {
      const group = groups[next]
      if (!group || length + group.digits.length > 19) break
      length += group.digits.length
      if (length < 13 || !isWritten(groups, first, next) || !isCard(all.slice(offset, offset + length))) continue
      // The longest that is one; what follows it may be the next.
      end = group.start + group.digits.length
      last = next
    }
    if (end !== -1) add(from.start, end, 'card')
    for (; first < last; first += 1) offset += groups[first]?.digits.length ?? 0
    offset += groups[first]?.digits.length ?? 0
  }
}

/**
 * Decimals, paths and tables have dots, slashes and line ends, too: with these it must be groups of four, the same all through, or
 * a card that one line end breaks.
 */
function isWritten(groups: readonly Group[], first: number, last: number): boolean {
  if (!isGrouping(groups, first, last)) return false
  const odd: string[] = []
  for (let place = first + 1; place <= last; place += 1) {
    const gap = groups[place]?.gap ?? ''
    if (!plainGap.test(gap)) odd.push(gap)
  }
  const [one = ''] = odd
  if (odd.length === 0) return true
  if (groups[first]?.digits.length !== 4 || last - first < 2) return false
  return lineEnd.test(one) ? odd.length === 1 : odd.length === last - first && odd.every((gap) => gap === one)
}

/** As cards are written: in equal groups with another one at the end, as 4-6-5, or digit by digit. */
function isGrouping(groups: readonly Group[], first: number, last: number): boolean {
  const size = (place: number) => groups[place]?.digits.length ?? 0
  const usual = size(first)
  if (first === last) return true
  if (usual === 4 && size(first + 1) === 6) return last === first + 2
  if (usual === 6) return last === first + 1
  for (let place = first + 1; place < last; place += 1) if (size(place) !== usual) return false
  return size(last) <= Math.max(usual, 7)
}

/** Luhn, and beginning and length of a card network: one in ten of all ids passes Luhn alone. */
function isCard(number: string): boolean {
  return network.test(number) && isLuhn(number)
}

const network =
  /^(?:4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:2[0-9]|[3-6]\d|7[01])\d{13}|2720\d{12}|3[47]\d{13}|3(?:0[0-59]|[689]\d)\d{11,16}|35\d{14,17}|6(?:011|4[4-9]\d|5\d\d|2\d\d)\d{12,15}|(?:50|5[6-9]|6[0-9])\d{11,17})$/

function isLuhn(number: string): boolean {
  let sum = 0
  for (let place = 0; place < number.length; place += 1) {
    const digit = number.charCodeAt(number.length - 1 - place) - 48
    const doubled = place % 2 === 1 ? digit * 2 : digit
    sum += doubled > 9 ? doubled - 9 : doubled
  }
  return sum % 10 === 0
}

function findSsns(text: string, add: Add): void {
  for (const { 0: all, index } of text.matchAll(/(?<!\d)(?!000|666)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?!\d)/g)) {
    add(index, index + all.length, 'ssn')
  }
  for (const { 0: all, index } of text.matchAll(namedSsn)) add(index + all.length - 9, index + all.length, 'ssn')
}

/** Nine digits in one are many things, unless it is said which. */
const namedSsn = /(?<![A-Za-z])(?:ssn|social security(?: (?:number|no\.?))?)(?: is)?[ \t#]{1,4}\d{9}(?!\d)/gi

const american =
  /(?<!\d)(?:\+?1[ .-]?)?(?:\([2-9]\d{2}\)[ .-]{0,2}\d{3}[ .-]\d{4}|[2-9]\d{2}[-/]\d{3}[-.]\d{4}|[2-9]\d{2} \d{3}-\d{4}|[2-9]\d{2} [2-9]\d{2} \d{4})(?!\d)/g
/** With dots it must not be a part of a version or an address. */
const dotted = /(?<![\d.])(?:\+?1[ .-]?)?[2-9]\d{2}\.[2-9]\d{2}\.\d{4}(?!\d|\.\d)/g
const linked = /(?:\btel:|\bsms:|wa\.me\/)\+?[\d().-]{7,20}/gi
const international = /(?<![A-Za-z0-9])(?:\+|%2B)(?=[(\d])/gi

function findPhones(text: string, add: Add): void {
  for (const pattern of [american, dotted]) {
    for (const { 0: all, index } of text.matchAll(pattern)) add(index, index + all.length, 'phone')
  }
  for (const { 0: all, index } of text.matchAll(linked)) {
    const start = index + (/^(?:tel:|sms:|wa\.me\/)/i.exec(all)?.[0].length ?? 0)
    add(start, index + all.length, 'phone')
  }
  for (const { 0: plus, index } of text.matchAll(international)) {
    const end = endOfInternational(text, index + plus.length)
    if (end !== -1) add(index, end, 'phone')
  }
}

/** 7 to 15 digits after a plus, in groups; -1 when it is a sum, an offset or a price. */
function endOfInternational(text: string, from: number): number {
  const part = /[ .()/-]{0,3}(\d{1,16})/y
  const most = text[from] === '1' ? 11 : 15
  let digits = 0
  let groups = 0
  let end = -1
  part.lastIndex = from
  for (let match = part.exec(text); match; match = part.exec(text)) {
    const size = match[1]?.length ?? 0
    if (digits + size > most) break
    digits += size
    groups += 1
    end = part.lastIndex
  }
  const whole = text.slice(from, end)
  if (/^(?!\d{1,3}\.\d{7,}$)\d+\.\d+$/.test(whole)) return -1
  return digits >= (groups > 1 ? 7 : 8) ? end : -1
}

/** ISO 13616: two letters and the whole length. */
const ibanLengths: ReadonlyMap<string, number> = new Map(
  (
    'AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 ' +
    'FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 ' +
    'LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 ' +
    'RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30'
  )
    .split(' ')
    .map((entry) => [entry.slice(0, 2), Number(entry.slice(2))]),
)

export function findIbans(text: string, add: Add): void {
  for (const { 0: head, index } of text.matchAll(/(?<=^|[^A-Z0-9]|IBAN)[A-Z]{2}\d{2}(?=[ -]?[A-Z0-9])/gi)) {
    const length = ibanLengths.get(head.slice(0, 2).toUpperCase())
    if (length === undefined) continue
    const end = endOfIban(text, index, length)
    if (end !== -1) add(index, end, 'iban')
  }
}

function endOfIban(text: string, start: number, length: number): number {
  const written = /(?:[A-Z0-9][ -]?){15,68}/iy
  written.lastIndex = start
  const whole = written.exec(text)?.[0] ?? ''
  let number = ''
  let at = 0
  for (; at < whole.length && number.length < length; at += 1) {
    const character = whole[at] ?? ''
    if (character !== ' ' && character !== '-') number += character
  }
  const compact = at === length
  if (number.length < length || (compact && /[A-Za-z0-9]/.test(text[start + at] ?? ''))) return -1
  return mod97(number.toUpperCase()) === 1 ? start + at : -1
}

function mod97(iban: string): number {
  let rest = 0
  for (const character of iban.slice(4) + iban.slice(0, 4)) {
    const value = parseInt(character, 36)
    rest = (rest * (value > 9 ? 100 : 10) + value) % 97
  }
  return rest
}
