import type { PressedHere } from '../incident/here.ts'
import { pressPlace } from './folders.ts'
import type { Settings } from './settings.ts'
import { signerSources } from './signing.ts'

/** What the button needs to know of this host, and of the command that presses it. */
export function buttonHere(
  settings: Settings,
  environment: NodeJS.ProcessEnv,
  command: Pick<PressedHere, 'open' | 'warn' | 'late'>,
): PressedHere {
  return {
    ...pressPlace(settings, environment),
    // Asked for when the fleet is halted: what is wrong with it is no reason not to.
    signing: () => signerSources(settings, environment),
    ...command,
  }
}
