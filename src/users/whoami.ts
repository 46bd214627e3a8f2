import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'

export type Whoami = Contract['whoami']['result'] & { readonly database: string }

/** Who the database takes the caller for, and which database that is. */
export async function whoami(driver: Driver): Promise<Whoami> {
  const answer = granted(await driver.call('whoami', {}))
  return { database: driver.target.name, ...answer }
}
