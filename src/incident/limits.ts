import { TmsError } from '../errors.ts'

/** The outcome, or null when it takes longer or fails; then `missed` hears why. The work itself is not stopped by it. */
export async function within<T>(
  limitMs: number,
  work: () => Promise<T>,
  missed: (why: string) => void,
): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limitMs} ms`)), limitMs)
  })
  try {
    return await Promise.race([work(), late])
  } catch (error) {
    missed(reason(error))
    return null
  } finally {
    clearTimeout(timer)
  }
}

/** Without a full stop: whoever quotes it goes on. */
export function reason(error: unknown): string {
  const bare = (text: string) => text.replace(/\.$/, '')
  if (error instanceof TmsError) return bare(`${bare(error.message)}: ${error.why}`)
  return bare(error instanceof Error ? error.message : String(error))
}
