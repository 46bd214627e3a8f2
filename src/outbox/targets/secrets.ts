import { readFile, realpath } from 'node:fs/promises'
import { sep } from 'node:path'
import { TmsError } from '../../errors.ts'
import type { Secrets } from './target.ts'

/** Variables that people have already, under their usual names. */
const usualNames: readonly string[] = ['SLACK_WEBHOOK_URL', 'ALERT_WEBHOOK_URL', 'PAGERDUTY_ROUTING_KEY']
const prefix = 'TMS_SECRET_'

/**
 * Secrets of this host, for targets that name them. A target is data, and its author chooses where its secret is sent:
 * so only what was put there for targets can be named, never the database's password or another file.
 */
export function hostSecrets(
  environment: Readonly<Record<string, string | undefined>>,
  /** Files of secrets lie in here; null for none. */
  folder: string | null,
): Secrets {
  return async (source) => {
    if ('env' in source) {
      const allowed = source.env.startsWith(prefix) || usualNames.includes(source.env)
      const secret = allowed ? environment[source.env] : undefined
      if (secret) return secret
      throw missing(
        allowed
          ? `${source.env} is not set`
          : `${source.env} can't be named by a target, only ${prefix}… and ${usualNames.join(', ')}`,
      )
    }
    if (folder === null) throw missing(`this host has no folder of secrets for ${source.file}`)
    try {
      const [root, path] = await Promise.all([realpath(folder), realpath(source.file)])
      if (!path.startsWith(root + sep)) throw missing(`${source.file} is outside the folder of secrets`)
      // Editors end a file with a line feed; no secret does.
      return (await readFile(path, 'utf8')).replace(/\r?\n$/, '')
    } catch (error) {
      throw error instanceof TmsError ? error : missing(`${source.file} is not there, or not readable`)
    }
  }
}

function missing(why: string): TmsError {
  return new TmsError({
    code: 'CONFIG_MISSING',
    what: 'a secret of an outbox target is not available on this host',
    why,
    next: [`set a variable whose name begins with ${prefix}, and name it in the target`],
  })
}
