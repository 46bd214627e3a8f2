-- Incidents: the levers, the life cycle, what is known of each.
--
-- Guarantees: symptoms of one key make one open incident, however many come at once; a transition that the life cycle does not
-- have is refused; what happened stays in the order in which it happened; a press of the button joins the one that is open;
-- an emergency stop is over when the fence is lifted and not before; undoing a lever restores what it changed and nothing that
-- somebody changed since.

set local role tms_owner;

-- Until then somebody or something has acted on it.
create or replace function tms._response_time(priority text) returns interval
language sql immutable as $$
  select case priority when 'P1' then interval '30 seconds' when 'P2' then interval '1 minute' when 'P3' then interval '5 minutes' else interval '10 minutes' end
$$;

create or replace function tms._incident_event(incident bigint, company uuid, who text, kind text, words text, body jsonb default '{}') returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  insert into tms.incident_events (incident_id, company_id, at, who, kind, text, body)
    values (incident, company, tms.now(), who, kind, left(words, 2000), coalesce(body, '{}'))
$$;

-- In the tenant of `tms incident test`: nobody's, and nobody was late or in time.
create or replace function tms._for_practice(company uuid) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return company is not null and tms._tenant_key(company) is not distinct from 'tms-incident-test';
end
$$;

-- Tells whoever listens. The halt's lane: an incident is news while the fleet is halted, then most of all.
create or replace function tms._incident_announce(topic text, i tms.incidents, key text, more jsonb default '{}') returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  -- two databases may page the same people: their first incidents are not one alert
  alert text := format('tms-%s-incident-%s', left((select e.database_id::text from tms.environment e), 8), i.id);
  payload jsonb := jsonb_build_object(
    'incident', i.id::text, 'priority', i.priority, 'status', i.status, 'type', i.type, 'title', i.title,
    'tenant', tms._tenant_key(i.company_id), 'dedup_key', alert,
    'severity', case i.priority when 'P1' then 'critical' when 'P2' then 'error' when 'P3' then 'warning' else 'info' end,
    'opened_at', tms._utc(i.opened_at), 'link', 'tms incident show ' || i.id, 'epoch', tms._fence_json() -> 'epoch') || more
    -- a rehearsal arrives everywhere and wakes nobody
    || case when tms._for_practice(i.company_id) then '{"event_action": "change"}'::jsonb else '{}' end;
  once text := 'incident ' || i.id || ' ' || key;
begin
  if i.company_id is null then
    perform tms._announce(topic, payload, once, 'halt');
  else
    -- a tenant's is the tenant's event: its people may open one, and its own targets hear of it
    perform tms._publish(array[i.company_id], array[topic], array[payload], array[alert], array[once], array[null::bigint], array[null::integer], array[null::text], 'halt');
  end if;
end
$$;

