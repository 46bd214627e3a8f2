import type { SqlFiles } from '../db/files.ts'
import { schemaStatus } from '../db/schema.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { judge, type Judgement } from '../posture/judge.ts'
import type { Slo } from '../posture/slo.ts'
import type { DayFacts } from './facts.ts'

/** The posture over a day, or over as much of it as is over, by the same limits and the same code as `posture check`. */
export async function judgeDay(
  driver: Driver,
  { from, until }: Pick<DayFacts, 'from' | 'until'>,
  { slo, sqlFiles }: { readonly slo: Slo; readonly sqlFiles: SqlFiles },
): Promise<Judgement> {
  const [facts, schema] = await Promise.all([
    driver.call('posture_facts', { from, to: until }).then(granted),
    schemaStatus(driver, sqlFiles),
  ])
  const pendingMigrations = schema.files.filter(({ state }) => state === 'pending' || state === 'changed').length
  return judge({ facts, pendingMigrations }, slo)
}
