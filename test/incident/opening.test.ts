import { afterAll, beforeAll, expect, test } from 'vitest'
import { embeddedSubject } from '../contract/subjects.ts'
import { readyFleet, type Fleet } from '../fleet/fleet.ts'

let fleet: Fleet
beforeAll(async () => {
  fleet = await readyFleet(await embeddedSubject())
})
afterAll(() => fleet.stop())

const sql = async (text: string, parameters: unknown[] = []) => [
  ...((await fleet.operator.administration?.transaction((run) => run(text, parameters))) ?? []),
]
const open = async (key: string, priority: string) => {
  const [row] = await sql(`select tms._incident_open($1, 'invariant', $2, null, 'too low', '{}', 'scan')::text as id`, [
    priority,
    key,
  ])
  return String(row?.['id'])
}

test('a second symptom of the same key joins the incident that is open, and a graver one raises it', async () => {
  const first = await open('invariant:a', 'P3')
  expect(await open('invariant:a', 'P4')).toBe(first)
  expect(await open('invariant:b', 'P3')).not.toBe(first)
  expect(await open('invariant:a', 'P1')).toBe(first)
  const rows = await sql(`select priority, occurrences::int, status from tms.incidents where id = $1`, [first])
  expect(rows).toEqual([{ priority: 'P1', occurrences: 3, status: 'OPEN' }])
})

test('what is cleared is resolved as healed by itself, and the next symptom opens another', async () => {
  const first = await open('invariant:c', 'P2')
  const clear = () => sql(`select tms._incident_clear('invariant:c', 'the rows agree again') as done`)
  expect(await clear()).toEqual([{ done: true }])
  expect(await clear()).toEqual([{ done: false }])
  const rows = await sql(`select status, resolution from tms.incidents where id = $1`, [first])
  expect(rows).toEqual([{ status: 'RESOLVED', resolution: 'auto_healed' }])
  expect(await open('invariant:c', 'P2')).not.toBe(first)
})
