import type { Driver } from '../drivers/driver.ts'
import { TmsError } from '../errors.ts'
import { loadCatalogue, readCatalogue } from '../flags/catalogue.ts'

/** Loads the flag catalogue if the caller may; a push by somebody who may not is still a push. Tells what happened. */
export async function bringCatalogue(driver: Driver, folders: readonly string[]): Promise<string> {
  const catalogue = await readCatalogue(folders)
  try {
    const { added, changed, removed } = await loadCatalogue(driver, catalogue)
    if (added.length + changed.length + removed.length === 0) return 'The flag catalogue is up to date.'
    return `Flag catalogue: ${added.length} added, ${changed.length} changed, ${removed.length} removed.`
  } catch (error) {
    if (!(error instanceof TmsError) || (error.code !== 'ROLE_DENIED' && error.code !== 'IDENTITY_UNKNOWN')) throw error
    return 'The flag catalogue was left as it is: only a super_admin may change it. Next: tms init'
  }
}
