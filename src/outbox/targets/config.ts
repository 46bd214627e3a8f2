import * as z from 'zod'
import { TmsError } from '../../errors.ts'

/** The pieces that configurations of targets are made of. */

const environmentName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'takes the name of an environment variable')

export const secretPlace = 'takes the place of a secret, never the secret: { env: NAME } or { file: /path }'

export const secretSource = z.union(
  [
    z.strictObject({ env: environmentName }),
    z.strictObject({ file: z.string().regex(/^\/[^\0]{1,1023}$/, 'takes an absolute path') }),
  ],
  secretPlace,
)

/** Address written down. User and password would be a secret in the database, a fragment is never sent. */
export const url = z.string().superRefine((text, context) => {
  const problem = urlProblem(text)
  if (problem !== null) context.addIssue({ code: 'custom', message: problem })
})

/** Null when it is an address that can be sent to. Never quotes the address: it may be a secret. */
export function urlProblem(text: string): string | null {
  if (!URL.canParse(text)) return 'is no URL; it takes https://host/path'
  const { protocol, username, password, hash } = new URL(text)
  if (protocol !== 'https:' && protocol !== 'http:') return 'takes an https or http URL'
  if (username || password) return 'must not hold a user or password; name a secret instead'
  if (hash) return 'must not have a fragment (#…): it is never sent'
  return null
}

/** `host` or `host:port`, exactly; see address.ts. */
export const hosts = z
  .array(
    z
      .string()
      .regex(/^(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d{1,5})?$/, 'takes lower-case host names, with or without a port'),
  )
  .max(50)
  .default([])

/** Exactly one of `url` and `urlFrom`. */
export const addressed = {
  url: url.optional(),
  urlFrom: secretSource.optional(),
  hosts,
}

type Addressed = { readonly url?: string | undefined; readonly urlFrom?: z.output<typeof secretSource> | undefined }

export function checkAddressed(config: Addressed, context: z.RefinementCtx): void {
  if ((config.url === undefined) === (config.urlFrom === undefined)) {
    context.addIssue({ code: 'custom', path: ['url'], message: 'takes either url or urlFrom, and one of them' })
  }
}

/** What was given, as the target's configuration; else what is wrong with it, without a word of what was given. */
export function parseTargetConfig<T extends z.ZodType>(
  kind: string,
  example: string,
  schema: T,
  raw: unknown,
): z.output<T> {
  const parsed = schema.safeParse(raw)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  // What is wrong with the key of a record is one level down.
  const message = issue?.code === 'invalid_key' ? issue.issues[0]?.message : issue?.message
  const at = [...(issue?.path ?? [])].map(String).join('.')
  const stray = issue?.code === 'unrecognized_keys' ? issue.keys[0] : undefined
  const literalSecret = stray !== undefined && /secret|token|password|key/i.test(stray)
  throw new TmsError({
    code: 'INPUT_INVALID',
    what: `this configuration of a ${kind} target is not usable`,
    why:
      stray !== undefined
        ? `${[...(at ? [at] : []), stray].join('.')} is not known here`
        : `${at || 'it'}: ${message ?? 'is wrong'}`,
    next: [
      literalSecret
        ? 'name the place of the secret: secretFrom: { env: NAME } or secretFrom: { file: /path }'
        : `write it like ${example}`,
    ],
  })
}
