import type inquirerModule from 'inquirer'

/** Questions, on stderr so that stdout stays data. inquirer costs 100 ms to load: only when something is asked. */

export type TextQuestion = {
  readonly message: string
  readonly default?: string
  /** True, or what is wrong with the answer. */
  readonly validate?: (answer: string) => true | string
}

export type Choice<T extends string> = { readonly name: string; readonly value: T; readonly description?: string }

export type ChoiceQuestion<T extends string> = {
  readonly message: string
  readonly choices: readonly Choice<T>[]
  readonly default: T
}

/** Null: the input ended without an answer. */
export function askText(question: TextQuestion, signal: AbortSignal): Promise<string | null> {
  return unlessEnded(signal, async (prompt) => {
    const { answer } = await prompt<{ answer: string }>([{ type: 'input', name: 'answer', ...question }])
    return answer
  })
}

/** Null: the input ended without an answer. */
export function askChoice<T extends string>(question: ChoiceQuestion<T>, signal: AbortSignal): Promise<T | null> {
  return unlessEnded(signal, async (prompt) => {
    const { answer } = await prompt<{ answer: string }>([{ type: 'select', name: 'answer', ...question }])
    return question.choices.find((choice) => choice.value === answer)?.value ?? question.default
  })
}

type PromptModule = ReturnType<typeof inquirerModule.createPromptModule>

/** inquirer waits for ever for an answer that can't come any more: after Ctrl-D, and when the terminal is gone. */
async function unlessEnded<T>(signal: AbortSignal, ask: (prompt: PromptModule) => Promise<T>): Promise<T | null> {
  const { default: inquirer } = await import('inquirer')
  const ended = new AbortController()
  const end = () => ended.abort()
  // All that can be seen of readline's end on Ctrl-D: it pauses its input, and takes it out of raw mode right after.
  const onPause = () => process.nextTick(() => process.stdin.isRaw || end())
  process.stdin.on('pause', onPause).on('end', end).on('error', end)
  try {
    const either = AbortSignal.any([signal, ended.signal])
    return await ask(inquirer.createPromptModule({ output: process.stderr, signal: either }))
  } catch (thrown) {
    if (ended.signal.aborted && !signal.aborted) return null
    throw thrown
  } finally {
    process.stdin.off('pause', onPause).off('end', end).off('error', end)
  }
}
