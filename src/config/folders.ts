import { homedir, userInfo } from 'node:os'
import { join } from 'node:path'
import type { Settings } from './settings.ts'

/** Where the signing key is: the configured folder, else the user's own, which belongs to a person and not to a project. */
export function keysFolder({ values }: Settings, environment: NodeJS.ProcessEnv): string {
  return values.keys ?? join(userConfigFolder(environment), 'keys')
}

/** Works without HOME. */
function userConfigFolder(environment: NodeJS.ProcessEnv): string {
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
