import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * Files that the build puts beside the bundle. Looked for upwards, because a bundle splits into chunks at several
 * depths, and this module may be in any of them; from source they are in the package's `dist`.
 */
export function findArtefact(name: string): string | undefined {
  let folder = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    const found = [join(folder, name), join(folder, 'dist', name)].find((path) => existsSync(path))
    if (found !== undefined) return found
    // Not above the package: what lies there isn't ours.
    if (existsSync(join(folder, 'package.json')) || dirname(folder) === folder) return undefined
    folder = dirname(folder)
  }
}
