import { fileURLToPath } from 'node:url'
import { ESLint } from 'eslint'
import tseslint from 'typescript-eslint'
import { beforeAll, expect, test } from 'vitest'

/** The project's own configuration on snippets; without types, so that the snippets need no file. */

let eslint: ESLint
beforeAll(() => {
  eslint = new ESLint({
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    overrideConfig: [
      // True because both packages describe the same configuration, each with types of its own.
      tseslint.configs.disableTypeChecked as ESLint.Options['overrideConfig'] & object,
      { files: ['**/*.ts'], languageOptions: { parserOptions: { projectService: false } } },
    ].flat(),
  })
})

async function messagesFor(filePath: string, code: string): Promise<string[]> {
  const [result] = await eslint.lintText(code, { filePath })
  const messages = result?.messages ?? []
  expect(messages.filter(({ fatal }) => fatal)).toEqual([])
  return messages.filter(({ ruleId }) => ruleId === 'tms/log-through-redaction').map(({ message }) => message)
}

const around: readonly (readonly [string, string])[] = [
  ['console', `console.log('x')`],
  ['console by another name', `globalThis.console.error('x')`],
  ['console taken apart', `const { warn } = console; warn('x')`],
  ['console imported', `import { log } from 'node:console'; log('x')`],
  ['stdout', `process.stdout.write('x')`],
  ['stderr in brackets', `process['stderr'].write('x')`],
  ['stderr taken apart', `const { stderr } = process; stderr.write('x')`],
  ['stdout imported', `import { stdout } from 'node:process'; stdout.write('x')`],
  ['the log of a request', `export const f = (request: any) => request.log.info('x')`],
  ['the log of a server', `export const f = (app: any) => app.log.info('x')`],
  ['the log of a reply', `export const f = (reply: any) => reply.log.info('x')`],
  ['pino', `import pino from 'pino'; pino()`],
  ['a part of pino', `import x from 'pino/file'; x()`],
  ['pino later', `export const f = () => import('pino')`],
  ["fastify's own logger", `import fastify from 'fastify'; export const app = fastify({ logger: true })`],
]

test.each(around)('refuses %s and names the logger to use', async (_, code) => {
  for (const file of ['src/outbox/publish.ts', 'src/drivers/postgres/x.ts', 'src/commands/flags/set.ts']) {
    const messages = await messagesFor(file, code)
    expect(messages, file).not.toEqual([])
    expect(messages[0]).toContain('src/redaction/logger.ts')
  }
})

test('accepts the logger and a fastify without one', async () => {
  const code = `
    import fastify from 'fastify'
    import { createLogger } from '../redaction/logger.ts'
    export const log = createLogger({ write: () => {}, clock: () => new Date() })
    log.info('started', { port: 1 })
    export const app = fastify({ logger: false })`
  expect(await messagesFor('src/door/server.ts', code)).toEqual([])
})

test.each(['src/ui/output.ts', 'src/redaction/logger.ts', 'src/run.ts'])('lets %s write', async (file) => {
  expect(await messagesFor(file, `process.stderr.write('x')`)).toEqual([])
})
