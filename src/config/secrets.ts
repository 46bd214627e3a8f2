import { settingsTable, type SettingName, type SettingRow } from './settings.ts'

const mask = '********'

/** Query parameters of connection URLs that are credentials. */
const secretParameter = /^(password|passwd|sslpassword|apikey|api_key|key|token|secret)$/i

/** The parts of a setting's value that nobody may read over a shoulder. */
export function secretsIn(name: SettingName, value: string | number): string[] {
  const row: SettingRow = settingsTable[name]
  if (row.secret === undefined || typeof value === 'number') return []
  // a key in PEM is secret in its middle line alone
  if (row.secret === 'whole') return [value, ...(value.match(/[A-Za-z0-9+/=]{40,}/g) ?? [])]
  const url = parseUrl(value)
  if (!url) return [value]
  const parameters = [...url.searchParams].filter(([key]) => secretParameter.test(key)).map(([, text]) => text)
  return [url.password, decoded(url.password), ...parameters].filter((text) => text !== '')
}

export function hasSecret(name: SettingName, value: string | number): boolean {
  return secretsIn(name, value).length > 0
}

/** The value as it may be shown. */
export function masked(name: SettingName, value: string | number): string | number {
  const row: SettingRow = settingsTable[name]
  if (row.secret === undefined || typeof value === 'number') return value
  const url = row.secret === 'url' ? parseUrl(value) : null
  if (!url) return mask
  if (url.password) url.password = mask
  for (const key of [...url.searchParams.keys()]) {
    if (secretParameter.test(key)) url.searchParams.set(key, mask)
  }
  return url.toString()
}

function parseUrl(text: string): URL | null {
  return URL.canParse(text) ? new URL(text) : null
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
