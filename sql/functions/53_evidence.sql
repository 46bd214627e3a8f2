-- Daily packs: a day's facts, its cut, the bytes that were signed.
--
-- Guarantees: what a pack will say is frozen, and its digest is in the ledger, before anything is signed; a day has one final pack,
-- for ever; stored bytes agree with their own list of digests; reading a day costs what the day holds, never what came before it.

set local role tms_owner;

-- The first place in the ledger that belongs to `at` or later. Times in the ledger are nearly in order, so any place where they step
-- over `at` will do; this one is found by steps that don't depend on how much is appended later.
create or replace function tms._evidence_boundary(at timestamptz, size bigint) returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  place bigint := 0;
  step bigint := 1;
  seen timestamptz;
begin
  while step * 2 <= size loop step := step * 2; end loop;
  while step >= 1 loop
    if place + step <= size then
      select i.at into seen from tms.ledger l join tms.ledger_inbox i on i.id = l.inbox_id where l.seq = place + step - 1;
      if seen < _evidence_boundary.at then place := place + step; end if;
    end if;
    step := step / 2;
  end loop;
  return place;
end
$$;

-- Which rows of the ledger are the day's. Ranges of neighbouring days touch: a row that was sealed late belongs to the day in which it
-- was sealed, and to one day only.
create or replace function tms._evidence_range(day date, until timestamptz, size bigint) returns table (from_seq bigint, tree_size bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  from_seq := coalesce((select p.tree_size from tms.evidence_packs p where p.final and p.day = _evidence_range.day - 1),
                       tms._evidence_boundary(_evidence_range.day::timestamp at time zone 'UTC', size));
  tree_size := coalesce((select p.from_seq from tms.evidence_packs p where p.final and p.day = _evidence_range.day + 1),
                        case when until < (_evidence_range.day + 1)::timestamp at time zone 'UTC' then size
                             else tms._evidence_boundary((_evidence_range.day + 1)::timestamp at time zone 'UTC', size) end);
  tree_size := greatest(tree_size, from_seq);
  return next;
end
$$;

-- The day of the arguments. Anything else is bad input.
create or replace function tms._evidence_day(args jsonb) returns date
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  day text := args ->> 'day';
begin
  if day is null or day !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then raise exception '"day" is a date: 2026-10-31' using errcode = 'TM400'; end if;
  if to_char(to_date(day, 'YYYY-MM-DD'), 'YYYY-MM-DD') <> day then raise exception '"day" is no day of the calendar' using errcode = 'TM400'; end if;
  return to_date(day, 'YYYY-MM-DD');
end
$$;

-- One sample for each quarter of an hour; called by upkeep, so that it is cheap when there is nothing to do. Counted to a million.
create or replace function tms._queue_sample() returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  quarter timestamptz := date_bin('15 minutes', clock_timestamp(), '2000-01-01 00:00+00');
begin
  if exists (select from tms.queue_samples s where s.start = quarter) then return false; end if;
  insert into tms.queue_samples (start, waiting, running, awaiting_approval) values (quarter,
    (select count(*) from (select from tms.agent_tasks t where t.status = 'pending' limit 1000000) x),
    (select count(*) from (select from tms.agent_tasks t where t.status = 'running' limit 1000000) x),
    (select count(*) from (select from tms.agent_tasks t where t.status = 'awaiting_approval' limit 1000000) x))
    on conflict do nothing;
  delete from tms.queue_samples s where s.start < clock_timestamp() - interval '400 days';
  return true;
end
$$;

-- ---------------------------------------------------------------------------------------------- facts

-- The flags as they stood at a moment: what changed since is undone.
create or replace function tms._flag_rows_at(at timestamptz) returns setof tms.feature_flags_v2
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return query
    with since as (
      select distinct on (h.key, h.level, h.environment, h.company_id) h.key, h.level, h.environment, h.company_id, h.before
        from tms.feature_flags_history h where h.at >= _flag_rows_at.at order by h.key, h.level, h.environment, h.company_id, h.id
    )
    select f.* from tms.feature_flags_v2 f
     where not exists (select from since s where s.key = f.key and s.level = f.level and s.environment is not distinct from f.environment and s.company_id is not distinct from f.company_id)
    union all
    select (jsonb_populate_record(null::tms.feature_flags_v2, jsonb_build_object('id', 0, 'key', s.key, 'level', s.level, 'environment', s.environment, 'company_id', s.company_id,
             'value', s.before -> 'value', 'rollout', round((s.before ->> 'percentage')::numeric * 100)::integer,
             'canary', s.before -> 'canary'))).*
      from since s where jsonb_typeof(s.before) = 'object';
end
$$;

create or replace function tms._evidence_flags(at timestamptz, stood boolean) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  env text := (select e.name from tms.environment e);
  -- the fence as it stood: flags only show it
  halted boolean := case when stood then tms._halted() else exists (select from tms.halts h where h.kind = 'halt' and h.at < _evidence_flags.at and (h.resumed_at is null or h.resumed_at >= _evidence_flags.at)) end;
  rows tms.feature_flags_v2[] := array(select f from tms._flag_rows_at(_evidence_flags.at) f);
begin
  return (
    with tenants as materialized (select t.id, t.key from tms._companies_by(null) t
    ), own as (
      -- the environment's own: no tenant
      select c.key, c.type, c.required_value, c.default_value,
             (select s.level from unnest(rows) s where s.key = c.key and (s.level = 'global' or (s.level = 'environment' and s.environment = env)) order by s.level = 'global' limit 1) as level,
             (select case when s.rollout = 10000 then s.value else c.default_value end from unnest(rows) s where s.key = c.key and (s.level = 'global' or (s.level = 'environment' and s.environment = env)) order by s.level = 'global' limit 1) as value
        from tms.flag_catalogue c
    ), effective as (
      select o.key, o.type, o.required_value, coalesce(o.level, 'default') as source,
             case when o.key = 'autonomy.emergencyStop' then to_jsonb(halted) when o.level is null then o.default_value else o.value end as value
        from own o
    ), other as (
      -- set for a tenant, or rolled out to a part of them
      select s.key, case when s.level = 'tenant' then t.key end as tenant, s.level, s.value, s.rollout, cardinality(s.canary) as canaries
        from unnest(rows) s left join tenants t on t.id = s.company_id
       where s.level = 'tenant' or (s.rollout < 10000 and (s.level = 'global' or s.environment = env))
    ), required as (
      select e.key, t.key as tenant, e.required_value as expected,
             case when e.key = 'autonomy.emergencyStop' then to_jsonb(halted)
                  else tms._flag_of_row((select s from unnest(rows) s where s.key = e.key and (s.level = 'global' or (s.level = 'environment' and s.environment = env) or (s.level = 'tenant' and s.company_id = t.id))
                                          order by case s.level when 'tenant' then 0 when 'environment' then 1 else 2 end limit 1), t.id, c.default_value) end as observed
        from effective e join tms.flag_catalogue c on c.key = e.key cross join (select null::uuid as id, null::text as key union all select x.id, x.key from tenants x) t
       where e.required_value is not null
    ), differing as (select r.* from required r where r.observed is distinct from r.expected)
    select jsonb_build_object(
      'observed_at', tms._utc(_evidence_flags.at),
      'catalogue_sha256', (select min(c.catalogue_sha256) from tms.flag_catalogue c),
      'tenants', (select count(*) from tenants),
      'flags', (select coalesce(jsonb_agg(jsonb_build_object('key', e.key, 'type', e.type, 'value', e.value, 'source', e.source, 'required', e.required_value) order by e.key collate "C"), '[]') from effective e),
      'others_count', (select count(*) from other),
      'others', (select coalesce(jsonb_agg(jsonb_build_object('key', o.key, 'tenant', o.tenant, 'value', o.value, 'percentage', tms._percentage(o.rollout), 'canaries', o.canaries) order by o.key collate "C", o.tenant collate "C" nulls first), '[]')
                   from (select * from other x order by x.key collate "C", x.tenant collate "C" nulls first limit 200) o),
      'findings_count', (select count(*) from differing),
      'findings', (select coalesce(jsonb_agg(jsonb_build_object('key', d.key, 'tenant', d.tenant, 'observed', d.observed, 'expected', d.expected) order by d.key collate "C", d.tenant collate "C" nulls first), '[]')
                     from (select * from differing x order by x.key collate "C", x.tenant collate "C" nulls first limit 200) d)));
end
$$;

-- Runs of the day by quarter of an hour, from the metrics and from what isn't folded in yet. One statement, and so one snapshot: a
-- roll-up that commits meanwhile must not make a run count twice.
create or replace function tms._evidence_runs(low timestamptz, high timestamptz) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off set work_mem = '32MB' as $$
begin
  return (
    with horizon as materialized (select coalesce(max(d.to_xid), 0) as xid from tms.run_digests d
    ), folded as materialized (
      select m.start, m.completed, m.failed, m.retried, m.lost, m.tokens, m.calls, m.cost, m.buckets from tms.agent_metrics m where m.start >= low and m.start < high
    ), fresh as materialized (
      select date_bin('15 minutes', r.finished_at, '2000-01-01 00:00+00') as start, r.outcome, tms._bucket_of(r.ms) as bucket, r.tokens, r.calls, r.cost
        from tms.agent_runs r where r.xid >= (select h.xid from horizon h) and r.finished_at >= low and r.finished_at < high
    ), sums as (
      select x.start, sum(x.completed) as completed, sum(x.failed) as failed, sum(x.retried) as retried, sum(x.lost) as lost, sum(x.tokens) as tokens, sum(x.calls) as calls, sum(x.cost) as cost from (
        select f.start, f.completed, f.failed, f.retried, f.lost, f.tokens, f.calls, f.cost from folded f
        union all
        select f.start, count(*) filter (where f.outcome in ('completed', 'awaiting_approval')), count(*) filter (where f.outcome = 'failed'), count(*) filter (where f.outcome = 'retried'),
               count(*) filter (where f.outcome = 'lost'), sum(f.tokens), sum(f.calls), sum(f.cost) from fresh f group by 1) x
       group by 1
    ), counted as materialized (
      select x.start, x.i, sum(x.n) as n from (
        select f.start, u.i::integer as i, u.n from folded f cross join lateral unnest(f.buckets) with ordinality u (n, i) where u.n > 0
        union all select f.start, f.bucket, count(*) from fresh f group by 1, 2) x
       group by 1, 2
    ), climbing as (
      select c.start, c.i, sum(c.n) over (partition by c.start order by c.i) as upto, sum(c.n) over (partition by c.start) as total from counted c
    ), quarters as (
      select k.start, power(2.0, (min(k.i) filter (where k.upto >= k.total * 0.5) - 1) / 4.0) as p50, power(2.0, (min(k.i) filter (where k.upto >= k.total * 0.95) - 1) / 4.0) as p95 from climbing k group by 1
    ), day_climbing as (
      select d.i, sum(d.n) over (order by d.i) as upto, sum(d.n) over () as total from (select c.i, sum(c.n) as n from counted c group by 1) d
    ), day as (
      select power(2.0, (min(k.i) filter (where k.upto >= k.total * 0.5) - 1) / 4.0) as p50, power(2.0, (min(k.i) filter (where k.upto >= k.total * 0.95) - 1) / 4.0) as p95, max(k.total) as timed from day_climbing k
    )
    select jsonb_build_object(
      'completed', coalesce(sum(s.completed), 0)::text, 'failed', coalesce(sum(s.failed), 0)::text, 'retried', coalesce(sum(s.retried), 0)::text, 'lost', coalesce(sum(s.lost), 0)::text,
      'tokens', coalesce(sum(s.tokens), 0)::text, 'calls', coalesce(sum(s.calls), 0)::text, 'cost', trim_scale(coalesce(sum(s.cost), 0))::text,
      'samples', coalesce(sum(s.completed + s.failed), 0)::text,
      'success_percent', case when sum(s.completed + s.failed) > 0 then trim_scale(round(sum(s.completed) * 100 / sum(s.completed + s.failed), 4))::text end,
      'p50_ms', (select trim_scale(round(d.p50::numeric, 1))::text from day d), 'p95_ms', (select trim_scale(round(d.p95::numeric, 1))::text from day d),
      'error_percent', '18.9',
      'quarters', coalesce(jsonb_agg(jsonb_build_object('at', tms._utc(s.start), 'completed', s.completed::text, 'failed', s.failed::text,
         'success_percent', case when s.completed + s.failed > 0 then trim_scale(round(s.completed * 100 / (s.completed + s.failed), 4))::text end,
         'p95_ms', (select trim_scale(round(q.p95::numeric, 1))::text from quarters q where q.start = s.start)) order by s.start), '[]'))
      from sums s);
end
$$;

-- How long the day's deliveries took; what still waits counts with its age.
create or replace function tms._evidence_outbox(low timestamptz, high timestamptz, as_of timestamptz) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off set work_mem = '32MB' as $$
begin
  return (
    with timed as materialized (
      select date_bin('15 minutes', d.created_at, '2000-01-01 00:00+00') as start, d.status = 'dead' as dead, d.delivered_at is null and d.status <> 'dead' as waits,
             greatest(extract(epoch from coalesce(d.delivered_at, as_of) - d.created_at)::float8 * 1000, 0) as ms
        from tms.outbox_deliveries d where d.created_at >= low and d.created_at < high
    ), quarters as (
      select t.start, count(*) as n, percentile_cont(0.5) within group (order by t.ms) as p50, percentile_cont(0.95) within group (order by t.ms) as p95, avg(t.ms) as average
        from timed t where not t.dead group by 1
    )
    select jsonb_build_object(
      'samples', (count(*) filter (where not t.dead))::text, 'waiting', (count(*) filter (where t.waits))::text, 'dead', (count(*) filter (where t.dead))::text,
      'p50_ms', round((percentile_cont(0.5) within group (order by t.ms) filter (where not t.dead))::numeric)::text,
      'p95_ms', round((percentile_cont(0.95) within group (order by t.ms) filter (where not t.dead))::numeric)::text,
      'avg_ms', round((avg(t.ms) filter (where not t.dead))::numeric)::text,
      'oldest_waiting_ms', round((max(t.ms) filter (where t.waits))::numeric)::text,
      'quarters', (select coalesce(jsonb_agg(jsonb_build_object('at', tms._utc(q.start), 'samples', q.n::text, 'p50_ms', round(q.p50::numeric)::text, 'p95_ms', round(q.p95::numeric)::text, 'avg_ms', round(q.average::numeric)::text) order by q.start), '[]') from quarters q))
      from timed t);
end
$$;

-- Three runs of the day that can be looked at: the slowest, one that failed, and another. Looked for in a few pieces of the roll-up, of
-- bounded size, and in what isn't rolled up: the slowest of those, not of ten million.
create or replace function tms._evidence_traces(low timestamptz, high timestamptz) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
    with pieces as materialized (
      select d.from_xid, d.to_xid, row_number() over (order by d.at) as place, count(*) over () as all_pieces
        from tms.run_digests d where d.at >= low and d.at < high + interval '1 day'
    ), chosen as (
      select p.from_xid, p.to_xid from pieces p where p.place in (1, (p.all_pieces + 1) / 2, p.all_pieces)
      union all select coalesce(max(d.to_xid), 0), 9223372036854775807 from tms.run_digests d
    ), near as materialized (
      select r.* from chosen c cross join lateral (
        select x.task_id, x.claim, x.agent, x.fn_name, x.outcome, x.ms, x.finished_at, x.trace_id from tms.agent_runs x
         where x.xid >= c.from_xid and x.xid < c.to_xid and x.finished_at >= low and x.finished_at < high and x.trace_id is not null limit 20000) r
       where r.trace_id ~ '^[0-9a-f]{32}$'
    ), candidates as (
      (select n.*, 1 as rank from near n order by n.ms desc, n.trace_id limit 3)
      union all (select n.*, 0 from near n where n.outcome in ('failed', 'lost') order by n.ms desc, n.trace_id limit 1)
      union all (select n.*, 2 from near n order by n.finished_at desc, n.trace_id limit 3)
    ), once as (select distinct on (k.trace_id) k.* from candidates k order by k.trace_id, k.rank)
    select coalesce(jsonb_agg(jsonb_build_object('trace_id', o.trace_id, 'task', o.task_id::text, 'agent', o.agent, 'function', o.fn_name, 'outcome', o.outcome, 'ms', o.ms::text, 'at', tms._utc(o.finished_at))
             order by o.rank, o.ms desc, o.trace_id), '[]')
      from (select * from once x order by x.rank, x.ms desc, x.trace_id limit 3) o);
