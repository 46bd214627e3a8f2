import { execFileSync, spawnSync } from 'node:child_process'
import { createPublicKey } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bundleFromJSON, type TLogEntryWithInclusionProof } from '@sigstore/bundle'
import { toSignedEntity, toTrustMaterial, Verifier } from '@sigstore/verify'
import { verifyTLogInclusion } from '@sigstore/verify/dist/tlog/index.js'
import { afterAll, describe, expect, test } from 'vitest'
import { consistencyProof, inclusionProof, leafHash, rootOf } from '../../src/proof/merkle.ts'
import { makeCheckpoint, signNote, verifierKey } from '../../src/proof/note.ts'
import { inTotoStatement, makeBundle } from '../../src/proof/sigstore.ts'
import { formatTlogProof } from '../../src/proof/tlog-proof.ts'
import { formatSums } from '../../src/proof/sums.ts'
import { newSigner } from './signers.ts'

/** What we write, read by programs that aren't ours. */

const folder = mkdtempSync(join(tmpdir(), 'tms-conformance-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const signer = newSigner()
const publicKey = createPublicKey(signer.publicKeyPem)
const origin = 'tms.invalid/ledger/0b8de6f0-6a7b-4a41-8f57-3a1f6f0b5c1d'
const rows = Array.from({ length: 200 }, (_, n) => Buffer.from(`tms-ledger-v1\n${n}\nrow`))
const leaves = rows.map((row) => leafHash(row))
const checkpointOf = (size: number) =>
  signNote(makeCheckpoint({ origin, size, root: rootOf(leaves.slice(0, size)) }), origin, signer)
const row = (index: number) => rows[index] ?? Buffer.alloc(0)

describe('sigstore-js', () => {
  const statement = inTotoStatement({
    subject: [{ name: 'manifest.json', sha256: 'ab'.repeat(32) }],
    predicateType: 'https://tms.invalid/green-posture/v1',
    predicate: { day: '2026-11-20' },
  })
  const noRoots = { mediaType: '', certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] }
  const rawBytes = publicKey.export({ type: 'spki', format: 'der' })
  const trust = toTrustMaterial({ ...noRoots }, (hint) => {
    if (hint !== signer.fingerprint) throw new Error(`unknown key ${hint}`)
    return { publicKey: createPublicKey({ key: rawBytes, format: 'der', type: 'spki' }), validFor: () => true }
  })
  const verifier = new Verifier(trust, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 })

  test('accepts our bundle with our key as trust, and reads the same payload', async () => {
    const text = await makeBundle(statement, signer)
    const bundle = bundleFromJSON(JSON.parse(text))
    expect(bundle.mediaType).toBe('application/vnd.dev.sigstore.bundle.v0.3+json')
    verifier.verify(toSignedEntity(bundle))
    if (bundle.content.$case !== 'dsseEnvelope') throw new Error('no envelope')
    expect(JSON.parse(bundle.content.dsseEnvelope.payload.toString('utf8'))).toEqual(statement)
  })

  test('refuses it with another key behind the hint, and with another payload', async () => {
    const good = await makeBundle(statement, signer)
    const forged = (await makeBundle(statement, newSigner())).replace(
      /"hint":"[0-9a-f]+"/,
      `"hint":"${signer.fingerprint}"`,
    )
    const other = await makeBundle({ predicate: {} }, signer)
    const signatureOf = (text: string) => /"sig":"([^"]+)"/.exec(text)?.[1] ?? ''
    const changed = other.replace(signatureOf(other), signatureOf(good))
    for (const text of [forged, changed]) {
      expect(() => verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(text))))).toThrow(
        'signature verification failed',
      )
    }
  })

  test('accepts our checkpoints and proofs of inclusion', async () => {
    const entry = (index: number, size: number, checkpoint: string): TLogEntryWithInclusionProof => ({
      logIndex: String(index),
      logId: { keyId: Buffer.alloc(32) },
      kindVersion: { kind: 'dsse', version: '0.0.1' },
      integratedTime: '0',
      inclusionPromise: undefined,
      inclusionProof: {
        logIndex: String(index),
        rootHash: Buffer.from(rootOf(leaves.slice(0, size))),
        treeSize: String(size),
        hashes: inclusionProof(leaves.slice(0, size), index).map((hash) => Buffer.from(hash)),
        checkpoint: { envelope: checkpoint },
      },
      canonicalizedBody: row(index),
    })
    const keyHint = Buffer.from(verifierKey(origin, signer).split('+')[1] ?? '', 'hex')
    const logs = [
      { logID: keyHint, baseURL: origin, publicKey, validFor: { start: new Date(0), end: new Date(8.64e15) } },
    ]
    for (const size of [1, 2, 3, 64, 65, 127, 200]) {
      const checkpoint = await checkpointOf(size)
      for (let index = 0; index < size; index += 1) verifyTLogInclusion(entry(index, size, checkpoint), logs)
      const wrong = { ...entry(0, size, checkpoint), canonicalizedBody: Buffer.from('another row') }
      expect(() => verifyTLogInclusion(wrong, logs)).toThrow('does not match')
    }
    const stranger = await signNote(
      makeCheckpoint({ origin, size: 1, root: rootOf(leaves.slice(0, 1)) }),
      origin,
      newSigner(),
    )
    expect(() => verifyTLogInclusion(entry(0, 1, stranger), logs)).toThrow('invalid checkpoint signature')
  })
})

