import type { Contract } from '../drivers/contract.ts'
import type { Block } from '../ui/blocks.ts'

export function tenantsView({ tenants }: Contract['tenants_list']['result']): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['tenant', 'name', 'since', 'id'],
      rows: tenants.map((tenant) => [tenant.key, tenant.name, tenant.created_at.slice(0, 10), tenant.id]),
      empty: 'No tenants yet. Add one: tms tenants add <key>',
    },
  ]
}

export function tenantAddedView({ tenant }: Contract['tenants_add']['result']): readonly Block[] {
  return [{ kind: 'text', text: `Tenant ${tenant.key} added (${tenant.id}).` }]
}
