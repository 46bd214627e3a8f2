import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { startArena, type Arena } from '../attacks/fleet/arena.ts'
import { bin, build } from '../ui/built.ts'
import { envelopeOf, run } from '../ui/process.ts'

/** The levers that aren't the button, where things are broken: each says so, with the code for it, and has changed nothing. */
describe('the other levers', () => {
  let arena: Arena
  const folder = mkdtempSync(join(tmpdir(), 'tms-broken-'))
  beforeAll(async () => {
    build()
    arena = await startArena()
  }, 120_000)
  afterAll(async () => {
    await arena.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const pull = async (words: readonly string[], env: Record<string, string>) => {
    const ended = await run([bin, 'incident', ...words, '--json'], {
      cwd: folder,
      env: { TMS_CONNECT_TIMEOUT: '2', TMS_TIMEOUT: '3', ...env },
    })
    // True by the envelope's own contract.
    const error = envelopeOf(ended.stdout).error as { code: string; next: string[] } | null
    return { code: ended.code, error: error?.code ?? null, next: error?.next.length ?? 0 }
  }
  /** What any of the levers would have changed. */
  const state = async () => {
    const { incidents, fence } = granted(await arena.fleet.operator.call('incident_list', {}))
    const flags = await arena.sql('select count(*)::int as n, max(id) as newest from tms.feature_flags_history')
    return { incidents, fence, flags }
  }

  test.each([
    ['soft-degrade', ['soft-degrade']],
    ['rollback', ['rollback', '--confirm', 'some@plan']],
    ['safe-mode on', ['safe-mode', 'on', '--why', 'a test']],
    ['resume', ['resume', '1', '--confirm', 'some@incident-1']],
  ])('%s', { timeout: 60_000 }, async (_name, words) => {
    const before = await state()
    const silent = createServer(() => undefined)
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const address = silent.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0
    try {
      expect(await pull(words, { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/gone' }), 'down').toMatchObject({
        code: 3,
        error: 'DB_UNREACHABLE',
      })
      expect(
        await pull(words, { DATABASE_URL: `postgres://nobody@127.0.0.1:${port}/gone?sslmode=disable` }),
        'hung',
      ).toMatchObject({
        code: 3,
        error: expect.stringMatching(/^DB_/) as string,
      })
    } finally {
      silent.close()
    }
    expect(await pull(words, {}), 'in the wrong folder').toMatchObject({ code: 2, error: 'CONFIG_MISSING' })
    const denied = await pull(words, { DATABASE_URL: arena.workerUrl })
    expect(denied, 'as a machine').toMatchObject({ code: 4, error: 'ROLE_DENIED' })
    expect(denied.next).toBeGreaterThan(0)
    expect(await state()).toEqual(before)
  })

  test('soft degrade pulled twice at once is one incident, and one resume ends it', async () => {
    const env = { DATABASE_URL: arena.database.url, TMS_TIMEOUT: '20' }
    const both = await Promise.all([pull(['soft-degrade'], env), pull(['soft-degrade'], env)])
    expect(both.map(({ code }) => code)).toEqual([0, 0])
    const { incidents } = await state()
    expect(incidents.map(({ type }) => type)).toEqual(['soft_degrade'])
    const id = incidents[0]?.id ?? ''
    const asked = await run([bin, 'incident', 'resume', id, '--json'], { cwd: folder, env })
    const name = /--confirm (\S+)"/.exec(asked.stdout)?.[1] ?? ''
    expect(await pull(['resume', id, '--watch', '0s', '--confirm', name], env)).toMatchObject({ code: 0 })
    expect((await state()).incidents).toEqual([])
  })
})
