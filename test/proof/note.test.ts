import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromBase64, textOf, toBase64 } from '../../src/proof/bytes.ts'
import { publicHalfOfRaw } from '../../src/proof/ed25519.ts'
import { emptyRoot, inclusionProof, leafHash, rootOf } from '../../src/proof/merkle.ts'
import {
  cosign,
  formatNote,
  makeCheckpoint,
  parseCheckpoint,
  parseNote,
  signNote,
  verifierKey,
  verifyCheckpoint,
  verifyCosignature,
  verifyNote,
} from '../../src/proof/note.ts'
import { formatTlogProof, parseTlogProof } from '../../src/proof/tlog-proof.ts'
import { acceptedFlips, newSigner } from './signers.ts'

const origin = 'tms.invalid/ledger/0b8de6f0-6a7b-4a41-8f57-3a1f6f0b5c1d'
const signer = newSigner()
const witness = newSigner()
const stranger = newSigner()
const leaves = Array.from({ length: 21 }, (_, n) => leafHash(`row ${n}`))
const text = makeCheckpoint({ origin, size: 21, root: rootOf(leaves) })
const note = await signNote(text, origin, signer)
const witnessed = await cosign(note, { name: 'witness.example', signer: witness, time: 1_800_000_000 })
const refused = expect.objectContaining({ name: 'ProofError' })

describe('notes', () => {
  test('a note that golang.org/x/mod/sumdb/note shows as its example verifies', () => {
    const go =
      "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n" +
      '— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n'
    const [, id, key] = 'PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW'.split('+')
    const half = publicHalfOfRaw(fromBase64(String(key)).slice(1))
    expect(verifierKey('PeterNeumann', half)).toContain(`+${String(id)}+`)
    expect(verifyNote(go, 'PeterNeumann', half).text).toContain('cryptography')
  })

  test('a checkpoint is what was signed, and only by that key under that name', () => {
    expect(verifyCheckpoint(note, origin, signer)).toEqual({ origin, size: 21, root: rootOf(leaves) })
    expect(() => verifyCheckpoint(note, origin, stranger)).toThrow('is not signed by')
    expect(() => verifyCheckpoint(note, `${origin}x`, signer)).toThrow('is not signed by')
  })

  test('a checkpoint of another log that the same key signed under this name is refused', async () => {
    const other = await signNote(
      makeCheckpoint({ origin: 'other.invalid/log', size: 1, root: emptyRoot }),
      origin,
      signer,
    )
    expect(() => verifyCheckpoint(other, origin, signer)).toThrow('checkpoint of other.invalid/log')
  })

  test('no bit of a note can be turned over', () => {
    const accepted = acceptedFlips(Buffer.from(note), (bytes) => {
      verifyCheckpoint(textOf(bytes), origin, signer)
      return true
    })
    expect(accepted).toEqual([])
  })

  test('no bit of a cosigned note can be turned over without the log or the witness noticing', () => {
    const accepted = acceptedFlips(Buffer.from(witnessed), (bytes) => {
      verifyCheckpoint(textOf(bytes), origin, signer)
      verifyCosignature(textOf(bytes), 'witness.example', witness)
      return true
    })
    expect(accepted).toEqual([])
  })

  test.each<[string, (note: string) => string]>([
    ['nothing', () => ''],
    ['no signature', () => `${text}\n`],
    ['no empty line', (good) => good.replace('\n\n', '\n')],
    ['a blank at the end of a line', (good) => good.replace('\n— ', ' \n— ')],
    ['another dash', (good) => good.replace('— ', '- ')],
    ['two blanks', (good) => good.replace('— ', '—  ')],
    ['no newline at the end', (good) => good.slice(0, -1)],
    ['a newline more', (good) => `${good}\n`],
    ['line ends of Windows', (good) => good.replaceAll('\n', '\r\n')],
    ['something after the signatures', (good) => `${good}more\n`],
    ['base64 without padding', (good) => good.replace(/=+\n$/, '\n')],
    ['the signature twice', (good) => good + good.slice(good.indexOf('— '))],
    ['a tab in the text', (good) => good.replace('\n21\n', '\n21\t\n')],
    ['a leading zero', (good) => good.replace('\n21\n', '\n021\n')],
    ['more than a megabyte', (good) => 'x'.repeat(1_000_000) + good],
  ])('a note with %s is refused', (_, spoil) => {
    expect(() => parseCheckpoint(parseNote(spoil(note)).text)).toThrow(refused)
  })

  test('a checkpoint with another line is refused, although its log signed it', async () => {
    for (const odd of [`${text}extension\n`, `${text}\n`, text.replace('\n21\n', '\n+21\n'), 'a b\n0\n\n']) {
      const signed = await signNote(odd, origin, signer)
      expect(() => verifyCheckpoint(signed, origin, signer)).toThrow(refused)
    }
    await expect(signNote('no end', origin, signer)).rejects.toThrow(refused)
    await expect(signNote(text, 'a name', signer)).rejects.toThrow(refused)
    expect(() => makeCheckpoint({ origin: 'a+b', size: 1, root: emptyRoot })).toThrow(refused)
    expect(() => makeCheckpoint({ origin, size: -1, root: emptyRoot })).toThrow(refused)
    expect(() => makeCheckpoint({ origin, size: 1, root: new Uint8Array(20) })).toThrow(refused)
  })

  test('parts of a note make the same note again', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 90 }),
        fc.uint8Array({ minLength: 4, maxLength: 4 }),
        (bytes, id) => {
          const made = formatNote({ text, signatures: [{ name: 'some.one', keyId: id, signature: bytes }] })
          expect(formatNote(parseNote(made))).toBe(made)
        },
      ),
    )
  })
})

