import { redact, type Json } from './redact.ts'

export const logLevels = ['debug', 'info', 'warn', 'error'] as const

export type LogLevel = (typeof logLevels)[number]

export type LogFields = Readonly<Record<string, unknown>>

export type LogEntry = {
  /** UTC, ISO 8601. */
  readonly at: string
  readonly level: LogLevel
  readonly message: string
  readonly fields: { readonly [name: string]: Json }
}

export type Logger = Readonly<Record<LogLevel, (message: string, fields?: LogFields) => void>> & {
  /** The same, with more on every line. */
  readonly child: (bindings: LogFields) => Logger
}

export type LoggerOptions = {
  readonly write: (entry: LogEntry) => unknown
  readonly clock: () => Date
  /** The least that is written. */
  readonly level?: LogLevel
  readonly bindings?: LogFields
}

/**
 * The only way out for a line of log: nothing passes that wasn't redacted. It never throws, whatever the line or `write`
 * does: what a program is there for must not fail because of what it says about it.
 */
export function createLogger(options: LoggerOptions): Logger {
  return loggerWith(options, asFields(redact(options.bindings ?? {})))
}

/** `bindings` are redacted once, here, and not again on every line. */
function loggerWith(options: LoggerOptions, bindings: LogEntry['fields']): Logger {
  const least = logLevels.indexOf(options.level ?? 'info')
  const log = (level: LogLevel) => {
    if (logLevels.indexOf(level) < least) return () => {}
    return (message: string, fields?: LogFields) => {
      // A line about a failure must not fail: the reader's disk, socket or clock may be what is broken.
      try {
        const more = fields === undefined ? {} : asFields(redact(fields))
        const entry = { at: timeOf(options.clock), level, message: textOf(message), fields: { ...bindings, ...more } }
        Promise.resolve(options.write(entry)).catch(() => {})
      } catch {
        // Nobody is left to tell.
      }
    }
  }
  return {
    debug: log('debug'),
    info: log('info'),
    warn: log('warn'),
    error: log('error'),
    child: (more) => loggerWith(options, { ...bindings, ...asFields(redact(more)) }),
  }
}

/** A log line without a time is better than none. */
function timeOf(clock: () => Date): string {
  try {
    return clock().toISOString()
  } catch {
    return ''
  }
}

function textOf(message: unknown): string {
  const safe = redact(message)
  return typeof safe === 'string' ? safe : JSON.stringify(safe)
}

function asFields(value: Json): LogEntry['fields'] {
  // True because an object that is no list and not null is one of fields.
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as LogEntry['fields']
  return { value }
}
