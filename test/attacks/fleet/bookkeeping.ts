import type { Arena } from './arena.ts'

/** What must never be found once everything has ended. Each finds the rows that break it. */
const impossible = {
  'a task that has not ended': `select id, fn_name, status from tms.agent_tasks where status not in ('completed', 'failed', 'quarantined')`,
  'a task of the same request twice': `select payload ->> 'n' as n, count(*) from tms.agent_tasks where parent_id is null group by 1 having count(*) <> 1`,
  'a completed task without its one effect': `
    select t.id, t.fn_name, t.claim, count(e.task_id) as effects from tms.agent_tasks t left join app.effects e on e.task_id = t.id
     where t.status = 'completed' and t.fn_name <> 'demo.quiet' group by 1, 2, 3 having count(e.task_id) <> 1`,
  'an effect of a task that is not completed': `
    select e.task_id, e.attempt, t.status from app.effects e left join tms.agent_tasks t on t.id = e.task_id where t.status is distinct from 'completed'`,
  'an effect of another attempt than the completed one': `
    select e.task_id, e.attempt, r.attempt as completed from app.effects e join tms.agent_runs r on r.task_id = e.task_id and r.outcome = 'completed' where r.attempt <> e.attempt`,
  'a completed task without its one completed run': `
    select t.id, t.fn_name, count(r.task_id) as runs from tms.agent_tasks t left join tms.agent_runs r on r.task_id = t.id and r.outcome = 'completed' and r.claim = t.claim
     where t.status = 'completed' group by 1, 2 having count(r.task_id) <> 1`,
  'a run that completed what is not completed, or completed it twice': `
    select r.task_id, count(*) as runs, min(t.status) as status from tms.agent_runs r left join tms.agent_tasks t on t.id = r.task_id where r.outcome = 'completed'
     group by 1 having count(*) <> 1 or min(t.status) is distinct from 'completed'`,
  'a claim that ended twice': `select task_id, claim, array_agg(outcome) as outcomes from tms.agent_runs group by 1, 2 having count(*) <> 1`,
  'an attempt without a run, or a run without an attempt': `
    select t.id, t.status, t.attempts, count(r.task_id) as runs from tms.agent_tasks t left join tms.agent_runs r on r.task_id = t.id and r.outcome in ('completed', 'failed', 'retried', 'lost')
     group by 1, 2, 3 having count(r.task_id) <> t.attempts`,
  'an end without its dead letter and reason': `
    select t.id, t.fn_name, t.status, d.error_class, d.error from tms.agent_tasks t left join tms.dead_letter_queue d on d.task_id = t.id and d.status = 'open'
     where t.status in ('failed', 'quarantined') and (d.id is null or d.error = '' or d.error_class <> t.error_class or d.attempts <> t.attempts)`,
  'a dead letter of a task that is completed': `
    select d.task_id, d.error_class, d.error from tms.dead_letter_queue d left join tms.agent_tasks t on t.id = d.task_id where t.status is null or t.status = 'completed'`,
  'a task that is tried again until it works, and did not': `select id, fn_name, status, attempts, error from tms.agent_tasks where agent = 'demo' and status <> 'completed'`,
  'a task that cannot work, and did': `select id, fn_name from tms.agent_tasks where fn_name in ('frail.doomed', 'frail.broken', 'frail.unfit') and status = 'completed'`,
  'a parent without its one child': `
    select t.id, count(c.id) as children from tms.agent_tasks t left join tms.agent_tasks c on c.parent_id = t.id
     where t.fn_name = 'demo.parent' group by 1 having count(c.id) <> 1`,
  'an event of a task that did not complete, or two of one': `
    select e.task_id, count(*) as events, min(t.status) as status from tms.outbox_events e left join tms.agent_tasks t on t.id = e.task_id and t.claim = e.claim
     where e.topic = 'demo.told' group by 1 having count(*) <> 1 or min(t.status) is distinct from 'completed'`,
  'a completed task without its event': `
    select t.id, t.fn_name from tms.agent_tasks t where t.fn_name in ('demo.tell', 'demo.flaky') and t.status = 'completed'
       and not exists (select from tms.outbox_events e where e.task_id = t.id)`,
  'a dead letter without its event': `
    select d.task_id, count(e.id) as events from tms.dead_letter_queue d left join tms.outbox_events e on e.task_id = d.task_id and e.topic = 'agent.dead_letter'
     group by 1 having count(e.id) <> 1`,
  'an event that was not delivered once': `
    select e.id, e.task_id, array_agg(d.status) as deliveries from tms.outbox_events e left join tms.outbox_deliveries d on d.event_id = e.id
     where e.topic = 'demo.told' group by 1, 2 having count(*) <> 1 or min(d.status) is distinct from 'delivered'`,
} as const

/** The first few rows of everything that must not be, by its name. Empty: nothing was lost and nothing was done twice. */
export async function findings(arena: Arena): Promise<Partial<Record<keyof typeof impossible, unknown[]>>> {
  const found: Record<string, unknown[]> = {}
  for (const [name, sql] of Object.entries(impossible)) {
    const rows = await arena.sql(`select f.* from (${sql}) f limit 5`)
    if (rows.length > 0) found[name] = rows
  }
  return found
}
