import { spawnSync } from 'node:child_process'
import { BaseSequencer, type TestSpecification } from 'vitest/node'
import { defineConfig } from 'vitest/config'

/**
 * Begun first, so that no worker is left with one of them when the other has nothing to do any more. vitest sorts by size where it
 * has no times of an earlier run, and the longest of these files are among the shortest: processes that are killed, disks that fill.
 */
const longest = [
  'attacks/surroundings',
  'contract/permissions',
  'embedded/driver',
  'keys/killed',
  'runtime/processes',
  'embedded/killed',
  'attacks/fence',
  'evidence-verify/script',
  'embedded/survival',
  'embedded/durability',
  'attacks/rails',
  'commands/commands',
  'attacks/nothing-lost',
  'contract/conformance',
  'scripts/build',
  'evidence/build-killed',
  'attacks/flags-at-once',
  'attacks/forging',
  'attacks/big-red-button',
  'evidence/build',
  'evidence-verify/prune',
  'invariants/commands',
  'privacy/privacy',
  'postgres/replica',
  'runtime/housekeeping',
  'evidence-verify/killed',
]

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => {
      const at = longest.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`))
      return at < 0 ? longest.length : at
    }
    return (await super.sort(files)).sort((a, b) => place(a) - place(b))
  }
}

/**
 * Tests start databases and child processes. Where starting a process is quick, four at a time keep two cores busy while each waits for
 * its own; where it takes a tenth of a second, more than two only make each other time out.
 */
function atOnce(): number {
  const took = [1, 2, 3, 4, 5].map(() => {
    const began = performance.now()
    spawnSync(process.execPath, ['-e', '0'])
    return performance.now() - began
  })
  return Math.min(...took) < 100 ? 4 : 2
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/servers/template.ts', 'test/servers/workers.ts'],
    maxWorkers: atOnce(),
    sequence: { sequencer: LongestFirst },
    // Only what hangs should meet them: a slow machine with other work needs ten times what a quiet one does.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 60_000 } },
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      reporter: ['text-summary', 'json-summary'],
      // What a deploy gate asks of others. Child processes don't count, so run.ts and the database thread show as 0.
      thresholds: { lines: 85 },
    },
  },
})
