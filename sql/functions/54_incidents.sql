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

-- Tells whoever listens. The halt's lane: an incident is news while the fleet is halted, then most of all.
create or replace function tms._incident_announce(topic text, i tms.incidents, key text, more jsonb default '{}') returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  perform tms._announce(topic, jsonb_build_object(
    'incident', i.id::text, 'priority', i.priority, 'status', i.status, 'type', i.type, 'title', i.title,
    'tenant', tms._tenant_key(i.company_id), 'dedup_key', 'tms-incident-' || i.id,
    'severity', case i.priority when 'P1' then 'critical' when 'P2' then 'error' when 'P3' then 'warning' else 'info' end,
    'opened_at', tms._utc(i.opened_at), 'link', 'tms incident show ' || i.id, 'epoch', (tms._fence_json() ->> 'epoch')) || more,
    'incident ' || i.id || ' ' || key, 'halt');
end
$$;

-- Opens an incident, or joins the one of this key that is open; answers its number. A graver symptom raises it. Joining writes
-- no event: a symptom that comes each second would bury the others.
create or replace function tms._incident_open(priority text, type text, dedupe_key text, company_id uuid, title text, detail jsonb, by text) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
  was text;
begin
  for attempt in 1 .. 3 loop
    insert into tms.incidents (priority, type, dedupe_key, company_id, title, detail, opened_at, opened_by, last_seen_at, response_due)
      values (_incident_open.priority, left(_incident_open.type, 80), left(_incident_open.dedupe_key, 200), _incident_open.company_id, left(_incident_open.title, 300),
              coalesce(_incident_open.detail, '{}'), tms.now(), by, tms.now(), tms.now() + tms._response_time(_incident_open.priority))
      on conflict do nothing returning * into i;
    if i.id is not null then
      perform tms._incident_event(i.id, i.company_id, by, 'opened', i.title, i.detail);
      perform tms._incident_announce('incident.opened', i, 'opened');
      return i.id;
    end if;
    select * into i from tms.incidents x where x.dedupe_key = left(_incident_open.dedupe_key, 200) and x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') for update;
    -- none: it was resolved between the two
    exit when i.id is not null;
  end loop;
  if i.id is null then raise exception 'the incident "%" is opened and ended by others at the same time', left(dedupe_key, 60) using errcode = '40001'; end if;
  was := i.priority;
  update tms.incidents x set occurrences = x.occurrences + 1, last_seen_at = tms.now(), priority = least(x.priority, _incident_open.priority),
         -- a graver one has less time
         response_due = case when _incident_open.priority < x.priority then least(x.response_due, tms.now() + tms._response_time(_incident_open.priority)) else x.response_due end
   where x.id = i.id returning * into i;
  if i.priority < was then
    perform tms._incident_event(i.id, i.company_id, by, 'raised', format('from %s to %s: %s', was, i.priority, title));
    perform tms._incident_announce('incident.opened', i, 'raised ' || i.priority, jsonb_build_object('raised_from', was));
  end if;
  return i.id;
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

-- Something tried to heal it. The third time that didn't help it is somebody's (tms._incident_escalate, in the cycle).
create or replace function tms._incident_attempt(dedupe_key text, what text) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
begin
  update tms.incidents x set attempts = x.attempts + 1, acted_at = coalesce(x.acted_at, tms.now()), status = case when x.status = 'OPEN' then 'AUTO_HEALING' else x.status end
   where x.dedupe_key = _incident_attempt.dedupe_key and x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') and x.type <> 'emergency_stop' returning * into i;
  if i.id is null then return false; end if;
  perform tms._incident_event(i.id, i.company_id, 'tms', 'attempt', what, jsonb_build_object('attempt', i.attempts));
  return true;
end
$$;
