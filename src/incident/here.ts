import type { Driver } from '../drivers/driver.ts'
import type { SignerSources } from '../keys/open.ts'
import type { DirectMessage, DirectResult } from '../notify/directly.ts'
import { pressButton, reached, type Pressed } from './press.ts'
import { readStopFile, writeStopFile } from './stop-file.ts'
import { words } from './words.ts'

/** Where the button is pressed: what a command knows of this host. */
export type PressedHere = {
  readonly open: () => Promise<Driver>
  /** Which database is meant, known without reaching it. */
  readonly place: string
  readonly who: string
  readonly artifacts: string
  /** Where the signing key may be; what is wrong with that is no reason not to halt. */
  readonly signing: () => SignerSources
  readonly stopFile: string
  readonly environment: NodeJS.ProcessEnv
  readonly warn: (text: string) => void
  /** Aborted when the time after a Ctrl-C is over: what follows the halt is left then, and said. */
  readonly late: AbortSignal
}

async function tellDirectly(environment: NodeJS.ProcessEnv, message: DirectMessage): Promise<readonly DirectResult[]> {
  const { directChannels, notifyDirectly } = await import('../notify/directly.ts')
  return notifyDirectly(
    { ...directChannels(environment), fetch: globalThis.fetch, clock: () => new Date(), limitMs: 1500 },
    message,
  )
}

/** After a resume of what was pressed here while the database was down: that alert is over. What fails is only that. */
export async function tellReached({ environment, place, who }: Pick<PressedHere, 'environment' | 'place' | 'who'>) {
  await tellDirectly(environment, reached(place, who)).catch(() => [])
}

/** The button of this host, with the world as it is: clock, network, files, key. */
export async function pressHere(here: PressedHere, why: string): Promise<Pressed> {
  return pressButton({
    open: here.open,
    target: here.place,
    why,
    who: here.who,
    folder: `${here.artifacts}/incidents`,
    signer: async () => {
      const { openSigner } = await import('../keys/open.ts')
      return openSigner(here.signing())
    },
    stopHere: async () => {
      const at = new Date().toISOString()
      await writeStopFile(here.stopFile, { at, by: here.who, why: words(why, 1000), target: here.place })
      return here.stopFile
    },
    stoppedHere: async () => (await readStopFile(here.stopFile, null)) !== null,
    notify: (message) => tellDirectly(here.environment, message),
    clock: () => new Date(),
    now: () => performance.now(),
    pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    warn: here.warn,
    late: here.late,
  })
}
