import { moment } from '../agents/views.ts'
import type { Block } from '../ui/blocks.ts'
import type { NotifyStatus, Tested } from './notify.ts'

const right = (title: string) => ({ title, align: 'right' }) as const

export function statusView({ targets, verdict, untold }: NotifyStatus): readonly Block[] {
  return [
    {
      kind: 'text',
      text:
        verdict === 'ok'
          ? { text: 'OK: incidents are told.', tone: 'good' }
          : verdict === 'unknown'
            ? { text: 'UNKNOWN: nothing has arrived yet at a target that takes incidents.', tone: 'warn' }
            : verdict === 'failing'
              ? { text: 'FAILING: not everybody is told of incidents.', tone: 'bad' }
              : { text: `NOBODY is told of incidents: ${untold ?? 'no target takes them'}.`, tone: 'bad' },
    },
    {
      kind: 'table',
      columns: ['target', 'kind', 'incidents', right('waiting'), right('lost'), 'last arrived'],
      rows: targets.map((t) => [
        t.failing === null ? t.name : { text: `${t.name}: ${t.failing}`, tone: 'bad' },
        t.kind,
        t.tells ? 'yes' : { text: 'no', tone: 'dim' },
        t.waiting,
        t.lost,
        t.delivered_at === null ? 'never' : moment(t.delivered_at),
      ]),
      empty: 'No targets: events go nowhere.',
    },
    ...targets
      .filter(({ failing, error }) => failing !== null && error !== null)
      .map(({ name, error }) => ({ kind: 'text', text: `${name}: ${error ?? ''}` }) as const),
    {
      kind: 'next',
      commands: [
        ...targets.filter(({ failing }) => failing !== null).map(({ name }) => `tms notify test ${name}`),
        ...(targets.some(({ lost }) => lost > 0) ? ['tms outbox list --status dead'] : []),
        ...(verdict !== 'nobody'
          ? []
          : targets.some(({ tells, paused }) => tells && !paused)
            ? ['tms agents start', 'tms up']
            : ['tms outbox targets --load']),
      ],
    },
  ]
}

export function testedView({ target, kind, host, steps, arrived, open }: Tested): readonly Block[] {
  const word = arrived === null ? 'NO ANSWER: it may have arrived' : 'ARRIVED'
  return [
    {
      kind: 'text',
      text:
        arrived === false
          ? { text: 'DID NOT ARRIVE', tone: 'bad' }
          : open !== null
            ? { text: `${word}, ${arrived ? 'but' : 'and'} its alert was NOT ENDED: resolve it by hand`, tone: 'bad' }
            : { text: word, tone: arrived ? 'good' : 'warn' },
    },
    {
      kind: 'facts',
      rows: [
        ['target', `${target} (${kind})`],
        ['from', `${host}, with its secrets; workers use theirs`],
        ...steps.map(({ what, said }) => [what, said] as const),
        ...(open === null ? [] : [['dedup_key', open] as const]),
      ],
    },
  ]
}
