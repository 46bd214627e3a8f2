import type { Contract } from '../drivers/contract.ts'
import type { Block } from '../ui/blocks.ts'
import type { Granted } from './users.ts'
import type { Whoami } from './whoami.ts'

export function whoamiView(me: Whoami): readonly Block[] {
  const { credential } = me
  return [
    {
      kind: 'facts',
      rows: [
        ['principal', me.principal],
        ['kind', me.kind],
        ['proved by', credential.expires_at ? `${credential.kind}, until ${credential.expires_at}` : credential.kind],
        ['database', me.database],
        ['environment', me.environment ?? { text: 'not initialised', tone: 'warn' }],
      ],
    },
    {
      kind: 'table',
      columns: ['role', 'tenant', 'until'],
      rows: me.roles.map((role) => [role.role, role.tenant ?? 'all', role.expires_at]),
      empty: 'No role: nothing is allowed.',
    },
    { kind: 'text', text: `May: ${me.operations.join(', ') || 'nothing'}` },
  ]
}

export function usersView({ users }: Contract['users_list']['result']): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['who', 'roles', 'signs in by', 'since'],
      rows: users.map((user) => [
        user.principal,
        user.roles.map(roleText).join(', ') || { text: 'none', tone: 'dim' },
        user.credentials.map((c) => `${c.kind} ${c.name}${c.state === 'valid' ? '' : ` (${c.state})`}`).join(', '),
        user.created_at.slice(0, 10),
      ]),
      empty: 'Nobody yet. Add somebody: tms users grant <who> --role <role>',
    },
  ]
}

type Roles = Contract['users_grant']['result'] & Partial<Pick<Granted, 'statement'>>
export function rolesView({ principal, roles, changed, statement }: Roles): readonly Block[] {
  return [
    {
      kind: 'text',
      text: `${principal}: ${roles.map(roleText).join(', ') || 'no role'}${changed ? '' : ' (nothing changed)'}`,
    },
    ...(statement === null || statement === undefined
      ? []
      : ([
          { kind: 'text', text: 'For this login to call tms the owner of the database runs:' },
          { kind: 'text', text: `${statement};` },
        ] as const)),
  ]
}

function roleText({ role, tenant, expires_at }: Contract['users_grant']['result']['roles'][number]): string {
  return `${role}${tenant ? ` in ${tenant}` : ''}${expires_at ? ` until ${expires_at.slice(0, 16)}` : ''}`
}
