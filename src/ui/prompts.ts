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

export async function askText(question: TextQuestion, signal: AbortSignal): Promise<string> {
  const prompt = await promptModule(signal)
  const { answer } = await prompt<{ answer: string }>([{ type: 'input', name: 'answer', ...question }])
  return answer
}

export async function askChoice<T extends string>(question: ChoiceQuestion<T>, signal: AbortSignal): Promise<T> {
  const prompt = await promptModule(signal)
  const { answer } = await prompt<{ answer: string }>([{ type: 'select', name: 'answer', ...question }])
  return question.choices.find((choice) => choice.value === answer)?.value ?? question.default
}

async function promptModule(signal: AbortSignal) {
  const { default: inquirer } = await import('inquirer')
  return inquirer.createPromptModule({ output: process.stderr, signal })
}
