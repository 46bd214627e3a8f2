import { afterAll, beforeAll, describe, test } from 'vitest'
import { conformance } from '../../src/drivers/conformance.ts'
import { subjects, type Subject } from './subjects.ts'

describe.each(Object.entries(subjects))('the %s driver', (_name, start) => {
  let subject: Subject
  let credential: Awaited<ReturnType<Subject['credential']>>
  beforeAll(async () => {
    subject = await start()
    credential = await subject.credential('somebody')
  })
  afterAll(() => subject.stop())

  const cases = conformance({
    operator: () => subject.operator(),
    get credential() {
      return credential
    },
    somebody: () => subject.as(credential.name),
  })
  for (const { name, run } of cases) test(name, run)
})
