import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/servers/template.ts',
    // Tests start databases and child processes; on two cores more workers only make each of them time out.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      reporter: ['text-summary', 'json-summary', 'html'],
      // What a deploy gate asks of others. Child processes don't count, so run.ts and the database thread show as 0.
      thresholds: { lines: 85 },
    },
  },
})
