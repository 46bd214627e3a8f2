import { expect, test } from 'vitest'
import { startPostgres } from './postgres.ts'

// Run only by harness.test.ts, in a vitest of its own, which it kills with -9.
test('waits to be killed', async () => {
  const { cluster, port } = await startPostgres({ own: true })
  process.stdout.write(`RUNNING ${process.pid} ${port} ${cluster?.directory}\n`)
  await new Promise((resolve) => setTimeout(resolve, 60_000))
  expect.unreachable('nobody killed this process')
})
