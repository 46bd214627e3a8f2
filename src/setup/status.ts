import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'

export type Status = Contract['status']['result'] & { readonly target: string }

export async function status(driver: Driver): Promise<Status> {
  return { target: driver.target.name, ...granted(await driver.call('status', {})) }
}
