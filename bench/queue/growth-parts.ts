import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { granted } from '../../src/drivers/refusal.ts'
import { startPostgres } from '../../test/servers/postgres.ts'
import { open, prepare, workerUrl } from './tms-parts.ts'

/** What `growth.js` runs: the same calls on an empty queue and on a full one. */
export async function growth(
  root: string,
  finished: number,
  waiting: number,
  say: (line: string) => void,
): Promise<void> {
  const server = await startPostgres()
  try {
    const database = await server.createDatabase()
    await prepare(root, database)
    const sql = new pg.Client({ connectionString: database.superuserUrl })
    await sql.connect()
    // The server goes away at the end; what went wrong before that is the news.
    sql.on('error', () => undefined)
    const operator = await open(database.url)
    const worker = await open(workerUrl(database.url))
    const write = () => ({ request_id: randomUUID() })
    for (const key of ['paused', 'busy', 'small'])
      granted(await operator.call('tenants_add', { ...write(), key, name: key }))
    const hello = async () =>
      granted(
        await worker.call('worker_hello', {
          ...write(),
          name: 'growth',
          host: 'growth',
          pid: 1,
          agents: ['bench'],
          slots: 150,
        }),
      ).worker
    const enqueue = async (tenant: string, n: number) =>
      granted(
        await operator.call('tasks_enqueue', {
          ...write(),
          tenant,
          tasks: Array.from({ length: n }, (_, at) => ({ function: 'bench.job', payload: { at } })),
        }),
      )

    const timed = async (work: () => Promise<unknown>) => {
      const began = performance.now()
      await work()
      return performance.now() - began
    }
    const measure = async (title: string) => {
      const mine = await hello()
      const times: Record<string, number[]> = {
        'enqueue 500': [],
        'claim 500': [],
        'finish 500': [],
        metrics: [],
        status: [],
      }
      const add = (name: string, ms: number) => times[name]?.push(ms)
      for (let round = 0; round < 12; round++) {
        add('enqueue 500', await timed(() => enqueue('busy', 500)))
        let tasks: readonly { readonly id: string; readonly claim: number }[] = []
        add(
          'claim 500',
          await timed(async () => {
            tasks = granted(await worker.call('tasks_claim', { worker: mine, limit: 500 })).tasks
          }),
        )
        if (tasks.length !== 500) throw new Error(`a claim brought ${tasks.length} of 500 tasks`)
        add(
          'finish 500',
          await timed(() =>
            worker.call('tasks_finish', {
              worker: mine,
              done: {
                ids: tasks.map(({ id }) => id).join(','),
                claims: tasks.map(({ claim }) => claim).join(','),
                ms: tasks.map(() => 1).join(','),
              },
            }),
          ),
        )
        add('metrics', await timed(() => operator.call('agents_metrics', {})))
        add('status', await timed(() => operator.call('agents_list', {})))
        granted(await worker.call('worker_beat', { worker: mine }))
      }
      await worker.call('worker_bye', { worker: mine })
      const median = (list: number[]) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)]?.toFixed(1)
      say(`| ${title} | ${Object.values(times).map(median).join(' | ')} |`)
    }

    say('| ms, median of 12 | enqueue 500 | claim 500 | finish 500 | metrics | status |')
    say('| --- | --- | --- | --- | --- | --- |')
    await measure('empty')
    await sql.query(`alter table tms.agent_tasks set (autovacuum_enabled = off)`)
    await sql.query(
      `insert into tms.agent_tasks (company_id, agent, fn_name, status, max_attempts, next_run_at, finished_at, created_at, payload, claim, attempts)
       select (select id from tms.companies where key = 'busy'), 'bench', 'bench.job', 'completed', 5, now() - interval '1 hour', now() - interval '1 hour', now() - interval '1 hour', '{}', 1, 1
         from generate_series(1, $1)`,
      [finished],
    )
    // In many transactions, as workers end them: the roll-up never cuts one in two.
    for (let from = 1; from <= finished; from += 50_000) {
      await sql.query(
        `insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, started_at, finished_at, ms, epoch)
         select i, 1, 1, (select id from tms.companies where key = 'busy'), 'bench', 'bench.job', 'completed', now() - interval '1 hour', now() - interval '1 hour', 3, 0
           from generate_series($1::bigint, $2::bigint) i`,
        [from, Math.min(from + 49_999, finished)],
      )
    }
    await sql.query(
      `insert into tms.agent_tasks (company_id, agent, fn_name, max_attempts, next_run_at, payload)
       select (select id from tms.companies where key = 'paused'), 'bench', 'bench.job', 5, now() - interval '1 hour', '{}' from generate_series(1, $1)`,
      [waiting],
    )
    await sql.query(
      `insert into tms.queues select id, 'bench', 0, current_date from tms.companies where key = 'paused' on conflict do nothing`,
    )
    await sql.query(`alter table tms.agent_tasks reset (autovacuum_enabled)`)
    await sql.query('vacuum analyze tms.agent_tasks')
    granted(await operator.call('agents_control', { ...write(), tenant: 'paused', state: 'paused', why: 'growth' }))
    // As the workers do every 20 seconds.
    let steps = 0
    const rolling = await timed(async () => {
      while (granted(await worker.call('upkeep', {})).more) steps++
    })
    say(`folding the runs into metrics: ${steps + 1} steps of ${(rolling / (steps + 1)).toFixed(0)} ms`)
    await measure(`${finished} finished, ${waiting} waiting for a paused tenant`)

    // Fairness: one tenant has many, another has one.
    for (let n = 0; n < 100; n++) await enqueue('busy', 1000)
    const [only] = (await enqueue('small', 1)).ids
    const mine = await hello()
    const first = granted(await worker.call('tasks_claim', { worker: mine, limit: 500 })).tasks
    say('')
    say(
      `100,000 waiting of one tenant: another's single task was ${first.some(({ id }) => id === only) ? 'in the first batch' : 'NOT in the first batch'}.`,
    )
    await sql.end()
    await operator.close()
    await worker.close()
  } finally {
    await server.stop()
  }
}
