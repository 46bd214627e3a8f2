-- Workers: who works, how much at once, what they are told.
--
-- Guarantees: the slots of all live workers are never more than the fleet's limit; a worker that stops renewing its lease has
-- no slots and may finish nothing; its tasks go back through normal backoff.

set local role tms_owner;

-- A lease, and what a claim may hold beyond what runs: forty times the slots keep a worker of short tasks busy through a round trip of each kind.
create or replace function tms._lease() returns interval language sql immutable as $$ select interval '15 seconds' $$;
create or replace function tms._buffer_factor() returns integer language sql immutable as $$ select 40 $$;

-- The hot path's start: checks arguments and caller like tms._begin, and stores nothing. A repeat of these calls is safe by
-- what they name: a claim counts up, and only the newest may finish.
create or replace function tms._begin_work(fn text, args jsonb, allowed text[], operation text) returns tms.call
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call;
  stray text;
begin
  if args is null or jsonb_typeof(args) <> 'object' then
    raise exception '% takes one JSON object', fn using errcode = 'TM400';
  end if;
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'tms is called at read committed: this transaction is %', current_setting('transaction_isolation')
      using errcode = 'TM400', hint = 'begin isolation level read committed';
  end if;
  select k into stray from jsonb_object_keys(args) k where k <> all (allowed) limit 1;
  if found then raise exception '% has no argument "%"', fn, left(stray, 60) using errcode = 'TM400'; end if;
  c.principal_id := tms._works(operation);
  if c.principal_id is null then
    -- the long way finds the reason and records it
    c := tms._begin(fn, args, allowed, operation);
    if c.answer is null then c.answer := tms._refuse(c, 'ROLE_DENIED', format('%s may not %s', c.who, operation), 'it is fleet-wide work', array['tms whoami']); end if;
    return c;
  end if;
  c.fn := fn;
  c.operation := operation;
  return c;
end
$$;

-- Fills in what a record needs; only who is refused or recorded pays for it.
create or replace function tms._name(c tms.call) returns tms.call
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  credential tms.logins;
begin
  select * into credential from tms._credential();
  c.credential := coalesce(credential.kind || ':' || credential.id, 'unknown:' || session_user);
  c.who := coalesce(tms._principal_name(c.principal_id), 'login ' || session_user);
  c.role := coalesce(c.role, c.who);
  return c;
end
$$;

create or replace function tms._no_worker(c tms.call, worker text) returns jsonb
language sql as $$
  select tms._refuse(tms._name(c), 'LEASE_LOST', pg_catalog.format('worker %s is not working here', pg_catalog.left(worker, 20)),
    'its lease ended, it signed off, or it is another account''s', array['tms agents status'])
$$;

-- The caller's living worker; no row: it has none of that number.
create or replace function tms._worker(c tms.call, worker bigint) returns tms.workers
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select w from tms.workers w
   where w.id = worker and w.principal_id = c.principal_id and w.stopped_at is null and w.lease_until > clock_timestamp());
end
$$;

-- What every answer to a worker says about control. Flags that decide are read where they decide.
create or replace function tms._control() returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select tms._fence_json() || jsonb_build_object(
    'agents', (select coalesce(jsonb_object_agg(s.agent, s.state), '{}') from tms.agent_state s where s.state <> 'running'),
    'tenants', (select coalesce(jsonb_object_agg(s.company_id, s.state), '{}') from tms.tenant_state s where s.state <> 'running')));
end
$$;

-- How long ago the last halt was ended; null: none was. An age, because the clocks of worker and database may differ.
create or replace function tms._resumed_ms_ago() returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select (extract(epoch from clock_timestamp() - h.resumed_at) * 1000)::bigint from tms.halts h
   where h.kind = 'halt' and h.resumed_at is not null order by h.id desc limit 1
$$;

create or replace function tms._slots_percent() returns integer
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return coalesce((select r.percent from tms.resumption r), 100);
end
$$;

