import { loadAgentPolicies } from '../agents/policy/load.ts'
import { readAgentPolicies } from '../agents/policy/read.ts'
import type { Driver } from '../drivers/driver.ts'
import { TmsError } from '../errors.ts'
import { withDefaults } from '../outbox/defaults.ts'
import { loadInvariants } from '../invariants/load.ts'
import { readInvariants } from '../invariants/read.ts'
import { loadTargets, readTargets, targetsToRemove } from '../outbox/targets-file.ts'

/**
 * Puts agent policies, outbox targets and invariants into the database, as far as they are right; answers what isn't. A project
 * without such files changes nothing: an empty list would deny every agent. Targets that are gone from the file stay:
 * taking one away ends its deliveries, and that needs a person (`tms outbox targets`).
 */
export async function loadPolicies(
  driver: Driver,
  folders: readonly string[],
  /** Variables that stand for targets. */
  environment: Readonly<Record<string, string | undefined>> = {},
): Promise<readonly string[]> {
  return [...(await loadFleet(driver, folders, environment)), ...(await bringInvariants(driver, folders))]
}

/** What must be true of the data. One that can't be loaded is unknown from then on, which isn't green. */
async function bringInvariants(driver: Driver, folders: readonly string[]): Promise<readonly string[]> {
  const read = await readInvariants(folders)
  try {
    const { problems, pending, kept } = await loadInvariants(driver, read)
    return [
      ...problems.map(({ path, line, message }) => `${path}:${line}: ${message}`),
      ...(pending.length === 0
        ? []
        : [`the SQL of ${pending.join(', ')} is not in the database yet: run what tms invariants load --print shows`]),
      ...(kept.length === 0 ? [] : [`invariants that no file names stay: ${kept.join(', ')} (tms invariants load)`]),
    ]
  } catch (error) {
    // Their SQL is an administrator's to put there: a login that may not, and an owner that goes on working, are told.
    if (!(error instanceof TmsError) || !['ROLE_DENIED', 'IDENTITY_UNKNOWN', 'OWNER_BUSY'].includes(error.code))
      throw error
    return [`invariants were left as they are: ${error.message} Next: tms invariants load`]
  }
}

async function loadFleet(
  driver: Driver,
  folders: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
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
