import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { exit, TmsError } from '../errors.ts'

/**
 * Probes of the database and the door. A minute counts as up only when somebody asked and was answered in it; what was
 * down while nobody could record it is told later.
 */

export type Probe = {
  readonly kind: 'database' | 'door'
  readonly up: boolean
  readonly ms: number
  /** The code of an error, never its text: an address may be in it. */
  readonly why: string | null
}

export type Probed = {
  readonly probes: readonly Probe[]
  /** Null: no fleet is expected here, or nothing could be recorded. */
  readonly fleet: boolean | null
  readonly recorded: boolean
  /** Down and not yet on record. */
  readonly waiting: number
}

export type ProbeReach = {
  readonly driver: Driver
  /** Asked for `readyz` when there is one. */
  readonly doorUrl?: string | undefined
  readonly fetch: typeof fetch
  /** Milliseconds that only go forward. */
  readonly now: () => number
}

export type Prober = { probe(): Promise<Probed> }

type Late = { readonly kind: Probe['kind']; readonly why: string; readonly seenAt: number }

const doorMs = 5_000
/** What is older than a day isn't taken any more; an hour to spare. */
const lateMs = 23 * 3_600_000
const mostLate = 4_000

/** Keeps what was down until it is on record. One for each process. */
export function openProber(reach: ProbeReach): Prober {
  let late: readonly Late[] = []
  return {
    async probe() {
      const probes = [await twice(() => askDatabase(reach)), ...(await askDoors(reach))]
      const { now } = reach
      const due = late.filter(({ seenAt }) => now() - seenAt < lateMs)
      try {
        const { fleet } = await record(reach.driver, [
          ...probes.map(({ kind, up, ms, why }) => ({ kind, up, ms, ...(why === null ? {} : { why }) })),
          ...due.map(({ kind, why, seenAt }) => ({
            kind,
            up: false,
            why,
            ago_ms: Math.max(0, Math.round(now() - seenAt)),
          })),
        ])
        late = []
        return { probes, fleet, recorded: true, waiting: 0 }
      } catch (error) {
        if (!(error instanceof TmsError) || error.exit !== exit.outside) throw error
        // It answers and can't be written to: for whoever works with it, that is down.
        const seen: readonly Probe[] = probes.map((probe) =>
          probe.kind === 'database' && probe.up ? { ...probe, up: false, why: error.code } : probe,
        )
        const down = seen.flatMap(({ kind, up, why }) => (up ? [] : [{ kind, why: why ?? 'OTHER', seenAt: now() }]))
        late = onePerMinute([...due, ...down]).slice(-mostLate)
        return { probes: seen, fleet: null, recorded: false, waiting: late.length }
      }
    },
  }
}

export type Probing = { stop(): Promise<void> }

/** Probes now and every so often until it is stopped. A probe that takes longer than that is not asked twice. */
export function startProbing(
  reach: ProbeReach & {
    readonly everyMs?: number
    readonly onProbed?: (probed: Probed) => void
    readonly onProblem: (error: unknown) => void
    /** Calls `work` again and again until what it returns is called. */
    readonly repeat?: (work: () => void, ms: number) => () => void
  },
): Probing {
  const { everyMs = 30_000, onProbed, onProblem, repeat = every } = reach
  const prober = openProber(reach)
  let under: Promise<void> | null = null
  const round = () => {
    under ??= prober
      .probe()
      .then((probed) => onProbed?.(probed), onProblem)
      .finally(() => (under = null))
  }
  round()
  const end = repeat(round, everyMs)
  return {
    async stop() {
      end()
      await under
    },
  }
}

function every(work: () => void, ms: number): () => void {
  const timer = setInterval(work, ms)
  return () => clearInterval(timer)
}

async function record(
  driver: Driver,
  probes: Contract['probe_record']['args']['probes'],
): Promise<Contract['probe_record']['result']> {
  return granted(await driver.call('probe_record', { request_id: randomUUID(), probes }))
}

/** A lost packet is no outage. */
async function twice(ask: () => Promise<Probe>): Promise<Probe> {
  const first = await ask()
  return first.up ? first : ask()
}

async function askDatabase({ driver, now }: ProbeReach): Promise<Probe> {
  const began = now()
  try {
    granted(await driver.call('contract_version', {}))
    return { kind: 'database', up: true, ms: Math.round(now() - began), why: null }
  } catch (error) {
    if (!(error instanceof TmsError) || error.exit !== exit.outside) throw error
    return { kind: 'database', up: false, ms: Math.round(now() - began), why: error.code }
  }
}

async function askDoors(reach: ProbeReach): Promise<readonly Probe[]> {
  const { doorUrl } = reach
  return doorUrl === undefined ? [] : [await twice(() => askDoor(reach, doorUrl))]
}

async function askDoor({ fetch, now }: ProbeReach, url: string): Promise<Probe> {
  const began = now()
  const answered = (up: boolean, why: string | null): Probe => ({
    kind: 'door',
    up,
    ms: Math.round(now() - began),
    why,
  })
  try {
    const answer = await fetch(new URL('readyz', url.endsWith('/') ? url : `${url}/`), {
      signal: AbortSignal.timeout(doorMs),
      redirect: 'manual',
    })
    await answer.body?.cancel()
    return answer.status === 200 ? answered(true, null) : answered(false, `HTTP_${answer.status}`)
  } catch (error) {
    return answered(false, error instanceof Error && error.name === 'TimeoutError' ? 'TIMEOUT' : 'UNREACHABLE')
  }
}

/** More would say nothing more: a minute is down once. */
function onePerMinute(late: readonly Late[]): readonly Late[] {
  const kept = new Map<string, Late>()
  for (const one of late) kept.set(`${one.kind} ${Math.floor(one.seenAt / 15_000)}`, one)
  return [...kept.values()]
}
