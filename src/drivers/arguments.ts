import { deepestArguments, depthOf } from '../depth.ts'
import { anyHelp, TmsError } from '../errors.ts'
import type { ContractFunction } from './contract.ts'

/** The arguments as the text that is sent, by every driver the same. */
export function argumentsText(fn: ContractFunction, args: object): string {
  let text
  try {
    text = JSON.stringify(args)
  } catch (error) {
    if (error instanceof RangeError) throw tooDeep(fn)
    throw error
  }
  if (depthOf(text) > deepestArguments) throw tooDeep(fn)
  return text
}

function tooDeep(fn: ContractFunction): TmsError {
  return new TmsError({
    code: 'INPUT_INVALID',
    what: `The arguments of ${fn} are nested too deeply.`,
    why: `The limit is ${deepestArguments} levels of lists and objects for one call.`,
    next: [anyHelp],
  })
}
