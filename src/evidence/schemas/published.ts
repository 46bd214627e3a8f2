import * as z from 'zod'
import { TmsError } from '../../errors.ts'
import { auditDigestFile } from './audit-digest.ts'
import { controlsFile } from './controls.ts'
import { flagsFile } from './flags.ts'
import { keysFile } from './keys.ts'
import { manifestFile } from './manifest.ts'
import { outboxLagFile } from './outbox-lag.ts'
import { sloSnapshotFile } from './slo-snapshot.ts'

/** The JSON files of a pack. A file that changes its form changes the number at the end of its `type`. */
export const published = {
  'flags.json': flagsFile,
  'slo_snapshot.json': sloSnapshotFile,
  'outbox_lag.json': outboxLagFile,
  'audit_digest.json': auditDigestFile,
  'controls.json': controlsFile,
  'manifest.json': manifestFile,
  'keys.json': keysFile,
} as const

// True because Object.keys of a const object are exactly its keys.
export const publishedNames = Object.keys(published) as readonly (keyof typeof published)[]

export type Schema = { readonly file: string; readonly version: string; readonly schema: Record<string, unknown> }

/** JSON Schema (2020-12) of a file, by its name with or without its ending. */
export function schemaOf(wanted: string): Schema {
  const file = publishedNames.find((name) => name === wanted || name === `${wanted}.json`)
  if (file === undefined) {
    throw new TmsError({
      code: 'USAGE',
      what: `${wanted} is no JSON file of a pack`,
      why: `these are: ${publishedNames.join(', ')}`,
      next: publishedNames.map((name) => `tms evidence schema ${name}`),
    })
  }
  const version = published[file].shape.type.value
  const { $schema, ...rest } = z.toJSONSchema(published[file])
  return {
    file,
    version,
    schema: { $schema, $id: `https://tms.invalid/schemas/${version}.json`, title: `${file} of a pack`, ...rest },
  }
}
