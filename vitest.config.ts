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
  'attacks/fence',
  'fleet-commands/roles-and-guard',
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

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/servers/template.ts', 'test/servers/workers.ts'],
    // Tests start databases and child processes; on two cores more workers only make each of them time out.
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    // Only what hangs should meet them: a slow machine with other work needs ten times what a quiet one does.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    expect: { poll: { timeout: 60_000 } },
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      reporter: ['text-summary', 'json-summary', 'html'],
      // What a deploy gate asks of others. Child processes don't count, so run.ts and the database thread show as 0.
      thresholds: { lines: 85 },
    },
  },
})
