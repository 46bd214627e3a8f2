import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { HaltFacts } from '../drivers/contract/incidents.ts'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError, type Problem } from '../errors.ts'
import type { Signer } from '../keys/signer.ts'
import type { DirectMessage, DirectResult } from '../notify/directly.ts'
import {
  certificateOf,
  certificateText,
  signText,
  writeCertificate,
  type Certificate,
  type CertifiedBy,
} from './certificate.ts'
import { reason, within } from './limits.ts'
import { words } from './words.ts'

/** What the button needs of the world. */
export type Press = {
  /** Connects; fails soon when there is nothing to connect to. */
  readonly open: () => Promise<Driver>
  /** How the database is called, should it not be reached. */
  readonly target: string
  readonly why: string
  /** Who presses, as this machine knows them: for those who are told while the database is down. */
  readonly who: string
  /** Where incidents have their folders. */
  readonly folder: string
  readonly signer: () => Promise<Signer | null>
  /** Stops the workers of this host without the database. */
  readonly stopHere: () => Promise<string>
  /** Whether an earlier press did that: people were told then that nothing was known. */
  readonly stoppedHere: () => Promise<boolean>
  readonly notify: (message: DirectMessage) => Promise<readonly DirectResult[]>
  readonly clock: () => Date
  readonly now: () => number
  readonly pause: (ms: number) => Promise<void>
  readonly warn: (text: string) => void
  /** Aborted when what follows the halt has no time left. The halt itself does not listen to it. */
  readonly late: AbortSignal
}

export type Pressed = {
  readonly incidentId: string | null
  readonly fenced: boolean
  readonly epoch: number
  readonly target: string
  /** The fleet was halted before this press. */
  readonly already: boolean
  /** Of the press that halted it. */
  readonly since: string
  readonly by: string | null
  readonly ms_to_fence: number
  readonly ms: number
  readonly workers: number | null
  readonly in_flight: number | null
  readonly terminated: Contract['fence_halt']['result']['terminated']
  readonly survivors: readonly string[]
  readonly certificate: (Certificate & { readonly signature: CertifiedBy | null }) | null
  readonly files: readonly string[]
}

/** After so long without an answer the host's workers are stopped and people told by other ways; the halt goes on trying. */
const patienceMs = 2000
const acknowledgeMs = 300
const stepMs = 2000

/**
 * Halts the fleet, and then does what can be done beside it. The halt is one call and comes first; nothing after it can
 * undo it, and what fails is said and no more.
 */
export async function pressButton(given: Press): Promise<Pressed> {
  const press = { ...given, why: words(given.why, 1000) }
  const began = press.now()
  const { driver, halt, doubted, signer } = await haltFleet(press)
  const fencedAt = press.now()
  const missed = (what: string) => (why: string) => press.warn(`${what}: ${why}`)
  const step = { limitMs: stepMs, late: press.late }

  // One after the other on one connection: under load another one costs more than it saves.
  const request = randomUUID()
  const open = async () =>
    granted(
      await driver.call('incident_press', {
        request_id: request,
        why: press.why,
        ...(halt.halt === null ? {} : { halt: halt.halt }),
      }),
    )
  // Once more when somebody held its rows: a halt without an incident is one that nobody is called for.
  const opened =
    (await within(step, open, () => undefined)) ??
    (await within(step, open, missed('The incident could not be opened')))
  // Beside what follows: the workers' window doesn't wait for other people's servers.
  const unopened = opened === null ? tellUnopened(press, halt) : undefined
  // By hand then: whoever presses believes that others are called now.
  if (opened !== null && opened.untold !== null)
    press.warn(`Nobody hears of this halt: ${opened.untold}. Tell them yourself; tms notify status says more.`)
  const relieved = relieve(press, doubted)
  if (halt.halt === null) press.warn('The database could not write down the halt, so there is no certificate.')
  if (opened !== null && !opened.joined) {
    await within(
      step,
      () => driver.call('incident_snapshot', { request_id: randomUUID(), id: opened.incident }),
      missed('The snapshot of the moment was not taken'),
    )
  }
  const facts = await acknowledged(press, driver, halt.halt, { since: fencedAt, told: opened?.facts ?? null })
  const certified =
    opened === null || facts === null
      ? null
      : await certify(press, driver, facts, {
          incident: opened.incident,
          database: opened.database_id,
          environment: opened.environment,
          signer,
        })
  await Promise.all([relieved, unopened])
  return {
    incidentId: opened?.incident ?? null,
    fenced: halt.fenced,
    epoch: halt.epoch,
    target: driver.target.name,
    already: halt.already,
    since: opened?.since ?? halt.at,
    by: opened?.by ?? null,
    ms_to_fence: halt.ms,
    ms: Math.round(press.now() - began),
    workers: facts === null ? null : facts.acknowledged.length + facts.silent.length,
    in_flight: halt.in_flight,
    terminated: halt.terminated,
    survivors: halt.survivors,
    certificate: certified?.certificate ?? null,
    files: certified?.files ?? [],
  }
}

