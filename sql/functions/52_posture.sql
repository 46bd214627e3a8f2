-- Posture: what is measured, what was judged, what was done about it.
--
-- Guarantees: a minute nobody probed is unknown, and nobody can call it up afterwards; a change is announced once, however many
-- watch; no consequence without a recorded breach, once for each breach, never against what a person undid during it; each is in the
-- ledger, and can be undone by a person without overwriting what somebody set meanwhile.

set local role tms_owner;

-- ---------------------------------------------------------------------------------------------- facts

-- Minutes of a span: in how many something was probed, and all of it answered. One failure makes a minute down: it was tried twice.
create or replace function tms._uptime_json(low timestamptz, high timestamptz) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  begins timestamptz := date_trunc('minute', low + interval '1 minute' - interval '1 microsecond');
begin
  return (
    with probed as (
      select p.minute, bool_and(p.down = 0) as up from tms.probes p where p.minute >= begins and p.minute < high group by 1
    ), counted as (
      select count(*) as recorded, count(*) filter (where p.up) as up, max(p.minute) filter (where not p.up) as last_down,
             -- of the minute that isn't over, only what is known counts
             greatest(0, floor(extract(epoch from date_trunc('minute', high) - begins) / 60))::bigint
               + count(*) filter (where p.minute = date_trunc('minute', high)) as minutes
        from probed p
    )
    select jsonb_build_object('minutes', k.minutes, 'up', k.up, 'down', k.recorded - k.up, 'unknown', k.minutes - k.recorded, 'last_down_at', tms._utc(k.last_down),
      'kinds', (select coalesce(jsonb_agg(jsonb_build_object('kind', x.kind, 'up', x.up, 'down', x.down, 'slowest_ms', x.ms, 'why', x.why) order by x.kind), '[]') from (
         select p.kind, count(*) filter (where p.down = 0) as up, count(*) filter (where p.down > 0) as down, max(p.ms) as ms,
                coalesce((array_agg(p.why order by p.minute desc) filter (where p.down > 0))[1], '') as why
           from tms.probes p where p.minute >= begins and p.minute < high group by 1) x))
      from counted k);
end
$$;

-- The highest value that applies anywhere in the scope: a rail holds when its loosest setting does.
create or replace function tms._loosest(key text, visible uuid[], otherwise numeric) returns numeric
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select greatest(tms._budget(_loosest.key, null, otherwise),
    (select max(tms._budget(_loosest.key, f.company_id, otherwise)) from tms.feature_flags_v2 f
      where f.key = _loosest.key and f.company_id is not null and (visible is null or f.company_id = any (visible))))
$$;

-- Age of the oldest ledger row that isn't sealed. Null: this database has no sealer.
create or replace function tms._unsealed_seconds() returns numeric
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  answer numeric;
begin
  if to_regclass('tms.ledger') is null then return null; end if;
  -- sealing follows the order of commits, so some rows of an earlier id may be sealed later: looked back for, a bounded way
  execute $q$
    select coalesce(extract(epoch from clock_timestamp() - min(i.at)), 0) from tms.ledger_inbox i
     where i.id > (select coalesce(max(l.inbox_id), 0) - 100000 from tms.ledger l) and not exists (select from tms.ledger l where l.inbox_id = i.id)$q$ into answer;
  return round(answer, 1);
end
$$;