end
$$;

-- How a pack names who did something: a service account by its name, a person by a word that is the same for the same person.
create or replace function tms._evidence_who(principal uuid, name text) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return case when principal is null then 'unknown login' when tms._principal_kind(principal) = 'service' then name
              else 'person ' || left(tms._sha256(principal::text), 12) end;
end
$$;

-- What the ledger holds of the day: how often what was done, and the gravest of it one by one. Nobody's name, no reasons: people's words
-- stay in the ledger, and the row's hash says which row it is. Subjects only where they can't be a person.
create or replace function tms._evidence_audit(from_seq bigint, tree_size bigint) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off set work_mem = '64MB' as $$
declare
  low bigint;
  high bigint;
  -- what was done, how often, how grave it is: patterns are looked at once for each kind, not for each row
  kinds jsonb;
  gravest bigint[] := '{}';
begin
  select min(l.inbox_id), max(l.inbox_id) into low, high from tms.ledger l where l.seq >= _evidence_audit.from_seq and l.seq < _evidence_audit.tree_size;
  select coalesce(jsonb_agg(jsonb_build_object('action', k.action, 'outcome', k.outcome, 'n', k.n, 'grade',
           case when k.action ~ '^(fence|safe_mode|incident|environment|emergency)[._]' then 0
                when k.action ~ '^(user|account|key|keys|tenant|evidence|ledger|guard|backup|dr|gate|deploy|release|posture)[._]' then 1
                when k.outcome = 'refused' then 3
                when k.action ~ '^(flag|flags|agents|dlq|outbox|tasks|budget|policy|security|invariants|notify)[._]' then 2 end)), '[]')
    into kinds
    from (select i.action, i.outcome, count(*) as n from tms.ledger l join tms.ledger_inbox i on i.id = l.inbox_id
           where l.seq >= _evidence_audit.from_seq and l.seq < _evidence_audit.tree_size and i.id between low and high group by 1, 2) k;
  -- the gravest first, each in the order of the ledger, until there are two hundred
  <<of>>
  for grade in 0 .. 3 loop
    exit when cardinality(gravest) >= 200;
    continue when not exists (select from jsonb_to_recordset(kinds) k (grade integer) where k.grade = of.grade);
    gravest := gravest || array(
      select l.seq from tms.ledger l join tms.ledger_inbox i on i.id = l.inbox_id
       where l.seq >= _evidence_audit.from_seq and l.seq < _evidence_audit.tree_size
         and (i.action, i.outcome) in (select k.action, k.outcome from jsonb_to_recordset(kinds) k (action text, outcome text, grade integer) where k.grade = of.grade)
       order by l.seq limit 200 - cardinality(gravest));
  end loop;
  return jsonb_build_object(
    'rows', (select coalesce(sum(k.n), 0)::text from jsonb_to_recordset(kinds) k (n bigint)),
    'critical', (select coalesce(sum(k.n), 0)::text from jsonb_to_recordset(kinds) k (n bigint, grade integer) where k.grade is not null),
    'actions', jsonb_array_length(kinds),
    'counts', (select coalesce(jsonb_agg(jsonb_build_object('action', x.action, 'outcome', x.outcome, 'count', x.n::text) order by x.action collate "C", x.outcome), '[]')
                 from (select * from jsonb_to_recordset(kinds) k (action text, outcome text, n bigint) order by k.action collate "C", k.outcome limit 300) x),
    'listed', (select coalesce(jsonb_agg(jsonb_build_object('seq', l.seq::text, 'at', tms._utc(i.at), 'action', i.action, 'outcome', i.outcome, 'role', i.role,
                  'who', tms._evidence_who(i.principal_id, i.who),
                  'tenant', tms._tenant_key(i.company_id),
                  'subject', case when i.outcome = 'refused' or i.action ~ '^(fence|safe_mode|environment|flag|agents|dlq|outbox|tenant|evidence|ledger|gate|deploy|release|backup)\.' then i.subject end,
                  'row_hash', l.row_hash, 'body_sha256', i.body_sha256, 'trace_id', i.trace_id) order by l.seq), '[]')
                 from tms.ledger l join tms.ledger_inbox i on i.id = l.inbox_id where l.seq = any (gravest)));
