import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sealLedger } from '../../src/ledger/ledger.ts'
import { housekeeping } from '../../src/runtime/housekeeping.ts'
import { openScene, subjects, type Scene } from '../incident/fixture.ts'

describe.each(Object.entries(subjects))('housekeeping through the %s driver', (_, start) => {
  let scene: Scene
  beforeAll(async () => {
    scene = await openScene(await start())
  })
  afterAll(() => scene.stop())

  test('verifies the ledger, and opens an incident for one that does not', async () => {
    const driver = await scene.account('autopilot')
    const duties = housekeeping({
      driver,
      policyFolders: [],
      sqlFiles: { migrations: [], functions: [], prelude: '', postlude: '' },
      reach: { fetch, now: () => performance.now() },
    })
    const verify = duties.find(({ name }) => name === 'the ledger, verified')
    const broken = async () => {
      await verify?.run(new AbortController().signal)
      return scene.sql(`select priority, dedupe_key, opened_by from tms.incidents where type = 'ledger_broken'`)
    }
    await sealLedger(scene.operator)
    expect(await broken()).toEqual([])
    await scene.sql(
      `alter table tms.ledger_inbox disable trigger append_only;
       update tms.ledger_inbox set why = 'it was never so' where id = (select min(inbox_id) from tms.ledger);
       alter table tms.ledger_inbox enable always trigger append_only`,
    )
    const [incident, ...more] = await broken()
    expect(incident).toMatchObject({ priority: 'P1', dedupe_key: 'ledger:broken' })
    expect(more).toEqual([])
  })
})
