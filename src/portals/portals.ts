import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'

export async function listPortals(
  driver: Driver,
  { tenant }: { tenant?: string | undefined },
): Promise<Contract['portals_list']['result']> {
  return granted(await driver.call('portals_list', { tenant }))
}

export async function checkPortal(
  driver: Driver,
  { portal, as, tenant }: { portal: string; as?: string | undefined; tenant?: string | undefined },
): Promise<Contract['portals_check']['result']> {
  return granted(await driver.call('portals_check', { portal, as, tenant }))
}

export function opens({ enabled, access }: Contract['portals_check']['result']): boolean {
  return enabled && access !== 'none'
}
