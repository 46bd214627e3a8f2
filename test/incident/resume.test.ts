import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { incidentView, resumedView } from '../../src/incident/views.ts'
import { resumeIncident, stoppedProblem, type Health, type Way } from '../../src/incident/resume.ts'
import { readStopFile, writeStopFile } from '../../src/incident/stop-file.ts'
import { embeddedSubject } from '../contract/subjects.ts'
import { openScene, showOf, type Scene } from './fixture.ts'

let scene: Scene
let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tms-resume-'))
  scene = await openScene(await embeddedSubject())
})
afterAll(async () => {
  await scene.stop()
  await rm(folder, { recursive: true, force: true })
})

async function halted(): Promise<string> {
  const halt = granted(await scene.operator.call('fence_halt', { why: 'a test' }))
  const pressed = await scene.operator.call('incident_press', { request_id: randomUUID(), halt: halt.halt ?? '' })
  return granted(pressed).incident
}

/** A clock that moves when somebody waits, and a fleet that does as the list says: one entry for each look. */
function way(id: string, states: readonly Health['state'][]): Way & { readonly looks: string[] } {
  let at = 0
  const looks: string[] = []
  return {
    id,
    why: 'over',
    watchMs: 2000,
    everyMs: 1000,
    now: () => at,
    pause: async (ms) => {
      at += ms
    },
    health: async () => {
      const health = granted(await scene.operator.call('incident_health', { id }))
      const state = states[looks.length] ?? 'green'
      looks.push(`${health.percent} ${state}`)
      return { ...health, state, why: 'the test says so' }
    },
    report: () => undefined,
    looks,
  }
}

const slots = async () => granted(await scene.operator.call('agents_list', {})).limit

test('each step is watched to its end before the next, and the limit follows', async () => {
  const id = await halted()
  const steps = way(id, [])
  const resumed = await resumeIncident(scene.operator, steps)
  expect(steps.looks).toEqual(['10 green', '10 green', '10 green', '50 green', '50 green', '50 green'])
  expect(resumed).toMatchObject({ percent: 100, stopped: null, lifted: true })
  expect(await slots()).toBe(150)
  expect((await showOf(scene.operator, id)).incident.status).toBe('RESOLVED')
})

test('with safe mode on it says that not all is back', async () => {
  const id = await halted()
  granted(await scene.operator.call('safe_mode_on', { why: 'a test' }))
  const view = JSON.stringify(resumedView(await resumeIncident(scene.operator, way(id, []))))
  expect(view).toContain('SAFE MODE IS STILL ON')
  expect(view).toContain('tms incident safe-mode off')
  granted(
    await scene.operator.call('safe_mode_off', {
      request_id: randomUUID(),
      override_token_sha256: 'ab'.repeat(32),
      why: 'over',
    }),
  )
})

test('two at once: who comes later finds it done, and that is no failure', async () => {
  const id = await halted()
  const other = way(id, [])
  const own = way(id, [])
  const slow = {
    ...own,
    // Somebody else goes through all of it while this one watches the first stage.
    pause: async (ms: number) => {
      if (other.looks.length === 0) await resumeIncident(scene.operator, other)
      await own.pause(ms)
    },
  }
  const resumed = await resumeIncident(scene.operator, slow)
  expect(resumed).toMatchObject({ percent: 100, stopped: null })
  expect(JSON.stringify(resumed.stages)).toContain('resumed it')
  expect(await slots()).toBe(150)
  const both = await halted()
  const ended = await Promise.all([1, 2].map(() => resumeIncident(scene.operator, way(both, []))))
  expect(ended).toMatchObject([
    { percent: 100, stopped: null },
    { percent: 100, stopped: null },
  ])
  expect((await showOf(scene.operator, both)).incident.status).toBe('RESOLVED')
})

test('what is no news is said now and then, and not each second', async () => {
  const id = await halted()
  const lines: string[] = []
  await resumeIncident(scene.operator, { ...way(id, []), watchMs: 30_000, report: (text) => void lines.push(text) })
  expect(lines.filter((line) => line.startsWith('10 % of the slots: green'))).toHaveLength(4)
})

