import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { root } from './process.ts'

/** Makes sure that dist is what the sources say; costs 0.1 s when it is. */
export function build(): void {
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'scripts/build.js')], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`the build failed: ${stderr}`)
}

export const bin = join(root, 'bin/run.js')
