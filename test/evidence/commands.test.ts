import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { writeFileAtomically } from '../../src/files.ts'
import { json, surroundings, tms } from '../fleet-commands/run.ts'

/** What the commands about files of evidence do where there is no database at all. */

let folder: string
let restore: () => void
const today = new Date().toISOString().slice(0, 10)
const days = () => join(folder, 'artifacts/green-posture')

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tms-evidence-'))
  restore = surroundings(folder)
})
afterEach(async () => {
  restore()
  vi.restoreAllMocks()
  await rm(folder, { recursive: true, force: true })
})

test('they read files and ask for no database: an empty folder is no packs, and stays as it is', async () => {
  expect((await tms('evidence list')).code).toBe(0)
  expect((await json('evidence show', today)).error?.code).toBe('NOT_FOUND')
  expect((await json('evidence diff', today, today)).error?.code).toBe('NOT_FOUND')
  expect((await json('evidence export', '--from', today, '--to', today)).error?.code).toBe('NOT_FOUND')
  expect((await json('evidence verify', today)).error?.code).toBe('NOT_FOUND')
  expect(readdirSync(folder)).toEqual([])
})

test('today and yesterday are days to each of them', async () => {
  await mkdir(join(days(), today), { recursive: true })
  expect((await json('evidence show', 'today')).data).toMatchObject({ day: today })
  expect((await json('evidence diff', 'today', 'today')).data).toMatchObject({ from: today, to: today })
  expect((await json('evidence verify', 'today')).data).toMatchObject({
    verdict: expect.stringMatching(/broken|unknown/),
  })
  expect(await json('evidence show', 'tomorrow')).toMatchObject({ code: 2, error: { code: 'USAGE' } })
})

test('a day that can not be built is not suggested to be built', async () => {
  await mkdir(join(days(), '2026-01-05'), { recursive: true })
  const next = async (day: string) => (await json('evidence show', day)).error?.next
  expect(await next('2026-01-04')).toEqual(['tms evidence list'])
  expect(await next('2999-01-01')).toEqual(['tms evidence list'])
  expect(await next('2026-01-06')).toEqual(['tms evidence build --date 2026-01-06', 'tms evidence list'])
})

test('nothing is written over what is no ordinary file, and no folder is made for it', async () => {
  await writeFile(join(folder, 'there.txt'), 'there')
  await symlink('there.txt', join(folder, 'link.txt'))
  for (const path of ['/dev/null', '/dev/stdout', join(folder, 'link.txt'), folder]) {
    await expect(writeFileAtomically(path, 'x')).rejects.toMatchObject({ code: 'INPUT_INVALID', exit: 2 })
  }
  await writeFileAtomically(join(folder, 'there.txt'), 'x')
  await expect(writeFileAtomically(join(folder, 'no/x.txt'), 'x')).rejects.toMatchObject({ code: 'FILE_UNWRITABLE' })
  expect(existsSync(join(folder, 'no'))).toBe(false)
})
