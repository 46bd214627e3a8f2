import type { Block } from '../ui/blocks.ts'

export type Served = {
  readonly url: string
  readonly target: string
  readonly keys: number
  readonly sources: number
  readonly replay: boolean
  readonly metrics: 'with a token' | 'from this host'
}

export function servedView(served: Served): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['listening', served.url],
        ['database', served.target],
        ['keys', served.keys],
        ['webhook sources', served.sources],
        ['replay', served.replay ? 'yes' : { text: 'no: nobody here may replay', tone: 'dim' }],
        ['metrics', served.metrics],
      ],
    },
  ]
}
