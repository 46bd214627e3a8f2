import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { textOf } from '../../src/proof/bytes.ts'
import { pae } from '../../src/proof/dsse.ts'
import { publicHalf, publicHalfOfRaw, verifySignature } from '../../src/proof/ed25519.ts'
import { inTotoStatement, makeBundle, parseBundle, verifyBundle } from '../../src/proof/sigstore.ts'
import { formatSums, parseSums } from '../../src/proof/sums.ts'
import { acceptedFlips, newSigner } from './signers.ts'

const signer = newSigner()
const stranger = newSigner()
const statement = inTotoStatement({
  subject: [{ name: 'manifest.json', sha256: 'ab'.repeat(32) }],
  predicateType: 'https://tms.invalid/green-posture/v1',
  predicate: { day: '2026-11-20', revision: 1, verdict: 'green' },
})
const bundle = await makeBundle(statement, signer)
const refused = expect.objectContaining({ name: 'ProofError' })

describe('bundles', () => {
  test('hold a statement that the named key signed', () => {
    expect(verifyBundle(bundle, signer)).toEqual(statement)
    expect(parseBundle(bundle).hint).toBe(signer.fingerprint)
    expect(() => verifyBundle(bundle, stranger)).toThrow('names the key')
  })

  test('sign what kind of thing the payload is', async () => {
    expect(new TextDecoder().decode(pae('http://example.com/HelloWorld', Buffer.from('hello world')))).toBe(
      'DSSEv1 29 http://example.com/HelloWorld 11 hello world',
    )
    const tombstone = await makeBundle({ type: 'tms-tombstone-v1' }, signer, 'application/vnd.tms.tombstone+json')
    expect(() => verifyBundle(tombstone, signer)).toThrow('is no application/vnd.in-toto+json')
    const renamed = tombstone.replace('application/vnd.tms.tombstone+json', 'application/vnd.in-toto+json')
    expect(() => verifyBundle(renamed, signer)).toThrow('is wrong')
  })

  test('no bit of one can be turned over', () => {
    const accepted = acceptedFlips(Buffer.from(bundle), (bytes) => verifyBundle(textOf(bytes), signer) !== null)
    expect(accepted).toEqual([])
  })

  test.each<[string, (bundle: string) => string]>([
    ['a key id, which nothing signs', (good) => good.replace('{"sig":', '{"keyid":"a","sig":')],
    ['another signature', (good) => good.replace(/\{"sig":"[^"]+"\}/, '$&,$&')],
    ['no signature', (good) => good.replace(/\{"sig":"[^"]+"\}/, '')],
    ['a field more', (good) => good.replace('{"dsse', '{"dog":1,"dsse')],
    ['an entry of a log', (good) => good.replace('"tlogEntries":[]', '"tlogEntries":[{}]')],
    ['another version', (good) => good.replace('v0.3', 'v0.2')],
    ['other blanks', (good) => good.replace('":"', '": "')],
    ['another order', (good) => good.replace(/^\{("dsseEnvelope":.+),("mediaType":"[^"]+"),/, '{$2,$1,')],
    ['no newline', (good) => good.slice(0, -1)],
    ['base64 without padding', (good) => good.replace(/=+"\}\]/, '"}]')],
  ])('with %s are refused', (_, spoil) => {
    expect(spoil(bundle)).not.toBe(bundle)
    expect(() => parseBundle(spoil(bundle))).toThrow(refused)
  })

  test('a payload that is not canonical JSON is refused, although it is signed', async () => {
    const { makeEnvelope } = await import('../../src/proof/dsse.ts')
    const { canonicalFile } = await import('../../src/proof/canonical.ts')
    const { signatures, ...envelope } = await makeEnvelope(
      'application/vnd.in-toto+json',
      Buffer.from('{"a": 1}'),
      signer,
    )
    const made = canonicalFile({
      mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
      verificationMaterial: { publicKey: { hint: signer.fingerprint }, tlogEntries: [] },
      dsseEnvelope: { ...envelope, signatures },
    })
    expect(() => verifyBundle(made, signer)).toThrow('not canonical')
  })
})

describe('public keys', () => {
  test('are the same from PEM and from their 32 bytes', () => {
    const { fingerprint, publicKeyPem, publicKey } = signer
    expect(publicHalf(publicKeyPem)).toEqual({ fingerprint, publicKeyPem, publicKey })
    expect(publicHalfOfRaw(publicKey)).toEqual({ fingerprint, publicKeyPem, publicKey })
    expect(publicHalf(publicKeyPem.replaceAll('\n', '\r\n')).publicKeyPem).toBe(publicKeyPem)
  })

  test('a private key, an RSA key and other text are refused', async () => {
    const { generateKeyPairSync } = await import('node:crypto')
    const { makePrivateKey } = await import('../../src/keys/private.ts')
    const rsa = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'pem' })
    expect(() => publicHalf(makePrivateKey())).toThrow('is a private key')
    expect(() => publicHalf(rsa.toString())).toThrow('is no Ed25519 key')
    expect(() => publicHalf('hello')).toThrow('no public key')
    expect(() => publicHalfOfRaw(new Uint8Array(31))).toThrow('32 bytes')
  })

  test('no bit of a signature can be turned over', async () => {
    const bytes = Buffer.from('SHA256SUMS')
    const signature = await signer.sign(bytes)
    expect(verifySignature(signer, bytes, signature)).toBe(true)
    expect(acceptedFlips(signature, (broken) => verifySignature(signer, bytes, broken))).toEqual([])
    expect(acceptedFlips(bytes, (broken) => verifySignature(signer, broken, signature))).toEqual([])
    expect(verifySignature(signer, bytes, signature.slice(0, 63))).toBe(false)
  })
})

describe('SHA256SUMS', () => {
  const digest = (text: string) => createHash('sha256').update(text).digest('hex')
  const names = ['manifest.json', 'VERIFY.sh', 'index.html', 'a-b.txt', 'a.txt']
  const sums = formatSums(names.map((name) => ({ name, sha256: digest(name) })))

  test('is sorted by bytes, and read back', () => {
    expect(parseSums(sums).map(({ name }) => name)).toEqual([
      'VERIFY.sh',
      'a-b.txt',
      'a.txt',
      'index.html',
      'manifest.json',
    ])
    expect(formatSums(parseSums(sums))).toBe(sums)
  })

  test('no bit of it can be turned over: refused, or its signature fails', async () => {
    const signature = await signer.sign(Buffer.from(sums))
    const accepted = acceptedFlips(
      Buffer.from(sums),
      (bytes) => parseSums(textOf(bytes)).length > 0 && verifySignature(signer, bytes, signature),
    )
    expect(accepted).toEqual([])
  })

  test('reads nothing that it would write in another way', () => {
    fc.assert(
      fc.property(fc.nat(sums.length - 1), fc.string({ maxLength: 3 }), fc.nat(3), (at, put, over) => {
        const changed = sums.slice(0, at) + put + sums.slice(at + over)
        let read
        try {
          read = parseSums(changed)
        } catch {
          return
        }
        expect(formatSums(read)).toBe(changed)
      }),
      { numRuns: 2000 },
    )
  })

  test.each([
    ['nothing', ''],
    ['a blank line', `${sums}\n`],
    ['no newline at the end', sums.slice(0, -1)],
    ['one blank', sums.replace('  a.txt', ' a.txt')],
    ['binary mode', sums.replace('  a.txt', ' *a.txt')],
    ['capital hex', sums.toUpperCase()],
    ['a folder', sums.replace('a.txt', 'a/b.txt')],
    ['a way out', sums.replace('VERIFY.sh', '../VERIFY.sh')],
    ['a dot file', sums.replace('VERIFY.sh', '.VERIFY.sh')],
    ['an option', sums.replace('VERIFY.sh', '-VERIFY.sh')],
    ['an escape', sums.replace('VERIFY.sh', 'VER\\nIFY.sh')],
    ['a name twice', sums.replace('a-b.txt', 'a.txt')],
    ['another order', sums.split('\n').slice(0, -1).reverse().join('\n') + '\n'],
    ['line ends of Windows', sums.replaceAll('\n', '\r\n')],
  ])('with %s is refused', (_, text) => {
    expect(() => parseSums(text)).toThrow(refused)
  })
})