-- Opens an incident, or joins the one of this key that is open; answers its number. A graver symptom raises it. Joining writes
-- no event: a symptom that comes each second would bury the others. What somebody said is kept by _incident_said.
create or replace function tms._incident_join(priority text, type text, dedupe_key text, company_id uuid, title text, detail jsonb, by text, out id bigint, out opened boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
  was text;
begin
  for attempt in 1 .. 3 loop
    insert into tms.incidents (priority, type, dedupe_key, company_id, title, detail, opened_at, opened_by, last_seen_at, response_due)
      values (_incident_join.priority, left(_incident_join.type, 80), left(_incident_join.dedupe_key, 200), _incident_join.company_id, left(_incident_join.title, 300),
              coalesce(_incident_join.detail, '{}'), tms.now(), by, tms.now(), tms.now() + tms._response_time(_incident_join.priority))
      on conflict do nothing returning * into i;
    if i.id is not null then
      -- whole, where the title is cut
      perform tms._incident_event(i.id, i.company_id, by, 'opened', _incident_join.title, i.detail);
      perform tms._incident_announce('incident.opened', i, 'opened');
      id := i.id;
      opened := true;
      return;
    end if;
    select * into i from tms.incidents x where x.dedupe_key = left(_incident_join.dedupe_key, 200) and x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') for update;
    -- none: it was resolved between the two
    exit when i.id is not null;
  end loop;
  if i.id is null then raise exception 'the incident "%" is opened and ended by others at the same time', left(dedupe_key, 60) using errcode = '40001'; end if;
  was := i.priority;
  update tms.incidents x set occurrences = x.occurrences + 1, last_seen_at = tms.now(), priority = least(x.priority, _incident_join.priority),
         -- a graver one has less time
         response_due = case when _incident_join.priority < x.priority then least(case when x.late_at is null then x.response_due end, tms.now() + tms._response_time(_incident_join.priority)) else x.response_due end,
         -- what was late is that again when the graver one's time is over too: who is called for that one alone was not called yet
         late_at = case when _incident_join.priority < x.priority then null else x.late_at end
   where x.id = i.id returning * into i;
  if i.priority < was then
    perform tms._incident_event(i.id, i.company_id, by, 'raised', format('from %s to %s: %s', was, i.priority, title));
    -- in the words that raised it: those are what people are called for
    perform tms._incident_announce('incident.opened', i, 'raised ' || i.priority, jsonb_build_object('raised_from', was, 'title', left(title, 300)));
  end if;
  id := i.id;
  opened := false;
end
$$;

-- What a person or an alarm said that joined: each text once, so many of them, then that there were more. The incident's count
-- has all of them. Its row is locked by the join, so two that come at once are one after the other here.
create or replace function tms._incident_said(incident bigint, by text, words text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  most constant integer := 50;
  said text := left(btrim(words), 2000);
  i tms.incidents;
  kept bigint;
  known boolean;
begin
  select * into i from tms.incidents x where x.id = incident;
  select count(*) filter (where e.kind = 'joined'),
         -- 'from P3 to P2: ' stands before the words of one that raised it
         coalesce(bool_or(case when e.kind = 'raised' then substr(e.text, 16) else e.text end = said), false)
    into kept, known from tms.incident_events e where e.incident_id = i.id and e.kind in ('opened', 'raised', 'joined');
  if said = '' or known or kept > most then return; end if;
  perform tms._incident_event(i.id, i.company_id, by, 'joined', case when kept = most then 'more joined with other words; from here on they are counted only' else said end);
end
$$;

-- The same, with the forensic snapshot of the moment.
create or replace function tms._incident_open(priority text, type text, dedupe_key text, company_id uuid, title text, detail jsonb, by text) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  joined record;
begin
  select * into joined from tms._incident_join(priority, type, dedupe_key, company_id, title, detail, by);
  if joined.opened then perform tms._incident_snapshot(joined.id); end if;
  return joined.id;
end
$$;

-- The violation is gone. An emergency stop isn't cleared: it is lifted.
create or replace function tms._incident_clear(dedupe_key text, why text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
begin
  update tms.incidents x set status = 'RESOLVED', resolution = 'auto_healed', resolved_at = tms.now(), resolved_by = 'tms',
         acted_at = coalesce(x.acted_at, tms.now())
   where x.dedupe_key = _incident_clear.dedupe_key and x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') and x.type <> 'emergency_stop'
   returning * into i;
  if i.id is null then return false; end if;
  perform tms._incident_event(i.id, i.company_id, 'tms', 'resolved', why, jsonb_build_object('resolution', 'auto_healed'));
  perform tms._incident_announce('incident.resolved', i, 'resolved', jsonb_build_object('why', left(why, 300), 'resolution', 'auto_healed'));
  return true;
end
$$;

-- Something tried to heal it. The third time that didn't help it is somebody's (tms.incident_cycle). `acts`: false for what only looked
-- again: that answers nobody's call, and calls nobody who has it in hand.
drop function if exists tms._incident_attempt(text, text);
create or replace function tms._incident_attempt(dedupe_key text, what text, acts boolean default true) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
begin
  update tms.incidents x set attempts = x.attempts + 1, acted_at = case when acts then coalesce(x.acted_at, tms.now()) else x.acted_at end, status = case when x.status = 'OPEN' then 'AUTO_HEALING' else x.status end
   where x.dedupe_key = _incident_attempt.dedupe_key and x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') and x.type <> 'emergency_stop' and (acts or x.acked_at is null) returning * into i;
  if i.id is null then return false; end if;
  perform tms._incident_event(i.id, i.company_id, 'tms', 'attempt', what, jsonb_build_object('attempt', i.attempts));
  return true;
end
$$;

-- ---------------------------------------------------------------------------------------------- the life cycle
-- Whoever writes the table, and whatever they believe: a life has one direction.
create or replace function tms._incident_step() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if old.status <> new.status and not (old.status || ' ' || new.status = any ('{OPEN AUTO_HEALING,OPEN ESCALATED,OPEN RESOLVED,AUTO_HEALING ESCALATED,AUTO_HEALING RESOLVED,ESCALATED RESOLVED,RESOLVED CLOSED}'::text[])) then
    raise exception 'an incident does not go from % to %', old.status, new.status using errcode = 'TM409';
  end if;
  if old.opened_at <> new.opened_at or old.opened_by <> new.opened_by or old.type <> new.type or old.dedupe_key <> new.dedupe_key
     or old.company_id is distinct from new.company_id then
    raise exception 'what an incident is about does not change' using errcode = 'TM409';
  end if;
  return new;
end
$$;
do $$
begin
  if not exists (select from pg_trigger where tgrelid = 'tms.incidents'::regclass and tgname = 'life') then
    create trigger life before update on tms.incidents for each row execute function tms._incident_step();
    alter table tms.incidents enable always trigger life;
  end if;
end
$$;

-- What the moment looked like. Each part by itself: one that fails says so and keeps no other from being there. Keys, counts and
-- errors (redacted when they were stored), no payloads.
create or replace function tms._incident_snapshot(incident bigint) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
  body jsonb;
  part jsonb;
  which text;
begin
  select * into i from tms.incidents x where x.id = incident;
  if i.id is null or exists (select from tms.incident_snapshots s where s.incident_id = incident) then return false; end if;
  -- what whoever opens it may not see is missing, and that must show
  body := jsonb_build_object('taken_at', tms._utc(clock_timestamp()), 'whole', tms._sees_all());
  foreach which in array '{fence,flags,runs,numbers,queue,outbox,workers,locks,changes,incidents}'::text[] loop
    begin
      case which
        when 'fence' then part := tms._fence_json();
        when 'flags' then
          select coalesce(jsonb_agg(jsonb_build_object('key', f.key, 'level', f.level, 'tenant', tms._tenant_key(f.company_id),
                   'value', case when f.company_id is null then f.value end, 'stage', tms._stage(f), 'updated_at', tms._utc(f.updated_at)) order by f.key, f.id), '[]')
            into part from (select * from tms.feature_flags_v2 x where i.company_id is null or x.company_id is null or x.company_id = i.company_id order by x.updated_at desc limit 200) f;
        when 'runs' then
          select coalesce(jsonb_agg(jsonb_build_object('task', r.task_id::text, 'tenant', tms._tenant_key(r.company_id), 'agent', r.agent, 'function', r.fn_name, 'outcome', r.outcome,
                   'class', r.error_class, 'error', left(r.error, 300), 'ms', r.ms, 'trace_id', r.trace_id, 'finished_at', tms._utc(r.finished_at)) order by r.finished_at desc), '[]')
            into part from (select * from tms.agent_runs x where x.finished_at > clock_timestamp() - interval '1 hour' and (i.company_id is null or x.company_id = i.company_id)
                             order by x.task_id desc, x.claim desc limit 30) r;
        when 'numbers' then
          select coalesce(jsonb_object_agg(m.outcome, m.n), '{}') into part from (
            select r.outcome, count(*) as n from (select x.outcome from tms.agent_runs x where x.finished_at > clock_timestamp() - interval '15 minutes'
              and (i.company_id is null or x.company_id = i.company_id) limit 20000) r group by 1) m;
        when 'queue' then
          select jsonb_build_object('running', (select count(*) from tms.agent_tasks t where t.status = 'running' and (i.company_id is null or t.company_id = i.company_id)),
                   'waiting', (select coalesce(jsonb_object_agg(p.agent, tms._waiting(p.agent, case when i.company_id is not null then array[i.company_id] end)), '{}') from tms.agent_policies p),
                   'dead_letters', (select count(*) from (select from tms.dead_letter_queue d where d.status = 'open' and (i.company_id is null or d.company_id = i.company_id) limit 10000) x))
            into part;
        when 'outbox' then
          select coalesce(jsonb_object_agg(x.status, x.n), '{}') into part from (
            select d.status, count(*) as n from (select y.status from tms.outbox_deliveries y where y.status in ('pending', 'sending') limit 10000) d group by 1) x;
        when 'workers' then
          select coalesce(jsonb_agg(jsonb_build_object('worker', w.name, 'host', w.host, 'slots', w.slots, 'lease_until', tms._utc(w.lease_until)) order by w.id), '[]')
            into part from (select * from tms.workers x where x.stopped_at is null and x.lease_until > clock_timestamp() order by x.id limit 200) w;
        when 'locks' then
          select coalesce(jsonb_agg(jsonb_build_object('pid', l.pid, 'mode', l.mode, 'on', l.relation::regclass::text, 'waits_for', to_jsonb(pg_blocking_pids(l.pid)))), '[]')
            into part from (select * from pg_locks x where not x.granted limit 50) l;
        when 'changes' then
          select coalesce(jsonb_agg(jsonb_build_object('at', tms._utc(r.at), 'who', r.who, 'action', r.action, 'subject', left(r.subject, 120)) order by r.id desc), '[]')
            into part from (select * from tms.ledger_inbox x where x.at > clock_timestamp() - interval '1 day' and x.outcome = 'done'
                              and (i.company_id is null or x.company_id is null or x.company_id = i.company_id) order by x.id desc limit 50) r;
        when 'incidents' then
          select coalesce(jsonb_agg(jsonb_build_object('incident', x.id::text, 'priority', x.priority, 'status', x.status, 'type', x.type) order by x.id), '[]')
            into part from (select * from tms.incidents y where y.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') and y.id <> i.id
                              and (i.company_id is null or y.company_id = i.company_id) order by y.id desc limit 50) x;
      end case;
    exception when others then part := jsonb_build_object('missing', left(sqlerrm, 200));
    end;
    body := body || jsonb_build_object(which, part);
  end loop;
  insert into tms.incident_snapshots (incident_id, company_id, at, body) values (i.id, i.company_id, clock_timestamp(), body) on conflict do nothing;
  return found;
end
$$;

-- Whose resume is under way: the slots aren't all back yet. Null: nobody's.
create or replace function tms._resuming() returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select r.incident_id from tms.resumption r where r.percent < 100
$$;

create or replace function tms._no_incident(c tms.call, id text) returns jsonb
language sql as $$
  select tms._refuse(c, 'NOT_FOUND', pg_catalog.format('there is no incident %s', pg_catalog.left(id, 20)), 'it never was, or it is another tenant''s', array['tms incident list'])
$$;

-- The incident of a call that changes something: of the tenant that is named, or of any where the role spans all.
create or replace function tms._incident_of(c tms.call, args jsonb) returns tms.incidents
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
begin
  if coalesce(args ->> 'id', '') !~ '^[0-9]{1,18}$' then raise exception '"id" is the number of an incident' using errcode = 'TM400'; end if;
  select * into i from tms.incidents x where x.id = (args ->> 'id')::bigint and (not args ? 'tenant' or x.company_id = c.company_id) for update;
  return i;
end
$$;

create or replace function tms._incident_json(c tms.call, i tms.incidents) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object('id', i.id::text, 'priority', i.priority, 'status', i.status, 'type', i.type, 'tenant', tms._tenant_key(i.company_id),
    'title', case when tms._clear(c, i.company_id) then i.title else 'redacted' end, 'opened_at', tms._utc(i.opened_at), 'opened_by', case when tms._clear(c, i.company_id) then i.opened_by else 'redacted' end,
    'occurrences', i.occurrences::text, 'last_seen_at', tms._utc(i.last_seen_at), 'attempts', i.attempts, 'response_due', tms._utc(i.response_due), 'acted_at', tms._utc(i.acted_at), 'late_at', tms._utc(i.late_at),
    'acked_at', tms._utc(i.acked_at), 'acked_by', case when i.acked_by is null or tms._clear(c, i.company_id) then i.acked_by else 'redacted' end, 'escalated_at', tms._utc(i.escalated_at),
    'resolved_at', tms._utc(i.resolved_at), 'resolved_by', case when i.resolved_by is null or tms._clear(c, i.company_id) then i.resolved_by else 'redacted' end, 'resolution', i.resolution,
    'closed_at', tms._utc(i.closed_at))
$$;

-- Somebody says that something is wrong: an incident of it, or one more voice in the one that is open. Answers the call.
create or replace function tms._incident_report(c tms.call, priority text, kind text, key text, company uuid, title text) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  joined record;
  i tms.incidents;
begin
  select * into joined from tms._incident_join(priority, kind, key, company, title, '{}', c.who);
  if joined.opened then
    perform tms._incident_snapshot(joined.id);
    perform tms._record(c, 'incident.open', 'done', 'incident ' || joined.id, title, jsonb_build_object('incident', joined.id::text, 'priority', priority, 'type', kind));
  else
    perform tms._incident_said(joined.id, c.who, title);
  end if;
  select * into i from tms.incidents x where x.id = joined.id;
  return tms._finish(c, jsonb_build_object('joined', not joined.opened, 'incident', tms._incident_json(c, i)));
end
$$;

create or replace function tms.incident_open(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_open', args, '{request_id,tenant,priority,type,title,key}', 'incident.open');
  kind text;
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(args ->> 'priority', '') not in ('P1', 'P2', 'P3', 'P4') then raise exception '"priority" is P1, P2, P3 or P4' using errcode = 'TM400'; end if;
  kind := coalesce(tms._text(args || jsonb_build_object('type', coalesce(args ->> 'type', 'reported')), 'type', 80), '');
  -- that one is the button's: whoever may only report must not be able to take its place
  if kind !~ '^[a-z][a-z0-9_.-]*$' or kind in ('emergency_stop', 'soft_degrade', 'rollback') then
    raise exception '"type" is a word in lower case, and none of a lever''s' using errcode = 'TM400', detail = 'a lever opens its own incident when it is pulled',
      hint = case kind when 'emergency_stop' then 'tms incident big-red-button' when 'soft_degrade' then 'tms incident soft-degrade' when 'rollback' then 'tms incident rollback'
                  else 'tms incident open <title> --type slow_rates' end;
  end if;
  if coalesce(btrim(args ->> 'title'), '') = '' then
    raise exception 'an incident needs a title' using errcode = 'TM400', detail = 'it says in a sentence what is wrong', hint = 'tms incident open "rates do not load" --priority P2';
  end if;
  -- keys of people are their tenant's: one tenant's words never join another's
  return tms._incident_report(c, args ->> 'priority', kind,
    format('said:%s:%s', coalesce(c.company_id::text, 'fleet'), case when args ? 'key' then 'key ' || tms._text(args, 'key', 100) else 'once ' || c.request_id end),
    c.company_id, tms._text(args, 'title', 2000));
end
$$;
grant execute on function tms.incident_open(jsonb) to tms_caller;

create or replace function tms.incident_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_list', args, '{tenant,status,all,limit}', 'incident.read');
  visible uuid[] := tms._allowed('incident.read');
begin
  if c.answer is not null then return c.answer; end if;
  -- the gravest first, before the list is cut: sixty small ones of a tenant must not push an emergency stop out of sight
  return jsonb_build_object('fence', tms._fence_json(), 'slots_percent', tms._slots_percent(), 'resuming', tms._resuming()::text) || (
    select jsonb_build_object('incidents', coalesce(jsonb_agg(tms._incident_json(c, x.i) order by x.place) filter (where x.place <= tms._limit(args)), '[]'),
                              'more', greatest(count(*) - tms._limit(args), 0))
      from (select i, row_number() over (order by i.status in ('RESOLVED', 'CLOSED'), i.priority, i.id desc) from tms.incidents i
             where (case when args ? 'tenant' then i.company_id = c.company_id else visible is null or i.company_id is null or i.company_id = any (visible) end)
               and (not args ? 'status' or i.status = args ->> 'status')
               and (args ? 'status' or coalesce((args ->> 'all')::boolean, false) or i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED'))) x (i, place));
end
$$;
grant execute on function tms.incident_list(jsonb) to tms_caller;

create or replace function tms.incident_show(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_show', args, '{id,limit}', 'incident.read');
  visible uuid[] := tms._allowed('incident.read');
  i tms.incidents;
  clear boolean;
begin
  if c.answer is not null then return c.answer; end if;
  select * into i from tms.incidents x where x.id = (args ->> 'id')::bigint and (visible is null or x.company_id is null or x.company_id = any (visible));
  if i.id is null then return tms._no_incident(c, args ->> 'id'); end if;
  clear := tms._clear(c, i.company_id);
  return jsonb_build_object('incident', tms._incident_json(c, i), 'fence', tms._fence_json(), 'slots_percent', tms._slots_percent(), 'resuming', tms._resuming()::text,
    'detail', case when clear then i.detail end,
    'events', (select coalesce(jsonb_agg(jsonb_build_object('id', e.id::text, 'at', tms._utc(e.at), 'kind', e.kind, 'who', case when clear then e.who else 'redacted' end,
                 'text', case when clear then e.text else 'redacted' end) order by e.id), '[]')
                 from (select * from tms.incident_events x where x.incident_id = i.id order by x.id desc limit coalesce((args ->> 'limit')::integer, 200)) e),
    -- spans tenants where the incident does
    'snapshot', (select s.body from tms.incident_snapshots s where s.incident_id = i.id and clear and (i.company_id is not null or visible is null)),
    'halts', (select coalesce(jsonb_agg(tms._halt_json(h, clear) order by h.id), '[]') from tms.incident_halts x join tms.halts h on h.id = x.halt_id where x.incident_id = i.id),
    'certificates', (select coalesce(jsonb_agg(jsonb_build_object('halt', k.halt_id::text, 'sha256', k.sha256, 'at', tms._utc(k.at),
                       'signed_by', (select coalesce(jsonb_agg(s.fingerprint order by s.at), '[]') from (select y.fingerprint, min(y.at) as at from tms.halt_signatures y where y.halt_id = k.halt_id group by 1) s)) order by k.halt_id), '[]')
                       from tms.halt_certificates k where k.incident_id = i.id),
    'levers', (select coalesce(jsonb_agg(tms._lever_json(c, l) order by l.id), '[]') from tms.incident_levers l where l.incident_id = i.id));
end
$$;
grant execute on function tms.incident_show(jsonb) to tms_caller;

-- Resolving it would be refused: what was stopped or lowered comes back first.
create or replace function tms._still_pulled(i tms.incidents) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return i.type = 'emergency_stop' and tms._halted()
    or exists (select from tms.resumption r where r.incident_id = i.id and r.percent < 100)
    or exists (select from tms.incident_levers l where l.incident_id = i.id and l.kind = 'soft_degrade' and l.undone_at is null);
end
$$;

-- ack: somebody has it. note: words. resolve: it is over. close: nothing is left to do about it.
create or replace function tms.incident_work(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_work', args, '{request_id,tenant,id,action,text}', 'incident.work');
  i tms.incidents;
  act text := args ->> 'action';
  words text := coalesce(left(btrim(args ->> 'text'), 2000), '');
  open boolean;
  changed boolean := true;
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(act, '') not in ('ack', 'note', 'resolve', 'close') then raise exception '"action" is ack, note, resolve or close' using errcode = 'TM400'; end if;
  i := tms._incident_of(c, args);
  if i.id is null then return tms._no_incident(c, args ->> 'id'); end if;
  open := i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED');
  if act in ('note', 'resolve') and words = '' then
    raise exception 'there are no words' using errcode = 'TM400', detail = 'what is not said is nothing for a timeline',
      hint = format(case act when 'note' then 'tms incident note %s <words>' else 'tms incident resolve %s --why <reason>' end, i.id);
  end if;
  if (act in ('ack', 'resolve') and not open) or (act = 'close' and i.status <> 'RESOLVED') then
    return tms._refuse(c, 'CONFLICT', format('incident %s cannot be %s', i.id, case act when 'ack' then 'acknowledged' when 'resolve' then 'resolved' else 'closed' end),
      case when act = 'close' and open then 'it is still open: it is resolved first' else format('it is %s', i.status) end,
      case when act = 'close' and open then array[format(case when tms._still_pulled(i) then 'tms incident resume %s' else 'tms incident resolve %s --why <reason>' end, i.id)] else array[format('tms incident show %s', i.id)] end);
  end if;
  if act = 'resolve' and i.type = 'emergency_stop' and tms._halted() then
    return tms._refuse(c, 'CONFLICT', 'the fleet is still halted', 'an emergency stop is over when the fence is lifted', array[format('tms incident resume %s', i.id)]);
  end if;
  if act = 'resolve' and tms._resuming() = i.id then
    return tms._refuse(c, 'CONFLICT', format('the fleet works with %s %% of its slots', tms._slots_percent()), 'its resume is not through yet', array[format('tms incident resume %s', i.id)]);
  end if;
  if act = 'resolve' and exists (select from tms.incident_levers l where l.incident_id = i.id and l.kind = 'soft_degrade' and l.undone_at is null) then
    return tms._refuse(c, 'CONFLICT', 'its lever is still pulled', 'the fleet works with lowered limits', array[format('tms incident resume %s', i.id)]);
  end if;
  case act
    when 'ack' then
      changed := i.acked_at is null;
      if changed then
        update tms.incidents x set acked_at = tms.now(), acked_by = c.who, acted_at = coalesce(x.acted_at, tms.now()) where x.id = i.id returning * into i;
        perform tms._incident_announce('incident.acked', i, 'acked', jsonb_build_object('by', c.who));
      end if;
    when 'resolve' then
      update tms.incidents x set status = 'RESOLVED', resolution = 'resolved', resolved_at = tms.now(), resolved_by = c.who, acted_at = coalesce(x.acted_at, tms.now()) where x.id = i.id returning * into i;
      perform tms._incident_announce('incident.resolved', i, 'resolved', jsonb_build_object('resolution', 'resolved'));
    when 'close' then
      update tms.incidents x set status = 'CLOSED', closed_at = tms.now(), closed_by = c.who where x.id = i.id returning * into i;
      perform tms._incident_announce('incident.closed', i, 'closed');
    else null;
  end case;
  if changed then
    perform tms._incident_event(i.id, i.company_id, c.who, case act when 'ack' then 'acked' when 'note' then 'note' when 'resolve' then 'resolved' else 'closed' end, words);
    perform tms._record(c, 'incident.' || act, 'done', 'incident ' || i.id, case when act = 'note' then '' else words end, jsonb_build_object('incident', i.id::text, 'status', i.status, 'text_sha256', tms._sha256(words)));
  end if;
  return tms._finish(c, jsonb_build_object('changed', changed, 'incident', tms._incident_json(c, i)));
end
$$;
grant execute on function tms.incident_work(jsonb) to tms_caller;

-- Workers that acknowledged a halt after its certificate was made: told in the timeline, the certificate stays what it is.
create or replace function tms._late_acknowledgements() returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  late record;
  n integer := 0;
begin
  for late in
    select k.incident_id, k.halt_id, w.id, w.name, w.host, tms._acknowledged(w, h) as acknowledged_at, i.company_id
      from tms.halt_certificates k join tms.halts h on h.id = k.halt_id join tms.incidents i on i.id = k.incident_id and i.status <> 'CLOSED'
      join tms.workers w on w.acknowledged_epoch = h.epoch and tms._acknowledged(w, h) is not null and w.id <> all (k.workers)
     where not exists (select from tms.incident_events e where e.incident_id = k.incident_id and e.kind = 'acknowledged_late'
                          and e.body ->> 'halt' = k.halt_id::text and e.body ->> 'worker' = w.id::text)
  loop
    perform tms._incident_event(late.incident_id, late.company_id, late.name, 'acknowledged_late', format('worker %s on %s acknowledged at %s', late.name, late.host, tms._utc(late.acknowledged_at)),
      jsonb_build_object('halt', late.halt_id::text, 'worker', late.id::text));
    n := n + 1;
  end loop;
  return n;
end
$$;

-- Nobody and nothing acted on it in time: said once for each priority.
create or replace function tms._incident_late(i tms.incidents) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  why text := format('nobody and nothing acted on it by %s', tms._utc(i.response_due));
begin
  if i.acted_at is not null or i.late_at is not null or i.response_due > tms.now() then return false; end if;
  update tms.incidents x set late_at = tms.now() where x.id = i.id;
  perform tms._incident_event(i.id, i.company_id, 'tms', 'late', why);
  perform tms._incident_announce('incident.late', i, 'late ' || i.priority, jsonb_build_object('why', why));
  return true;
end
$$;

-- It becomes a person's affair when healing it didn't help, or when it is old and nobody has it. Null: it doesn't.
create or replace function tms._incident_overdue(c tms.call, i tms.incidents) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  why text;
begin
  why := case when i.status = 'ESCALATED' then null
              when i.attempts >= 3 then format('%s attempts to heal it did not help', i.attempts)
              -- whoever acknowledged it has been reached already: docs/adr/0017
              when i.acked_at is null and i.opened_at <= tms.now() - interval '15 minutes' then 'it is 15 minutes old and nobody has acknowledged it' end;
  if why is null then return null; end if;
  update tms.incidents x set status = 'ESCALATED', escalated_at = tms.now() where x.id = i.id returning * into i;
  perform tms._incident_event(i.id, i.company_id, 'tms', 'escalated', why);
  perform tms._incident_announce('incident.escalated', i, 'escalated', jsonb_build_object('why', why));
  perform tms._record(c, 'incident.escalate', 'done', 'incident ' || i.id, why, jsonb_build_object('incident', i.id::text));
  return why;
end
$$;

-- One turn of the wheel, for the scheduler. Safe at any rate: what it says once it doesn't say again.
create or replace function tms.incident_cycle(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_cycle', args, '{request_id}', 'cadence.run');
  i tms.incidents;
  late jsonb := '[]';
  escalated jsonb := '[]';
  closed jsonb := '[]';
begin
  if c.answer is not null then return c.answer; end if;
  for i in select * from tms.incidents x where x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') order by x.id for update skip locked loop
    if tms._incident_late(i) then late := late || to_jsonb(i.id::text); end if;
    if tms._incident_overdue(c, i) is not null then escalated := escalated || to_jsonb(i.id::text); end if;
  end loop;
  -- what healed by itself and stayed so for a day needs nobody
  for i in update tms.incidents x set status = 'CLOSED', closed_at = tms.now(), closed_by = 'tms'
            where x.id = any (array(select y.id from tms.incidents y where y.status = 'RESOLVED' and y.resolution = 'auto_healed' and y.resolved_at <= tms.now() - interval '1 day' order by y.id limit 100 for update skip locked))
           returning x.* loop
    perform tms._incident_event(i.id, i.company_id, 'tms', 'closed', 'it healed by itself and stayed so for a day');
    perform tms._incident_announce('incident.closed', i, 'closed');
    closed := closed || to_jsonb(i.id::text);
  end loop;
  perform tms._late_acknowledgements();
  return tms._finish(c, jsonb_build_object('late', late, 'escalated', escalated, 'closed', closed,
    'open', (select count(*) from tms.incidents x where x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED'))));
end
$$;
grant execute on function tms.incident_cycle(jsonb) to tms_caller;

-- What healing and the wheel do to an incident, done to one of a rehearsal and to no other; and who was told of it.
create or replace function tms.incident_rehearse(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_rehearse', args, '{request_id,id,step}', 'cadence.run');
  i tms.incidents;
begin
  if c.answer is not null then return c.answer; end if;
  i := tms._incident_of(c, args);
  if i.id is null then return tms._no_incident(c, args ->> 'id'); end if;
  if i.type <> 'rehearsal' or not tms._for_practice(i.company_id) then
    return tms._refuse(c, 'CONFLICT', format('incident %s is no rehearsal', i.id), 'only what tms incident test opened may be played with', array['tms incident test']);
  end if;
  case coalesce(args ->> 'step', '')
    when 'attempt' then perform tms._incident_attempt(i.dedupe_key, 'rehearsed: it did not help');
    when 'late' then
      update tms.incidents x set response_due = tms.now() where x.id = i.id returning * into i;
      perform tms._incident_late(i);
    when 'turn' then perform tms._incident_overdue(c, i);
    when 'heal' then perform tms._incident_clear(i.dedupe_key, 'rehearsed: it healed');
    when 'look' then null;
    else raise exception '"step" is late, attempt, turn, heal or look' using errcode = 'TM400';
  end case;
  select * into i from tms.incidents x where x.id = i.id;
  return tms._finish(c, jsonb_build_object('incident', tms._incident_json(c, i), 'told', (
    select coalesce(jsonb_agg(jsonb_build_object('topic', k.topic, 'targets', (select coalesce(jsonb_agg(d.target order by d.target collate "C"), '[]') from tms.outbox_deliveries d where d.event_id = k.event_id)) order by k.event_id), '[]')
      from tms.outbox_keys k where k.company_id = i.company_id and k.key like 'incident ' || i.id || ' %')));
end
$$;
grant execute on function tms.incident_rehearse(jsonb) to tms_caller;

-- Mean time until somebody or something acted (MTTA) and until it was over (MTTR), of incidents opened in the span. No samples: null.
create or replace function tms._incident_mtta(low timestamptz, high timestamptz, companies uuid[] default null) returns interval
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select avg(i.acted_at - i.opened_at) from tms.incidents i
   where i.opened_at >= low and i.opened_at < high and i.acted_at is not null and not tms._for_practice(i.company_id) and (companies is null or i.company_id = any (companies))
$$;
create or replace function tms._incident_mttr(low timestamptz, high timestamptz, companies uuid[] default null) returns interval
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select avg(i.resolved_at - i.opened_at) from tms.incidents i
   where i.opened_at >= low and i.opened_at < high and i.resolved_at is not null and not tms._for_practice(i.company_id) and (companies is null or i.company_id = any (companies))
$$;

create or replace function tms.incident_times(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_times', args, '{tenant,from,to}', 'incident.read');
  visible uuid[] := tms._allowed('incident.read');
  low timestamptz := coalesce((args ->> 'from')::timestamptz, tms.now() - interval '30 days');
  high timestamptz := coalesce((args ->> 'to')::timestamptz, tms.now() + interval '1 second');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return (select jsonb_build_object('from', tms._utc(low), 'to', tms._utc(high), 'opened', count(*)::text, 'acted', count(i.acted_at)::text, 'resolved', count(i.resolved_at)::text, 'late', count(i.late_at)::text,
      'mtta_seconds', round(extract(epoch from tms._incident_mtta(low, high, visible)), 3)::text, 'mttr_seconds', round(extract(epoch from tms._incident_mttr(low, high, visible)), 3)::text)
    from tms.incidents i where i.opened_at >= low and i.opened_at < high and not tms._for_practice(i.company_id) and (visible is null or i.company_id = any (visible)));
end
$$;
grant execute on function tms.incident_times(jsonb) to tms_caller;

-- What it cost: of the runs that ended, and of the time the fleet stood, between its opening and its end.
create or replace function tms.incident_impact(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_impact', args, '{id}', 'incident.read');
  visible uuid[] := tms._allowed('incident.read');
  i tms.incidents;
  low timestamptz;
  high timestamptz;
begin
  if c.answer is not null then return c.answer; end if;
  select * into i from tms.incidents x where x.id = (args ->> 'id')::bigint and (visible is null or x.company_id is null or x.company_id = any (visible));
  if i.id is null then return tms._no_incident(c, args ->> 'id'); end if;
  low := i.opened_at;
  high := coalesce(i.resolved_at, tms.now());
  if i.company_id is not null then visible := array[i.company_id]; end if;
  return (select jsonb_build_object('from', tms._utc(low), 'to', tms._utc(high),
      'completed', (count(*) filter (where r.outcome in ('completed', 'awaiting_approval')))::text, 'failed', (count(*) filter (where r.outcome = 'failed'))::text,
      'retried', (count(*) filter (where r.outcome in ('retried', 'lost')))::text, 'cost', coalesce(sum(r.cost), 0)::text,
      'wasted', coalesce(sum(r.cost) filter (where r.outcome in ('failed', 'retried', 'lost', 'returned')), 0)::text,
      'tenants', count(distinct r.company_id)::text,
      'dead_letters', (select count(*)::text from tms.dead_letter_queue d where d.created_at >= low and d.created_at < high and (visible is null or d.company_id = any (visible))),
      -- a halt that was pressed several times stood once
      'halted_seconds', (select round(coalesce(sum(extract(epoch from least(k.until, clock_timestamp()) - k.since)), 0), 1)::text
                           from (select min(h.at) as since, max(coalesce(h.resumed_at, clock_timestamp())) as until
                                   from tms.incident_halts x join tms.halts h on h.id = x.halt_id where x.incident_id = i.id group by h.epoch) k))
    from tms.agent_runs r where r.finished_at >= low and r.finished_at < high and (visible is null or r.company_id = any (visible)));
end
$$;
grant execute on function tms.incident_impact(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- the button
-- The alert of a halt that came after another one of its incident had been lifted. Its own: the incident's may be acknowledged, and
-- who is called by that is not called again.
create or replace function tms._halted_anew(incident bigint, epoch bigint) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select format('tms-%s-incident-%s-halt-%s', left((select e.database_id::text from tms.environment e), 8), incident, epoch)
$$;

-- After fence_halt: opens the P1 or joins it, ties the halt to it, tells everybody. Waits for nobody's lock longer than a blink.
create or replace function tms.incident_press(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_press', args, '{request_id,halt,why}', 'incident.emergency_stop');
  joined record;
  i tms.incidents;
  h tms.halts;
  first tms.halts;
  reason text;
  anew boolean;
begin
  if c.answer is not null then return c.answer; end if;
  perform set_config('lock_timeout', '500ms', true);
  reason := coalesce(left(btrim(args ->> 'why'), 1000), '');
  if not tms._halted() then
    return tms._refuse(c, 'CONFLICT', 'the fleet is not halted', 'the button halts first and opens the incident then', array['tms incident big-red-button']);
  end if;
  select * into h from tms._halt_of(c, (args ->> 'halt')::bigint) x where x.kind = 'halt' and x.resumed_at is null;
  if args ->> 'halt' is not null and h.id is null then return tms._refuse(c, 'NOT_FOUND', 'there is no such halt', 'its number is in the answer of the halt', array['tms incident list']); end if;
  select * into joined from tms._incident_join('P1', 'emergency_stop', 'emergency_stop', null, 'Emergency stop' || case when reason = '' then '' else ': ' || left(reason, 280) end,
    jsonb_build_object('epoch', tms._fence_json() -> 'epoch', 'halt', h.id::text), c.who);
  select * into i from tms.incidents x where x.id = joined.id;
  -- what stands still again after it had been lifted is news to whoever has acknowledged the first time
  anew := not joined.opened and h.id is not null
    and exists (select from tms.incident_halts y join tms.halts x on x.id = y.halt_id where y.incident_id = i.id)
    and not exists (select from tms.incident_halts y join tms.halts x on x.id = y.halt_id where y.incident_id = i.id and x.resumed_at is null);
  -- Those too whose press ended between its halt and here: untied they could never be lifted where it takes two, nor certified.
  insert into tms.incident_halts (halt_id, incident_id)
    select x.id, i.id from tms.halts x
     where x.kind = 'halt' and (x.id = h.id or (x.resumed_at is null and not exists (select from tms.incident_halts y where y.halt_id = x.id))) on conflict do nothing;
  if joined.opened then
    -- the press itself is somebody acting
    update tms.incidents x set acted_at = tms.now() where x.id = i.id returning * into i;
  else
    if anew then
      update tms.incidents x set acked_at = null, acked_by = null, response_due = tms.now() + tms._response_time(x.priority) where x.id = i.id returning * into i;
      perform tms._incident_announce('incident.opened', i, 'opened again ' || h.epoch, jsonb_build_object('dedup_key', tms._halted_anew(i.id, h.epoch)));
    end if;
    perform tms._incident_event(i.id, null, c.who, 'pressed_again', reason, jsonb_build_object('halt', h.id::text));
  end if;
  select x.* into first from tms.halts x where x.id = (select min(y.halt_id) from tms.incident_halts y join tms.halts z on z.id = y.halt_id where y.incident_id = i.id and z.resumed_at is null);
  perform tms._record(c, 'incident.press', 'done', 'incident ' || i.id, reason, jsonb_build_object('incident', i.id::text, 'halt', h.id::text, 'epoch', tms._fence_json() -> 'epoch', 'joined', not joined.opened));
  perform tms._incident_announce('fleet.halted', i, 'halted ' || (tms._fence_json() ->> 'epoch'), jsonb_build_object('by', c.who, 'why', left(reason, 300), 'fenced', h.fenced));
  return tms._finish(c, jsonb_build_object('incident', i.id::text, 'joined', not joined.opened, 'priority', i.priority, 'since', tms._utc(coalesce(first.at, i.opened_at)), 'by', coalesce(first.by_name, i.opened_by),
    'why', coalesce(first.why, ''), 'epoch', tms._fence_json() -> 'epoch', 'pressed_by', c.who, 'environment', (select e.name from tms.environment e), 'database_id', (select e.database_id::text from tms.environment e),
    'untold', tms._untold(), 'facts', case when h.id is not null then tms._halt_json(h, true) end));
end
$$;
grant execute on function tms.incident_press(jsonb) to tms_caller;

-- Apart from the press, so that looking around delays nothing.
create or replace function tms.incident_snapshot(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_snapshot', args, '{request_id,id}', 'incident.emergency_stop');
begin
  if c.answer is not null then return c.answer; end if;
  -- of the stop that stands: whoever may only press takes none of anything else
  return tms._finish(c, jsonb_build_object('taken', exists (select from tms.incidents i where i.id = (args ->> 'id')::bigint and i.type = 'emergency_stop' and i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED'))
    and tms._incident_snapshot((args ->> 'id')::bigint)));
end
$$;
grant execute on function tms.incident_snapshot(jsonb) to tms_caller;

-- The facts of a halt, as often as somebody waits for acknowledgements; fence_certificate records, this doesn't.
create or replace function tms.incident_halt(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_halt', args, '{halt}', 'incident.emergency_stop');
  h tms.halts;
begin
  if c.answer is not null then return c.answer; end if;
  h := tms._halt_of(c, (args ->> 'halt')::bigint);
  if h.id is null or h.kind <> 'halt' then return tms._refuse(c, 'NOT_FOUND', 'there is no such halt', 'its number is in the answer of the halt', array['tms incident list']); end if;
  return tms._halt_json(h, true);
end
$$;
grant execute on function tms.incident_halt(jsonb) to tms_caller;

-- RFC 8785 of what holds strings, integers below 2^53 and ASCII keys: as src/proof/canonical.ts writes it.
create or replace function tms._canonical(value jsonb) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  return case jsonb_typeof(value)
    when 'object' then '{' || coalesce((select string_agg(to_json(m.key)::text || ':' || tms._canonical(m.value), ',' order by m.key collate "C") from jsonb_each(value) m), '') || '}'
    when 'array' then '[' || coalesce((select string_agg(tms._canonical(m.value), ',' order by m.ordinality) from jsonb_array_elements(value) with ordinality m), '') || ']'
    else value::text end;
end
$$;

-- What a certificate says that is not so, naming the field; null: it fits. All of it is the database's to know but `target`, the name that
-- the client has for it, and the moment at which it was read: who was silent then may have said since that it saw the halt, and nobody
-- the other way round; who was heard of again has a later time now. Whoever only presses is not trusted with a word of it.
create or replace function tms._certificate_fits(h tms.halts, incident bigint, certificate text) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  moment constant text := '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$';
  facts jsonb := tms._halt_json(h, true);
  -- resumed before what the workers said was kept with it: today's workers tell nothing of it
  forgotten boolean := h.resumed_at is not null and h.heard is null;
  body jsonb;
  known jsonb;
  field text;
begin
  -- more than as many workers and a reason of brackets need: nested so deep it would break the embedded engine
  if length(certificate) - length(translate(certificate, '[{', '')) > 4000 then return 'it is nested too deep'; end if;
  begin
    body := certificate::jsonb;
  exception when others then return 'it is no JSON';
  end;
  if jsonb_typeof(body) <> 'object' then return 'it is no object'; end if;
  known := (select jsonb_object_agg(f.key, f.value) from jsonb_each(facts) f where f.key not in ('kind', 'resumed_at', 'resumed_by', 'acknowledged', 'silent'))
    || jsonb_build_object('type', 'tms-halt-certificate-v1', 'incident', incident::text)
    || (select jsonb_build_object('database', e.database_id::text, 'environment', e.name) from (select) one left join tms.environment e on true);
  select k into field from jsonb_object_keys(body) k where not known ? k and k not in ('target', 'workers', 'acknowledged', 'silent') order by k collate "C" limit 1;
  if found then return format('"%s" is no field of a certificate', left(field, 60)); end if;
  select k.key into field from jsonb_each(known || '{"target": "", "workers": 0, "acknowledged": [], "silent": []}') k where not body ? k.key order by k.key collate "C" limit 1;
  if found then return format('"%s" is missing', field); end if;
  select k.key into field from jsonb_each(known) k where k.value <> body -> k.key order by k.key collate "C" limit 1;
  if found then return format('"%s" is not what was recorded', field); end if;
  -- the folder of an embedded database is its name: as long as a path may be
  if jsonb_typeof(body -> 'target') <> 'string' or length(body ->> 'target') not between 1 and 4200 then return '"target" is a name of 1 to 4200 characters'; end if;

  foreach field in array '{acknowledged,silent}'::text[] loop
    if jsonb_typeof(body -> field) <> 'array' then return format('"%s" is a list', field); end if;
    if exists (select from jsonb_array_elements(body -> field) w
                where jsonb_typeof(w) <> 'object' or (select array_agg(k order by k collate "C") from jsonb_object_keys(w) k)
                        is distinct from case field when 'silent' then '{host,lease_until,worker}' else '{at,host,worker}' end::text[]
                   or exists (select from jsonb_each(w) m where jsonb_typeof(m.value) <> 'string')) then
      return format('a worker in "%s" has other fields', field);
    end if;
  end loop;
  if body -> 'workers' <> to_jsonb(case when forgotten then jsonb_array_length(body -> 'acknowledged') + jsonb_array_length(body -> 'silent')
                                        else jsonb_array_length(facts -> 'acknowledged') + jsonb_array_length(facts -> 'silent') end) then
    return '"workers" is not what was recorded';
  end if;
  -- as often as it is known, for two may have one name; one that says something of another moment is not that worker
  if not forgotten and (exists (select w ->> 'worker', w ->> 'host' from jsonb_array_elements(body -> 'acknowledged') w
              except all select w ->> 'worker', w ->> 'host' from jsonb_array_elements(facts -> 'acknowledged') w)
     or exists (select from jsonb_array_elements(body -> 'acknowledged') w
                 where w ->> 'at' !~ moment or (w ->> 'at') collate "C" < facts ->> 'at'
                    or not exists (select from jsonb_array_elements(facts -> 'acknowledged') y
                                    where y ->> 'worker' = w ->> 'worker' and y ->> 'host' = w ->> 'host' and (y ->> 'at') collate "C" >= w ->> 'at'))) then
    return '"acknowledged" is not what was recorded';
  end if;
  -- with those who acknowledged, the same workers as are known: nobody invented, nobody left out
  if not forgotten and (exists (select w ->> 'worker', w ->> 'host' from jsonb_array_elements((body -> 'acknowledged') || (body -> 'silent')) w
              except all select w ->> 'worker', w ->> 'host' from jsonb_array_elements((facts -> 'acknowledged') || (facts -> 'silent')) w)
     or jsonb_array_length(body -> 'acknowledged') + jsonb_array_length(body -> 'silent') <> (body ->> 'workers')::integer
     or exists (select from jsonb_array_elements(body -> 'silent') w
                 where w ->> 'lease_until' !~ moment or (w ->> 'lease_until') collate "C" <= facts ->> 'at'
                    or not exists (select from jsonb_array_elements((facts -> 'acknowledged') || (facts -> 'silent')) y
                                    where y ->> 'worker' = w ->> 'worker' and y ->> 'host' = w ->> 'host'
                                      and coalesce(y ->> 'lease_until', tms._utc((y ->> 'at')::timestamptz + tms._lease())) collate "C" >= w ->> 'lease_until'))) then
    return '"silent" is not what was recorded';
  end if;
  -- a key said twice, 1.0 for 1: what another reader may take for something else
  if tms._canonical(body || known || jsonb_build_object('workers', (body ->> 'workers')::integer)) <> certificate then return 'it is not the canonical JSON of what it says'; end if;
  return null;
end
$$;

-- Keeps a certificate, as the bytes that were signed. The first ones of a halt stay, so they must be true; later calls may add signatures
-- to them. Whether a signature is right nobody can say here, for Postgres has no Ed25519: its form, and that a key which is known here may
-- sign. Each caller has one place for each key, so that a wrong signature keeps nobody's right one out.
create or replace function tms.incident_certified(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_certified', args, '{request_id,halt,certificate,fingerprint,signature}', 'incident.emergency_stop');
  h tms.halts;
  k tms.halt_certificates;
  incident bigint;
  body jsonb;
  problem text;
  fresh boolean := false;
begin
  if c.answer is not null then return c.answer; end if;
  perform set_config('lock_timeout', '500ms', true);
  h := tms._halt_of(c, (args ->> 'halt')::bigint);
  select x.incident_id into incident from tms.incident_halts x where x.halt_id = h.id and h.kind = 'halt';
  if incident is null then return tms._refuse(c, 'NOT_FOUND', 'there is no such halt of an incident', 'the press ties them together', array['tms incident list']); end if;
  if (args ? 'fingerprint') <> (args ? 'signature') or coalesce(args ->> 'fingerprint', repeat('0', 64)) !~ '^[0-9a-f]{64}$'
     -- the bits that 64 bytes leave over are zero: base64 would spell one signature in several ways
     or coalesce(args ->> 'signature', repeat('A', 86) || '==') !~ '^[A-Za-z0-9+/]{85}[AQgw]==$' then
    raise exception 'a signature is 64 bytes in base64, and comes with the fingerprint of its key' using errcode = 'TM400';
  end if;
  -- a key that isn't known here may be right elsewhere; one that is known and may not sign isn't right anywhere
  if exists (select from tms.signing_keys y where y.fingerprint = args ->> 'fingerprint' and (y.state = 'revoked' or y.not_after <= clock_timestamp() or y.not_before > clock_timestamp())) then
    return tms._refuse(c, 'CONFLICT', format('key %s may not sign', left(args ->> 'fingerprint', 8)), 'it was revoked, or this is not its time', array['tms evidence keys list', format('tms incident certify %s', incident)]);
  end if;
  perform tms._text(args, 'certificate', 262144);
  select * into k from tms.halt_certificates x where x.halt_id = h.id;
  if k.halt_id is null then
    problem := tms._certificate_fits(h, incident, args ->> 'certificate');
    if problem is not null then
      return tms._refuse(c, 'CONFLICT', 'the certificate says something else than the database', problem, array[format('tms incident certify %s', incident)]);
    end if;
    body := (args ->> 'certificate')::jsonb;
    insert into tms.halt_certificates (halt_id, incident_id, by_name, body, sha256, workers)
      values (h.id, incident, c.who, args ->> 'certificate', tms._sha256(args ->> 'certificate'),
              array(select w.id from tms.workers w where w.acknowledged_epoch = h.epoch and tms._acknowledged(w, h) is not null
                     and w.name in (select a ->> 'worker' from jsonb_array_elements(body -> 'acknowledged') a)))
      on conflict do nothing;
    fresh := found;
    select * into k from tms.halt_certificates x where x.halt_id = h.id;
  end if;
  if k.body <> args ->> 'certificate' then
    return tms._refuse(c, 'CONFLICT', 'this halt has a certificate', 'it stays what it is; another signature goes under the same bytes', array[format('tms incident certify %s', incident)]);
  end if;
  if args ? 'signature' then
    insert into tms.halt_signatures (halt_id, fingerprint, signature, by_name)
      select h.id, args ->> 'fingerprint', args ->> 'signature', c.who
       where not exists (select from tms.halt_signatures s where s.halt_id = h.id and s.fingerprint = args ->> 'fingerprint' and s.signature = args ->> 'signature')
      on conflict do nothing;
    fresh := fresh or found;
  end if;
  -- certified again by the same key: nothing new to record
  if not fresh then return tms._finish(c, jsonb_build_object('incident', incident::text, 'halt', h.id::text, 'sha256', k.sha256)); end if;
  perform tms._record(c, 'incident.certificate', 'done', 'incident ' || incident, h.why, jsonb_build_object('incident', incident::text, 'halt', h.id::text, 'certificate', k.body::jsonb,
    'certificate_sha256', k.sha256, 'fingerprint', args ->> 'fingerprint', 'signature', args ->> 'signature'));
  perform tms._incident_event(incident, null, c.who, 'certificate', case when args ? 'signature' then format('certificate of halt %s, signed by key %s', h.id, left(args ->> 'fingerprint', 8))
    else format('certificate of halt %s, not signed', h.id) end, jsonb_build_object('sha256', k.sha256));
  return tms._finish(c, jsonb_build_object('incident', incident::text, 'halt', h.id::text, 'sha256', k.sha256));
end
$$;
grant execute on function tms.incident_certified(jsonb) to tms_caller;

-- What is there to certify: the presses of an incident, with what is kept of each.
create or replace function tms.incident_certificates(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_certificates', args, '{id}', 'incident.certify');
  i tms.incidents;
begin
  if c.answer is not null then return c.answer; end if;
  select * into i from tms.incidents x where x.id = (args ->> 'id')::bigint and x.company_id is null;
  if i.id is null then return tms._no_incident(c, args ->> 'id'); end if;
  return jsonb_build_object('incident', i.id::text, 'type', i.type, 'database_id', (select e.database_id::text from tms.environment e), 'environment', (select e.name from tms.environment e),
    'halts', (select coalesce(jsonb_agg(jsonb_build_object('facts', tms._halt_json(h, true), 'certificate', k.body, 'signed_by',
        (select coalesce(jsonb_agg(jsonb_build_object('fingerprint', s.fingerprint, 'signature', s.signature) order by s.at), '[]') from tms.halt_signatures s where s.halt_id = h.id)) order by h.id), '[]')
        from tms.incident_halts x join tms.halts h on h.id = x.halt_id left join tms.halt_certificates k on k.halt_id = h.id where x.incident_id = i.id));
end
$$;
grant execute on function tms.incident_certificates(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- flags under a lever
-- Puts a flag's row as a lever or its undoing wants it; null takes it away. The row that stands then.
create or replace function tms._flag_put(c tms.call, action text, flag text, lvl text, env text, company uuid, wanted tms.feature_flags_v2, reason text) returns tms.feature_flags_v2
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  was tms.feature_flags_v2;
  f tms.feature_flags_v2;
begin
  select * into was from tms.feature_flags_v2 x where x.key = flag and x.level = lvl and x.environment is not distinct from env and x.company_id is not distinct from company;
  if wanted.value is null then
    delete from tms.feature_flags_v2 x where x.id = was.id;
  else
    insert into tms.feature_flags_v2 as x
      (key, level, environment, company_id, value, rollout, canary, cohort_name, cohort_rollout, wait_seconds, stage_since, updated_at, updated_by, updated_by_name, why)
    values (flag, lvl, env, company, wanted.value, wanted.rollout, wanted.canary, wanted.cohort_name, wanted.cohort_rollout, wanted.wait_seconds, wanted.stage_since, clock_timestamp(), c.principal_id, c.who, reason)
    on conflict (key, level, coalesce(environment, ''), coalesce(company_id, '00000000-0000-0000-0000-000000000000'))
    do update set value = excluded.value, rollout = excluded.rollout, canary = excluded.canary, cohort_name = excluded.cohort_name, cohort_rollout = excluded.cohort_rollout,
      wait_seconds = excluded.wait_seconds, stage_since = excluded.stage_since, updated_at = excluded.updated_at, updated_by = excluded.updated_by, updated_by_name = excluded.updated_by_name, why = excluded.why
    returning * into f;
  end if;
  perform tms._flag_changed(c, action, flag, lvl, env, company, tms._flag_state(was), tms._flag_state(f), reason);
  return f;
end
$$;

-- One change of a lever, done: what stood before and what stands after, whole.
create or replace function tms._lever_change(c tms.call, action text, flag text, lvl text, env text, company uuid, wanted tms.feature_flags_v2, reason text) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  was tms.feature_flags_v2;
  f tms.feature_flags_v2;
begin
  perform tms._flag_turn(flag, company);
  select * into was from tms.feature_flags_v2 x where x.key = flag and x.level = lvl and x.environment is not distinct from env and x.company_id is not distinct from company;
  f := tms._flag_put(c, action, flag, lvl, env, company, wanted, reason);
  return jsonb_build_object('key', flag, 'level', lvl, 'environment', env, 'company_id', company, 'before', to_jsonb(was), 'after', to_jsonb(f));
end
$$;

create or replace function tms._lever_json(c tms.call, l tms.incident_levers) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object('id', l.id::text, 'kind', l.kind, 'tenant', tms._tenant_key(l.company_id), 'at', tms._utc(l.at), 'by', case when tms._clear(c, l.company_id) then l.by_name else 'redacted' end,
    'undone_at', tms._utc(l.undone_at), 'undone_by', case when l.undone_by is null or tms._clear(c, l.company_id) then l.undone_by else 'redacted' end,
    'changes', (select coalesce(pg_catalog.jsonb_agg(tms._change_json(c, x)), '[]') from pg_catalog.jsonb_array_elements(l.changes) x),
    'kept', coalesce(l.kept, '[]'))
$$;

create or replace function tms._change_json(c tms.call, x jsonb) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object('key', x ->> 'key', 'scope', tms._flag_scope(x ->> 'level', x ->> 'environment', (x ->> 'company_id')::uuid),
    'before', case when tms._clear(c, (x ->> 'company_id')::uuid) then x #> '{before,value}' end, 'after', case when tms._clear(c, (x ->> 'company_id')::uuid) then x #> '{after,value}' end,
    'before_stage', case when pg_catalog.jsonb_typeof(x #> '{before,value}') is not null and (x #>> '{before,rollout}')::integer < 10000 then tms._stage(pg_catalog.jsonb_populate_record(null::tms.feature_flags_v2, x -> 'before')) end)
$$;

create or replace function tms._safe_row(entry tms.flag_catalogue) returns tms.feature_flags_v2
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  f tms.feature_flags_v2;
begin
  f.value := entry.safe_value;
  f.rollout := 10000;
  f.canary := '{}';
  return f;
end
$$;

-- Fewer slots, no replays, and what is tried out goes to its safe value. For a tenant: what is that tenant's. Stopping, so it asks
-- nothing; pulled again it changes what changed since, and says so when that is nothing.
create or replace function tms.incident_soft_degrade(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_soft_degrade', args, '{request_id,tenant,why}', 'incident.soft_degrade');
  reason text;
  joined record;
  l tms.incident_levers;
  i tms.incidents;
  e tms.flag_catalogue;
  f tms.feature_flags_v2;
  changes jsonb := '[]';
  env text := (select x.name from tms.environment x);
  slots_before integer := tms._fleet_limit();
begin
  if c.answer is not null then return c.answer; end if;
  reason := coalesce(nullif(left(btrim(args ->> 'why'), 1000), ''), 'soft degrade');
  -- a lever that waits for somebody's lock without a word is no lever
  perform set_config('lock_timeout', '3s', true);
  select * into joined from tms._incident_join('P2', 'soft_degrade', 'soft_degrade:' || coalesce(c.company_id::text, 'fleet'), c.company_id, 'Soft degrade: ' || reason, '{}', c.who);
  if joined.opened then perform tms._incident_snapshot(joined.id); else perform tms._incident_said(joined.id, c.who, 'Soft degrade: ' || reason); end if;
  update tms.incidents x set acted_at = coalesce(x.acted_at, tms.now()) where x.id = joined.id returning * into i;
  if c.company_id is null then
    perform tms._flag_turn('budget.agents.maxConcurrent', null);
    select * into e from tms.flag_catalogue x where x.key = 'budget.agents.maxConcurrent';
    if e.key is not null and (tms._flag_value(e.key, null) #>> '{}')::integer > (e.safe_value #>> '{}')::integer then
      -- where the value that applies comes from: the environment's wins over the global one
      select * into f from tms._flag_row(e.key, null);
      changes := changes || tms._lever_change(c, 'flag.soft_degrade', e.key, coalesce(f.level, 'global'), f.environment, null, tms._safe_row(e), reason);
    end if;
    select * into e from tms.flag_catalogue x where x.key = 'ops.replayEnabled';
    -- The fleet's own rows, which then count for every tenant (tms._replays_paused_by): a tenant's row stays as it is, or whoever holds it
    -- in an open transaction would hold up the lever.
    for f in select * from tms.feature_flags_v2 x where x.key = e.key and x.company_id is null and x.value is distinct from e.safe_value and (x.environment is null or x.environment = env) order by x.id loop
      changes := changes || tms._lever_change(c, 'flag.soft_degrade', e.key, f.level, f.environment, null, tms._safe_row(e), reason);
    end loop;
    if e.key is not null and not changes @> '[{"key":"ops.replayEnabled"}]' and tms._replays_paused_by() is null then
      select * into f from tms._flag_row(e.key, null);
      changes := changes || tms._lever_change(c, 'flag.soft_degrade', e.key, coalesce(f.level, 'global'), f.environment, null, tms._safe_row(e), reason);
    end if;
    -- what is on for some and not yet for all is what is being tried
    for f in select x.* from tms.feature_flags_v2 x where x.rollout < 10000 and (x.rollout > 0 or x.canary <> '{}') and x.company_id is null
              and x.key not in ('budget.agents.maxConcurrent', 'ops.replayEnabled') order by x.id loop
      select * into e from tms.flag_catalogue x where x.key = f.key and not x.guarded;
      continue when e.key is null;
      changes := changes || tms._lever_change(c, 'flag.soft_degrade', f.key, f.level, f.environment, null, tms._safe_row(e), reason);
    end loop;
  else
    for e in select * from tms.flag_catalogue x where not x.guarded and (x.key = 'ops.replayEnabled'
               or exists (select from tms.feature_flags_v2 y where y.key = x.key and y.company_id is null and y.rollout < 10000 and (c.company_id = any (y.canary) or tms._bucket(y.key, c.company_id) < y.rollout)))
              order by x.key loop
      continue when tms._flag_value(e.key, c.company_id) is not distinct from e.safe_value;
      changes := changes || tms._lever_change(c, 'flag.soft_degrade', e.key, 'tenant', null, c.company_id, tms._safe_row(e), reason);
    end loop;
  end if;
  if changes <> '[]' then
    insert into tms.incident_levers (incident_id, company_id, kind, at, by_name, changes) values (i.id, c.company_id, 'soft_degrade', tms.now(), c.who, changes) returning * into l;
    perform tms._incident_event(i.id, i.company_id, c.who, 'lever', format('soft degrade: %s', (select string_agg(x ->> 'key', ', ') from jsonb_array_elements(changes) x)), jsonb_build_object('lever', l.id::text));
    perform tms._record(c, 'incident.soft_degrade', 'done', 'incident ' || i.id, reason, jsonb_build_object('incident', i.id::text, 'lever', l.id::text, 'keys', (select jsonb_agg(x -> 'key') from jsonb_array_elements(changes) x)));
    perform tms._signal('control');
  end if;
  return tms._finish(c, jsonb_build_object('incident', i.id::text, 'joined', not joined.opened, 'lever', l.id::text, 'slots_before', slots_before, 'slots_after', tms._fleet_limit(),
    'changes', (select coalesce(jsonb_agg(tms._change_json(c, x)), '[]') from jsonb_array_elements(changes) x), 'workers', tms._live_workers()));
end
$$;
grant execute on function tms.incident_soft_degrade(jsonb) to tms_caller;

create or replace function tms._live_workers() returns integer
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (select count(*)::integer from tms.workers w where w.stopped_at is null and w.lease_until > clock_timestamp());
end
$$;

-- Back to what stood before the lever; a flag that somebody changed since is left as it is, and named.
create or replace function tms._lever_undo(c tms.call, l tms.incident_levers, reason text) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  x jsonb;
  f tms.feature_flags_v2;
  left_alone jsonb := '[]';
begin
  for x in select v.value from jsonb_array_elements(l.changes) with ordinality v order by v.ordinality desc loop
    perform tms._flag_turn(x ->> 'key', (x ->> 'company_id')::uuid);
    select * into f from tms.feature_flags_v2 y where y.key = x ->> 'key' and y.level = x ->> 'level' and y.environment is not distinct from x ->> 'environment'
       and y.company_id is not distinct from (x ->> 'company_id')::uuid;
    if to_jsonb(f) is distinct from x -> 'after' then
      left_alone := left_alone || jsonb_build_object('key', x ->> 'key', 'scope', tms._flag_scope(x ->> 'level', x ->> 'environment', (x ->> 'company_id')::uuid), 'value', f.value,
        'why', coalesce(format('%s changed it at %s', f.updated_by_name, tms._utc(f.updated_at)), 'somebody took it away'));
    else
      perform tms._flag_put(c, 'flag.resume', x ->> 'key', x ->> 'level', x ->> 'environment', (x ->> 'company_id')::uuid, jsonb_populate_record(null::tms.feature_flags_v2, x -> 'before'), reason);
    end if;
  end loop;
  update tms.incident_levers y set undone_at = tms.now(), undone_by = c.who, kept = left_alone where y.id = l.id;
  perform tms._incident_event(l.incident_id, l.company_id, c.who, 'lever_undone', format('%s undone', replace(l.kind, '_', ' ')), jsonb_build_object('lever', l.id::text, 'kept', left_alone));
  return left_alone;
end
$$;

-- ---------------------------------------------------------------------------------------------- rollback
-- Every row of every flag as it stood at a moment, from the history.
create or replace function tms._flags_at(moment timestamptz) returns table (key text, level text, environment text, company_id uuid, state jsonb)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  with scopes as (
    select h.key, h.level, h.environment, h.company_id from tms.feature_flags_history h group by 1, 2, 3, 4
  )
  select s.key, s.level, s.environment, s.company_id, coalesce(
      (select h.after from tms.feature_flags_history h where h.key = s.key and h.level = s.level and h.environment is not distinct from s.environment and h.company_id is not distinct from s.company_id
          and h.at <= moment order by h.id desc limit 1),
      (select h.before from tms.feature_flags_history h where h.key = s.key and h.level = s.level and h.environment is not distinct from s.environment and h.company_id is not distinct from s.company_id
          and h.at > moment order by h.id limit 1))
    from scopes s
$$;

-- A row with that state. A staged rollout begins its wait anew: nobody watched it meanwhile.
create or replace function tms._row_of_state(state jsonb) returns tms.feature_flags_v2
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  f tms.feature_flags_v2;
begin
  if jsonb_typeof(state) is distinct from 'object' then return f; end if;
  f.value := state -> 'value';
  f.rollout := (state ->> 'percentage')::numeric * 100;
  f.canary := array(select x::uuid from jsonb_array_elements_text(state -> 'canary') x);
  if jsonb_typeof(state -> 'rollout') = 'object' then
    f.cohort_name := state #>> '{rollout,cohort}';
    f.cohort_rollout := (state #>> '{rollout,percentage}')::numeric * 100;
    f.wait_seconds := (state #>> '{rollout,wait_seconds}')::integer;
    f.stage_since := tms.now();
  end if;
  return f;
end
$$;

-- Did every required flag have its value then, for the environment and for every tenant.
create or replace function tms._flags_green_at(moment timestamptz) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  with at as materialized (
    select a.key, a.level, a.environment, a.company_id, a.state from tms._flags_at(moment) a where jsonb_typeof(a.state) = 'object'
  ), scope as (
    select null::uuid as id union all select t.id from tms._companies_by(null) t
  )
  select not exists (
    select from tms.flag_catalogue e cross join scope s
     where e.required_value is not null and not e.guarded
       and e.required_value is distinct from coalesce((
         select case when a.state ->> 'percentage' = '100' then a.state -> 'value'
                     when s.id is null then e.default_value
                     when a.state -> 'canary' ? s.id::text or tms._bucket(e.key, s.id) < (a.state ->> 'percentage')::numeric * 100 then a.state -> 'value'
                     else e.default_value end
           from at a where a.key = e.key and (a.level = 'global' or (a.level = 'environment' and a.environment = (select x.name from tms.environment x)) or (a.level = 'tenant' and a.company_id = s.id))
          order by case a.level when 'tenant' then 0 when 'environment' then 1 else 2 end limit 1), e.default_value))
$$;

-- The incident whose soft degrade holds this row of a flag; null: none. Its resume puts the row back, and nothing else should.
create or replace function tms._held_by(flag text, lvl text, env text, company uuid) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select l.incident_id from tms.incident_levers l, lateral jsonb_array_elements(l.changes) x
   where l.kind = 'soft_degrade' and l.undone_at is null and x ->> 'key' = flag and x ->> 'level' = lvl
     and x ->> 'environment' is not distinct from env and (x ->> 'company_id')::uuid is not distinct from company
   order by l.id limit 1
$$;

-- Where a rollback goes: the time that was asked for, else the last look at a posture that was green. A database whose posture was
-- never green (nobody judged it, or not long enough) has only its required flags to tell by, and the answer says so.
create or replace function tms._rollback_target(wanted timestamptz, out moment timestamptz, out basis text, out source text) returns record
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  t timestamptz;
  unjudged text;
begin
  if wanted > clock_timestamp() then
    raise exception 'nothing stood at % yet', tms._utc(wanted) using errcode = 'TM400', detail = 'that is in the future', hint = 'tms flags history';
  end if;
  if wanted is not null then
    moment := wanted;
    basis := 'asked';
    source := 'the time that was asked for';
    return;
  end if;
  -- whoever recorded it may be wrong, or lie: the flags are asked as well
  for t in select s.as_of from tms.posture_states s where s.verdict = 'green' order by s.id desc limit 200 loop
    if tms._flags_green_at(t) then moment := t; exit; end if;
  end loop;
  if moment is not null then
    basis := 'posture';
    source := 'the posture was green then, for the last time';
    return;
  end if;
  unjudged := case when exists (select from tms.posture_states) then 'no posture on record was green' else 'no posture is on record' end;
  for t in select distinct h.at from tms.feature_flags_history h order by h.at desc limit 200 loop
    if tms._flags_green_at(t) then moment := t; exit; end if;
  end loop;
  if moment is null then
    source := unjudged || ', and in no state of the last 200 changes did every required flag have its value';
    return;
  end if;
  basis := 'flags';
  source := unjudged || '; it is the newest state in which every required flag had its value';
end
$$;

-- What going back would change: which rows differ from what they were at the moment.
create or replace function tms._rollback_changes(moment timestamptz, out changes jsonb, out plan text) returns record
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  changes := '[]';
  if moment is null then return; end if;
  select coalesce(jsonb_agg(jsonb_build_object('key', a.key, 'level', a.level, 'environment', a.environment, 'company_id', a.company_id, 'before', to_jsonb(f), 'state', a.state) order by a.key collate "C", a.level, a.company_id), '[]')
    into changes
    from tms._flags_at(moment) a join tms.flag_catalogue e on e.key = a.key and not e.guarded
    left join tms.feature_flags_v2 f on f.key = a.key and f.level = a.level and f.environment is not distinct from a.environment and f.company_id is not distinct from a.company_id
   where tms._flag_state(f) is distinct from a.state and tms._held_by(a.key, a.level, a.environment, a.company_id) is null and (jsonb_typeof(a.state) <> 'object' or tms._flag_problem(e, a.state -> 'value') is null);
  plan := left(tms._sha256(changes::text), 12);
end
$$;

-- What that leaves as it is, because a soft degrade holds it.
create or replace function tms._rollback_held(moment timestamptz) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select coalesce(jsonb_agg(jsonb_build_object('key', x.key, 'scope', tms._flag_scope(x.level, x.environment, x.company_id), 'incident', x.incident::text)
                            order by x.key collate "C", x.level, x.company_id), '[]')
    from (select a.*, tms._held_by(a.key, a.level, a.environment, a.company_id) as incident
            from tms._flags_at(moment) a left join tms.feature_flags_v2 f
              on f.key = a.key and f.level = a.level and f.environment is not distinct from a.environment and f.company_id is not distinct from a.company_id
           where tms._flag_state(f) is distinct from a.state) x
   where x.incident is not null
$$;

create or replace function tms._rollback_json(c tms.call, moment timestamptz, source text, changes jsonb, plan text) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object('moment', tms._utc(moment), 'source', source, 'plan', plan, 'held', tms._rollback_held(moment), 'workers', tms._live_workers(),
    'changes', (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('key', x ->> 'key', 'scope', tms._flag_scope(x ->> 'level', x ->> 'environment', (x ->> 'company_id')::uuid),
       'before', x #> '{before,value}', 'after', x #> '{state,value}')), '[]') from pg_catalog.jsonb_array_elements(changes) x))
$$;

create or replace function tms.incident_rollback_plan(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_rollback_plan', args, '{to}', 'incident.rollback');
  g record;
  p record;
begin
  if c.answer is not null then return c.answer; end if;
  select * into g from tms._rollback_target((args ->> 'to')::timestamptz);
  select * into p from tms._rollback_changes(g.moment);
  return tms._rollback_json(c, g.moment, g.source, p.changes, p.plan) || jsonb_build_object('basis', g.basis);
end
$$;
grant execute on function tms.incident_rollback_plan(jsonb) to tms_caller;

-- An alarm that wants a rollback: the incident is there before anybody consents, and also when there is nothing to go back to.
create or replace function tms.incident_rollback_wanted(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_rollback_wanted', args, '{request_id,priority,why}', 'incident.rollback');
  title text := 'Rollback: ' || coalesce(nullif(left(btrim(args ->> 'why'), 1000), ''), 'an alarm asks for it');
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(args ->> 'priority', '') not in ('P1', 'P2', 'P3', 'P4') then raise exception '"priority" is P1, P2, P3 or P4' using errcode = 'TM400'; end if;
  return tms._incident_report(c, args ->> 'priority', 'rollback', 'rollback', null, title);
end
$$;
grant execute on function tms.incident_rollback_wanted(jsonb) to tms_caller;

create or replace function tms.incident_rollback(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_rollback', args, '{request_id,to,plan,why}', 'incident.rollback');
  g record;
  p record;
  x jsonb;
  reason text;
  joined record;
  done jsonb := '[]';
  l tms.incident_levers;
  answer jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  reason := coalesce(nullif(left(btrim(args ->> 'why'), 1000), ''), 'rollback');
  lock table tms.flag_catalogue in share row exclusive mode;
  select * into g from tms._rollback_target((args ->> 'to')::timestamptz);
  select * into p from tms._rollback_changes(g.moment);
  if g.moment is null then
    return tms._refuse(c, 'CONFLICT', 'there is no state to go back to', g.source, array['tms flags history', 'tms incident rollback --to <time>']);
  end if;
  if p.plan is distinct from tms._text(args, 'plan', 64) then
    return tms._refuse(c, 'PLAN_CHANGED', 'the flags are not what they were when this was planned', 'somebody changed one meanwhile', array['tms incident rollback']);
  end if;
  answer := tms._rollback_json(c, g.moment, g.source, p.changes, p.plan) || jsonb_build_object('basis', g.basis);
  if p.changes = '[]' then return tms._finish(c, answer || jsonb_build_object('incident', null, 'lever', null, 'at', null)); end if;
  select * into joined from tms._incident_join('P2', 'rollback', 'rollback', null, 'Rollback: ' || reason, '{}', c.who);
  if joined.opened then perform tms._incident_snapshot(joined.id); else perform tms._incident_said(joined.id, c.who, 'Rollback: ' || reason); end if;
  update tms.incidents y set acted_at = coalesce(y.acted_at, tms.now()) where y.id = joined.id;
  for x in select value from jsonb_array_elements(p.changes) loop
    done := done || tms._lever_change(c, 'flag.rollback', x ->> 'key', x ->> 'level', x ->> 'environment', (x ->> 'company_id')::uuid, tms._row_of_state(x -> 'state'), reason);
  end loop;
  insert into tms.incident_levers (incident_id, kind, at, by_name, changes) values (joined.id, 'rollback', tms.now(), c.who, done) returning * into l;
  perform tms._incident_event(joined.id, null, c.who, 'lever', format('rollback to %s: %s', tms._utc(g.moment), (select string_agg(y ->> 'key', ', ') from jsonb_array_elements(done) y)), jsonb_build_object('lever', l.id::text));
  perform tms._record(c, 'incident.rollback', 'done', 'incident ' || joined.id, reason, jsonb_build_object('incident', joined.id::text, 'lever', l.id::text, 'moment', tms._utc(g.moment), 'basis', g.basis, 'plan', p.plan,
    'keys', (select jsonb_agg(y -> 'key') from jsonb_array_elements(done) y)));
  perform tms._signal('control');
  return tms._finish(c, answer || jsonb_build_object('incident', joined.id::text, 'lever', l.id::text, 'at', tms._utc(l.at)));
end
$$;
grant execute on function tms.incident_rollback(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- starting again
-- approve: a second person agrees. prepare: the record, the levers undone, a tenth of the slots where a halt ends or a lever still held something. lift: the fence, last. slots: the
-- next stage; the whole ends the incident. Each is a transaction of its own: what was done shows when the next one fails.
create or replace function tms.incident_resume(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_resume', args, '{request_id,id,step,percent,why}', 'incident.resume');
  i tms.incidents;
  l tms.incident_levers;
  reason text;
  step text := args ->> 'step';
  part integer := (args ->> 'percent')::integer;
  halted boolean := tms._halted();
  stop boolean;
  answer jsonb;
  undone jsonb := '[]';
  kept jsonb := '[]';
  left_alone jsonb;
  lifted bigint;
begin
  if c.answer is not null then return c.answer; end if;
  reason := coalesce(nullif(left(btrim(args ->> 'why'), 1000), ''), 'resume');
  if coalesce(step, '') not in ('approve', 'prepare', 'lift', 'slots') then raise exception '"step" is approve, prepare, lift or slots' using errcode = 'TM400'; end if;
  i := tms._incident_of(c, args);
  if i.id is null then return tms._no_incident(c, args ->> 'id'); end if;
  stop := i.type = 'emergency_stop';
  -- one that is over and still holds slots back lets them go
  if (i.status in ('RESOLVED', 'CLOSED') and not (step = 'slots' and tms._resuming() is not distinct from i.id)) or i.type not in ('emergency_stop', 'soft_degrade') then
    return tms._refuse(c, 'CONFLICT', format('incident %s has nothing to resume', i.id),
      case when i.type not in ('emergency_stop', 'soft_degrade') then format('it is about %s', i.type) else format('it is %s', i.status) end, array['tms incident list']);
  end if;
  if step = 'approve' then
    insert into tms.resume_approvals (incident_id, epoch, principal_id, who) values (i.id, (tms._fence_json() ->> 'epoch')::bigint, c.principal_id, c.who)
      -- again after another press, which the first one does not cover
      on conflict (incident_id, epoch, principal_id) do update set at = excluded.at;
    perform tms._incident_event(i.id, i.company_id, c.who, 'approved', 'agrees that it is resumed');
    perform tms._record(c, 'incident.approve', 'done', 'incident ' || i.id, reason, jsonb_build_object('incident', i.id::text, 'epoch', tms._fence_json() -> 'epoch'));
    return tms._finish(c, jsonb_build_object('step', step, 'halted', halted, 'percent', tms._slots_percent(), 'undone', '[]'::jsonb, 'kept', '[]'::jsonb, 'epoch', tms._fence_json() -> 'epoch', 'workers', tms._live_workers()));
  end if;

  if step = 'prepare' then
    if i.company_id is null then
      answer := tms._second_person(c, i.id);
      if answer is not null then return answer; end if;
    end if;
    if stop then
      answer := tms.fence_resume(jsonb_build_object('request_id', gen_random_uuid(), 'step', 'prepare', 'why', reason));
      if answer ? 'refused' then return tms._finish(c, answer); end if;
    end if;
    for l in select * from tms.incident_levers x where x.kind = 'soft_degrade' and x.undone_at is null and (x.incident_id = i.id or (stop and x.company_id is null)) order by x.id desc for update loop
      left_alone := tms._lever_undo(c, l, reason);
      kept := kept || left_alone;
      undone := undone || (select coalesce(jsonb_agg(y.change order by y.place), '[]')
        from (select tms._change_json(c, x.value), x.ordinality from jsonb_array_elements(l.changes) with ordinality x) y (change, place)
       where not exists (select from jsonb_array_elements(left_alone) z where z -> 'key' = y.change -> 'key' and z -> 'scope' = y.change -> 'scope'));
      if l.incident_id <> i.id and not exists (select from tms.incident_levers x where x.incident_id = l.incident_id and x.kind = 'soft_degrade' and x.undone_at is null) then
        perform tms._resumed(c, l.incident_id, reason);
      end if;
    end loop;
    if i.company_id is null and (stop or undone <> '[]') then
      update tms.resumption r set percent = 10, incident_id = i.id, since = clock_timestamp() where r.one;
    -- Nothing was held back any more: a fleet that is well is not throttled. Begun before, it is over when its slots are back.
    elsif i.company_id is not null or tms._resuming() is distinct from i.id then
      perform tms._resumed(c, i.id, reason);
    end if;
    perform tms._late_acknowledgements();
    perform tms._incident_event(i.id, i.company_id, c.who, 'resume', reason, jsonb_build_object('kept', kept));
    perform tms._record(c, 'incident.resume', 'done', 'incident ' || i.id, reason, jsonb_build_object('incident', i.id::text, 'kept', kept));
    perform tms._signal('control');
  elsif step = 'lift' then
    if not stop then raise exception 'only a halt is lifted' using errcode = 'TM400'; end if;
    answer := tms.fence_resume(jsonb_build_object('request_id', gen_random_uuid(), 'step', 'lift', 'why', reason));
    if answer ? 'refused' then return tms._finish(c, answer); end if;
    halted := false;
    perform tms._incident_announce('fleet.resumed', i, 'resumed ' || (answer ->> 'epoch'), jsonb_build_object('by', c.who, 'epoch', answer -> 'epoch'));
    -- The incident's own alert ends with the incident, that of a later halt with the halt. Of each of them: where a resume was cut short
    -- before its lift and the button pressed again, one lift ends two halts. What was told of an earlier lift is not told again.
    for lifted in select distinct h.epoch from tms.incident_halts x join tms.halts h on h.id = x.halt_id
                   where x.incident_id = i.id and h.epoch < (answer ->> 'epoch')::bigint
                     and h.epoch > (select min(k.epoch) from tms.incident_halts y join tms.halts k on k.id = y.halt_id where y.incident_id = i.id) order by 1 loop
      perform tms._incident_announce('incident.lifted', i, 'lifted ' || lifted, jsonb_build_object('dedup_key', tms._halted_anew(i.id, lifted)));
    end loop;
  else
    if part is null or part not in (10, 50, 100) then raise exception '"percent" is 10, 50 or 100' using errcode = 'TM400'; end if;
    -- else it would be over with its flags still lowered, and without the second person whom prepare asks for
    if exists (select from tms.incident_levers x where x.incident_id = i.id and x.kind = 'soft_degrade' and x.undone_at is null) then
      return tms._refuse(c, 'CONFLICT', format('what incident %s lowered is not undone', i.id), 'prepare comes before the slots', array[format('tms incident resume %s', i.id)]);
    end if;
    if halted then return tms._refuse(c, 'CONFLICT', 'the fleet is halted', 'slots come back after the fence is lifted', array[format('tms incident resume %s', i.id)]); end if;
    if part > tms._slots_percent() and part <> (case tms._slots_percent() when 10 then 50 else 100 end) then
      return tms._refuse(c, 'STAGE_REFUSED', format('%s %% does not follow %s %%', part, tms._slots_percent()), 'stages come one after the other', array[format('tms incident resume %s', i.id)]);
    end if;
    update tms.resumption r set percent = part, since = clock_timestamp() where r.one;
    perform tms._incident_event(i.id, i.company_id, c.who, 'slots', format('%s %% of the slots', part));
    perform tms._record(c, 'incident.slots', 'done', 'incident ' || i.id, reason, jsonb_build_object('incident', i.id::text, 'percent', part));
    if part = 100 then perform tms._resumed(c, i.id, reason); end if;
    perform tms._signal('control');
  end if;
  return tms._finish(c, jsonb_build_object('step', step, 'halted', case when step = 'lift' then false else halted end, 'percent', tms._slots_percent(), 'undone', undone, 'kept', kept,
    'epoch', tms._fence_json() -> 'epoch', 'workers', tms._live_workers()));
end
$$;
grant execute on function tms.incident_resume(jsonb) to tms_caller;

create or replace function tms._resumed(c tms.call, incident bigint, reason text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
begin
  update tms.incidents x set status = 'RESOLVED', resolution = 'resumed', resolved_at = tms.now(), resolved_by = c.who, acted_at = coalesce(x.acted_at, tms.now())
   where x.id = incident and x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') returning * into i;
  if i.id is null then return; end if;
  perform tms._incident_event(i.id, i.company_id, c.who, 'resolved', reason, jsonb_build_object('resolution', 'resumed'));
  perform tms._incident_announce('incident.resolved', i, 'resolved', jsonb_build_object('resolution', 'resumed'));
end
$$;

-- How the fleet does since a stage began. What nothing was measured of is no health: work that waits or runs and has no result is
-- unknown; where there is none it is idle.
create or replace function tms.incident_health(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('incident_health', args, '{id}', 'incident.resume');
  since timestamptz := (select r.since from tms.resumption r);
  good bigint;
  bad bigint;
  waiting bigint;
  running bigint;
  graver text;
begin
  if c.answer is not null then return c.answer; end if;
  select count(*) filter (where x.outcome in ('completed', 'awaiting_approval')), count(*) filter (where x.outcome in ('failed', 'retried', 'lost')) into good, bad
    from (select r.outcome from tms.agent_runs r where r.finished_at >= since limit 20000) x;
  -- also of an agent whose policy is gone
  select coalesce(sum(tms._waiting(q.agent, null)), 0) into waiting from (select distinct k.agent from tms.queues k) q;
  select count(*) into running from tms.agent_tasks t join tms.workers w on w.id = t.worker_id
   where t.status = 'running' and w.stopped_at is null and w.lease_until > clock_timestamp();
  -- The fleet's own: a tenant's people may open what they like of theirs, and must not hold up everybody's resume.
  select 'incident ' || i.id || ' is open: ' || i.type into graver from tms.incidents i
   where i.priority = 'P1' and i.company_id is null and i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') and i.id <> (args ->> 'id')::bigint and i.opened_at >= since order by i.id limit 1;
  return jsonb_build_object('since', tms._utc(since), 'percent', tms._slots_percent(), 'halted', tms._halted(), 'good', good::text, 'bad', bad::text, 'waiting', waiting::text, 'workers', tms._live_workers(),
    'state', case when tms._halted() or graver is not null then 'red' when good + bad > 0 then case when bad * 100 > (good + bad) * 3 then 'red' else 'green' end when waiting + running = 0 then 'idle' else 'unknown' end,
    'why', case when tms._halted() then 'the fleet was halted again' when graver is not null then graver
                when good + bad > 0 then format('%s of %s runs failed', bad, good + bad)
                when waiting + running = 0 then 'there is no work' when waiting = 0 then 'work runs and none of it has ended yet' when tms._live_workers() = 0 then 'work waits and no worker is there' else 'no run has ended yet' end);
end
$$;
grant execute on function tms.incident_health(jsonb) to tms_caller;
