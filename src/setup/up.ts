import type { Driver } from '../drivers/driver.ts'

export type Held = { readonly target: string; readonly held: boolean }

/**
 * Makes sure that this process is the one that keeps the database open. A database with a server of its own needs nobody
 * for that.
 */
export async function hold(driver: Driver): Promise<Held> {
  const target = driver.target.name
  if (driver.target.shared) return { target, held: false }
  // Only the owner can run a transaction: anybody else is told who the owner is.
  await driver.administration?.transaction((run) => run('select 1'))
  return { target, held: true }
}
