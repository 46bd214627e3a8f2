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
           count(*) filter (where f.outcome = 'retried') as retried, count(*) filter (where f.outcome = 'lost') as lost, sum(f.tokens) as tokens, sum(f.calls) as calls, sum(f.cost) as cost, count(*) as n
      from folded f group by 1, 2, 3, 4, 5
  ), grouped as (
    select k.start, k.company_id, k.agent, k.fn_name, sum(k.completed)::bigint as completed, sum(k.failed)::bigint as failed, sum(k.retried)::bigint as retried, sum(k.lost)::bigint as lost,
           sum(k.tokens)::bigint as tokens, sum(k.calls)::bigint as calls, sum(k.cost) as cost
      from counted k group by 1, 2, 3, 4
  ), bucketed as (
    select g.*, b.buckets from grouped g join (
      select x.start, x.company_id, x.agent, x.fn_name, array_agg(coalesce(k.n, 0)::bigint order by i.i) as buckets
        from grouped x cross join generate_series(1, 100) i (i)
        left join counted k on k.start = x.start and k.company_id = x.company_id and k.agent = x.agent and k.fn_name = x.fn_name and k.bucket = i.i
       group by 1, 2, 3, 4) b using (start, company_id, agent, fn_name)
  ), stored as (
    insert into tms.agent_metrics as m select g.start, g.company_id, g.agent, g.fn_name, g.completed, g.failed, g.retried, g.lost, g.tokens, g.calls, g.cost, g.buckets from bucketed g
      order by 1, 2, 3, 4
      on conflict on constraint agent_metrics_pkey do update set completed = m.completed + excluded.completed, failed = m.failed + excluded.failed, retried = m.retried + excluded.retried, lost = m.lost + excluded.lost,
        tokens = m.tokens + excluded.tokens, calls = m.calls + excluded.calls, cost = m.cost + excluded.cost,
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

-- One step of everything; a worker calls it now and then. Bounded; true `more` asks to be called again soon.
create or replace function tms.upkeep(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('upkeep', args, '{}', 'task.work');
  -- not the caller's to choose: a worker must not be able to make evidence expire early
  most constant integer := 5000;
  rolled integer;
  moved integer;
  swept integer := 0;
  k integer;
  dropped jsonb := '[]';
  name text;
  until timestamptz;
begin
  if c.answer is not null then return c.answer; end if;
  -- one at a time: a second one would wait for rows that the first has in hand
  if not tms._latch('upkeep', false) then
    return jsonb_build_object('rolled', 0, 'moved', 0, 'dropped', '[]'::jsonb, 'more', false);
  end if;
  rolled := tms._roll_up(200000);
  perform tms._make_partitions(clock_timestamp());
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
  delete from tms.queues q where q.touched_on < current_date - 1
     and not exists (select from tms.agent_tasks t where t.company_id = q.company_id and t.agent = q.agent and t.priority = q.priority and t.status in ('pending', 'running', 'awaiting_approval'));
  -- workers nobody asks about any more
  delete from tms.workers w where w.stopped_at < clock_timestamp() - interval '7 days' and not exists (select from tms.agent_tasks t where t.worker_id = w.id and t.status = 'running');
  -- delivered events, a month
  with old as (
    delete from tms.outbox_deliveries d where d.id = any (array(select x.id from tms.outbox_deliveries x where x.status = 'delivered' and x.created_at < clock_timestamp() - interval '30 days' limit most)) returning d.event_id)
  delete from tms.outbox_events e using old o where e.id = o.event_id and not exists (select from tms.outbox_deliveries d where d.event_id = e.id and d.status <> 'delivered');
  -- whole partitions: logs after 30 days, runs and tasks after a year; what runs were is in metrics and digests
  for name in select x.relname from pg_class x join pg_inherits i on i.inhrelid = x.oid where i.inhparent in ('tms.agent_logs'::regclass, 'tms.agent_runs'::regclass, 'tms.agent_tasks_history'::regclass) and x.relname ~ '_[0-9]{6}$' loop
    until := (to_date(right(name, 6), 'YYYYMM') + interval '1 month') at time zone 'UTC';
    if (until < clock_timestamp() - case when name like 'agent\_logs\_%' then interval '30 days'
                                        else interval '12 months' end) then
      execute format('drop table tms.%I', name);
      dropped := dropped || to_jsonb(name);
    end if;
  end loop;
  -- a partition holds up to a month more than 30 days of logs: the rest goes row by row
  delete from tms.agent_logs l where l.ctid = any (array(select x.ctid from tms.agent_logs x where x.at < clock_timestamp() - interval '30 days' limit most))
     and l.at < clock_timestamp() - interval '30 days';
  return jsonb_build_object('rolled', rolled, 'moved', moved, 'dropped', dropped, 'more', moved >= most or rolled >= 200000);
end
$$;
grant execute on function tms.upkeep(jsonb) to tms_caller;

-- Success, latency and cost over a span, from the metrics and from what is not folded in yet. p95 comes from summed buckets, never
-- from p95s; its error is a bucket's width.
-- What isn't folded yet is found by the block ranges of xid. A planner without fresh statistics would read every run instead: 1.1 s
-- with 10 million.
create or replace function tms.agents_metrics(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  c tms.call := tms._begin('agents_metrics', args, '{tenant,agent,from,to}', 'slo.read');
  visible uuid[] := tms._allowed('slo.read');
  low timestamptz := coalesce((args ->> 'from')::timestamptz, clock_timestamp() - interval '1 day');
  high timestamptz := coalesce((args ->> 'to')::timestamptz, clock_timestamp());
  horizon bigint := (select coalesce(max(d.to_xid), 0) from tms.run_digests d);
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return (
    with parts as (
      select m.completed, m.failed, m.retried, m.lost, m.tokens, m.calls, m.cost, m.buckets from tms.agent_metrics m
       where m.start >= low and m.start < high and (visible is null or m.company_id = any (visible)) and (not args ? 'agent' or m.agent = args ->> 'agent')
    ), fresh as (
      select r.outcome, tms._bucket_of(r.ms) as bucket, r.tokens, r.calls, r.cost from tms.agent_runs r
       where r.xid >= horizon and r.finished_at >= low and r.finished_at < high and (visible is null or r.company_id = any (visible)) and (not args ? 'agent' or r.agent = args ->> 'agent')
    ), sums as (
      select coalesce((select sum(p.completed) from parts p), 0) + (select count(*) from fresh f where f.outcome in ('completed', 'awaiting_approval')) as completed,
             coalesce((select sum(p.failed) from parts p), 0) + (select count(*) from fresh f where f.outcome = 'failed') as failed,
             coalesce((select sum(p.retried) from parts p), 0) + (select count(*) from fresh f where f.outcome = 'retried') as retried,
             coalesce((select sum(p.lost) from parts p), 0) + (select count(*) from fresh f where f.outcome = 'lost') as lost,
             coalesce((select sum(p.tokens) from parts p), 0) + coalesce((select sum(f.tokens) from fresh f), 0) as tokens,
             coalesce((select sum(p.cost) from parts p), 0) + coalesce((select sum(f.cost) from fresh f), 0) as cost
    ), buckets as (
      select k.i, sum(k.n) as n from (
        select u.i, u.n from parts p cross join lateral unnest(p.buckets) with ordinality u (n, i) where u.n > 0
        union all select f.bucket, 1 from fresh f) k group by 1
    ), running as (
      select b.i, sum(b.n) over (order by b.i) as upto, sum(b.n) over () as total from buckets b
    )
    select jsonb_build_object('from', tms._utc(low), 'to', tms._utc(high), 'completed', s.completed::text, 'failed', s.failed::text, 'retried', s.retried::text, 'lost', s.lost::text,
      'tokens', s.tokens::text, 'cost', s.cost::text, 'samples', (s.completed + s.failed)::text,
      'success_percent', case when s.completed + s.failed > 0 then round(s.completed * 100.0 / (s.completed + s.failed), 4)::text end,
      'p50_ms', (select round(power(2.0, (min(r.i) - 1) / 4.0), 1)::text from running r where r.upto >= r.total * 0.5),
      'p95_ms', (select round(power(2.0, (min(r.i) - 1) / 4.0), 1)::text from running r where r.upto >= r.total * 0.95),
      'error_percent', '18.9')
      from sums s);
end
$$;
grant execute on function tms.agents_metrics(jsonb) to tms_caller;
