import { describe, expect, test } from 'vitest'
import { factFiles, packFacts } from '../../src/evidence/facts.ts'
import { parseCanonicalFile } from '../../src/proof/canonical.ts'
import { busyDay, emptyDay, redJudgement, unknownJudgement } from './day.ts'

const files = (facts = busyDay(), judgement = redJudgement, link: string | null = null) =>
  factFiles(packFacts(facts, judgement, link))

describe('the facts of a pack', () => {
  test('are canonical JSON, each file with one newline at its end', () => {
    for (const [name, text] of Object.entries(files())) {
      expect(text.endsWith('\n')).toBe(true)
      if (name.endsWith('.json')) expect(() => parseCanonicalFile(text)).not.toThrow()
    }
  })

  test('keep a value of a flag that looks like a secret, or whose name says so, to themselves', () => {
    const day = busyDay()
    const flag = (key: string, value: never) => ({
      key,
      type: 'json',
      value,
      source: 'global' as const,
      required: null,
    })
    const text = files({
      ...day,
      flags: {
        ...day.flags,
        flags: [
          flag('hooks.apiToken', 'plain-words-that-are-one' as never),
          flag('hooks.contact', 'call jane.roe@example.com' as never),
          flag('hooks.nested', { password: 'hunter2', note: 'fine' } as never),
        ],
        others: [{ key: 'hooks.secret', tenant: 'acme', value: 'other-words', percentage: '100', canaries: 0 }],
      },
    })['flags.json']
    for (const secret of ['plain-words-that-are-one', 'jane.roe', 'hunter2', 'other-words'])
      expect(text).not.toContain(secret)
    expect(text).toContain('fine')
  })

  test('write numbers of flags that are no whole numbers as text: canonical JSON has no fractions', () => {
    const day = busyDay()
    const flags = [
      { key: 'ops.json', type: 'json', value: { ü: 1.5 } as never, source: 'global' as const, required: null },
    ]
    const text = files({ ...day, flags: { ...day.flags, flags } })['flags.json'] ?? ''
    expect(JSON.parse(text)).toMatchObject({ flags: [{ value: '{"ü":1.5}' }] })
  })

  test('list three traces with links to look at them', () => {
    const text = files(busyDay(), redJudgement, 'https://t.example.com/{traceId}')['trace-sample.txt'] ?? ''
    expect(text.match(/https:\/\/t\.example\.com\/[0-9a-f]{32}/g)).toHaveLength(3)
    expect(files(emptyDay())['trace-sample.txt']).toContain('none')
    expect(files()['trace-sample.txt']).toContain('no link')
  })

  test('give no link whose template holds a secret', () => {
    const text = files(
      busyDay(),
      redJudgement,
      'https://t.example.com/{traceId}?token=sk_live_abcdefghijklmnopqrstuvwx',
    )
    expect(text['trace-sample.txt']).not.toContain('sk_live')
  })

  test('list alerts as psql would, zero of them too, each on one line', () => {
    const day = busyDay()
    expect(files(emptyDay(), unknownJudgement)['alerts.sql.out']).toContain('(0 rows)')
    const rows = day.alerts.rows.map((row) => ({ ...row, title: 'a\n(9 rows)\n b' }))
    const text = files({ ...day, alerts: { count: 2, rows } })['alerts.sql.out'] ?? ''
    expect(text).toContain('(2 rows)')
    expect(text).not.toMatch(/^\(9 rows\)$/m)
  })
})

describe('controls.json', () => {
  const controls = packFacts(busyDay(), redJudgement, null).controls
  const ids = [...controls.criteria, ...controls.not_covered].map(({ id }) => id)

  test('has every criterion of the framework in exactly one list', () => {
    const numbered = (prefix: string, ends: Record<number, number>) =>
      Object.entries(ends).flatMap(([group, last]) =>
        Array.from({ length: last }, (_, n) => `${prefix}${group}.${n + 1}`),
      )
    const all = [
      ...numbered('CC', { 1: 5, 2: 3, 3: 4, 4: 2, 5: 3, 6: 8, 7: 5, 8: 1, 9: 2 }),
      ...numbered('A', { 1: 3 }),
      ...numbered('C', { 1: 2 }),
      ...numbered('PI', { 1: 5 }),
      ...numbered('P', { 1: 1, 2: 1, 3: 2, 4: 3, 5: 2, 6: 7, 7: 1, 8: 1 }),
    ]
    expect([...ids].sort()).toEqual([...all].sort())
  })

  test('says of each criterion what it does not show, and why the others are not covered', () => {
    for (const { not_shown, facts } of controls.criteria) {
      expect(not_shown).not.toBe('')
      expect(facts.length).toBeGreaterThan(0)
    }
    for (const { why } of controls.not_covered) expect(why).not.toBe('')
  })

  test('names only checks that the posture makes', () => {
    const names = new Set(redJudgement.checks.map(({ name }) => name))
    const named = controls.criteria.flatMap(({ facts }) =>
      facts.flatMap(({ fact }) => (fact.startsWith('checks, ') ? [fact.slice(8)] : [])),
    )
    for (const name of ['pending_migrations', 'quarantine_percent']) names.add(name)
    expect(named.filter((name) => !names.has(name))).toEqual([])
  })

  test('is red where a fact is red, and unknown where nothing was measured', () => {
    const states = (facts = controls) => new Map(facts.criteria.map(({ id, state }) => [id, state]))
    expect(states().get('CC7.1')).toBe('red')
    expect(states().get('A1.2')).toBe('unknown')
    expect(states().get('CC2.1')).toBe('green')
    const empty = states(packFacts(emptyDay(), unknownJudgement, null).controls)
    expect(empty.get('PI1.4')).toBe('unknown')
    expect(empty.get('CC7.2')).toBe('unknown')
  })

  test.each([
    ['OPEN', 'red'],
    ['ENDED', 'unknown'],
  ] as const)('says nothing good of the ledger on a day on which it did not verify: %s is %s', (status, expected) => {
    const day = busyDay()
    const [row] = day.alerts.rows
    if (!row) throw new Error('the busy day has an alert')
    const alerts = { count: 1, rows: [{ ...row, status, type: 'ledger_broken' }] }
    const { criteria } = packFacts({ ...day, alerts }, redJudgement, null).controls
    const resting = criteria.filter(({ facts }) => facts.some(({ file }) => file === 'audit_digest.json'))
    expect(resting.map(({ id }) => id)).toEqual(expect.arrayContaining(['CC2.1', 'CC6.2', 'CC8.1', 'PI1.5']))
    for (const { facts } of resting) {
      for (const { file, state } of facts) if (file === 'audit_digest.json') expect(state).toBe(expected)
    }
  })
})
