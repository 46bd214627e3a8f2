import { spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

const program = join(import.meta.dirname, '../../bin/run.js')
const full = process.env['TMS_TEST_FULL'] === '1'
const rounds = full ? 20 : 1
const writers = full ? 20 : 10

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tms-at-once-'))
  const { code, stderr } = await tms('init', '--yes')
  expect([code, stderr]).toEqual([0, expect.any(String)])
})
afterAll(() => rm(folder, { recursive: true, force: true }))

type Ended = { code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }

function start(...args: string[]): { pid: number; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [program, ...args], {
    cwd: folder,
    env: { PATH: process.env['PATH'], XDG_CONFIG_HOME: join(folder, 'config'), TMS_TIMEOUT: '120' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const ended = new Promise<Ended>((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr })),
  )
  return { pid: child.pid ?? 0, ended }
}

function tms(...args: string[]): Promise<Ended> {
  return start(...args).ended
}

/** The process that the newest lock names. */
async function owner(): Promise<number> {
  const locks = (await readdir(join(folder, '.tms'))).map((name) =>
    Number(/^owner\.(\d+)\.json$/.exec(name)?.[1] ?? -1),
  )
  const lock: unknown = JSON.parse(await readFile(join(folder, '.tms', `owner.${Math.max(...locks)}.json`), 'utf8'))
  return (lock as { pid: number }).pid
}

type Change = { why: string; before: { value: number } | null; after: { value: number } }

test(
  `${writers} processes set a flag at once while their owner is killed, ${rounds} ${rounds === 1 ? 'round' : 'rounds'}: nothing acknowledged is lost, nothing is applied twice`,
  { timeout: rounds * 120_000 },
  async () => {
    let killed = 0
    for (let round = 0; round < rounds; round++) {
      const names = Array.from({ length: writers }, (_, i) => `round ${round} writer ${i}`)
      const running = names.map((why, i) =>
        start('flags', 'set', 'budget.agents.maxConcurrent', String(((round * writers + i) % 149) + 1), '--why', why),
      )
      // In the middle: when some have ended and others have not.
      let done = 0
      const some = new Promise<void>((resolve) => {
        for (const { ended } of running) void ended.then(() => (done += 1) >= 4 && resolve())
      })
      await some
      const pid = await owner()
      if (running.some((process) => process.pid === pid)) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It ended by itself in this moment; another round will meet one that works.
        }
      }
      const ended = await Promise.all(running.map(async (process) => process.ended))
      const victims = ended.filter(({ signal }) => signal === 'SIGKILL').length
      killed += victims
      for (const { code, signal, stderr } of ended) {
        if (signal === null) expect([code, stderr]).toEqual([0, ''])
      }

      const history = await tms('flags', 'history', 'budget.agents.maxConcurrent', '--limit', '1000', '--json')
      expect(history.code).toBe(0)
      const { changes } = (JSON.parse(history.stdout) as { data: { changes: Change[] } }).data
      const applied = changes.filter(({ why }) => why.startsWith(`round ${round} `)).map(({ why }) => why)
      expect(new Set(applied).size, 'nothing is applied twice').toBe(applied.length)
      const acknowledged = names.filter((_, i) => ended[i]?.code === 0 && !ended[i].stdout.includes('nothing changed'))
      expect(
        acknowledged.filter((why) => !applied.includes(why)),
        'nothing acknowledged is lost',
      ).toEqual([])
      // Two owners at once would each continue from their own last value.
      const inOrder = [...changes].reverse()
      inOrder.slice(1).forEach((change, i) => expect(change.before?.value).toBe(inOrder[i]?.after.value))
    }
    // A round without a victim proves little; over all rounds the kill must have met an owner at work.
    expect(killed).toBeGreaterThan(0)
    const verdict = await tms('doctor', '--json')
    expect([verdict.code, verdict.stderr]).toEqual([0, ''])
  },
)
