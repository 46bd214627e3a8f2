import { loadAgentPolicies } from '../agents/policy/load.ts'
import { readAgentPolicies } from '../agents/policy/read.ts'
import type { Driver } from '../drivers/driver.ts'
import { loadTargets, readTargets, targetsToRemove } from '../outbox/targets-file.ts'

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

/**
 * Puts agent policies and outbox targets into the database, as far as they are right; answers what isn't. Targets that
 * are gone from the file stay: taking one away ends its deliveries, and that needs a person (`tms outbox targets`).
 */
export async function loadPolicies(driver: Driver, folders: readonly string[]): Promise<readonly string[]> {
  const policies = await readAgentPolicies(folders)
  await loadAgentPolicies(driver, policies)
  const targets = await readTargets(folders)
  const problems = [...policies.problems, ...targets.problems].map(
    ({ path, line, message }) => `${path}:${line}: ${message}`,
  )
  if (targets.problems.length > 0 || targets.path === null) return problems
  const removed = await targetsToRemove(driver, targets)
  if (removed.length > 0)
    return [...problems, `outbox targets that the file no longer names stay: ${removed.map(({ name }) => name).join(', ')}`]
  await loadTargets(driver, targets)
  return problems
}
