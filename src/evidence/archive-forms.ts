import type { Verification } from './verify.ts'

export type ArchiveFormat = 'tar.gz' | 'zip'

export type Exported = {
  readonly out: string
  readonly bytes: number
  readonly sha256: string
  readonly format: ArchiveFormat
  readonly found: Verification
}
