-- Ending tasks: everything a task did commits together with its end.
--
-- Guarantees: only the newest claim of a living worker ends a task, once; its events, follow-up tasks and `apply` calls commit
-- in that transaction or not at all; one task's failing effect fails that task only, and what safe mode turns away waits for its end;
-- nothing ends while halted, and nothing of a paused tenant or agent or of a stopped replay; what needs approval is parked with its
-- effects.

set local role tms_owner;

-- The next try: doubles, capped, and spread so that what failed together doesn't come back together.
create or replace function tms._backoff(attempt integer, base_ms integer, cap_ms integer) returns interval
language sql volatile as $$
  select least(cap_ms, base_ms * pg_catalog.power(2, least(attempt - 1, 30))) * (0.5 + pg_catalog.random() / 2) * interval '1 millisecond'
$$;

-- Calls an agent's own SQL function, once for each of the arguments, in their order. A superuser is a member of every role, so on
-- the embedded database the owner is compared by name instead.
create or replace function tms._apply_all(fn text, args jsonb[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  f regprocedure;
begin
  select p.oid::regprocedure into f from pg_proc p join pg_namespace n on n.oid = p.pronamespace
   where n.nspname = split_part(fn, '.', 1) and p.proname = split_part(fn, '.', 2) and p.prosecdef and p.prokind = 'f'
     and p.pronargs = 1 and p.proargtypes[0] = 'jsonb'::regtype and n.nspname not in ('tms', 'pg_catalog', 'information_schema')
     and p.proowner not in ('tms_owner'::regrole, 'tms_identity'::regrole);
  if f is null then
    raise exception 'apply: % is no security definer function of yours with one jsonb argument', left(fn, 120) using errcode = 'TM403';
  end if;
  -- count: whatever it returns, it is called for each
  execute format('select count(*) from (select %s(u.args) from unnest($1) with ordinality u (args, o) order by u.o offset 0) called', f::oid::regproc) using args;
end
$$;

-- Constraints that wait for the commit are checked now, as it were the commit: the fence's own first, so that what safe mode turns away is
-- the task's that wrote it. Before 18 triggers of others would run with this function's rights instead of those of whoever wrote the rows:
-- there they wait.
create or replace function tms._check_deferred() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  set constraints tms.at_commit immediate;
  set constraints tms.at_commit deferred;
  if current_setting('server_version_num')::integer < 180000 then return; end if;
  set constraints all immediate;
  -- what follows may put off again what may be put off
  set constraints all deferred;
end
$$;

-- Does an error inside an apply end the whole call: a halt (the batch waits for its end), a snapshot that is too old, or somebody
-- who cancels the call, by hand or by a time limit. What a function raises of itself is its task's failure, whatever code it has.
create or replace function tms._ends_call(code text, message text, context text, epoch bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  f jsonb;
begin
  if code = '57014' then return message like 'canceling statement%' or split_part(context, E'\n', 1) not like '%RAISE%'; end if;
  if code not in ('TM423', '40001') then return false; end if;
  f := tms._fence_json();
  return f -> 'halted' = 'true' or (f ->> 'epoch')::bigint <> epoch
    or (code = '40001' and current_setting('transaction_isolation') <> 'read committed');
end
$$;

-- Is it safe mode's: a write to a guarded table, or one that came while safe mode ended. It stops that write, and no task for it.
create or replace function tms._safe_mode_stops(code text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return code in ('TM423', '40001') and tms._fence_json() -> 'safe_mode' = 'true';
end
$$;

-- Events of finished tasks, and a delivery for each target that wants them.
create or replace function tms._publish(
  companies uuid[], topics text[], payloads jsonb[], orders text[], keys text[], tasks bigint[], claims integer[], traces text[], lane text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  e record;
  fresh bigint[] := array(select u.ord from unnest(keys) with ordinality u (key, ord) where u.key is null);
  n integer;
begin
  -- Within its window a key makes one event. In the order of the keys, so that two batches with the same ones wait for each
  -- other and don't deadlock; the events themselves are written in the order in which they were published.
  for e in select * from unnest(companies, topics, keys) with ordinality u (company_id, topic, key, ord) where u.key is not null
            order by u.company_id, u.topic, u.key, u.ord loop
    insert into tms.outbox_keys as k (company_id, topic, key, event_id, until)
      values (e.company_id, e.topic, e.key, 0, clock_timestamp() + interval '24 hours')
      on conflict on constraint outbox_keys_pkey do update set until = excluded.until where k.until < clock_timestamp();
    if found then fresh := fresh || e.ord; end if;
  end loop;
  with events as (
    insert into tms.outbox_events (company_id, topic, payload, ordering_key, idempotency_key, task_id, claim, traceparent)
      select w.company_id, w.topic, coalesce(w.payload, '{}'), w.ordering_key, w.key, w.task_id, w.claim, w.traceparent
        from unnest(companies, topics, payloads, orders, keys, tasks, claims, traces) with ordinality
          w (company_id, topic, payload, ordering_key, key, task_id, claim, traceparent, ord)
       where w.ord = any (fresh) order by w.ord
      returning id, company_id, topic, ordering_key, idempotency_key, created_at
  ), deliveries as (
    insert into tms.outbox_deliveries (event_id, target, company_id, lane, ordering_key, created_at)
      select v.id, t.name, v.company_id, lane, v.ordering_key, v.created_at
        from events v join tms.outbox_targets t on tms._matches(v.topic, t.topics) and (t.company_id is null or t.company_id = v.company_id)
       order by v.id
  ), remembered as (
    update tms.outbox_keys k set event_id = v.id from events v
     where v.idempotency_key is not null and k.company_id = v.company_id and k.topic = v.topic and k.key = v.idempotency_key
  )
  select count(*) into n from events;
  if n > 0 then perform pg_notify('tms_outbox', ''); end if;
  return n;
end
$$;

-- The tasks whose effects their policy doesn't allow, and why. All at once: asked one by one it cost more than all else they do.
create or replace function tms._effects_problems(ids bigint[], agents text[], effects jsonb[]) returns table (id bigint, error text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return query
    select x.id, x.error from (
      select u.id, case when p.agent is null then 'no policy is loaded for it'
               when octet_length(u.effects::text) > 1048576 then 'its effects are larger than 1 MB'
               else coalesce(
                 (select format('publish to "%s" is not allowed', left(coalesce(e ->> 'topic', ''), 120))
                    from jsonb_array_elements(case when jsonb_typeof(u.effects -> 'events') = 'array' then u.effects -> 'events' else '[]' end) e
                   where not tms._matches(coalesce(e ->> 'topic', ''), p.publish) or length(e ->> 'topic') > 120
                      or length(e ->> 'order') not between 1 and 200 or length(e ->> 'key') not between 1 and 200 limit 1),
                 (select format(case when s.odd then 'the priority or the delay of "%s" is not a whole number' else 'enqueue of "%s" is not allowed' end, left(coalesce(e ->> 'function', ''), 120))
                    from jsonb_array_elements(case when jsonb_typeof(u.effects -> 'tasks') = 'array' then u.effects -> 'tasks' else '[]' end) e
                   cross join lateral (select coalesce((e ->> 'priority') !~ '^-?\d{1,9}$', false) or coalesce((e ->> 'delay_ms') !~ '^-?\d{1,18}$', false)) s (odd)
                   where s.odd or not tms._matches(coalesce(e ->> 'function', ''), p.enqueue)
                      or not exists (select from tms.agent_functions f where f.fn_name = e ->> 'function') or length(e ->> 'key') not between 1 and 200
                      or octet_length((e -> 'payload')::text) > 262144 limit 1),
                 (select format('apply of "%s" is not allowed', left(coalesce(e ->> 'fn', ''), 120))
                    from jsonb_array_elements(case when jsonb_typeof(u.effects -> 'apply') = 'array' then u.effects -> 'apply' else '[]' end) e
                   where not coalesce(e ->> 'fn' = any (p.apply), false) limit 1)) end as error
        from unnest(ids, agents, effects) u (id, agent, effects) left join tms.agent_policies p on p.agent = u.agent) x
     where x.error is not null;
end
$$;

-- What earlier attempts' runs already say was spent: each run has its own.
create or replace function tms._booked(task bigint) returns table (tokens bigint, calls bigint, cost numeric)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(sum(r.tokens), 0)::bigint, coalesce(sum(r.calls), 0)::bigint, coalesce(sum(r.cost), 0) from tms.agent_runs r where r.task_id = task
$$;

-- Ends a batch. `state` is what the tasks must be in: running, or awaiting_approval when somebody approves. Answers what became of
-- each of `rest`, and the done ones that were not this worker's to end.
create or replace function tms._end_tasks(c tms.call, worker bigint, state text,
  ids bigint[], claims integer[], spans integer[], traces text[], rest jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  epoch bigint := (tms._fence_json() ->> 'epoch')::bigint;
  stamp timestamptz := clock_timestamp();
  -- the default of the column, once for all of them
  xid bigint := pg_current_xact_id()::text::bigint;
  approving boolean := state = 'awaiting_approval';
  stopped_agents text[] := array(select s.agent from tms.agent_state s where s.state in ('paused', 'quarantined'));
  stopped_tenants uuid[] := array(select s.company_id from tms.tenant_state s where s.state = 'paused');
  careful text[] := array(select unnest(p.approval) from tms.agent_policies p);
  -- rest, taken apart
  r_id bigint[]; r_company uuid[]; r_agent text[]; r_fn text[]; r_parent text[]; r_replay bigint[]; r_claim integer[]; r_outcome text[]; r_ms integer[]; r_trace text[]; r_class text[]; r_error text[]; r_retry boolean[]; r_effects jsonb[]; r_output jsonb[]; r_delay bigint[]; r_unfit boolean[];
  done_ids bigint[]; taken bigint[];
  t_company uuid[]; t_agent text[];
  bad bigint[] := '{}'; bad_class text[] := '{}'; bad_error text[] := '{}';
  answers jsonb := '{}';
  stale jsonb;
  x record; e record;
  broken boolean;
  acting uuid;
  said text; context text; constraint_at text;
  pulses integer := 0;
  place integer;
  -- these have more to end than a status
  busy bigint[] := array(select s.task_id from tms.task_spend s where s.task_id = any (ids) union select s.task_id from tms.task_steps s where s.task_id = any (ids));
  stopped_replays bigint[];
  p_agent text[]; p_ok integer[]; p_claimed timestamptz[];
  -- below FULL every completion is looked at for its tenant's mode
  assisted boolean := coalesce(tms._flag_value('autonomy.mode', null) <> '"FULL"', true)
    or exists (select from tms.feature_flags_v2 f where f.key = 'autonomy.mode' and (f.level = 'tenant' or f.rollout < 10000));
begin
  -- ---- completed, nothing else to do: one statement
  if cardinality(ids) > 0 then
    with given as (
      select * from unnest(ids, claims, spans, traces) u (id, claim, ms, trace)
    ), ended as (
      update tms.agent_tasks t set status = 'completed', finished_at = stamp, run_until = null, error_class = null, error = null
        from given g
       -- coalesce: by the primary key, please. The index of what runs would be walked once for each id: 265 ms instead of 5.
       where t.id = g.id and t.claim = g.claim and coalesce(t.status = 'running' and t.worker_id = worker, false) and t.run_until > stamp and not assisted and t.id not in (select unnest(busy))
         and t.fn_name <> all (careful) and t.agent <> all (stopped_agents) and t.company_id <> all (stopped_tenants) and t.replay_run_id is null
       returning t.id, t.claim, t.attempts, t.company_id, t.agent, t.fn_name, t.claimed_at, g.ms, g.trace
    ), runs as (
      insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, worker_id, outcome, started_at, finished_at, ms, trace_id, epoch, xid)
        select n.id, n.claim, n.attempts, n.company_id, n.agent, n.fn_name, worker, 'completed', n.claimed_at, stamp, coalesce(n.ms, 0), n.trace, epoch, xid from ended n
    )
    select (select array_agg(n.id) from ended n), array_agg(k.agent), array_agg(k.n), array_agg(k.claimed) into done_ids, p_agent, p_ok, p_claimed
      from (select n.agent, count(*)::integer as n, max(n.claimed_at) as claimed from ended n group by 1) k;
    if cardinality(done_ids) is distinct from cardinality(ids) then
      -- what isn't simply done: of a replay, to be approved, paused, not its own, or done by the answer that got lost
      rest := coalesce(rest, '[]') || coalesce((
        select jsonb_agg(jsonb_build_object('id', g.id::text, 'claim', g.claim, 'outcome', 'completed', 'ms', g.ms, 'trace', g.trace))
          from unnest(ids, claims, spans, traces) g (id, claim, ms, trace) where g.id not in (select unnest(done_ids))), '[]');
    end if;
  end if;
  if rest is null or jsonb_array_length(rest) = 0 then
    if p_agent is not null then perform tms._pulse(p_agent, p_ok, array_fill(0, array[cardinality(p_agent)]), p_claimed); end if;
    return answers;
  end if;

  -- ---- the rest, in the order of ids so that two batches never wait for each other crosswise
  select array_agg(z.id), array_agg(z.company_id), array_agg(z.agent), array_agg(z.fn_name), array_agg(z.parent), array_agg(z.replay_run_id), array_agg(z.claim), array_agg(z.outcome), array_agg(z.ms),
         array_agg(z.trace), array_agg(z.class), array_agg(z.error), array_agg(z.retry), array_agg(z.effects), array_agg(z.output), array_agg(z.delay_ms), array_agg(z.unfit)
    into r_id, r_company, r_agent, r_fn, r_parent, r_replay, r_claim, r_outcome, r_ms, r_trace, r_class, r_error, r_retry, r_effects, r_output, r_delay, r_unfit
    from (select v.*, mine.*
            from (select distinct on (y.id) y.* from jsonb_to_recordset(rest) y (id bigint, claim integer, outcome text, ms integer, trace text, class text, error text, retry boolean, effects jsonb, output jsonb, delay_ms bigint, unfit boolean)
                   order by y.id, y.claim desc) v
            -- only those that are this worker's now; the lock keeps the reaper off
            join lateral (select t.company_id, t.agent, t.fn_name, t.traceparent as parent, t.replay_run_id from tms.agent_tasks t where t.id = v.id and t.claim = v.claim and t.status = state
                            and (approving or (t.worker_id = worker and (t.run_until > stamp or v.outcome <> 'completed'))) for update) mine on true
           order by v.id) z;
  -- A replay's row is held from here until all this has committed, or it could be stopped between the look at it and the end of its
  -- task. Before anything that others hold when they come for it.
  if exists (select from unnest(r_replay) r where r is not null) then
    perform from tms.replay_runs r where r.id = any (r_replay) order by r.id for update;
    -- another statement: one would not lock what its condition leaves out
    stopped_replays := array(select r.id from tms.replay_runs r where r.id = any (r_replay) and r.stopped_why is not null);
  end if;
  if p_agent is not null then perform tms._pulse(p_agent, p_ok, array_fill(0, array[cardinality(p_agent)]), p_claimed); end if;
  if exists (select from unnest(r_outcome) o where o is null or o not in ('completed', 'failed', 'returned')) then
    raise exception '"outcome" is completed, failed or returned' using errcode = 'TM400';
  end if;

  -- what was not found: done before (the answer got lost), or somebody else's by now
  select jsonb_object_agg(y.id::text, case
           when exists (select from tms.agent_runs r where r.task_id = y.id and r.claim = y.claim and r.worker_id = worker and r.outcome = 'completed') then 'completed'
           when exists (select from tms.agent_runs r where r.task_id = y.id and r.claim = y.claim and r.worker_id = worker and r.outcome = 'awaiting_approval') then 'awaiting_approval'
           else 'stale' end)
    into stale from jsonb_to_recordset(rest) y (id bigint, claim integer) where y.id not in (select unnest(r_id));
  answers := answers || coalesce(stale, '{}');
  if r_id is null then return answers; end if;

  -- ---- completed ones: allowed by the policy?
  select array_agg(v.id), array_agg('policy'::text), array_agg(v.error) into bad, bad_class, bad_error
    from (select array_agg(u.id) as ids, array_agg(u.agent) as agents, array_agg(u.effects) as effects
            from unnest(r_id, r_agent, r_outcome, r_effects) u (id, agent, outcome, effects) where u.outcome = 'completed' and u.effects is not null) w,
         tms._effects_problems(w.ids, w.agents, w.effects) v;
  bad := coalesce(bad, '{}'); bad_class := coalesce(bad_class, '{}'); bad_error := coalesce(bad_error, '{}');

  -- paused: nothing commits, no failure either; the work goes back
  for x in select u.id from unnest(r_id, r_outcome, r_agent, r_company) u (id, outcome, agent, company_id)
            where u.outcome in ('completed', 'failed') and (u.agent = any (stopped_agents) or u.company_id = any (stopped_tenants)) loop
    if approving then answers := answers || jsonb_build_object(x.id::text, 'paused'); end if;
    place := array_position(r_id, x.id);
    r_outcome[place] := case when approving then 'ignored' else 'returned' end;
    r_error[place] := null;
    r_delay[place] := null;
  end loop;

  -- of a stopped replay: the same, and what goes back is withdrawn below
  if stopped_replays <> '{}' then
    for x in select u.id from unnest(r_id, r_outcome, r_replay) u (id, outcome, run) where u.outcome = 'completed' and u.run = any (stopped_replays) loop
      if approving then answers := answers || jsonb_build_object(x.id::text, 'stale'); end if;
      r_outcome[array_position(r_id, x.id)] := case when approving then 'ignored' else 'returned' end;
    end loop;
  end if;

  -- to be approved: parked with what it would do
  if not approving and (assisted or r_fn && careful) then
    for x in select u.id, u.claim, u.effects, u.output, u.ms, u.trace, t.company_id, t.agent, t.fn_name, t.attempts, t.claimed_at
               from unnest(r_id, r_claim, r_outcome, r_effects, r_output, r_ms, r_trace) u (id, claim, outcome, effects, output, ms, trace) join tms.agent_tasks t on t.id = u.id
              where u.outcome = 'completed' and u.id not in (select unnest(bad))
                and (t.fn_name = any (careful) or (assisted and coalesce(tms._flag_value('autonomy.mode', t.company_id) <> '"FULL"', true))) loop
      insert into tms.task_effects as f (task_id, company_id, claim, effects) values (x.id, x.company_id, x.claim, jsonb_build_object('effects', x.effects, 'output', x.output))
        on conflict on constraint task_effects_pkey do update set claim = excluded.claim, effects = excluded.effects, at = excluded.at;
      update tms.agent_tasks t set status = 'awaiting_approval', worker_id = null, run_until = null where t.id = x.id;
      insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, worker_id, outcome, started_at, finished_at, ms, trace_id, epoch)
        values (x.id, x.claim, x.attempts, x.company_id, x.agent, x.fn_name, worker, 'awaiting_approval', x.claimed_at, stamp, coalesce(x.ms, 0), x.trace, epoch);
      answers := answers || jsonb_build_object(x.id::text, 'awaiting_approval');
      r_outcome[array_position(r_id, x.id)] := 'parked';
    end loop;
  end if;

  -- ---- apply: all of them in one subtransaction; only when one fails, each task in its own
  if exists (select from unnest(r_effects, r_outcome) u (f, o) where u.o = 'completed' and jsonb_typeof(u.f -> 'apply') = 'array') then
    broken := false;
    begin
      -- what follows each other of one function and one tenant is one call: planning each was most of the time
      for e in select k.company_id, k.fn, array_agg(k.args order by k.o) as args from (
                 select y.*, y.o - row_number() over (partition by y.company_id, y.fn order by y.o) as run from (
                   select u.company_id, a.value ->> 'fn' as fn, a.value -> 'args' as args, row_number() over (order by u.company_id, u.id, a.ordinality) as o
                     from unnest(r_id, r_company, r_outcome, r_effects) u (id, company_id, outcome, effects)
                    cross join lateral jsonb_array_elements(u.effects -> 'apply') with ordinality a
                    where u.outcome = 'completed' and u.id not in (select unnest(bad)) and jsonb_typeof(u.effects -> 'apply') = 'array') y) k
                group by k.company_id, k.fn, k.run order by min(k.o) loop
        if acting is distinct from e.company_id then
          acting := e.company_id;
          perform tms._act_for(acting);
        end if;
        perform tms._apply_all(e.fn, e.args);
      end loop;
      perform tms._check_deferred();
    -- others are not all
    exception when query_canceled or assert_failure or others then
      get stacked diagnostics said = message_text, context = pg_exception_context;
      if tms._ends_call(sqlstate, said, context, epoch) then raise; end if;
      broken := true;
    end;
    if broken then
      for x in select u.id, u.effects, u.company_id from unnest(r_id, r_company, r_outcome, r_effects) u (id, company_id, outcome, effects)
                where u.outcome = 'completed' and u.id not in (select unnest(bad)) and jsonb_typeof(u.effects -> 'apply') = 'array' order by u.company_id, u.id loop
        begin
          perform tms._act_for(x.company_id);
          for e in select a.value ->> 'fn' as fn, a.value -> 'args' as args from jsonb_array_elements(x.effects -> 'apply') with ordinality a order by a.ordinality loop
            perform tms._apply_all(e.fn, array[e.args]);
          end loop;
          perform tms._check_deferred();
        exception when query_canceled or assert_failure or others then
          get stacked diagnostics said = message_text, context = pg_exception_context, constraint_at = constraint_name;
          -- a person who approves hears it at once
          if tms._ends_call(sqlstate, said, context, epoch) or (approving and tms._safe_mode_stops(sqlstate)) then raise; end if;
          if tms._safe_mode_stops(sqlstate) then
            place := array_position(r_id, x.id);
            r_outcome[place] := 'returned';
            r_delay[place] := 30000;
            r_error[place] := format('apply %s: safe mode is on, nothing is written to guarded tables', left(e.fn, 120));
            continue;
          end if;
          -- the message may quote rows: only the code and the constraint are kept
          bad := bad || x.id;
          bad_class := bad_class || 'bug'::text;
          bad_error := bad_error || format('apply %s failed: SQLSTATE %s%s', left(e.fn, 120), sqlstate, case when constraint_at <> '' then ', constraint ' || constraint_at end);
        end;
      end loop;
    end if;
    perform tms._act_for(null);
  end if;

  -- ---- events and follow-ups of those that hold
  perform tms._publish(array_agg(y.company_id), array_agg(y.value ->> 'topic'), array_agg(y.value -> 'payload'), array_agg(y.value ->> 'order'), array_agg(y.value ->> 'key'),
      array_agg(y.id), array_agg(y.claim), array_agg(coalesce(y.value ->> 'traceparent', y.parent)), 'normal')
    from (select u.*, v.value from unnest(r_id, r_claim, r_company, r_parent, r_outcome, r_effects) u (id, claim, company_id, parent, outcome, effects)
           cross join lateral jsonb_array_elements(u.effects -> 'events') with ordinality v
           where u.outcome = 'completed' and u.id not in (select unnest(bad)) and jsonb_typeof(u.effects -> 'events') = 'array'
           order by u.id, v.ordinality) y
  having count(*) > 0;

  if exists (select from unnest(r_effects, r_outcome) u (f, o) where u.o = 'completed' and jsonb_typeof(u.f -> 'tasks') = 'array') then
  with wanted as materialized (
    select u.company_id, u.id as parent, v.ordinality as ord, v.value ->> 'function' as fn, v.value -> 'payload' as payload, v.value ->> 'key' as key,
           least(greatest(coalesce((v.value ->> 'priority')::integer, 0), -1), 1)::smallint as priority, least(greatest(coalesce((v.value ->> 'delay_ms')::bigint, 0), 0), 31536000000) as delay_ms,
           coalesce(v.value ->> 'traceparent', u.parent) as traceparent
      from unnest(r_id, r_company, r_parent, r_outcome, r_effects) u (id, company_id, parent, outcome, effects)
     cross join lateral jsonb_array_elements(u.effects -> 'tasks') with ordinality v
     where u.outcome = 'completed' and u.id not in (select unnest(bad)) and jsonb_typeof(u.effects -> 'tasks') = 'array'
  ), queues as (
    select tms._touch_queues(k.company_id, array_agg(f.agent), array_agg(k.priority)) from wanted k join tms.agent_functions f on f.fn_name = k.fn group by k.company_id
  ), made as (
    insert into tms.agent_tasks (company_id, agent, fn_name, payload, priority, max_attempts, next_run_at, idempotency_key, traceparent, created_by, parent_id)
      select k.company_id, f.agent, k.fn, coalesce(k.payload, '{}'), k.priority, p.max_attempts, stamp + k.delay_ms * interval '1 millisecond', k.key, left(k.traceparent, 80), c.principal_id, k.parent
        from wanted k join tms.agent_functions f on f.fn_name = k.fn join tms.agent_policies p on p.agent = f.agent order by k.parent, k.ord
      on conflict (company_id, fn_name, idempotency_key) where idempotency_key is not null do nothing returning 1
  )
  select count(*) into pulses from made m cross join (select count(*) from queues) q;
  if pulses > 0 then perform pg_notify('tms_tasks', ''); end if;
  end if;

  -- ---- completed
  with ended as (
    update tms.agent_tasks t set status = 'completed', finished_at = stamp, run_until = null, output = u.output, error_class = null, error = null
      from unnest(r_id, r_claim, r_outcome, r_ms, r_trace, r_output) u (id, claim, outcome, ms, trace, output)
     where t.id = u.id and u.outcome = 'completed' and u.id not in (select unnest(bad))
     returning t.id, t.claim, t.attempts, t.company_id, t.agent, t.fn_name, t.claimed_at, u.ms, u.trace
  ), spent as (
    delete from tms.task_spend s using ended n where s.task_id = n.id returning s.*
  ), own as (
    select s.task_id, s.tokens - b.tokens as tokens, s.calls - b.calls as calls, s.cost - b.cost as cost from spent s cross join lateral tms._booked(s.task_id) b
  ), runs as (
    insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, worker_id, outcome, started_at, finished_at, ms, trace_id, epoch, tokens, calls, cost)
      select n.id, n.claim, n.attempts, n.company_id, n.agent, n.fn_name, worker, 'completed', n.claimed_at, stamp, coalesce(n.ms, 0), n.trace, epoch,
             coalesce(o.tokens, 0), coalesce(o.calls, 0), coalesce(o.cost, 0)
        from ended n left join own o on o.task_id = n.id
  ), pulse as (
    select tms._pulse(array_agg(k.agent), array_agg(k.n), array_fill(0, array[count(*)::integer]), array_agg(k.claimed))
      from (select n.agent, count(*)::integer as n, max(n.claimed_at) as claimed from ended n group by 1) k
  )
  select answers || coalesce(jsonb_object_agg(n.id::text, 'completed'), '{}')
    into answers from ended n left join pulse p on true;
  delete from tms.task_steps s where s.task_id = any (r_id) and exists (select from tms.agent_tasks t where t.id = s.task_id and t.status = 'completed');
  delete from tms.task_effects f where f.task_id = any (r_id) and exists (select from tms.agent_tasks t where t.id = f.task_id and t.status = 'completed');

  -- ---- handed back: no attempt spent
  if 'returned' = any (r_outcome) then
    update tms.agent_tasks t set status = 'pending', worker_id = null, run_until = null, attempts = greatest(t.attempts - 1, 0),
           next_run_at = case when u.delay > 0 then stamp + least(u.delay, 3600000) * interval '1 millisecond' else t.next_run_at end,
           error_class = case when u.error is null then t.error_class end, error = coalesce(left(u.error, 2000), t.error)
      from unnest(r_id, r_outcome, r_delay, r_error) u (id, outcome, delay, error)
     -- coalesce: by the primary key, as above
     where t.id = u.id and u.outcome = 'returned' and coalesce(t.status = 'running', false);
  end if;
  select answers || coalesce(jsonb_object_agg(u.id::text, 'returned'), '{}') into answers from unnest(r_id, r_outcome) u (id, outcome) where u.outcome = 'returned';

  -- A probe that came back unused, or with an input that doesn't fit, has probed nothing: the next one may go.
  if exists (select from tms.agent_state s where s.breaker = 'half_open') then
    update tms.agent_state s set breaker_until = clock_timestamp()
      from unnest(r_id, r_agent, r_outcome, r_unfit) u (id, agent, outcome, unfit) join tms.agent_tasks t on t.id = u.id
     where s.breaker = 'half_open' and s.agent = u.agent and t.claimed_at >= s.breaker_since and (u.outcome = 'returned' or (u.outcome = 'failed' and u.unfit));
  end if;

  -- ---- failed
  for e in select u.id, coalesce(b.class, case when u.class in ('timeout', 'validation', 'external_api', 'quota_exceeded', 'policy', 'bug') then u.class else 'bug' end) as class,
                  coalesce(b.error, left(u.error, 2000), '') as error,
                  coalesce(u.retry, true) as retry, u.ms, u.trace, u.unfit
             from unnest(r_id, r_outcome, r_class, r_error, r_retry, r_ms, r_trace, r_unfit) u (id, outcome, class, error, retry, ms, trace, unfit)
             left join unnest(bad, bad_class, bad_error) b (id, class, error) on b.id = u.id
            where u.outcome = 'failed' or (u.outcome = 'completed' and b.id is not null) loop
    answers := answers || jsonb_build_object(e.id::text, tms._fail_task(e.id, e.class, e.error, e.retry, case when e.unfit then 'unfit' else 'failed' end, e.ms, e.trace));
  end loop;
  if stopped_replays is not null then perform tms._replay_counted(r_replay); end if;
  return answers;
end
$$;

-- Counts outcomes for the breaker, which opens when too many fail. `claimed`: when the newest of each was.
drop function if exists tms._pulse(text[], integer[], integer[]);
create or replace function tms._pulse(agents text[], oks integer[], fails integer[], claimed timestamptz[]) returns void
language sql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  insert into tms.agent_pulse as p (agent, minute, shard, ok, errors)
    select u.agent, date_trunc('minute', clock_timestamp()), pg_backend_pid() % 8, u.ok, u.fail from unnest(agents, oks, fails) u (agent, ok, fail) order by 1
    on conflict on constraint agent_pulse_pkey do update set ok = p.ok + excluded.ok, errors = p.errors + excluded.errors;
  -- A probe that came back well closes the breaker. What was claimed since it opened is a probe; what ran before says nothing about now.
  with closed as (
    update tms.agent_state s set breaker = 'closed', breaker_until = null, breaker_opened = 0, breaker_since = clock_timestamp(), breaker_why = ''
      from unnest(agents, oks, claimed) u (agent, ok, claimed)
     where s.agent = u.agent and u.ok > 0 and s.breaker = 'half_open' and u.claimed >= s.breaker_since returning s.agent)
  -- minutes are too coarse to tell before from after
  delete from tms.agent_pulse p using closed k where p.agent = k.agent
$$;

drop function if exists tms._breaker(text);
create or replace function tms._breaker(failed_agent text, claimed timestamptz) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  p tms.agent_policies;
  s tms.agent_state;
  good bigint;
  errors bigint;
begin
  select * into p from tms.agent_policies x where x.agent = failed_agent;
  if p.agent is null then return; end if;
  select * into s from tms.agent_state x where x.agent = failed_agent;
  if s.breaker = 'half_open' then
    if claimed < s.breaker_since then return; end if;
    update tms.agent_state x set breaker = 'open', breaker_opened = x.breaker_opened + 1, breaker_since = clock_timestamp(),
           breaker_until = clock_timestamp() + least(p.breaker_seconds * power(2, least(x.breaker_opened, 10)), 900) * interval '1 second', breaker_why = 'the probe failed'
     where x.agent = failed_agent;
    return;
  end if;
  select coalesce(sum(k.ok), 0), coalesce(sum(k.errors), 0) into good, errors from tms.agent_pulse k
   where k.agent = failed_agent and k.minute > clock_timestamp() - interval '5 minutes'
     and k.minute >= date_trunc('minute', coalesce(s.breaker_since, '-infinity'));
  if good + errors >= p.breaker_samples and errors * 100 > p.breaker_percent * (good + errors) then
    insert into tms.agent_state as x (agent, breaker, breaker_opened, breaker_since, breaker_until, breaker_why)
      values (failed_agent, 'open', 1, clock_timestamp(), clock_timestamp() + p.breaker_seconds * interval '1 second', format('%s of %s failed', errors, good + errors))
      on conflict (agent) do update set breaker = 'open', breaker_opened = x.breaker_opened + 1, breaker_since = clock_timestamp(),
        breaker_until = excluded.breaker_until, breaker_why = excluded.breaker_why where x.breaker = 'closed';
    if found then perform tms._signal('control'); end if;
  end if;
end
$$;

-- One failed attempt: another try, or the end with a dead letter. Locks the task.
create or replace function tms._fail_task(task bigint, class text, error text, retry boolean, as_outcome text, ms integer, trace text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
  t tms.agent_tasks;
  p tms.agent_policies;
  final boolean;
  became text;
  spent tms.task_spend;
begin
  select * into t from tms.agent_tasks x where x.id = task for update;
  select * into p from tms.agent_policies x where x.agent = t.agent;
  -- what cannot get better by itself isn't tried again
  final := t.attempts >= t.max_attempts or not retry or class in ('validation', 'policy') or p.agent is null;
  became := case when not final then 'pending' when t.attempts >= t.max_attempts then 'quarantined' else 'failed' end;
  update tms.agent_tasks x set status = became, worker_id = null, run_until = null, error_class = class, error = left(_fail_task.error, 2000),
         finished_at = case when final then clock_timestamp() end,
         next_run_at = case when final then x.next_run_at else clock_timestamp() + tms._backoff(t.attempts, p.backoff_ms, p.backoff_cap_ms) end
   where x.id = task;
  select s.task_id, s.company_id, s.tokens - b.tokens, s.calls - b.calls, s.cost - b.cost into spent
    from tms.task_spend s cross join tms._booked(task) b where s.task_id = task;
  insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, worker_id, outcome, error_class, error, started_at, finished_at, ms, trace_id, epoch, tokens, calls, cost)
    values (t.id, t.claim, t.attempts, t.company_id, t.agent, t.fn_name, t.worker_id, case when final then 'failed' when as_outcome = 'lost' then 'lost' else 'retried' end,
            class, left(error, 2000), t.claimed_at, clock_timestamp(),
            coalesce(ms, least(extract(epoch from clock_timestamp() - t.claimed_at) * 1000, 2147483647)::integer, 0), trace, (tms._fence_json() ->> 'epoch')::bigint,
            coalesce(spent.tokens, 0), coalesce(spent.calls, 0), coalesce(spent.cost, 0));
  -- An input that doesn't fit is its sender's mistake: one tenant's must not take the agent from all.
  if as_outcome <> 'unfit' then
    perform tms._pulse(array[t.agent], array[0], array[1], array[t.claimed_at]);
    perform tms._breaker(t.agent, t.claimed_at);
  end if;
  if final then
    delete from tms.task_spend s where s.task_id = task;
    delete from tms.task_effects f where f.task_id = task;
    perform tms._bury(t, class, error, trace);
  end if;
  return case when final then became else 'retry' end;
end
$$;

-- A dead letter: a new one, or the one this task was a replay of, open again.
create or replace function tms._bury(t tms.agent_tasks, class text, error text, trace text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if t.dead_letter_id is not null then
    update tms.dead_letter_queue d set status = 'open', error_class = class, error = left(_bury.error, 2000), attempts = d.attempts + t.attempts,
           trace_id = coalesce(trace, d.trace_id), snooze_until = null, closed_at = null
     where d.id = t.dead_letter_id;
    if t.replay_run_id is not null then
      update tms.replay_runs r set tried = r.tried + 1, failed = r.failed + 1 where r.id = t.replay_run_id;
      perform tms._replay_counted(array[t.replay_run_id]);
    end if;
  else
    insert into tms.dead_letter_queue as d (task_id, company_id, agent, fn_name, payload, bytes, error_class, error, attempts, trace_id, traceparent)
      values (t.id, t.company_id, t.agent, t.fn_name, t.payload, octet_length(t.payload::text), class, left(error, 2000), t.attempts, trace, t.traceparent)
      on conflict (task_id) do update set status = 'open', error_class = excluded.error_class, error = excluded.error, attempts = excluded.attempts, snooze_until = null, closed_at = null;
  end if;
  perform tms._publish(array[t.company_id], array['agent.dead_letter'], array[jsonb_build_object('task', t.id::text, 'agent', t.agent, 'function', t.fn_name, 'class', class,
    'error', left(error, 500), 'attempts', t.attempts, 'trace_id', trace)], array[null::text], array[null::text], array[t.id], array[t.claim], array[t.traceparent], 'normal');
  perform pg_notify('tms_dlq', '');
end
$$;

-- plan_cache_mode: planned anew at each call, a batch of one cost 2.8 ms instead of 1.4. Lists are then parameters to the planner, so
-- here and below what is not in one is asked as a subquery, which is hashed: `<> all` would go through all of it for each row.
create or replace function tms.tasks_finish(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  c tms.call := tms._begin_work('tasks_finish', args, '{worker,done,rest,logs}', 'task.work');
  w tms.workers;
  d jsonb := args -> 'done';
  ids bigint[];
  answers jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  w := tms._worker(c, (args ->> 'worker')::bigint);
  if w.id is null then return tms._no_worker(c, args ->> 'worker'); end if;
  if w.slots = 0 then
    return tms._refuse(tms._name(c), 'NO_SLOT', format('worker %s holds no slot', w.id), 'the fleet''s slots are given to others', array['tms agents status']);
  end if;
  if tms._pass() is not null then return tms._fenced(tms._name(c)); end if;
  ids := string_to_array(d ->> 'ids', ',')::bigint[];
  if cardinality(ids) > 2000 or jsonb_array_length(coalesce(args -> 'rest', '[]')) > 1000 then
    raise exception 'a call ends at most 2,000 tasks, 1,000 of them with effects' using errcode = 'TM400';
  end if;
  -- before the end, while it can be seen whose tasks they are
  if jsonb_typeof(args -> 'logs') = 'array' then perform tms._log(args -> 'logs', w.id); end if;
  -- arrays first: joined as jsonb, row security's plan fell to a sequential scan
  answers := tms._end_tasks(c, w.id, 'running', ids, string_to_array(d ->> 'claims', ',')::integer[],
    string_to_array(d ->> 'ms', ',')::integer[], string_to_array(d ->> 'traces', ',', ''), args -> 'rest');
  return jsonb_build_object('control', tms._control(), 'outcomes', answers);
end
$$;
grant execute on function tms.tasks_finish(jsonb) to tms_caller;

create or replace function tms._log(entries jsonb, worker bigint) returns void
language sql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  insert into tms.agent_logs (at, company_id, agent, task_id, claim, level, message, fields, trace_id)
    select least(coalesce(x.at, clock_timestamp()), clock_timestamp()), t.company_id, coalesce(t.agent, x.agent, ''), t.id, t.claim,
           case when x.level in ('debug', 'info', 'warn', 'error') then x.level else 'info' end, left(x.message, 4000), x.fields, x.trace
      from jsonb_to_recordset(entries) x (at timestamptz, agent text, task bigint, claim integer, level text, message text, fields jsonb, trace text)
      -- a task that isn't this worker's gets no entry: the entry stays, and says of none
      left join tms.agent_tasks t on t.id = x.task and t.claim = x.claim and t.worker_id = worker
     limit 2000
$$;

-- What ended without anybody saying so: workers whose lease is over, tasks that ran too long. Into normal backoff; what is paused goes back.
create or replace function tms.tasks_reap(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('tasks_reap', args, '{}', 'task.work');
  t record;
  n integer;
  replays bigint[];
  lost bigint[]; lates boolean[]; of_replays bigint[];
  paused bigint[]; of_paused bigint[];
  gone integer;
begin
  if c.answer is not null then return c.answer; end if;
  -- a halted fleet keeps still: nobody can take the task, and who comes back late must find it where it was
  if tms._pass() is not null then return jsonb_build_object('reaped', 0, 'workers', 0); end if;
  -- A worker begins in the order of its claims: what stands far behind its slots never ran, and goes back as from worker_bye.
  with back as (
    update tms.agent_tasks b set status = 'pending', worker_id = null, run_until = null, attempts = greatest(b.attempts - 1, 0)
     where b.id = any (array(
       select y.id from tms.agent_tasks y
        where y.status = 'running' and y.run_until >= clock_timestamp() and y.id = any (array(
          select h.id from (
            select x.id, w.wanted, row_number() over (partition by x.worker_id order by x.claimed_at, x.priority desc, x.next_run_at, x.id) as place
              from tms.agent_tasks x join tms.workers w on w.id = x.worker_id
             where x.status = 'running' and (w.stopped_at is not null or w.lease_until < clock_timestamp())) h where h.place > 2 * h.wanted))
        order by y.id for update skip locked)) returning b.replay_run_id)
  select count(*), array_agg(k.replay_run_id) filter (where k.replay_run_id is not null) into n, replays from back k;
  select array_agg(k.id) filter (where not k.stopped), array_agg(k.late) filter (where not k.stopped), array_agg(k.replay_run_id) filter (where k.replay_run_id is not null),
         array_agg(k.id) filter (where k.stopped), array_agg(k.replay_run_id) filter (where k.stopped and k.replay_run_id is not null)
    into lost, lates, of_replays, paused, of_paused from (
    select x.id, x.replay_run_id, x.run_until < clock_timestamp() as late, tms._stopped(x.agent, x.company_id) as stopped from tms.agent_tasks x left join tms.workers w on w.id = x.worker_id
     where x.status = 'running' and (w.id is null or w.stopped_at is not null or w.lease_until < clock_timestamp() or x.run_until < clock_timestamp())
     order by x.id limit 500 for update of x skip locked) k;
  -- all replays before anything else, in their order, as who ends their tasks holds them
  if replays is not null or of_replays is not null then
    perform from tms.replay_runs r where r.id = any (replays || of_replays) order by r.id for update;
  end if;
  -- of what is paused nothing commits, no failure either
  if paused is not null then
    update tms.agent_tasks x set status = 'pending', worker_id = null, run_until = null, attempts = greatest(x.attempts - 1, 0) where x.id = any (paused);
    n := n + cardinality(paused);
    replays := replays || of_paused;
  end if;
  if replays is not null then perform tms._replay_counted(replays); end if;
  for t in select u.id, u.late from unnest(lost, lates) u (id, late) loop
    perform tms._fail_task(t.id, 'timeout', case when t.late then 'it ran longer than its policy allows' else 'its worker went away' end, true, 'lost', null, null);
    n := n + 1;
  end loop;
  -- never one that is being renewed: who holds that call open would keep all others from reaping
  update tms.workers w set stopped_at = w.lease_until, slots = 0
   where w.id = any (array(select x.id from tms.workers x where x.stopped_at is null and x.lease_until < clock_timestamp() for update skip locked));
  get diagnostics gone = row_count;
  if n > 0 then perform pg_notify('tms_tasks', ''); end if;
  return jsonb_build_object('reaped', n, 'workers', gone);
end
$$;
grant execute on function tms.tasks_reap(jsonb) to tms_caller;

-- Commits what a parked task would do, checked again against today's policies; the model is not asked again.
create or replace function tms.tasks_approve(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call;
  t tms.agent_tasks;
  f tms.task_effects;
  verdict text;
begin
  select * into t from tms.agent_tasks x where x.id = (args ->> 'id')::bigint;
  c := tms._begin('tasks_approve', args, '{request_id,tenant,id,approve,why}', 'agents.approve', t.fn_name);
  if c.answer is not null then return c.answer; end if;
  if c.company_id is null then raise exception '"tenant" is missing' using errcode = 'TM400'; end if;
  if t.id is null or t.company_id is distinct from c.company_id then
    return tms._refuse(c, 'NOT_FOUND', format('tenant "%s" has no task %s', c.tenant, left(args ->> 'id', 20)), 'it is not there, or another tenant''s', array['tms agents runs --tenant ' || c.tenant]);
  end if;
  if tms._pass() is not null then return tms._fenced(c); end if;
  select * into t from tms.agent_tasks x where x.id = t.id for update;
  select * into f from tms.task_effects x where x.task_id = t.id;
  if t.status <> 'awaiting_approval' or f.task_id is null then
    return tms._refuse(c, 'CONFLICT', format('task %s awaits no approval', t.id), format('it is %s', t.status), array['tms agents approve --list']);
  end if;
  if args -> 'approve' = 'false' then
    verdict := tms._fail_task(t.id, 'policy', 'not approved: ' || left(coalesce(args ->> 'why', ''), 500), false, 'failed', 0, null);
  else
    verdict := tms._end_tasks(c, null, 'awaiting_approval', '{}', '{}', '{}', '{}', jsonb_build_array(jsonb_build_object(
      'id', t.id, 'claim', t.claim, 'outcome', 'completed', 'effects', f.effects -> 'effects', 'output', f.effects -> 'output'))) ->> t.id::text;
  end if;
  perform tms._record(c, case when args -> 'approve' = 'false' then 'agents.reject' else 'agents.approve' end, 'done', 'task ' || t.id, coalesce(args ->> 'why', ''),
    jsonb_build_object('task', t.id::text, 'function', t.fn_name, 'outcome', verdict, 'effects_sha256', tms._sha256(f.effects::text)));
  return tms._finish(c, jsonb_build_object('id', t.id::text, 'outcome', verdict));
end
$$;
grant execute on function tms.tasks_approve(jsonb) to tms_caller;
