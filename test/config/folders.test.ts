import { userInfo } from 'node:os'
import { afterEach, expect, test, vi } from 'vitest'
import { keysFolder, stopFileOf } from '../../src/config/folders.ts'
import { resolveSettings } from '../../src/config/resolve.ts'

const own = `${userInfo().homedir}/.config/tms`

afterEach(() => vi.unstubAllEnvs())

test.each<[NodeJS.ProcessEnv, string]>([
  [{ XDG_CONFIG_HOME: '/x', HOME: '/h' }, '/x/tms'],
  [{ XDG_CONFIG_HOME: '', HOME: '/h' }, '/h/.config/tms'],
  [{ XDG_CONFIG_HOME: 'x', HOME: '/h' }, '/h/.config/tms'],
  [{}, own],
  [{ HOME: '' }, own],
  [{ HOME: '.' }, own],
])('the signing key and a stop never lie where a command happens to run: %j', async (environment, folder) => {
  if (environment['HOME'] !== undefined) vi.stubEnv('HOME', environment['HOME'])
  const settings = await resolveSettings({
    folder: '/nonexistent',
    environment: { ...environment, DATABASE_URL: 'postgres://db.example.com/tms' },
    flags: {},
  })
  expect(keysFolder(settings, environment)).toBe(`${folder}/keys`)
  expect(stopFileOf(settings, environment)).toMatch(new RegExp(`^${folder}/stop/`))
})