describe('openssl and sha256sum', () => {
  test('verify the signature over SHA256SUMS with the public key as we print it', async () => {
    writeFileSync(join(folder, 'a.json'), '{}\n')
    const sums = formatSums([
      { name: 'a.json', sha256: 'ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356' },
    ])
    writeFileSync(join(folder, 'SHA256SUMS'), sums)
    writeFileSync(join(folder, 'SHA256SUMS.sig'), await signer.sign(Buffer.from(sums)))
    writeFileSync(join(folder, 'key.pem'), signer.publicKeyPem)
    const check = () =>
      spawnSync(
        'openssl',
        [
          'pkeyutl',
          '-verify',
          '-pubin',
          '-inkey',
          'key.pem',
          '-rawin',
          '-in',
          'SHA256SUMS',
          '-sigfile',
          'SHA256SUMS.sig',
        ],
        { cwd: folder, encoding: 'utf8' },
      ).status
    expect(check()).toBe(0)
    expect(spawnSync('sha256sum', ['--strict', '-c', 'SHA256SUMS'], { cwd: folder }).status).toBe(0)
    writeFileSync(join(folder, 'SHA256SUMS'), sums.replace('a.json', 'b.json'))
    expect(check()).toBe(1)
  })

  test('print our fingerprint', () => {
    writeFileSync(join(folder, 'key.pem'), signer.publicKeyPem)
    const printed = execFileSync('sh', ['-c', 'openssl pkey -pubin -in key.pem -outform DER | sha256sum'], {
      cwd: folder,
    })
    expect(printed.toString()).toBe(`${signer.fingerprint}  -\n`)
  })
})

describe("Go's module database and Certificate Transparency's verifier", () => {
  // Debian packages: golang-go, golang-golang-x-mod-dev, golang-github-google-certificate-transparency-dev
  const gopath = '/usr/share/gocode'
  const missing = [
    ...(spawnSync('go', ['version']).status === 0 ? [] : ['go']),
    ...['golang.org/x/mod/sumdb/note', 'github.com/google/certificate-transparency/go/merkletree'].filter(
      (name) => !existsSync(join(gopath, 'src', name)),
    ),
  ]

  test('accept our checkpoints, inclusion and consistency proofs', async (context) => {
    context.skip(missing.length > 0, `this machine lacks ${missing.join(', ')}`)
    const program = join(folder, 'check')
    execFileSync('go', ['build', '-o', program, join(import.meta.dirname, 'go/main.go')], {
      env: {
        PATH: process.env.PATH,
        GOPATH: gopath,
        GO111MODULE: 'off',
        CGO_ENABLED: '0',
        GOCACHE: join(folder, 'cache'),
        HOME: folder,
      },
    })
    const claim = async (index: number, from: number, to: number) => {
      const checkpoint = await checkpointOf(to)
      return {
        VerifierKey: verifierKey(origin, signer),
        Old: await checkpointOf(from),
        Checkpoint: checkpoint,
        Leaf: row(index).toString('base64'),
        Proof: formatTlogProof({ index, hashes: inclusionProof(leaves.slice(0, to), index), checkpoint }),
        Consistency: consistencyProof(leaves.slice(0, to), from).map((hash) => Buffer.from(hash).toString('base64')),
      }
    }
    const run = (input: object) => spawnSync(program, { input: JSON.stringify(input), encoding: 'utf8' })
    const sizes = [1, 2, 3, 5, 8, 33, 64, 100, 127, 128, 129, 200]
    for (const [at, to] of sizes.entries()) {
      for (const from of sizes.slice(0, at + 1)) {
        const { status, stderr } = run(await claim((from * 7) % to, from, to))
        expect([from, to, status, stderr]).toEqual([from, to, 0, ''])
      }
    }
    const good = await claim(5, 33, 200)
    const stranger = { ...good, VerifierKey: verifierKey(origin, newSigner()) }
    const otherRow = { ...good, Leaf: row(6).toString('base64') }
    const shorter = { ...good, Consistency: good.Consistency.slice(1) }
    expect([stranger, otherRow, shorter].map((input) => run(input).status)).toEqual([1, 1, 1])
  })
})
