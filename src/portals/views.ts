import type { Contract } from '../drivers/contract.ts'
import type { Block } from '../ui/blocks.ts'
import { opens } from './portals.ts'

export function portalsView({ portals }: Contract['portals_list']['result']): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['portal', 'path', 'flag', 'write', 'read'],
      rows: portals.map(({ portal, path, enabled, roles }) => [
        portal,
        path,
        enabled ? { text: 'on', tone: 'good' } : { text: 'off', tone: 'dim' },
        named(roles, 'write'),
        named(roles, 'read'),
      ]),
      empty: 'No portals.',
    },
  ]
}

export function portalView(check: Contract['portals_check']['result']): readonly Block[] {
  return [
    {
      kind: 'text',
      text: opens(check)
        ? { text: `${check.portal} (${check.path}) opens for ${check.role}, to ${check.access}`, tone: 'good' }
        : { text: `${check.portal} (${check.path}) does not open: ${check.why}`, tone: 'bad' },
    },
  ]
}

function named(
  roles: Contract['portals_list']['result']['portals'][number]['roles'],
  access: 'read' | 'write',
): string {
  return roles.flatMap((entry) => (entry.access === access ? [entry.role] : [])).join(' ')
}
