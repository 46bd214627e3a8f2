import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { contract } from '../../../src/drivers/contract.ts'
import { ask, type Arena } from './arena.ts'

/** Clients that write as fast as they can, in every way that might get past a fence. */

export type Attack = {
  readonly name: string
  readonly as: 'worker' | 'unknown'
  /** One transaction, or a refusal thrown. */
  run(client: pg.Client, turn: number): Promise<void>
}

type Tally = {
  readonly accepted: number
  readonly refused: number
  readonly cut: number
  readonly odd: readonly string[]
}
export type Storm = {
  /** By the name of the attack. */
  tally(): Readonly<Record<string, Tally>>
  stop(): Promise<void>
}

const levels = ['read committed', 'repeatable read', 'serializable'] as const

const statements = {
  insert: `insert into app.loads (who) values ('storm')`,
  update: `update app.loads set n = n + 1 where id = (select id from app.loads order by random() limit 1)`,
  delete: `delete from app.loads where id = (select max(id) from app.loads)`,
  merge: `merge into app.loads l using (values (0)) v (id) on l.id = v.id when matched then update set n = 1 when not matched then insert (who) values ('merge')`,
  'through the parent': `insert into app.parts values ('a', 'parent')`,
  'straight into a partition': `insert into app.parts_b values ('b', 'partition')`,
  'a writing CTE': `with w as (insert into app.loads (who) values ('cte') returning 1) insert into app.free select 'free' from w`,
} as const

async function transaction(client: pg.Client, level: string, work: () => Promise<void>): Promise<void> {
  await client.query(`begin isolation level ${level}`)
  await work()
  await client.query('commit')
}

export function attacks(): Attack[] {
  const all: Attack[] = []
  for (const as of ['worker', 'unknown'] as const) {
    for (const [name, sql] of Object.entries(statements)) {
      all.push({
        name: `${as}: ${name}`,
        as,
        run: (client, turn) =>
          transaction(client, levels[turn % 3] ?? '', async () => {
            await client.query(sql)
          }),
      })
    }
    all.push({
      name: `${as}: truncate`,
      as,
      run: async (client) => {
        await client.query(`set lock_timeout = '50ms'`)
        await client.query('truncate app.emptied')
      },
    })
    all.push({ name: `${as}: copy`, as, run: (client) => copy(client, 'app.loads (who)', 'copied\n') })
    all.push({
      name: `${as}: savepoints`,
      as,
      run: (client, turn) =>
        transaction(client, levels[turn % 3] ?? '', async () => {
          for (let i = 0; i < 3; i++) {
            await client.query('savepoint s')
            await client.query(statements.insert).catch(() => undefined)
            await client.query(i === 1 ? 'rollback to s' : 'release s').catch(() => client.query('rollback to s'))
          }
          await client.query(statements.insert)
        }),
    })
    all.push({
      name: `${as}: swallowed exceptions`,
      as,
      run: async (client) => {
        await client.query(`do $$ declare swallowed integer := 0; begin
          for i in 1 .. 20 loop
            begin
              insert into app.loads (who) values ('swallow');
            exception when others then
              if sqlstate = 'TM423' then swallowed := swallowed + 1; end if;
              perform pg_sleep(0.001);
            end;
          end loop;
          perform set_config('storm.swallowed', swallowed::text, false);
        end $$`)
        const { rows } = await client.query<{ n: string }>(`select current_setting('storm.swallowed') as n`)
        if (rows[0]?.n !== '0') throw refused('it swallowed a refusal')
      },
    })
    all.push({
      name: `${as}: held open`,
      as,
      run: (client, turn) =>
        transaction(client, levels[turn % 3] ?? '', async () => {
          await client.query(statements.insert)
          await client.query(`select pg_sleep(random() * ${turn % 5 === 0 ? 2 : 0.1})`)
          await client.query(statements.insert)
        }),
    })
    all.push({
      name: `${as}: an old snapshot`,
      as,
      run: (client, turn) =>
        transaction(client, turn % 2 === 0 ? 'repeatable read' : 'serializable', async () => {
          await client.query('select count(*) from app.loads')
          await client.query('select pg_sleep(random() * 0.5)')
          await client.query(statements.insert)
        }),
    })
    all.push({
      name: `${as}: triggers switched off by session_replication_role`,
      as,
      run: async (client) => {
        await client.query('set session_replication_role = replica')
        await client.query(statements.insert)
      },
    })
  }
  all.push({ name: 'worker: claim and finish', as: 'worker', run: work })
  all.push({ name: 'worker: claim and finish in one held transaction', as: 'worker', run: workHeld })
  all.push({ name: 'worker: deliver', as: 'worker', run: deliver })
  return all
}

const refused = (why: string) => Object.assign(new Error(why), { code: 'TM423' })
const must = <T extends { refused?: { code: string } }>(answer: T): T => {
  if (answer.refused) throw refused(answer.refused.code)
  return answer
}

const workers = new WeakMap<pg.Client, string>()
async function workerOf(client: pg.Client): Promise<string> {
  const known = workers.get(client)
  if (known !== undefined) return known
  const said = must(
    await ask(client, 'worker_hello', {
      request_id: crypto.randomUUID(),
      name: 'storm',
      host: 'storm',
      pid: 1,
      agents: ['demo'],
      slots: 2,
    }),
  )
  const worker = String(said['worker'])
  workers.set(client, worker)
  return worker
}

