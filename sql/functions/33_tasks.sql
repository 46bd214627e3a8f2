-- Putting tasks in and taking them out.
--
-- Guarantees: a task names a function that a loaded policy allows, or it is refused; the same idempotency key of a tenant and
-- function makes one task; a claim takes each task once, fairly across tenants, never of a paused tenant or agent, never while
-- halted, and never beyond the worker's slots, the agent's concurrency, its requests per minute or its day's budget.

set local role tms_owner;

-- The day of a queue: the same one for sessions of all time zones.
create or replace function tms._today() returns date
language sql stable as $$ select (pg_catalog.clock_timestamp() at time zone 'UTC')::date $$;

-- Only what is missing or of an earlier day is written: a row of today is nobody's to hold, or one tenant's open transaction would keep
-- a batch of tasks of all tenants from its end.
create or replace function tms._touch_queues(company uuid, agents text[], priorities smallint[]) returns void
language sql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  insert into tms.queues as q (company_id, agent, priority, touched_on)
    select distinct company, a, p, tms._today() from unnest(agents, priorities) u (a, p)
     where not exists (select from tms.queues k where k.company_id = company and k.agent = a and k.priority = p and k.touched_on = tms._today())
     order by 2, 3
    on conflict on constraint queues_pkey do update set touched_on = excluded.touched_on where q.touched_on <> excluded.touched_on
$$;

-- At most 1,000 tasks of one tenant.
create or replace function tms.tasks_enqueue(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_generic_plan as $$
declare
  c tms.call := tms._begin('tasks_enqueue', args, '{request_id,tenant,tasks}', 'task.enqueue');
  n integer;
  unknown text;
  ids jsonb;
  drawn bigint[];
  keys text[];
begin
  if c.answer is not null then return c.answer; end if;
  if c.company_id is null then raise exception '"tenant" is missing' using errcode = 'TM400'; end if;
  if not tms._human() and tms._pass() is not null then return tms._fenced(c); end if;
  if jsonb_typeof(args -> 'tasks') is distinct from 'array' then raise exception '"tasks" is a list' using errcode = 'TM400'; end if;
  n := jsonb_array_length(args -> 'tasks');
  if n not between 1 and 1000 then raise exception 'a call takes 1 to 1,000 tasks' using errcode = 'TM400'; end if;
  select x.function into unknown from jsonb_to_recordset(args -> 'tasks') x (function text)
    left join tms.agent_functions f on f.fn_name = x.function where f.fn_name is null limit 1;
  if found then
    return tms._refuse(c, 'POLICY_DENIED', format('no loaded policy allows the function "%s"', left(coalesce(unknown, ''), 120)),
      'a function without a policy is denied', array['tms agents list', 'tms agents policy check']);
  end if;
  if exists (select from jsonb_to_recordset(args -> 'tasks') x (payload jsonb) where octet_length(x.payload::text) > 262144) then
    raise exception 'a payload is larger than 256 KB: put it into a table and its key here' using errcode = 'TM400';
  end if;
  with rows as materialized (
    -- the number is drawn here, so that the answer knows whose it is
    select nextval('tms.agent_tasks_id_seq') as id, x.ord, x.function, f.agent, p.max_attempts, x.key, coalesce(x.priority, 0)::smallint as priority, x.payload, x.traceparent,
           case when x.delay_ms is null then null else clock_timestamp() + least(greatest(x.delay_ms, 0), 31536000000) * interval '1 millisecond' end as due
      from (select row_number() over () as ord, y.* from jsonb_to_recordset(args -> 'tasks')
              y (function text, payload jsonb, key text, delay_ms bigint, priority integer, traceparent text)) x
      join tms.agent_functions f on f.fn_name = x.function join tms.agent_policies p on p.agent = f.agent
     order by x.ord
  ), queues as (
    select tms._touch_queues(c.company_id, array_agg(r.agent), array_agg(r.priority)) from rows r
  ), made as (
    -- `on conflict` costs a lock and a second log record a row: only for those that can meet one
    insert into tms.agent_tasks (id, company_id, agent, fn_name, payload, priority, max_attempts, next_run_at, traceparent, created_by)
      overriding system value
      select r.id, c.company_id, r.agent, r.function, coalesce(r.payload, '{}'), r.priority, r.max_attempts, coalesce(r.due, clock_timestamp()), left(r.traceparent, 80), c.principal_id
        from rows r where r.key is null order by r.ord
  ), keyed as (
    insert into tms.agent_tasks (id, company_id, agent, fn_name, payload, priority, max_attempts, next_run_at, idempotency_key, traceparent, created_by)
      overriding system value
      select r.id, c.company_id, r.agent, r.function, coalesce(r.payload, '{}'), r.priority, r.max_attempts, coalesce(r.due, clock_timestamp()), r.key, left(r.traceparent, 80), c.principal_id
        from rows r where r.key is not null order by r.ord
      on conflict (company_id, fn_name, idempotency_key) where idempotency_key is not null do nothing
  )
  select array_agg(r.id order by r.ord), case when bool_or(r.key is not null) then array_agg(r.key order by r.ord) end into drawn, keys
    from rows r cross join queues q;
  if keys is null then
    ids := to_jsonb(drawn::text[]);
  else
    -- a key that was there already answers with the task it made; keys in the call's own list may repeat
    select jsonb_agg(coalesce(t.id, u.drawn)::text order by x.ord) into ids
      from (select row_number() over () as ord, y.* from jsonb_to_recordset(args -> 'tasks') y (function text)) x
      join unnest(drawn, keys) with ordinality u (drawn, key, ord) on u.ord = x.ord
      left join lateral (select t.id from tms.agent_tasks t where t.company_id = c.company_id and t.fn_name = x.function and t.idempotency_key = u.key) t on u.key is not null;
  end if;
  perform pg_notify('tms_tasks', '');
  return tms._finish(c, jsonb_build_object('ids', coalesce(ids, '[]')));
end
$$;
grant execute on function tms.tasks_enqueue(jsonb) to tms_caller;

-- May agents take work for this tenant: the two flags that say so.
create or replace function tms._autonomy(company uuid) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select coalesce(tms._flag_value('agents.autonomousEnabled', company) = 'true', false)
     and coalesce(tms._flag_value('autonomy.mode', company) <> '"OFF"', false));
