import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'

export async function ledgerTail(
  driver: Driver,
  { tenant, limit }: { tenant?: string | undefined; limit: number },
): Promise<Contract['ledger_tail']['result']> {
  return granted(await driver.call('ledger_tail', { tenant, limit }))
}
