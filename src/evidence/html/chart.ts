import { escape, trimmed } from './text.ts'

/** One line over the quarters of a day, as SVG that needs neither script nor fonts. */

export type Chart = {
  readonly title: string
  readonly unit: string
  readonly points: readonly Point[]
  /** Drawn in; values on the wrong side of it are marked. */
  readonly limit?: { readonly value: number; readonly words: string; readonly keep: 'below' | 'above' }
  /** The axis begins no lower and ends no higher than this. */
  readonly least?: number
  readonly most?: number
}

/** `quarter` counts from 0 at midnight to 95. */
export type Point = { readonly quarter: number; readonly value: number }

const width = 420
const height = 196
const left = 50
const right = 408
const top = 14
const bottom = 168
const quarters = 96

export function chartSvg(chart: Chart): string {
  const { title, unit, points, limit } = chart
  const scale = axis(chart)
  const y = (value: number) => bottom - ((value - scale.low) / (scale.high - scale.low)) * (bottom - top)
  const parts = [
    `<title>${escape(title)}, ${escape(unit)}</title>`,
    `<desc>${escape(described(chart))}</desc>`,
    ...gaps(points).map(
      ([from, to]) =>
        `<rect class="gap" x="${at(x(from))}" y="${top}" width="${at(x(to) - x(from))}" height="${bottom - top}"/>`,
    ),
    ...scale.ticks.map(
      (tick) =>
        `<line class="grid" x1="${left}" y1="${at(y(tick))}" x2="${right}" y2="${at(y(tick))}"/>` +
        `<text class="tick" x="${left - 6}" y="${at(y(tick) + 4)}" text-anchor="end">${escape(label(tick, scale.step))}</text>`,
    ),
    ...[0, 6, 12, 18, 24].map(
      (hour) =>
        `<line class="grid" x1="${at(x(hour * 4))}" y1="${bottom}" x2="${at(x(hour * 4))}" y2="${bottom + 4}"/>` +
        `<text class="tick" x="${at(x(hour * 4))}" y="${bottom + 17}" text-anchor="${hour === 0 ? 'start' : hour === 24 ? 'end' : 'middle'}">${String(hour).padStart(2, '0')}:00</text>`,
    ),
    ...pieces(points).map((piece) =>
      piece.length === 1
        ? ''
        : `<polyline class="line" points="${piece.map((point) => `${at(middle(point))},${at(y(point.value))}`).join(' ')}"/>`,
    ),
    ...(limit ? [limitLine(limit, y)] : []),
    ...pieces(points).flatMap((piece) =>
      piece
        .filter(({ value }) => piece.length === 1 || breaks(limit, value))
        .map(
          (point) =>
            `<circle class="${breaks(limit, point.value) ? 'breach' : 'dot'}" cx="${at(middle(point))}" cy="${at(y(point.value))}" r="2.5"/>`,
        ),
    ),
    ...(points.length === 0
      ? [`<text class="none" x="${(left + right) / 2}" y="${bottom - 14}" text-anchor="middle">no samples</text>`]
      : []),
  ]
  return `<svg viewBox="0 0 ${width} ${height}" role="img" preserveAspectRatio="xMidYMid meet">${parts.join('')}</svg>`
}

function limitLine({ value, words, keep }: NonNullable<Chart['limit']>, y: (value: number) => number): string {
  const place = y(value)
  // On the side where the values aren't, as long as there is room.
  const under = keep === 'above' ? place < bottom - 14 : place < top + 14
  const words_y = under ? place + 12 : place - 5
  return (
    `<line class="limit" x1="${left}" y1="${at(place)}" x2="${right}" y2="${at(place)}"/>` +
    `<text class="limit-words" x="${right}" y="${at(words_y)}" text-anchor="end">${escape(words)}</text>`
  )
}

function breaks(limit: Chart['limit'], value: number): boolean {
  if (!limit) return false
  return limit.keep === 'below' ? value > limit.value : value < limit.value
}

function x(quarter: number): number {
  return left + (quarter / quarters) * (right - left)
}

function middle({ quarter }: Point): number {
  return x(quarter + 0.5)
}

/** Neighbouring quarters are one line; where one is missing the line ends: nothing was measured, and nothing is drawn. */
function pieces(points: readonly Point[]): Point[][] {
  const found: Point[][] = []
  for (const point of points) {
    const last = found.at(-1)
    if (last !== undefined && last.at(-1)?.quarter === point.quarter - 1) last.push(point)
    else found.push([point])
  }
  return found
}

function gaps(points: readonly Point[]): [from: number, to: number][] {
  const found: [number, number][] = []
  let next = 0
  for (const { quarter } of [...points, { quarter: quarters }]) {
    if (quarter > next) found.push([next, quarter])
    next = quarter + 1
  }
  return found
}

type Axis = { readonly low: number; readonly high: number; readonly step: number; readonly ticks: readonly number[] }

/** Round ticks, the limit always in view. */
function axis({ points, limit, least, most }: Chart): Axis {
  const values = [...points.map(({ value }) => value), ...(limit ? [limit.value] : [])]
  // An axis without a value goes to four: something has to stand there.
  const highest = values.length === 0 ? 4 : Math.max(...values, least ?? 0)
  const lowest = Math.min(...values, most ?? Infinity)
  const from = least ?? lowest - (most ?? highest - lowest) * 0.02
  const to = most ?? highest + (highest - from) * 0.12
  const step = roundStep((to - from || 1) / 4)
  const low = Math.floor(from / step + 1e-9) * step
  const high = Math.max(Math.ceil(to / step - 1e-9) * step, low + step)
  const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, n) => low + n * step)
  return { low, high, step, ticks }
}

function roundStep(rough: number): number {
  const magnitude = 10 ** Math.floor(Math.log10(rough))
  return ([1, 2, 5].find((step) => step * magnitude >= rough - 1e-12) ?? 10) * magnitude
}

function label(tick: number, step: number): string {
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9))
  return trimmed(tick, digits)
}

/** A tenth of a unit is less than a pixel. */
function at(value: number): string {
  return String(Math.round(value * 10) / 10)
}

function described({ points, unit, limit }: Chart): string {
  if (points.length === 0) return 'No samples in the day.'
  const values = points.map(({ value }) => value)
  const over = points.filter(({ value }) => breaks(limit, value)).length
  const beyond = limit ? ` ${limit.words}; beyond it in ${over}.` : ''
  return `${points.length} of ${quarters} quarters of an hour have samples, from ${trimmed(Math.min(...values), 2)} to ${trimmed(Math.max(...values), 2)} ${unit}.${beyond}`
}