test('red stops it at once where it is, and the next resume goes on from there', async () => {
  const id = await halted()
  const resumed = await resumeIncident(scene.operator, way(id, ['green', 'green', 'green', 'green', 'red']))
  expect(resumed).toMatchObject({ percent: 50, stopped: { percent: 50, state: 'red' } })
  expect(stoppedProblem(resumed)).toBeNull()
  expect(await slots()).toBe(75)
  expect((await showOf(scene.operator, id)).incident.status).toBe('OPEN')
  const again = await resumeIncident(scene.operator, way(id, []))
  expect(again).toMatchObject({ percent: 100, stopped: null, lifted: false })
  expect(await slots()).toBe(150)
})

test('in the middle of a resume nothing else ends it: the fleet would stay at a tenth', async () => {
  const { operator } = scene
  const id = await halted()
  await resumeIncident(operator, way(id, ['red']))
  const resolve = { id, action: 'resolve', text: 'it looks fine' } as const
  expect(await operator.call('incident_work', { request_id: randomUUID(), ...resolve })).toMatchObject({
    refused: { code: 'CONFLICT', next: [`tms incident resume ${id}`] },
  })
  expect(incidentView(await showOf(operator, id))).toContainEqual({
    kind: 'next',
    commands: [`tms incident resume ${id}`],
  })
  await resumeIncident(operator, way(id, []))
  expect(await slots()).toBe(150)
})

test('what stopped this host goes with the lift, not with the end of the watch', async () => {
  const id = await halted()
  const stopFile = join(folder, 'stop')
  const at = new Date(Date.now() - 60_000).toISOString()
  await writeStopFile(stopFile, { at, by: 'me', why: 'the database was down', target: 'here' })
  const cut = { ...way(id, []), stopFile, health: () => Promise.reject(new Error('Ctrl-C')) }
  await expect(resumeIncident(scene.operator, cut)).rejects.toThrow('Ctrl-C')
  expect(await readStopFile(stopFile, null)).toBeNull()
  // Left behind by a run that was killed: the next one takes it away, though it lifts nothing.
  await writeStopFile(stopFile, { at, by: 'me', why: 'the database was down', target: 'here' })
  let relieved = 0
  const relieve = async () => {
    relieved++
  }
  const again = await resumeIncident(scene.operator, { ...way(id, []), stopFile, relieve })
  expect({ lifted: again.lifted, relieved }).toEqual({ lifted: false, relieved: 1 })
  expect(await readStopFile(stopFile, null)).toBeNull()
})

test('one that was resolved at a stage gives the slots back all the same', async () => {
  const { operator } = scene
  const id = await halted()
  await resumeIncident(operator, way(id, ['red']))
  await scene.sql(`update tms.incidents set status = 'RESOLVED', resolved_at = now() where id = ${id}`)
  const listed = granted(await operator.call('incident_list', {}))
  expect(listed).toMatchObject({ resuming: id, incidents: [] })
  expect(await resumeIncident(operator, way(id, []))).toMatchObject({ percent: 100, stopped: null })
  expect(await slots()).toBe(150)
  expect((await showOf(operator, id)).incident.status).toBe('RESOLVED')
})

test('the resume of a soft degrade goes on from its stage too', async () => {
  const { operator } = scene
  const { incident: id } = granted(await operator.call('incident_soft_degrade', { request_id: randomUUID() }))
  await resumeIncident(operator, way(id, ['green', 'green', 'green', 'red']))
  expect(await slots()).toBe(75)
  const steps = way(id, [])
  await resumeIncident(operator, steps)
  expect(steps.looks).toEqual(['50 green', '50 green', '50 green'])
  expect(await slots()).toBe(150)
})

