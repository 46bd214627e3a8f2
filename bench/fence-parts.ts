import { fork, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { granted } from '../src/drivers/refusal.ts'
import { percentile, resume, startArena } from '../test/attacks/fleet/arena.ts'
import { attacks, startStorm, type Attack } from '../test/attacks/fleet/storm.ts'

/** What `fence.js` runs. */

const processes = 6
type Storm = {
  readonly workerUrl: string
  readonly unknownUrl: string
  readonly clients: number
  readonly first: number
  readonly holding: boolean
}

const short = () => attacks().filter(({ name }) => !/held|snapshot|swallowed/.test(name))
const holdsOn: Attack = {
  name: 'ten seconds',
  as: 'worker',
  run: async (client) => {
    await client.query(`do $$ begin insert into app.loads (who) values ('long'); perform pg_sleep(10); end $$`)
  },
}

/** One process of writers, until its parent hangs up. */
async function storm({ clients, first, holding, ...urls }: Storm): Promise<void> {
  const list = holding ? [...short(), holdsOn] : short()
  // Each process begins elsewhere in the list, so that together they do all of it.
  const mine = [...list.slice(first % list.length), ...list.slice(0, first % list.length)]
  const running = startStorm(urls, mine, clients)
  process.send?.('writing')
  await once(process, 'disconnect')
  await running.stop()
}

export async function fence(file: string, clients: number, halts: number, say: (line: string) => void): Promise<void> {
  const arena = await startArena({ settings: { synchronous_commit: 'off', fsync: 'on' } })
  const children: ChildProcess[] = []
  try {
    granted(
      await arena.fleet.operator.call('outbox_targets_set', {
        request_id: randomUUID(),
        targets: [{ name: 'all', kind: 'file', topics: ['demo.*'], config: {} }],
      }),
    )
    const operator = new pg.Client({ connectionString: arena.database.url })
    await operator.connect()
    say(`| ${clients} clients, ${halts} halts each; ms | median | p95 | most | in the database, median | most |`)
    say('| --- | --- | --- | --- | --- | --- |')
    for (const holding of [false, true]) {
      for (let at = 0; at < processes; at++) {
        const count = Math.floor(clients / processes) + (at < clients % processes ? 1 : 0)
        const task: Storm = {
          workerUrl: arena.workerUrl,
          unknownUrl: arena.unknownUrl,
          clients: count,
          first: at * Math.ceil(clients / processes),
          holding,
        }
        const child = fork(file, { env: { ...process.env, TMS_BENCH_STORM: JSON.stringify(task) } })
        children.push(child)
        const [said] = (await Promise.race([once(child, 'message'), once(child, 'exit')])) as unknown[]
        if (said !== 'writing') throw new Error(`a process of writers ended with ${String(said)}`)
      }
      const seen: number[] = []
      const inside: number[] = []
      let unfenced = 0
      for (let round = 0; round < halts; round++) {
        await arena.fleet.enqueue(
          'acme',
          Array.from({ length: 500 }, () => ({ function: 'demo.one' })),
        )
        await pause(200)
        const began = performance.now()
        const { rows } = await operator.query<{ answer: { fenced: boolean; ms: number } }>(
          `select tms.fence_halt('{"why":"bench"}') as answer`,
        )
        seen.push(performance.now() - began)
        const answer = rows[0]?.answer
        if (answer?.fenced !== true) unfenced++
        inside.push(answer?.ms ?? Number.NaN)
        await resume(arena.fleet)
      }
      const shown = [seen, inside].map((list) => [percentile(list, 0.5), percentile(list, 0.95), Math.max(...list)])
      const [client = [], database = []] = shown.map((list) => list.map((ms) => ms.toFixed(0)))
      say(
        `| ${holding ? 'some hold on for 10 s' : 'short transactions'}${unfenced > 0 ? `, ${unfenced} NOT FENCED` : ''} | ${client.join(' | ')} | ${database[0] ?? ''} | ${database[2] ?? ''} |`,
      )
      await Promise.all(
        children.splice(0).map(async (child) => {
          const ended = once(child, 'exit')
          child.disconnect()
          await ended
        }),
      )
    }
    await operator.end()
  } finally {
    for (const child of children) child.kill('SIGKILL')
    await arena.stop()
  }
}

// This file is also what a process of writers runs. True because the parent has written it.
const part = process.env['TMS_BENCH_STORM']
if (part !== undefined) void storm(JSON.parse(part) as Storm)
