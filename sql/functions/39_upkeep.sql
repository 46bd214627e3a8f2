-- What keeps the tables lean: roll-up, history, expiry, partitions.
--
-- Guarantees: each run is counted in the metrics once, however late it commits; what leaves the hot tables is in the history or in a
-- digest; a step does a bounded piece, so that it is never long in anybody's way.

set local role tms_owner;

create or replace function tms._bucket_of(ms integer) returns integer
language sql immutable as $$
  -- four for each doubling: at most 19 % wide
  select case when ms <= 1 then 1 else least(100, 1 + pg_catalog.ceil(4 * pg_catalog.ln(ms::float8) / 0.6931471805599453)::integer) end
$$;

-- Folds runs into metrics: those of transactions that ended, between the last horizon and this one.
create or replace function tms._roll_up(most integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  low bigint;
  high bigint := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
  n bigint;
  digest text;
begin
  if not tms._latch('roll-up', false) then return 0; end if;
  select coalesce(max(d.to_xid), 0) into low from tms.run_digests d;
  if high <= low then return 0; end if;
  -- a piece at a time, cut between transactions
  high := least(high, (select max(x.xid) + 1 from (select r.xid from tms.agent_runs r where r.xid >= low and r.xid < high order by r.xid limit most) x));
  if high is null then return 0; end if;
  with folded as (
    select r.*, date_bin('15 minutes', r.finished_at, '2000-01-01 00:00+00') as start, tms._bucket_of(r.ms) as bucket from tms.agent_runs r where r.xid >= low and r.xid < high
  ), counted as (
    select f.start, f.company_id, f.agent, f.fn_name, f.bucket, count(*) filter (where f.outcome in ('completed', 'awaiting_approval')) as completed, count(*) filter (where f.outcome = 'failed') as failed,
           count(*) filter (where f.outcome = 'retried') as retried, count(*) filter (where f.outcome = 'lost') as lost, sum(f.tokens) as tokens, sum(f.calls) as calls, sum(f.cost) as cost, count(*) as n, count(f.trace_id) as traced
      from folded f group by 1, 2, 3, 4, 5
  ), grouped as (
    select k.start, k.company_id, k.agent, k.fn_name, sum(k.completed)::bigint as completed, sum(k.failed)::bigint as failed, sum(k.retried)::bigint as retried, sum(k.lost)::bigint as lost,
           sum(k.tokens)::bigint as tokens, sum(k.calls)::bigint as calls, sum(k.cost) as cost, sum(k.traced)::bigint as traced
      from counted k group by 1, 2, 3, 4
  ), bucketed as (
    select g.*, b.buckets from grouped g join (
      select x.start, x.company_id, x.agent, x.fn_name, array_agg(coalesce(k.n, 0)::bigint order by i.i) as buckets
        from grouped x cross join generate_series(1, 100) i (i)
        left join counted k on k.start = x.start and k.company_id = x.company_id and k.agent = x.agent and k.fn_name = x.fn_name and k.bucket = i.i
       group by 1, 2, 3, 4) b using (start, company_id, agent, fn_name)
  ), stored as (
    insert into tms.agent_metrics as m (start, company_id, agent, fn_name, completed, failed, retried, lost, tokens, calls, cost, buckets, traced)
      select g.start, g.company_id, g.agent, g.fn_name, g.completed, g.failed, g.retried, g.lost, g.tokens, g.calls, g.cost, g.buckets, g.traced from bucketed g
      order by 1, 2, 3, 4
      on conflict on constraint agent_metrics_pkey do update set completed = m.completed + excluded.completed, failed = m.failed + excluded.failed, retried = m.retried + excluded.retried, lost = m.lost + excluded.lost,
        tokens = m.tokens + excluded.tokens, calls = m.calls + excluded.calls, cost = m.cost + excluded.cost, traced = m.traced + excluded.traced,
        buckets = (select array_agg(a + b order by o) from unnest(m.buckets, excluded.buckets) with ordinality u (a, b, o))
  )
  select count(*), encode(sha256(convert_to(coalesce(string_agg(format('%s/%s %s %s %s', f.task_id, f.claim, f.outcome, f.company_id, tms._utc(f.finished_at)), E'\n' order by f.task_id, f.claim), ''), 'UTF8')), 'hex')
    into n, digest from folded f;
  if n > 0 then
    insert into tms.run_digests (from_xid, to_xid, runs, sha256) values (low, high, n, digest);
  end if;
  return n;
end
$$;

-- The monthly partitions that should be there and are not: of this month and of the next two.
create or replace function tms._missing_partitions(around timestamptz) returns table (parent text, month date, name text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select n.parent, n.month, n.name
    from (select p as parent, m::date as month, p || '_' || to_char(m, 'YYYYMM') as name
            from unnest('{agent_tasks_history,agent_runs,agent_logs}'::text[]) p,
                 generate_series(date_trunc('month', around at time zone 'UTC'), date_trunc('month', around at time zone 'UTC') + interval '2 months', interval '1 month') m) n
   where to_regclass('tms.' || n.name) is null
   order by 1, 2
$$;

-- Makes them. What the default partition holds of a month moves along, unless that is so much that whoever ends a task would wait for
-- it: then that month stays where it is, and the next has a partition before its first row. Attached rather than made as a partition,
-- because that keeps only those waiting who use the default one: not who ends a task, as long as the months are made ahead. Raises
-- where somebody's lock is in the way: later will do.
create or replace function tms._make_partitions(around timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
  -- 20,000 took 0.36 s on two busy cores
  most constant integer := 5000;
  p record;
  low timestamptz;
  high timestamptz;
  there integer;
begin
  for p in select m.*, case m.parent when 'agent_logs' then 'at' else 'finished_at' end as key from tms._missing_partitions(around) m loop
    low := p.month::timestamp at time zone 'UTC';
    high := (p.month + interval '1 month') at time zone 'UTC';
    execute format('select count(*) from (select from tms.%1$I x where x.%2$I >= $1 and x.%2$I < $2 limit $3) y', p.parent, p.key) into there using low, high, most + 1;
    continue when there > most;
    execute format('create table tms.%I (like tms.%I including defaults including constraints)', p.name, p.parent);
    -- its rows come now: who waited only for the default partition would still put a row there, and fail
    if low <= around then
      execute format('lock table only tms.%I in access exclusive mode', p.parent);
    end if;
    execute format('lock table only tms.%I in access exclusive mode', p.parent || '_default');
    -- whatever was counted: more may have come while the lock was waited for
    execute format('with gone as (delete from tms.%1$I x where x.%2$I >= $1 and x.%2$I < $2 returning x.*) insert into tms.%3$I select * from gone', p.parent, p.key, p.name) using low, high;
    execute format('alter table tms.%I enable row level security, force row level security', p.name);
    execute format('alter table tms.%I attach partition tms.%I for values from (%L) to (%L)', p.parent, p.name, low, high);
  end loop;
end
$$;

-- Drops the oldest partition past its time: logs after 30 days, runs and tasks after a year; what runs were is in metrics and digests.
-- One at a time, because until the transaction ends nobody reads or writes its table.
create or replace function tms._drop_partition() returns text
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
  old text := (
    select x.relname from pg_class x join pg_inherits i on i.inhrelid = x.oid
     where i.inhparent in ('tms.agent_logs'::regclass, 'tms.agent_runs'::regclass, 'tms.agent_tasks_history'::regclass) and x.relname ~ '_[0-9]{6}$'
       and (to_date(right(x.relname, 6), 'YYYYMM') + interval '1 month') at time zone 'UTC'
             < clock_timestamp() - case when x.relname like 'agent\_logs\_%' then interval '30 days' else interval '12 months' end
     order by right(x.relname, 6), x.relname limit 1);
begin
  if old is not null then
    execute format('drop table tms.%I', old);
  end if;
  return old;
end
$$;

-- One step of everything; a worker calls it now and then. Bounded; true `more` asks to be called again soon.
create or replace function tms.upkeep(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('upkeep', args, '{}', 'task.work');
  -- not the caller's to choose: a worker must not be able to make evidence expire early
  most constant integer := 5000;
  rolled integer;
  moved integer;
  -- where the oldest month begins that has a partition
  year_ago timestamptz := date_trunc('month', clock_timestamp() at time zone 'UTC' - interval '12 months') at time zone 'UTC';
  dropped text;
  failed text;
begin
  if c.answer is not null then return c.answer; end if;
  -- one at a time: a second one would wait for rows that the first has in hand
  if not tms._latch('upkeep', false) then
    return jsonb_build_object('rolled', 0, 'moved', 0, 'dropped', '[]'::jsonb, 'failed', null, 'more', false);
  end if;
  if tms._halted() then perform tms._end_open_writers(interval '1 second'); end if;
  rolled := tms._roll_up(200000);
  perform tms._queue_sample();
  -- block ranges nobody has summed up yet are read as a whole
  perform brin_summarize_new_values(x.oid) from pg_class x join pg_am a on a.oid = x.relam and a.amname = 'brin'
    where x.relnamespace = 'tms'::regnamespace and x.relkind = 'i';
  -- finished tasks: out of the hot table, keys included, so never sooner than the day in which a key is remembered
  with gone as (
    delete from tms.agent_tasks t where t.id = any (array(
      select x.id from tms.agent_tasks x where x.status in ('completed', 'failed', 'quarantined')
         and x.created_at < clock_timestamp() - interval '24 hours'
         and x.finished_at < clock_timestamp() - interval '24 hours'
       limit most for update skip locked)) returning t.*
  ), kept as (
    insert into tms.agent_tasks_history select * from gone returning 1)
  select count(*) into moved from kept;
  delete from tms.agent_pulse p where p.minute < clock_timestamp() - interval '15 minutes';
  delete from tms.outbox_keys x where x.ctid = any (array(select y.ctid from tms.outbox_keys y where y.until < clock_timestamp() limit most for update skip locked));
  delete from tms.edge_nonces x where x.until < clock_timestamp();
  delete from tms.edge_rate_limits x where x.minute < clock_timestamp() - interval '10 minutes';
  delete from tms.queues q where q.touched_on < tms._today() - 1
     and not exists (select from tms.agent_tasks t where t.company_id = q.company_id and t.agent = q.agent and t.priority = q.priority and t.status in ('pending', 'running', 'awaiting_approval'));
  -- workers nobody asks about any more
  delete from tms.workers w where w.stopped_at < clock_timestamp() - interval '7 days' and not exists (select from tms.agent_tasks t where t.worker_id = w.id and t.status = 'running');
  -- Deliveries and their events after a month, dead ones three months after they died: until then somebody may retry them. An event
  -- that no target wanted goes as well, and one with a delivery under way or waiting stays with it.
  delete from tms.outbox_deliveries d where d.id = any (array(select x.id from tms.outbox_deliveries x where x.status = 'delivered' and x.created_at < clock_timestamp() - interval '30 days' limit most));
  delete from tms.outbox_deliveries d where d.id = any (array(select x.id from tms.outbox_deliveries x where x.status = 'dead' and x.created_at < clock_timestamp() - interval '90 days'
     and x.next_at < clock_timestamp() - interval '90 days' limit most));
  delete from tms.outbox_events e where e.id = any (array(select x.id from tms.outbox_events x where x.created_at < clock_timestamp() - interval '30 days'
     and not exists (select from tms.outbox_deliveries d where d.event_id = x.id) limit most));
  perform tms._let_go_of_keys();
  -- refusals as long as they can be asked for; the ledger keeps that they were
  delete from tms.refusals r where r.ctid = any (array(select x.ctid from tms.refusals x where x.minute < clock_timestamp() - interval '91 days' limit most for update skip locked));
  -- closed dead letters as long as the tasks they were; an open one never
  with gone as (
    delete from tms.dead_letter_queue d where d.id = any (array(select x.id from tms.dead_letter_queue x where x.status in ('replayed', 'discarded')
       and x.closed_at < clock_timestamp() - interval '12 months' limit most for update skip locked)) returning coalesce(d.replay_task_id, d.task_id) as task)
  delete from tms.task_steps s using gone g where s.task_id = g.task;
  -- a partition holds up to a month more than 30 days of logs: the rest goes row by row
  delete from tms.agent_logs l where l.ctid = any (array(select x.ctid from tms.agent_logs x where x.at < clock_timestamp() - interval '30 days' limit most))
     and l.at < clock_timestamp() - interval '30 days';
  -- what the default partitions kept goes row by row as well
  delete from tms.agent_runs r where r.ctid = any (array(select x.ctid from tms.agent_runs x where x.finished_at < year_ago limit most)) and r.finished_at < year_ago;
  delete from tms.agent_tasks_history h where h.ctid = any (array(select x.ctid from tms.agent_tasks_history x where x.finished_at < year_ago limit most)) and h.finished_at < year_ago;
  -- Last, because what they lock stays locked until the end. Who is in the way of them now is not in a while, and nothing else that
  -- goes wrong with them may undo the rest.
  begin
    perform tms._make_partitions(clock_timestamp());
  exception
    when lock_not_available then null;
    when others then failed := sqlerrm;
  end;
  begin
    dropped := tms._drop_partition();
  exception
    when lock_not_available then null;
    when others then failed := concat_ws('; ', failed, sqlerrm);
  end;
  return jsonb_build_object('rolled', rolled, 'moved', moved, 'dropped', case when dropped is null then '[]' else jsonb_build_array(dropped) end, 'failed', failed,
    'more', moved >= most or rolled >= 200000 or dropped is not null);
end
$$;
grant execute on function tms.upkeep(jsonb) to tms_caller;

-- What can be measured of a span. Metrics know quarter hours: a span of an hour or more, or one that is past, is widened to whole
-- ones. A shorter one that ends about now is counted run by run, to the microsecond.
create or replace function tms._span(inout low timestamptz, inout high timestamptz, out whole boolean)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  zero constant timestamptz := '2000-01-01 00:00+00';
begin
  whole := high - low >= interval '1 hour' or low < clock_timestamp() - interval '3 hours';
  if whole then
    low := date_bin('15 minutes', low, zero);
    high := date_bin('15 minutes', high + interval '15 minutes' - interval '1 microsecond', zero);
  end if;
end
$$;

-- The quarter hours of a span, and the runs that aren't folded in yet (of a short span: all of its runs). In one statement with its
-- horizon: a roll-up that commits between the two would have its runs counted twice. Whatever a digest from before the span has
-- folded in had ended before the span began, so of a short span only later runs are looked at.
create or replace function tms._measured(visible uuid[], of_agent text, low timestamptz, high timestamptz, whole boolean)
returns table (agent text, completed bigint, failed bigint, retried bigint, lost bigint, tokens bigint, calls bigint, cost numeric, traced bigint, bucket integer, buckets bigint[])
language sql stable as $$
  select m.agent, m.completed, m.failed, m.retried, m.lost, m.tokens, m.calls, m.cost, m.traced, null::integer, m.buckets
    from tms.agent_metrics m
   where whole and m.start >= low and m.start < high and (visible is null or m.company_id = any (visible)) and (of_agent is null or m.agent = of_agent)
  union all
  select r.agent, (r.outcome in ('completed', 'awaiting_approval'))::integer::bigint, (r.outcome = 'failed')::integer::bigint, (r.outcome = 'retried')::integer::bigint, (r.outcome = 'lost')::integer::bigint,
         r.tokens, r.calls, r.cost, (r.trace_id is not null)::integer::bigint, tms._bucket_of(r.ms), null::bigint[]
    from tms.agent_runs r
   where r.xid >= (select coalesce(pg_catalog.max(d.to_xid), 0) from tms.run_digests d where whole or d.at < low)
     and r.finished_at >= low and r.finished_at < high and (visible is null or r.company_id = any (visible)) and (of_agent is null or r.agent = of_agent)
$$;

create or replace function tms._bucket_bound(bucket numeric) returns text
language sql immutable as $$ select pg_catalog.round(pg_catalog.power(2.0, (bucket - 1) / 4.0), 1)::text $$;

-- Success, latency and cost over a span. p95 comes from summed buckets, never from p95s: it lies above `p95_above_ms` and is at most
-- `p95_ms`, a bucket's width apart. What isn't folded yet is found by the block ranges of xid: a planner without fresh statistics
-- would read every run instead, 1.1 s with 10 million.
create or replace function tms._metrics_json(visible uuid[], of_agent text, low timestamptz, high timestamptz) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  s record;
  answer jsonb;
begin
  select * into s from tms._span(low, high);
  -- A sum for each bucket, spelled out: over the 98,000 rows of a busy day 1.2 s, and 4.4 s when each array is taken apart.
  execute format($q$
    with agents as (
      select p.agent, sum(p.completed) as completed, sum(p.failed) as failed, sum(p.retried) as retried, sum(p.lost) as lost, sum(p.tokens) as tokens, sum(p.calls) as calls, sum(p.cost) as cost,
             -- metrics from before traces were counted say nothing about them
             coalesce(sum(p.traced), 0) as traced, coalesce(sum(p.completed + p.failed + p.retried + p.lost) filter (where p.traced is not null), 0) as traceable, array[%s] as buckets
        from tms._measured($1, $2, $3, $4, $5) p group by 1
    ), sums as (
      select coalesce(sum(a.completed), 0) as completed, coalesce(sum(a.failed), 0) as failed, coalesce(sum(a.retried), 0) as retried, coalesce(sum(a.lost), 0) as lost, coalesce(sum(a.tokens), 0) as tokens,
             coalesce(sum(a.calls), 0) as calls, coalesce(sum(a.cost), 0) as cost, coalesce(sum(a.traced), 0) as traced, coalesce(sum(a.traceable), 0) as traceable from agents a
    ), buckets as (
      select u.i, sum(u.n) as n from agents a cross join lateral unnest(a.buckets) with ordinality u (n, i) where u.n > 0 group by 1
    ), running as (
      select b.i, sum(b.n) over (order by b.i) as upto, sum(b.n) over () as total from buckets b
    ), share as (
      select min(r.i) filter (where r.upto >= r.total * 0.5) as half, min(r.i) filter (where r.upto >= r.total * 0.95) as most, max(r.total) as total from running r
    )
    select jsonb_build_object('from', tms._utc($3), 'to', tms._utc(least($4, greatest(clock_timestamp(), $6))), 'completed', n.completed::text, 'failed', n.failed::text, 'retried', n.retried::text, 'lost', n.lost::text,
      'tokens', n.tokens::text, 'calls', n.calls::text, 'cost', n.cost::text, 'samples', (n.completed + n.failed)::text,
      -- cut, not rounded: 97.99999 percent are not 98
      'success_percent', case when n.completed + n.failed > 0 then trunc(n.completed * 100.0 / (n.completed + n.failed), 4)::text end,
      'p50_ms', tms._bucket_bound(x.half), 'p95_ms', tms._bucket_bound(x.most), 'p95_above_ms', case when x.most = 1 then '0' else tms._bucket_bound(x.most - 1) end,
      'error_percent', '18.9', 'timed', coalesce(x.total, 0)::text, 'traced', n.traced::text, 'traceable', n.traceable::text,
      'agents', (select coalesce(jsonb_agg(jsonb_build_object('agent', a.agent, 'completed', a.completed::text, 'failed', a.failed::text) order by a.agent collate "C"), '[]') from agents a))
      from sums n cross join share x$q$,
      (select string_agg(format('coalesce(sum(p.buckets[%s]), 0) + count(*) filter (where p.bucket = %s)', i, i), ', ' order by i) from generate_series(1, 100) i))
    into answer using visible, of_agent, s.low, s.high, s.whole, high;
  return answer;
end
$$;

create or replace function tms.agents_metrics(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('agents_metrics', args, '{tenant,agent,from,to}', 'slo.read');
  visible uuid[] := tms._allowed('slo.read');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return tms._metrics_json(visible, args ->> 'agent', coalesce((args ->> 'from')::timestamptz, clock_timestamp() - interval '1 day'), coalesce((args ->> 'to')::timestamptz, clock_timestamp()));
end
$$;
grant execute on function tms.agents_metrics(jsonb) to tms_caller;
