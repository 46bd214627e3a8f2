import { crc32, inflateRawSync } from 'node:zlib'
import { ArchiveBroken, mostEntries, type Packed } from './verify-tar.ts'

/** It may well be right: this reader doesn't know the form. */
export class ArchiveUnread extends Error {}

const marks = { local: 0x04034b50, central: 0x02014b50, end: 0x06054b50, end64: 0x06064b50, locator64: 0x07064b50 }

/**
 * A zip, read strictly: stored or deflated, the list at its end and the entries in it in one mind, and nothing between
 * them. Programs that read from the front and those that read the list would otherwise unpack different files.
 */
export function readZip(bytes: Uint8Array, most: number): readonly Packed[] {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const end = endOfList(view)
  const count = view.readUInt16LE(end + 10)
  const size = view.readUInt32LE(end + 12)
  const start = view.readUInt32LE(end + 16)
  if (count === 0xffff || start === 0xffffffff || size === 0xffffffff) throw new ArchiveUnread('it is a zip64')
  if (view.readUInt16LE(end + 4) !== 0 || view.readUInt16LE(end + 6) !== 0 || view.readUInt16LE(end + 8) !== count) {
    throw new ArchiveUnread('it is one part of several')
  }
  if (count > mostEntries) throw new ArchiveBroken(`it has more than ${mostEntries} entries`)
  if (start + size !== end) throw new ArchiveBroken('its list of files is not where it should be')

  const found: Packed[] = []
  const spans: { readonly from: number; readonly to: number; readonly loose: boolean }[] = []
  let at = start
  let total = 0
  for (let n = 0; n < count; n += 1) {
    const entry = centralEntry(view, at, end)
    at = entry.next
    const { path, mode } = entry
    total += entry.size
    if (total > most) throw new ArchiveBroken(`unpacked it is larger than ${most} bytes`)
    const { data, to } = localData(view, entry, start)
    spans.push({ from: entry.offset, to, loose: (entry.flags & 8) !== 0 })
    // The upper half of the attributes is the Unix mode, if a Unix program wrote them.
    const kind = mode === 0o120000 ? 'link' : path.endsWith('/') || mode === 0o040000 ? 'folder' : 'file'
    if (kind !== 'file') found.push({ path, kind })
    else if (mode !== 0 && mode !== 0o100000) found.push({ path, kind: 'special' })
    else found.push({ path, kind, bytes: unpacked(entry, data) })
  }
  if (at !== end) throw new ArchiveBroken('its list of files ends elsewhere than it says')
  checkNothingBetween(spans, start)
  return found
}

function endOfList(view: Buffer): number {
  for (let at = view.length - 22; at >= Math.max(0, view.length - 22 - 0xffff); at -= 1) {
    if (view.readUInt32LE(at) === marks.end && at + 22 + view.readUInt16LE(at + 20) === view.length) {
      if (at >= 20 && view.readUInt32LE(at - 20) === marks.locator64) throw new ArchiveUnread('it is a zip64')
      return at
    }
  }
  throw new ArchiveBroken('the list of its files is missing: it was cut, or is no zip')
}

type Central = {
  readonly next: number
  readonly path: string
  readonly name: Buffer
  readonly flags: number
  readonly method: number
  readonly crc: number
  readonly packed: number
  readonly size: number
  readonly mode: number
  readonly offset: number
}

function centralEntry(view: Buffer, at: number, end: number): Central {
  if (at + 46 > end || view.readUInt32LE(at) !== marks.central) throw new ArchiveBroken('its list of files is damaged')
  const flags = view.readUInt16LE(at + 8)
  const method = view.readUInt16LE(at + 10)
  const next = at + 46 + view.readUInt16LE(at + 28) + view.readUInt16LE(at + 30) + view.readUInt16LE(at + 32)
  if (next > end) throw new ArchiveBroken('its list of files is damaged')
  const name = view.subarray(at + 46, at + 46 + view.readUInt16LE(at + 28))
  if ((flags & 1) !== 0) throw new ArchiveUnread('it is encrypted')
  if (method !== 0 && method !== 8) throw new ArchiveUnread(`it is packed by method ${method}`)
  const unix = view[at + 5] === 3
  return {
    next,
    path: name.toString('utf8'),
    name,
    flags,
    method,
    crc: view.readUInt32LE(at + 16),
    packed: view.readUInt32LE(at + 20),
    size: view.readUInt32LE(at + 24),
    mode: unix ? (view.readUInt32LE(at + 38) >>> 16) & 0o170000 : 0,
    offset: view.readUInt32LE(at + 42),
  }
}

function localData(view: Buffer, entry: Central, list: number): { readonly data: Buffer; readonly to: number } {
  const { offset, name, packed, method } = entry
  if (offset + 30 > list || view.readUInt32LE(offset) !== marks.local) throw new ArchiveBroken('an entry is not there')
  const nameEnd = offset + 30 + view.readUInt16LE(offset + 26)
  const from = nameEnd + view.readUInt16LE(offset + 28)
  if (from + packed > list) throw new ArchiveBroken('an entry reaches beyond the files')
  if (!view.subarray(offset + 30, nameEnd).equals(name) || view.readUInt16LE(offset + 8) !== method) {
    throw new ArchiveBroken('an entry has another name than the list says')
  }
  return { data: view.subarray(from, from + packed), to: from + packed }
}

function unpacked({ method, size, crc }: Central, data: Buffer): Uint8Array {
  let bytes: Buffer
  try {
    // One byte more than it says it is: then it isn't what it says.
    bytes = method === 0 ? data : inflateRawSync(data, { maxOutputLength: size + 1 })
  } catch (error) {
    throw new ArchiveBroken('an entry cannot be unpacked', { cause: error })
  }
  if (bytes.length !== size) throw new ArchiveBroken('an entry has another size than the list says')
  if (crc32(bytes) !== crc) throw new ArchiveBroken('an entry has another checksum than the list says')
  return bytes
}

/** Sizes that were not known in advance stand behind the data, in 12 to 24 bytes. */
function checkNothingBetween(
  spans: readonly { readonly from: number; readonly to: number; readonly loose: boolean }[],
  end: number,
): void {
  let at = 0
  for (const { from, to, loose } of [...spans].sort((a, b) => a.from - b.from)) {
    if (from !== at) throw new ArchiveBroken('something stands between its entries, or two of them overlap')
    at = to
    if (!loose) continue
    const next = spans.reduce((least, span) => (span.from >= to && span.from < least ? span.from : least), end)
    if (![12, 16, 24].includes(next - to)) throw new ArchiveBroken('something stands between its entries')
    at = next
  }
  if (at !== end) throw new ArchiveBroken('something stands between its entries and its list')
}
