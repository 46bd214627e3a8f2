import type { Problem } from '../errors.ts'
import { printableLines } from './escape.ts'
import type { Surface } from './terminal.ts'
import { wrapLines } from './wrap.ts'

/** What a person reads when something went wrong: what happened, why, and what to type next. */
export async function renderProblem(problem: Problem, surface: Surface): Promise<string> {
  const head = await emphasised(`${problem.code}:`, surface)
  // Broken before it is coloured: a break inside a colour's code shows the code.
  const what = wrapLines(`${problem.code}: ${printableLines(problem.what)}`, surface.width)
  const lines = [head + what.slice(problem.code.length + 1)]
  if (problem.why) lines.push(wrapLines(printableLines(problem.why), surface.width, '  '))
  if (problem.next.length > 0) lines.push('Next:', ...problem.next.map((command) => `  ${printableLines(command)}`))
  return `${lines.join('\n')}\n`
}

async function emphasised(text: string, surface: Surface): Promise<string> {
  if (!surface.colour) return text
  const { Chalk } = await import('chalk')
  return new Chalk({ level: 1 }).red.bold(text)
}
