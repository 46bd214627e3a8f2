-- The outbox: events written with the work, delivered at least once.
--
-- Guarantees: a delivery belongs to one holder at a time; a poisoned target delays no other; events of one ordering key reach a
-- target one after the other, in the order in which they were written; nothing leaves while halted, but for the halt's own lane.

set local role tms_owner;

-- What a pause of its tenant held and holds no more: a few of each target, so that one that hangs keeps no other's back, and for a
-- moment only, beginning with any tenant, so that none is always last. A resume must not wait for a backlog.
create or replace function tms._let_go_of_tenants() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  start uuid := gen_random_uuid();
  at record;
  until timestamptz := clock_timestamp() + interval '30 milliseconds';
begin
  for round in 1 .. 2 loop
    -- what is nobody's is never paused
    select case when round = 1 then start else '00000000-0000-0000-0000-000000000000' end as company_id, '' as target into at;
    loop
      if clock_timestamp() >= until then return; end if;
      select d.company_id, d.target into at from tms.outbox_deliveries d
       where d.status = 'pending' and d.held = 'tenant' and (d.company_id, d.target) > (at.company_id, at.target)
       order by d.company_id, d.target limit 1;
      exit when not found or (round = 2 and at.company_id > start);
      continue when exists (select from tms.tenant_state s where s.company_id = at.company_id and s.state = 'paused');
      update tms.outbox_deliveries d set held = ''
       where d.id = any (array(select x.id from tms.outbox_deliveries x where x.status = 'pending' and x.held = 'tenant' and x.company_id = at.company_id and x.target = at.target
                                order by x.ordering_key, x.id limit 200 for update skip locked));
    end loop;
  end loop;
end
$$;

-- Ordering keys whose next one is held though nothing is before it: a release that got lost. Nothing here loses one; whatever did, it
-- is found by one of the next upkeeps, which begin with any tenant.
create or replace function tms._let_go_of_keys() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  start uuid := gen_random_uuid();
  at record;
  until timestamptz := clock_timestamp() + interval '200 milliseconds';
begin
  for round in 1 .. 2 loop
    select case when round = 1 then start else '00000000-0000-0000-0000-000000000000' end as company_id, '' as target, '' as ordering_key, 0::bigint as id into at;
    loop
      if clock_timestamp() >= until then return; end if;
      -- the first of each key, one key after the other
      select x.company_id, x.target, x.ordering_key, x.id into at from tms.outbox_deliveries x
       where x.status = 'pending' and x.held = 'key' and (x.company_id, x.target, x.ordering_key) > (at.company_id, at.target, at.ordering_key)
       order by x.company_id, x.target, x.ordering_key, x.id limit 1;
      exit when not found or (round = 2 and at.company_id > start);
      if not exists (select from tms.outbox_deliveries e where e.target = at.target and e.company_id = at.company_id and e.ordering_key = at.ordering_key
                        and e.status in ('pending', 'sending') and e.id < at.id) then
        update tms.outbox_deliveries x set held = '' where x.id = (select y.id from tms.outbox_deliveries y where y.id = at.id and y.status = 'pending' for update skip locked);
      end if;
    end loop;
  end loop;
end
$$;

