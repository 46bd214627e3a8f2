import { TmsError } from '../errors.ts'

/**
 * The outcome, or null when it takes longer or fails, or when all time is over; then `missed` hears why. The work itself is not
 * stopped by it.
 */
export async function within<T>(
  { limitMs, late }: { readonly limitMs: number; readonly late: AbortSignal },
  work: () => Promise<T>,
  missed: (why: string) => void,
): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined
  let giveUp: () => void = () => undefined
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limitMs} ms`)), limitMs)
    giveUp = () => reject(new Error('it was interrupted'))
    late.addEventListener('abort', giveUp)
  })
  try {
    late.throwIfAborted()
    return await Promise.race([work(), over])
  } catch (error) {
    missed(late.aborted ? 'it was interrupted' : reason(error))
    return null
  } finally {
    clearTimeout(timer)
    late.removeEventListener('abort', giveUp)
  }
}

/** Without a full stop: whoever quotes it goes on. */
export function reason(error: unknown): string {
  const bare = (text: string) => text.replace(/\.$/, '')
  if (error instanceof TmsError) return bare(`${bare(error.message)}: ${error.why}`)
  return bare(error instanceof Error ? error.message : String(error))
}
