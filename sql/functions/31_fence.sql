-- The fence: stops every autonomous write, at once and provably.
--
-- Guarantee: when fence_halt has answered `fenced: true`, no transaction of a machine that passes tms._pass() (every function
-- that works) or writes to a guarded table can commit until fence_resume, at any isolation level and whatever the machine believes.
--
-- How: mark, then wait. Passing takes ROW SHARE on an empty table and then reads the mark, a sequence, which no snapshot
-- hides. A function passes when it begins; a write to a guarded table at its commit (tms.fence_writes). Halting sets the mark and then
-- waits for those who held the lock at that moment; whoever takes it later sees the mark. Who doesn't end within the grace is
-- terminated. Nothing here takes a lock that anybody else could hold.

set local role tms_owner;

-- One at a time until the transaction ends. False: somebody else is at it, and `wait` was not asked for.
create or replace function tms._latch(name text, wait boolean default true) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  insert into tms.latches values (_latch.name) on conflict do nothing;
  if wait then
    perform from tms.latches l where l.name = _latch.name for update;
  else
    perform from tms.latches l where l.name = _latch.name for update skip locked;
  end if;
  return found;
end
$$;

-- Who is refused hears so a moment later: a crowd that asks again at once keeps the processors from those who still hold the gate,
-- whom the halt waits for (150 clients on two cores: 224 ms until fenced without this, 60 with it). Not who has written in its
-- transaction, for it may be one of those; and nobody through a gateway, whose few connections the operator needs as well. Once it is
-- fenced there is nobody to wait for, and nobody waits here.
create or replace function tms._turned_away() returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if pg_current_xact_id_if_assigned() is null and not tms._through_gateway()
     and not exists (select from tms.halts h, tms.fence_mark m where h.kind = 'halt' and h.epoch = m.last_value / 2 and h.fenced) then
    perform pg_sleep(0.1 + random() * 0.1);
  end if;
  return 'FENCED';
end
$$;

-- Null: open. Otherwise why not. Raises 40001 for a snapshot from before the last halt.
create or replace function tms._pass() returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  mark bigint;
begin
  -- Who is refused holds no gate, or the halt would wait for it: 150 clients that are refused at once queue to be counted.
  select last_value into mark from tms.fence_mark;
  if mark % 2 = 1 then return tms._turned_away(); end if;
  lock table tms.fence_gate in row share mode;
  select last_value into mark from tms.fence_mark;
  if mark % 2 = 1 then return 'FENCED'; end if;
  if (select f.epoch from tms.fence f) <> mark / 2 then
    perform tms._too_old('halt');
  end if;
  return null;
end
$$;

create or replace function tms._safe_mode() returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  mark bigint;
begin
  select last_value into mark from tms.safe_mode_mark;
  if mark % 2 = 1 then return true; end if;
  lock table tms.safe_gate in row share mode;
  select last_value into mark from tms.safe_mode_mark;
  if mark % 2 = 1 then return true; end if;
  if (select f.safe_epoch from tms.fence f) <> mark / 2 then perform tms._too_old('safe mode'); end if;
  return false;
end
$$;

create or replace function tms._halted() returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select last_value % 2 = 1 from tms.fence_mark);
end
$$;

create or replace function tms._fence_json() returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select jsonb_build_object('halted', m.last_value % 2 = 1, 'epoch', m.last_value / 2,
    'safe_mode', (select s.last_value % 2 = 1 or f.safe_epoch <> s.last_value / 2 from tms.safe_mode_mark s, tms.fence f)) from tms.fence_mark m);
end
$$;

create or replace function tms._fenced(c tms.call) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return tms._refuse(c, 'FENCED', 'the fleet is halted: nothing autonomous commits',
    format('halt %s is in force', (tms._fence_json() ->> 'epoch')), array['tms agents status', 'tms incident resume <id> (as super_admin)']);
end
$$;

-- On users' tables, statement level, before: see tms.guard_table. Says so at once to whoever must not write now. Who may takes no gate
-- yet: a transaction can stay open for as long as its client likes, and a halt would wait for it. What it leaves is checked at the commit.
create or replace function tms.fence_guard() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set row_security = on as $$
declare
  machine boolean := not tms._human();
  fence bigint;
  safe bigint;
