import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { self } from '../../src/config/self.ts'
import { readSqlFiles } from '../../src/db/files.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { buildPack, type Built, type BuildInput } from '../../src/evidence/build.ts'
import { judgeDay } from '../../src/evidence/judge.ts'
import { packSource } from '../../src/evidence/verify-source.ts'
import { verifyEvidence, type Verification } from '../../src/evidence/verify.ts'
import { registerFirstKey, usableSigner } from '../../src/keys/keys.ts'
import { makePrivateKey, signerOf } from '../../src/keys/private.ts'
import type { Signer } from '../../src/keys/signer.ts'
import { readSlo } from '../../src/posture/slo.ts'
import { sqlBeside, type Subject } from '../contract/subjects.ts'
import { sqlFolder } from '../servers/schema.ts'
import { readyFleet, type Fleet } from '../fleet/fleet.ts'

/** A database with a fleet and a signing key, and somebody who builds packs of it. */
export type Desk = {
  readonly fleet: Fleet
  readonly driver: Driver
  readonly signer: Signer
  /** The private half, to be looked for where it must not be. */
  readonly pem: string
  /** The folder of the days. */
  readonly root: string
  readonly notes: string[]
  input(change?: Partial<BuildInput>): BuildInput
  build(change?: Partial<BuildInput>): Promise<Built>
  /** SQL of somebody who may do anything. */
  sql(text: string, parameters?: unknown[]): Promise<readonly Record<string, unknown>[]>
  /** Moves the database's calendar; what machines write keeps real time. */
  clock(offset: string): Promise<unknown>
  /** A folder of its own, removed at the end. */
  folder(): string
  verify(folder: string): Promise<Verification>
  stop(): Promise<void>
}

export async function readyDesk(subject: Subject): Promise<Desk> {
  const fleet = await readyFleet(subject)
  const driver = fleet.operator
  const pem = makePrivateKey()
  const signer = signerOf(pem)
  if (!signer) throw new Error('no key was made')
  await registerFirstKey(driver, signer)
  const sql: Desk['sql'] = sqlBeside(subject, driver)
  await fleet.set('obs.otelEnabled', true)
  const folders: string[] = []
  const folder = () => {
    const path = mkdtempSync(join(tmpdir(), 'tms-packs-'))
    folders.push(path)
    return path
  }
  const root = folder()
  const slo = await readSlo([join(import.meta.dirname, '../../policies')])
  const sqlFiles = await readSqlFiles(sqlFolder)
  const notes: string[] = []
  const sources = { keysFolder: '/nonexistent', environment: { TMS_SIGNING_KEY: pem } }
  const input: Desk['input'] = (change = {}) => ({
    driver,
    root,
    self,
    day: 'today',
    signer: () => usableSigner(change.driver ?? driver, sources, () => new Date()),
    judge: (facts) => judgeDay(change.driver ?? driver, facts, { slo, sqlFiles }),
    traceLink: 'https://traces.example.com/trace/{traceId}',
    note: (text) => void notes.push(text),
    pause: () => pause(5),
    ...change,
  })
  return {
    fleet,
    driver,
    signer,
    pem,
    root,
    notes,
    folder,
    input,
    build: (change) => buildPack(input(change)),
    sql,
    // The ledger's own clock goes with it.
    clock: async (offset) => {
      await sql(
        `create or replace function tms.now() returns timestamptz language sql stable as $$ select pg_catalog.now() + interval '${offset}' $$`,
      )
      return sql(
        `alter table tms.ledger_inbox alter column at set default pg_catalog.clock_timestamp() + interval '${offset}'`,
      )
    },
    verify: async (path) => verifyEvidence(await packSource(path), { keys: [signer] }),
    async stop() {
      for (const path of folders) rmSync(path, { recursive: true, force: true })
      await fleet.stop()
    },
  }
}

/** All bytes of a folder, by name. */
export function bytesIn(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder).map((name) => [name, readFileSync(join(folder, name)).toString('latin1')]),
  )
}

export function jsonIn(folder: string, name: string): Record<string, unknown> {
  // True enough for a test: it goes on to compare what is in it.
  return JSON.parse(readFileSync(join(folder, name), 'utf8')) as Record<string, unknown>
}
