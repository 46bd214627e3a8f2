import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { root } from '../ui/process.ts'

test('a worker of the test runner that ends without a word is named, with its file and how it ended', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tms-outcome-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const program = `import { readFileSync } from 'node:fs'
    import { startVitest } from 'vitest/node'
    import { outcomeOf } from './scripts/outcome.js'
    const outputFile = ${JSON.stringify(join(folder, 'report.json'))}
    await startVitest('test', [], { config: false, watch: false, include: ['test/scripts/dies.ts'],
      globalSetup: 'test/servers/workers.ts', reporters: ['json'], outputFile })
    console.log(JSON.stringify(outcomeOf(JSON.parse(readFileSync(outputFile, 'utf8')), process.cwd())))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    cwd: root,
    encoding: 'utf8',
  })
  expect(stderr).toMatch(/^a worker of the test runner ended by SIGKILL: process \d+, after \d+ s$/m)
  expect(JSON.parse(stdout.trim().split('\n').at(-1) ?? '')).toEqual({
    passed: 0,
    failed: 0,
    failures: [
      expect.stringMatching(/^test\/scripts\/dies\.ts: its worker process ended without a word, so 3 of 3 tests have/),
    ],
  })
})
