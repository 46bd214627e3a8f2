/**
 * Consent is given once, for one thing, by whoever types: never by something that lies around in an environment. Nor are
 * the steps of a rollout.
 */
const withoutVariable = new Set(['confirm', 'execute', 'next', 'off'])

/** The variable that stands in for a flag: `--call-limit` is TMS_CALL_LIMIT. Null for what has none. */
export function flagVariable(flag: string): string | null {
  return withoutVariable.has(flag) ? null : `TMS_${flag.toUpperCase().replaceAll('-', '_')}`
}
