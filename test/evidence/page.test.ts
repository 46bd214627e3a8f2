import { describe, expect, test } from 'vitest'
import { packFacts } from '../../src/evidence/facts.ts'
import { chartSvg, type Chart } from '../../src/evidence/html/chart.ts'
import { pageHtml, type Page } from '../../src/evidence/html/page.ts'
import { busyDay, emptyDay, redJudgement, unknownJudgement } from './day.ts'

const page = (facts = busyDay(), judgement = redJudgement, final = true): Page => ({
  ...packFacts(facts, judgement, 'https://traces.example.com/t/{traceId}'),
  manifestSha256: '12'.repeat(32),
  manifest: {
    type: 'tms-manifest-v1',
    day: facts.day,
    revision: 3,
    final,
    as_of: facts.as_of,
    database: { origin: facts.ledger.origin, environment: 'production' },
    verdict: judgement.verdict,
    previous: null,
    ledger: { from_seq: 1188, tree_size: 1600 },
    files: {},
    key: '34'.repeat(32),
  },
})

describe('index.html', () => {
  test('needs nothing from anywhere: no script, no style sheet, no image, no font', () => {
    const html = pageHtml(page())
    expect(html).not.toMatch(/<script|<link|<img|<iframe|@import|url\(|javascript:|\son[a-z]+=/i)
    // The only addresses are those of traces, which are links to be clicked.
    expect(
      [...html.matchAll(/https?:\/\/[^"< ]+/g)].every(([address]) =>
        address.startsWith('https://traces.example.com/t/'),
      ),
    ).toBe(true)
    expect(html).toContain(`default-src 'none'`)
  })

  test('says the verdict before everything else, in words and not only in colour', () => {
    const html = pageHtml(page())
    const text = html.slice(html.indexOf('<body>')).replace(/<[^>]+>/g, ' ')
    expect(text.indexOf('RED')).toBeLessThan(text.indexOf('What was checked'))
    expect(text).toMatch(/1 of 10 checks did not hold: required flags/)
    for (const state of ['✕ red', '✓ green', '? unknown']) expect(text).toContain(state)
  })

  test('gives the fingerprint of the key and the rows of the ledger; copied, the fingerprint is one word', () => {
    const html = pageHtml(page())
    expect(html.replace(/<[^>]+>/g, '')).toContain('34'.repeat(32))
    expect(html).toContain('rows 1,188 to 1,599')
  })

  test('says that a day is provisional', () => {
    expect(pageHtml(page(busyDay(), redJudgement, false))).toContain('Provisional, revision 3.')
    expect(pageHtml(page())).not.toContain('Provisional')
  })

  test('says of a day without samples why it is unknown, and draws empty charts', () => {
    const html = pageHtml(page(emptyDay(), unknownJudgement))
    expect(html).toContain('This database did not see the whole day: it was installed at')
    expect(html.match(/>no samples</g)).toHaveLength(4)
    expect(html).not.toMatch(/NaN|Infinity|undefined|\[object/)
  })

  test('is the same text for the same facts', () => {
    expect(pageHtml(page())).toBe(pageHtml(page()))
  })

  test('lets no text from outside become markup, or turn the words around it', () => {
    const day = busyDay()
    const nasty = `<img src=x onerror=alert(1)>"'&\u202egnp.exe`
    const html = pageHtml(
      page({
        ...day,
        alerts: { count: 1, rows: day.alerts.rows.slice(0, 1).map((row) => ({ ...row, title: nasty, tenant: nasty })) },
        spend: { count: 1, rows: day.spend.rows.slice(0, 1).map((row) => ({ ...row, agent: nasty })) },
        audit: {
          ...day.audit,
          listed: day.audit.listed.slice(0, 1).map((row) => ({ ...row, subject: nasty, action: nasty })),
        },
      }),
    )
    expect(html).not.toContain('<img')
    expect(html).not.toContain('\u202e')
    expect(html).toContain('&lt;img src=x')
  })

  test('says how many rows of a list are left out', () => {
    const day = busyDay()
    const html = pageHtml(page({ ...day, audit: { ...day.audit, critical: '2000' } }))
    expect(html).toContain('1,970 more critical rows')
  })
})

describe('a chart', () => {
  const chart: Chart = {
    title: 'Tasks that succeeded',
    unit: 'percent',
    limit: { value: 98, words: 'at least 98 %', keep: 'above' },
    most: 100,
    points: [
      { quarter: 0, value: 99 },
      { quarter: 1, value: 97 },
      { quarter: 5, value: 100 },
      { quarter: 90, value: 99.5 },
      { quarter: 91, value: 99.6 },
    ],
  }

  test('has a title and a description that say what is to be seen', () => {
    const svg = chartSvg(chart)
    expect(svg).toContain('<title>Tasks that succeeded, percent</title>')
    expect(svg).toContain(
      '5 of 96 quarters of an hour have samples, from 97 to 100 percent. at least 98 %; beyond it in 1.',
    )
    expect(svg).toContain('role="img"')
  })

  test('ends its line where nothing was measured, shades the gap, and shows a lonely point', () => {
    const svg = chartSvg(chart)
    expect(svg.match(/<polyline/g)).toHaveLength(2)
    expect(svg.match(/class="gap"/g)).toHaveLength(3)
    expect(svg.match(/class="dot"/g)).toHaveLength(1)
  })

  test('draws the limit, inside of the picture whatever the values, and marks what is beyond it', () => {
    for (const points of [chart.points, [], [{ quarter: 3, value: 12 }]]) {
      const svg = chartSvg({ ...chart, points })
      const [, y = ''] = /class="limit" x1="50" y1="([\d.]+)"/.exec(svg) ?? []
      expect(Number(y)).toBeGreaterThanOrEqual(14)
      expect(Number(y)).toBeLessThanOrEqual(168)
      expect(svg.match(/class="breach"/g) ?? []).toHaveLength(points.filter(({ value }) => value < 98).length)
    }
  })

  test('keeps every value inside of its axes', () => {
    for (const value of [0, 0.0001, 1, 97.5, 250, 1e9]) {
      const svg = chartSvg({
        title: 'x',
        unit: 'y',
        least: 0,
        points: [
          { quarter: 9, value },
          { quarter: 10, value: value / 2 },
        ],
      })
      const places = [...svg.matchAll(/points="([^"]+)"/g)].flatMap(([, list = '']) =>
        list.split(' ').map((pair) => Number(pair.split(',')[1])),
      )
      for (const place of places) {
        expect(place).toBeGreaterThanOrEqual(14)
        expect(place).toBeLessThanOrEqual(168)
      }
    }
  })
})
