import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { stopFilePath, writeStopFile } from '../../src/incident/stop-file.ts'
import { bin, build } from '../ui/built.ts'
import { envelopeOf, run } from '../ui/process.ts'
import { certificateIn } from './fixture.ts'

/** The built commands on an embedded database, one after the other, as somebody types them. */
describe('the incident commands', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tms-incident-'))
  let token = ''
  const env = { TMS_KEYS: join(folder, 'keys') }
  const tms = async (args: readonly string[], more: { stdin?: string; env?: Record<string, string> } = {}) => {
    const ended = await run([bin, ...args, '--json'], {
      cwd: folder,
      env: { ...env, ...more.env },
      ...(more.stdin === undefined ? {} : { stdin: more.stdin }),
    })
    return { code: ended.code, stderr: ended.stderr, stdout: ended.stdout, ...envelopeOf(ended.stdout) }
  }
  const plain = (args: readonly string[]) => run([bin, ...args], { cwd: folder, env: { ...env, COLUMNS: '60' } })
  /** A phone at night. Only a command that is there to be copied may be longer than its screen. */
  const narrow = (ended: Awaited<ReturnType<typeof plain>>) => {
    const lines = `${ended.stdout}\n${ended.stderr}`.split('\n').filter((line) => !/^ *tms /.test(line))
    expect(lines.filter((line) => line.length > 60)).toEqual([])
    return ended
  }
  const handle = (level: string, type: string, more: { env?: Record<string, string> } = {}) =>
    tms(['incident', 'handle', JSON.stringify({ level, type, description: `a ${type}` })], more)
  let owner: ChildProcess
  beforeAll(async () => {
    build()
    const bare = { PATH: process.env['PATH'] ?? '', HOME: '/nonexistent', ...env }
    const made = execFileSync(process.execPath, [bin, 'init', '--yes', '--json'], { cwd: folder, env: bare })
    token = String(envelopeOf(made.toString()).data['overrideToken'])
    // One owner for all of them: opening the database anew costs each command seconds on a busy machine.
    owner = spawn(process.execPath, [bin, 'up', '--no-work'], {
      cwd: folder,
      env: bare,
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    if (owner.stdout) await once(owner.stdout, 'data')
  })
  afterAll(async () => {
    owner.kill('SIGTERM')
    await once(owner, 'exit')
    rmSync(folder, { recursive: true, force: true })
  })

  test('an alarm opens an incident of its level, and the same one again joins', async () => {
    const first = await handle('high', 'slow_rates')
    expect(first).toMatchObject({ code: 0, data: { joined: false, incident: { priority: 'P2', type: 'slow_rates' } } })
    expect(await handle('critical', 'slow_rates')).toMatchObject({
      code: 0,
      data: { joined: true, incident: { priority: 'P1' } },
    })
  })

  test.each([
    ['no JSON', '{'],
    ['no level', '{"type":"x","description":"x"}'],
    ['no type', '{"level":"high","description":"x"}'],
    ['a level that does not exist', '{"level":"urgent","type":"x","description":"x"}'],
  ])('an alarm with %s is a usage error', async (_what, text) => {
    expect(await tms(['incident', 'handle', text])).toMatchObject({ code: 2, error: { code: 'USAGE' } })
  })

  test('an alarm of type emergency_stop presses, resume needs consent, and then all slots are back', async () => {
    const pressed = await handle('critical', 'emergency_stop')
    expect(pressed).toMatchObject({
      code: 0,
      warnings: [expect.stringContaining('Nobody hears of this halt')],
      data: { fenced: true, already: false },
    })
    const id = String(pressed.data['incidentId'])
    expect(await tms(['flags', 'get', 'autonomy.emergencyStop'])).toMatchObject({ data: { flag: { value: true } } })
    const asked = await tms(['incident', 'resume', id])
    expect(asked).toMatchObject({ code: 4, error: { code: 'CONSENT_MISSING' } })
    expect(JSON.stringify(asked.error)).toContain(`--confirm .tms@incident-${id}`)
    // The same number is an incident of every other database.
    expect((await tms(['incident', 'resume', id, '--confirm', `incident-${id}`])).code).toBe(4)
    const resumed = await tms(['incident', 'resume', id, '--confirm', `.tms@incident-${id}`, '--watch', '0s'])
    expect(resumed).toMatchObject({
      code: 0,
      data: {
        lifted: true,
        percent: 100,
        stopped: null,
        stages: [{ percent: 10, state: 'idle' }, { percent: 50, state: 'idle' }, { percent: 100 }],
      },
    })
    const report = await tms(['incident', 'report', id])
    expect(report.code).toBe(0)
    const draft = readFileSync(join(folder, 'artifacts/incidents', id, 'postmortem.md'), 'utf8')
    for (const part of ['## Timeline', '## Impact', '## What was tried', '## Open questions', 'Money: $'])
      expect(draft).toContain(part)
    expect(await tms(['incident', 'report', id])).toMatchObject({ code: 4, error: { code: 'CONFLICT' } })
  })

  test('an alarm of type emergency_stop halts the whole fleet, whatever tenant the environment names', async () => {
    for (const TMS_TENANT of ['nowhere', 'acme']) {
      const pressed = await handle('critical', 'emergency_stop', { env: { TMS_TENANT } })
      expect(pressed).toMatchObject({ code: 0, data: { fenced: true } })
      expect(pressed.warnings).toContain(`The button halts the whole fleet, not ${TMS_TENANT} alone.`)
      const { data } = await tms(['incident', 'show', String(pressed.data['incidentId'])])
      expect(data).toMatchObject({ incident: { tenant: null, type: 'emergency_stop' }, fence: { halted: true } })
    }
    const { data } = await tms(['incident', 'list'])
    // True by the command's contract.
    const [stop] = (data['incidents'] as { id: string; type: string }[]).filter(({ type }) => type === 'emergency_stop')
    const id = String(stop?.id)
    expect((await tms(['incident', 'resume', id, '--confirm', `.tms@incident-${id}`, '--watch', '0s'])).code).toBe(0)
  })

  test('soft degrade asks nothing, and resume of it restores', async () => {
    const pulled = await handle('high', 'soft_degrade')
    expect(pulled).toMatchObject({ code: 0, data: { slots_before: 150, slots_after: 15 } })
    const id = String(pulled.data['incident'])
    const resumed = await tms(['incident', 'resume', id, '--confirm', `.tms@incident-${id}`, '--watch', '0s'])
    expect(resumed).toMatchObject({ code: 0, data: { lifted: false, kept: [], percent: 100 } })
    expect(await tms(['flags', 'get', 'budget.agents.maxConcurrent'])).toMatchObject({ data: { flag: { value: 150 } } })
  })

  test("an alarm of one tenant is that tenant's incident, and lowers what is that tenant's", async () => {
    expect((await tms(['tenants', 'add', 'acme'])).code).toBe(0)
    const of = (type: string, ...more: string[]) =>
      tms(['incident', 'handle', `{"level":"high","type":"${type}","description":"x"}`, ...more])
    const theirs = await of('rates_missing', '--tenant', 'acme')
    expect(theirs).toMatchObject({ code: 0, data: { joined: false, incident: { tenant: 'acme', priority: 'P2' } } })
    expect(await of('rates_missing', '--tenant', 'acme')).toMatchObject({ code: 0, data: { joined: true } })
    // Nobody's words join those of another.
    expect(await of('rates_missing')).toMatchObject({ code: 0, data: { joined: false, incident: { tenant: null } } })
    expect((await of('rates_missing', '--tenant', 'nobody')).code).toBe(2)
    const pulled = await of('soft_degrade', '--tenant', 'acme')
    expect(pulled).toMatchObject({ code: 0, data: { tenant: 'acme', slots_before: 150, slots_after: 150 } })
    const id = String(pulled.data['incident'])
    expect((await tms(['incident', 'resume', id, '--confirm', `.tms@incident-${id}`])).code).toBe(0)
    expect(await of('rollback', '--tenant', 'acme')).toMatchObject({
      warnings: [expect.stringContaining('the whole fleet, not of acme alone')],
    })
  })

  test('rollback shows its plan, needs the name of exactly that plan, and does it', async () => {
    for (const [key, value] of [
      ['autonomy.mode', 'FULL'],
      ['agents.autonomousEnabled', 'true'],
      ['obs.otelEnabled', 'true'],
      ['autonomy.mode', 'OFF'],
    ] as const)
      expect((await tms(['flags', 'set', key, value, '--why', 'a test'])).code).toBe(0)
    const asked = await tms(['incident', 'rollback'])
    expect(asked).toMatchObject({ code: 4, error: { code: 'CONSENT_MISSING' } })
    const name = /--confirm (\S+)"/.exec(asked.stdout)?.[1] ?? ''
    expect(name).toContain('@')
    expect((await tms(['incident', 'rollback', '--confirm', name.replace(/@.*/, '@000000000000')])).code).toBe(4)
    expect(await tms(['incident', 'rollback', '--confirm', name])).toMatchObject({
      code: 0,
      data: { changes: [{ key: 'autonomy.mode', before: 'OFF', after: 'FULL' }] },
    })
    expect((await tms(['flags', 'verify'])).code).toBe(0)
  })

  test('rollback without a recorded green posture and without a change is no success, and says what is not known', async () => {
    const { code, data, error } = await tms(['incident', 'rollback'])
    expect({ code, data, error }).toMatchObject({
      code: 3,
      data: { basis: 'flags', changes: [] },
      error: { code: 'NO_DATA', why: expect.stringContaining('no posture on record was green') as string },
    })
    const asked = await tms(['incident', 'rollback', '--to', new Date().toISOString()])
    expect(asked).toMatchObject({ code: 0, data: { basis: 'asked', changes: [] } })
  })

  test('safe mode is left with consent and the token, never given as an argument', async () => {
    expect(await tms(['incident', 'safe-mode', 'on', '--why', 'a test'])).toMatchObject({ code: 0, data: { on: true } })
    const off = ['incident', 'safe-mode', 'off']
    expect((await tms(off, { stdin: token })).code).toBe(4)
    expect(await tms([...off, '--confirm', '.tms@safe-mode'], { stdin: 'wrong' })).toMatchObject({
      code: 4,
      error: { code: 'TOKEN_WRONG' },
    })
    expect((await tms([...off, '--confirm', '.tms@safe-mode'], { stdin: `${token}\n` })).code).toBe(0)
    expect((await tms(['incident', 'safe-mode', 'on'])).code).toBe(0)
    expect((await tms([...off, '--confirm', '.tms@safe-mode'], { env: { TMS_OVERRIDE_TOKEN: token } })).code).toBe(0)
  })

  test('a lost override token is replaced with consent, and the old one ends at once', async () => {
    const rotate = ['incident', 'safe-mode', 'rotate-token']
    expect(await tms(rotate)).toMatchObject({ code: 4, error: { code: 'CONSENT_MISSING' } })
    const rotated = await tms([...rotate, '--why', 'lost', '--confirm', '.tms@override-token'])
    expect(rotated).toMatchObject({ code: 0, data: { overrideToken: expect.stringMatching(/^tms-override-\S{32}$/) } })
    const off = ['incident', 'safe-mode', 'off', '--confirm', '.tms@safe-mode']
    expect((await tms(['incident', 'safe-mode', 'on'])).code).toBe(0)
    expect(await tms(off, { stdin: token })).toMatchObject({ code: 4, error: { code: 'TOKEN_WRONG' } })
    token = String(rotated.data['overrideToken'])
    expect((await tms(off, { stdin: token })).code).toBe(0)
    const { stdout } = await tms(['ledger', 'tail', '--limit', '20'])
    expect(stdout).toContain('override_token.rotate')
    expect(stdout).not.toContain(token)
  })

  test('the rehearsal walks the chain and leaves nothing open', async () => {
    const walked = await tms(['incident', 'test'])
    expect({ code: walked.code, data: walked.data }).toMatchObject({ code: 0 })
    const { data } = await tms(['incident', 'list'])
    // True by the command's contract.
    const open = data['incidents'] as { tenant: string | null }[]
    expect(open.filter(({ tenant }) => tenant === 'tms-incident-test')).toEqual([])
    expect((await tms(['incident', 'test'])).code).toBe(0)
  })

  test('a stop file of this host shows on every screen that says whether the fleet works', async () => {
    const directory = join(realpathSync(folder), '.tms')
    const file = stopFilePath(directory, `embedded ${directory}`)
    await writeStopFile(file, { at: new Date().toISOString(), by: 'me', why: 'a test', target: 'here' })
    for (const screen of [
      ['incident', 'list'],
      ['agents', 'status'],
    ])
      expect((await plain(screen)).stdout).toContain('STOPPED')
    expect((await plain(['doctor'])).stdout).toMatch(/stop file +problem/)
    rmSync(file)
  })

  test('a life by hand, and a second press that says since when and by whom', async () => {
    const opened = await tms(['incident', 'open', 'rates do not load', '--priority', 'P3'])
    // True by the command's contract.
    const { id } = opened.data['incident'] as { id: string }
    for (const args of [
      ['list'],
      ['ack', id],
      ['note', id, 'the carrier changed its format, and nobody at the broker of theirs was told of it in time'],
      ['show', id],
      ['timeline', id],
      ['resolve', id, '--why', 'loaded again'],
      ['show', id],
      ['close', id],
    ])
      expect(narrow(await plain(['incident', ...args])).code).toBe(0)
    expect(narrow(await plain(['incident', 'ack', id])).code).toBe(4)
    const pressed = await plain(['incident', 'big-red-button', '--reason', 'password=hunter2 leaked'])
    expect(narrow(pressed).code).toBe(0)
    expect(pressed.stdout).toContain('HALTED')
    // What somebody looks at while it is halted.
    for (const args of [
      ['incident', 'list'],
      ['incident', 'soft-degrade'],
      ['incident', 'safe-mode', 'on'],
      ['agents', 'status'],
      ['posture', 'check'],
    ])
      narrow(await plain(args))
    expect(narrow(await plain(['incident', 'rollback'])).code).not.toBe(70)
    const [stop] = (await tms(['incident', 'list'])).data['incidents'] as { id: string }[]
    await tms(['incident', 'note', stop?.id ?? '', 'the key was sk_live_51H8xYzKq0aBcDeFgHiJkLmN'])
    const shown = await tms(['incident', 'show', stop?.id ?? ''])
    expect(shown.stdout).toContain('leaked')
    expect(shown.stdout).not.toMatch(/hunter2|51H8xYz/)
    const at = join(folder, 'artifacts/incidents', stop?.id ?? '')
    expect(readFileSync(join(at, certificateIn(at)), 'utf8')).toMatch(/"why":"(?!.*hunter2).*leaked"/)
    const again = await plain(['incident', 'big-red-button'])
    expect(narrow(again).stdout).toMatch(/since +\d{4}-\d\d-\d\d [\s\S]*pressed\s+by\s+local:/)
  })
})