type Halted = Contract['fence_halt']['result']

/** `doubted`: while it was being tried, people were told that nothing is known. `signer`: looked for while the database was at work. */
async function haltFleet(press: Press): Promise<{
  readonly driver: Driver
  readonly halt: Halted
  readonly doubted: boolean
  readonly signer: Promise<Signer | null>
}> {
  const elsewhere: Promise<Problem>[] = []
  // A database that is slow and one that is gone look the same for a while: nobody waits for the difference.
  const patience = setTimeout(() => {
    elsewhere.push(stopElsewhere(press, `it did not answer within ${patienceMs} ms`))
  }, patienceMs)
  try {
    const driver = await press.open()
    const halting = driver.call('fence_halt', { why: press.why })
    const signer = press.signer()
    // What is wrong with it is the certificate's to say.
    signer.catch(() => undefined)
    const halt = granted(await halting)
    return { driver, halt, doubted: elsewhere.length > 0, signer }
  } catch (error) {
    if (error instanceof TmsError && error.exit !== 3) throw error
    const [said] = await Promise.all(elsewhere)
    throw new TmsError(said ?? (await stopElsewhere(press, reason(error))), { cause: error })
  } finally {
    clearTimeout(patience)
    await Promise.all(elsewhere)
  }
}

/** The halt as the database knows it, once every worker has said that it saw it, or the window is over. */
async function acknowledged(
  press: Press,
  driver: Driver,
  halt: string | null,
  { since, told }: { readonly since: number; readonly told: HaltFacts | null },
): Promise<HaltFacts | null> {
  if (halt === null) return null
  const step = { limitMs: stepMs, late: press.late }
  const look = async () => granted(await driver.call('incident_halt', { halt }))
  const read = told ?? (await within(step, look, (why) => press.warn(`What the workers say could not be read: ${why}`)))
  if (read === null) return null
  let latest: HaltFacts = read
  // At least once: the snapshot may have taken all of the time.
  for (let over = false; latest.silent.length > 0 && !over;) {
    over = press.now() - since >= acknowledgeMs || press.late.aborted
    if (!over) await press.pause(25)
    latest = (await within(step, look, () => undefined)) ?? latest
  }
  return latest
}

type Certified = { readonly certificate: Pressed['certificate']; readonly files: readonly string[] }

async function certify(
  press: Press,
  driver: Driver,
  facts: HaltFacts,
  of: {
    readonly incident: string
    readonly database: string | null
    readonly environment: string | null
    readonly signer: Promise<Signer | null>
  },
  again = true,
): Promise<Certified> {
  const certificate = certificateOf(facts, { ...of, target: driver.target.name })
  const text = certificateText(certificate)
  const newer: HaltFacts[] = []
  const later = `tms incident certify ${of.incident}`
  const noted = new Set<string>()
  const signed = await within(
    { limitMs: stepMs, late: press.late },
    async () => {
      const signer = await of.signer
      if (signer === null) return null
      return { ...(await signText(text, signer)), publicKeyPem: signer.publicKeyPem }
    },
    (why) => {
      noted.add('signing')
      press.warn(`The certificate is not signed (${why}). Later: ${later}`)
    },
  )
  if (signed === null && !noted.has('signing'))
    press.warn(`The certificate is not signed: there is no key here. Later: ${later}`)
  const signature = signed === null ? null : { fingerprint: signed.fingerprint, signature: signed.signature }
  const [files] = await Promise.all([
    within(
      { limitMs: stepMs, late: press.late },
      () =>
        writeCertificate({
          folder: join(press.folder, of.incident),
          halt: facts.halt,
          text,
          signed,
        }),
      (why) => press.warn(`The certificate could not be written to ${press.folder}: ${why}. Later: ${later}`),
    ),
    within(
      { limitMs: stepMs, late: press.late },
      async () => {
        const keep = async (by: CertifiedBy | null) =>
          granted(
            await driver.call('incident_certified', {
              request_id: randomUUID(),
              halt: facts.halt,
              certificate: text,
              ...(by ?? {}),
            }),
          )
        try {
          return await keep(signature)
        } catch (error) {
          if (!(error instanceof TmsError) || error.code !== 'CONFLICT') throw error
          // A worker that was just signing on: it is known of by now.
          const facts = granted(await driver.call('incident_halt', { halt: certificate.halt }))
          if (again && certificateText(certificateOf(facts, { ...of, target: driver.target.name })) !== text) {
            newer.push(facts)
            return null
          }
          // A key that may not sign any more: the certificate itself is none the worse.
          if (signature === null) throw error
          press.warn(`The database does not take the signature: ${reason(error)}. Later: ${later}`)
          return keep(null)
        }
      },
      (why) => press.warn(`The ledger does not have the certificate: ${why}. Later: ${later}`),
    ),
  ])
  if (newer[0] !== undefined) return certify(press, driver, newer[0], of, false)
  return { certificate: { ...certificate, signature }, files: files ?? [] }
}

