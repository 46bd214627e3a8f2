import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import {
  lookAtOwner,
  newSocketPath,
  removeSocket,
  tryAcquire,
  type OwnerRecord,
} from '../../src/drivers/embedded/lock.ts'
import { lookAt, thisProcess } from '../../src/drivers/embedded/process.ts'
import { until } from '../servers/process.ts'
import { bundle, type Bundle } from './bundle.ts'
import { endChildren, startChild } from './children.ts'

let built: Bundle
const servers: Server[] = []
beforeAll(async () => {
  built = await bundle()
})
afterEach(async () => {
  await endChildren()
  for (const server of servers.splice(0)) server.close()
})
afterAll(() => built.remove())

/** A lock file as some other process would have left it. */
function leave(directory: string, record: Partial<OwnerRecord>, generation = 1): void {
  const whole: OwnerRecord = {
    ...thisProcess(),
    socket: 'owner-0000000000000000.sock',
    since: '2026-01-01T00:00:00.000Z',
    released: false,
    ...record,
  }
  writeFileSync(join(directory, `owner.${generation}.json`), JSON.stringify(whole))
}

async function listening(path: string): Promise<void> {
  const server = createServer((socket) => socket.destroy())
  servers.push(server)
  server.listen(path)
  await once(server, 'listening')
}

