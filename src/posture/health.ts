import type { Facts, Measured } from './facts.ts'

export type Grade = 'A' | 'B' | 'C' | 'D' | 'F'

export type Component = {
  readonly name: 'integrity' | 'error_rate' | 'latency' | 'incidents' | 'backup' | 'migrations'
  readonly most: number
  /** What it is worth at least and at most; equal when it is known. */
  readonly low: string
  readonly high: string
  readonly known: boolean
  readonly why: string
}

export type Health = {
  /** Unknown components at nothing, and at their most. */
  readonly low: string
  readonly high: string
  /** Of the low end: what isn't known earns nothing. */
  readonly grade: Grade
  readonly components: readonly Component[]
}

/** The score from 0 to 100. What isn't known makes it a range. */
export function health({ facts, pendingMigrations }: Measured, freshSeconds: number): Health {
  const components = [
    integrity(facts, freshSeconds),
    errorRate(facts),
    latency(facts),
    incidents(facts),
    backup(facts),
    migrations(pendingMigrations),
  ]
  const sum = (end: 'low' | 'high') => components.reduce((total, component) => total + Number(component[end]), 0)
  const low = sum('low')
  return { low: points(low, Math.floor), high: points(sum('high'), Math.ceil), grade: gradeOf(low), components }
}

export function gradeOf(score: number): Grade {
  if (score >= 90) return 'A'
  if (score >= 80) return 'B'
  if (score >= 60) return 'C'
  return score >= 40 ? 'D' : 'F'
}

function integrity({ drift, now }: Facts, freshSeconds: number): Component {
  const most = 30
  if (drift === null) return unknown('integrity', most, 'nobody has scanned the invariants yet')
  if (Date.parse(now) - Date.parse(drift.at) > freshSeconds * 1000) {
    return unknown('integrity', most, `the newest scan is of ${drift.at.slice(0, 16).replace('T', ' ')} UTC`)
  }
  return known('integrity', most, (Number(drift.score) / 100) * most, `drift score ${drift.score}`)
}

function errorRate({ tasks }: Facts): Component {
  const most = 20
  const samples = Number(tasks.samples)
  if (samples === 0) return unknown('error_rate', most, 'nothing ended in the window')
  const percent = (Number(tasks.failed) / samples) * 100
  const worth = Math.max(0, most * (1 - percent / 10))
  return known('error_rate', most, worth, `${tasks.failed} of ${tasks.samples} tasks failed`)
}

const bands = [
  [500, 15],
  [1000, 12],
  [2500, 9],
  [5000, 4],
] as const

/** p95 is known to lie in a bucket: where a band ends in it, it is worth one or the other. */
function latency({ tasks }: Facts): Component {
  const most = 15
  const { p95_ms, p95_above_ms } = tasks
  if (p95_ms === null || p95_above_ms === null) return unknown('latency', most, 'nothing ended in the window')
  const low = bands.find(([limit]) => Number(p95_ms) <= limit)?.[1] ?? 0
  const high = bands.find(([limit]) => Number(p95_above_ms) < limit)?.[1] ?? 0
  return {
    name: 'latency',
    most,
    low: String(low),
    high: String(high),
    known: low === high,
    why: `p95 between ${p95_above_ms} and ${p95_ms} ms`,
  }
}

function incidents({ incidents: open }: Facts): Component {
  const most = 20
  const worth = Math.max(0, most - 10 * open.p1 - 5 * open.p2 - 2 * open.p3)
  return known('incidents', most, worth, `open: ${open.p1} P1, ${open.p2} P2, ${open.p3} P3`)
}

function backup({ backup: newest, now }: Facts): Component {
  const most = 10
  if (newest === null) return unknown('backup', most, 'no backup is on record')
  const hours = (Date.parse(now) - Date.parse(newest.at)) / 3_600_000
  const worth = Math.min(most, Math.max(0, (most * (72 - hours)) / 48))
  return known('backup', most, worth, `${hours.toFixed(1)} hours old`)
}

function migrations(pending: number | null): Component {
  if (pending === null) return unknown('migrations', 5, 'the files of this release were not compared')
  return known('migrations', 5, pending === 0 ? 5 : 0, pending === 0 ? 'none pending' : `${pending} pending`)
}

function known(name: Component['name'], most: number, worth: number, why: string): Component {
  // Down to hundredths: a score is never rounded up over a grade's edge.
  const text = points(worth, Math.floor)
  return { name, most, low: text, high: text, known: true, why }
}

function unknown(name: Component['name'], most: number, why: string): Component {
  return { name, most, low: '0', high: String(most), known: false, why }
}

/** In hundredths; the tiny tail of a binary fraction is not a hundredth. */
function points(score: number, cut: (value: number) => number): string {
  return String(cut(Number((score * 100).toFixed(6))) / 100)
}
