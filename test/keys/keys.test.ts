import { createPrivateKey } from 'node:crypto'
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { distrust, formatKeys, parseKeys } from '../../src/keys/introduction.ts'
import {
  exportKeys,
  generateKey,
  keysFinding,
  listKeys,
  revokeKey,
  rotateKey,
  usableSigner,
} from '../../src/keys/keys.ts'
import type { SignerSources } from '../../src/keys/open.ts'
import { makePrivateKey, signerOf } from '../../src/keys/private.ts'
import { publicHalf, verifySignature, type PublicHalf } from '../../src/proof/ed25519.ts'
import { sqlBeside, subjects, type Subject } from '../contract/subjects.ts'
import { newSigner } from '../proof/signers.ts'
import { freshSources } from './sources.ts'

const now = () => new Date()
const usual = { days: 400, register: false }
const takeover = { days: 400, keep: false, to: null }

describe.each(Object.keys(subjects) as (keyof typeof subjects)[])('keys on %s', (name) => {
  let subject: Subject
  let driver: Driver
  let sources: SignerSources
  beforeAll(async () => {
    subject = await subjects[name]()
    driver = await subject.operator()
  })
  afterAll(async () => {
    await driver.close()
    await subject.stop()
  })
  beforeEach(async () => {
    sources = freshSources()
    await sql('delete from tms.signing_keys')
    return () => rmSync(join(sources.keysFolder, '..'), { recursive: true, force: true })
  })
  const sql: Subject['sql'] = (text, parameters) => sqlBeside(subject, driver)(text, parameters)
  const pathOf = (file = 'signing.pem') => join(sources.keysFolder, file)
  const ledger = () =>
    sql(`select action, subject, why, body from tms.ledger_inbox where action like 'key.%' order by id desc limit 3`)

  test('the first key is made 0600 in a folder 0700, registered, in the ledger, and signs', async () => {
    const made = await generateKey(driver, sources, usual)
    expect([made.made, made.place, made.introduced_by]).toEqual([true, pathOf(), null])
    expect([statSync(pathOf()).mode & 0o777, statSync(sources.keysFolder).mode & 0o777]).toEqual([0o600, 0o700])
    expect(readdirSync(sources.keysFolder)).toEqual(['signing.pem'])

    const signer = await usableSigner(driver, sources, now)
    expect(signer.fingerprint).toBe(made.fingerprint)
    const { keys } = await exportKeys(driver, { all: false })
    const exported = publicHalf(String(keys[0]?.public_pem))
    expect(verifySignature(exported, Buffer.from('x'), await signer.sign(Buffer.from('x')))).toBe(true)
    expect((Date.parse(signer.notAfter) - Date.parse(signer.notBefore)) / 86_400_000).toBe(400)

    const [row] = await ledger()
    expect([row?.['action'], row?.['subject']]).toEqual(['key.begin', made.fingerprint])
    expect(JSON.parse(String(row?.['body']))).toMatchObject({
      fingerprint: made.fingerprint,
      public_pem: exported.publicKeyPem,
    })
    expect(keysFinding(await listKeys(driver, sources))).toBeNull()
  })

  test('a new key is introduced by the old one, which is removed; whoever trusts the old one can follow', async () => {
    const first = await generateKey(driver, sources, usual)
    const trusted = publicHalf(String((await exportKeys(driver, { all: false })).keys[0]?.public_pem))
    const second = await rotateKey(driver, sources, takeover)
    const third = await rotateKey(driver, sources, { ...takeover, keep: true })
    expect([second.introduced_by, third.introduced_by]).toEqual([first.fingerprint, second.fingerprint])
    const kept = `signing-${second.fingerprint.slice(0, 8)}.pem`
    expect(readdirSync(sources.keysFolder)).toEqual([kept, 'signing.pem'])
    expect(signerOf(readFileSync(pathOf(kept), 'utf8'))?.fingerprint).toBe(second.fingerprint)
    expect([statSync(pathOf(kept)).mode & 0o777, third.kept]).toEqual([0o600, pathOf(kept)])
    expect((await usableSigner(driver, sources, now)).fingerprint).toBe(third.fingerprint)

    const { keys } = await exportKeys(driver, { all: true })
    expect(keys.map(({ fingerprint, state }) => [fingerprint, state])).toEqual([
      [first.fingerprint, 'retired'],
      [second.fingerprint, 'retired'],
      [third.fingerprint, 'valid'],
    ])
    const chain = parseKeys(formatKeys(keys))
    expect(distrust({ keys: chain, trusted }, third.fingerprint, third.not_before)).toBeNull()
    expect((await ledger()).map((row) => row['action'])).toEqual(['key.rotate', 'key.rotate', 'key.begin'])
  })

  test('a revoked key signs no more, introduces nobody, and a new chain begins', async () => {
    const first = await generateKey(driver, sources, usual)
    const { key } = await revokeKey(driver, { fingerprint: first.fingerprint.slice(0, 12), why: 'laptop stolen' })
    expect([key.state, key.why]).toEqual(['revoked', 'laptop stolen'])
    expect(await ledger()).toContainEqual(expect.objectContaining({ action: 'key.revoke', why: 'laptop stolen' }))
    const refused = { code: 'CONFIG_INVALID', exit: 2, next: ['tms evidence keys generate'] }
    await expect(usableSigner(driver, sources, now)).rejects.toMatchObject(refused)
    await expect(rotateKey(driver, sources, takeover)).rejects.toMatchObject(refused)
    await expect(generateKey(driver, sources, { ...usual, register: true })).rejects.toMatchObject({ code: 'CONFLICT' })
    await expect(revokeKey(driver, { fingerprint: first.fingerprint, why: 'again' })).rejects.toMatchObject({
      code: 'CONFLICT',
    })
    expect(keysFinding(await listKeys(driver, sources))).toBe('no key is in force')

    const second = await generateKey(driver, sources, usual)
    expect(second.introduced_by).toBeNull()
    expect((await usableSigner(driver, sources, now)).fingerprint).toBe(second.fingerprint)
    // what the revoked one signed may still have to be looked at
    expect(existsSync(pathOf(`signing-${first.fingerprint.slice(0, 8)}.pem`))).toBe(true)
  })

  test('outside its time a key signs nothing, also for whoever opened it before', async () => {
    const { fingerprint } = await generateKey(driver, sources, usual)
    let clock = Date.now()
    const signer = await usableSigner(driver, sources, () => new Date(clock))
    const ended = { code: 'CONFIG_INVALID', exit: 2, next: ['tms evidence keys rotate'] }
    clock += 401 * 86_400_000
    await expect(signer.sign(Buffer.from('x'))).rejects.toMatchObject(ended)

    await sql(
      `update tms.signing_keys set not_before = now() - interval '10 days', not_after = now() - interval '1 second'`,
    )
    await expect(usableSigner(driver, sources, now)).rejects.toMatchObject(ended)
    expect(keysFinding(await listKeys(driver, sources))).toBe('the key in force has ended')
    const [row] = await sql('select tms._signing_key_problem($1) as problem', [fingerprint])
    expect(row?.['problem']).toMatch(/^it was valid until /)
    // and the way out that was named works
    const next = await rotateKey(driver, sources, takeover)
    expect((await usableSigner(driver, sources, now)).fingerprint).toBe(next.fingerprint)
    const [after] = await sql('select tms._signing_key_problem($1) as problem', [next.fingerprint])
    expect(after?.['problem']).toBeNull()
  })

  test('a key that ends within a month, or whose file others can read, is a finding', async () => {
    await generateKey(driver, sources, { ...usual, days: 20 })
    expect(keysFinding(await listKeys(driver, sources))).toBe('the key in force ends within 30 days')
    await rotateKey(driver, sources, takeover)
    chmodSync(pathOf(), 0o640)
    expect(keysFinding(await listKeys(driver, sources))).toBe('others of this machine can read the private key')
  })

  test('whoever signs with a key that others can read is warned, and told what to do', async () => {
    const { fingerprint } = await generateKey(driver, sources, usual)
    const warnings: string[] = []
    const sign = () => usableSigner(driver, sources, now, (text) => warnings.push(text))
    await sign()
    expect(warnings).toEqual([])
    chmodSync(pathOf(), 0o644)
    expect((await sign()).fingerprint).toBe(fingerprint)
    expect(warnings).toEqual([expect.stringContaining(`chmod 600 ${pathOf()}`)])
  })

  test('a lost key leads out: restore it, or revoke it and begin anew, whichever command says so', async () => {
    const { fingerprint } = await generateKey(driver, sources, usual)
    rmSync(pathOf())
    const out = {
      next: [
        expect.stringMatching(/^cp /),
        `tms evidence keys revoke ${fingerprint.slice(0, 16)} --why "the key is lost"`,
        'tms evidence keys generate',
      ],
    }
    await expect(usableSigner(driver, sources, now)).rejects.toMatchObject({ code: 'CONFIG_MISSING', ...out })
    await expect(rotateKey(driver, sources, takeover)).rejects.toMatchObject({ code: 'CONFIG_MISSING', ...out })
    await expect(generateKey(driver, sources, usual)).rejects.toMatchObject({ code: 'CONFLICT', ...out })
    await revokeKey(driver, { fingerprint: fingerprint.slice(0, 16), why: 'the key is lost' })
    const { fingerprint: anew } = await generateKey(driver, sources, usual)
    expect((await usableSigner(driver, sources, now)).fingerprint).toBe(anew)
  })

  test('of two that generate at once one wins, and the other says so and leaves no key', async () => {
    const others = [freshSources(), freshSources(), freshSources()]
    const results = await Promise.allSettled([sources, ...others].map(async (each) => generateKey(driver, each, usual)))
    const lost = results.filter(({ status }) => status === 'rejected')
    expect(lost).toHaveLength(3)
    for (const result of lost) expect(result).toHaveProperty('reason.code', 'CONFLICT')
    const files = [sources, ...others].filter(({ keysFolder }) => existsSync(join(keysFolder, 'signing.pem')))
    expect(files).toHaveLength(1)
    for (const { keysFolder } of others) rmSync(join(keysFolder, '..'), { recursive: true, force: true })
  })

  test('of many that register at the same moment one wins, and each of the others is told so', async () => {
    const drivers = await Promise.all(Array.from({ length: 4 }, () => subject.operator()))
    const requests = [...drivers, ...drivers, ...drivers].map((each) => ({ each, args: request(newSigner()) }))
    const answers = await Promise.all(requests.map(({ each, args }) => each.call('keys_add', args)))
    for (const each of drivers) await each.close()
    const refusals = answers.flatMap((answer) => ('refused' in answer ? [answer.refused.code] : []))
    expect(refusals).toEqual(Array.from({ length: 11 }, () => 'CONFLICT'))
  })

  test('of two that rotate at once in one folder one wins, and its key is the one that is left', async () => {
    await generateKey(driver, sources, usual)
    const results = await Promise.allSettled([1, 2, 3].map(() => rotateKey(driver, sources, takeover)))
    const won = results.filter((result) => result.status === 'fulfilled')
    expect(won.length).toBeGreaterThanOrEqual(1)
    for (const result of results) if (result.status === 'rejected') expect(result.reason).toMatchObject({ exit: 4 })
    const inForce = (await exportKeys(driver, { all: false })).keys[0]
    expect((await usableSigner(driver, sources, now)).fingerprint).toBe(inForce?.fingerprint)
    expect(readdirSync(sources.keysFolder)).toEqual(['signing.pem'])
  })

  test('two databases that share a keys folder rotate each in its own time', async () => {
    // the other database is this one with other rows: it knows the first key only
    const first = await generateKey(driver, sources, usual)
    const second = await rotateKey(driver, sources, { ...takeover, keep: true })
    await sql(`delete from tms.signing_keys where fingerprint = $1`, [second.fingerprint])
    await sql(`update tms.signing_keys set state = 'valid', ended_at = null`)
    expect((await usableSigner(driver, sources, now)).fingerprint).toBe(first.fingerprint)
    const third = await rotateKey(driver, sources, takeover)
    expect((await usableSigner(driver, sources, now)).fingerprint).toBe(third.fingerprint)
    expect(signerOf(readFileSync(pathOf(), 'utf8'))?.fingerprint).toBe(second.fingerprint)
    expect(readdirSync(sources.keysFolder)).toEqual([`signing-${third.fingerprint.slice(0, 8)}.pem`, 'signing.pem'])
  })

  test('a key of before this release is named, and registered as it is', async () => {
    const pem = makePrivateKey()
    await generateKey(driver, sources, usual)
    await sql('delete from tms.signing_keys')
    writeFileSync(pathOf(), pem)
    await sql(`insert into tms.environment (one) values (true) on conflict do nothing`)
    await sql(`update tms.environment set signing_key_fingerprint = $1 where one`, [signerOf(pem)?.fingerprint])
    const list = await listKeys(driver, sources)
    expect([list.announced, list.own?.registered]).toEqual([signerOf(pem)?.fingerprint, false])
    const toRegister = { exit: 2, next: ['tms evidence keys generate --register'] }
    await expect(usableSigner(driver, sources, now)).rejects.toMatchObject(toRegister)
    await expect(generateKey(driver, sources, usual)).rejects.toMatchObject({ code: 'CONFLICT' })
    const made = await generateKey(driver, sources, { ...usual, register: true })
    expect([made.fingerprint, made.made]).toEqual([signerOf(pem)?.fingerprint, false])
    expect(readFileSync(pathOf(), 'utf8')).toBe(pem)
  })

  test('without a key, and with another than the one in force, nothing is signed', async () => {
    await expect(usableSigner(driver, sources, now)).rejects.toMatchObject({
      code: 'CONFIG_MISSING',
      next: expect.arrayContaining(['tms evidence keys generate']),
    })
    await generateKey(driver, sources, usual)
    writeFileSync(pathOf(), makePrivateKey())
    await expect(usableSigner(driver, sources, now)).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    await expect(rotateKey(driver, sources, takeover)).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    expect(keysFinding(await listKeys(driver, sources))).toBe('this machine does not have the key in force')
  })

  test('TMS_SIGNING_KEY signs, is registered as it is, and is rotated to a key that somebody else made', async () => {
    const pem = makePrivateKey()
    const environment = { TMS_SIGNING_KEY: pem.replaceAll('\n', '\\n') }
    const variable = { ...sources, environment }
    await expect(generateKey(driver, variable, usual)).rejects.toMatchObject({ code: 'USAGE' })
    const made = await generateKey(driver, variable, { ...usual, register: true })
    expect([made.place, made.fingerprint]).toEqual(['TMS_SIGNING_KEY', signerOf(pem)?.fingerprint])
    await expect(rotateKey(driver, variable, takeover)).rejects.toMatchObject({ code: 'USAGE' })
    const next = newSigner()
    await rotateKey(driver, variable, { ...takeover, to: next.publicKeyPem })
    expect((await exportKeys(driver, { all: false })).keys[0]?.fingerprint).toBe(next.fingerprint)
    await expect(usableSigner(driver, variable, now)).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    await expect(rotateKey(driver, variable, { ...takeover, to: pem })).rejects.toMatchObject({ exit: 2 })
    expect(existsSync(sources.keysFolder)).toBe(false)
  })

  test('the database takes no private key, no other algorithm, no false fingerprint and no time of its own', async () => {
    const half = newSigner()
    const good = request(half)
    const rsa = half.publicKeyPem.replace('MCowBQYDK2Vw', 'MCowBQYDK2Vu')
    for (const odd of [
      { public_pem: makePrivateKey() },
      { public_pem: `${half.publicKeyPem}${makePrivateKey()}` },
      { public_pem: rsa },
      { fingerprint: 'a'.repeat(64) },
      { introduction: 'A'.repeat(88) },
      { not_before: moment(-2) },
      { not_before: moment(2) },
      { not_after: moment(-0.5) },
      { not_after: moment(1900) },
    ]) {
      const call = driver.call('keys_add', { ...good, request_id: crypto.randomUUID(), ...odd })
      await expect(call, JSON.stringify(odd)).rejects.toMatchObject({ code: 'INPUT_INVALID' })
    }
    const stranger = { ...good, introduced_by: 'b'.repeat(64) }
    expect(await driver.call('keys_add', stranger)).toHaveProperty('refused.code', 'CONFLICT')
    expect((await exportKeys(driver, { all: true })).keys).toEqual([])
  })

  test('no byte of a private key is in the database, after all that may be done with it', async () => {
    const bodies: string[] = []
    const remember = () => {
      for (const file of readdirSync(sources.keysFolder)) bodies.push(...secretsOf(readFileSync(pathOf(file), 'utf8')))
    }
    await generateKey(driver, sources, usual)
    remember()
    await rotateKey(driver, sources, { ...takeover, keep: true })
    remember()
    await usableSigner(driver, sources, now).then((signer) => signer.sign(Buffer.from('x')))
    await rotateKey(driver, sources, { ...takeover, to: makePrivateKey() }).catch(() => undefined)
    await revokeKey(driver, {
      fingerprint: String((await exportKeys(driver, { all: false })).keys[0]?.fingerprint),
      why: 'x',
    })
    expect(new Set(bodies).size).toBeGreaterThanOrEqual(6)
    const [row] = await sql(
      `select string_agg(query_to_xml(format('select x::text as r from tms.%I x', tablename), true, true, '')::text, '') as all
         from pg_tables where schemaname = 'tms'`,
    )
    expect(String(row?.['all'])).toContain('key.rotate')
    for (const body of bodies) expect(String(row?.['all'])).not.toContain(body)
  })

  test('anybody known may read the public halves, and not why one was revoked', async () => {
    const { fingerprint } = await generateKey(driver, sources, usual)
    await revokeKey(driver, { fingerprint, why: 'the laptop of Ann' })
    const ci = await subject.as(await subject.account('ci'))
    try {
      const answer = await ci.call('keys_list', {})
      expect(answer).toHaveProperty('keys.0.state', 'revoked')
      expect(JSON.stringify(answer)).not.toContain('Ann')
      const revoke = { request_id: crypto.randomUUID(), fingerprint, why: 'x' }
      expect(await ci.call('keys_revoke', revoke)).toHaveProperty('refused.code', 'ROLE_DENIED')
    } finally {
      await ci.close()
    }
  })
})

const moment = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString().replace('Z', '000Z')

/** A first key, as the database is asked to take it. */
function request(half: PublicHalf) {
  return {
    request_id: crypto.randomUUID(),
    fingerprint: half.fingerprint,
    public_pem: half.publicKeyPem,
    not_before: moment(0),
    not_after: moment(400),
    introduced_by: null,
    introduction: `${'A'.repeat(86)}==`,
  }
}

/** The 32 secret bytes and the line of PEM, in the spellings they could be kept in. */
function secretsOf(pem: string): string[] {
  const { d } = createPrivateKey(pem).export({ format: 'jwk' })
  const raw = Buffer.from(String(d), 'base64url')
  return [pem.split('\n')[1] ?? '', String(d), raw.toString('base64').slice(0, 40), raw.toString('hex')]
}
