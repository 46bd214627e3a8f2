// How long `tms evidence verify` takes for 35 days of packs of the size that a busy day has.
//
//   node bench/evidence-verify.js [--days 35] [--rounds 5]
//
// The packs are made here (about 600 KB each, a ledger of some thousand rows), so that no database is needed. Printed:
// the time of the verification alone, and that of the whole command with its start.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { root, withParts } from './parts.js'

const { values } = parseArgs({
  options: { days: { type: 'string', default: '35' }, rounds: { type: 'string', default: '5' } },
})
await withParts('bench/evidence-verify-parts.ts', async ({ makeDays, verifyDays }) => {
  const folder = mkdtempSync(join(tmpdir(), 'tms-bench-verify-'))
  try {
    const made = await makeDays(join(folder, 'green-posture'), Number(values.days))
    writeFileSync(join(folder, 'key.pem'), made.pem)
    writeFileSync(join(folder, 'kept.txt'), made.checkpoint)
    console.log(`${values.days} days, ${(made.bytes / 1024 / 1024).toFixed(1)} MB, ${made.rows} rows in the ledger`)

    const alone = []
    const command = []
    for (let round = 0; round < Number(values.rounds); round += 1) {
      const start = performance.now()
      const verdict = await verifyDays(join(folder, 'green-posture'), made)
      alone.push(performance.now() - start)
      if (verdict !== 'verified') throw new Error(`the packs are ${verdict}`)
      const began = performance.now()
      const words = ['evidence', 'verify', 'green-posture', '--key', 'key.pem', '--checkpoint', 'kept.txt']
      const { status, stderr } = spawnSync(process.execPath, [join(root, 'bin/run.js'), ...words], {
        cwd: folder,
        encoding: 'utf8',
      })
      command.push(performance.now() - began)
      if (status !== 0) throw new Error(`tms evidence verify ended with ${status}: ${stderr}`)
    }
    console.log(`verification   median ${median(alone)} ms   (${spread(alone)})`)
    console.log(`whole command  median ${median(command)} ms   (${spread(command)})`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

function median(times) {
  return Math.round([...times].sort((a, b) => a - b)[Math.floor(times.length / 2)])
}

function spread(times) {
  return `${Math.round(Math.min(...times))} to ${Math.round(Math.max(...times))}`
}
