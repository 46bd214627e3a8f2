-- Policies of agents, and who may see and steer them.
--
-- Guarantees: what no loaded policy allows is denied; pausing settles before it answers, so that nothing of the paused agent or
-- tenant commits after it, no failure either (what it spent is counted); every lever is in the ledger.

set local role tms_owner;

-- Replaces all policies: one that isn't in the list any more denies.
create or replace function tms.agents_policies_load(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('agents_policies_load', args, '{request_id,policies}', 'agents.policy');
  p jsonb;
  names text[] := '{}';
  changed text[] := '{}';
  removed text[];
  twice text;
  digest text;
begin
  if c.answer is not null then return c.answer; end if;
  if jsonb_typeof(args -> 'policies') is distinct from 'array' then raise exception '"policies" is a list' using errcode = 'TM400'; end if;
  select f.value into twice from jsonb_array_elements(args -> 'policies') x cross join lateral jsonb_array_elements_text(x.value -> 'functions') f
   group by 1 having count(*) > 1 limit 1;
  if found then raise exception 'two policies name the function %', left(twice, 120) using errcode = 'TM400'; end if;
  perform tms._latch('policies');
  delete from tms.agent_functions f where true;
  for p in select value from jsonb_array_elements(args -> 'policies') loop
    digest := tms._sha256(p::text);
    names := names || (p ->> 'agent');
    if not exists (select from tms.agent_policies x where x.agent = p ->> 'agent' and x.sha256 = digest) then
      changed := changed || (p ->> 'agent');
      insert into tms.agent_policies as a (agent, policy, sha256, functions, approval, publish, enqueue, apply, max_attempts, timeout_ms, backoff_ms, backoff_cap_ms,
          requests_per_minute, concurrency, tokens_per_task, calls_per_task, cost_per_task, tokens_per_day, calls_per_day, cost_per_day,
          breaker_percent, breaker_samples, breaker_seconds, loaded_at, loaded_by)
        values (p ->> 'agent', p, digest, tms._texts(p -> 'functions'), tms._texts(p -> 'approval'), tms._texts(p -> 'publish'), tms._texts(p -> 'enqueue'), tms._texts(p -> 'apply'),
          (p ->> 'max_attempts')::integer, (p ->> 'timeout_ms')::integer, (p ->> 'backoff_ms')::integer, (p ->> 'backoff_cap_ms')::integer,
          (p ->> 'requests_per_minute')::integer, (p ->> 'concurrency')::integer, (p ->> 'tokens_per_task')::bigint, (p ->> 'calls_per_task')::bigint, (p ->> 'cost_per_task')::numeric,
          (p ->> 'tokens_per_day')::bigint, (p ->> 'calls_per_day')::bigint, (p ->> 'cost_per_day')::numeric,
          (p ->> 'breaker_percent')::numeric, (p ->> 'breaker_samples')::integer, (p ->> 'breaker_seconds')::integer, clock_timestamp(), c.who)
        on conflict (agent) do update set policy = excluded.policy, sha256 = excluded.sha256, functions = excluded.functions, approval = excluded.approval, publish = excluded.publish,
          enqueue = excluded.enqueue, apply = excluded.apply, max_attempts = excluded.max_attempts, timeout_ms = excluded.timeout_ms, backoff_ms = excluded.backoff_ms, backoff_cap_ms = excluded.backoff_cap_ms,
          requests_per_minute = excluded.requests_per_minute, concurrency = excluded.concurrency, tokens_per_task = excluded.tokens_per_task, calls_per_task = excluded.calls_per_task,
          cost_per_task = excluded.cost_per_task, tokens_per_day = excluded.tokens_per_day, calls_per_day = excluded.calls_per_day, cost_per_day = excluded.cost_per_day,
          breaker_percent = excluded.breaker_percent, breaker_samples = excluded.breaker_samples, breaker_seconds = excluded.breaker_seconds, loaded_at = excluded.loaded_at, loaded_by = excluded.loaded_by;
    end if;
    insert into tms.agent_functions (fn_name, agent) select f, p ->> 'agent' from unnest(tms._texts(p -> 'functions')) f;
  end loop;
  with gone as (delete from tms.agent_policies x where x.agent <> all (names) returning x.agent)
  select coalesce(array_agg(agent order by agent), '{}') into removed from gone;
  if changed <> '{}' or removed <> '{}' then
    perform tms._record(c, 'agents.policy', 'done', 'agent policies', 'policies loaded', jsonb_build_object('changed', to_jsonb(changed), 'removed', to_jsonb(removed),
      'sha256', (select jsonb_object_agg(x.agent, x.sha256) from tms.agent_policies x)));
    perform tms._signal('control');
  end if;
  return tms._finish(c, jsonb_build_object('loaded', to_jsonb(names), 'changed', to_jsonb(changed), 'removed', to_jsonb(removed)));
end
$$;
grant execute on function tms.agents_policies_load(jsonb) to tms_caller;

create or replace function tms._texts(list jsonb) returns text[]
language sql immutable as $$
  select case when pg_catalog.jsonb_typeof(list) = 'array' then array(select pg_catalog.jsonb_array_elements_text(list)) else '{}' end
$$;

-- Which agents serve, in what state, with what in hand. Without a tenant: of those the caller may read.
create or replace function tms.agents_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('agents_list', args, '{tenant}', 'agents.read');
  visible uuid[] := tms._allowed('agents.read');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return jsonb_build_object('fence', tms._fence_json(), 'limit', tms._fleet_limit(),
    'agents', (select coalesce(jsonb_agg(jsonb_build_object('agent', p.agent, 'functions', to_jsonb(p.functions), 'state', coalesce(s.state, 'running'), 'why', case when coalesce(s.why, '') = '' or tms._clear(c, null) then coalesce(s.why, '') else 'redacted' end, 'since', tms._utc(s.since),
        'breaker', coalesce(s.breaker, 'closed'), 'breaker_until', tms._utc(s.breaker_until), 'breaker_why', coalesce(s.breaker_why, ''), 'policy', p.policy, 'policy_sha256', p.sha256,
        'running', (select count(*) from tms.agent_tasks t where t.status = 'running' and t.agent = p.agent and (visible is null or t.company_id = any (visible))),
        'waiting', tms._waiting(p.agent, visible),
        'awaiting_approval', (select count(*) from tms.agent_tasks t where t.status = 'awaiting_approval' and t.agent = p.agent and (visible is null or t.company_id = any (visible)))) order by p.agent), '[]')
        from tms.agent_policies p left join tms.agent_state s on s.agent = p.agent),
    'tenants', (select coalesce(jsonb_agg(jsonb_build_object('tenant', tms._tenant_key(s.company_id), 'state', s.state, 'why', case when s.why = '' or tms._clear(c, s.company_id) then s.why else 'redacted' end, 'since', tms._utc(s.since)) order by s.company_id), '[]')
        from tms.tenant_state s where s.state <> 'running' and (visible is null or s.company_id = any (visible))),
    'workers', case when visible is not null then '[]'::jsonb else (select coalesce(jsonb_agg(jsonb_build_object('worker', w.id::text, 'name', w.name, 'host', w.host, 'pid', w.pid, 'slots', w.slots, 'wanted', w.wanted,
        'agents', to_jsonb(w.agents), 'lease_until', tms._utc(w.lease_until), 'started_at', tms._utc(w.started_at), 'acknowledged_epoch', w.acknowledged_epoch,
        'holds', (select count(*) from tms.agent_tasks t where t.worker_id = w.id and t.status = 'running')) order by w.id), '[]')
        from tms.workers w where w.stopped_at is null and w.lease_until > clock_timestamp()) end);
end
$$;
grant execute on function tms.agents_list(jsonb) to tms_caller;

-- How many wait, counted to a thousand in each queue: a backlog of millions must not be read to say that it is long.
create or replace function tms._waiting(of_agent text, visible uuid[]) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(sum(n), 0)::bigint from tms.queues q cross join lateral (
    select count(*) as n from (select from tms.agent_tasks t where t.company_id = q.company_id and t.agent = q.agent and t.priority = q.priority and t.status = 'pending' limit 1000) x) y
   where q.agent = of_agent and (visible is null or q.company_id = any (visible))
$$;

-- Moves one agent's lever and tells where it was. Checks and the record are its callers'.
create or replace function tms._steer_agent(c tms.call, of_agent text, wanted text, reason text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  was text;
begin
  insert into tms.agent_state (agent) values (of_agent) on conflict do nothing;
  select s.state into was from tms.agent_state s where s.agent = of_agent for update;
  update tms.agent_state s set state = wanted, why = case when wanted = 'running' then '' else reason end, since = clock_timestamp(), changed_by = c.who,
         -- a person who starts it again has looked: the breaker counts anew
         breaker = case when wanted = 'running' then 'closed' else s.breaker end, breaker_opened = case when wanted = 'running' then 0 else s.breaker_opened end,
         breaker_since = case when wanted = 'running' then clock_timestamp() else s.breaker_since end
   where s.agent = of_agent;
  if wanted = 'running' then delete from tms.agent_pulse p where p.agent = of_agent; end if;
  return was;
end
$$;

-- pause: nothing new, and nothing that runs commits. drain: nothing new, what runs may end. quarantine: as pause, for an agent, and
-- what it holds goes back. resume: undoes each.
create or replace function tms.agents_control(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('agents_control', args, '{request_id,tenant,agent,state,why}', 'agents.control', args ->> 'agent');
  wanted text := args ->> 'state';
  was text;
  reason text;
begin
  if c.answer is not null then return c.answer; end if;
  reason := tms._text(args, 'why');
  if (args ? 'agent') = (args ? 'tenant') then raise exception 'name an agent or a tenant' using errcode = 'TM400'; end if;
  if coalesce(wanted, '') not in ('running', 'paused', 'draining', 'quarantined') or (wanted = 'quarantined' and args ? 'tenant') then
    raise exception '"state" is running, paused or draining, and for an agent quarantined' using errcode = 'TM400';
  end if;
  if args ? 'agent' then
    if not exists (select from tms.agent_policies p where p.agent = args ->> 'agent') and not exists (select from tms.agent_state s where s.agent = args ->> 'agent') then
      return tms._refuse(c, 'NOT_FOUND', format('there is no agent "%s"', left(args ->> 'agent', 63)), 'no policy names it', array['tms agents list']);
    end if;
    was := tms._steer_agent(c, args ->> 'agent', wanted, reason);
  else
    insert into tms.tenant_state (company_id) values (c.company_id) on conflict do nothing;
    select s.state into was from tms.tenant_state s where s.company_id = c.company_id for update;
    update tms.tenant_state s set state = wanted, why = case when wanted = 'running' then '' else reason end, since = clock_timestamp(), changed_by = c.who where s.company_id = c.company_id;
  end if;
  perform tms._record(c, 'agents.' || case wanted when 'running' then 'resume' when 'paused' then 'pause' when 'draining' then 'drain' else 'quarantine' end, 'done',
    case when args ? 'agent' then 'agent ' || (args ->> 'agent') else 'tenant ' || c.tenant end, reason, jsonb_build_object('before', was, 'after', wanted));
  perform tms._signal('control');
  perform pg_notify('tms_tasks', '');
  return tms._finish(c, jsonb_build_object('before', was, 'after', wanted));
end
$$;
grant execute on function tms.agents_control(jsonb) to tms_caller;

-- Called after agents_control has committed: waits for the commits that had already passed the check then.
create or replace function tms.agents_settle(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('agents_settle', args, '{tenant,grace_ms}', 'agents.control');
  settled jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  settled := tms._settle(least(greatest(coalesce((args ->> 'grace_ms')::integer, 2000), 0), 5000), false);
  return jsonb_build_object('settled', settled -> 'fenced', 'ms', settled -> 'ms', 'survivors', settled -> 'survivors',
    'running', (select count(*) from tms.agent_tasks t where t.status = 'running'));
end
$$;
grant execute on function tms.agents_settle(jsonb) to tms_caller;

create or replace function tms._run_json(c tms.call, r tms.agent_runs) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object('task', r.task_id::text, 'claim', r.claim, 'attempt', r.attempt, 'tenant', tms._tenant_key(r.company_id), 'agent', r.agent, 'function', r.fn_name,
    'worker', r.worker_id::text, 'outcome', r.outcome, 'class', r.error_class, 'error', case when tms._clear(c, r.company_id) then r.error end,
    'started_at', tms._utc(r.started_at), 'finished_at', tms._utc(r.finished_at), 'ms', r.ms, 'tokens', r.tokens::text, 'calls', r.calls::text, 'cost', r.cost::text, 'trace_id', r.trace_id, 'epoch', r.epoch::text)
$$;

-- The newest attempts, or all of one task's.
create or replace function tms.agents_runs(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('agents_runs', args, '{tenant,agent,task,outcome,limit}', 'agents.read');
  visible uuid[] := tms._allowed('agents.read');
  t tms.agent_tasks;
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  if args ? 'task' then
    select * into t from tms.agent_tasks x where x.id = (args ->> 'task')::bigint and (visible is null or x.company_id = any (visible));
    if t.id is null then
      select h.* into t from tms.agent_tasks_history h where h.id = (args ->> 'task')::bigint and (visible is null or h.company_id = any (visible)) limit 1;
    end if;
    if t.id is null then
      return tms._refuse(c, 'NOT_FOUND', format('there is no task %s', left(args ->> 'task', 20)), 'it never was, it expired, or it is another tenant''s', array['tms agents runs']);
    end if;
  end if;
  return jsonb_build_object(
    'task', case when t.id is not null then jsonb_build_object('id', t.id::text, 'tenant', tms._tenant_key(t.company_id), 'agent', t.agent, 'function', t.fn_name, 'status', t.status, 'attempts', t.attempts,
        'max_attempts', t.max_attempts, 'created_at', tms._utc(t.created_at), 'next_run_at', tms._utc(t.next_run_at), 'finished_at', tms._utc(t.finished_at), 'class', t.error_class,
        'error', case when tms._clear(c, t.company_id) then t.error end, 'traceparent', t.traceparent,
        'payload', case when tms._clear(c, t.company_id) then t.payload end, 'output', case when tms._clear(c, t.company_id) then t.output end) end,
    'runs', (select coalesce(jsonb_agg(tms._run_json(c, x.r)), '[]') from (
        select r from tms.agent_runs r
         where (visible is null or r.company_id = any (visible)) and (t.id is null or r.task_id = t.id)
           and (not args ? 'agent' or r.agent = args ->> 'agent') and (not args ? 'outcome' or r.outcome = args ->> 'outcome')
           -- by the tasks' numbers, which an index has; a day is enough of history to look through
           and (t.id is not null or r.finished_at > clock_timestamp() - interval '1 day')
         order by r.task_id desc, r.claim desc limit tms._limit(args)) x (r)));
end
$$;
grant execute on function tms.agents_runs(jsonb) to tms_caller;

create or replace function tms.agents_logs(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('agents_logs', args, '{tenant,agent,task,level,limit}', 'agents.read');
  visible uuid[] := tms._allowed('agents.read');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return jsonb_build_object('logs', (select coalesce(jsonb_agg(jsonb_build_object('at', tms._utc(x.at), 'tenant', tms._tenant_key(x.company_id), 'agent', x.agent, 'task', x.task_id::text, 'level', x.level,
      'message', case when tms._clear(c, x.company_id) then x.message else 'redacted' end, 'fields', case when tms._clear(c, x.company_id) then x.fields end, 'trace_id', x.trace_id) order by x.at), '[]')
    from (select * from tms.agent_logs l
           where (visible is null or l.company_id = any (visible)) and (not args ? 'task' or l.task_id = (args ->> 'task')::bigint)
             and (not args ? 'agent' or l.agent = args ->> 'agent') and (not args ? 'level' or l.level = args ->> 'level')
           order by l.at desc limit tms._limit(args)) x));
end
$$;
grant execute on function tms.agents_logs(jsonb) to tms_caller;

create or replace function tms.tasks_waiting(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('tasks_waiting', args, '{tenant,limit}', 'agents.read');
  visible uuid[] := tms._allowed('agents.read');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return jsonb_build_object('tasks', (select coalesce(jsonb_agg(jsonb_build_object('id', x.id::text, 'tenant', tms._tenant_key(x.company_id), 'agent', x.agent, 'function', x.fn_name, 'created_at', tms._utc(x.created_at),
      'parked_at', tms._utc(f.at), 'effects', case when tms._clear(c, x.company_id) then f.effects end) order by x.id), '[]')
    from (select * from tms.agent_tasks t where t.status = 'awaiting_approval' and (visible is null or t.company_id = any (visible)) order by t.id limit tms._limit(args)) x
    left join tms.task_effects f on f.task_id = x.id));
end
$$;
grant execute on function tms.tasks_waiting(jsonb) to tms_caller;
