import type { Contract } from '../drivers/contract.ts'
import type { Block, Cell } from '../ui/blocks.ts'
import type { Rotated } from './accounts.ts'

export function accountsView({ accounts, max_age_days }: Contract['accounts_list']['result']): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['account', 'scope', 'state', 'credential', { title: 'days old', align: 'right' }, 'ends'],
      rows: accounts.flatMap(({ account, scope, state, credentials }) =>
        credentials.length === 0
          ? [[account, scope, 'not in use', '', '', '']]
          : credentials.map((c) => [
              account,
              scope,
              toned(state),
              `${c.kind} ${c.name} (${c.state})`,
              c.age_days,
              c.expires_at ?? '',
            ]),
      ),
      empty: 'No service accounts.',
    },
    { kind: 'text', text: { text: `A credential lasts ${max_age_days} days.`, tone: 'dim' } },
  ]
}

export function rotatedView({ account, credential, retiring, secret, statement }: Rotated): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['account', account],
        ['credential', `${credential.kind} ${credential.name}`],
        ['ends', credential.expires_at],
        ...(secret === null ? [] : [['secret (shown once)', { text: secret, tone: 'strong' }] as const]),
        ...retiring.map((old) => ['still works', `${old.kind} ${old.name} until ${old.expires_at ?? ''}`] as const),
      ],
    },
    ...(statement === null
      ? []
      : ([
          { kind: 'text', text: 'This connection could not make the login. A database administrator runs:' },
          { kind: 'text', text: `${statement};` },
        ] as const)),
  ]
}

function toned(state: Contract['accounts_list']['result']['accounts'][number]['state']): Cell {
  return { text: state, tone: state === 'ok' ? 'good' : state === 'due' ? 'warn' : 'bad' }
}
