import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { writePack, type Pack } from './packs.ts'

/** A folder of days that is gone after the test. */
export function writeDays(packs: readonly Pick<Pack, 'day' | 'files'>[]): string {
  const folder = join(temporary(), 'green-posture')
  mkdirSync(folder)
  for (const pack of packs) writePack(join(folder, pack.day), pack.files)
  return folder
}

export function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tms-evidence-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