end
$$;

-- Everything a pack of this day says, as it is known now.
create or replace function tms.evidence_facts(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('evidence_facts', args, '{day}', 'evidence.build');
  the_day date;
  as_of timestamptz := tms.now();
  low timestamptz;
  high timestamptz;
  until timestamptz;
  size bigint;
  range record;
begin
  if c.answer is not null then return c.answer; end if;
  the_day := tms._evidence_day(args);
  low := the_day::timestamp at time zone 'UTC';
  high := (the_day + 1)::timestamp at time zone 'UTC';
  until := least(high, as_of);
  select coalesce(max(l.seq) + 1, 0) into size from tms.ledger l;
  select * into range from tms._evidence_range(the_day, until, size);
  return jsonb_build_object(
    'day', to_char(the_day, 'YYYY-MM-DD'), 'from', tms._utc(low), 'until', tms._utc(until), 'as_of', tms._utc(as_of), 'over', as_of >= high,
    'ledger', jsonb_build_object('origin', tms._ledger_origin(), 'from_seq', range.from_seq::text, 'tree_size', range.tree_size::text,
      'root_before', encode(tms._tree_hash(0, range.from_seq), 'base64'), 'root_after', encode(tms._tree_hash(0, range.tree_size), 'base64')),
    'runs', tms._evidence_runs(low, until),
    'outbox', tms._evidence_outbox(low, until, as_of),
    'queue', (select coalesce(jsonb_agg(jsonb_build_object('at', tms._utc(s.start), 'waiting', s.waiting::text, 'running', s.running::text, 'awaiting_approval', s.awaiting_approval::text) order by s.start), '[]')
                from tms.queue_samples s where s.start >= low and s.start < until),
    'flags', tms._evidence_flags(until, as_of < high),
    'spend', jsonb_build_object(
      'count', (select count(*) from tms.spend s where s.day = the_day),
      'rows', (select coalesce(jsonb_agg(jsonb_build_object('tenant', tms._tenant_key(x.company_id), 'agent', x.agent, 'tokens', x.tokens::text, 'calls', x.calls::text, 'cost', trim_scale(x.cost)::text,
                  'tokens_limit', p.tokens_per_day::text, 'calls_limit', p.calls_per_day::text, 'cost_limit', trim_scale(p.cost_per_day)::text) order by x.cost desc, x.agent collate "C", tms._tenant_key(x.company_id) collate "C"), '[]')
                 from (select * from tms.spend s where s.day = the_day order by s.cost desc, s.agent collate "C", s.company_id limit 100) x left join tms.agent_policies p on p.agent = x.agent)),
    'alerts', jsonb_build_object(
      'count', (select count(*) from tms.incidents i where i.opened_at < until and coalesce(i.resolved_at, i.closed_at, 'infinity') >= low),
      'rows', (select coalesce(jsonb_agg(jsonb_build_object('id', i.id::text, 'priority', i.priority,
                  'status', case when coalesce(i.resolved_at, i.closed_at) < until then 'ENDED' else 'OPEN' end, 'type', i.type, 'tenant', tms._tenant_key(i.company_id),
                  -- what a person wrote may name people, in ways that no pattern knows
                  'title', case when i.dedupe_key like 'said:%' then 'in the words of a person: tms incident show ' || i.id
                    -- of a lever's, the reason
                    when i.type in ('emergency_stop', 'soft_degrade', 'rollback') then split_part(i.title, ': ', 1) else i.title end,
                  'opened_at', tms._utc(i.opened_at), 'ended_at', case when coalesce(i.resolved_at, i.closed_at) < until then tms._utc(coalesce(i.resolved_at, i.closed_at)) end) order by i.priority, i.id), '[]')
                 from (select * from tms.incidents x where x.opened_at < until and coalesce(x.resolved_at, x.closed_at, 'infinity') >= low order by x.priority, x.id limit 100) i)),
    'traces', tms._evidence_traces(low, until),
    'audit', tms._evidence_audit(range.from_seq, range.tree_size));
end
$$;
grant execute on function tms.evidence_facts(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- cut and store

-- Where a day (today, when none is named) stands, and what a builder needs to go on: who this database is, the last final pack before, the cut that isn't stored yet.
create or replace function tms.evidence_state(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('evidence_state', args, '{day}', 'evidence.build');
  the_day date;
  e tms.environment;
  before tms.evidence_packs;
  final tms.evidence_packs;
  cut tms.evidence_cuts;
begin
  if c.answer is not null then return c.answer; end if;
  the_day := case when args ? 'day' then tms._evidence_day(args) else (tms.now() at time zone 'UTC')::date end;
  select * into e from tms.environment;
  select * into before from tms.evidence_packs p where p.final and p.day < the_day order by p.day desc limit 1;
  select * into final from tms.evidence_packs p where p.final and p.day = the_day;
  select * into cut from tms.evidence_cuts x where x.day = the_day order by x.revision desc limit 1;
  if exists (select from tms.evidence_packs p where p.day = cut.day and p.revision = cut.revision) then cut := null; end if;
  return jsonb_build_object(
    'day', to_char(the_day, 'YYYY-MM-DD'), 'now', tms._utc(tms.now()), 'today', to_char(tms.now() at time zone 'UTC', 'YYYY-MM-DD'), 'over', tms.now() >= (the_day + 1)::timestamp at time zone 'UTC',
    'begun', tms._utc(e.initialised_at), 'first_day', to_char(e.initialised_at at time zone 'UTC', 'YYYY-MM-DD'),
    'database_id', e.database_id, 'environment', e.name,
    'final', final.revision,
    'expired', exists (select from tms.evidence_tombstones t where t.day = the_day),
    'revisions', (select count(*) from tms.evidence_packs p where p.day = the_day),
    'next_revision', (select coalesce(max(x.revision), 0) + 1 from tms.evidence_cuts x where x.day = the_day),
    'previous', case when before.day is not null then jsonb_build_object('day', to_char(before.day, 'YYYY-MM-DD'), 'manifest_sha256', before.manifest_sha256, 'checkpoint', before.files ->> 'checkpoint.txt') end,
    'cut', case when cut.day is not null then tms._evidence_cut_json(cut) end);
end
$$;
grant execute on function tms.evidence_state(jsonb) to tms_caller;

create or replace function tms._evidence_cut_json(cut tms.evidence_cuts) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return jsonb_build_object('revision', cut.revision, 'final', cut.final, 'as_of', tms._utc(cut.as_of), 'key', cut.key, 'verdict', cut.verdict, 'cut_at', tms._utc(cut.cut_at),
    'manifest', cut.manifest, 'files', cut.files,
    -- null until it is sealed
    'row', (select jsonb_build_object('seq', l.seq::text, 'body', i.body,
              'line', tms._ledger_line(l.seq, l.prev_hash, tms._ledger_rest(i.id, i.at, i.who, i.credential, i.role, i.fn, i.action, i.outcome, i.company_id, i.subject, i.why, i.trace_id, i.body_sha256)))
              from tms.ledger l join tms.ledger_inbox i on i.id = l.inbox_id where l.inbox_id = cut.inbox_id));
end
$$;

-- Freezes what a pack will say and enters its digest into the ledger. The first one wins: a second one is told, and goes on from what
-- the first one froze. Not from one whose key is gone, and no provisional cut stands in the way of a final one; nor one that a
-- builder can't read, of another release, and names to be passed over (`instead`).
create or replace function tms.evidence_cut(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('evidence_cut', args, '{request_id,day,manifest,files,instead}', 'evidence.build');
  the_day date;
  m jsonb;
  cut tms.evidence_cuts;
  head bigint;
  body jsonb;
  stray text;
begin
  if c.answer is not null then return c.answer; end if;
  the_day := tms._evidence_day(args);
  perform tms._latch('evidence');
  if exists (select from tms.evidence_packs p where p.final and p.day = the_day) then
    return tms._finish(c, jsonb_build_object('outcome', 'final', 'cut', null));
  end if;
  m := (args ->> 'manifest')::jsonb;
  if m ->> 'type' is distinct from 'tms-manifest-v1' or m ->> 'day' is distinct from args ->> 'day' then
    raise exception 'the manifest is of another day or kind' using errcode = 'TM400';
  end if;
  select * into cut from tms.evidence_cuts x where x.day = the_day order by x.revision desc limit 1;
  if cut.day is not null and cut.key = m ->> 'key' and (cut.final or not (m -> 'final')::boolean) and cut.revision is distinct from (args ->> 'instead')::integer
     and not exists (select from tms.evidence_packs p where p.day = cut.day and p.revision = cut.revision) then
    return tms._finish(c, jsonb_build_object('outcome', 'pending', 'cut', tms._evidence_cut_json(cut)));
  end if;
  if (m ->> 'revision')::integer is distinct from coalesce(cut.revision, 0) + 1 then
    return tms._finish(c, jsonb_build_object('outcome', 'revision', 'cut', null));
  end if;
  if (m -> 'final')::boolean and tms.now() < (the_day + 1)::timestamp at time zone 'UTC' then
    raise exception '% is not over: its pack cannot be final', args ->> 'day' using errcode = 'TM400';
  end if;
  select coalesce(max(l.seq) + 1, 0) into head from tms.ledger l;
  if tms._signing_key_problem(m ->> 'key') is not null then
    return tms._refuse(c, 'CONFIG_INVALID', format('the signing key %s… may not sign', left(m ->> 'key', 16)), tms._signing_key_problem(m ->> 'key'), array['tms evidence keys list']);
  end if;
  if (m #>> '{ledger,tree_size}')::bigint > head then raise exception 'the ledger has % sealed rows', head using errcode = 'TM400'; end if;
  if m -> 'previous' is distinct from coalesce((select jsonb_build_object('day', to_char(p.day, 'YYYY-MM-DD'), 'manifest_sha256', p.manifest_sha256)
       from tms.evidence_packs p where p.final and p.day < the_day order by p.day desc limit 1), 'null') then
    return tms._finish(c, jsonb_build_object('outcome', 'revision', 'cut', null));
  end if;
  -- a clock that was set back: the row's time must not be before the facts', nor these before those of the pack before
  if (m ->> 'as_of')::timestamptz > tms.now()
     or exists (select from tms.evidence_packs p where p.final and p.day = (m #>> '{previous,day}')::date and p.as_of > (m ->> 'as_of')::timestamptz) then
    return tms._finish(c, jsonb_build_object('outcome', 'revision', 'cut', null));
  end if;
  if not (args -> 'files') ?& array['flags.json', 'slo_snapshot.json', 'outbox_lag.json', 'audit_digest.json', 'controls.json', 'alerts.sql.out', 'trace-sample.txt'] then
    raise exception 'a pack has seven files of facts at least' using errcode = 'TM400';
  end if;
  -- the facts are what the manifest says they are
  select coalesce(f.key, w.key) into stray from jsonb_each_text(args -> 'files') f full join jsonb_each_text(m -> 'files') w on w.key = f.key
   where w.value is distinct from tms._sha256(f.value) limit 1;
  if found then raise exception 'the manifest and the files differ in %', left(stray, 60) using errcode = 'TM400'; end if;
  body := jsonb_build_object('day', args ->> 'day', 'revision', m -> 'revision', 'manifest_sha256', tms._sha256(args ->> 'manifest'));
  -- this row's line lies in the pack, word for word: nobody's name may stand in it. Who it was is in the inbox, by number.
  c.who := tms._evidence_who(c.principal_id, c.who);
  perform tms._record(c, 'evidence.manifest', 'done', (args ->> 'day') || '/' || (m ->> 'revision'), '', body);
  insert into tms.evidence_cuts (day, revision, final, as_of, from_seq, tree_size, verdict, key, manifest, manifest_sha256, files, inbox_id)
    values (the_day, (m ->> 'revision')::integer, (m -> 'final')::boolean, (m ->> 'as_of')::timestamptz, (m #>> '{ledger,from_seq}')::bigint, (m #>> '{ledger,tree_size}')::bigint,
            m ->> 'verdict', m ->> 'key', args ->> 'manifest', tms._sha256(args ->> 'manifest'), args -> 'files', currval('tms.ledger_inbox_id_seq'))
    returning * into cut;
  return tms._finish(c, jsonb_build_object('outcome', 'cut', 'cut', tms._evidence_cut_json(cut)));
end
$$;
grant execute on function tms.evidence_cut(jsonb) to tms_caller;

-- Keeps the finished bytes of a cut. Once: who comes second reads and writes what the first one stored.
create or replace function tms.evidence_store(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('evidence_store', args, '{request_id,day,revision,files,signature}', 'evidence.build');
  the_day date;
  cut tms.evidence_cuts;
  every jsonb;
  listed text;
begin
  if c.answer is not null then return c.answer; end if;
  the_day := tms._evidence_day(args);
  perform tms._latch('evidence');
  select * into cut from tms.evidence_cuts x where x.day = the_day and x.revision = (args ->> 'revision')::integer;
  if cut.day is null then raise exception 'revision % of % was never cut', args ->> 'revision', args ->> 'day' using errcode = 'TM400'; end if;
  if exists (select from tms.evidence_packs p where p.day = cut.day and (p.final or p.revision >= cut.revision)) then
    return tms._finish(c, jsonb_build_object('stored', false));
  end if;
  every := (args -> 'files') || cut.files || jsonb_build_object('manifest.json', cut.manifest);
  -- every file but the list and its signature, in the order of their bytes
  select string_agg(tms._sha256(f.value) || '  ' || f.key || E'\n', '' order by f.key collate "C") into listed from jsonb_each_text(every - 'SHA256SUMS') f;
  if every ->> 'SHA256SUMS' is distinct from listed then raise exception 'SHA256SUMS and the files differ' using errcode = 'TM400'; end if;
  if octet_length(decode(tms._text(args, 'signature', 100), 'base64')) <> 64 then raise exception '"signature" is 64 bytes in base64' using errcode = 'TM400'; end if;
  insert into tms.evidence_packs (day, revision, final, as_of, from_seq, tree_size, verdict, manifest_sha256, sums_sha256, files, signature)
    values (cut.day, cut.revision, cut.final, cut.as_of, cut.from_seq, cut.tree_size, cut.verdict, cut.manifest_sha256, tms._sha256(listed), every, args ->> 'signature');
  perform tms._record(c, 'evidence.pack', 'done', (args ->> 'day') || '/' || cut.revision, '', jsonb_build_object(
    'day', args ->> 'day', 'revision', cut.revision, 'final', cut.final, 'verdict', cut.verdict, 'sums_sha256', tms._sha256(listed)));
  return tms._finish(c, jsonb_build_object('stored', true));
end
$$;
grant execute on function tms.evidence_store(jsonb) to tms_caller;

-- The bytes of a day: of a revision, else of the newest one.
create or replace function tms.evidence_pack(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('evidence_pack', args, '{day,revision}', 'evidence.build');
  p tms.evidence_packs;
begin
  if c.answer is not null then return c.answer; end if;
  select * into p from tms.evidence_packs x
   where x.day = tms._evidence_day(args) and (not args ? 'revision' or x.revision = (args ->> 'revision')::integer) order by x.revision desc limit 1;
  return jsonb_build_object('pack', case when p.day is not null then jsonb_build_object(
    'day', to_char(p.day, 'YYYY-MM-DD'), 'revision', p.revision, 'final', p.final, 'as_of', tms._utc(p.as_of), 'verdict', p.verdict,
    'manifest_sha256', p.manifest_sha256, 'key', (select x.key from tms.evidence_cuts x where x.day = p.day and x.revision = p.revision), 'sums_sha256', p.sums_sha256, 'files', p.files, 'signature', p.signature) end);
end
$$;
grant execute on function tms.evidence_pack(jsonb) to tms_caller;
