import { userInfo } from 'node:os'
import { isAbsolute, join } from 'node:path'
import type { Connection } from '../drivers/connection.ts'
import { stopFilePath } from '../incident/stop-file.ts'
import type { Settings } from './settings.ts'

/** Where the signing key is: the configured folder, else the user's own, which belongs to a person and not to a project. */
export function keysFolder({ values }: Settings, environment: NodeJS.ProcessEnv): string {
  return values.keys ?? join(userConfigFolder(environment), 'keys')
}

/** The file that stops this host's workers while the database is down: see src/incident/stop-file.ts. */
export function stopFileOf(settings: Settings, environment: NodeJS.ProcessEnv): string {
  return stopFilePath(stopFolder(settings, environment), placeOf(settings.connection))
}

function stopFolder({ values, connection }: Settings, environment: NodeJS.ProcessEnv): string {
  if (values.stopFolder !== undefined) return values.stopFolder
  return connection.driver === 'embedded' ? connection.directory : join(userConfigFolder(environment), 'stop')
}

/** Which database is meant, known without reaching it, and the same for everybody who reaches it, whoever they are. */
export function placeOf(connection: Connection): string {
  if (connection.driver === 'embedded') return `embedded ${connection.directory}`
  const url = new URL(connection.url)
  if (connection.driver === 'supabase') return `supabase ${url.host}`
  const parameter = (name: string) => url.searchParams.get(name) || undefined
  const host = parameter('host') ?? (url.hostname || 'localhost')
  return `postgres ${host}:${parameter('port') ?? (url.port || '5432')}${url.pathname}`
}

/** What the button needs to know of this host. */
export function pressPlace(settings: Settings, environment: NodeJS.ProcessEnv) {
  return {
    place: placeOf(settings.connection),
    who: localUser(),
    artifacts: settings.values.artifacts,
    stopFile: stopFileOf(settings, environment),
    environment,
  }
}

/** Works without HOME. Never relative: the signing key would lie in whichever folder a command runs in, and a stop in no other. */
function userConfigFolder({ XDG_CONFIG_HOME: base = '', HOME: home = '' }: NodeJS.ProcessEnv): string {
  if (isAbsolute(base)) return join(base, 'tms')
  return join(isAbsolute(home) ? home : homeOfUser(), '.config', 'tms')
}

function homeOfUser(): string {
  try {
    // Not homedir(), which believes an empty HOME.
    return userInfo().homedir || '/nonexistent'
  } catch {
    return '/nonexistent'
  }
}

/** The operating-system user's name; a number where the system has none for it (containers). */
export function localUser(): string {
  try {
    return userInfo().username
  } catch {
    return `uid-${process.getuid?.() ?? 'unknown'}`
  }
}
