import type { ServiceAccount } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import type { Channel, RunSql } from '../driver.ts'

/** How this process reaches the database at the moment: it owns it, or it talks to the owner. */
export type Link = {
  readonly call: (
    fn: ContractFunction,
    args: object,
    as: ServiceAccount | undefined,
    limitMs: number | undefined,
  ) => Promise<unknown>
  readonly listen: (channel: Channel) => Promise<void>
  readonly close: () => Promise<void>
  /** Only for the owner. */
  readonly transaction?: <T>(work: (run: RunSql) => Promise<T>) => Promise<T>
}

export type LinkOptions = {
  readonly directory: string
  readonly create: boolean
  readonly callTimeoutMs: number
  readonly localUser: string
  readonly workerFile: string | undefined
  readonly snapshotFolder: string | undefined
  readonly onSignal: (channel: Channel) => void
  readonly onLost: () => void
}
