import type { Block } from '../ui/blocks.ts'
import type { LogEntry } from './logger.ts'

export function logView(entry: LogEntry): readonly Block[] {
  return [{ kind: 'text', text: logLine(entry) }]
}

export function logLine({ at, level, message, fields }: LogEntry): string {
  const more = Object.entries(fields).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  return [at, level, message, ...more].join(' ')
}