/** A whole task's life: every effect that there is. */
async function work(client: pg.Client): Promise<void> {
  const worker = await workerOf(client)
  const claimed = must(await ask(client, 'tasks_claim', { worker, limit: 2 }))
  const { tasks } = contract.tasks_claim.result().parse(claimed)
  if (tasks.length === 0) throw refused('nothing to claim')
  const finished = must(
    await ask(client, 'tasks_finish', {
      worker,
      rest: tasks.map(({ id, claim }) => ({
        id,
        claim,
        outcome: 'completed',
        effects: {
          apply: [{ fn: 'app.effect', args: { task: Number(id) } }],
          events: [{ topic: 'demo.done', payload: {} }],
          tasks: [{ function: 'demo.one', payload: {} }],
        },
      })),
    }),
  )
  if (!JSON.stringify(finished['outcomes']).includes('completed')) throw refused('stale')
}

async function workHeld(client: pg.Client): Promise<void> {
  await workerOf(client)
  await client.query('begin')
  await work(client)
  await client.query('select pg_sleep(random() * 0.2)')
  await client.query('commit')
}

async function deliver(client: pg.Client): Promise<void> {
  const { deliveries } = must(await ask(client, 'outbox_claim', { limit: 5 })) as {
    deliveries?: { id: string; claim: number }[]
  }
  if (!deliveries || deliveries.length === 0) throw refused('nothing to deliver')
  const { recorded } = must(
    await ask(client, 'outbox_finish', {
      results: deliveries.map(({ id, claim }) => ({ id, claim, outcome: 'delivered' })),
    }),
  )
  if (recorded === 0) throw refused('not recorded')
}

/** COPY FROM STDIN, which `pg` leaves to others: text, then the end. */
async function copy(client: pg.Client, table: string, text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    // pg calls these by name while this is the running query; its types don't have the protocol's inner side.
    type Connection = { query(sql: string): void; sendCopyFromChunk(chunk: Buffer): void; endCopyFrom(): void }
    const submittable = {
      submit: (connection: Connection) => {
        connection.query(`copy ${table} from stdin`)
      },
      handleCopyInResponse: (connection: Connection) => {
        connection.sendCopyFromChunk(Buffer.from(text))
        connection.endCopyFrom()
      },
      handleCommandComplete: () => undefined,
      handleError: reject,
      handleReadyForQuery: () => {
        resolve()
      },
    }
    client.query(submittable as unknown as pg.Submittable)
  })
}

/** Refusals that a fence, or the crowd itself, may give. Anything else is worth a look. */
const expected = new Set(['TM423', '40001', '40P01', '55P03', '25P02', '57P01', 'TM400'])

export function startStorm(
  arena: Pick<Arena, 'workerUrl' | 'unknownUrl'>,
  list: readonly Attack[],
  clients: number,
): Storm {
  let stopping = false
  const counts: Record<string, { accepted: number; refused: number; cut: number; odd: string[] }> = {}
  const loops = Array.from({ length: clients }, async (_, i) => {
    const attack = list[i % list.length]
    if (!attack) return
    const count = (counts[attack.name] ??= { accepted: 0, refused: 0, cut: 0, odd: [] })
    let client: pg.Client | undefined
    for (let turn = i; !stopping; turn++) {
      try {
        if (!client) {
          const fresh = new pg.Client({ connectionString: attack.as === 'worker' ? arena.workerUrl : arena.unknownUrl })
          // A session that was ended says so here and in its next answer; the second is what counts.
          fresh.on('error', () => undefined)
          client = fresh
          await fresh.connect()
        }
        await attack.run(client, turn)
        count.accepted++
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
        const gone =
          code === '57P01' ||
          (!expected.has(code) && /terminated|not queryable|ECONN|EPIPE|57P0/.test(`${code} ${String(error)}`))
        if (gone) {
          count.cut++
          await client?.end().catch(() => undefined)
          client = undefined
          await pause(5)
          continue
        }
        count.refused++
        if (!expected.has(code) && count.odd.length < 5) count.odd.push(`${code} ${String(error)}`)
        // Whatever it was: go on.
        await client?.query('rollback').catch(() => undefined)
        // A crowd that only spins on refusals would leave the two cores of a small machine to nobody else.
        await pause(2)
      }
    }
    await client?.end().catch(() => undefined)
  })
  return {
    tally: () => counts,
    stop: async () => {
      stopping = true
      await Promise.all(loops)
    },
  }
}

/** Everything that a machine's commit would change, as one row, and how many rows are from after `t`. */
export const everything = (t: string) => `
  select jsonb_build_array(
    (select jsonb_build_array(count(*), coalesce(sum(n), 0), coalesce(sum(id), 0)) from app.loads),
    (select count(*) from app.parts), (select count(*) from app.effects), (select count(*) from app.free),
    (select jsonb_build_array(count(*), sum(claim), sum(attempts), count(*) filter (where status = 'completed'), count(*) filter (where status = 'running')) from tms.agent_tasks),
    (select count(*) from tms.agent_runs), (select count(*) from tms.outbox_events),
    (select jsonb_build_array(sum(claim), count(*) filter (where status = 'delivered')) from tms.outbox_deliveries),
    pg_relation_filenode('app.emptied')::text) as state,
    (select count(*)::int from app.loads where pg_xact_commit_timestamp(xmin) > ${t})
    + (select count(*)::int from app.parts where pg_xact_commit_timestamp(xmin) > ${t})
    + (select count(*)::int from app.effects where pg_xact_commit_timestamp(xmin) > ${t})
    + (select count(*)::int from tms.agent_runs where pg_xact_commit_timestamp(xmin) > ${t})
    + (select count(*)::int from tms.agent_tasks where pg_xact_commit_timestamp(xmin) > ${t})
    + (select count(*)::int from tms.outbox_deliveries where pg_xact_commit_timestamp(xmin) > ${t}) as late`
