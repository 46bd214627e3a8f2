import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Block } from '../../src/ui/blocks.ts'
import { render } from '../../src/ui/render.ts'
import { lookAtTerminal, type Surface } from '../../src/ui/terminal.ts'

const pipe: Surface = { isTerminal: false, colour: false, width: Infinity }
const terminal = (width: number): Surface => ({ isTerminal: true, colour: false, width })

const people: Block = {
  kind: 'table',
  columns: ['who', { title: 'age', align: 'right' }, 'note'],
  rows: [
    ['ann', 7, 'first'],
    ['bob', 41n, null],
  ],
  empty: 'Nobody.',
}

describe('in a pipe', () => {
  test('a table is aligned columns without frames', async () => {
    expect(await render([people], pipe)).toBe(['who  age  note', 'ann    7  first', 'bob   41  -'].join('\n'))
  })

  test('long values stay on their line', async () => {
    const long = 'x '.repeat(500).trim()
    expect(await render([{ kind: 'table', columns: ['a'], rows: [[long]], empty: '' }], pipe)).toContain(long)
  })

  test('a table without rows says so', async () => {
    expect(await render([{ ...people, rows: [] }], pipe)).toBe('Nobody.')
  })

  test('blocks are apart, a heading is not from what it heads', async () => {
    const blocks: Block[] = [
      { kind: 'heading', text: 'Title' },
      {
        kind: 'facts',
        rows: [
          ['a', 1],
          ['long', { text: true, tone: 'good' }],
        ],
      },
      { kind: 'list', items: ['one', 'two'] },
      { kind: 'next', commands: ['tms status'] },
    ]
    expect(await render(blocks, pipe)).toBe('Title\na     1\nlong  true\n\n- one\n- two\n\nNext:\n  tms status')
  })
})

describe('on a terminal', () => {
  test('a table has a frame', async () => {
    expect(await render([people], terminal(80))).toBe(
      [
        '┌─────┬─────┬───────┐',
        '│ who │ age │ note  │',
        '│ ann │   7 │ first │',
        '│ bob │  41 │ -     │',
        '└─────┴─────┴───────┘',
      ].join('\n'),
    )
  })

  test('colours are used when wanted, and cost no width', async () => {
    const toned: Block = { kind: 'table', columns: ['state'], rows: [[{ text: 'ok', tone: 'good' }]], empty: '' }
    const text = await render([toned], { ...terminal(80), colour: true })
    expect(text).toContain('\u001b[32mok\u001b[39m')
    expect(text.replace(/\u001b\[\d+m/g, '')).toBe(await render([toned], terminal(80)))
  })

  test('a table with too many columns becomes one paragraph a row', async () => {
    const columns = Array.from({ length: 12 }, (_, i) => `column ${i}`)
    const text = await render([{ kind: 'table', columns, rows: [columns, columns], empty: '' }], terminal(60))
    expect(text.split('\n\n')).toHaveLength(2)
    expect(text).toMatch(/^column 0 +column 0$/m)
  })

  test('at 60 columns words keep a column that can be read, on a terminal and where COLUMNS says so', async () => {
    const words = 'worker rates-1 on host-7 acknowledged at 2026-11-20T03:00:00Z, after the certificate'
    const row = ['2026-11-20 03:00', 'acknowledged_late', 'local:operator', words]
    const timeline: Block = { kind: 'table', columns: ['at', 'what', 'who', 'words'], rows: [row], empty: '' }
    const said = lookAtTerminal({ COLUMNS: '60' }).stdout
    expect([said.width, lookAtTerminal({ COLUMNS: 'many' }).stdout.width]).toEqual([60, Infinity])
    for (const surface of [terminal(60), said]) {
      const lines = (await render([timeline], surface)).split('\n')
      expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(60)
      expect(lines.length).toBeLessThan(9)
      expect(lines.some((line) => line.includes('worker rates-1'))).toBe(true)
    }
  })

  test('no line is wider than the terminal, whatever the data', async () => {
    const cell = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 200 }), fc.integer(), fc.constant(null))
    const rows = fc.array(fc.tuple(cell, cell, cell), { minLength: 1, maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(rows, fc.integer({ min: 40, max: 120 }), async (cells, width) => {
        const text = await render(
          [
            { kind: 'table', columns: ['one', 'two', 'three'], rows: cells, empty: '' },
            { kind: 'facts', rows: cells.map(([a]) => ['label', a]) },
            { kind: 'list', items: cells.map(([a]) => a) },
          ],
          terminal(width),
        )
        // ASCII only is measured here: how wide other characters are is the terminal's business.
        for (const line of text.split('\n'))
          if (/^[ -~│┌┐└┘─┬┴├┼┤]*$/.test(line)) expect(line.length).toBeLessThanOrEqual(width)
      }),
      { numRuns: 50 },
    )
  })

  test('data cannot move the cursor, whichever block it is in', async () => {
    const evil = 'a\u001b[2J\u009b1Ab\rc\nd'
    const blocks: Block[] = [
      { kind: 'heading', text: evil },
      { kind: 'text', text: evil },
      { kind: 'facts', rows: [[evil, evil]] },
      { kind: 'table', columns: [evil], rows: [[evil]], empty: evil },
      { kind: 'table', columns: ['a'], rows: [], empty: evil },
      { kind: 'list', items: [evil] },
      { kind: 'next', commands: [evil] },
    ]
    for (const surface of [pipe, terminal(80), { ...terminal(80), colour: false }]) {
      expect(await render(blocks, surface)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
    }
  })
})