/** The socket of a process that was killed. */
async function deadSocket(path: string): Promise<void> {
  const program = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`
  await once(spawn(process.execPath, ['-e', program, path], { stdio: 'ignore' }), 'exit')
  expect(statSync(path).isSocket()).toBe(true)
}

async function acquire(directory: string): Promise<ReturnType<typeof tryAcquire>> {
  const look = await lookAtOwner(directory)
  if (look.state !== 'free') throw new Error(`not free: ${look.state}`)
  const socket = newSocketPath(directory)
  await listening(socket)
  return tryAcquire(directory, look, socket)
}

describe('who owns a directory', () => {
  test('an empty directory is free, and owned once taken, and free once released', async () => {
    const directory = built.folder()
    const lock = await acquire(directory)
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'owned', record: { pid: process.pid } })
    lock?.release()
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'free', generation: 1 })
  })

  test('a process that ended leaves no lock', async () => {
    const directory = built.folder()
    const pid = Number(execFileSync('sh', ['-c', 'echo $$'], { encoding: 'utf8' }))
    leave(directory, { pid })
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'free' })
  })

  test('a pid that belongs to another process by now is not the owner', async () => {
    const directory = built.folder()
    leave(directory, { started: '1' })
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'free' })
  })

  test('an owner whose pid means nothing here is alive while its socket answers', async () => {
    const directory = built.folder()
    leave(directory, { pid: 2 ** 22 + 1, started: '1' })
    await listening(join(directory, 'owner-0000000000000000.sock'))
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'owned' })
  })

  test('an owner from before a reboot is gone', async () => {
    const directory = built.folder()
    leave(directory, { boot: 'another' })
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'free' })
  })

  test('an owner on another machine is nobody to be judged from here', async () => {
    const directory = built.folder()
    leave(directory, { host: 'elsewhere', boot: 'another' })
    const look = await lookAtOwner(directory)
    expect(look).toMatchObject({ state: 'unknown', file: join(directory, 'owner.1.json') })
    expect(look).toHaveProperty('why', expect.stringContaining('elsewhere'))
  })

  test('a lock file that can not be read is not taken for nothing', async () => {
    const directory = built.folder()
    writeFileSync(join(directory, 'owner.3.json'), '{"pid":')
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'unknown', file: join(directory, 'owner.3.json') })
  })

  test('a zombie does not own anything', async () => {
    const directory = built.folder()
    // The shell becomes sleep, which doesn't collect the child that it inherits.
    const parent = spawn('sh', ['-c', 'sleep 60 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] })
    try {
      const [line] = (await once(parent.stdout, 'data')) as [Buffer]
      const pid = Number(line.toString())
      await until('the end of the shell', () => readFileSync(`/proc/${parent.pid ?? 0}/comm`, 'utf8') === 'sleep\n')
      leave(directory, { pid, started: lookAt(pid)?.started ?? '' })
      expect(await lookAtOwner(directory)).toMatchObject({ state: 'owned' })
      process.kill(pid, 'SIGKILL')
      await until('a zombie', () => lookAt(pid)?.state === 'ended')
      expect(await lookAtOwner(directory)).toMatchObject({ state: 'free' })
    } finally {
      parent.kill('SIGKILL')
    }
  })
})

describe('taking the lock', () => {
  test('a look that is out of date takes nothing', async () => {
    const directory = built.folder()
    const look = await lookAtOwner(directory)
    if (look.state !== 'free') throw new Error('not free')
    const first = await acquire(directory)
    expect(first?.generation).toBe(1)
    expect(tryAcquire(directory, look, newSocketPath(directory))).toBeUndefined()
    first?.release()
    // Owners come and go until the generation of that look is deleted and could be linked again.
    for (let i = 0; i < 6; i++) (await acquire(directory))?.release()
    expect(readdirSync(directory)).not.toContain('owner.1.json')
    expect(tryAcquire(directory, look, newSocketPath(directory))).toBeUndefined()
    expect(readdirSync(directory)).not.toContain('owner.1.json')
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'free', generation: 7 })
    expect(hostname()).not.toBe('')
  })

  test('releasing does not release a lock that a person gave to somebody else', async () => {
    const directory = built.folder()
    const lock = await acquire(directory)
    leave(directory, { socket: 'owner-1111111111111111.sock' })
    lock?.release()
    expect(await lookAtOwner(directory)).toMatchObject({ state: 'owned' })
  })

  test('what killed owners left is swept, and only that', async () => {
    const directory = built.folder()
    const names = ['owner-2222222222222222.sock', 'owner-3333333333333333.tmp', 'config.yaml', 'owner.txt']
    for (const name of names) writeFileSync(join(directory, name), '')
    const elsewhere = join(newSocketPath(join(directory, 'x'.repeat(100))), '..')
    await deadSocket(join(elsewhere, 's'))
    leave(directory, { pid: 2 ** 22 + 1, started: '1', socket: join(elsewhere, 's') })
    const lock = await acquire(directory)
    expect(
      readdirSync(directory)
        .filter((name) => !name.endsWith('.sock'))
        .sort(),
    ).toEqual(['config.yaml', 'owner.1.json', 'owner.2.json', 'owner.txt'])
    expect(() => readdirSync(elsewhere)).toThrow('ENOENT')
    lock?.release()
  })

  test('a lock file does not make anybody delete what is no socket', async () => {
    const directory = built.folder()
    const project = join(built.folder(), 'tms-project')
    mkdirSync(project)
    writeFileSync(join(project, 's'), 'work of years')
    leave(directory, { pid: 2 ** 22 + 1, started: '1', socket: join(project, 's') })
    ;(await acquire(directory))?.release()
    expect(readFileSync(join(project, 's'), 'utf8')).toBe('work of years')
  })

  test('a path that is too long for a socket has it elsewhere, and the lock says where', async () => {
    const directory = join(built.folder(), 'deep'.repeat(30))
    mkdirSync(directory)
    const lock = await acquire(directory)
    const look = await lookAtOwner(directory)
    if (look.state !== 'owned') throw new Error(look.state)
    expect(look.socket.length).toBeLessThan(100)
    lock?.release()
    removeSocket(directory, look.socket)
    expect(() => readdirSync(join(look.socket, '..'))).toThrow('ENOENT')
  })

  test('processes that race never own it together, also when some are killed', async () => {
    const directory = built.folder()
    const full = process.env.TMS_TEST_FULL === '1'
    const rounds = full ? 60 : 8
    const children = Array.from({ length: 12 }, () => startChild(built.childFile, 'contender', directory, rounds))
    // Four die at some moment, inside or outside of the lock; the others must still get their rounds.
    for (const child of children.slice(0, 4)) {
      await child.said('a win', (fact) => fact.won !== undefined)
      child.kill('SIGKILL')
    }
    expect(await Promise.all(children.slice(4).map((child) => child.ended))).toEqual(Array(8).fill(0))
    const wins = children.flatMap((child) => child.facts.flatMap((fact) => fact.won ?? []))
    expect(new Set(wins).size).toBe(wins.length)
    expect(wins.length).toBeGreaterThanOrEqual(8 * rounds)
    expect(children.flatMap((child) => child.facts.flatMap((fact) => fact.violation ?? []))).toEqual([])
  })
})
