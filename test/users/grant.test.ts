import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { grantRole } from '../../src/users/users.ts'
import { rolesView } from '../../src/users/views.ts'
import { postgresSubject, type Subject } from '../contract/subjects.ts'

/** A person's Postgres login: it can call tms, or the answer says what is missing. */

let subject: Subject
let operator: Driver
beforeAll(async () => {
  subject = await postgresSubject()
  operator = await subject.operator()
})
afterAll(async () => {
  await operator.close()
  await subject.stop()
})

const grant = (driver: Driver, who: string, role: string, login: string) =>
  grantRole(driver, { who, role, login, now: new Date() })
const member = async (login: string) =>
  (await subject.sql(`select pg_has_role($1, 'tms_caller', 'usage') as member`, [login]))[0]?.['member']

test('a login that may not call tms yet is let in', async () => {
  await subject.sql('create role "bob-1" login')
  expect(await grant(operator, 'bob@example.com', 'developer', 'bob-1')).toMatchObject({ statement: null })
  expect(await member('bob-1')).toBe(true)
  // again: there is nothing left to do
  expect(await grant(operator, 'bob@example.com', 'developer', 'bob-1')).toMatchObject({
    changed: false,
    statement: null,
  })
})

test('where the caller may not do that, the role is granted and the statement to run is said, and works', async () => {
  const { name } = await subject.credential('second')
  expect(await grant(operator, 'second@example.com', 'super_admin', name)).toMatchObject({ statement: null })
  await subject.sql('create role "eve""s" login')
  const second = await subject.as(name)
  const { changed, statement } = await grant(second, 'eve@example.com', 'developer', 'eve"s')
  await second.close()
  expect([changed, statement]).toEqual([true, 'grant tms_caller to "eve""s"'])
  expect(await member('eve"s')).toBe(false)
  await subject.sql(statement ?? '')
  expect(await member('eve"s')).toBe(true)
})

test('a login that is not there yet is said to be missing', async () => {
  const granted = await grant(operator, 'joe@example.com', 'developer', 'joe')
  expect(granted.statement).toBe('create role "joe" login in role tms_caller')
  expect(rolesView(granted)).toContainEqual({ kind: 'text', text: `${granted.statement};` })
})
