import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'

/**
 * policies/roles.yaml, read here a second time and in another way than scripts/roles.js reads it: what the tests expect
 * must not come from the code that is tested.
 */
type Source = {
  human_roles: Record<string, string>
  service_accounts: Record<string, string>
  operations: Record<string, string[]>
  portals: Record<string, { path: string; roles: string[] }>
}

const source = parse(readFileSync(join(import.meta.dirname, '../../policies/roles.yaml'), 'utf8')) as Source

export const humanRoles = Object.keys(source.human_roles)
export const serviceAccounts = Object.keys(source.service_accounts)
export const portals = Object.keys(source.portals)

export function isTenantRole(role: string): boolean {
  return source.human_roles[role]?.startsWith('own') ?? false
}

export type Reach = 'own tenant' | 'other tenant' | 'no tenant'

/** What the list says of one role, one operation, one reach. `subject` matters where a grant names patterns. */
export function granted(role: string, operation: string, reach: Reach, writes: boolean, subject = ''): boolean {
  // What is listed is granted to whom it names, super_admin included; what is not listed is super_admin's alone.
  if (!(operation in source.operations)) return role === 'super_admin'
  const line = source.operations[operation]?.find((entry) => entry.split(/[\s:]/)[0] === role)
  if (line === undefined) return false
  const condition = line.split(': ')[1] ?? ''
  // "finance functions": those whose name begins with finance.
  const patterns = condition.endsWith(' functions')
    ? [`${condition.split(' ')[0]}.*`]
    : condition.split(' ').filter((word) => word.includes('*'))
  if (patterns.length > 0 && !patterns.some((pattern) => subject.startsWith(pattern.slice(0, -1)))) return false
  // Workers act for the tenant of the task they hold, and here they hold none. What they do with work is of no tenant.
  if (role === 'agents')
    return reach === 'no tenant' && (!writes || ['task.work', 'outbox.deliver'].includes(operation))
  if (!isTenantRole(role)) return true
  if (reach === 'no tenant') return !writes
  return reach === 'own tenant'
}

export function portalAccess(role: string, portal: string): 'none' | 'read' | 'write' {
  if (role === 'super_admin') return 'write'
  const entry = source.portals[portal]?.roles.find((text) => text.split(' ')[0] === role)
  if (entry === undefined) return 'none'
  return entry.endsWith(' read') || role === 'viewer' ? 'read' : 'write'
}