end
$$;

-- Tenants that may be worked for. Flags are evaluated once where no tenant has a value of its own.
create or replace function tms._autonomous(companies uuid[]) returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if exists (select from tms.feature_flags_v2 f where f.key in ('agents.autonomousEnabled', 'autonomy.mode')
               and (f.level = 'tenant' or f.rollout < 10000)) then
    return array(select c from unnest(companies) c where tms._autonomy(c));
  end if;
  return case when tms._autonomy(null) then companies else '{}' end;
end
$$;

-- Which queues may be claimed from now, and how many at most (null: as many as there are). Takes the rows of agents that have
-- a limit, so that two claims at once don't both take the last place.
create or replace function tms._open_queues(serves text[])
returns table (company_id uuid, agent text, priority smallint, room integer)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  p tms.agent_policies;
  st tms.agent_state;
  rooms jsonb := '{}';
  here integer;
  this_minute timestamptz := date_trunc('minute', clock_timestamp());
begin
  for p in select * from tms.agent_policies x where x.agent = any (serves) order by x.agent loop
    select * into st from tms.agent_state x where x.agent = p.agent;
    continue when st.state <> 'running';
    here := null;
    if p.requests_per_minute is not null or p.concurrency is not null or st.breaker <> 'closed' then
      insert into tms.agent_state (agent) values (p.agent) on conflict do nothing;
      select * into st from tms.agent_state x where x.agent = p.agent for update;
      continue when st.state <> 'running';
      if st.breaker = 'open' then
        continue when st.breaker_until > clock_timestamp();
        here := 1;
      elsif st.breaker = 'half_open' then
        -- one probe at a time; one that never came back is given up
        continue when st.breaker_until > clock_timestamp();
        here := 1;
      end if;
      if p.concurrency is not null then
        here := least(here, p.concurrency - (select count(*)::integer from tms.agent_tasks t where t.status = 'running' and t.agent = p.agent));
      end if;
      if p.requests_per_minute is not null then
        here := least(here, p.requests_per_minute - case when st.minute = this_minute then st.minute_used else 0 end);
      end if;
      continue when here <= 0;
    end if;
    rooms := rooms || jsonb_build_object(p.agent, here);
  end loop;
  return query
    with allowed as materialized (
      select unnest(tms._autonomous(array(
        select distinct q.company_id from tms.queues q
         where not exists (select from tms.tenant_state s where s.company_id = q.company_id and s.state <> 'running')))) as id
    )
    select q.company_id, q.agent, q.priority, (rooms ->> q.agent)::integer
      from tms.queues q join allowed a on a.id = q.company_id
     where rooms ? q.agent
       and not exists (
         select from tms.agent_policies l
           join lateral (select sum(d.tokens) as tokens, sum(d.calls) as calls, sum(d.cost) as cost from tms.spend d
                          where d.company_id = q.company_id and d.day = (clock_timestamp() at time zone 'UTC')::date and d.agent = q.agent) d
             on d.tokens >= l.tokens_per_day or d.calls >= l.calls_per_day or d.cost >= l.cost_per_day
          where l.agent = q.agent and coalesce(l.tokens_per_day, l.calls_per_day, l.cost_per_day) is not null);
