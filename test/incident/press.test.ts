import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { connect, createServer as createTcp } from 'node:net'
import { once } from 'node:events'
import { constants, getPriority, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import type { DirectMessage } from '../../src/notify/directly.ts'
import { certificateOf, certificateText } from '../../src/incident/certificate.ts'
import { certifyLater } from '../../src/incident/certify.ts'
import { pressButton, type Press } from '../../src/incident/press.ts'
import type { Signer } from '../../src/keys/signer.ts'
import { canonicalJson } from '../../src/proof/canonical.ts'
import { publicHalf, verifySignature } from '../../src/proof/ed25519.ts'
import { startArena, type Arena } from '../attacks/fleet/arena.ts'
import { until } from '../servers/process.ts'
import { bin, build } from '../ui/built.ts'
import { collect, envelopeOf, run, said, start } from '../ui/process.ts'
import { another, certificateIn, haltAndResume, openScene, resumeNow, showOf, subjects, type Scene } from './fixture.ts'

const folder = mkdtempSync(join(tmpdir(), 'tms-press-'))
const never = new AbortController().signal
const keys = join(folder, 'keys')
beforeAll(() => {
  mkdirSync(keys, { mode: 0o700 })
  const { privateKey } = generateKeyPairSync('ed25519')
  writeFileSync(join(keys, 'signing.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A press where the database answers: neither the host nor people have to be told otherwise. */
function pressBy(driver: Driver, more: Partial<Press> = {}): Press {
  return {
    open: async () => driver,
    target: 'here',
    why: '',
    who: 'somebody',
    folder,
    signer: async () => null,
    stopHere: () => Promise.reject(new Error('the database answers')),
    stoppedHere: async () => false,
    notify: () => Promise.reject(new Error('the database answers')),
    clock: () => new Date(),
    now: () => performance.now(),
    pause: () => Promise.resolve(),
    warn: () => undefined,
    late: never,
    ...more,
  }
}

function newSigner(): { readonly half: ReturnType<typeof publicHalf>; readonly signer: Signer } {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const half = publicHalf(publicKey.export({ type: 'spki', format: 'pem' }).toString())
  return { half, signer: { ...half, sign: async (bytes) => new Uint8Array(sign(null, bytes, privateKey)) } }
}

describe.each(Object.entries(subjects))('the break-glass account through the %s driver', (name, start) => {
  let scene: Scene
  beforeAll(async () => {
    scene = await openScene(await start())
  })
  afterAll(() => scene.stop())

  test('presses the button, gets its certificate, and can do nothing else with the incident', async () => {
    const system = await scene.account('system')
    const warnings: string[] = []
    const pressed = await pressButton(
      pressBy(system, {
        why: 'everything burns',
        folder: join(folder, name),
        warn: (text) => void warnings.push(text),
      }),
    )
    expect(pressed).toMatchObject({ fenced: true, already: false, certificate: { by: 'system', signature: null } })
    expect(warnings).toEqual([
      expect.stringContaining('Nobody hears of this halt: no target takes incidents'),
      expect.stringContaining('not signed'),
    ])
    const id = pressed.incidentId ?? ''
    const request_id = () => randomUUID()
    const refused = await Promise.all([
      system.call('incident_show', { id }),
      system.call('incident_list', {}),
      system.call('incident_work', { request_id: request_id(), id, action: 'ack' }),
      system.call('incident_resume', { request_id: request_id(), id, step: 'prepare' }),
      system.call('incident_open', { request_id: request_id(), priority: 'P4', title: 'no' }),
      system.call('incident_soft_degrade', { request_id: request_id() }),
      system.call('incident_rollback_plan', {}),
      system.call('incident_cycle', { request_id: request_id() }),
      system.call('fence_resume', { request_id: request_id(), step: 'prepare', why: 'no' }),
      system.call('incident_certificates', { id }),
    ])
    expect(refused.map((answer) => ('refused' in answer ? answer.refused.code : 'granted'))).toEqual(
      refused.map(() => 'ROLE_DENIED'),
    )
    const shown = await showOf(scene.operator, id)
    expect(shown.events.map(({ kind }) => kind)).toEqual(['opened', 'certificate'])
    expect(shown.snapshot).not.toBeNull()
    expect(
      await scene.operator.call('incident_work', { request_id: request_id(), id, action: 'resolve', text: 'no' }),
    ).toMatchObject({ refused: { code: 'CONFLICT' } })
    await resumeNow(scene.operator, id)
    expect((await showOf(scene.operator, id)).incident).toMatchObject({ status: 'RESOLVED', resolution: 'resumed' })
  })

  test('knows of its own press only, and takes a snapshot of nothing but the stop that stands', async () => {
    const { operator } = scene
    const system = await scene.account('system')
    const request_id = () => randomUUID()
    const own = granted(await system.call('fence_halt', { why: 'its own' })).halt ?? ''
    const { incident } = granted(await system.call('incident_press', { request_id: request_id(), halt: own }))
    const others = granted(await operator.call('fence_halt', { why: 'not its own' })).halt ?? ''
    granted(await operator.call('incident_press', { request_id: request_id(), halt: others }))
    const facts = granted(await operator.call('incident_halt', { halt: others }))
    const asked = (halt: string, certificate: string) => [
      system.call('incident_halt', { halt }),
      system.call('fence_certificate', { request_id: request_id(), halt }),
      system.call('incident_press', { request_id: request_id(), halt }),
      system.call('incident_certified', { request_id: request_id(), halt, certificate }),
    ]
    const codes = async (calls: ReturnType<typeof asked>) =>
      (await Promise.all(calls)).map((answer) => ('refused' in answer ? answer.refused.code : 'granted'))
    const granting = ['granted', 'granted', 'granted', 'granted']
    const certificate = (of: typeof facts, more = {}) =>
      certificateText(certificateOf(of, { incident, target: 'anything', database: null, environment: null, ...more }))
    expect(await codes(asked(others, certificate(facts)))).toEqual(granting.map(() => 'NOT_FOUND'))
    const { database_id: database, environment } = granted(
      await operator.call('incident_certificates', { id: incident }),
    )
    const owned = granted(await system.call('incident_halt', { halt: own }))
    expect(await codes(asked(own, certificate(owned, { database, environment })))).toEqual(granting)

    const { incident: small } = granted(
      await operator.call('incident_open', { request_id: request_id(), tenant: 'acme', priority: 'P4', title: 'x' }),
    )
    await scene.sql(
      `alter table tms.incident_snapshots disable trigger append_only; delete from tms.incident_snapshots;
       alter table tms.incident_snapshots enable always trigger append_only`,
    )
    const taken = async (id: string) =>
      granted(await system.call('incident_snapshot', { request_id: request_id(), id })).taken
    expect([await taken(small.id), await taken(incident), await taken(incident)]).toEqual([false, true, false])
    granted(
      await operator.call('incident_work', {
        ...{ request_id: request_id(), id: small.id, tenant: 'acme', action: 'resolve', text: 'done' },
      }),
    )
    await resumeNow(operator, incident)
  })

  /** Halts, with what an honest certificate of it says and a way to have any text kept. */
  const certifiable = async () => {
    const { operator } = scene
    const { halt } = granted(await operator.call('fence_halt', { why: 'a "test",\t\u001f\u007f\u2028 ☎' }))
    const pressed = granted(await operator.call('incident_press', { request_id: randomUUID(), halt: halt ?? '' }))
    const { incident, database_id: database, environment } = pressed
    const read = async () =>
      certificateOf(granted(await operator.call('incident_halt', { halt: halt ?? '' })), {
        ...{ incident, database, environment, target: operator.target.name },
      })
    const keep = (certificate: string) =>
      operator.call('incident_certified', { request_id: randomUUID(), halt: halt ?? '', certificate })
    return { halt: halt ?? '', incident, read, keep }
  }

  test('a certificate that says something else than the database is not kept, and the field is named', async () => {
    const worker = await scene.fleet.hello(['demo'])
    const told = await scene.fleet.hello(['demo'])
    const { incident, read, keep } = await certifiable()
    const { epoch } = await read()
    granted(await scene.fleet.worker.call('worker_beat', { worker: told, acknowledges: epoch }))
    const truth = await read()
    const [silent, heard] = [truth.silent[0], truth.acknowledged[0]]
    if (silent === undefined || heard === undefined) throw new Error('one of each is there')
    const invented = { ...silent, worker: 'invented' }
    const century = (at: string | null, which: string) => String(at).replace('20', which)
    const wrong: readonly (readonly [string, Record<string, unknown>])[] = [
      ['type', { type: 'tms-halt-certificate-v2' }],
      ['incident', { incident: '0' }],
      ['halt', { halt: '0' }],
      ['epoch', { epoch: truth.epoch + 1 }],
      ['database', { database: randomUUID() }],
      ['environment', { environment: 'production' }],
      ['at', { at: '2026-01-01T00:00:00.000000Z' }],
      ['by', { by: 'somebody else' }],
      ['why', { why: 'no reason' }],
      ['fenced', { fenced: false }],
      ['ms_to_fence', { ms_to_fence: '0.001' }],
      ['ms_to_fence', { ms_to_fence: Math.ceil(Number(truth.ms_to_fence)) }],
      ['waited_for', { waited_for: truth.waited_for + 1 }],
      ['waited_for', { waited_for: [truth.waited_for] }],
      ['in_flight', { in_flight: 99 }],
      ['workers', { workers: 3, silent: [silent, invented] }],
      ['workers', { workers: '2' }],
      ['terminated', { terminated: [{ pid: 1, login: 'x', application: '', transaction_began: truth.at }] }],
      ['survivors', { survivors: ['me'] }],
      ['target', { target: '' }],
      ['target', { target: 7 }],
      ['acknowledged', { acknowledged: [{ ...heard, worker: 'invented' }] }],
      ['acknowledged', { acknowledged: [heard, { ...silent, lease_until: undefined, at: heard.at }], silent: [] }],
      ['acknowledged', { acknowledged: [{ ...heard, at: century(truth.at, '19') }] }],
      ['acknowledged', { acknowledged: [{ ...heard, at: century(heard.at, '21') }] }],
      ['acknowledged', { acknowledged: [{ ...heard, note: 'and more' }] }],
      ['acknowledged', { acknowledged: 'nobody' }],
      ['silent', { silent: [] }],
      ['silent', { silent: [invented] }],
      ['silent', { silent: [silent, silent] }],
      ['silent', { silent: [{ ...silent, lease_until: 'tomorrow' }] }],
      ['silent', { silent: [{ ...silent, lease_until: century(silent.lease_until, '21') }] }],
      ['silent', { silent: [{ worker: silent.worker, host: silent.host }] }],
      ['silent', { silent: 'nobody' }],
      ['note', { note: 'all is well' }],
      ['resumed_by', { resumed_by: null }],
      ['waited_for', { waited_for: undefined }],
      ['target', { target: undefined }],
    ]
    const text = (forged: Record<string, unknown>) => canonicalJson({ ...truth, ...forged })
    for (const [field, forged] of wrong)
      expect([forged, await keep(text(forged))]).toMatchObject([
        forged,
        { refused: { code: 'CONFLICT', why: expect.stringContaining(`"${field}"`) as string } },
      ])
    // The same to a parser, and something else to whoever reads it otherwise.
    const honest = certificateText(truth)
    for (const spelled of [
      honest.replace('{', '{"by":"somebody else",'),
      honest.replace('{', '{ '),
      honest.replace(`"epoch":${epoch}`, `"epoch":${epoch}.0`),
      honest.replace('"by"', String.raw`"\u0062y"`),
      `${honest}\n`,
      JSON.stringify(Object.fromEntries(Object.entries(truth).reverse())),
    ])
      expect([spelled, await keep(spelled)]).toMatchObject([
        spelled,
        { refused: { code: 'CONFLICT', why: expect.stringContaining('canonical') as string } },
      ])
    for (const none of ['no JSON', '[]', 'null', '['.repeat(100_000), `${'['.repeat(4000)}${']'.repeat(4000)}`])
      expect(await keep(none)).toMatchObject({ refused: { code: 'CONFLICT' } })
    // Who is heard of after it was written makes it no less true.
    granted(await scene.fleet.worker.call('worker_beat', { worker: told }))
    granted(await scene.fleet.worker.call('worker_beat', { worker, acknowledges: epoch }))
    expect(await keep(honest)).not.toHaveProperty('refused')
    for (const each of [worker, told]) granted(await scene.fleet.worker.call('worker_bye', { worker: each }))
    await resumeNow(scene.operator, incident)
  })

  test('what the workers said of a halt is known after the next one too: a certificate that comes late must fit', async () => {
    const [worker, told] = [await scene.fleet.hello(['demo']), await scene.fleet.hello(['demo'])]
    const beat = async (each: string, acknowledges: number) =>
      granted(await scene.fleet.worker.call('worker_beat', { worker: each, acknowledges }))
    const { incident, read, keep } = await certifiable()
    const { epoch } = await read()
    await beat(told, epoch)
    const truth = await read()
    await resumeNow(scene.operator, incident)
    const { epoch: later } = granted(await scene.operator.call('fence_halt', { why: 'another' }))
    for (const each of [worker, told]) await beat(each, later)
    expect(await read()).toEqual(truth)
    expect(await keep(certificateText({ ...truth, acknowledged: [], silent: [] }))).toMatchObject({
      refused: { why: expect.stringContaining('"silent"') as string },
    })
    expect(await keep(certificateText(truth))).not.toHaveProperty('refused')
    for (const each of [worker, told]) granted(await scene.fleet.worker.call('worker_bye', { worker: each }))
    const again = granted(await scene.operator.call('incident_press', { request_id: randomUUID() }))
    await resumeNow(scene.operator, again.incident)
  })

  test('a wrong signature keeps no right one out, nor is it taken for one', async () => {
    const { halt, incident, read } = await certifiable()
    const { half, signer } = newSigner()
    const certificate = certificateText(await read())
    const at = join(folder, `wrong-${name}`)
    const file = join(at, incident, `certificate-${halt}.json`)
    const signed = (signature: string) => ({
      ...{ request_id: randomUUID(), halt, certificate, fingerprint: half.fingerprint, signature },
    })
    const wrong = `${'A'.repeat(86)}==`
    await expect(scene.operator.call('incident_certified', signed(wrong.replace('A=', 'B=')))).rejects.toMatchObject({
      code: 'INPUT_INVALID',
    })
    granted(await scene.operator.call('incident_certified', signed(wrong)))
    await scene.sql(
      `alter table tms.halt_signatures disable trigger append_only;
       update tms.halt_signatures set by_name = 'whoever may press' where halt_id = ${halt};
       alter table tms.halt_signatures enable always trigger append_only`,
    )
    const later = await certifyLater(scene.operator, incident, { signer, folder: at })
    expect(later.certificates).toMatchObject([{ before: false, fingerprint: half.fingerprint }])
    const right = readFileSync(`${file}.sig`)
    expect(verifySignature(half, readFileSync(file), right)).toBe(true)
    const { halts } = granted(await scene.operator.call('incident_certificates', { id: incident }))
    expect(halts[0]?.signed_by.map(({ signature }) => signature)).toEqual([wrong, right.toString('base64')])
    expect((await showOf(scene.operator, incident)).certificates).toMatchObject([{ signed_by: [half.fingerprint] }])
    expect(await certifyLater(scene.operator, incident, { signer, folder: at })).toMatchObject({
      certificates: [{ before: true }],
    })
    // The same signature from somebody else is nothing new.
    const times = async () =>
      (await showOf(scene.operator, incident)).events.filter(({ kind }) => kind === 'certificate').length
    const before = await times()
    await scene.sql(
      `alter table tms.halt_signatures disable trigger append_only;
       update tms.halt_signatures set by_name = 'another person' where halt_id = ${halt} and by_name <> 'whoever may press';
       alter table tms.halt_signatures enable always trigger append_only`,
    )
    granted(await scene.operator.call('incident_certified', signed(right.toString('base64'))))
    expect(await times()).toBe(before)
    await resumeNow(scene.operator, incident)
  })

  test('what lies in the folder and is not so is set aside, and the true certificate is kept and signed', async () => {
    const { halt, incident, read } = await certifiable()
    const { half, signer } = newSigner()
    const truth = await read()
    const at = join(folder, `aside-${name}`)
    const file = join(at, incident, `certificate-${halt}.json`)
    const aside = join(at, incident, `refused-certificate-${halt}.json`)
    const lie = certificateText({ ...truth, in_flight: 99 })
    mkdirSync(join(at, incident), { recursive: true })
    writeFileSync(file, lie)
    const { certificates } = await certifyLater(scene.operator, incident, { signer, folder: at })
    expect(certificates.find((one) => one.halt === halt)).toMatchObject({ before: false, aside })
    expect(certificates.filter((one) => one.aside !== null)).toHaveLength(1)
    expect(readFileSync(aside, 'utf8')).toBe(lie)
    expect(readFileSync(file, 'utf8')).toBe(certificateText(truth))
    expect(verifySignature(half, readFileSync(file), readFileSync(`${file}.sig`))).toBe(true)
    await resumeNow(scene.operator, incident)
  })

  test('a worker that was signing on at the press is in the certificate, though it was not seen at first', async () => {
    const { operator, fleet } = scene
    let asked = 0
    let late = ''
    const driver: Driver = {
      ...operator,
      async call(fn, args, options) {
        if (fn === 'incident_certified' && ++asked === 1) {
          late = await fleet.hello(['demo'])
          await scene.sql(
            `update tms.workers set started_at = (select max(at) - interval '1 second' from tms.halts) where id = ${late}`,
          )
        }
        return operator.call(fn, args, options)
      },
    }
    const warnings: string[] = []
    const pressed = await pressButton(pressBy(driver, { warn: (text) => void warnings.push(text) }))
    expect(asked).toBe(2)
    expect(warnings.filter((text) => text.includes('ledger'))).toEqual([])
    expect(pressed.certificate?.silent).toHaveLength(1)
    const incident = pressed.incidentId ?? ''
    const { halts } = granted(await operator.call('incident_certificates', { id: incident }))
    const at = join(folder, incident, `certificate-${halts[0]?.facts.halt}.json`)
    expect(halts[0]?.certificate).toBe(readFileSync(at, 'utf8'))
    granted(await fleet.worker.call('worker_bye', { worker: late }))
    await resumeNow(operator, incident)
  })

  test('of a halt that ended before it was kept what the workers had said, a certificate is not measured by the workers of now', async () => {
    const worker = await scene.fleet.hello(['demo'])
    const { halt, incident, read, keep } = await certifiable()
    const truth = await read()
    expect(truth.silent).toHaveLength(1)
    await resumeNow(scene.operator, incident)
    granted(await scene.fleet.worker.call('worker_bye', { worker }))
    await scene.sql(`update tms.halts set heard = null where id = ${halt}`)
    await scene.sql(`delete from tms.workers where id = ${worker}`)
    expect(await keep(certificateText({ ...truth, workers: 2 }))).toMatchObject({
      refused: { why: expect.stringContaining('"workers"') as string },
    })
    expect(await keep(certificateText({ ...truth, in_flight: 99 }))).toMatchObject({
      refused: { why: expect.stringContaining('"in_flight"') as string },
    })
    expect(await keep(certificateText(truth))).not.toHaveProperty('refused')
  })

  test('a later press counts as told only who was heard of since: not the dead, not the frozen', async () => {
    const { fleet, operator } = scene
    const halt = async () => {
      const { halt: id, epoch } = granted(await operator.call('fence_halt', { why: 'a test' }))
      granted(await operator.call('incident_press', { request_id: randomUUID(), halt: id ?? '' }))
      return { id: id ?? '', epoch }
    }
    const facts = async (id: string) => {
      const { acknowledged, silent } = granted(await operator.call('incident_halt', { halt: id }))
      const names = (list: readonly { readonly worker: string }[]) => list.map(({ worker }) => worker)
      return { acknowledged: names(acknowledged), silent: names(silent) }
    }
    const [ids, names] = [new Map<string, string>(), ['well', 'frozen', 'gone', 'killed']]
    for (const name of names) {
      const hello = { request_id: randomUUID(), name, host: 'here', pid: 1, agents: [], slots: 0 }
      ids.set(name, granted(await fleet.worker.call('worker_hello', hello)).worker)
    }
    const beat = async (name: string, epoch: number) =>
      granted(await fleet.worker.call('worker_beat', { worker: ids.get(name) ?? '', acknowledges: epoch }))
    const first = await halt()
    for (const name of names) await beat(name, first.epoch)
    expect(await facts(first.id)).toEqual({ acknowledged: names, silent: [] })
    granted(await fleet.worker.call('worker_bye', { worker: ids.get('gone') ?? '' }))
    await scene.sql(`update tms.workers set lease_until = clock_timestamp() where name = 'killed'`)
    const second = await halt()
    await beat('well', second.epoch)
    expect(await facts(second.id)).toEqual({ acknowledged: ['well'], silent: ['frozen'] })
    await beat('frozen', second.epoch)
    expect(await facts(second.id)).toEqual({ acknowledged: ['well', 'frozen'], silent: [] })
    const [incident] = granted(await operator.call('incident_list', {})).incidents
    await resumeNow(operator, incident?.id ?? '')
  })

  test('a halt whose press ended before its incident is tied by the next press, and can be lifted where it takes two', async () => {
    const { fleet, operator } = scene
    await fleet.set('incident.resume.twoPersons', true)
    granted(await operator.call('fence_halt', { why: 'killed right after' }))
    const halt = granted(await operator.call('fence_halt', { why: 'again' }))
    const { incident } = granted(
      await operator.call('incident_press', { request_id: randomUUID(), halt: halt.halt ?? '' }),
    )
    expect(
      await scene.sql(
        `select count(*)::int as open, count(x.halt_id)::int as tied from tms.halts h left join tms.incident_halts x on x.halt_id = h.id
          where h.kind = 'halt' and h.resumed_at is null`,
      ),
    ).toEqual([{ open: 2, tied: 2 }])
    await scene.sql(
      `insert into tms.resume_approvals (incident_id, epoch, principal_id, who, at) values (${incident}, ${halt.epoch}, '${await another(scene)}', 'somebody', clock_timestamp())`,
    )
    await resumeNow(operator, incident)
    await fleet.set('incident.resume.twoPersons', false)
  })

  test('pressed again after the lift it is news: nobody has acknowledged it, and it has an alert of its own that ends with it', async () => {
    const { operator } = scene
    const request_id = () => randomUUID()
    const press = async () => {
      const halt = granted(await operator.call('fence_halt', { why: 'a test' }))
      const pressed = granted(
        await operator.call('incident_press', { request_id: request_id(), halt: halt.halt ?? '' }),
      )
      return { ...halt, ...pressed }
    }
    const first = await press()
    const id = first.incident
    const step = async (args: { step: 'prepare' | 'lift' }) =>
      granted(await operator.call('incident_resume', { request_id: request_id(), id, ...args }))
    granted(await operator.call('incident_work', { request_id: request_id(), id, action: 'ack' }))
    await step({ step: 'prepare' })
    await step({ step: 'lift' })
    const second = await press()
    // A press while it stands still says nothing new.
    const third = await press()
    expect([second.incident, third.incident]).toEqual([id, id])
    expect(second.since).not.toBe(first.since)
    expect(third.since).toBe(second.since)
    expect((await showOf(operator, id)).incident).toMatchObject({ acked_at: null, acked_by: null })
    await resumeNow(operator, id)
    const told = await scene.sql(
      `select topic, payload ->> 'dedup_key' as key from tms.outbox_events
        where payload ->> 'incident' = '${id}' and topic in ('incident.opened', 'incident.lifted', 'incident.resolved') order by id`,
    )
    const own = String(told[0]?.['key'])
    expect(told).toEqual([
      { topic: 'incident.opened', key: own },
      { topic: 'incident.opened', key: `${own}-halt-${second.epoch}` },
      { topic: 'incident.lifted', key: `${own}-halt-${second.epoch}` },
      { topic: 'incident.resolved', key: own },
    ])
    const [stood] = await scene.sql(
      `select round(extract(epoch from sum(k.until - k.since)), 1)::text as s from (
         select min(h.at) as since, max(h.resumed_at) as until from tms.incident_halts x join tms.halts h on h.id = x.halt_id
          where x.incident_id = ${id} group by h.epoch) k`,
    )
    expect(granted(await operator.call('incident_impact', { id })).halted_seconds).toBe(stood?.['s'])
  })

  test('pressed again between the record of a resume and its lift: the lift ends the alerts of both halts', async () => {
    const { operator } = scene
    const press = async () => {
      const halt = granted(await operator.call('fence_halt', { why: 'a test' })).halt ?? ''
      return granted(await operator.call('incident_press', { request_id: randomUUID(), halt })).incident
    }
    const id = await press()
    const step = async (step: 'prepare' | 'lift') =>
      granted(await operator.call('incident_resume', { request_id: randomUUID(), id, step }))
    await step('prepare')
    await step('lift')
    await press()
    // Here somebody's resume is cut short.
    await step('prepare')
    await press()
    await resumeNow(operator, id)
    const alerts = (topics: string) =>
      scene.sql(
        `select payload ->> 'dedup_key' as key from tms.outbox_events
          where payload ->> 'incident' = '${id}' and topic in (${topics}) order by payload ->> 'dedup_key'`,
      )
    expect(await alerts("'incident.lifted', 'incident.resolved'")).toEqual(await alerts("'incident.opened'"))
    expect(await alerts("'incident.opened'")).toHaveLength(3)
  })

  test('where it takes two, the one who approved cannot be the one who resumes', async () => {
    const { fleet, operator } = scene
    await fleet.set('incident.resume.twoPersons', true)
    const halt = granted(await operator.call('fence_halt', { why: 'a test' }))
    const { incident: id } = granted(
      await operator.call('incident_press', { request_id: randomUUID(), halt: halt.halt ?? '' }),
    )
    const step = (args: { step: 'approve' | 'prepare' }) =>
      operator.call('incident_resume', { request_id: randomUUID(), id, ...args })
    expect(await step({ step: 'prepare' })).toMatchObject({
      refused: { code: 'CONSENT_MISSING', next: [expect.stringContaining(`resume ${id} --approve`)] },
    })
    granted(await step({ step: 'approve' }))
    expect(await step({ step: 'prepare' })).toMatchObject({ refused: { code: 'CONSENT_MISSING' } })
    expect(
      await operator.call('fence_resume', { request_id: randomUUID(), step: 'prepare', why: 'around it' }),
    ).toMatchObject({ refused: { code: 'CONSENT_MISSING' } })
    // Nor does an approval from before the press, or of another incident.
    const second = await another(scene)
    const others = (incident: string, at: string) =>
      scene.sql(
        `insert into tms.resume_approvals (incident_id, epoch, principal_id, who, at)
           values (${incident}, ${halt.epoch}, '${second}', 'somebody', ${at})`,
      )
    await others(id, `(select max(at) - interval '1 second' from tms.halts)`)
    await others('0', 'clock_timestamp()')
    expect(await step({ step: 'prepare' })).toMatchObject({ refused: { code: 'CONSENT_MISSING' } })
    expect(
      await operator.call('fence_resume', { request_id: randomUUID(), step: 'prepare', why: 'around it' }),
    ).toMatchObject({ refused: { code: 'CONSENT_MISSING' } })
    // Nor does it help to switch the rule off now.
    await fleet.set('incident.resume.twoPersons', false)
    expect(await step({ step: 'prepare' })).toMatchObject({ refused: { code: 'CONSENT_MISSING' } })
    // As if somebody else had approved, who was a super_admin then.
    await scene.sql(
      `delete from tms.resume_approvals where principal_id = '${second}';
       update tms.resume_approvals set principal_id = '${second}' where incident_id = ${id};
       update tms.memberships set revoked_at = now() where principal_id = '${second}'`,
    )
    expect(await step({ step: 'prepare' })).toMatchObject({ refused: { code: 'CONSENT_MISSING' } })
    await scene.sql(`update tms.memberships set revoked_at = null where principal_id = '${second}'`)
    await resumeNow(operator, id)
    await haltAndResume(operator)
  })

  test('where it takes two, a soft degrade cannot be ended by one who switches that off first', async () => {
    const { fleet, operator } = scene
    await fleet.set('incident.resume.twoPersons', true)
    const { incident: id } = granted(await operator.call('incident_soft_degrade', { request_id: randomUUID() }))
    await fleet.set('incident.resume.twoPersons', false)
    expect(await operator.call('incident_resume', { request_id: randomUUID(), id, step: 'prepare' })).toMatchObject({
      refused: { code: 'CONSENT_MISSING' },
    })
    // Nor by going past that step.
    expect(
      await operator.call('incident_resume', { request_id: randomUUID(), id, step: 'slots', percent: 100 }),
    ).toMatchObject({ refused: { code: 'CONFLICT' } })
    await scene.sql(
      `insert into tms.resume_approvals (incident_id, epoch, principal_id, who) select ${id}, f.epoch, '${await another(scene)}', 'another' from tms.fence f`,
    )
    await resumeNow(operator, id)
  })
})

describe('the command where things are broken', () => {
  let arena: Arena
  let scene: Pick<Scene, 'fleet' | 'operator' | 'sql'>
  let url = ''
  const open: Server[] = []
  beforeAll(async () => {
    build()
    arena = await startArena()
    url = arena.database.url
    scene = {
      fleet: arena.fleet,
      operator: arena.fleet.operator,
      sql: (text, parameters) => arena.sql(text, parameters),
    }
  })
  afterAll(async () => {
    for (const server of open) server.close()
    await arena.stop()
  })

  const environment = (more: Record<string, string> = {}) => ({
    DATABASE_URL: url,
    TMS_KEYS: keys,
    TMS_STOP_FOLDER: join(folder, 'stop'),
    TMS_ARTIFACTS: join(folder, 'artifacts'),
    ...more,
  })
  const press = async (more: Record<string, string> = {}) => {
    const ended = await run([bin, 'incident', 'big-red-button', '--json'], { cwd: folder, env: environment(more) })
    const envelope = envelopeOf(ended.stdout)
    // There is no target here, which is what another test is about.
    const warnings = envelope.warnings.filter((text) => !text.startsWith('Nobody hears of this halt'))
    return { code: ended.code, ...envelope, warnings }
  }
  const halted = async () => granted(await scene.operator.call('incident_list', {})).fence.halted
  const over = async () => {
    const { incidents } = granted(await scene.operator.call('incident_list', {}))
    for (const { id, type } of incidents) if (type === 'emergency_stop') await resumeNow(scene.operator, id)
  }
  const web = async (answer: number): Promise<{ url: string; got: string[] }> => {
    const got: string[] = []
    const server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        got.push(Buffer.concat(parts).toString())
        response.writeHead(answer).end(answer === 200 ? 'ok' : '{}')
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    open.push(server)
    const address = server.address()
    return { url: `http://127.0.0.1:${typeof address === 'object' ? (address?.port ?? 0) : 0}`, got }
  }

  test('without a key it halts, says so, and certify signs the same bytes later', async () => {
    const { code, data, warnings } = await press({ TMS_KEYS: join(folder, 'nothing') })
    expect(code).toBe(0)
    expect(data).toMatchObject({ fenced: true, certificate: { signature: null } })
    expect(warnings).toEqual([expect.stringContaining('not signed: there is no key here')])
    const id = String(data['incidentId'])
    const later = await run([bin, 'incident', 'certify', id, '--json'], { cwd: folder, env: environment() })
    expect({ code: later.code, error: envelopeOf(later.stdout).error }).toEqual({ code: 0, error: null })
    const at = join(folder, 'artifacts/incidents', id)
    const pem = readdirSync(at).find((file) => file.endsWith('.pem')) ?? ''
    expect(
      execFileSync(
        'openssl',
        [
          'pkeyutl',
          '-verify',
          '-pubin',
          '-inkey',
          pem,
          '-rawin',
          '-in',
          certificateIn(at),
          '-sigfile',
          `${certificateIn(at)}.sig`,
        ],
        { cwd: at, encoding: 'utf8' },
      ),
    ).toContain('Verified Successfully')
    await over()
  })

  test('a certificate that the database did not get is signed again as it was, and not as it would be now', async () => {
    const { fleet } = scene
    const worker = await fleet.hello(['demo'])
    const { data } = await press()
    const id = String(data['incidentId'])
    const at = join(folder, 'artifacts/incidents', id)
    const file = join(at, certificateIn(at))
    const before = readFileSync(file, 'utf8')
    expect(before).toMatch(/"silent":\[\{/)
    // As if the call that stores it had failed; and the silent one is heard of since.
    for (const table of ['halt_signatures', 'halt_certificates'])
      await scene.sql(
        `alter table tms.${table} disable trigger append_only; delete from tms.${table}; alter table tms.${table} enable always trigger append_only`,
      )
    const { epoch } = granted(await scene.operator.call('fence_state', {}))
    granted(await fleet.worker.call('worker_beat', { worker, acknowledges: epoch }))
    const later = await run([bin, 'incident', 'certify', id, '--json'], { cwd: folder, env: environment() })
    expect({ code: later.code, error: envelopeOf(later.stdout).error }).toEqual({ code: 0, error: null })
    expect(readFileSync(file, 'utf8')).toBe(before)
    const kept = await scene.sql(`select body from tms.halt_certificates where incident_id = ${id}`)
    expect(kept).toEqual([{ body: before }])
    await fleet.worker.call('worker_bye', { worker })
    await over()
  })

  test('nobody to hear of it is said, and is no reason not to halt', async () => {
    const { fleet, operator } = scene
    const targets = async (
      list: { name: string; kind: 'webhook'; topics: string[]; config: Record<string, never> }[],
    ) => granted(await operator.call('outbox_targets_set', { request_id: randomUUID(), targets: list }))
    const warned = async () => {
      const ended = await run([bin, 'incident', 'big-red-button', '--json'], { cwd: folder, env: environment() })
      const { data, warnings } = envelopeOf(ended.stdout)
      expect({ code: ended.code, data }).toMatchObject({ code: 0, data: { fenced: true } })
      return warnings
    }
    expect(await warned()).toEqual([expect.stringContaining('no target takes incidents. Tell them yourself')])
    await targets([{ name: 'pager', kind: 'webhook', topics: ['incident.*'], config: {} }])
    expect(await warned()).toEqual([expect.stringContaining('no worker is there to deliver it')])
    const worker = await fleet.hello(['demo'])
    expect(await warned()).toEqual([])
    granted(await fleet.worker.call('worker_bye', { worker }))
    await targets([])
    await over()
  })

  test('where its files cannot be written it halts and says so', async () => {
    const file = join(folder, 'a-file')
    writeFileSync(file, '')
    const { code, data, warnings } = await press({ TMS_ARTIFACTS: file })
    expect(code).toBe(0)
    expect(data).toMatchObject({ fenced: true, files: [] })
    expect(warnings).toEqual([expect.stringContaining('could not be written')])
    await over()
  })

  test('on a full disk it halts and says what is missing; what needs the disk says so, and works when there is room', async (context) => {
    if (process.getuid?.() !== 0) return context.skip('a small file system takes root to mount')
    const disk = join(folder, 'disk')
    mkdirSync(disk)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk])
    onTestFinished(() => void execFileSync('umount', ['-l', disk]))
    const ballast = join(disk, 'ballast')
    expect(() => writeFileSync(ballast, Buffer.alloc(128 * 1024))).toThrow('ENOSPC')
    const there = { TMS_ARTIFACTS: join(disk, 'artifacts'), TMS_STOP_FOLDER: join(disk, 'stop') }
    const incident = async (...args: string[]) => {
      const ended = await run([bin, 'incident', ...args, '--json'], { cwd: folder, env: environment(there) })
      return { code: ended.code, error: envelopeOf(ended.stdout).error }
    }
    const files = () =>
      readdirSync(disk, { recursive: true, withFileTypes: true }).flatMap((entry) =>
        entry.isFile() ? [entry.name] : [],
      )

    const { code, data, warnings } = await press(there)
    expect(code).toBe(0)
    expect(data).toMatchObject({ fenced: true, files: [] })
    expect(warnings).toEqual([expect.stringContaining('could not be written')])
    const id = String(data['incidentId'])
    for (const args of [
      ['certify', id],
      ['report', id],
    ])
      expect(await incident(...args)).toMatchObject({ code: 3, error: { code: 'DISK_FULL' } })
    expect((await incident('soft-degrade')).code).toBe(0)
    expect(files()).toEqual(['ballast'])

    rmSync(ballast)
    for (const args of [
      ['certify', id],
      ['report', id],
    ])
      expect(await incident(...args)).toEqual({ code: 0, error: null })
    const certificate = certificateIn(join(disk, 'artifacts/incidents', id))
    expect(files()).toEqual(expect.arrayContaining([certificate, `${certificate}.sig`, 'postmortem.md']))
    await over()
  })

  test('who may not press is refused, and nothing is halted', async () => {
    const credential = await scene.fleet.subject.credential('viewer')
    const driver = await scene.fleet.subject.as(credential.name)
    granted(
      await scene.operator.call('users_grant', {
        request_id: randomUUID(),
        principal: 'viewer@acme',
        role: 'viewer',
        tenant: 'acme',
        credential,
      }),
    )
    await expect(pressButton(pressBy(driver))).rejects.toMatchObject({ code: 'ROLE_DENIED' })
    await driver.close()
    expect(await halted()).toBe(false)
  })

  test('an incident that cannot be opened at first is opened at the second try', async () => {
    let tries = 0
    const { operator } = scene
    const unlucky: Driver = {
      target: operator.target,
      listen: (channel, onSignal) => operator.listen(channel, onSignal),
      close: () => operator.close(),
      call: (fn, args, options) =>
        fn === 'incident_press' && (tries += 1) === 1
          ? Promise.reject(new Error('somebody held its rows'))
          : operator.call(fn, args, options),
    }
    expect(await pressButton(pressBy(unlucky))).toMatchObject({
      fenced: true,
      incidentId: expect.any(String) as string,
    })
    expect(tries).toBe(2)
    await over()
  })

  test('one that cannot be opened at all is told of directly, and the next press opens it', async () => {
    const warnings: string[] = []
    const told: DirectMessage[] = []
    const holder = await arena.connect(url)
    await holder.query('begin; lock table tms.incidents in access exclusive mode')
    const press = pressBy(scene.operator, {
      warn: (text) => void warnings.push(text),
      notify: async (message) => {
        told.push(message)
        return [
          { channel: 'slack', told: true, why: '200' },
          { channel: 'pagerduty', told: false, why: 'it answered 500' },
          { channel: 'alert', told: null, why: 'no answer within 3000 ms: it may have arrived' },
        ]
      },
    })
    const halt = await pressButton(press)
    await holder.query('rollback')
    expect(halt).toMatchObject({ fenced: true, incidentId: null, certificate: null })
    expect(told).toMatchObject([{ topic: 'fleet.halted', severity: 'critical', fields: { by: 'somebody' } }])
    expect(warnings).toEqual([
      expect.stringContaining('The incident could not be opened'),
      'slack was told.',
      'pagerduty was NOT told: it answered 500.',
      'It is NOT KNOWN whether alert was told: no answer within 3000 ms: it may have arrived.',
      expect.stringContaining('no certificate of this halt yet'),
    ])
    const again = await pressButton(press)
    expect(again).toMatchObject({ already: true, incidentId: expect.any(String) as string })
    const { halts } = granted(await scene.operator.call('incident_certificates', { id: again.incidentId ?? '' }))
    expect(halts).toHaveLength(2)
    expect(told).toHaveLength(1)
    await over()
  })

  test('safe mode that could not be written down is on, and says what is missing', async () => {
    const holder = await arena.connect(url)
    const safeMode = async () => {
      const ended = await run([bin, 'incident', 'safe-mode', 'on', '--why', 'locked', '--json'], {
        cwd: folder,
        env: environment(),
      })
      const { data, warnings } = envelopeOf(ended.stdout)
      return { code: ended.code, data, warnings }
    }
    await holder.query('begin; lock table tms.ledger_inbox in exclusive mode')
    const unrecorded = await safeMode()
    expect(unrecorded).toMatchObject({
      code: 0,
      data: { fenced: true, recorded: false, halt: expect.any(String) as string },
    })
    expect(unrecorded.warnings).toEqual([expect.stringContaining('The ledger does not have it')])
    expect(await arena.sql(`select by_name is not null as by, why from tms.halts where kind = 'safe_mode'`)).toEqual([
      { by: true, why: 'locked' },
    ])
    await holder.query('rollback; begin; lock table tms.halts in exclusive mode')
    const nobody = await safeMode()
    expect(nobody).toMatchObject({ code: 0, data: { fenced: true, recorded: true, halt: null } })
    expect(nobody.warnings).toEqual([expect.stringContaining('could not be written down')])
    await holder.query('rollback')
    const hash = 'ab'.repeat(32)
    await arena.sql(`update tms.environment set override_token_sha256 = '${hash}'`)
    granted(
      await scene.operator.call('safe_mode_off', {
        request_id: randomUUID(),
        override_token_sha256: hash,
        why: 'a test',
      }),
    )
  })

  test('a resume names what else burns, and says where it stands when it is broken off', async () => {
    const { data } = await press()
    const id = String(data['incidentId'])
    const { incident: other } = granted(
      await scene.operator.call('incident_open', {
        request_id: randomUUID(),
        priority: 'P1',
        title: 'the depot burns',
      }),
    )
    const child = start(
      [
        bin,
        'incident',
        'resume',
        id,
        '--watch',
        '60s',
        '--confirm',
        `${scene.operator.target.consentName}@incident-${id}`,
        '--json',
      ],
      { cwd: folder, env: environment() },
    )
    const ended = collect(child)
    child.stdin.end()
    await until('the fence is lifted', async () => !(await halted()))
    child.kill('SIGINT')
    const { code, stdout } = await ended
    expect(code).toBe(130)
    expect(envelopeOf(stdout).warnings).toEqual([
      `Incident ${other.id} is open too, with priority P1: the depot burns`,
      expect.stringMatching(new RegExp(`(he fence is lifted|10 %).*tms incident resume ${id}$`)),
    ])
    for (const percent of [50, 100])
      granted(await scene.operator.call('incident_resume', { request_id: randomUUID(), id, step: 'slots', percent }))
    granted(
      await scene.operator.call('incident_work', {
        request_id: randomUUID(),
        id: other.id,
        action: 'resolve',
        text: 'out',
      }),
    )
  })

  test('a soft degrade that somebody keeps waiting gives up and says so', async () => {
    const holder = await arena.connect(url)
    await holder.query('begin; lock table tms.incidents in exclusive mode')
    const ended = await run([bin, 'incident', 'soft-degrade', '--json'], { cwd: folder, env: environment() })
    await holder.query('rollback')
    expect({ code: ended.code, error: envelopeOf(ended.stdout).error }).toMatchObject({
      code: 3,
      error: { code: 'DB_TIMEOUT', message: expect.stringContaining('lock timeout') as string },
    })
  })

  test('in the wrong folder it halts nothing and is no success', async () => {
    const wrong = mkdtempSync(join(tmpdir(), 'tms-nowhere-'))
    const ended = await run([bin, 'incident', 'big-red-button', '--json'], { cwd: wrong })
    rmSync(wrong, { recursive: true, force: true })
    expect(ended.code).toBe(2)
    expect(envelopeOf(ended.stdout).ok).toBe(false)
  })

  test('with the database down it stops this host, tells people directly, and says what it could not do', async () => {
    const slack = await web(200)
    const pagerduty = await web(500)
    const stop = join(folder, 'stop-down')
    const ended = await press({
      DATABASE_URL: 'postgres://nobody@127.0.0.1:1/gone',
      SLACK_WEBHOOK_URL: `${slack.url}/services/x`,
      PAGERDUTY_ROUTING_KEY: 'a'.repeat(32),
      PAGERDUTY_URL: pagerduty.url,
      TMS_STOP_FOLDER: stop,
    })
    expect(ended.code).toBe(3)
    expect(ended.error).toMatchObject({ code: 'DB_UNREACHABLE' })
    expect(readdirSync(stop)).toHaveLength(1)
    expect(slack.got).toHaveLength(1)
    expect(slack.got[0]).toContain('big red button')
    expect(pagerduty.got).toHaveLength(1)
    const [file = ''] = readdirSync(stop)
    expect(ended.error).toMatchObject({
      message: expect.stringContaining('NOT KNOWN'),
      why: expect.not.stringMatching(/[.:]{2}|\.:/),
      next: ['tms incident big-red-button', 'tms agents status', 'tms incident resume <id>'],
    })
    expect(ended.warnings).toEqual(
      expect.arrayContaining([
        expect.stringContaining(`to undo it alone: rm ${join(stop, file)}`),
        'slack was told.',
        expect.stringContaining('pagerduty was NOT told'),
      ]),
    )
  })

  test('whoever was told that nothing is known is told when it is, and the alert ends', async () => {
    const told: DirectMessage[] = []
    let answers = false
    const operator = scene.operator
    const button: Press = {
      open: () =>
        answers
          ? Promise.resolve(operator)
          : Promise.reject(new TmsError({ code: 'DB_UNREACHABLE', what: 'It is gone.', why: 'It is.', next: [] })),
      target: 'here',
      why: 'a test',
      who: 'me',
      folder,
      signer: async () => null,
      stopHere: async () => '/the/file',
      stoppedHere: async () => told.length > 0,
      notify: async (message) => {
        told.push(message)
        return []
      },
      clock: () => new Date(),
      now: () => performance.now(),
      pause: () => Promise.resolve(),
      warn: () => undefined,
      late: never,
    }
    await expect(pressButton(button)).rejects.toMatchObject({ code: 'DB_UNREACHABLE' })
    answers = true
    expect(await pressButton(button)).toMatchObject({ fenced: true })
    expect(told.map(({ dedupKey, ends = false }) => ({ dedupKey, ends }))).toEqual([
      { dedupKey: 'tms-halt-here', ends: false },
      { dedupKey: 'tms-halt-here', ends: true },
    ])
    await over()
  })

  test('with a database that hangs it gives up soon, and says that nothing is known', async () => {
    const silent = createTcp(() => undefined)
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const address = silent.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0
    const began = performance.now()
    const ended = await press({
      DATABASE_URL: `postgres://nobody@127.0.0.1:${port}/gone?sslmode=disable`,
      TMS_STOP_FOLDER: join(folder, 'stop-hangs'),
    })
    silent.close()
    expect(ended.code).toBe(3)
    // Sanity only: a machine may be busy.
    expect(performance.now() - began).toBeLessThan(20_000)
    expect(existsSync(join(folder, 'stop-hangs'))).toBe(true)
    expect(ended.warnings.filter((text) => text.includes('workers of this host stop'))).toHaveLength(1)
  })

  test('it goes before what it stops where the machine is too busy for both, where it may', async (context) => {
    if (process.getuid?.() !== 0) return context.skip('to go before others takes root')
    const silent = createTcp(() => undefined)
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const address = silent.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0
    const alarm = '{"level":"critical","type":"emergency_stop","description":"a test"}'
    for (const words of [['big-red-button'], ['handle', alarm]]) {
      const child = start([bin, 'incident', ...words], {
        cwd: folder,
        env: environment({
          DATABASE_URL: `postgres://nobody@127.0.0.1:${port}/gone?sslmode=disable`,
          TMS_STOP_FOLDER: join(folder, 'stop-first'),
        }),
      })
      const ended = collect(child)
      child.stdin.end()
      await until('it goes first', () => getPriority(child.pid) === constants.priority.PRIORITY_HIGHEST)
      child.kill('SIGKILL')
      await ended
    }
    silent.close()
  })

  test('with a database that answers slowly it halts', async () => {
    const at = new URL(url)
    const port = Number(at.port)
    const slow = createTcp((socket) => {
      const server = connect(port, at.hostname)
      socket.on('data', (part) => setTimeout(() => server.write(part), 300))
      server.pipe(socket)
      socket.on('close', () => server.destroy())
      socket.on('error', () => undefined)
      server.on('error', () => undefined)
    })
    slow.listen(0, '127.0.0.1')
    await once(slow, 'listening')
    const address = slow.address()
    at.port = String(typeof address === 'object' ? (address?.port ?? 0) : 0)
    const { code, data, error } = await press({ DATABASE_URL: at.href })
    slow.close()
    expect({ code, error, data }).toMatchObject({ code: 0, data: { fenced: true }, error: null })
    await over()
  })

  test('Ctrl-C before it was sent cancels nothing either', async () => {
    // As soon as the command hears signals at all: it has not even read its settings then.
    const early = join(folder, 'early.mjs')
    writeFileSync(
      early,
      `let sent = false
       process.on('newListener', (name) => {
         if (name !== 'SIGINT' || sent) return
         sent = true
         setImmediate(() => process.kill(process.pid, 'SIGINT'))
       })`,
    )
    const ended = await run([bin, 'incident', 'big-red-button', '--json'], {
      cwd: folder,
      env: environment({ NODE_OPTIONS: `--import ${early}` }),
    })
    expect(ended.stderr).toContain('can no longer be cancelled')
    expect({ code: ended.code, error: envelopeOf(ended.stdout).error }).toEqual({ code: 0, error: null })
    await over()
  })

  test('Ctrl-C after it was sent cancels nothing', async () => {
    // A superuser holds the gate: the halt takes its whole grace, and may not end that session.
    const holder = await arena.connect(arena.database.superuserUrl)
    await holder.query('begin; lock table tms.fence_gate in row share mode')
    const child = start([bin, 'incident', 'big-red-button', '--json'], { cwd: folder, env: environment() })
    const told = said(child.stderr, 'can no longer be cancelled')
    told.catch(() => undefined)
    const ended = collect(child)
    child.stdin.end()
    await until('the mark is set', async () => {
      const [row] = await scene.sql(`select last_value % 2 = 1 as halted from tms.fence_mark`)
      return row?.['halted'] === true
    })
    child.kill('SIGINT')
    await told
    const { code, stdout } = await ended
    await holder.query('rollback')
    expect(code).toBe(3)
    expect(envelopeOf(stdout)).toMatchObject({
      data: { incidentId: expect.stringMatching(/^\d+$/), fenced: false, survivors: [expect.any(String)] },
      error: { code: 'DB_BUSY', message: expect.stringContaining('NOT FENCED') },
    })
    expect(await halted()).toBe(true)
    await over()
  })
})
