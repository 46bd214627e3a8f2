import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { root } from '../ui/process.ts'

/** Each measurement runs, at its smallest: what it says at full size stands in docs/performance.md. */

const full = process.env['TMS_TEST_FULL'] === '1'
if (!full) process.stderr.write('skipping the scripts of bench/: they are run with the full sizes\n')

const scripts: [script: string, size: string[], says: RegExp][] = [
  ['fence.js', ['12', '1'], /short transactions[^\n]*\n[^\n]*some hold on/],
  ['incident.js', ['1', '4'], /not fenced: 0[^]*until fenced/],
  ['ledger.js', ['2000'], /seal[^]*verify the export/],
  ['evidence.js', ['2000', '500', '1'], /full day: /],
  ['evidence-verify.js', ['--days', '2', '--rounds', '1'], /verification[^]*whole command/],
  ['queue/growth.js', ['2000', '1000'], /2000 finished, 1000 waiting[^]*in the first batch/],
  ['startup.js', ['1'], /--version[^]*through an owner/],
]

test.skipIf(!full).each(scripts)('bench/%s', { timeout: 180_000 }, async (script, size, says) => {
  const { stdout } = await promisify(execFile)(process.execPath, [join(root, 'bench', script), ...size])
  expect(stdout).toMatch(says)
})