/** What is left when the database can't be asked, and what to say of it. */
async function stopElsewhere(press: Press, why: string): Promise<Problem> {
  const said: string[] = []
  const at = press.clock().toISOString()
  const [stopped, told] = await Promise.all([
    press.stopHere().catch((error: unknown) => {
      said.push(`The workers of this host were NOT stopped: ${reason(error)}.`)
      return null
    }),
    tell(press, {
      topic: 'fleet.halt_failed',
      title: 'The big red button was pressed and the database could not be reached',
      text: `Nobody knows whether the fleet still works. ${press.why}`.trim(),
      severity: 'critical',
      dedupKey: alertOf(press.target),
      fields: { database: press.target, by: press.who, at },
    }),
  ])
  if (stopped !== null)
    said.push(
      `The workers of this host stop: ${stopped}. A halt and its resume end that; to undo it alone: rm ${stopped}`,
    )
  for (const line of [...said, ...told]) press.warn(line)
  return {
    code: 'DB_UNREACHABLE',
    what: `THE FLEET IS NOT KNOWN TO BE HALTED: ${press.target} could not be told.`,
    why: `${why}. Workers on other hosts may still work: end their processes there. Once the database answers press again; resume comes after that.`,
    next: ['tms incident big-red-button', 'tms agents status', 'tms incident resume <id>'],
  }
}

/** Without the database's outbox; what became of it, a line each. */
async function tell(press: Press, message: DirectMessage): Promise<readonly string[]> {
  let told: readonly DirectResult[]
  try {
    told = await press.notify(message)
  } catch (error) {
    return [`Nobody could be told: ${reason(error)}.`]
  }
  if (told.length === 0)
    return ['Nobody was told: none of SLACK_WEBHOOK_URL, PAGERDUTY_ROUTING_KEY and ALERT_WEBHOOK_URL is set.']
  return told.map(({ channel, told: heard, why }) => {
    if (heard === null) return `It is NOT KNOWN whether ${channel} was told: ${why}.`
    return heard ? `${channel} was told.` : `${channel} was NOT told: ${why}.`
  })
}

/** The fleet is halted and the database tells nobody: people are told as if it were gone, and a later press opens the incident. */
async function tellUnopened(press: Press, { epoch, at }: Halted): Promise<void> {
  const lines = await tell(press, {
    topic: 'fleet.halted',
    title: 'The fleet is halted, and the database could not open the incident of it',
    text: `Press again: that opens it and makes the certificate. ${press.why}`.trim(),
    severity: 'critical',
    dedupKey: `${alertOf(press.target)}-${epoch}`,
    fields: { database: press.target, by: press.who, at },
  })
  for (const line of lines) press.warn(line)
  press.warn('There is no certificate of this halt yet. Once the database answers: tms incident big-red-button')
}

/** One alert for one database, until it is known that its fleet is halted. */
function alertOf(target: string): string {
  return `tms-halt-${target}`
}

/** Who was told that nothing is known is told when it is. */
async function relieve(press: Press, doubted: boolean): Promise<void> {
  await within(
    { limitMs: stepMs, late: press.late },
    async () => {
      if (doubted || (await press.stoppedHere())) await press.notify(reached(press.target, press.who))
    },
    (why) => press.warn(`Those who were told that nothing is known were not told that it is: ${why}`),
  )
}

/** Ends the alert of a press that did not reach the database. */
export function reached(target: string, who: string): DirectMessage {
  return {
    topic: 'fleet.halt_known',
    title: 'The database answers again: whether the fleet works is known',
    text: 'tms incident list shows it.',
    severity: 'info',
    dedupKey: alertOf(target),
    ends: true,
    fields: { database: target, by: who },
  }
}

/** What makes the halt less than one; null when nothing autonomous can commit. */
export function notFenced({ fenced, survivors, incidentId, target }: Pressed): Problem | null {
  if (fenced) return null
  return {
    code: 'DB_BUSY',
    what: `NOT FENCED: ${survivors.length === 0 ? 'something' : survivors.join(', ')} may still commit in ${target}.`,
    why: 'Nothing new can begin. What had begun could not be ended: a prepared transaction, or a session of a superuser.',
    next: [
      'select gid, prepared, owner from pg_prepared_xacts',
      'tms incident big-red-button',
      ...(incidentId === null ? [] : [`tms incident show ${incidentId}`]),
    ],
  }
}
