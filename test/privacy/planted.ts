import * as fc from 'fast-check'
import * as z from 'zod'
import { defineAgent, TaskFailure, type Agent, type Context } from '../../src/agents/define.ts'
import { around, planted, type Planted } from '../redaction/secrets.ts'

/** One secret as it stands in a text, and what must not be found anywhere. */
export type Hidden = { readonly text: string; readonly secret: string; readonly kind: string }

export function hidden(seed: number, count: number): Hidden[] {
  return fc
    .sample(fc.tuple(planted, around), { seed, numRuns: count })
    .map(([{ kind, secret, text }, [before, after]]: [Planted, [string, string]]) => ({
      kind,
      secret,
      // jsonb and the wire take no lone surrogates; none of the generators makes one.
      text: `${before}${text}${after}`,
    }))
}

/** How a careless agent says what it should keep for itself. Each throws or returns as it likes. */
const ways: Readonly<Record<string, (context: Context, text: string, secret: string) => Promise<unknown>>> = {
  'log message': async ({ log }, text) => log.info(`the carrier said ${text}`),
  'log fields': async ({ log }, text, secret) =>
    log.warn('the carrier answered', {
      note: text,
      deep: [{ list: ['a', text] }],
      password: secret,
      [text]: 'a key',
      error: Object.assign(new Error(text), { response: { body: text } }),
    }),
  'error message': async (_, text) => {
    throw new Error(text)
  },
  'error cause': async (_, text) => {
    throw new Error('the carrier is away', { cause: new Error(text) })
  },
  'error fields': async (_, text) => {
    throw Object.assign(new Error('the carrier is away'), { request: { headers: { note: text } }, body: text })
  },
  'error name': async (_, text) => {
    throw Object.assign(new Error('the carrier is away'), { name: text })
  },
  'error code': async (_, text) => {
    throw Object.assign(new Error('the carrier is away'), { code: text })
  },
  'several errors': async (_, text) => {
    throw new AggregateError([new Error(text)], text)
  },
  'thrown text': async (_, text) => {
    // What other people's code throws is not always an error.
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    throw text
  },
  'thrown value': async (_, text) => {
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    throw { status: 500, body: text }
  },
  'task failure': async (_, text) => {
    throw new TaskFailure('external_api', text)
  },
  'class of a task failure': async (_, text) => {
    // Agents in plain JavaScript have no types that would say no.
    throw new TaskFailure(text as 'bug', 'the carrier is away')
  },
  'span name': async (context, text) => context.span(`call ${text}`, async () => undefined),
  'span that fails': async (context, text) =>
    context.span('call', async () => {
      throw new Error(text)
    }),
  'step that fails': async (context, text) =>
    context.step('pay', async () => {
      throw new Error(text)
    }),
  'schema that does not fit': async (_, text) => z.record(z.string(), z.number()).parse({ [text]: 'x' }),
  'topic nobody allowed': async (context, text) => context.publish(text, {}),
  'function nobody allowed': async (context, text) => context.enqueue(text, {}),
  'routine nobody allowed': async (context, text) => context.apply(text, {}),
  'output that does not fit': async (_, text) => ({ [text]: text }),
}

export const wayNames: readonly string[] = [...Object.keys(ways), 'input that does not fit']

/** An agent whose `leak.one` says the n-th of these in one of the ways. It never gets them in its input. */
export function carelessAgent(all: readonly Hidden[]): Agent {
  return defineAgent({
    name: 'leak',
    functions: {
      'leak.one': {
        input: z.object({ way: z.string(), n: z.number() }),
        // As an author wants it that gives anything back but the wrong thing.
        output: z.record(z.string(), z.number()).optional(),
        run: async (context, { way, n }) => {
          const { text = '', secret = '' } = all[n] ?? {}
          const result = await ways[way]?.(context, text, secret)
          return result
        },
      },
      'leak.two': {
        input: z.record(z.string(), z.number()),
        output: z.void(),
        run: async () => undefined,
      },
    },
  })
}
