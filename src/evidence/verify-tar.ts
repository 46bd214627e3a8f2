import { textOf } from '../proof/bytes.ts'

/** One thing in an archive. A link is never followed and never made: nothing is written when an archive is verified. */
export type Packed =
  | { readonly path: string; readonly kind: 'file'; readonly bytes: Uint8Array }
  | { readonly path: string; readonly kind: 'folder' | 'link' | 'special' }

/** It can't be what it says it is. */
export class ArchiveBroken extends Error {}

export const mostEntries = 50_000

const block = 512

/**
 * A tar, read strictly: ustar, pax and GNU's long names, which is what our exporter, GNU tar, bsdtar and busybox write.
 * Whatever different programs would unpack differently is refused: checksums, sizes, data behind the end.
 */
export function readTar(bytes: Uint8Array): readonly Packed[] {
  const found: Packed[] = []
  let at = 0
  let longName: string | null = null
  let pax = new Map<string, string>()
  for (;;) {
    const header = bytes.subarray(at, at + block)
    if (header.length < block) throw new ArchiveBroken('it ends before its end: it was cut')
    at += block
    if (header.every((byte) => byte === 0)) {
      if (!bytes.subarray(at).every((byte) => byte === 0)) throw new ArchiveBroken('there is something behind its end')
      if (longName !== null || pax.size > 0) throw new ArchiveBroken('a name stands at its end without a file')
      return found
    }
    checkSum(header)
    const type = String.fromCharCode(header[156] ?? 0)
    const size = pax.has('size') && type !== 'x' ? decimal(pax.get('size') ?? '') : number(header.subarray(124, 136))
    const data = bytes.subarray(at, at + size)
    if (data.length < size) throw new ArchiveBroken('it ends within a file: it was cut')
    at += Math.ceil(size / block) * block
    if (type === 'L') {
      longName = cText(data)
      continue
    }
    if (type === 'x') {
      pax = new Map([...pax, ...readPax(data)])
      continue
    }
    if (type === 'g') {
      const everywhere = readPax(data)
      if (everywhere.has('path') || everywhere.has('size') || everywhere.has('linkpath')) {
        throw new ArchiveBroken('it gives all its files one name or size')
      }
      continue
    }
    const path = pax.get('path') ?? longName ?? nameOf(header)
    longName = null
    pax = new Map()
    if (found.length >= mostEntries) throw new ArchiveBroken(`it has more than ${mostEntries} entries`)
    if (type === '0' || type === '\0' || type === '7') {
      // Long ago a folder was a file whose name ends with a slash.
      if (path.endsWith('/')) found.push({ path, kind: 'folder' })
      else found.push({ path, kind: 'file', bytes: data })
    } else if (size > 0) throw new ArchiveBroken(`an entry of type ${JSON.stringify(type)} has content`)
    else found.push({ path, kind: type === '5' ? 'folder' : type === '1' || type === '2' ? 'link' : 'special' })
  }
}

function checkSum(header: Uint8Array): void {
  let sum = 0
  for (let at = 0; at < block; at += 1) sum += at >= 148 && at < 156 ? 32 : (header[at] ?? 0)
  if (number(header.subarray(148, 156)) !== sum) throw new ArchiveBroken('a header has the wrong checksum')
}

/** Octal, ended by a blank or a zero byte; base-256 is for sizes that no pack has. */
function number(field: Uint8Array): number {
  const text = Buffer.from(field).toString('latin1')
  const [, digits] = /^ *([0-7]+)[ \0]*$/.exec(text) ?? []
  if (digits === undefined) throw new ArchiveBroken('a header has a number that is none')
  return Number.parseInt(digits, 8)
}

function decimal(text: string): number {
  const value = Number(text)
  if (!/^\d{1,15}$/.test(text)) throw new ArchiveBroken('a header has a size that is none')
  return value
}

function nameOf(header: Uint8Array): string {
  const name = cText(header.subarray(0, 100))
  const isUstar = Buffer.from(header.subarray(257, 263)).toString('latin1') === 'ustar\0'
  const prefix = isUstar ? cText(header.subarray(345, 500)) : ''
  return prefix === '' ? name : `${prefix}/${name}`
}

function cText(field: Uint8Array): string {
  const end = field.indexOf(0)
  try {
    return textOf(end < 0 ? field : field.subarray(0, end))
  } catch (error) {
    throw new ArchiveBroken('a name is not UTF-8', { cause: error })
  }
}

/** Records of `<length> <key>=<value>\n`. */
function readPax(data: Uint8Array): ReadonlyMap<string, string> {
  const records = new Map<string, string>()
  let at = 0
  while (at < data.length) {
    const blank = data.indexOf(32, at)
    const length = blank < 0 ? 0 : decimal(Buffer.from(data.subarray(at, blank)).toString('latin1'))
    const record = cText(data.subarray(blank + 1, at + length))
    const equals = record.indexOf('=')
    if (length < 5 || at + length > data.length || equals < 0 || !record.endsWith('\n')) {
      throw new ArchiveBroken('an extended header is damaged')
    }
    records.set(record.slice(0, equals), record.slice(equals + 1, -1))
    at += length
  }
  return records
}
