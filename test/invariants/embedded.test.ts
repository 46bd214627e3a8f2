import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { loadInvariants } from '../../src/invariants/load.ts'
import { scanInvariants } from '../../src/invariants/scan.ts'
import { makeEmbedded } from '../servers/schema.ts'
import { root } from '../ui/process.ts'
import { policyText, readPolicies } from './shop.ts'

test('on the embedded database a check without an end is ended with its engine, is unknown, and the others are checked', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tms-endless-'))
  const directory = join(folder, '.tms')
  await makeEmbedded(directory)
  const driver = await openEmbedded(
    { driver: 'embedded', directory, create: false, callTimeoutMs: 30_000 },
    { localUser: 'operator' },
  )
  onTestFinished(async () => {
    await driver.close()
    await rm(folder, { recursive: true, force: true })
  })
  const schema = await readFile(join(root, 'examples/retail/schema.sql'), 'utf8')
  await driver.administration?.transaction((run) => run(schema))
  const endless =
    'with recursive n (i) as (select 1 union all select i + 1 from n) select max(i) from n, retail.stock having max(i) < 0'
  const read = await readPolicies({
    ENDLESS: policyText('ENDLESS', endless, undefined, '1s'),
    EMPTY_ONE: policyText('EMPTY_ONE', 'select * from retail.stock'),
  })
  const { problems } = await loadInvariants(driver, read)
  expect(problems).toEqual([])
  await driver.administration?.transaction((run) => run(`insert into retail.stock values ('a', 1)`))
  const { checks, drift } = await scanInvariants(driver)
  expect(checks.map(({ invariant, outcome }) => [invariant, outcome])).toEqual([
    ['EMPTY_ONE', 'violated'],
    ['ENDLESS', 'unknown'],
  ])
  // its own time, not that of all calls
  expect(checks[1]?.why).toContain('no answer within 1000 ms')
  expect(drift).toMatchObject({ score: null, detail: { unknown: ['ENDLESS'], violated: { EMPTY_ONE: 1 } } })
})
