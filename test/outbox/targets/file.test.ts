import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { fileTarget, type OpenFile } from '../../../src/outbox/targets/file.ts'
import { openTarget } from '../../../src/outbox/targets/kinds.ts'
import type { Json } from '../../../src/outbox/targets/target.ts'
import { aContext, anEvent } from './receivers.ts'

const noSecrets = async () => ''

function aFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'outbox-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return folder
}

function write(folder: string, payload: Json, deliveryId = 'd-1') {
  return openTarget('file', { file: 'out.jsonl' }).send(
    noSecrets,
    anEvent({ payload, deliveryId }),
    aContext({ folder }),
  )
}

/** As a reader does it: what is no JSON was left by a crash. */
function readLines(path: string): { payload: Json; deliveryId: string }[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        const read: { payload: Json; deliveryId: string } = JSON.parse(line)
        return [read]
      } catch {
        return []
      }
    })
}

test('each delivery is a line, whatever is in it, and only the owner may read the file', async () => {
  const folder = aFolder()
  const path = join(folder, 'out.jsonl')
  const payloads: Json[] = []
  await fc.assert(
    fc.asyncProperty(fc.jsonValue() as fc.Arbitrary<Json>, async (payload) => {
      // As JSON has it: -0 is 0.
      const read: Json = JSON.parse(JSON.stringify(payload))
      payloads.push(read)
      expect(await write(folder, payload)).toEqual({ kind: 'delivered' })
    }),
    { numRuns: 40 },
  )
  expect(readLines(path).map(({ payload }) => payload)).toEqual(payloads)
  expect(statSync(path).mode & 0o777).toBe(0o600)
})

test('after a crash at any byte the next line is whole, and no half line is taken for one', async () => {
  const folder = aFolder()
  const path = join(folder, 'out.jsonl')
  await write(folder, { text: 'Grüße\nzwei "Zeilen"' }, 'before')
  const whole = readFileSync(path)
  for (let cut = 1; cut <= whole.length; cut++) {
    writeFileSync(path, whole)
    appendFileSync(path, whole.subarray(0, cut))
    const outcome = await write(folder, 1, 'after')
    expect(outcome.kind).toBe('delivered')
    expect('note' in outcome).toBe(cut < whole.length)
    const ids = readLines(path).map(({ deliveryId }) => deliveryId)
    expect(ids.at(-1)).toBe('after')
    expect(ids.slice(0, -1).every((id) => id === 'before')).toBe(true)
  }
})

test('many at once lose and mix up nothing', async () => {
  const folder = aFolder()
  const ids = Array.from({ length: 100 }, (_, index) => `d-${index}`)
  await Promise.all(ids.map((id) => write(folder, 'x'.repeat(20_000), id)))
  const found = readLines(join(folder, 'out.jsonl')).map(({ deliveryId }) => deliveryId)
  expect(found.sort()).toEqual(ids.sort())
})

test('a line is delivered only when it is on the disk, a new file with its folder', async () => {
  const folder = aFolder()
  const steps: string[] = []
  const watched: OpenFile = async (path, ...rest) =>
    watch(await open(path, ...rest), path === folder ? 'folder' : 'file', steps)
  const target = fileTarget(watched)
  const config = target.parseConfig({ file: 'out.jsonl' })
  await target.send(config, noSecrets, anEvent(), aContext({ folder }))
  await target.send(config, noSecrets, anEvent(), aContext({ folder }))
  expect(steps).toEqual(['file write', 'file sync', 'folder sync', 'file write', 'file sync'])
})

function watch(handle: FileHandle, name: string, steps: string[]): FileHandle {
  return new Proxy(handle, {
    get(real, property) {
      if (property === 'write' || property === 'sync') steps.push(`${name} ${property}`)
      const value: unknown = Reflect.get(real, property, real)
      return typeof value === 'function' ? (value.bind(real) as unknown) : value
    },
  })
}

test('when the disk fails to sync, nothing counts as delivered', async () => {
  const folder = aFolder()
  const failing: OpenFile = async (...args) =>
    new Proxy(await open(...args), {
      get(real, property) {
        if (property === 'sync') return async () => Promise.reject(Object.assign(new Error(folder), { code: 'EIO' }))
        const value: unknown = Reflect.get(real, property, real)
        return typeof value === 'function' ? (value.bind(real) as unknown) : value
      },
    })
  const target = fileTarget(failing)
  const outcome = await target.send({ file: 'out.jsonl' }, noSecrets, anEvent(), aContext({ folder }))
  expect(outcome).toEqual({ kind: 'retry', why: "out.jsonl can't be written (EIO)" })
})

test('no name leads out of the folder', () => {
  for (const file of ['', '.', '..', '../x', 'a/b', '/etc/passwd', 'a\\b', 'a\0b', '.hidden', 'a\n', '-rf']) {
    expect(() => openTarget('file', { file }), file).toThrow(
      expect.objectContaining({ why: expect.stringContaining('takes a file name') }),
    )
  }
})

test('a link in the folder is not followed', async () => {
  const folder = aFolder()
  const outside = join(aFolder(), 'outside')
  symlinkSync(outside, join(folder, 'out.jsonl'))
  expect(await write(folder, 1)).toMatchObject({ kind: 'rejected', why: expect.stringContaining('link') })
  expect(existsSync(outside)).toBe(false)
})

test('a named pipe is refused and not waited for', async () => {
  const folder = aFolder()
  const made = spawnSync('mkfifo', [join(folder, 'out.jsonl')])
  expect(made.status).toBe(0)
  expect(await write(folder, 1)).toMatchObject({ kind: 'rejected' })
})

test('a folder that is not there yet is tried again', async () => {
  expect(await write(join(aFolder(), 'none'), 1)).toEqual({
    kind: 'retry',
    why: "out.jsonl can't be written (ENOENT)",
  })
})