describe('witnesses', () => {
  test('say when they saw a checkpoint, and the log’s signature stays', () => {
    expect(verifyCosignature(witnessed, 'witness.example', witness)).toEqual({ time: 1_800_000_000 })
    expect(verifyCheckpoint(witnessed, origin, signer).size).toBe(21)
    expect(() => verifyCosignature(note, 'witness.example', witness)).toThrow('is not cosigned')
    expect(() => verifyCosignature(witnessed, 'witness.example', stranger)).toThrow('is not cosigned')
  })

  test('a log’s own signature is no cosignature, even by the same key under the same name', async () => {
    const both = await cosign(note, { name: origin, signer, time: 1 })
    expect(parseNote(both).signatures).toHaveLength(2)
    expect(() => verifyCosignature(note, origin, signer)).toThrow('is not cosigned')
  })

  test('signing again replaces the earlier time', async () => {
    const later = await cosign(witnessed, { name: 'witness.example', signer: witness, time: 1_800_000_500 })
    expect(parseNote(later).signatures).toHaveLength(2)
    expect(verifyCosignature(later, 'witness.example', witness)).toEqual({ time: 1_800_000_500 })
  })

  test('sign checkpoints only', async () => {
    const other = await signNote('any text\n', origin, signer)
    await expect(cosign(other, { name: 'w', signer: witness, time: 1 })).rejects.toThrow(refused)
    await expect(cosign(note, { name: 'w', signer: witness, time: -1 })).rejects.toThrow(refused)
  })
})

describe('proofs of inclusion as a file', () => {
  const proof = formatTlogProof({ index: 7, hashes: inclusionProof(leaves, 7), checkpoint: note })

  test('are read back as they were written', () => {
    expect(parseTlogProof(proof)).toEqual({ index: 7, hashes: inclusionProof(leaves, 7), checkpoint: note })
    expect(proof.startsWith('c2sp.org/tlog-proof@v1\nindex 7\n')).toBe(true)
    const extra = formatTlogProof({ index: 7, hashes: [], checkpoint: note, extra: Uint8Array.of(1, 2) })
    expect(extra.startsWith('c2sp.org/tlog-proof@v1\nextra AQI=\nindex 7\n\n')).toBe(true)
    expect(formatTlogProof(parseTlogProof(extra))).toBe(extra)
  })

  test('no bit of one can be turned over', async () => {
    const { verifyInclusion } = await import('../../src/proof/merkle.ts')
    const leaf = leafHash('row 7')
    const holds = (bytes: Uint8Array) => {
      const { index, hashes, checkpoint } = parseTlogProof(textOf(bytes))
      const { size, root } = verifyCheckpoint(checkpoint, origin, signer)
      return verifyInclusion({ index, size, leaf, root, proof: hashes })
    }
    expect(holds(Buffer.from(proof))).toBe(true)
    expect(acceptedFlips(Buffer.from(proof), holds)).toEqual([])
  })

  test.each<[string, (proof: string) => string]>([
    ['another header', (good) => good.replace('@v1', '@v2')],
    ['no index', (good) => good.replace('index 7\n', '')],
    ['a leading zero', (good) => good.replace('index 7', 'index 07')],
    ['an index beyond the log', (good) => good.replace('index 7', 'index 21')],
    ['a short hash', (good) => good.replace('index 7\n', `index 7\n${toBase64(new Uint8Array(31))}\n`)],
    ['extra after the index', (good) => good.replace('index 7\n', 'index 7\nextra AQI=\n')],
    ['an empty line more', (good) => good.replace('index 7\n', 'index 7\n\n')],
    ['64 hashes', (good) => good.replace('index 7\n', `index 7\n${`${toBase64(emptyRoot)}\n`.repeat(64)}`)],
    ['no checkpoint', (good) => good.slice(0, good.indexOf('\n\n'))],
  ])('with %s are refused', (_, spoil) => {
    expect(() => parseTlogProof(spoil(proof))).toThrow(refused)
  })
})
