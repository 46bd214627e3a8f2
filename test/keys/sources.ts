import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SignerSources } from '../../src/keys/open.ts'

/** A keys folder of its own, which doesn't exist yet, as on a new machine. */
export function freshSources(environment: NodeJS.ProcessEnv = {}): SignerSources {
  return { keysFolder: join(mkdtempSync(join(tmpdir(), 'tms-keys-')), 'keys'), environment }
}
