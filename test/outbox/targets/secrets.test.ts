import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { hostSecrets } from '../../../src/outbox/targets/secrets.ts'

const environment = {
  TMS_SECRET_HOOK: 'a',
  SLACK_WEBHOOK_URL: 'b',
  DATABASE_URL: 'postgres://u:hunter2@h/d',
  TMS_SECRET_EMPTY: '',
}

test('a target can name only variables that are there for targets', async () => {
  const secrets = hostSecrets(environment, null)
  expect(await secrets({ env: 'TMS_SECRET_HOOK' })).toBe('a')
  expect(await secrets({ env: 'SLACK_WEBHOOK_URL' })).toBe('b')
  for (const env of ['DATABASE_URL', 'TMS_SECRET_EMPTY', 'TMS_SECRET_NONE', 'PATH']) {
    const error: unknown = await secrets({ env }).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'CONFIG_MISSING' })
    expect(JSON.stringify(error)).not.toContain('hunter2')
  }
})

test('a target can name only files of the folder of secrets', async () => {
  const root = mkdtempSync(join(tmpdir(), 'secrets-'))
  onTestFinished(() => rmSync(root, { recursive: true }))
  const folder = join(root, 'secrets')
  mkdirSync(folder)
  writeFileSync(join(folder, 'hook'), 'from a file\n')
  writeFileSync(join(root, 'secrets.txt'), 'outside')
  symlinkSync(join(root, 'secrets.txt'), join(folder, 'link'))
  const secrets = hostSecrets(environment, folder)
  expect(await secrets({ file: join(folder, 'hook') })).toBe('from a file')
  for (const file of [
    join(folder, 'link'),
    join(folder, '..', 'secrets.txt'),
    join(root, 'secrets.txt'),
    join(folder, 'no'),
  ]) {
    await expect(secrets({ file }), file).rejects.toMatchObject({ code: 'CONFIG_MISSING' })
  }
  await expect(hostSecrets(environment, null)({ file: join(folder, 'hook') })).rejects.toThrow()
})
