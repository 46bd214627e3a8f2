import type { Block } from '../ui/blocks.ts'
import type { Diagnosis } from './doctor.ts'
import type { Initialised } from './init.ts'
import type { RotatedToken } from './override-token.ts'
import type { Status } from './status.ts'
import type { Held } from './up.ts'

export type InitShown = Omit<Initialised, 'tokenFile'> & {
  readonly configFile: string
  readonly configWritten: boolean
}

export function initView(done: InitShown): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['database', done.target],
        ['environment', done.environment],
        ['operator', `${done.operator} (super_admin)`],
        ['configuration', `${done.configFile}${done.configWritten ? '' : ' (was there)'}`],
        ['signing key', `${done.signingKey.path}${done.signingKey.made ? '' : ' (was there)'}`],
        ['key fingerprint', done.signingKey.fingerprint],
        ...(done.signingKey.inForce
          ? []
          : [['', { text: 'not the key that signs for this database', tone: 'warn' as const }] as const]),
      ],
    },
    ...(done.overrideToken === null
      ? [
          {
            kind: 'text' as const,
            text:
              done.replacedToken !== null
                ? `The override token that waited in ${done.replacedToken} was replaced: the database has another one, and the file is removed. Nobody has that other one? tms incident safe-mode rotate-token makes a new one.`
                : done.unshownToken === null
                  ? 'This database was initialised before. Its override token was shown then and is not shown again.'
                  : `This database was initialised before. If its override token was never shown, it may be the one in ${done.unshownToken}, which an interrupted init left. Keep it where you keep passwords and delete the file.`,
          },
        ]
      : tokenBlocks(done.overrideToken)),
    {
      kind: 'next',
      commands: [
        ...(done.signingKey.inForce ? [] : ['tms evidence keys list']),
        'tms flags verify',
        'tms status',
        'tms tenants add <key>',
      ],
    },
  ]
}

export function rotatedTokenView({ target, overrideToken }: RotatedToken): readonly Block[] {
  return [{ kind: 'facts', rows: [['database', target]] }, ...tokenBlocks(overrideToken)]
}

function tokenBlocks(overrideToken: string): readonly Block[] {
  return [
    { kind: 'facts', rows: [['override token', { text: overrideToken, tone: 'strong' }]] },
    {
      kind: 'text',
      text: {
        text: 'Shown once: keep it where you keep passwords. Leaving safe mode needs it; the database has only its hash.',
        tone: 'warn',
      },
    },
  ]
}

export function statusView(status: Status): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['database', status.target],
        ['environment', status.environment ?? { text: 'not initialised: tms init', tone: 'warn' }],
        ['server', `Postgres ${status.server}, contract ${status.contract}`],
        ['tenants', status.tenants],
        ['flags set', status.flags_set],
        ['last change', status.last_change_at ?? 'none'],
        ['ledger rows', `${status.unsealed_ledger_rows} in the inbox`],
      ],
    },
  ]
}

export function doctorView({ checks }: Diagnosis): readonly Block[] {
  const tones = { ok: 'good', problem: 'bad', unknown: 'warn' } as const
  return [
    {
      kind: 'table',
      columns: ['check', 'state', 'what'],
      rows: checks.map(({ check, state, what }) => [check, { text: state, tone: tones[state] }, what]),
      empty: 'Nothing was checked.',
    },
    { kind: 'next', commands: [...new Set(checks.flatMap(({ next }) => next))] },
  ]
}

export function upView({ target, held, works }: Held & { readonly works: boolean }): readonly Block[] {
  return [
    {
      kind: 'text',
      text: held
        ? `Serving ${target} to other tms processes. Ctrl-C ends it.`
        : works
          ? `Keeping house for ${target}: sealing, probes, posture, invariants, incidents. Ctrl-C ends it.`
          : `${target} has a server of its own: there is nothing to keep open.`,
    },
  ]
}