end
$$;

-- enable_seqscan: for some hundred ids of a table of some ten thousand rows the planner reads all of them. plan_cache_mode: planned anew
-- at each call, a claim of one task cost 2.8 ms of processor instead of 1.3.
create or replace function tms.tasks_claim(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
declare
  c tms.call := tms._begin_work('tasks_claim', args, '{worker,limit,nth,holds}', 'task.work');
  w tms.workers;
  want integer;
  q_company uuid[];
  q_agent text[];
  q_priority smallint[];
  q_room integer[];
  q_ms integer[];
  tenants integer;
  limited boolean;
  share integer;
  -- heads of queues: the task, the place of its queue above, since when it is due, how many stand before it there
  h_id bigint[];
  h_queue integer[];
  h_due timestamptz[];
  h_place bigint[];
  ids bigint[] := '{}';
  queues integer[] := '{}';
  stamp timestamptz;
  replays bigint[];
  taken jsonb;
  steps jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  w := tms._worker(c, (args ->> 'worker')::bigint);
  if w.id is null then return tms._no_worker(c, args ->> 'worker'); end if;
  if tms._pass() is not null then return jsonb_build_object('control', tms._control(), 'queues', '[]'::jsonb, 'steps', '{}'::jsonb, 'tasks', null, 'more', false); end if;
  -- A claim that a crash of the server takes back was never made: the task waits again, and the end of one is on disk only with its
  -- claim before it. On the embedded database the task itself may have ended the process: there its attempt must count.
  if session_user <> 'tms_local' then perform set_config('synchronous_commit', 'off', true); end if;
  -- one claim of a worker at a time, or each would fill the whole buffer
  update tms.workers x set claims = coalesce((args ->> 'nth')::bigint, x.claims) where x.id = w.id and (not args ? 'nth' or x.claims < (args ->> 'nth')::bigint);
  if not found then
    -- a later one was here before it, or it was asked again because its answer got lost
    return jsonb_build_object('control', tms._control(), 'queues', '[]'::jsonb, 'steps', '{}'::jsonb, 'tasks', null, 'more', false, 'overtaken', true);
  end if;
  if args ? 'holds' then
    -- the answer to its last claim got lost: what it doesn't know of goes back, unspent
    with back as (
      update tms.agent_tasks t set status = 'pending', worker_id = null, run_until = null, attempts = greatest(t.attempts - 1, 0)
       where t.id = any (array(
         select y.id from tms.agent_tasks y
          where y.worker_id = w.id and y.status = 'running' and y.id not in (select unnest(string_to_array(args ->> 'holds', ',')::bigint[]))
          -- nor is somebody waited for who waits for this worker's row
          order by y.id for update skip locked)) returning t.replay_run_id)
    select array_agg(b.replay_run_id) filter (where b.replay_run_id is not null) into replays from back b;
    if replays is not null then perform tms._replay_counted(replays); end if;
  end if;
  stamp := clock_timestamp();
  want := least(greatest((args ->> 'limit')::integer, 0), 1000,
    w.slots * tms._buffer_factor() - (select count(*)::integer from tms.agent_tasks t where t.worker_id = w.id and t.status = 'running'));
  if want > 0 then
    select array_agg(o.company_id), array_agg(o.agent), array_agg(o.priority), array_agg(o.room), array_agg(p.timeout_ms), count(distinct o.company_id), count(o.room) > 0
      into q_company, q_agent, q_priority, q_room, q_ms, tenants, limited from tms._open_queues(w.agents) o join tms.agent_policies p on p.agent = o.agent;
  end if;
  if want > 0 and tenants > 0 then
    -- First everybody's share, then the rest to whoever has more: one tenant's backlog delays another's task by a batch at most.
    share := ceil(want::numeric / tenants);
    for round in 1 .. 2 loop
      select array_agg(h.id), array_agg(q.n::integer), array_agg(h.next_run_at), array_agg(h.place) into h_id, h_queue, h_due, h_place
        from unnest(q_company, q_agent, q_priority, q_room) with ordinality q (company_id, agent, priority, room, n)
       cross join lateral (
         select x.id, x.next_run_at, row_number() over () as place from (
           select t.id, t.next_run_at from tms.agent_tasks t
            where t.company_id = q.company_id and t.agent = q.agent and t.priority = q.priority and t.status = 'pending'
              and t.next_run_at <= stamp and (round = 1 or t.id not in (select unnest(ids)))
            order by t.next_run_at, t.id limit least(case when round = 1 then share else want - cardinality(ids) end, q.room)
            for update skip locked) x) h
       -- a second look never at agents with a limit, which the first filled exactly
       where round = 1 or q.room is null;
      exit when h_id is null;
      if limited or cardinality(ids) + cardinality(h_id) > want then
        -- more than there is place for, or of agents with a limit: whose turn it is
        select array_agg(r.id), array_agg(r.queue) into h_id, h_queue from (
          select v.id, v.queue from (
            -- priority is within a tenant: nobody's urgent backlog keeps others from their share
            select u.id, u.queue, u.due, q_priority[u.queue] as priority, q_room[u.queue] as room,
                   row_number() over (partition by q_company[u.queue] order by q_priority[u.queue] desc, u.place, u.due, u.id) as of_tenant,
                   row_number() over (partition by q_agent[u.queue] order by q_priority[u.queue] desc, u.place, u.due, u.id) as of_agent
              from unnest(h_id, h_queue, h_due, h_place) u (id, queue, due, place)) v
           where v.room is null or v.of_agent <= v.room
           order by v.of_tenant, v.priority desc, v.due, v.id limit want - cardinality(ids)) r;
        exit when h_id is null;
      end if;
      ids := ids || h_id;
      queues := queues || h_queue;
      -- a second look only where the first was full somewhere
      exit when cardinality(ids) >= want or cardinality(h_id) < share or share >= want;
    end loop;
  end if;
  if ids <> '{}' then
    with claimed as (
      update tms.agent_tasks t
         set status = 'running', worker_id = w.id, attempts = t.attempts + 1, claim = t.claim + 1, claimed_at = stamp,
             run_until = stamp + q_ms[u.queue] * interval '1 millisecond' + tms._lease()
        from unnest(ids, queues) u (id, queue)
       where t.id = u.id
       returning t.id, t.claim, t.attempts, t.max_attempts, t.fn_name, t.payload, t.traceparent, t.priority, t.next_run_at, t.dead_letter_id, u.queue
    )
    -- columns, and plain text where no value can hold a comma: as an array of arrays this cost as much as the update
    select jsonb_build_object('ids', string_agg(x.id::text, ','), 'claims', string_agg(x.claim::text, ','), 'attempts', string_agg(x.attempts::text, ','),
             'most', string_agg(x.max_attempts::text, ','), 'queues', string_agg((x.queue - 1)::text, ','), 'functions', string_agg(x.fn_name, ','),
             'payloads', jsonb_agg(x.payload), 'traceparents', case when count(x.traceparent) > 0 then to_jsonb(array_agg(x.traceparent)) end),
           (select jsonb_object_agg(z.task_id, z.results) from (
              select p.task_id, jsonb_object_agg(p.name, p.result) as results from tms.task_steps p
               where p.task_id = any (array(select y.id from claimed y where y.claim > 1 or y.dead_letter_id is not null)) group by 1) z)
      into taken, steps
      from (select * from claimed y order by y.priority desc, y.next_run_at, y.id) x;
    -- a probe is under way only once there is a task to probe with
    update tms.agent_state s set breaker = 'half_open', breaker_until = clock_timestamp() + p.timeout_ms * interval '1 millisecond'
      from tms.agent_policies p
     where s.breaker <> 'closed' and p.agent = s.agent and s.agent in (select q_agent[q] from unnest(queues) q);
    if exists (select from unnest(q_agent) a join tms.agent_policies p on p.agent = a where p.requests_per_minute is not null) then
      update tms.agent_state s set minute = date_trunc('minute', clock_timestamp()),
             minute_used = k.n + case when s.minute = date_trunc('minute', clock_timestamp()) then s.minute_used else 0 end
        from (select q_agent[q] as agent, count(*)::integer as n from unnest(queues) q group by 1) k
        join tms.agent_policies p on p.agent = k.agent and p.requests_per_minute is not null
       where s.agent = k.agent;
    end if;
  end if;
  return jsonb_build_object('control', tms._control(), 'steps', coalesce(steps, '{}'), 'tasks', taken, 'more', cardinality(ids) >= want,
    'queues', case when taken is null then '[]'
                   else (select jsonb_agg(jsonb_build_array(u.company, tms._tenant_key(u.company), u.agent, u.ms) order by u.o)
                           from unnest(q_company, q_agent, q_ms) with ordinality u (company, agent, ms, o)) end);
end
$$;
grant execute on function tms.tasks_claim(jsonb) to tms_caller;

-- Of whom nothing commits. Asked by who holds the gate: once a pause has settled, it is seen here.
create or replace function tms._stopped(of_agent text, company uuid) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return exists (select from tms.agent_state s where s.agent = of_agent and s.state in ('paused', 'quarantined'))
      or exists (select from tms.tenant_state s where s.company_id = company and s.state = 'paused');
end
$$;

-- Money, tokens and calls, counted when they are spent: also for a task that fails later, and while it is paused. The account of what
-- is gone already is no effect, and without it a pause would make the day's budget larger.
create or replace function tms.tasks_spend(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('tasks_spend', args, '{worker,id,claim,tokens,calls,cost}', 'task.work');
  w tms.workers;
  t tms.agent_tasks;
  p tms.agent_policies;
  d_tokens bigint := coalesce((args ->> 'tokens')::bigint, 0);
  d_calls bigint := coalesce((args ->> 'calls')::bigint, 0);
  d_cost numeric := coalesce((args ->> 'cost')::numeric, 0);
  today date := (clock_timestamp() at time zone 'UTC')::date;
  spent tms.task_spend;
  daily tms.spend;
  over text;
begin
  if c.answer is not null then return c.answer; end if;
  -- A mistake that counted as nothing spent would be spending without a limit: a program's NaN arrives as null.
  if not args ?| '{tokens,calls,cost}' or 'null' in (args -> 'tokens', args -> 'calls', args -> 'cost') or least(d_tokens, d_calls, d_cost) < 0 then
    raise exception 'what is spent is "tokens", "calls" or "cost", and not less than 0' using errcode = 'TM400';
  end if;
  -- NaN and infinity are numerics, and sums of what is too large would end every roll-up
  if d_tokens > 1000000000000 or d_calls > 1000000000 or not (d_cost between 0 and 1000000000) then
    raise exception 'nobody spends that much at once' using errcode = 'TM400';
  end if;
  w := tms._worker(c, (args ->> 'worker')::bigint);
  if w.id is null then return tms._no_worker(c, args ->> 'worker'); end if;
  if tms._pass() is not null then return tms._fenced(tms._name(c)); end if;
  select * into t from tms.agent_tasks x where x.id = (args ->> 'id')::bigint and x.claim = (args ->> 'claim')::integer
     and x.status = 'running' and x.worker_id = w.id;
  if t.id is null then return tms._no_worker(c, args ->> 'worker'); end if;
  c.company_id := t.company_id;
  select * into p from tms.agent_policies x where x.agent = t.agent;
  -- the row first, so that two tasks at once are added up and not each measured against the same remainder
  insert into tms.spend as s (company_id, day, agent, tokens, calls, cost) values (t.company_id, today, t.agent, 0, 0, 0)
    on conflict on constraint spend_pkey do update set tokens = s.tokens returning * into daily;
  insert into tms.task_spend as s (task_id, company_id, tokens, calls, cost) values (t.id, t.company_id, 0, 0, 0)
    on conflict on constraint task_spend_pkey do update set tokens = s.tokens returning * into spent;
  over := case
    when spent.tokens + d_tokens > p.tokens_per_task then format('%s tokens a task', p.tokens_per_task)
    when spent.calls + d_calls > p.calls_per_task then format('%s calls a task', p.calls_per_task)
    when spent.cost + d_cost > p.cost_per_task then format('%s a task', p.cost_per_task)
    when daily.tokens + d_tokens > p.tokens_per_day then format('%s tokens a day for this tenant', p.tokens_per_day)
    when daily.calls + d_calls > p.calls_per_day then format('%s calls a day for this tenant', p.calls_per_day)
    when daily.cost + d_cost > p.cost_per_day then format('%s a day for this tenant', p.cost_per_day) end;
  if over is not null then
    return tms._refuse_until(tms._name(c), 'BUDGET_EXCEEDED', format('%s may not spend that for task %s', t.agent, t.id), 'its policy allows ' || over,
      array[format('tms agents policy explain %s %s', t.agent, t.fn_name)],
      -- a task's budget doesn't come back, and what is more than a day has never fits
      case when over like '% a day for this tenant'
             and coalesce(d_tokens <= p.tokens_per_day, true) and coalesce(d_calls <= p.calls_per_day, true) and coalesce(d_cost <= p.cost_per_day, true)
           then tms._tomorrow() end);
  end if;
  update tms.spend s set tokens = s.tokens + d_tokens, calls = s.calls + d_calls, cost = s.cost + d_cost
   where s.company_id = t.company_id and s.day = today and s.agent = t.agent;
  update tms.task_spend s set tokens = s.tokens + d_tokens, calls = s.calls + d_calls, cost = s.cost + d_cost where s.task_id = t.id;
  return jsonb_build_object('tokens', (spent.tokens + d_tokens)::text, 'calls', (spent.calls + d_calls)::text, 'cost', (spent.cost + d_cost)::text);
end
$$;
grant execute on function tms.tasks_spend(jsonb) to tms_caller;

-- The result of a step, so that a retry doesn't repeat it. The first one stays. None is kept of what is paused.
create or replace function tms.tasks_step(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('tasks_step', args, '{worker,id,claim,name,result}', 'task.work');
  w tms.workers;
  t tms.agent_tasks;
  stored jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  w := tms._worker(c, (args ->> 'worker')::bigint);
  if w.id is null then return tms._no_worker(c, args ->> 'worker'); end if;
  if tms._pass() is not null then return tms._fenced(tms._name(c)); end if;
  select * into t from tms.agent_tasks x where x.id = (args ->> 'id')::bigint and x.claim = (args ->> 'claim')::integer
     and x.status = 'running' and x.worker_id = w.id;
  if t.id is null then return tms._no_worker(c, args ->> 'worker'); end if;
  if tms._stopped(t.agent, t.company_id) then
    c.company_id := t.company_id;
    return tms._refuse(tms._name(c), 'PAUSED', format('%s or its tenant is paused: no step is kept', t.agent), format('task %s goes back and begins again after the resume', t.id),
      array['tms agents status']);
  end if;
  if octet_length(args ->> 'result') > 262144 then raise exception 'the result of a step is larger than 256 KB' using errcode = 'TM400'; end if;
  insert into tms.task_steps as s (task_id, name, company_id, result) values (t.id, tms._text(args, 'name', 200), t.company_id, coalesce(args -> 'result', 'null'))
    on conflict on constraint task_steps_pkey do update set result = s.result returning result into stored;
  return jsonb_build_object('result', stored);
end
$$;
grant execute on function tms.tasks_step(jsonb) to tms_caller;