begin
  select f.last_value, s.last_value into fence, safe from tms.fence_mark f, tms.safe_mode_mark s;
  if machine then
    if fence % 2 = 1 then
      perform tms._turned_away();
      perform tms._fenced_write(tg_relid);
    end if;
    if (select f.epoch from tms.fence f) <> fence / 2 then perform tms._too_old('halt'); end if;
  end if;
  if safe % 2 = 1 then perform tms._safe_write(tg_relid); end if;
  if (select f.safe_epoch from tms.fence f) <> safe / 2 then perform tms._too_old('safe mode'); end if;
  if machine then
    insert into tms.fence_writes values (tg_relid, fence, safe);
  else
    insert into tms.safe_writes values (tg_relid, null, safe);
  end if;
  return null;
end
$$;

-- At the commit, or where `set constraints` asks for it earlier: from the gate on it is held until the end, as in tms._pass(). The marks
-- must be what they were at the statement, or what was written before a halt would commit after its resume. Looked at before the gate as
-- well: who is refused must not be waited for.
-- The row is found by its place. Reading the table instead, as the planner likes it while it is small, a commit would take the square of
-- its statements, and serializable transactions would conflict over it; and whoever calls may have switched either off.
create or replace function tms.fence_commit() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set enable_tidscan = on set row_security = on as $$
declare
  mark bigint;
begin
  if new.fence_mark is null then
    delete from tms.safe_writes w where w.ctid = new.ctid;
  else
    delete from tms.fence_writes w where w.ctid = new.ctid;
    select last_value into mark from tms.fence_mark;
    if mark = new.fence_mark then
      lock table tms.fence_gate in row share mode;
      select last_value into mark from tms.fence_mark;
    end if;
    if mark % 2 = 1 then perform tms._fenced_write(new.target); end if;
    if mark <> new.fence_mark then perform tms._too_old('halt'); end if;
  end if;
  select last_value into mark from tms.safe_mode_mark;
  if mark = new.safe_mark then
    lock table tms.safe_gate in row share mode;
    select last_value into mark from tms.safe_mode_mark;
  end if;
  if mark % 2 = 1 then perform tms._safe_write(new.target); end if;
  if mark <> new.safe_mark then perform tms._too_old('safe mode'); end if;
  return null;
end
$$;

