import { loadAgentPolicies } from '../agents/policy/load.ts'
import { readAgentPolicies } from '../agents/policy/read.ts'
import type { Driver } from '../drivers/driver.ts'
import { TmsError } from '../errors.ts'
import { withDefaults } from '../outbox/defaults.ts'
import { loadTargets, readTargets, targetsToRemove } from '../outbox/targets-file.ts'

/**
 * Puts agent policies and outbox targets into the database, as far as they are right; answers what isn't. A project
 * without such files changes nothing: an empty list would deny every agent. Targets that are gone from the file stay:
 * taking one away ends its deliveries, and that needs a person (`tms outbox targets`).
 */
export async function loadPolicies(
  driver: Driver,
  folders: readonly string[],
  /** Variables that stand for targets. */
  environment: Readonly<Record<string, string | undefined>> = {},
): Promise<readonly string[]> {
  const policies = await readAgentPolicies(folders)
  const targets = withDefaults(await readTargets(folders), environment)
  const problems = [...policies.problems, ...targets.problems].map(
    ({ path, line, message }) => `${path}:${line}: ${message}`,
  )
  try {
    if (policies.policies.length + policies.problems.length > 0) await loadAgentPolicies(driver, policies)
    if (targets.problems.length > 0 || (targets.path === null && targets.targets.length === 0)) return problems
    const removed = await targetsToRemove(driver, targets)
    if (removed.length > 0) {
      return [
        ...problems,
        `outbox targets that the file no longer names stay: ${removed.map(({ name }) => name).join(', ')}`,
      ]
    }
    await loadTargets(driver, targets)
    return problems
  } catch (error) {
    if (!(error instanceof TmsError) || (error.code !== 'ROLE_DENIED' && error.code !== 'IDENTITY_UNKNOWN')) throw error
    return [...problems, 'agent policies and outbox targets were left as they are: only a super_admin may change them']
  }
}