-- Who can go now, of the ordinary deliveries to one target. What is in their way leaves the front of the index, once; whoever ends what
-- it waits for puts it back (see outbox_finish and _let_go_of_tenants).
-- `more`: the time was over first. enable_seqscan, here and below: a plan made while the table was empty reads all of it.
create or replace function tms._outbox_heads(target text, room integer, until timestamptz, out heads bigint[], out more boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  seen bigint[];
  free bigint[];
  behind bigint[];
  paused bigint[];
  most integer := room;
begin
  heads := '{}';
  more := false;
  while cardinality(heads) < room loop
    seen := array(
      select d.id from tms.outbox_deliveries d
       where d.target = _outbox_heads.target and d.lane = 'normal' and d.status = 'pending' and d.held = '' and d.next_at <= clock_timestamp()
         and d.id <> all (heads)
       order by d.next_at, d.id limit most for update skip locked);
    -- Judged once they are locked, by a later look: who ends the one before has either been seen by now, or waits for this
    -- transaction and then finds the mark.
    with judged as materialized (
      select d.id, d.next_at, exists (select from tms.tenant_state s where s.company_id = d.company_id and s.state = 'paused') as paused,
             -- the one right before it in its key
             case when d.ordering_key is not null then (
               select e.status from tms.outbox_deliveries e where e.target = d.target and e.company_id = d.company_id and e.ordering_key = d.ordering_key
                  and e.status in ('pending', 'sending') and e.id < d.id order by e.id desc limit 1) end as before
        from tms.outbox_deliveries d where d.id = any (seen))
    -- Not marked behind one that is under way: its end may have looked for what follows already, and not have seen this one. Before one
    -- that waits can end, it must be claimed, and that comes later than this.
    select array_agg(j.id order by j.next_at, j.id) filter (where not j.paused and j.before is null),
           array_agg(j.id) filter (where j.before = 'pending' and not j.paused), array_agg(j.id) filter (where j.paused)
      into free, behind, paused from judged j;
    if behind is not null then update tms.outbox_deliveries d set held = 'key' where d.id = any (behind); end if;
    if paused is not null then update tms.outbox_deliveries d set held = 'tenant' where d.id = any (paused); end if;
    heads := heads || coalesce(free[1 : room - cardinality(heads)], '{}');
    exit when cardinality(seen) < most or cardinality(heads) >= room;
    more := clock_timestamp() >= until;
    exit when more;
    most := least(most * 5, 1000);
  end loop;
end
$$;

-- Deliveries for targets of these names: for each target its share, and of an ordering key only the first.
create or replace function tms.outbox_claim(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  c tms.call := tms._begin_work('outbox_claim', args, '{limit,targets}', 'outbox.deliver');
  halted boolean;
  want integer := least(greatest(coalesce((args ->> 'limit')::integer, 100), 1), 500);
  until timestamptz;
  names text[];
  share integer;
  heads bigint[];
  place record;
  here record;
  more boolean := false;
  taken jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  halted := tms._pass() is not null;
  -- a lease that ended: its holder died, or was stopped
  update tms.outbox_deliveries d set status = 'pending', lease_until = null,
         next_at = clock_timestamp() + tms._backoff(greatest(d.attempts, 1), 1000, 600000)
   where d.id = any (array(select x.id from tms.outbox_deliveries x where x.status = 'sending' and x.lease_until < clock_timestamp()
                            and (not halted or x.lane = 'halt') order by x.id limit 500 for update skip locked));
  if not halted then perform tms._let_go_of_tenants(); end if;
  -- twenty under way to one target, over all hosts: one that hangs must not take every place there is. What a halt caught under way
  -- stays so until its end, and takes no place of the halt's own.
  names := array(select t.name from tms.outbox_targets t where not t.paused
    and (select count(*) from tms.outbox_deliveries d where d.status = 'sending' and d.target = t.name and (not halted or d.lane = 'halt')) < 20 and (not args ? 'targets' or t.name = any (tms._texts(args -> 'targets'))));
  share := least(greatest(want / greatest(cardinality(names), 1), 1), 20);
  -- The halt's own first: few, and never held. What a halt holds back holds back none of them.
  heads := array(
    select h.id from unnest(names) n (name) cross join lateral (
      select d.id from tms.outbox_deliveries d
       where d.target = n.name and d.lane = 'halt' and d.status = 'pending' and d.held = '' and d.next_at <= clock_timestamp()
         and (d.ordering_key is null or not exists (
           select from tms.outbox_deliveries e where e.target = d.target and e.company_id = d.company_id and e.ordering_key = d.ordering_key
              and e.status in ('pending', 'sending') and e.id < d.id and (not halted or e.lane = 'halt')))
       order by d.next_at, d.id limit share for update skip locked) h
     limit want);
  if not halted then
    -- counted from here, whatever came before; each target is looked at once at least
    until := clock_timestamp() + interval '100 milliseconds';
    -- in any order: the time may end before all had their turn
    for place in select n.name, share - (select count(*) from tms.outbox_deliveries d where d.id = any (heads) and d.target = n.name) as room
                   from unnest(names) n (name) order by random() loop
      exit when cardinality(heads) >= want;
      here := tms._outbox_heads(place.name, least(place.room, want - cardinality(heads))::integer, until);
      heads := heads || here.heads;
      more := more or here.more;
    end loop;
  end if;
  with claimed as (
    update tms.outbox_deliveries d set status = 'sending', attempts = d.attempts + 1, claim = d.claim + 1, holder = c.principal_id, lease_until = clock_timestamp() + interval '60 seconds'
     where d.id = any (heads) returning d.*
  )
  select jsonb_agg(jsonb_build_object('id', x.id::text, 'claim', x.claim, 'attempt', x.attempts, 'event', e.id::text, 'target', t.name, 'lane', x.lane, 'kind', t.kind, 'config', t.config,
           'topic', e.topic, 'tenant', tms._tenant_key(e.company_id), 'payload', e.payload, 'ordering_key', e.ordering_key, 'created_at', tms._utc(e.created_at),
           'traceparent', e.traceparent, 'task', e.task_id::text) order by x.id)
    into taken from claimed x join tms.outbox_events e on e.id = x.event_id join tms.outbox_targets t on t.name = x.target;
  return jsonb_build_object('control', tms._control(), 'deliveries', coalesce(taken, '[]'), 'more', more);
end
$$;
grant execute on function tms.outbox_claim(jsonb) to tms_caller;

-- An event of the product itself, which belongs to no tenant, written in the transaction of what it tells about. A key makes one
-- event within a day. `halt` is the lane that the fence lets through: for what tells people about the halt itself. What has
-- the same dedup_key arrives in its order: an alert that is triggered after its end would be a new one.
create or replace function tms._announce(topic text, payload jsonb, key text default null, lane text default 'normal') returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  nobody constant uuid := '00000000-0000-0000-0000-000000000000';
  place text := left(payload ->> 'dedup_key', 200);
  failing text;
  event bigint;
begin
  if key is not null then
    insert into tms.outbox_keys as k (company_id, topic, key, event_id, until) values (nobody, _announce.topic, _announce.key, 0, clock_timestamp() + interval '24 hours')
      on conflict on constraint outbox_keys_pkey do update set until = excluded.until where k.until < clock_timestamp();
    if not found then return 0; end if;
  end if;
  -- that a target fails is told to the others: in its own queue it would only wait, and be a reason to open the next one
  if payload ->> 'type' = 'notify' and payload ->> 'incident' ~ '^[0-9]{1,18}$' then
    select substr(i.dedupe_key, 8) into failing from tms.incidents i where i.id = (payload ->> 'incident')::bigint and i.dedupe_key like 'notify:%';
  end if;
  insert into tms.outbox_events (company_id, topic, payload, ordering_key, idempotency_key, traceparent)
    values (nobody, _announce.topic, coalesce(payload, '{}'), nullif(place, ''), _announce.key, payload ->> 'traceparent') returning id into event;
  insert into tms.outbox_deliveries (event_id, target, company_id, lane, ordering_key, created_at)
    select event, t.name, nobody, _announce.lane, nullif(place, ''), clock_timestamp() from tms.outbox_targets t
     where t.company_id is null and t.name is distinct from failing
       and (tms._matches(_announce.topic, t.topics)
         -- a halt after a lift has an alert of its own, and only the lift ends it: whatever ends a pager's alerts must reach it
         or (t.kind = 'pagerduty' and _announce.topic = 'incident.lifted' and tms._matches('incident.resolved', t.topics)));
  if key is not null then
    update tms.outbox_keys k set event_id = event where k.company_id = nobody and k.topic = _announce.topic and k.key = _announce.key;
  end if;
  perform pg_notify('tms_outbox', '');
  return 1;
end
$$;

-- What became of them. `returned`: not sent, because of a halt or the end of the process.
create or replace function tms.outbox_finish(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  c tms.call := tms._begin_work('outbox_finish', args, '{results}', 'outbox.deliver');
  halted boolean;
  ids bigint[];
  following bigint[];
begin
  if c.answer is not null then return c.answer; end if;
  halted := tms._pass() is not null;
  with results as materialized (
    select * from jsonb_to_recordset(args -> 'results') x (id bigint, claim integer, outcome text, error text, after_ms bigint)
  ), ended as (
    update tms.outbox_deliveries d
       set status = case when r.outcome = 'delivered' then 'delivered' when r.outcome = 'returned' then 'pending'
             when r.outcome = 'rejected' or d.attempts >= coalesce(t.max_attempts, 1) then 'dead' else 'pending' end,
           attempts = case when r.outcome = 'returned' then greatest(d.attempts - 1, 0) else d.attempts end,
           lease_until = null, delivered_at = case when r.outcome = 'delivered' then clock_timestamp() end,
           last_error = case when r.outcome = 'delivered' then null else left(coalesce(r.error, d.last_error), 500) end,
           -- of a dead one: since when it is
           next_at = case when r.outcome = 'rejected' or (r.outcome = 'retry' and d.attempts >= coalesce(t.max_attempts, 1)) then clock_timestamp() when r.outcome = 'retry' then clock_timestamp() + greatest(least(coalesce(r.after_ms, 0), 3600000) * interval '1 millisecond', tms._backoff(d.attempts, 1000, 600000)) else d.next_at end
      from results r, tms.outbox_targets t
     where d.id = r.id and d.claim = r.claim and d.holder = c.principal_id and d.status = 'sending' and t.name = d.target
       -- while halted nothing is recorded but the halt's own: what was sent is sent again later, under the same id
       and (not halted or d.lane = 'halt' or r.outcome = 'returned')
     returning d.id
  )
  select coalesce(array_agg(e.id), '{}') into ids from ended e;
  -- what came after them in their keys; locked whether held or not, for it may be about to be
  following := array(
    select f.id from tms.outbox_deliveries d cross join lateral (
      select e.id from tms.outbox_deliveries e where e.target = d.target and e.company_id = d.company_id and e.ordering_key = d.ordering_key and e.status in ('pending', 'sending')
       order by e.id limit 1) f
     where d.id = any (ids) and d.ordering_key is not null and d.status in ('delivered', 'dead'));
  if following <> '{}' then
    perform from tms.outbox_deliveries d where d.id = any (following) order by d.id for update;
    update tms.outbox_deliveries d set held = '' where d.id = any (following) and d.held = 'key';
  end if;
  return jsonb_build_object('control', tms._control(), 'recorded', cardinality(ids));
end
$$;
grant execute on function tms.outbox_finish(jsonb) to tms_caller;

create or replace function tms.outbox_targets_set(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('outbox_targets_set', args, '{request_id,targets}', 'outbox.targets');
  x jsonb;
  names text[] := '{}';
  removed integer;
begin
  if c.answer is not null then return c.answer; end if;
  for x in select value from jsonb_array_elements(args -> 'targets') loop
    names := names || (x ->> 'name');
    insert into tms.outbox_targets as t (name, kind, topics, company_id, config, max_attempts, updated_at, updated_by)
      values (x ->> 'name', x ->> 'kind', tms._texts(x -> 'topics'), case when x ->> 'tenant' is not null then (tms._company(x ->> 'tenant')).id end, coalesce(x -> 'config', '{}'),
              coalesce((x ->> 'max_attempts')::integer, 12), clock_timestamp(), c.who)
      on conflict (name) do update set kind = excluded.kind, topics = excluded.topics, company_id = excluded.company_id, config = excluded.config, max_attempts = excluded.max_attempts,
        updated_at = excluded.updated_at, updated_by = excluded.updated_by;
    if x ->> 'tenant' is not null and (tms._company(x ->> 'tenant')).id is null then raise exception 'there is no tenant "%"', left(x ->> 'tenant', 60) using errcode = 'TM400'; end if;
  end loop;
  -- waiting deliveries of a target that is gone go nowhere any more; they are kept, dead, with the reason
  update tms.outbox_deliveries d set status = 'dead', next_at = clock_timestamp(), last_error = 'its target was removed' where d.status in ('pending', 'sending') and d.target <> all (names);
  delete from tms.outbox_targets t where t.name <> all (names);
  get diagnostics removed = row_count;
  perform tms._record(c, 'outbox.targets', 'done', 'outbox targets', 'targets loaded', jsonb_build_object('targets', to_jsonb(names), 'removed', removed));
  return tms._finish(c, jsonb_build_object('targets', to_jsonb(names), 'removed', removed));
end
$$;
grant execute on function tms.outbox_targets_set(jsonb) to tms_caller;

create or replace function tms.outbox_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('outbox_list', args, '{tenant,target,status,id,limit}', 'outbox.read');
  visible uuid[] := tms._allowed('outbox.read');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return jsonb_build_object('deliveries', (select coalesce(jsonb_agg(jsonb_build_object('id', x.id::text, 'event', x.event_id::text, 'target', x.target, 'tenant', tms._tenant_key(x.company_id), 'topic', e.topic,
      'status', x.status, 'attempts', x.attempts, 'lane', x.lane, 'ordering_key', case when tms._clear(c, x.company_id) then x.ordering_key end, 'created_at', tms._utc(x.created_at), 'next_at', tms._utc(x.next_at),
      'delivered_at', tms._utc(x.delivered_at), 'error', case when tms._clear(c, x.company_id) then x.last_error end, 'task', e.task_id::text,
      'payload', case when args ? 'id' and tms._clear(c, x.company_id) then e.payload end) order by x.id desc), '[]')
    from (select * from tms.outbox_deliveries d where (visible is null or d.company_id = any (visible)) and (not args ? 'target' or d.target = args ->> 'target')
             and (not args ? 'status' or d.status = args ->> 'status') and (not args ? 'id' or d.id = (args ->> 'id')::bigint)
           order by d.id desc limit tms._limit(args)) x join tms.outbox_events e on e.id = x.event_id),
    'targets', (select coalesce(jsonb_agg(jsonb_build_object('name', t.name, 'kind', t.kind, 'topics', to_jsonb(t.topics), 'tenant', tms._tenant_key(t.company_id), 'max_attempts', t.max_attempts, 'paused', t.paused,
        'waiting', (select count(*) from (select from tms.outbox_deliveries d where d.target = t.name and d.status = 'pending' and (visible is null or d.company_id = any (visible)) limit 10000) w)) order by t.name), '[]')
        from tms.outbox_targets t where t.company_id is null or visible is null or t.company_id = any (visible)));
end
$$;
grant execute on function tms.outbox_list(jsonb) to tms_caller;

-- It would page, and the end of its alert has arrived already: sent now, it would be a new alert that nothing ends. The halt's lane:
-- the product's own alerts, each of which has one end.
create or replace function tms._ended_since(d tms.outbox_deliveries) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select d.lane = 'halt' and exists (select from tms.outbox_targets t where t.name = d.target and t.kind = 'pagerduty')
     and (select tms._pager_does(e.topic, e.payload) from tms.outbox_events e where e.id = d.event_id) = 'trigger'
     and exists (select from tms.outbox_deliveries y join tms.outbox_events z on z.id = y.event_id
                  where y.target = d.target and y.lane = 'halt' and y.ordering_key = d.ordering_key and y.company_id = d.company_id and y.id > d.id
                    and y.status = 'delivered' and tms._pager_does(z.topic, z.payload) = 'resolve')
$$;

-- Tries dead ones again, or waiting ones now.
create or replace function tms.outbox_retry(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('outbox_retry', args, '{request_id,tenant,ids,why}', 'outbox.retry');
  n integer;
begin
  if c.answer is not null then return c.answer; end if;
  -- without a tenant: the product's own, by those who see every tenant
  if c.company_id is null then c.company_id := '00000000-0000-0000-0000-000000000000'; end if;
  update tms.outbox_deliveries d set status = 'pending', held = '', attempts = case when d.status = 'dead' then 0 else d.attempts end, next_at = clock_timestamp()
   where d.id = any (tms._texts(args -> 'ids')::bigint[]) and d.company_id = c.company_id and d.status in ('dead', 'pending') and exists (select from tms.outbox_targets t where t.name = d.target)
     and not (d.status = 'dead' and tms._ended_since(d));
  get diagnostics n = row_count;
  c.company_id := nullif(c.company_id, '00000000-0000-0000-0000-000000000000');
  perform tms._record(c, 'outbox.retry', 'done', 'outbox deliveries', coalesce(args ->> 'why', ''), jsonb_build_object('ids', args -> 'ids', 'retried', n));
  perform pg_notify('tms_outbox', '');
  return tms._finish(c, jsonb_build_object('retried', n));
end
$$;
grant execute on function tms.outbox_retry(jsonb) to tms_caller;

-- How long deliveries take, of those made in the span. What waits counts with its age: a stuck outbox is not fast.
create or replace function tms._lag_json(visible uuid[], low timestamptz, high timestamptz) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  -- floats, sorted once: a day of a million deliveries took 1.9 s as decimals in two sorts
  select jsonb_build_object('since', tms._utc(low), 'samples', k.n::text, 'waiting', k.waiting::text, 'p50_ms', round(k.shares[1])::text, 'p95_ms', round(k.shares[2])::text,
           'avg_ms', round(k.mean)::text, 'oldest_waiting_ms', round(k.oldest)::text,
           'dead', (select count(*)::text from tms.outbox_deliveries d where d.status = 'dead' and d.created_at > low and d.created_at <= high and (visible is null or d.company_id = any (visible))))
    from (
      select count(*) as n, count(*) filter (where x.waits) as waiting, percentile_cont(array[0.5, 0.95]) within group (order by x.ms) as shares, avg(x.ms) as mean, max(x.ms) filter (where x.waits) as oldest
        from (select date_part('epoch', coalesce(d.delivered_at, clock_timestamp()) - d.created_at) * 1000 as ms, d.delivered_at is null as waits
                from tms.outbox_deliveries d where d.created_at > low and d.created_at <= high and d.status <> 'dead' and (visible is null or d.company_id = any (visible))
              union all
              -- older ones that still wait
              select date_part('epoch', clock_timestamp() - d.created_at) * 1000, true from tms.outbox_deliveries d
               where d.status in ('pending', 'sending') and d.created_at <= low and (visible is null or d.company_id = any (visible))) x) k
$$;

create or replace function tms.outbox_lag(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('outbox_lag', args, '{tenant,minutes}', 'outbox.read');
  visible uuid[] := tms._allowed('outbox.read');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return tms._lag_json(visible, clock_timestamp() - least(greatest(coalesce((args ->> 'minutes')::integer, 15), 1), 1440) * interval '1 minute', clock_timestamp());
end
$$;
grant execute on function tms.outbox_lag(jsonb) to tms_caller;
