import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import type { Driver } from '../../src/drivers/driver.ts'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { lookAtOwner, newSocketPath, removeSocket, tryAcquire } from '../../src/drivers/embedded/lock.ts'
import { lookAt } from '../../src/drivers/embedded/process.ts'
import { TmsError } from '../../src/errors.ts'

/** A process of its own for the tests. It says what it did as JSON lines, and does one order of its standard input after the other. */

const [role, directory = '', callTimeoutMs = '20000'] = process.argv.slice(2)

function say(fact: object): void {
  process.stdout.write(`${JSON.stringify(fact)}\n`)
}

/** Opens the directory, and calls whatever it is told to. */
async function caller(): Promise<void> {
  const driver = await openEmbedded({
    driver: 'embedded',
    directory,
    create: false,
    callTimeoutMs: Number(callTimeoutMs),
  })
  say({ opened: true })
  for await (const line of createInterface({ input: process.stdin })) {
    // The cast is true because the tests are the only ones who write here.
    const order = JSON.parse(line) as { fn: Parameters<Driver['call']>[0]; args: never; tag?: string } | 'close'
    if (order === 'close') break
    try {
      say({ answer: await driver.call(order.fn, order.args), tag: order.tag })
    } catch (error) {
      if (!(error instanceof TmsError)) throw error
      say({ error: error.code, what: error.message, why: error.why, next: error.next, tag: order.tag })
    }
  }
  await driver.close()
  say({ closed: true })
  // A pipe from the test would keep the process waiting for more.
  process.stdin.destroy()
}

/** Takes the lock again and again, and proves each time that nobody else has it. */
async function contender(): Promise<void> {
  const rounds = Number(callTimeoutMs)
  for (let won = 0; won < rounds;) {
    const look = await lookAtOwner(directory)
    if (look.state !== 'free') {
      await pause(1)
      continue
    }
    const socket = newSocketPath(directory)
    const server = createServer()
    await new Promise<void>((listening) => server.listen(socket, listening))
    const lock = tryAcquire(directory, look, socket)
    if (lock) {
      won += 1
      await alone(async () => {
        say({ won: lock.generation })
        await pause(won % 3)
      })
      lock.release()
    }
    server.close()
    removeSocket(directory, socket)
  }
}

/** Says so when somebody else who lives is inside at the same time. A marker of the dead is what kill -9 leaves. */
async function alone(work: () => Promise<void>): Promise<void> {
  const marker = join(directory, 'marker')
  const me = String(process.pid)
  const other = existsSync(marker) ? readFileSync(marker, 'utf8') : ''
  if (other !== '' && lookAt(Number(other))?.state === 'running') say({ violation: other })
  writeFileSync(marker, me)
  await work()
  if (readFileSync(marker, 'utf8') !== me) say({ violation: 'marker replaced' })
  rmSync(marker)
}

switch (role) {
  case 'caller':
    await caller()
    break
  case 'contender':
    await contender()
    break
  default:
    throw new Error(`no such role: ${String(role)}`)
}
