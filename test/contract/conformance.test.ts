import { spawnSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { conformance } from '../../src/drivers/conformance.ts'
import { build } from '../ui/built.ts'
import { root } from '../ui/process.ts'
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

test('the suite is exported for whoever writes a fourth driver', async () => {
  build()
  // As an outsider would import it, in a process without any of our sources loaded.
  const program = `import { conformance } from '@transbot/tms/conformance'
    const cases = conformance({ operator: async () => { throw new Error('not opened') }, somebody: async () => null, credential: { kind: 'jwt', name: 'x' } })
    const failed = await Promise.allSettled(cases.map(({ run }) => run()))
    console.log(cases.length, failed.filter(({ status }) => status === 'rejected').length)`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    cwd: root,
    encoding: 'utf8',
  })
  expect(stderr).toBe('')
  const [all, failed] = stdout.trim().split(' ').map(Number)
  expect(all).toBeGreaterThan(10)
  expect(failed, 'a driver that does not open fails every case').toBe(all)
})
