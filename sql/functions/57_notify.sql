-- Notifications: whether those who must hear of an incident do.
--
-- Guarantee: a target that loses what it should tell, or is far behind, is an incident itself, and that one is told to all
-- targets but the failing one.

set local role tms_owner;

create or replace function tms._notify_patience() returns interval
language sql immutable as $$ select interval '10 minutes' $$;

-- What an event becomes at PagerDuty; null: nothing is sent, and delivering it proves nothing. As src/outbox/targets/pagerduty-message.ts
-- decides it; a test holds the two together. Here, because a delivery says only that it is done.
create or replace function tms._pager_does(topic text, payload jsonb) returns text
language sql immutable as $$
  select case
    when payload ->> 'event_action' in ('trigger', 'acknowledge', 'resolve', 'change') then payload ->> 'event_action'
    when topic = 'incident.acked' then 'acknowledge'
    when topic in ('incident.resolved', 'incident.closed', 'incident.lifted') then 'resolve'
    when topic = 'fleet.resumed' or topic ~ '^(deploy|rollback|release)[.]' then 'change'
    when topic not in ('incident.opened', 'incident.late') or btrim(payload ->> 'severity', E' \t\n\r') in ('P1', 'critical') then 'trigger'
    when btrim(payload ->> 'priority', E' \t\n\r') in ('P1', 'critical')
     and btrim(payload ->> 'severity', E' \t\n\r') in ('P2', 'P3', 'P4', 'high', 'error', 'medium', 'warning', 'low', 'info') is not true then 'trigger' end
$$;

