import type { LogEntry } from '../redaction/logger.ts'
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

export function logLineView(entry: LogEntry): readonly Block[] {
  return [{ kind: 'text', text: logLine(entry) }]
}

export function logLine({ at, level, message, fields }: LogEntry): string {
  const rest = Object.entries(fields).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  return [at, level, message, ...rest].join(' ')
}
