import { spawn } from 'node:child_process'
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { granted } from '../src/drivers/refusal.ts'
import { startArena } from '../test/attacks/fleet/arena.ts'
import { attacks, startStorm } from '../test/attacks/fleet/storm.ts'

/** What `incident.js` runs: a storm of writers, and a press and a resume again and again. */
export async function measure(
  root: string,
  presses: number,
  writers: number,
  say: (line: string) => void,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'tms-bench-press-'))
  const keys = join(folder, 'keys')
  mkdirSync(keys, { mode: 0o700 })
  const { privateKey } = generateKeyPairSync('ed25519')
  writeFileSync(join(keys, 'signing.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
  const arena = await startArena({ settings: { synchronous_commit: 'off' } })
  const { operator } = arena.fleet
  const storm = startStorm(
    arena,
    attacks().filter(({ name }) => !/held|snapshot|swallowed/.test(name)),
    writers,
  )
  const whole: number[] = []
  const command: number[] = []
  const fence: number[] = []
  let unfenced = 0
  try {
    for (let n = -1; n < presses; n++) {
      await arena.fleet.enqueue(
        'acme',
        Array.from({ length: 300 }, () => ({ function: 'demo.one' })),
      )
      const began = performance.now()
      const { code, data } = await press(root, folder, { DATABASE_URL: arena.database.url, TMS_KEYS: keys })
      const took = performance.now() - began
      if (code !== 0 || !data.fenced) unfenced++
      // the first one warms the caches
      if (n >= 0) {
        whole.push(took)
        command.push(data.ms)
        fence.push(data.ms_to_fence)
      }
      const step = async (args: { step: 'prepare' | 'lift' | 'slots'; percent?: number }) =>
        granted(await operator.call('incident_resume', { request_id: randomUUID(), id: data.incidentId, ...args }))
      await step({ step: 'prepare' })
      await step({ step: 'lift' })
      await step({ step: 'slots', percent: 50 })
      await step({ step: 'slots', percent: 100 })
    }
  } finally {
    await storm.stop()
    await arena.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  say(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}`)
  say(`${presses} presses, ${writers} writers, the writers on the same machine; not fenced: ${unfenced}`)
  say('ms                       p50     p95     max')
  say(row('whole command', whole))
  say(row('of it, after its start', command))
  say(row('until fenced', fence))
}

type Pressed = {
  readonly incidentId: string
  readonly fenced: boolean
  readonly ms: number
  readonly ms_to_fence: number
}

async function press(
  root: string,
  cwd: string,
  env: Record<string, string>,
): Promise<{ readonly code: number | null; readonly data: Pressed }> {
  const child = spawn(process.execPath, [join(root, 'bin/run.js'), 'incident', 'big-red-button', '--json'], {
    cwd,
    env: { PATH: process.env['PATH'] ?? '', HOME: cwd, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const parts: Buffer[] = []
  child.stdout.on('data', (part: Buffer) => parts.push(part))
  // True: a child process closes with its exit code first.
  const [code] = (await once(child, 'close')) as [number | null]
  // True by the command's own contract; a failure has no data, and ends the bench here.
  const { data } = JSON.parse(Buffer.concat(parts).toString()) as { data: Pressed }
  return { code, data }
}

function row(name: string, values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
  return name.padEnd(24) + [at(0.5), at(0.95), at(1)].map((ms) => ms.toFixed(0).padStart(8)).join('')
}
