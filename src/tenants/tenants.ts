import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'

export async function listTenants(driver: Driver): Promise<Contract['tenants_list']['result']> {
  return granted(await driver.call('tenants_list', {}))
}

export async function addTenant(
  driver: Driver,
  { key, name }: { key: string; name: string },
): Promise<Contract['tenants_add']['result']> {
  return granted(await driver.call('tenants_add', { request_id: randomUUID(), key, name }))
}
