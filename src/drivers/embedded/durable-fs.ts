import { fsyncSync } from 'node:fs'
import { NodeFS } from '@electric-sql/pglite/nodefs'
import { syncPath } from './durable.ts'

/** The parts of Emscripten's NODEFS that this file uses; PGlite's types don't describe them. */
type NodeFsModule = {
  FS: {
    filesystems: {
      NODEFS: {
        stream_ops: { fsync?: (stream: { nfd?: number; node: unknown }) => number }
        realPath(node: unknown): string
        tryFSOperation: <T>(operation: () => T) => T
      }
    }
  }
}

/**
 * PGlite's directory filesystem, except that fsync reaches the disk: NODEFS has no fsync at all, so Postgres believes
 * that each is done. It also keeps the last errno, because Postgres reports a full disk as a crash when it strikes
 * while the write-ahead log is written.
 */
export class DurableFs extends NodeFS {
  syncs = 0
  lastErrno: string | undefined

  override async init(...[pg, options]: Parameters<NodeFS['init']>): ReturnType<NodeFS['init']> {
    const { emscriptenOpts } = await super.init(pg, options)
    const patch = (module: NodeFsModule) => {
      const nodefs = module.FS.filesystems.NODEFS
      const original = nodefs.tryFSOperation
      nodefs.tryFSOperation = (operation) =>
        original(() => {
          try {
            return operation()
          } catch (error) {
            this.#remember(error)
            throw error
          }
        })
      nodefs.stream_ops.fsync = (stream) =>
        nodefs.tryFSOperation(() => {
          // Directories have no descriptor in NODEFS, and their entries need the disk just as much.
          if (stream.nfd === undefined) syncPath(nodefs.realPath(stream.node))
          else fsyncSync(stream.nfd)
          this.syncs += 1
          return 0
        })
    }
    // The cast is true because preRun functions receive the Emscripten module, of which NodeFsModule is a part.
    const preRun = [patch as unknown as NonNullable<typeof emscriptenOpts.preRun>[number]]
    return { emscriptenOpts: { ...emscriptenOpts, preRun: [...preRun, ...(emscriptenOpts.preRun ?? [])] } }
  }

  #remember(error: unknown): void {
    // ENOENT and EEXIST are how Postgres looks around, not trouble.
    if (!(error instanceof Error && 'code' in error && typeof error.code === 'string')) return
    if (error.code !== 'ENOENT' && error.code !== 'EEXIST') this.lastErrno = error.code
  }
}