-- How each target does. `tells`: it hears of incidents of the whole fleet. Lost is what died after the last that was sent and arrived,
-- and for ever what calls people to an incident that is still open, unless a later word of the same one arrived.
create or replace function tms._notify_state(visible uuid[])
returns table (target text, kind text, tells boolean, paused boolean, waiting bigint, oldest timestamptz, lost bigint, last_error text, delivered_at timestamptz, failing text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare
  halted boolean := tms._halted();
  nobody constant uuid := '00000000-0000-0000-0000-000000000000';
begin
  return query
  select s.name, s.kind, s.tells, s.paused, s.waiting, s.oldest, s.lost, s.last_error, s.delivered_at,
         case when s.paused then 'it is paused'
              when s.latest > 0 then 'its last deliveries died'
              when s.lost > 0 then 'it lost word of an incident that is open'
              when s.oldest < clock_timestamp() - tms._notify_patience() then 'it is behind' end
    from (
      select t.name, t.kind, t.company_id is null and tms._matches('incident.opened', t.topics) as tells, t.paused, w.waiting, w.oldest, l.lost, l.latest, coalesce(l.error, w.error) as last_error, a.delivered_at
        from tms.outbox_targets t
        cross join lateral (
          -- while halted what isn't the halt's own waits by right
          select count(*) as waiting, min(x.created_at) as oldest, (array_agg(x.last_error order by x.id desc) filter (where x.last_error is not null))[1] as error
            from ((select d.id, d.created_at, d.last_error from tms.outbox_deliveries d where d.target = t.name and d.status = 'pending' and (not halted or d.lane = 'halt')
                      and (visible is null or d.company_id = any (visible)) order by d.lane, d.held, d.next_at, d.id limit 10000)
                  union all
                  select d.id, d.created_at, d.last_error from tms.outbox_deliveries d where d.target = t.name and d.status = 'sending' and (not halted or d.lane = 'halt')
                      and (visible is null or d.company_id = any (visible))) x) w
        left join lateral (
          select d.id, d.delivered_at from tms.outbox_deliveries d where d.target = t.name and d.status = 'delivered' and d.created_at > clock_timestamp() - interval '30 days'
             and (visible is null or d.company_id = any (visible))
             -- a scalar: a join would read every event there is
             and (t.kind <> 'pagerduty' or (select tms._pager_does(e.topic, e.payload) from tms.outbox_events e where e.id = d.event_id) is not null)
           order by d.id desc limit 1) a on true
        cross join lateral (
          select count(*) as lost, count(*) filter (where x.id > coalesce(a.id, 0)) as latest, (array_agg(x.last_error order by x.id desc))[1] as error
            from ((select d.id, d.last_error from tms.outbox_deliveries d where d.target = t.name and d.status = 'dead' and d.id > coalesce(a.id, 0) and d.created_at > clock_timestamp() - interval '7 days'
                      and (visible is null or d.company_id = any (visible)) limit 10000)
                  union
                  -- The halt's lane: the product's own word, which no tenant forges.
                  select d.id, d.last_error
                    from tms.outbox_deliveries d join tms.outbox_events e on e.id = d.event_id
                    join tms.incidents i on i.id = case when e.payload ->> 'incident' ~ '^[0-9]{1,18}$' then (e.payload ->> 'incident')::bigint end and coalesce(i.company_id, nobody) = d.company_id
                   where d.target = t.name and d.status = 'dead' and d.lane = 'halt' and (visible is null or d.company_id = any (visible))
                     -- not that of targets: two that failed at once would each wait for the other's to be over
                     and i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') and i.type <> 'notify'
                     and case t.kind when 'pagerduty' then tms._pager_does(e.topic, e.payload) = 'trigger' else e.topic in ('incident.opened', 'incident.escalated', 'incident.late', 'fleet.halted') end
                     and not exists (
                       select from tms.outbox_deliveries y where y.target = d.target and y.status = 'delivered' and y.lane = 'halt' and y.id > d.id and y.ordering_key = d.ordering_key and y.company_id = d.company_id
                          and (t.kind <> 'pagerduty' or (select tms._pager_does(z.topic, z.payload) from tms.outbox_events z where z.id = y.event_id) <> 'change'))) x) l
       where t.company_id is null or visible is null or t.company_id = any (visible)) s
   order by s.name collate "C";
end
$$;

-- It calls people of the whole fleet, to whichever of these: what it loses is an incident.
create or replace function tms._calls(t tms.outbox_targets) returns boolean
language sql immutable as $$
  select t.company_id is null and exists (select from unnest('{incident.opened,incident.late,incident.escalated,fleet.halted}'::text[]) x where tms._matches(x, t.topics))
$$;

-- Why nobody would hear of an incident of the fleet now; null: somebody should. The button asks it: three small tables and the
-- newest hundred deliveries. Workers deliver; whoever else does (n8n) shows by what it delivered.
create or replace function tms._untold() returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if not exists (select from tms.outbox_targets t where t.company_id is null and tms._matches('incident.opened', t.topics)) then return 'no target takes incidents'; end if;
  if not exists (select from tms.outbox_targets t where t.company_id is null and tms._matches('incident.opened', t.topics) and not t.paused) then return 'every target that takes incidents is paused'; end if;
  if tms._live_workers() > 0 or exists (
       select from (select y.delivered_at, y.holder from tms.outbox_deliveries y order by y.id desc limit 100) x
        where x.delivered_at > clock_timestamp() - interval '1 minute' and not exists (select from tms.workers w where w.principal_id = x.holder)) then return null; end if;
  return 'no worker is there to deliver it';
end
$$;

create or replace function tms.notify_status(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('notify_status', args, '{}', 'outbox.read');
  visible uuid[] := tms._allowed('outbox.read');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('untold', tms._untold(), 'targets', (select coalesce(jsonb_agg(jsonb_build_object('name', s.target, 'kind', s.kind,
      -- what calls only to the gravest counts once it fails; until the first of them nothing arrives there, and that is no news
      'tells', s.tells or (s.failing is not null and tms._calls(t)), 'paused', s.paused, 'waiting', s.waiting, 'lost', s.lost,
      'oldest_seconds', floor(extract(epoch from clock_timestamp() - s.oldest))::integer, 'delivered_at', tms._utc(s.delivered_at),
      'error', case when tms._clear(c, null) then s.last_error end, 'failing', s.failing) order by s.target collate "C"), '[]')
      from tms._notify_state(visible) s join tms.outbox_targets t on t.name = s.target));
end
$$;
grant execute on function tms.notify_status(jsonb) to tms_caller;

-- One look at the targets that call people: opens an incident for each that fails, ends it for each that is well again.
create or replace function tms.notify_watch(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('notify_watch', args, '{request_id}', 'slo.act');
  s record;
  failing jsonb := '[]';
  cleared integer := 0;
begin
  if c.answer is not null then return c.answer; end if;
  for s in select x.* from tms._notify_state(null) x join tms.outbox_targets t on t.name = x.target where tms._calls(t) loop
    if s.failing is null then
      if tms._incident_clear('notify:' || s.target, 'it delivers again') then cleared := cleared + 1; end if;
    else
      perform tms._incident_open('P2', 'notify', 'notify:' || s.target, null, format('Notifications to %s do not arrive: %s', s.target, s.failing),
        jsonb_build_object('target', s.target, 'kind', s.kind, 'waiting', s.waiting, 'lost', s.lost, 'oldest', tms._utc(s.oldest), 'error', s.last_error), 'tms');
      failing := failing || jsonb_build_object('target', s.target, 'why', s.failing);
    end if;
  end loop;
  -- a target that is gone fails nobody
  for s in select i.dedupe_key from tms.incidents i where i.type = 'notify' and i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED')
              and not exists (select from tms.outbox_targets t where t.name = substr(i.dedupe_key, 8) and tms._calls(t)) loop
    if tms._incident_clear(s.dedupe_key, 'it tells of incidents no more') then cleared := cleared + 1; end if;
  end loop;
  return tms._finish(c, jsonb_build_object('failing', failing, 'cleared', cleared));
end
$$;
grant execute on function tms.notify_watch(jsonb) to tms_caller;

-- A target as it is stored: names of the places of secrets, never the secrets. For a test from another host.
create or replace function tms.notify_target(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('notify_target', args, '{target}', 'outbox.targets');
  t tms.outbox_targets;
begin
  if c.answer is not null then return c.answer; end if;
  select * into t from tms.outbox_targets x where x.name = tms._text(args, 'target', 63);
  if t.name is null then
    return tms._refuse(c, 'NOT_FOUND', format('there is no target "%s"', left(args ->> 'target', 63)),
      coalesce('there are ' || (select string_agg(x.name, ', ' order by x.name) from tms.outbox_targets x), 'there is none at all'), array['tms outbox targets', 'tms notify status']);
  end if;
  return jsonb_build_object('name', t.name, 'kind', t.kind, 'config', t.config, 'topics', to_jsonb(t.topics));
end
$$;
grant execute on function tms.notify_target(jsonb) to tms_caller;
