import { truthy } from './argv.ts'

/** What the command may assume about who reads and who answers. Decided once, from the streams and the environment. */
export type Terminal = {
  /** Somebody can be asked: a terminal on both ends, and no CI system in between. */
  readonly interactive: boolean
  readonly stdout: Surface
  readonly stderr: Surface
}

export type Surface = {
  readonly isTerminal: boolean
  readonly colour: boolean
  /** Columns; Infinity where lines may be as long as they are (files and pipes, unless COLUMNS says otherwise). */
  readonly width: number
}

export function lookAtTerminal(environment: NodeJS.ProcessEnv, colourFlag?: boolean): Terminal {
  const stdout = surface(process.stdout, environment, colourFlag)
  const stderr = surface(process.stderr, environment, colourFlag)
  return {
    // Prompts are written to stderr, so that is the stream that must be a terminal; stdout may be a pipe.
    interactive: process.stdin.isTTY && stderr.isTerminal && truthy(environment.CI) === false,
    stdout,
    stderr,
  }
}

function surface(stream: NodeJS.WriteStream, environment: NodeJS.ProcessEnv, colourFlag: boolean | undefined): Surface {
  // Undefined on a pipe, whatever the type says: as good as false.
  const isTerminal = stream.isTTY
  return {
    isTerminal,
    colour: colourFlag ?? colourWanted(isTerminal, environment),
    width: Math.max((isTerminal ? stream.columns || 80 : saidWidth(environment)) || Infinity, 20),
  }
}

/** COLUMNS where there is no terminal to ask: `watch`, a pager, a person who wants it narrow. 0: nothing was said. */
function saidWidth({ COLUMNS }: NodeJS.ProcessEnv): number {
  return /^\d{1,4}$/.test(COLUMNS ?? '') ? Number(COLUMNS) : 0
}

/** https://no-color.org wins over https://force-color.org; both only when they aren't empty. */
function colourWanted(isTerminal: boolean, environment: NodeJS.ProcessEnv): boolean {
  if (environment.NO_COLOR) return false
  if (environment.FORCE_COLOR) return truthy(environment.FORCE_COLOR) !== false
  return isTerminal && environment.TERM !== 'dumb'
}
