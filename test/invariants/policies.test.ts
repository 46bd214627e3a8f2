import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ownChecks } from '../../src/drivers/contract/invariants.ts'
import { loadScript } from '../../src/invariants/load.ts'
import { readInvariants } from '../../src/invariants/read.ts'
import { readStatement } from '../../src/invariants/sql.ts'
import { root } from '../ui/process.ts'
import { policyText, readPolicies, readShop } from './shop.ts'

/** Policy files: what is wrong is told with its line and what to type. */

const problemsOf = async (text: string) => {
  const { problems, invariants } = await readPolicies({ TRIED: text })
  return {
    loaded: invariants.length,
    problems: problems.map(({ line, keys, message }) => `${line} ${keys} ${message}`),
  }
}

const valid = policyText('TRIED', 'select 1')

describe('a policy', () => {
  test('of tms and of the shop is in order, and every check of tms has one', async () => {
    const shipped = await readInvariants([join(root, 'policies')])
    expect(shipped.problems).toEqual([])
    expect(new Set(shipped.invariants.map(({ loaded }) => loaded.check))).toEqual(new Set(ownChecks))
    expect((await readShop()).problems).toEqual([])
  })

  test.each<readonly [what: string, text: string, problem: RegExp]>([
    ['with a key that is not known', valid.replace('title:', 'tilte:'), /^2 tilte .*Did you mean title\?/m],
    ['without a priority', valid.replace('priority: P2\n', ''), /priority is missing: it takes P1, P2, P3 or P4/],
    ['of another name', valid.replace('TRIED', 'OTHER'), /^1 invariant names OTHER, but the file is that of TRIED/],
    ['without grants', valid.replace(/grants.*\n/, ''), /^6 query needs grants\.read/],
    [
      'with a table of tms',
      valid.replace('retail.stock', 'tms.principals'),
      /is a table of the system or of tms itself/,
    ],
    ['with a table without its schema', valid.replace('retail.stock', 'stock'), /takes a table with its schema/],
    ['with a time limit in bare seconds', valid.replace('30s', '5'), /timeout takes a duration from 1s to 30s/],
    ['with both query and check', `${valid}check: ledger_unsealed\n`, /takes query or check: one of the two/],
    [
      'with a check nobody has',
      'invariant: TRIED\ntitle: x\nowner: x\npriority: P1\ncheck: nothing\n',
      /check takes tasks_past_lease/,
    ],
    ['that writes', valid.replace('select 1', 'delete from retail.stock'), /^7 query is a select/],
    [
      'of two statements',
      valid.replace('select 1', 'select 1;\n  delete from retail.stock'),
      /^7 query is one statement/,
    ],
    [
      'that closes what it has not opened',
      valid.replace('select 1', 'select 1) x; --'),
      /^7 query closes a parenthesis/,
    ],
    ['with a text without an end', valid.replace('select 1', `select 'x`), /^7 query has a text without an end/],
    [
      'whose correction returns',
      `${valid}correct: { statement: delete from retail.stock returning 1, write: [retail.stock], rows_per_scan: 1, rows_per_violation: 1 }\n`,
      /has no returning/,
    ],
    [
      'whose correction selects',
      `${valid}correct: { statement: select 1, write: [retail.stock], rows_per_scan: 1, rows_per_violation: 1 }\n`,
      /is a delete, an update or an insert/,
    ],
    [
      'whose correction has no bound',
      `${valid}correct: { statement: delete from retail.stock, write: [retail.stock], rows_per_violation: 1 }\n`,
      /correct\.rows_per_scan is missing/,
    ],
    [
      'whose correction calls what it was not granted',
      `${valid}correct: { statement: delete from retail.stock where retail.evil(), write: [retail.stock], rows_per_scan: 1, rows_per_violation: 1 }\n`,
      /calls retail\.evil, which grants\.functions does not name/,
    ],
    [
      'whose correction calls what it was not granted, in letters of another alphabet',
      `${valid}correct: { statement: delete from retail.stock where retail.süß(), write: [retail.stock], rows_per_scan: 1, rows_per_violation: 1 }\n`,
      /calls retail\.süß, which grants\.functions does not name/,
    ],
  ])('%s is not read, and the place is told', async (_, text, problem) => {
    const { loaded, problems } = await problemsOf(text)
    expect(loaded).toBe(0)
    expect(problems.join('\n')).toMatch(problem)
  })

  test('that is broken in the project does not bring back the one that comes with tms', async () => {
    const { invariants, problems } = await readPolicies({ TRIED: valid, LEDGER_SEALED: 'invariant: [' })
    expect([invariants.length, problems.map(({ invariant }) => invariant)]).toEqual([1, ['LEDGER_SEALED']])
  })

  test('may end with a semicolon and a comment', async () => {
    const queryOf = async (query: string) =>
      (await readPolicies({ TRIED: valid.replace('select 1', query) })).invariants[0]?.query
    expect(await queryOf('select 1; -- all of them;')).toBe('select 1  -- all of them;')
    expect(await queryOf(`select ';'`)).toBe(`select ';'`)
  })
})

describe('a statement', () => {
  test.each([
    [`select ')' || ";" from t`, 'select'],
    ['select $$ ; ) $$, $a$ $$ ; $a$', 'select'],
    [`select E'\\'; drop' -- ; (`, 'select'],
    ['/* ; /* nested */ ( */ select 1;', 'select'],
    ['with x as (delete from y returning 1) select * from x', 'select'],
    ['with x as (select 1) delete from y', 'delete'],
    ['values (1)', null],
    [`select $ü$ ' ; ) $ü$ from t`, 'select'],
    ['select ü$$1 from t', 'select'],
  ])('%s is read as %s', (text, verb) => {
    expect(readStatement(text)).toMatchObject({ verb })
  })

  test('never has more behind its end, however it is quoted', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(`'`, '"', '$$', '$a$', '--', '\n', '/*', '*/', ';', '(', ')', ' x ', "E'"), {
          maxLength: 12,
        }),
        (parts) => {
          const read = readStatement(parts.join(''))
          if ('problem' in read) return
          const bare = read.code.replaceAll(/"[^"]*"/g, '')
          expect(bare).not.toContain(';')
          let depth = 0
          for (const sign of bare) {
            if (sign === '(') depth += 1
            if (sign === ')') depth -= 1
            expect(depth).toBeGreaterThanOrEqual(0)
          }
          expect(depth).toBe(0)
        },
      ),
    )
  })

  test('cannot end the quotes it is put into', async () => {
    const nasty = String.raw`select '$invariant0$' as a, E'\'' as b, '\' as c`
    const script = loadScript(await readPolicies({ TRIED: valid.replace('select 1', () => nasty) }))
    // Each block opens and closes with a tag of its own that its text doesn't hold.
    for (const [, tag = '', body = ''] of script.matchAll(/do (\$invariant\d+\$)\n([\s\S]*?)\1/g)) {
      expect(body).not.toContain(tag)
    }
    expect(script.match(/\$invariant1\$/g)?.length).toBe(2)
  })
})