describe('a soft degrade that holds nothing back any more', () => {
  const operator = () => scene.operator
  const limited = (value: number) => scene.fleet.set('budget.agents.maxConcurrent', value)
  const degrade = async () =>
    granted(await operator().call('incident_soft_degrade', { request_id: randomUUID() })).incident

  test('throttles no fleet that is well: its resume says so and leaves the slots as they are', async () => {
    await limited(150)
    const id = await degrade()
    expect(await slots()).toBe(15)
    await limited(140)
    await scene.fleet.set('ops.replayEnabled', true)
    const steps = way(id, [])
    const resumed = await resumeIncident(operator(), steps)
    expect(resumed).toMatchObject({
      ...{ needless: true, percent: 100, undone: [], stopped: null },
      kept: [{ key: 'ops.replayEnabled' }, { key: 'budget.agents.maxConcurrent', value: 140 }],
    })
    expect(steps.looks).toEqual([])
    expect(JSON.stringify(resumedView(resumed))).toContain('Nothing was held back any more')
    expect(await slots()).toBe(140)
    expect((await showOf(operator(), id)).incident).toMatchObject({ status: 'RESOLVED', resolution: 'resumed' })
    await limited(150)
  })

  test('leaves the slots of a halt that is being resumed to that', async () => {
    await limited(150)
    const stop = await halted()
    await resumeIncident(operator(), way(stop, ['green', 'green', 'green', 'red']))
    const id = await degrade()
    await limited(150)
    await scene.fleet.set('ops.replayEnabled', true)
    expect(await resumeIncident(operator(), way(id, []))).toMatchObject({ needless: true, percent: 50 })
    expect(await slots()).toBe(75)
    expect(granted(await operator().call('incident_list', {}))).toMatchObject({ resuming: stop })
    await resumeIncident(operator(), way(stop, []))
    expect(await slots()).toBe(150)
  })

  test('where some of it does, only that is said to be undone, and it goes by steps', async () => {
    await limited(150)
    const id = await degrade()
    await limited(150)
    const steps = way(id, [])
    const resumed = await resumeIncident(operator(), steps)
    expect(resumed).toMatchObject({ needless: false, percent: 100 })
    expect(resumed.undone.map(({ key }) => key)).toEqual(['ops.replayEnabled'])
    expect(resumed.kept.map(({ key }) => key)).toEqual(['budget.agents.maxConcurrent'])
    expect(steps.looks[0]).toBe('10 green')
  })

  test('of which two are resumed at once goes by its steps once', async () => {
    await limited(150)
    const id = await degrade()
    const ended = await Promise.all([1, 2].map(() => resumeIncident(operator(), way(id, []))))
    expect(ended).toMatchObject([{ percent: 100 }, { percent: 100 }])
    expect(await slots()).toBe(150)
    expect((await showOf(operator(), id)).incident.status).toBe('RESOLVED')
  })
})

test('unknown is not green: it stays at a tenth', async () => {
  const id = await halted()
  const resumed = await resumeIncident(scene.operator, way(id, ['unknown', 'unknown', 'unknown']))
  expect(stoppedProblem(resumed)).toMatchObject({ code: 'NO_DATA' })
  expect(await slots()).toBe(15)
  await resumeIncident(scene.operator, way(id, []))
})

test('a stage cannot be skipped, whoever asks', async () => {
  const id = await halted()
  const step = (args: { step: 'prepare' | 'lift' | 'slots'; percent?: number }) =>
    scene.operator.call('incident_resume', { request_id: randomUUID(), id, ...args })
  expect(await step({ step: 'slots', percent: 100 })).toMatchObject({ refused: { code: 'CONFLICT' } })
  granted(await step({ step: 'prepare' }))
  granted(await step({ step: 'lift' }))
  expect(await step({ step: 'slots', percent: 100 })).toMatchObject({ refused: { code: 'STAGE_REFUSED' } })
  await resumeIncident(scene.operator, way(id, []))
})

test('work that waits without a result is unknown health, and no work is idle', async () => {
  const id = await halted()
  const health = async () => granted(await scene.operator.call('incident_health', { id }))
  expect(await health()).toMatchObject({ state: 'red', halted: true })
  await resumeIncident(scene.operator, way(id, []))
  expect(await health()).toMatchObject({ state: 'idle' })
  await scene.fleet.enqueue('acme', [{ function: 'demo.one' }])
  expect(await health()).toMatchObject({ state: 'unknown', waiting: '1' })
  // Nor is it idle when the last one of them was taken and runs.
  const worker = await scene.fleet.hello(['demo'])
  granted(await scene.fleet.worker.call('tasks_claim', { worker, limit: 10 }))
  expect(await health()).toMatchObject({
    state: 'unknown',
    waiting: '0',
    why: 'work runs and none of it has ended yet',
  })
  await scene.fleet.worker.call('worker_bye', { worker })
})

test('ending a halt undoes soft degrade too', async () => {
  const { operator } = scene
  granted(await operator.call('incident_soft_degrade', { request_id: randomUUID() }))
  expect(await slots()).toBe(15)
  const resumed = await resumeIncident(operator, way(await halted(), []))
  expect(resumed.undone.map(({ key }) => key)).toContain('budget.agents.maxConcurrent')
  expect(await slots()).toBe(150)
  const { incidents } = granted(await operator.call('incident_list', {}))
  expect(incidents).toEqual([])
})
