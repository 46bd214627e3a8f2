import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { verifyEvidence } from '../../src/evidence/verify.ts'
import { verifyScript } from '../../src/evidence/verify-script.ts'
import type { Entry, Source } from '../../src/evidence/verify-source.ts'
import { temporary } from './fixture.ts'
import { checkpointNote, flipped, packsOf, startChain, testKey, writePack, type Files } from './packs.ts'

const full = process.env['TMS_TEST_FULL'] === '1'
/** Bits of each file: for tms in this process, for VERIFY.sh as a process each. */
const bits = full ? { tms: 400, script: 12 } : { tms: 25, script: 1 }

const tools = ['openssl', 'sha256sum'].filter((tool) => spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0)

/** Small files have all their bits tried before one is tried twice. */
function someBits(bytes: Uint8Array, count: number): number[] {
  const all = bytes.length * 8
  if (all <= count) return Array.from({ length: all }, (_, bit) => bit)
  const chosen = new Set<number>()
  while (chosen.size < count) chosen.add(Math.floor(Math.random() * all))
  return [...chosen]
}

function inMemory(days: readonly { day: string; files: Files }[]): Source {
  return {
    name: 'memory',
    kind: 'days',
    packs: days.map(({ day, files }) => ({
      folder: day,
      read: () =>
        Promise.resolve(new Map([...files].map(([name, bytes]): [string, Entry] => [name, { kind: 'file', bytes }]))),
    })),
    tombstones: [],
    others: [],
  }
}

test(
  `no flipped bit of any file passes: ${bits.tms} bits of each, each caught with the file's name`,
  { timeout: 600_000 },
  async () => {
    const key = testKey()
    const chain = startChain(key)
    const packs = await packsOf(chain, '2026-10-01', 2, key)
    const options = {
      keys: [key],
      checkpoint: { name: 'kept.txt', note: await checkpointNote(chain.ledger, key), since: null },
    }
    expect((await verifyEvidence(inMemory(packs), options)).verdict).toBe('verified')
    const [first, second] = packs
    if (!first || !second) throw new Error('two days were made')
    for (const [name, bytes] of second.files) {
      for (const bit of someBits(bytes, bits.tms)) {
        const files = new Map(second.files).set(name, flipped(bytes, bit))
        const found = await verifyEvidence(inMemory([first, { day: second.day, files }]), options)
        const named: readonly string[] = found.broken.filter(({ day }) => day === second.day).map(({ file }) => file)
        const wanted = name === 'SHA256SUMS' ? 'SHA256SUMS.sig' : name
        if (found.verdict !== 'broken' || !named.includes(wanted)) {
          expect.fail(`bit ${bit} of ${name}: ${found.verdict}, named ${named.join(', ')}`)
        }
      }
    }
  },
)

test.skipIf(tools.length > 0)(
  `nor before a pristine VERIFY.sh: ${bits.script} bits of each file${tools.length > 0 ? `: skipped, no ${tools.join(', ')} here` : ''}`,
  { timeout: 600_000 },
  async () => {
    const key = testKey()
    const [pack] = await packsOf(startChain(key), '2026-10-01', 1, key)
    if (!pack) throw new Error('a day was made')
    const home = temporary()
    const script = join(home, 'VERIFY.sh')
    const keyFile = join(home, 'key.pem')
    const folder = join(home, pack.day)
    writeFileSync(script, verifyScript)
    writeFileSync(keyFile, key.publicKeyPem)
    writePack(folder, pack.files)
    const run = () => spawnSync('sh', [script, keyFile, folder], { encoding: 'utf8' })
    expect(run().status).toBe(0)
    for (const [name, bytes] of pack.files) {
      for (const bit of someBits(bytes, bits.script)) {
        writeFileSync(join(folder, name), flipped(bytes, bit))
        const { status, stdout } = run()
        if (status !== 1 || !stdout.includes(`BROKEN   ${name}`)) {
          // A listed name that changed is said of the file that has it now.
          const said = name === 'SHA256SUMS' && stdout.includes('BROKEN   SHA256SUMS.sig: is no signature')
          if (status !== 1 || !said) expect.fail(`bit ${bit} of ${name}: ${status ?? ''}\n${stdout}`)
        }
      }
      writeFileSync(join(folder, name), bytes)
    }
    expect(run().status).toBe(0)
  },
)
