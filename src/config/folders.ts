import { homedir, userInfo } from 'node:os'
import { join } from 'node:path'

/** The user's own folder for what belongs to a person and not to a project: the signing key. Works without HOME. */
export function userConfigFolder(environment: NodeJS.ProcessEnv): string {
  const base = environment.XDG_CONFIG_HOME
  return base ? join(base, 'tms') : join(environment.HOME || homeOrTemporary(), '.config', 'tms')
}

function homeOrTemporary(): string {
  try {
    return homedir()
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
