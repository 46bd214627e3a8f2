import type { Driver } from '../drivers/driver.ts'
import { exit, TmsError, type Problem } from '../errors.ts'
import { actOnPosture, type Acted } from './act.ts'
import { changesBetween, posture, recordPosture, type Change, type Posture, type PostureWanted } from './posture.ts'
import { openProber, type Probed, type ProbeReach } from './probe.ts'

export type Tick = {
  readonly tick: number
  /** Null: the database could not be read, and `problem` says why. */
  readonly posture: Posture | null
  readonly problem: Problem | null
  readonly probed: Probed | null
  /** Since the tick before. */
  readonly changes: readonly Change[]
  /** Whether this one was told to the outbox: of several that watch, one does it. */
  readonly announced: boolean
  readonly acted: readonly Acted[]
  /** False: this role may look and not record. */
  readonly recording: boolean
  /** The newest observations of each check, oldest first. */
  readonly series: Readonly<Record<string, readonly (number | null)[]>>
}

export type Watching = PostureWanted & {
  readonly reach: Omit<ProbeReach, 'driver'>
  readonly act: boolean
  readonly everyMs: number
  /** Null: until `signal`. */
  readonly ticks: number | null
  readonly signal: AbortSignal
  readonly pause: (ms: number) => Promise<void>
}

const kept = 40

/**
 * Looks again and again: probes, measures, judges, records, and draws the consequences when told to. A database that
 * can't be read ends nothing: that is when somebody watches.
 */
export async function* watchPosture(driver: Driver, watching: Watching): AsyncGenerator<Tick> {
  const { ticks, signal, everyMs, pause, reach } = watching
  const prober = openProber({ ...reach, driver })
  const began = reach.now()
  const series = new Map<string, (number | null)[]>()
  let before: Posture | null = null
  let recording = true
  for (let tick = 1; ; tick += 1) {
    const seen = await look(driver, watching, recording ? prober : null)
    // Ended by a signal in the middle of it: that is no finding about the database.
    if (over(signal)) return
    recording = seen.recording
    for (const { name, observed } of seen.posture?.checks ?? []) {
      series.set(name, [...(series.get(name) ?? []), observed === null ? null : Number(observed)].slice(-kept))
    }
    const changes = seen.posture === null ? [] : changesBetween(before?.checks ?? null, seen.posture.checks)
    before = seen.posture ?? before
    yield { tick, ...seen, changes, series: Object.fromEntries(series) }
    if (tick === ticks || over(signal)) return
    // By the clock and not after the work, so that each minute gets its probe.
    const elapsed = reach.now() - began
    await pause(everyMs - (elapsed % everyMs))
    if (over(signal)) return
  }
}

/** Asked anew each time: time passes between two looks at it. */
function over(signal: AbortSignal): boolean {
  return signal.aborted
}

type Seen = Omit<Tick, 'tick' | 'changes' | 'series'>

async function look(driver: Driver, watching: Watching, prober: ReturnType<typeof openProber> | null): Promise<Seen> {
  const nothing = {
    posture: null,
    problem: null,
    probed: null,
    announced: false,
    acted: [],
    recording: prober !== null,
  }
  let probed: Probed | null = null
  let recording = prober !== null
  try {
    if (prober !== null) probed = await prober.probe()
  } catch (error) {
    // Whoever wants it to act must be told that it can't.
    if (!(error instanceof TmsError) || error.code !== 'ROLE_DENIED' || watching.act) throw error
    recording = false
  }
  try {
    const now = await posture(driver, watching)
    const whole = recording && now.fleet && watching.tenant === undefined
    const recorded = whole ? await recordPosture(driver, now) : null
    const acted = whole && watching.act ? await actOnPosture(driver, now, watching.slo) : []
    const announced = recorded?.announced ?? false
    return { posture: now, problem: null, probed, announced, acted, recording }
  } catch (error) {
    if (!(error instanceof TmsError) || error.exit !== exit.outside) throw error
    const { code, message, why, next } = error
    return { ...nothing, recording, probed, problem: { code, what: message, why, next } }
  }
}