create or replace function tms._fenced_write(target regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  raise exception 'the fleet is halted: nothing autonomous is written to %', target using errcode = 'TM423', hint = 'tms agents status';
end
$$;

create or replace function tms._safe_write(target regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  raise exception 'safe mode: nothing may be written to %', target using errcode = 'TM423', hint = 'tms incident safe-mode off';
end
$$;

create or replace function tms._too_old(than text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  raise exception 'this transaction began before the last %', than using errcode = '40001';
end
$$;

-- Who passed a gate and hasn't ended, apart from this session. pg_locks is no snapshot: it is looked at anew each time. Only the
-- lock that passing takes: a schema change holds another one, and writes nothing a halt is about.
create or replace function tms._gate_holders(gate regclass) returns table (holder text, pid integer)
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select distinct l.virtualtransaction || '/' || coalesce(l.pid, 0), l.pid
    from pg_locks l
   where l.locktype = 'relation' and l.relation = gate and l.mode = 'RowShareLock' and l.granted
     and l.database = (select d.oid from pg_database d where d.datname = current_database())
     and l.pid is distinct from pg_backend_pid()
$$;

-- Ends these sessions, and says which were ended.
create or replace function tms._end_sessions(pids integer[]) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  ended jsonb := '[]';
  victim record;
  done boolean;
begin
  for victim in select p.pid, a.usename, a.application_name, a.xact_start from unnest(pids) p (pid) left join pg_stat_activity a on a.pid = p.pid loop
    begin
      done := victim.pid is not null and pg_terminate_backend(victim.pid);
    exception when others then done := false; -- a superuser's, or pg_signal_backend is not ours
    end;
    if done then
      ended := ended || jsonb_build_object('pid', victim.pid, 'login', victim.usename, 'application', left(victim.application_name, 60),
        'transaction_began', tms._utc(victim.xact_start));
    end if;
  end loop;
  return ended;
end
$$;

-- Machines that wrote to a guarded table and have been at their statement, or waiting for their client, for longer than this: none can
-- commit while it is halted, but all keep their locks until they come back, from people who must repair something.
create or replace function tms._end_open_writers(longer interval) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select tms._end_sessions(array(
    select distinct l.pid from pg_locks l join pg_stat_activity a on a.pid = l.pid
     where l.locktype = 'relation' and l.relation = 'tms.fence_writes'::regclass and l.mode = 'RowExclusiveLock' and l.granted
       and l.database = (select d.oid from pg_database d where d.datname = current_database())
       and l.pid <> pg_backend_pid() and a.state_change < clock_timestamp() - longer))
$$;

-- Waits until everybody who holds the gate now has let go; ends the sessions of those who don't within the grace, when told
-- to. Answers who was waited for, who was ended, and who could not be.
create or replace function tms._settle(grace_ms integer, terminate boolean, gate regclass default 'tms.fence_gate') returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  began timestamptz := clock_timestamp();
  waiting text[];
  waited jsonb := '[]';
  ended jsonb := '[]';
  pause double precision := 0.001;
begin
  select array_agg(h.holder) into waiting from tms._gate_holders(gate) h;
  if waiting is null then
    return jsonb_build_object('fenced', true, 'ms', round(extract(epoch from clock_timestamp() - began) * 1000, 3),
      'waited_for', 0, 'terminated', '[]'::jsonb, 'survivors', '[]'::jsonb);
  end if;
  waited := to_jsonb(cardinality(waiting));
  loop
    waiting := array(select h.holder from tms._gate_holders(gate) h where h.holder = any (waiting));
    exit when waiting = '{}' or clock_timestamp() - began > grace_ms * interval '1 millisecond';
    perform pg_sleep(pause);
    pause := least(pause * 1.5, 0.005);
  end loop;
  if waiting <> '{}' and terminate then
    ended := tms._end_sessions(array(select h.pid from tms._gate_holders(gate) h where h.holder = any (waiting)));
    -- a session ends in a millisecond; one that hangs in the kernel may not
    for attempt in 1 .. 200 loop
      waiting := array(select h.holder from tms._gate_holders(gate) h where h.holder = any (waiting));
      exit when waiting = '{}' or (attempt > 20 and ended = '[]');
      perform pg_sleep(0.005);
    end loop;
  end if;
  return jsonb_build_object('fenced', waiting = '{}', 'ms', round(extract(epoch from clock_timestamp() - began) * 1000, 3),
    'waited_for', waited, 'terminated', ended, 'survivors', to_jsonb(waiting));
end
$$;

-- Moves the mark, one at a time: a halt to the next odd value, a lift from the halt that its record names to the next even one.
-- Answers where the mark was, or null to a lift that names another halt. The lock lives in a subtransaction that is undone, so
-- nobody holds it longer than this takes; the sequence isn't undone with it.
create or replace function tms._move_mark(lifts_to bigint) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  was bigint;
  patient boolean := true;
begin
  for attempt in 1 .. 2 loop
    begin
      if patient then
        perform set_config('lock_timeout', '50ms', true);
        lock table tms.fence_turn in access exclusive mode;
      end if;
      select last_value into was from tms.fence_mark;
      if lifts_to is not null then
        if was % 2 = 1 and was / 2 + 1 = lifts_to then perform setval('tms.fence_mark', was + 1); else was := null; end if;
      elsif was % 2 = 0 then
        perform setval('tms.fence_mark', was + 1);
      else
        -- Halted already. Written again, because the other halt's transaction may not have reached the disk yet; and as a new
        -- halt, when the end of that one has its record: its lift may be under way.
        perform setval('tms.fence_mark', was + case when (select f.epoch from tms.fence f) = was / 2 + 1 then 2 else 0 end);
      end if;
      raise exception 'let go' using errcode = 'TM000';
    exception
      when sqlstate 'TM000' then return was;
      when lock_not_available then
        -- a halt waits for nobody
        if lifts_to is not null then raise; end if;
        patient := false;
    end;
  end loop;
  return was;
end
$$;

-- Halts the fleet. No request id: halting twice is halting once. Stores nothing that could be waited for before the mark
-- stands; certificate and ledger are fence_certificate's.
create or replace function tms.fence_halt(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('fence_halt', args, '{why,grace_ms}', 'incident.emergency_stop');
  mark bigint;
  settled jsonb;
  grace integer := least(greatest(coalesce((args ->> 'grace_ms')::integer, 250), 0), 5000);
  halt bigint;
  already boolean;
  running integer;
  began timestamptz;
begin
  if c.answer is not null then return c.answer; end if;
  began := clock_timestamp();
  -- without it the mark could be lost in a crash right after the answer: seen in 5 of 8
  perform set_config('synchronous_commit', 'on', true);
  already := tms._move_mark(null) % 2 = 1;
  select last_value into mark from tms.fence_mark;
  settled := tms._settle(grace, true);
  -- Nothing below may keep the halt from being answered: neither an error nor somebody's lock.
  perform set_config('lock_timeout', '200ms', true);
  begin
    settled := settled || jsonb_build_object('terminated', (settled -> 'terminated') || tms._end_open_writers(grace * interval '1 millisecond'));
  exception when others then null;
  end;
  begin
    perform tms._signal('control');
  exception when others then null;
  end;
  begin
    select count(*) into running from tms.agent_tasks t where t.status = 'running';
    insert into tms.halts (kind, epoch, at, by_id, by_name, why, fenced, ms_to_fence, waited_for, terminated, survivors, in_flight)
      values ('halt', mark / 2, began, c.principal_id, c.who, coalesce(left(args ->> 'why', 1000), ''), (settled -> 'fenced')::boolean,
              round(extract(epoch from clock_timestamp() - began) * 1000, 3), settled -> 'waited_for', settled -> 'terminated',
              settled -> 'survivors', running)
      returning id into halt;
  exception when others then null;
  end;
  return jsonb_build_object('halt', halt::text, 'epoch', mark / 2, 'already', already, 'fenced', settled -> 'fenced', 'at', tms._utc(began),
    'ms', round(extract(epoch from clock_timestamp() - began) * 1000, 3), 'waited_for', settled -> 'waited_for',
    'terminated', settled -> 'terminated', 'survivors', settled -> 'survivors', 'in_flight', running);
end
$$;
grant execute on function tms.fence_halt(jsonb) to tms_caller;

-- A halt that the caller pressed, or any where they may certify: break-glass stops, and who else stopped what is none of its affair.
create or replace function tms._halt_of(c tms.call, halt bigint) returns tms.halts
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  h tms.halts;
begin
  select * into h from tms.halts x where x.id = halt;
  if h.by_id is distinct from c.principal_id and tms._allowed('incident.certify') is not null then return null; end if;
  return h;
end
$$;

-- The facts of a halt, and its ledger row the first time it is asked for.
create or replace function tms.fence_certificate(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('fence_certificate', args, '{request_id,halt}', 'incident.emergency_stop');
  h tms.halts;
  answer jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  h := tms._halt_of(c, (args ->> 'halt')::bigint);
  if h.id is null then
    return tms._refuse(c, 'NOT_FOUND', 'there is no such halt', 'its number is in the answer of the halt', array['tms agents status']);
  end if;
  answer := tms._halt_json(h, true);
  perform tms._record(c, 'fence.halt', 'done', 'halt ' || h.id, h.why, answer);
  return tms._finish(c, answer);
end
$$;
grant execute on function tms.fence_certificate(jsonb) to tms_caller;

-- When this worker showed that it knows of the halt; null: it did not. Pressed again the epoch stays, so a worker that said so before
-- counts once it has been heard of since the press: it may have died in between.
create or replace function tms._acknowledged(w tms.workers, h tms.halts) returns timestamptz
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return case when w.acknowledged_epoch is distinct from h.epoch or w.started_at > h.at or w.stopped_at <= h.at then null
              when w.acknowledged_at >= h.at then w.acknowledged_at
              when w.lease_until - tms._lease() >= h.at then w.lease_until - tms._lease() end;
end
$$;

create or replace function tms._halt_json(h tms.halts, clear boolean) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select jsonb_build_object(
    'halt', h.id::text, 'kind', h.kind, 'epoch', h.epoch, 'at', tms._utc(h.at), 'by', case when clear then h.by_name else 'redacted' end,
    'why', case when clear then h.why else 'redacted' end, 'fenced', h.fenced,
    'ms_to_fence', h.ms_to_fence::text, 'waited_for', h.waited_for, 'terminated', h.terminated, 'survivors', h.survivors,
    'in_flight', h.in_flight, 'resumed_at', tms._utc(h.resumed_at), 'resumed_by', case when clear or h.resumed_by is null then h.resumed_by else 'redacted' end,
    'acknowledged', coalesce(h.heard -> 'acknowledged', (select coalesce(jsonb_agg(jsonb_build_object('worker', w.name, 'host', w.host, 'at', tms._utc(tms._acknowledged(w, h))) order by w.id), '[]')
                       from tms.workers w where w.acknowledged_epoch = h.epoch and tms._acknowledged(w, h) is not null)),
    'silent', coalesce(h.heard -> 'silent', (select coalesce(jsonb_agg(jsonb_build_object('worker', w.name, 'host', w.host, 'lease_until', tms._utc(w.lease_until)) order by w.id), '[]')
                 from tms.workers w where w.started_at <= h.at and w.lease_until > h.at
                  and (w.stopped_at is null or w.stopped_at > h.at) and tms._acknowledged(w, h) is null)))
$$;

-- Whether it takes two to resume: the flag says so now, or said so when it was halted. Else one person could switch that off first.
create or replace function tms._takes_two(incident bigint) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  flag constant text := 'incident.resume.twoPersons';
  moment timestamptz := coalesce((select min(h.at) from tms.halts h where h.kind = 'halt' and h.resumed_at is null),
                                 (select i.opened_at from tms.incidents i where i.id = incident));
begin
  return tms._flag_value(flag, null) is not distinct from 'true'
    or coalesce((select a.state -> 'value' = 'true' and a.state ->> 'percentage' = '100' from tms._flags_at(moment) a
                  where a.key = flag and jsonb_typeof(a.state) = 'object'
                    and (a.level = 'global' or (a.level = 'environment' and a.environment = (select e.name from tms.environment e)))
                  order by a.level = 'environment' desc limit 1), false);
end
$$;

-- Null: enough people agree. Where it takes two, one who isn't the caller has approved this end of this halt: since the last press, and
-- of its incident.
create or replace function tms._second_person(c tms.call, incident bigint) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if not tms._takes_two(incident) then return null; end if;
  if exists (select from tms.resume_approvals a where a.epoch = (tms._fence_json() ->> 'epoch')::bigint and a.principal_id <> c.principal_id
               -- who has lost the role since has no say any more
               and exists (select from tms._live_memberships(a.principal_id) m where m.role = 'super_admin')
               and (_second_person.incident is null or a.incident_id = _second_person.incident)
               and not exists (select from tms.halts h where h.kind = 'halt' and h.resumed_at is null
                                  and (h.at > a.at or (_second_person.incident is null and not exists (
                                         select from tms.incident_halts x where x.halt_id = h.id and x.incident_id = a.incident_id))))) then return null; end if;
  return tms._refuse(c, 'CONSENT_MISSING', 'a second person must agree', 'incident.resume.twoPersons is on, or was when it began', array[format('tms incident resume %s --approve (by another super_admin)', coalesce(_second_person.incident, (select max(x.incident_id) from tms.incident_halts x)))]);
end
$$;

-- Lifts the halt in two calls, so that the record stands before anything may commit: `prepare` raises the epoch, `lift`
-- moves the mark. Between the two the fleet is still halted.
create or replace function tms.fence_resume(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('fence_resume', args, '{request_id,step,why}', 'incident.resume');
  mark bigint;
  reason text;
  refusal jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  reason := tms._text(args, 'why');
  if coalesce(args ->> 'step', '') not in ('prepare', 'lift') then raise exception '"step" is prepare or lift' using errcode = 'TM400'; end if;
  perform from tms.fence for update;
  select last_value into mark from tms.fence_mark;
  if mark % 2 = 0 then
    return tms._refuse(c, 'CONFLICT', 'the fleet is not halted', format('epoch %s is running', mark / 2), array['tms agents status']);
  end if;
  if args ->> 'step' = 'prepare' then
    refusal := tms._second_person(c, null);
    if refusal is not null then return refusal; end if;
    update tms.fence set epoch = mark / 2 + 1;
    -- With what the workers said of it: the next halt is all they speak of then.
    update tms.halts h set resumed_at = clock_timestamp(), resumed_by = c.who, resumed_why = reason,
           heard = (select jsonb_build_object('acknowledged', j -> 'acknowledged', 'silent', j -> 'silent') from tms._halt_json(h, true) j)
     where h.kind = 'halt' and h.resumed_at is null;
    perform tms._record(c, 'fence.resume', 'done', 'epoch ' || (mark / 2 + 1), reason, jsonb_build_object('epoch', mark / 2 + 1));
    return tms._finish(c, jsonb_build_object('epoch', mark / 2 + 1, 'lifted', false));
  end if;
  if (select f.epoch from tms.fence f) <> mark / 2 + 1 then
    return tms._refuse(c, 'CONFLICT', 'this halt has no record of its end yet', 'prepare comes before lift', array['tms incident list', 'tms incident resume <id>']);
  end if;
  if (select f.xmin = pg_current_xact_id()::xid from tms.fence f) then
    return tms._refuse(c, 'CONFLICT', 'the record of this halt''s end has not committed yet', 'prepare and lift are two transactions', array['tms incident list', 'tms incident resume <id>']);
  end if;
  perform set_config('synchronous_commit', 'on', true);
  -- the halt's time is nobody's: what was held through it gets a while to go on or to be handed back
  update tms.agent_tasks t set run_until = greatest(t.run_until, clock_timestamp() + interval '30 seconds')
   where t.id = any (array(select x.id from tms.agent_tasks x where x.status = 'running' order by x.id for update skip locked));
  -- What was on its way when the halt came could not be recorded: it goes out again now, and not when its lease is over. Until then
  -- it would fill its target's places, for a minute.
  update tms.outbox_deliveries d set status = 'pending', lease_until = null, attempts = greatest(d.attempts - 1, 0)
   where d.id = any (array(select x.id from tms.outbox_deliveries x where x.status = 'sending' and x.lane = 'normal' order by x.id for update skip locked));
  perform tms._signal('control');
  if tms._move_mark(mark / 2 + 1) is null then
    return tms._refuse(c, 'CONFLICT', 'the fleet was halted again', 'that halt needs its own resume', array['tms agents status']);
  end if;
  return tms._finish(c, jsonb_build_object('epoch', mark / 2 + 1, 'lifted', true));
end
$$;
grant execute on function tms.fence_resume(jsonb) to tms_caller;

-- Safe mode is wider: people's writes to guarded tables stop too.
create or replace function tms.safe_mode_on(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('safe_mode_on', args, '{why}', 'incident.safe_mode_on');
  mark bigint;
  settled jsonb;
  halt bigint;
  already boolean;
  recorded boolean := true;
  first tms.halts;
  began timestamptz := clock_timestamp();
begin
  if c.answer is not null then return c.answer; end if;
  perform set_config('synchronous_commit', 'on', true);
  select last_value into mark from tms.safe_mode_mark;
  already := mark % 2 = 1;
  mark := mark + (mark + 1) % 2;
  perform setval('tms.safe_mode_mark', mark);
  settled := tms._settle(250, true, 'tms.safe_gate');
  perform set_config('lock_timeout', '200ms', true);
  -- Nothing below may keep it from being answered; what is missing is said.
  begin
    perform tms._signal('control');
  exception when others then null;
  end;
  begin
    insert into tms.halts (kind, epoch, at, by_id, by_name, why, fenced, ms_to_fence, waited_for, terminated, survivors, in_flight)
      values ('safe_mode', mark / 2, began, c.principal_id, c.who, coalesce(left(args ->> 'why', 1000), ''), (settled -> 'fenced')::boolean,
              round(extract(epoch from clock_timestamp() - began) * 1000, 3), settled -> 'waited_for', settled -> 'terminated', settled -> 'survivors', 0)
      returning id into halt;
  exception when others then halt := null;
  end;
  begin
    perform tms._record(c, 'safe_mode.on', 'done', 'safe mode ' || (mark / 2), coalesce(args ->> 'why', ''), settled);
  exception when others then recorded := false;
  end;
  -- of this time: one that was pressed while an earlier one was left is nobody's
  select * into first from tms.halts h where h.kind = 'safe_mode' and h.resumed_at is null and h.epoch = mark / 2 order by h.id limit 1;
  return jsonb_build_object('halt', halt::text, 'recorded', recorded, 'epoch', mark / 2, 'fenced', settled -> 'fenced', 'ms', settled -> 'ms',
    'terminated', settled -> 'terminated', 'survivors', settled -> 'survivors', 'workers', tms._live_workers(), 'already', already,
    'since', tms._utc(coalesce(first.at, began)), 'by', coalesce(first.by_name, c.who));
end
$$;
grant execute on function tms.safe_mode_on(jsonb) to tms_caller;

-- Needs the override token as well as the role; the token's sha256 is compared, the token itself never gets here.
create or replace function tms.safe_mode_off(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('safe_mode_off', args, '{request_id,override_token_sha256,why}', 'incident.safe_mode_off');
  mark bigint;
  reason text;
begin
  if c.answer is not null then return c.answer; end if;
  reason := tms._text(args, 'why');
  if not exists (select from tms.environment e where e.override_token_sha256 = args ->> 'override_token_sha256') then
    return tms._refuse(c, 'TOKEN_WRONG', 'this is not the override token', 'init printed it once; the database has its hash', array['tms incident safe-mode off', 'tms incident safe-mode rotate-token']);
  end if;
  perform from tms.fence for update;
  select last_value into mark from tms.safe_mode_mark;
  -- even and yet not recorded: an earlier end was undone after it had moved the mark
  if mark % 2 = 0 and (select f.safe_epoch from tms.fence f) = mark / 2 then
    return tms._refuse(c, 'CONFLICT', 'safe mode is not on', 'there is nothing to leave', array['tms agents status']);
  end if;
  -- Not in two steps: a person who cannot write for a moment longer than the record says loses nothing.
  mark := mark - (mark + 1) % 2;
  update tms.fence set safe_epoch = mark / 2 + 1;
  update tms.halts set resumed_at = clock_timestamp(), resumed_by = c.who, resumed_why = reason where kind = 'safe_mode' and resumed_at is null;
  perform tms._record(c, 'safe_mode.off', 'done', 'safe mode ' || (mark / 2), reason, '{}');
  perform tms._signal('control');
  perform set_config('synchronous_commit', 'on', true);
  perform setval('tms.safe_mode_mark', mark + 1);
  return tms._finish(c, jsonb_build_object('epoch', mark / 2 + 1));
end
$$;
grant execute on function tms.safe_mode_off(jsonb) to tms_caller;

create or replace function tms.fence_state(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('fence_state', args, '{}', 'agents.read');
begin
  if c.answer is not null then return c.answer; end if;
  return tms._fence_json() || jsonb_build_object(
    'since', (select tms._utc(h.at) from tms.halts h where h.kind = 'halt' and h.resumed_at is null order by h.id limit 1),
    'resumed_ms_ago', tms._resumed_ms_ago(),
    'halts', (select coalesce(jsonb_agg(tms._halt_json(x.h, tms._clear(c, null)) order by (x.h).id desc), '[]') from (select h from tms.halts h order by h.id desc limit 10) x (h)));
end
$$;
grant execute on function tms.fence_state(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- guarded tables
-- Called by the table's owner: it runs with the caller's rights, because only an owner may make a trigger fire always. A
-- trigger on a table does not see writes straight to a partition or to a child that inherits from it, so each gets its own; call it
-- again after adding one (`tms guard check` finds those without). A trigger of these names that isn't the guard's is replaced.
create or replace function tms.guard_table(target regclass) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  t regclass;
  kind "char";
  guard record;
  guarded integer := 0;
begin
  if (select c.relkind not in ('r', 'p') or c.relnamespace = 'tms'::regnamespace or c.relnamespace = 'pg_catalog'::regnamespace from pg_class c where c.oid = target) then
    raise exception '% is not a table of yours', target using errcode = 'TM400';
  end if;
  for t, kind in with recursive tree as (
                   select target::oid as oid union select i.inhrelid from tree p join pg_inherits i on i.inhparent = p.oid)
                 select c.oid, c.relkind from tree join pg_class c using (oid) loop
    if kind = 'f' then raise exception '% is a foreign table: its writes happen elsewhere and cannot be guarded', t using errcode = 'TM400'; end if;
    -- TRUNCATE has its own event
    for guard in select * from (values ('tms_fence', 'insert or update or delete', 30), ('tms_fence_truncate', 'truncate', 34)) v (name, events, type) loop
      if not exists (select from pg_trigger g where g.tgrelid = t and g.tgname = guard.name and g.tgfoid = 'tms.fence_guard()'::regprocedure
                       and g.tgtype = guard.type and g.tgqual is null and g.tgattr::text = '') then
        execute format('drop trigger if exists %I on %s', guard.name, t);
        execute format('create trigger %I before %s on %s for each statement execute function tms.fence_guard()', guard.name, guard.events, t);
      end if;
      execute format('alter table %s enable always trigger %I', t, guard.name);
    end loop;
    guarded := guarded + 1;
  end loop;
  return guarded;
end
$$;
-- Harmless to whoever doesn't own a table; a trigger function can't be called by hand.
grant execute on function tms.guard_table(regclass), tms.fence_guard() to public;

create or replace function tms._checked_at_commit() returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select count(*) = 2 from pg_trigger g
   where g.tgrelid in ('tms.fence_writes'::regclass, 'tms.safe_writes'::regclass) and g.tgfoid = 'tms.fence_commit()'::regprocedure
     and g.tgenabled = 'A' and g.tgtype = 5 and g.tgdeferrable and g.tginitdeferred and g.tgqual is null
$$;

create or replace function tms._guards() returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  -- without it the guard only says no while it is halted, and what was written before commits
  commit_checked boolean := tms._checked_at_commit();
begin
  return (
    with recursive guards as (
      select g.tgrelid as oid, bool_and(g.tgenabled = 'A') as always,
             bool_or(g.tgname = 'tms_fence' and g.tgtype = 30 and w.whole) as writes, bool_or(g.tgname = 'tms_fence_truncate' and g.tgtype = 34 and w.whole) as truncates
        from pg_trigger g cross join lateral (select g.tgfoid = 'tms.fence_guard()'::regprocedure and g.tgqual is null and g.tgattr::text = '' as whole) w
       where (g.tgfoid = 'tms.fence_guard()'::regprocedure or g.tgname in ('tms_fence', 'tms_fence_truncate')) and not g.tgisinternal group by 1
    ), tree as (
      select r.root::oid, r.root::oid as oid from (select distinct coalesce(pg_partition_root(g.oid), g.oid::regclass) as root from guards g) r
      union select t.root, i.inhrelid from tree t join pg_inherits i on i.inhparent = t.oid
    ), everything as (
      -- once, below the topmost: a child with a guard of its own is a root as well
      select distinct on (t.oid) t.oid, t.root::regclass as root from tree t
       order by t.oid, exists (select from tree u where u.oid = t.root and u.root <> t.root), t.root
    )
    select coalesce(jsonb_agg(jsonb_build_object(
        'table', format('%s.%s', n.nspname, t.relname), 'root', e.root::text,
        'state', case
          -- what replication applies fires no trigger of a statement
          when exists (select from pg_subscription_rel s join pg_subscription u on u.oid = s.srsubid
                        where u.subenabled and (s.srrelid = e.oid or s.srrelid in (select pg_partition_ancestors(e.oid)))) then 'replicated'
          when g.oid is null then 'unguarded' when not g.always then 'not always' when not (coalesce(g.writes, false) and coalesce(g.truncates, false)) then 'incomplete' when not commit_checked then 'unchecked' else 'guarded' end)
        order by e.root::text collate "C", t.relname collate "C"), '[]')
      from everything e join pg_class t on t.oid = e.oid join pg_namespace n on n.oid = t.relnamespace left join guards g on g.oid = e.oid);
end
$$;

-- Every guarded table, each of its partitions and what inherits from it: does the guard stand everywhere, and does it fire always.
create or replace function tms.guard_check(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('guard_check', args, '{}', 'agents.read');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('tables', tms._guards());
end
$$;
grant execute on function tms.guard_check(jsonb) to tms_caller;

-- The identity functions stand before this file; the guard needs them as tms_owner.
set local role tms_identity;
grant execute on function tms._human() to tms_owner;
set local role tms_owner;