create or replace function tms._fleet_limit() returns integer
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  -- while it comes back from a halt: a part, and one at least
  select case when p.percent = 100 or m.most = 0 then m.most else greatest(1, m.most * p.percent / 100) end
    from (select least(150, coalesce((tms._flag_value('budget.agents.maxConcurrent', null) #>> '{}')::integer, 150)) as most) m,
         (select tms._slots_percent() as percent) p);
end
$$;

-- Slots for a worker that wants some: what is left of the fleet's. One at a time, or two would both get the rest.
create or replace function tms._lease_slots(worker bigint, wanted integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  taken integer;
  given integer;
begin
  perform tms._latch('slots');
  -- Who let its lease end has none from now on. A row that somebody holds may have been renewed by a call that hasn't committed yet:
  -- its slots stay taken, or both would have them.
  update tms.workers w set slots = 0
   where w.id = any (array(select x.id from tms.workers x where x.id <> worker and x.stopped_at is null and x.slots > 0 and x.lease_until <= clock_timestamp()
                            for update skip locked));
  select coalesce(sum(w.slots), 0) into taken from tms.workers w where w.id <> worker and w.stopped_at is null;
  given := greatest(0, least(wanted, tms._fleet_limit() - taken));
  update tms.workers w set slots = given, wanted = _lease_slots.wanted, lease_until = clock_timestamp() + tms._lease() where w.id = worker;
  return given;
end
$$;

create or replace function tms.worker_hello(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('worker_hello', args, '{request_id,name,host,pid,agents,slots}', 'task.work');
  made bigint;
  given integer;
begin
  if c.answer is not null then return c.answer; end if;
  if jsonb_typeof(args -> 'agents') <> 'array' then raise exception '"agents" is a list' using errcode = 'TM400'; end if;
  insert into tms.workers as w (principal_id, request_id, name, host, pid, agents, wanted, slots, lease_until)
    values (c.principal_id, (args ->> 'request_id')::uuid, tms._text(args, 'name', 100), tms._text(args, 'host', 255), (args ->> 'pid')::integer,
            array(select jsonb_array_elements_text(args -> 'agents')), greatest((args ->> 'slots')::integer, 0), 0, clock_timestamp() + tms._lease())
    on conflict (request_id) do update set lease_until = excluded.lease_until where w.principal_id = excluded.principal_id and w.stopped_at is null
    returning id into made;
  if made is null then return tms._no_worker(c, 'of this request'); end if;
  given := tms._lease_slots(made, greatest((args ->> 'slots')::integer, 0));
  -- Before its first rows, which the default partitions would catch: upkeep comes later, and nobody may have worked for months. Where
  -- it cannot be now, upkeep does it and says what is wrong. Last, because what this locks stays locked.
  if exists (select from tms._missing_partitions(clock_timestamp())) and tms._latch('upkeep', false) then
    begin
      perform tms._make_partitions(clock_timestamp());
    exception when others then null;
    end;
  end if;
  return jsonb_build_object('numbers_claims', true, 'worker', made::text, 'slots', given, 'lease_ms', extract(epoch from tms._lease()) * 1000, 'control', tms._control(),
    'resumed_ms_ago', tms._resumed_ms_ago());
end
$$;
grant execute on function tms.worker_hello(jsonb) to tms_caller;

-- The heartbeat: renews the lease, asks for slots again, says which halt was seen. Also how a worker learns everything when
-- no push reaches it.
create or replace function tms.worker_beat(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('worker_beat', args, '{worker,slots,acknowledges}', 'task.work');
  w tms.workers;
  given integer;
begin
  if c.answer is not null then return c.answer; end if;
  w := tms._worker(c, (args ->> 'worker')::bigint);
  if w.id is null then return tms._no_worker(c, args ->> 'worker'); end if;
  given := w.slots;
  if coalesce((args ->> 'slots')::integer, w.wanted) <> w.slots
     -- the limit was lowered: whoever beats next gives back what is too much
     or (select sum(x.slots) from tms.workers x where x.stopped_at is null and x.lease_until > clock_timestamp()) > tms._fleet_limit() then
    given := tms._lease_slots(w.id, greatest(coalesce((args ->> 'slots')::integer, w.wanted), 0));
  else
    update tms.workers x set lease_until = clock_timestamp() + tms._lease() where x.id = w.id;
  end if;
  if args ->> 'acknowledges' is not null then
    update tms.workers x set acknowledged_epoch = (args ->> 'acknowledges')::bigint, acknowledged_at = clock_timestamp()
     where x.id = w.id and x.acknowledged_epoch is distinct from (args ->> 'acknowledges')::bigint;
  end if;
  return jsonb_build_object('slots', given, 'control', tms._control(), 'resumed_ms_ago', tms._resumed_ms_ago(),
    'policies', (select tms._sha256(string_agg(p.agent || p.sha256, ',' order by p.agent)) from tms.agent_policies p));
end
$$;
grant execute on function tms.worker_beat(jsonb) to tms_caller;

-- What a worker needs to know of the flags, of no tenant in particular. Sampling rises while an incident is open.
create or replace function tms.worker_settings(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('worker_settings', args, '{}', 'task.work');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('enabled', coalesce(tms._flag_value('obs.otelEnabled', null) = 'true', false),
    'percent', coalesce(tms._flag_value(case when tms._halted() then 'obs.otelIncidentSampling' else 'obs.otelSampling' end, null) #>> '{}', '1'),
    'environment', (select e.name from tms.environment e));
end
$$;
grant execute on function tms.worker_settings(jsonb) to tms_caller;

-- Signs off. What it still holds goes back at once, without an attempt spent.
create or replace function tms.worker_bye(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('worker_bye', args, '{worker}', 'task.work');
  w tms.workers;
  back integer;
  replays bigint[];
begin
  if c.answer is not null then return c.answer; end if;
  select * into w from tms.workers x where x.id = (args ->> 'worker')::bigint and x.principal_id = c.principal_id;
  if w.id is null then return tms._no_worker(c, args ->> 'worker'); end if;
  with mine as (
    update tms.agent_tasks t set status = 'pending', worker_id = null, attempts = greatest(t.attempts - 1, 0), run_until = null
     where t.worker_id = w.id and t.status = 'running' returning t.replay_run_id)
  select count(*), array_agg(m.replay_run_id) filter (where m.replay_run_id is not null) into back, replays from mine m;
  -- of a replay that was stopped meanwhile nothing waits again
  if replays is not null then perform tms._replay_counted(replays); end if;
  update tms.workers x set stopped_at = clock_timestamp(), slots = 0 where x.id = w.id and x.stopped_at is null;
  perform pg_notify('tms_tasks', '');
  return jsonb_build_object('returned', back);
end
$$;
grant execute on function tms.worker_bye(jsonb) to tms_caller;