-- Everything measured of a span, each with its samples. Without a tenant: of the tenants the caller may read; what belongs to the
-- fleet as a whole only to who may read all of it.
create or replace function tms.posture_facts(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('posture_facts', args, '{tenant,from,to,seconds}', 'slo.read');
  visible uuid[] := tms._allowed('slo.read');
  fleet boolean;
  stamp timestamptz := clock_timestamp();
  opens timestamptz;
  closes timestamptz;
  metrics jsonb;
  flags jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  fleet := visible is null;
  closes := least(coalesce((args ->> 'to')::timestamptz, stamp), stamp);
  opens := coalesce((args ->> 'from')::timestamptz, closes - coalesce((args ->> 'seconds')::integer, 86400) * interval '1 second');
  if opens >= closes or closes - opens > interval '31 days' then
    raise exception 'a window ends after it begins and is at most 31 days long' using errcode = 'TM400';
  end if;
  metrics := tms._metrics_json(visible, null, opens, closes);
  flags := tms.flags_verify('{}');
  return jsonb_build_object(
    'scope', case when args ? 'tenant' then 'tenant ' || c.tenant when fleet then 'fleet' else 'your tenants' end, 'fleet', fleet,
    'from', tms._utc(opens), 'to', tms._utc(closes), 'now', tms._utc(stamp),
    'installed_at', (select tms._utc(e.initialised_at) from tms.environment e),
    'fence', tms._fence_json(),
    'tasks', metrics || (
      select jsonb_build_object('dead_letters', count(*)::text, 'quarantined', (count(*) filter (where
               exists (select from tms.agent_tasks t where t.id = d.task_id and t.status = 'quarantined')
               or exists (select from tms.agent_tasks_history h where h.id = d.task_id and h.status = 'quarantined')))::text)
        from tms.dead_letter_queue d
       -- the same span as the metrics, which know quarter hours
       where d.created_at >= (metrics ->> 'from')::timestamptz and d.created_at < (metrics ->> 'to')::timestamptz and (visible is null or d.company_id = any (visible))),
    'outbox', tms._lag_json(visible, opens, closes),
    'letters', (select jsonb_build_object('open', count(*)::text, 'oldest', tms._utc(min(d.created_at))) from tms.dead_letter_queue d
                 where d.status = 'open' and (visible is null or d.company_id = any (visible))),
    'replays', (select jsonb_build_object('runs', count(*)::text, 'tried', coalesce(sum(r.tried), 0)::text, 'failed', coalesce(sum(r.failed), 0)::text,
                       'most_items', coalesce(max(r.items), 0), 'most_bytes', coalesce(max(r.bytes), 0)::text,
                       'most_in_a_day', (select coalesce(max(x.n), 0)::integer from (
                          select count(*) as n from tms.replay_runs y where y.at >= opens and y.at < closes and (visible is null or y.company_id = any (visible))
                           group by y.company_id, (y.at at time zone 'UTC')::date) x))
                  from tms.replay_runs r where r.at >= opens and r.at < closes and (visible is null or r.company_id = any (visible))),
    'budgets', jsonb_build_object(
      'replay_items', tms._loosest('budget.replay.batchItems', visible, 50)::text, 'replay_bytes', tms._loosest('budget.replay.batchBytes', visible, 2097152)::text,
      'replay_stop_percent', tms._loosest('budget.replay.stopAtFailurePercent', visible, 20)::text, 'replays_per_five_minutes', tms._loosest('budget.replay.perFiveMinutes', visible, 3)::text),
    'concurrency', case when fleet then (
      select jsonb_build_object('limit', tms._fleet_limit(), 'slots', coalesce(sum(w.slots), 0), 'workers', count(*),
               'running', (select count(*) from tms.agent_tasks t where t.status = 'running'))
        from tms.workers w where w.stopped_at is null and w.lease_until > stamp) end,
    'flags', case when flags ? 'refused' then null else jsonb_build_object('required', flags -> 'required', 'checked', flags -> 'checked',
      'findings', (select coalesce(jsonb_agg(f.value), '[]') from jsonb_array_elements(flags -> 'findings') f
                    where not args ? 'tenant' or f.value ->> 'scope' not like 'tenant %' or f.value ->> 'scope' = 'tenant ' || c.tenant)) end,
    'uptime', tms._uptime_json(opens, closes),
    'incidents', (select jsonb_build_object('p1', count(*) filter (where i.priority = 'P1'), 'p2', count(*) filter (where i.priority = 'P2'),
                         'p3', count(*) filter (where i.priority = 'P3'), 'p4', count(*) filter (where i.priority = 'P4'))
                    from tms.incidents i where i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED') and not tms._for_practice(i.company_id) and (visible is null or i.company_id is null or i.company_id = any (visible))),
    'drift', case when fleet then (select case when d.score is not null then jsonb_build_object('score', d.score::text, 'at', tms._utc(d.at)) end from tms.drift_scores d where d.at <= closes order by d.at desc, d.id desc limit 1) end,
    -- null: nothing here records backups
    'backup', null,
    'unsealed_seconds', case when fleet then tms._unsealed_seconds()::text end,
    'burn', (select jsonb_agg(jsonb_build_object('seconds', w.seconds, 'completed', k.completed::text, 'failed', k.failed::text,
                     'uptime', tms._uptime_json(closes - w.seconds * interval '1 second', closes)) order by w.seconds)
               from (values (300), (1800), (3600), (21600), (259200)) w (seconds)
              cross join lateral tms._span(closes - w.seconds * interval '1 second', closes) s
              cross join lateral (select coalesce(sum(m.completed), 0) as completed, coalesce(sum(m.failed), 0) as failed
                                    from tms._measured(visible, null, s.low, s.high, s.whole) m) k));
end
$$;
grant execute on function tms.posture_facts(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- probes

-- Whether somebody works is not the caller's to say: it is looked up. Expected only where agents take work by themselves, and where
-- some worker has been: before the first one nothing is down.
create or replace function tms._fleet_probe() returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if coalesce(tms._flag_value('agents.autonomousEnabled', null) <> 'true', true) or coalesce(tms._flag_value('autonomy.mode', null) = '"OFF"', true)
     or not exists (select from tms.workers) then return null; end if;
  return exists (select from tms.workers w where w.stopped_at is null and w.lease_until > clock_timestamp());
end
$$;

-- A probe counts for the minute it is recorded in. Only what was down may be told later, up to a day: while the database is away
-- nobody can record that. What was up and not recorded stays unknown.
create or replace function tms.probe_record(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('probe_record', args, '{request_id,probes}', 'slo.act');
  stamp timestamptz := clock_timestamp();
  works boolean;
  n integer;
begin
  if c.answer is not null then return c.answer; end if;
  if jsonb_typeof(args -> 'probes') is distinct from 'array' or jsonb_array_length(args -> 'probes') > 5000 then
    raise exception '"probes" is a list of at most 5,000' using errcode = 'TM400';
  end if;
  if exists (select from jsonb_to_recordset(args -> 'probes') p (kind text, up boolean)
              where p.kind is null or p.kind not in ('database', 'door') or p.up is null) then
    raise exception 'a probe has a kind, database or door, and was up or not' using errcode = 'TM400';
  end if;
  -- an age and no time: clocks of hosts differ
  if exists (select from jsonb_to_recordset(args -> 'probes') p (up boolean, ago_ms integer) where p.ago_ms is not null and (p.up or p.ago_ms not between 0 and 86400000)) then
    raise exception 'only what was down may be told later, and within a day' using errcode = 'TM400';
  end if;
  works := tms._fleet_probe();
  with told as (
    select date_trunc('minute', (stamp - coalesce(p.ago_ms, 0) * interval '1 millisecond') at time zone 'UTC') at time zone 'UTC' as minute, p.kind, p.up, least(greatest(p.ms, 0), 3600000) as ms,
           case when p.why ~ '^[A-Z0-9_]{1,40}$' then p.why else 'OTHER' end as why
      from jsonb_to_recordset(args -> 'probes') p (kind text, up boolean, ms integer, why text, ago_ms integer)
    union all
    select date_trunc('minute', stamp at time zone 'UTC') at time zone 'UTC', 'fleet', works, null, 'NO_WORKER' where works is not null
  ), written as (
    insert into tms.probes as x (minute, kind, up, down, ms, why)
      select t.minute, t.kind, count(*) filter (where t.up), count(*) filter (where not t.up), max(t.ms), coalesce(max(t.why) filter (where not t.up), '')
        from told t group by 1, 2 order by 1, 2
      on conflict on constraint probes_pkey do update set up = x.up + excluded.up, down = x.down + excluded.down, ms = greatest(x.ms, excluded.ms),
        why = case when excluded.why <> '' then excluded.why else x.why end, recorded_at = excluded.recorded_at
      returning 1
  )
  select count(*) into n from written;
  -- packs have kept what they said of a day for longer than this
  if random() < 0.01 then delete from tms.probes x where x.minute < stamp - interval '400 days'; end if;
  return tms._finish(c, jsonb_build_object('recorded', n, 'fleet', works));
end
$$;
grant execute on function tms.probe_record(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- what was judged

-- Keeps the newest judgement of the fleet and announces what changed. One at a time; a judgement of older facts than the last one is
-- not kept, so two that watch never take turns.
create or replace function tms.posture_record(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('posture_record', args, '{request_id,as_of,verdict,score,checks}', 'slo.act');
  seen timestamptz := (args ->> 'as_of')::timestamptz;
  last tms.posture_states;
  changed jsonb;
  made tms.posture_states;
begin
  if c.answer is not null then return c.answer; end if;
  if jsonb_typeof(args -> 'checks') is distinct from 'array' or jsonb_array_length(args -> 'checks') not between 1 and 200 then
    raise exception '"checks" is a list of 1 to 200' using errcode = 'TM400';
  end if;
  -- one from the future would outrank all that come after it
  if seen is null or seen > clock_timestamp() + interval '1 second' then raise exception '"as_of" is when the facts were read' using errcode = 'TM400'; end if;
  perform tms._latch('posture');
  select * into last from tms.posture_states s order by s.id desc limit 1;
  if seen <= last.as_of then
    return tms._finish(c, jsonb_build_object('recorded', false, 'announced', false, 'id', last.id::text, 'changes', '[]'::jsonb));
  end if;
  select coalesce(jsonb_agg(jsonb_build_object('check', n.name, 'from', k.state, 'to', n.state, 'observed', n.observed, 'comparison', n.comparison, 'limit', n."limit") order by n.name collate "C"), '[]')
    into changed
    from jsonb_to_recordset(args -> 'checks') n (name text, state text, observed text, comparison text, "limit" text)
    left join tms.posture_checks k on k.name = n.name
   where k.state is distinct from n.state;
  delete from tms.posture_checks k where k.name not in (select n.name from jsonb_to_recordset(args -> 'checks') n (name text));
  insert into tms.posture_checks as k (name, state, since, red_since)
    select n.name, n.state, seen, case when n.state = 'red' then seen end from jsonb_to_recordset(args -> 'checks') n (name text, state text) order by n.name
    on conflict (name) do update set since = case when k.state = excluded.state then k.since else excluded.since end, state = excluded.state,
      red_since = case excluded.state when 'green' then null when 'red' then coalesce(k.red_since, excluded.red_since) else k.red_since end;
  if changed = '[]' and last.verdict is not distinct from args ->> 'verdict' then
    update tms.posture_states s set as_of = seen, seen_at = clock_timestamp(), score_low = (args #>> '{score,low}')::numeric, score_high = (args #>> '{score,high}')::numeric,
           grade = args #>> '{score,grade}' where s.id = last.id;
    return tms._finish(c, jsonb_build_object('recorded', true, 'announced', false, 'id', last.id::text, 'changes', '[]'::jsonb));
  end if;
  insert into tms.posture_states (as_of, seen_at, verdict, score_low, score_high, grade, changes, by_name)
    values (seen, clock_timestamp(), args ->> 'verdict', (args #>> '{score,low}')::numeric, (args #>> '{score,high}')::numeric, args #>> '{score,grade}', changed, c.who)
    returning * into made;
  perform tms._announce('posture.changed', jsonb_build_object('id', made.id::text, 'at', tms._utc(seen), 'verdict', made.verdict, 'before', last.verdict,
    'score', args -> 'score', 'changes', changed), 'posture/' || made.id);
  perform tms._record(c, 'posture.changed', 'done', 'posture ' || made.verdict, '', jsonb_build_object('id', made.id::text, 'as_of', tms._utc(seen), 'verdict', made.verdict, 'before', last.verdict,
    'changes', changed));
  return tms._finish(c, jsonb_build_object('recorded', true, 'announced', true, 'id', made.id::text, 'changes', changed));
end
$$;
grant execute on function tms.posture_record(jsonb) to tms_caller;

-- What was recorded last, and the newest changes.
create or replace function tms.posture_state(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('posture_state', args, '{limit}', 'slo.read');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object(
    'state', (select jsonb_build_object('id', s.id::text, 'since', tms._utc(s.at), 'as_of', tms._utc(s.as_of), 'seen_at', tms._utc(s.seen_at), 'verdict', s.verdict,
                'score', jsonb_build_object('low', s.score_low::text, 'high', s.score_high::text, 'grade', s.grade)) from tms.posture_states s order by s.id desc limit 1),
    'checks', (select coalesce(jsonb_agg(jsonb_build_object('check', k.name, 'state', k.state, 'since', tms._utc(k.since), 'red_since', tms._utc(k.red_since)) order by k.name collate "C"), '[]') from tms.posture_checks k),
    'changes', (select coalesce(jsonb_agg(jsonb_build_object('id', x.id::text, 'at', tms._utc(x.at), 'verdict', x.verdict, 'changes', x.changes) order by x.id desc), '[]')
                  from (select * from tms.posture_states s order by s.id desc limit tms._limit(args)) x));
end
$$;
grant execute on function tms.posture_state(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- consequences

-- Sets a flag where it decides and keeps what undoing needs: the row as it was, and the state it was brought into.
create or replace function tms._posture_flag(c tms.call, of_key text, at_level text, env text, company uuid, wanted jsonb, reason text) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  was tms.feature_flags_v2;
  is_now tms.feature_flags_v2;
begin
  select * into was from tms.feature_flags_v2 f
   where f.key = of_key and f.level = at_level and f.environment is not distinct from env and f.company_id is not distinct from company;
  insert into tms.feature_flags_v2 as f (key, level, environment, company_id, value, updated_at, updated_by, updated_by_name, why)
    values (of_key, at_level, env, company, wanted, tms.now(), c.principal_id, c.who, reason)
    on conflict (key, level, coalesce(environment, ''), coalesce(company_id, '00000000-0000-0000-0000-000000000000'))
    do update set value = excluded.value, rollout = 10000, canary = '{}', cohort_name = null, cohort_rollout = null, wait_seconds = null, stage_since = null,
      updated_at = excluded.updated_at, updated_by = excluded.updated_by, updated_by_name = excluded.updated_by_name, why = excluded.why
    returning * into is_now;
  perform tms._flag_changed(c, 'flag.set', of_key, at_level, env, company, tms._flag_state(was), tms._flag_state(is_now), reason);
  return jsonb_build_object('key', of_key, 'level', at_level, 'environment', env, 'company', company,
    'row', case when was.id is not null then to_jsonb(was) end, 'state', tms._flag_state(is_now));
end
$$;

-- Puts one of them back; false when somebody has changed it since, which stands.
create or replace function tms._posture_unflag(c tms.call, kept jsonb, reason text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  is_now tms.feature_flags_v2;
  was tms.feature_flags_v2 := jsonb_populate_record(null::tms.feature_flags_v2, case when jsonb_typeof(kept -> 'row') = 'object' then kept -> 'row' end);
begin
  perform tms._flag_turn(kept ->> 'key', (kept ->> 'company')::uuid);
  select * into is_now from tms.feature_flags_v2 f
   where f.key = kept ->> 'key' and f.level = kept ->> 'level' and f.environment is not distinct from kept ->> 'environment'
     and f.company_id is not distinct from (kept ->> 'company')::uuid for update;
  if tms._flag_state(is_now) is distinct from kept -> 'state' then return false; end if;
  if was.id is null then
    delete from tms.feature_flags_v2 f where f.id = is_now.id;
  else
    update tms.feature_flags_v2 f set value = was.value, rollout = was.rollout, canary = was.canary, cohort_name = was.cohort_name, cohort_rollout = was.cohort_rollout,
           wait_seconds = was.wait_seconds, stage_since = was.stage_since, updated_at = tms.now(), updated_by = c.principal_id, updated_by_name = c.who, why = reason
     where f.id = is_now.id;
  end if;
  perform tms._flag_changed(c, case when was.id is null then 'flag.unset' else 'flag.set' end, kept ->> 'key', kept ->> 'level', kept ->> 'environment', (kept ->> 'company')::uuid,
    kept -> 'state', tms._flag_state(was), reason);
  return true;
end
$$;

-- Safe mode is left with its token and not here: what ended it is what undid the action.
create or replace function tms._safe_mode_left(a tms.posture_actions) returns timestamptz
language sql stable as $$
  select case when a.action = 'safe_mode' and not a.report_only then (select h.resumed_at from tms.halts h where h.kind = 'safe_mode' and h.id = (a.kept ->> 'halt')::bigint) end
$$;

-- One consequence of one breach. `acted`: done, reported (and not done), or why not: already done for this breach, in force, undone by a
-- person during it, or nothing to do.
create or replace function tms.posture_act(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('posture_act', args, '{request_id,action,check,agent,report_only,percent,least,observed,limit,samples}', 'slo.act');
  wanted text := args ->> 'action';
  of_agent text := args ->> 'agent';
  only_report boolean := coalesce((args ->> 'report_only')::boolean, false);
  breach timestamptz;
  env text := (select e.name from tms.environment e);
  at_level text := case when env is null then 'global' else 'environment' end;
  flag text;
  target jsonb;
  reason text;
  subject_name text;
  a tms.posture_actions;
  before jsonb;
  after jsonb;
  kept jsonb := '[]';
  f record;
  answer jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(wanted, '') not in ('throttle', 'freeze', 'quarantine', 'pause_replay', 'safe_mode') or (wanted = 'quarantine') <> (args ? 'agent') then
    raise exception '"action" is throttle, freeze, pause_replay or safe_mode, or quarantine of an "agent"' using errcode = 'TM400';
  end if;
  reason := format('posture: %s is %s, and the limit is %s', tms._text(args, 'check', 80), tms._text(args, 'observed', 100), tms._text(args, 'limit', 100));
  subject_name := case when wanted = 'quarantine' then 'agent ' || of_agent else 'fleet' end;
  perform tms._latch('posture');
  select k.red_since into breach from tms.posture_checks k where k.name = args ->> 'check' and k.state = 'red';
  if breach is null then
    return tms._refuse(c, 'CONFLICT', format('no breach of %s is on record', left(args ->> 'check', 80)), 'consequences follow a recorded breach', array['tms posture check']);
  end if;

  -- Once for each breach; and a person who undid it during this breach has decided. What was only reported is done when that is wanted
  -- by now.
  select x.* into a from tms.posture_actions x
   where x.action = wanted
     and ((x.check_name = args ->> 'check' and x.breach_since >= breach and (only_report or not x.report_only))
       or (x.subject = subject_name and not x.report_only and coalesce(x.undone_at, tms._safe_mode_left(x)) is null)
       or (x.subject = subject_name and coalesce(x.undone_at, tms._safe_mode_left(x)) >= breach))
   order by x.id desc limit 1;
  if a.id is not null then
    return tms._finish(c, jsonb_build_object('acted', case when coalesce(a.undone_at, tms._safe_mode_left(a)) is not null then 'undone' when a.report_only then 'reported already' else 'in force' end,
      'id', a.id::text, 'subject', a.subject, 'before', a.before, 'after', a.after));
  end if;

  flag := case wanted when 'throttle' then 'budget.agents.maxConcurrent' when 'freeze' then 'ops.releaseFreeze' when 'pause_replay' then 'ops.replayEnabled' end;
  if flag is not null then
    perform tms._flag_turn(flag, null);
    if not exists (select from tms.flag_catalogue e where e.key = flag) then
      return tms._refuse(c, 'CONFLICT', format('there is no flag %s', flag), 'the catalogue of this database is older', array['tms db push']);
    end if;
  end if;
  case wanted
    when 'throttle' then
      before := to_jsonb(tms._fleet_limit());
      after := to_jsonb(greatest(least(coalesce((args ->> 'percent')::integer, 50), 100) * tms._fleet_limit() / 100, greatest(coalesce((args ->> 'least')::integer, 1), 0)));
    when 'freeze' then before := coalesce(tms._flag_value(flag, null), 'false'); after := 'true';
    when 'pause_replay' then
      before := to_jsonb(coalesce(tms._flag_value(flag, null) = 'true', false)
        or exists (select from tms.feature_flags_v2 x where x.key = flag and x.level = 'tenant' and x.value = 'true'));
      after := 'false';
    when 'quarantine' then
      if not exists (select from tms.agent_policies p where p.agent = of_agent) then
        return tms._refuse(c, 'NOT_FOUND', format('there is no agent "%s"', left(of_agent, 63)), 'no policy names it', array['tms agents list']);
      end if;
      before := to_jsonb(coalesce((select s.state from tms.agent_state s where s.agent = of_agent), 'running'));
      after := '"quarantined"';
    when 'safe_mode' then before := tms._fence_json() -> 'safe_mode'; after := 'true';
  end case;
  if before = after or (wanted = 'throttle' and after::text::integer >= before::text::integer) then
    return tms._finish(c, jsonb_build_object('acted', 'nothing to do', 'id', null, 'subject', subject_name, 'before', before, 'after', before));
  end if;

  if not only_report then
    if flag is not null then
      target := after;
      kept := kept || tms._posture_flag(c, flag, at_level, env, null, target, reason);
      -- a tenant's own setting wins over the environment's, so it has to change too
      if wanted = 'pause_replay' then
        for f in select x.company_id from tms.feature_flags_v2 x where x.key = flag and x.level = 'tenant' and x.value = 'true' order by x.id for update loop
          kept := kept || tms._posture_flag(c, flag, 'tenant', null, f.company_id, target, reason);
        end loop;
      end if;
      perform tms._signal('control');
    elsif wanted = 'quarantine' then
      perform tms._steer_agent(c, of_agent, 'quarantined', reason);
      perform tms._signal('control');
      perform pg_notify('tms_tasks', '');
    else
      answer := tms.safe_mode_on(jsonb_build_object('why', reason));
      if answer ? 'refused' then return tms._finish(c, answer); end if;
      kept := jsonb_build_object('halt', answer -> 'halt');
    end if;
  end if;
  insert into tms.posture_actions (action, subject, check_name, breach_since, by_name, report_only, observed, limit_text, samples, before, after, kept)
    values (wanted, subject_name, args ->> 'check', breach, c.who, only_report, args ->> 'observed', args ->> 'limit', coalesce(left(args ->> 'samples', 30), '0'), before, after, kept)
    returning * into a;
  perform tms._record(c, 'posture.' || wanted, 'done', subject_name, case when only_report then 'reported only: ' else '' end || reason, jsonb_build_object(
    'action', a.id::text, 'check', a.check_name, 'breach_since', tms._utc(breach), 'report_only', only_report, 'observed', a.observed, 'limit', a.limit_text, 'samples', a.samples,
    'before', before::text, 'after', after::text));
  perform tms._announce('posture.acted', jsonb_build_object('action', a.id::text, 'what', wanted, 'subject', subject_name, 'check', a.check_name, 'report_only', only_report,
    'observed', a.observed, 'limit', a.limit_text, 'before', before, 'after', after), 'posture-action/' || a.id);
  return tms._finish(c, jsonb_build_object('acted', case when only_report then 'reported' else 'done' end, 'id', a.id::text, 'subject', subject_name, 'before', before, 'after', after));
end
$$;
grant execute on function tms.posture_act(jsonb) to tms_caller;

-- Starting again is a person's: the operation is one that no machine has.
create or replace function tms.posture_undo(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('posture_undo', args, '{request_id,id,why}', 'release.unfreeze');
  a tms.posture_actions;
  reason text;
  k jsonb;
  back integer := 0;
  left_alone jsonb := '[]';
  is_now text;
begin
  if c.answer is not null then return c.answer; end if;
  reason := tms._text(args, 'why');
  perform tms._latch('posture');
  select * into a from tms.posture_actions x where x.id = (args ->> 'id')::bigint for update;
  if a.id is null then
    return tms._refuse(c, 'NOT_FOUND', format('there is no action %s', left(args ->> 'id', 20)), 'none has this number', array['tms posture actions']);
  end if;
  if a.report_only or a.undone_at is not null or tms._safe_mode_left(a) is not null then
    return tms._refuse(c, 'CONFLICT', format('action %s is not in force', a.id), case when a.report_only then 'it was reported and never done' else 'it was undone already' end, array['tms posture actions']);
  end if;
  if a.action = 'safe_mode' then
    return tms._refuse(c, 'CONFLICT', 'safe mode is not left this way', 'leaving it needs the override token', array['tms incident safe-mode off']);
  end if;
  if a.action = 'quarantine' then
    select s.state into is_now from tms.agent_state s where s.agent = substr(a.subject, 7);
    if is_now = 'quarantined' then
      perform tms._steer_agent(c, substr(a.subject, 7), a.before #>> '{}', reason);
      back := 1;
    else
      left_alone := jsonb_build_array(format('%s is %s', a.subject, is_now));
    end if;
    perform pg_notify('tms_tasks', '');
  else
    for k in select x.value from jsonb_array_elements(a.kept) with ordinality x (value, n) order by x.n desc loop
      if tms._posture_unflag(c, k, reason) then
        back := back + 1;
      else
        left_alone := left_alone || to_jsonb(format('%s of %s', k ->> 'key', tms._flag_scope(k ->> 'level', k ->> 'environment', (k ->> 'company')::uuid)));
      end if;
    end loop;
  end if;
  perform tms._signal('control');
  update tms.posture_actions x set undone_at = clock_timestamp(), undone_by = c.who, undone_why = reason where x.id = a.id;
  perform tms._record(c, 'posture.undo', 'done', format('%s %s of %s', a.action, a.id, a.subject), reason, jsonb_build_object('action', a.id::text, 'restored', back, 'left', left_alone));
  return tms._finish(c, jsonb_build_object('id', a.id::text, 'action', a.action, 'subject', a.subject, 'restored', back, 'left', left_alone));
end
$$;
grant execute on function tms.posture_undo(jsonb) to tms_caller;

create or replace function tms.posture_actions(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('posture_actions', args, '{limit,id}', 'slo.read');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('actions', (
    select coalesce(jsonb_agg(jsonb_build_object('id', x.id::text, 'action', x.action, 'subject', x.subject, 'check', x.check_name, 'breach_since', tms._utc(x.breach_since), 'at', tms._utc(x.at),
             'by', case when tms._clear(c, null) then x.by_name else 'redacted' end, 'observed', x.observed, 'limit', x.limit_text, 'samples', x.samples, 'before', x.before, 'after', x.after,
             'state', case when x.report_only then 'reported' when coalesce(x.undone_at, tms._safe_mode_left(x)) is not null then 'undone' else 'in force' end,
             'undone_at', tms._utc(coalesce(x.undone_at, tms._safe_mode_left(x))), 'undone_by', case when x.undone_by is null or tms._clear(c, null) then x.undone_by else 'redacted' end,
             'undone_why', case when x.undone_why is null or tms._clear(c, null) then x.undone_why else 'redacted' end) order by x.id desc), '[]')
      from (select * from tms.posture_actions y where not args ? 'id' or y.id = (args ->> 'id')::bigint order by y.id desc limit tms._limit(args)) x));
end
$$;
grant execute on function tms.posture_actions(jsonb) to tms_caller;
