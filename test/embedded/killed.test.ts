import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bin, build } from '../ui/built.ts'
import { run } from '../ui/process.ts'

const full = process.env['TMS_TEST_FULL'] === '1'
const killer = pathToFileURL(join(import.meta.dirname, 'killer.mjs')).href

describe('a command that is killed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tms-killed-'))
  const env = { XDG_CONFIG_HOME: folder, HOME: folder }
  let value = 50

  beforeAll(() => {
    build()
    execFileSync(process.execPath, [bin, 'init', '--yes'], {
      cwd: folder,
      env: { PATH: process.env.PATH, ...env },
      stdio: 'ignore',
    })
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const list = () => run([bin, 'flags', 'list', '--json'], { cwd: folder, env })
  const set = (more: Readonly<Record<string, string>>) =>
    run(
      ['--import', killer, bin, 'flags', 'set', 'budget.agents.maxConcurrent', String((value += 1)), '--why', 'killed'],
      { cwd: folder, env: { ...env, ...more } },
    )

  /** Where it can be killed: after each change of a file; of a row of writes into one file, after the first and the last. */
  async function moments(thread: string): Promise<number[]> {
    const log = join(folder, `${thread}.log`)
    expect((await set({ TMS_KILL_THREAD: thread, TMS_KILL_LOG: log })).code).toBe(0)
    const changes = readFileSync(log, 'utf8').trim().split('\n')
    const all = changes.flatMap((one, n) => (one === changes[n - 1] && one === changes[n + 1] ? [] : [n + 1]))
    // The first ones always: there the database makes its own lock.
    return full ? all : all.filter((_moment, n) => n < 4 || n % 48 === 0)
  }

  test.each(['main', 'worker'])(
    'after any change of a file by its %s thread leaves a database that opens, and a whole value',
    { timeout: 600_000 },
    async (thread) => {
      const found = await moments(thread)
      expect(found.length).toBeGreaterThan(2)
      for (const at of found) {
        const before = value
        const { code } = await set({ TMS_KILL_THREAD: thread, TMS_KILL_AT: String(at) })
        const { code: opened, stdout } = await list()
        expect([at, opened, opened === 0 ? '' : stdout]).toEqual([at, 0, ''])
        // True because the command answered with 0.
        const { data } = JSON.parse(stdout) as { data: { flags: { key: string; value: unknown }[] } }
        const now = data.flags.find(({ key }) => key === 'budget.agents.maxConcurrent')?.value
        expect(code === 0 ? [value] : [before, value]).toContain(now)
        if (code !== 0) expect(code).toBeNull()
        value = Number(now)
      }
    },
  )

  test('an empty lock of Postgres, left by one that was killed between making it and writing into it, is no obstacle', async () => {
    writeFileSync(join(folder, '.tms/db/postmaster.pid'), '')
    expect((await list()).code).toBe(0)
  })
})
