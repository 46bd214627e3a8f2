-- Dead letters and their replay.
--
-- Guarantees: a replay does what its dry run showed or nothing; it stays within items, bytes, runs in five minutes and items a day;
-- an item is replayed at most three times, and never twice at once; nothing is dropped: a dead letter that cannot be replayed stays;
-- when more than a fifth fails, the rest is withdrawn: what waits at once, what a worker holds when it comes back, and its end commits nothing.

set local role tms_owner;

create or replace function tms._budget(key text, company uuid, otherwise numeric) returns numeric
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select coalesce((tms._flag_value(key, company) #>> '{}')::numeric, otherwise));
end
$$;

-- What would be replayed: the same answer from the dry run and at the execution, or the plan has changed.
create or replace function tms._replay_plan(company uuid, wanted bigint[], class text, n integer) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  most integer := least(50, tms._budget('budget.replay.batchItems', company, 50), n);
  room bigint := least(2097152, tms._budget('budget.replay.batchBytes', company, 2097152));
  d tms.dead_letter_queue;
  items jsonb := '[]';
  skipped jsonb := '[]';
  bytes bigint := 0;
  reason text;
  canon text := company::text;
begin
  for d in
    select * from tms.dead_letter_queue x where x.company_id = company
       and case when wanted is null then x.status = 'open' and coalesce(x.snooze_until <= clock_timestamp(), true) and (class is null or x.error_class = class) else x.id = any (wanted) end
     order by x.id limit case when wanted is null then 500 else 1000 end
  loop
    reason := case
      when d.status <> 'open' then 'it is ' || d.status
      when d.snooze_until > clock_timestamp() then 'snoozed until ' || tms._utc(d.snooze_until)
      when d.replays >= 3 then 'replayed three times already'
      when not exists (select from tms.agent_functions f where f.fn_name = d.fn_name) then 'no loaded policy allows ' || d.fn_name
      -- whose function it is now
      when exists (select from tms.agent_functions f join tms.agent_state s on s.agent = f.agent where f.fn_name = d.fn_name and s.state <> 'running') then
        'its agent is ' || (select s.state from tms.agent_functions f join tms.agent_state s on s.agent = f.agent where f.fn_name = d.fn_name)
      when d.bytes > room then 'larger than a replay may be'
      when jsonb_array_length(items) >= most then 'the batch is full'
      when bytes + d.bytes > room then 'the batch has its bytes'
    end;
    if reason is not null then
      skipped := skipped || jsonb_build_object('id', d.id::text, 'why', reason);
    else
      bytes := bytes + d.bytes;
      canon := canon || format(' %s/%s', d.id, d.replays);
      items := items || jsonb_build_object('id', d.id::text, 'task', d.task_id::text, 'agent', d.agent, 'function', d.fn_name, 'class', d.error_class, 'bytes', d.bytes, 'replays', d.replays);
    end if;
  end loop;
  return jsonb_build_object('items', items, 'skipped', skipped, 'bytes', bytes::text, 'plan', left(tms._sha256(canon), 12));
end
$$;

-- The incident whose soft degrade pauses the replays of all tenants; null: none. While it lasts the fleet's own value of the flag counts
-- for each of them, whatever a tenant has set for itself, or sets meanwhile.
create or replace function tms._replays_paused_by() returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select min(l.incident_id) from tms.incident_levers l
   where l.kind = 'soft_degrade' and l.company_id is null and l.undone_at is null and l.changes @> '[{"key":"ops.replayEnabled"}]'
     and tms._flag_value('ops.replayEnabled', null) is distinct from 'true'
$$;

-- It returned the reason alone.
drop function if exists tms._replay_barred(uuid, integer);

-- Why this tenant may not replay so many now, and when it may; null: it may, and nobody knows.
create or replace function tms._replay_barred(company uuid, items integer, out why text, out again_at timestamptz)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  recent integer;
  today bigint;
  a_day numeric := tms._budget('budget.replay.itemsPerDay', company, 150);
  runs numeric := least(3, tms._budget('budget.replay.perFiveMinutes', company, 3));
  paused_by bigint := tms._replays_paused_by();
begin
  if paused_by is not null then why := format('the soft degrade of incident %s pauses replays for every tenant', paused_by); return; end if;
  if coalesce(tms._flag_value('ops.replayEnabled', company) <> 'true', true) then why := 'the flag ops.replayEnabled is off'; return; end if;
  if exists (select from tms.tenant_state s where s.company_id = company and s.state <> 'running') then
    why := 'the tenant is ' || (select s.state from tms.tenant_state s where s.company_id = company);
    return;
  end if;
  select count(*) into recent from tms.replay_runs r where r.company_id = company and r.at > clock_timestamp() - interval '5 minutes';
  if recent >= runs then
    why := format('%s replays in five minutes, and %s are the limit', recent, runs);
    if runs < 1 then return; end if;
    select r.at + interval '5 minutes' into again_at from tms.replay_runs r
     where r.company_id = company and r.at > clock_timestamp() - interval '5 minutes' order by r.at desc offset floor(runs)::integer - 1 limit 1;
  end if;
  select coalesce(sum(r.items), 0) into today from tms.replay_runs r where r.company_id = company and r.at >= date_trunc('day', clock_timestamp() at time zone 'UTC') at time zone 'UTC';
  if today + items > a_day then
    why := coalesce(why, format('%s items were replayed today, and %s are the budget of a day', today, a_day));
    again_at := case when items <= a_day then tms._tomorrow() end;
  end if;
end
$$;

create or replace function tms.dlq_plan(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('dlq_plan', args, '{tenant,ids,class,limit}', 'dlq.dry_run');
  plan jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  if c.company_id is null then raise exception '"tenant" is missing' using errcode = 'TM400'; end if;
  plan := tms._replay_plan(c.company_id, case when args ? 'ids' then tms._texts(args -> 'ids')::bigint[] end, args ->> 'class', tms._limit(args));
  return plan || jsonb_build_object('tenant', c.tenant, 'barred', case when tms._halted() then 'the fleet is halted' else (select b.why from tms._replay_barred(c.company_id, jsonb_array_length(plan -> 'items')) b) end);
end
$$;
grant execute on function tms.dlq_plan(jsonb) to tms_caller;

create or replace function tms.dlq_replay(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('dlq_replay', args, '{request_id,tenant,ids,plan,why}', 'dlq.replay');
  wanted bigint[];
  plan jsonb;
  reason text;
  barred record;
  run tms.replay_runs;
  d tms.dead_letter_queue;
  made bigint;
  works text;
  tasks jsonb := '[]';
begin
  if c.answer is not null then return c.answer; end if;
  if c.company_id is null then raise exception '"tenant" is missing' using errcode = 'TM400'; end if;
  -- people too: a replay is the agents' work again
  if tms._pass() is not null then return tms._fenced(c); end if;
  reason := tms._text(args, 'why');
  wanted := tms._texts(args -> 'ids')::bigint[];
  -- one replay of a tenant at a time, or two would each find room for themselves
  perform tms._latch('replay ' || c.company_id);
  perform from tms.dead_letter_queue x where x.id = any (wanted) and x.company_id = c.company_id order by x.id for update;
  plan := tms._replay_plan(c.company_id, wanted, null, 50);
  if plan ->> 'plan' is distinct from args ->> 'plan' or jsonb_array_length(plan -> 'items') = 0 then
    return tms._refuse(c, 'PLAN_CHANGED', 'these dead letters are not what the dry run showed', 'some were replayed, snoozed, discarded, or came back since',
      array['tms dlq replay --tenant ' || c.tenant]);
  end if;
  barred := tms._replay_barred(c.company_id, jsonb_array_length(plan -> 'items'));
  if barred.why is not null then
    return tms._refuse_until(c, 'REPLAY_LIMIT', format('tenant "%s" may not replay now', c.tenant), barred.why,
      array['tms dlq stats --tenant ' || c.tenant, 'tms agents status'], barred.again_at);
  end if;
  insert into tms.replay_runs (company_id, by_name, plan, items, bytes)
    values (c.company_id, c.who, plan ->> 'plan', jsonb_array_length(plan -> 'items'), (plan ->> 'bytes')::bigint) returning * into run;
  for d in select x.* from tms.dead_letter_queue x join jsonb_array_elements(plan -> 'items') i on x.id = (i.value ->> 'id')::bigint order by x.id loop
    -- one attempt: an operator looks at the outcome, and trying on would hide it
    insert into tms.agent_tasks (company_id, agent, fn_name, payload, max_attempts, next_run_at, traceparent, created_by, dead_letter_id, replay_run_id, parent_id)
      select d.company_id, f.agent, d.fn_name, d.payload, 1, clock_timestamp(), d.traceparent, c.principal_id, d.id, run.id, d.task_id
        from tms.agent_functions f where f.fn_name = d.fn_name returning id, agent into made, works;
    -- what its steps have done is done
    update tms.task_steps s set task_id = made where s.task_id = coalesce(d.replay_task_id, d.task_id);
    update tms.dead_letter_queue x set status = 'replaying', replays = x.replays + 1, replay_task_id = made where x.id = d.id;
    perform tms._touch_queues(d.company_id, array[works], array[0::smallint]);
    tasks := tasks || jsonb_build_object('id', d.id::text, 'task', made::text);
  end loop;
  perform tms._record(c, 'dlq.replay', 'done', format('replay %s', run.id), reason, jsonb_build_object('run', run.id::text, 'plan', run.plan, 'items', tasks));
  perform pg_notify('tms_tasks', '');
  return tms._finish(c, jsonb_build_object('run', run.id::text, 'items', tasks));
end
$$;
grant execute on function tms.dlq_replay(jsonb) to tms_caller;

-- After tasks of a replay ended well (failures are counted where they are buried) or came back: closes the dead letters of what ended
-- well, stops the run when more than the allowed part of it has failed, and withdraws what waits of one that is stopped.
create or replace function tms._replay_counted(runs bigint[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  run tms.replay_runs;
  good integer;
  back integer;
begin
  for run in select * from tms.replay_runs r where r.id = any (runs) order by r.id for update loop
    with well as (
      update tms.dead_letter_queue d set status = 'replayed', closed_at = clock_timestamp()
        from tms.agent_tasks t where t.replay_run_id = run.id and t.status = 'completed' and d.id = t.dead_letter_id and d.replay_task_id = t.id and d.status = 'replaying'
       returning 1)
    select count(*) into good from well;
    update tms.replay_runs r set tried = r.tried + good, succeeded = r.succeeded + good where r.id = run.id returning * into run;
    if run.stopped_why is null and run.failed * 100 > least(20, tms._budget('budget.replay.stopAtFailurePercent', run.company_id, 20)) * run.items and run.failed + run.succeeded < run.items then
      update tms.replay_runs r set stopped_why = format('%s of %s failed', run.failed, run.items) where r.id = run.id returning * into run;
    end if;
    if run.stopped_why is not null then
      -- by its dead letters: no index knows a replay's tasks in every state. What a worker holds comes here when it comes back.
      -- Nor is what somebody claims just now waited for, who may be waiting for this very replay.
      with idle as (
        select t.id from tms.dead_letter_queue d join tms.agent_tasks t on t.id = d.replay_task_id
         where d.company_id = run.company_id and d.status = 'replaying' and t.replay_run_id = run.id and t.status in ('pending', 'awaiting_approval')
         order by t.id for update of t skip locked
      ), pulled as (
        update tms.agent_tasks t set status = 'quarantined', finished_at = clock_timestamp(), error_class = 'policy', error = 'its replay was stopped'
         where t.id in (select i.id from idle i) returning t.id, t.dead_letter_id as letter
      ), effects as (
        delete from tms.task_effects f using pulled p where f.task_id = p.id
      ), spent as (
        delete from tms.task_spend s using pulled p where s.task_id = p.id
      ), again as (
        update tms.dead_letter_queue d set status = 'open' from pulled p where d.id = p.letter returning 1)
      select count(*) into back from again;
      update tms.replay_runs r set withdrawn = r.withdrawn + back where r.id = run.id returning * into run;
    end if;
    if run.tried + run.withdrawn >= run.items and run.finished_at is null then
      update tms.replay_runs r set finished_at = clock_timestamp() where r.id = run.id;
    end if;
  end loop;
end
$$;

create or replace function tms.dlq_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('dlq_list', args, '{tenant,class,status,id,limit}', 'dlq.read');
  visible uuid[] := tms._allowed('dlq.read');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return jsonb_build_object('letters', (select coalesce(jsonb_agg(jsonb_build_object('id', x.id::text, 'task', x.task_id::text, 'tenant', tms._tenant_key(x.company_id), 'agent', x.agent, 'function', x.fn_name,
      'class', x.error_class, 'error', case when tms._clear(c, x.company_id) then x.error end, 'attempts', x.attempts, 'created_at', tms._utc(x.created_at), 'status', x.status, 'snooze_until', tms._utc(x.snooze_until),
      'replays', x.replays, 'replay_task', x.replay_task_id::text, 'trace_id', x.trace_id, 'bytes', x.bytes, 'payload', case when args ? 'id' and tms._clear(c, x.company_id) then x.payload end) order by x.id desc), '[]')
    from (select * from tms.dead_letter_queue d where (visible is null or d.company_id = any (visible)) and (not args ? 'class' or d.error_class = args ->> 'class')
             and (not args ? 'status' or d.status = args ->> 'status') and (not args ? 'id' or d.id = (args ->> 'id')::bigint) order by d.id desc limit tms._limit(args)) x));
end
$$;
grant execute on function tms.dlq_list(jsonb) to tms_caller;

create or replace function tms.dlq_stats(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('dlq_stats', args, '{tenant}', 'dlq.read');
  visible uuid[] := tms._allowed('dlq.read');
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return jsonb_build_object(
    'counts', (select coalesce(jsonb_agg(jsonb_build_object('tenant', tms._tenant_key(k.company_id), 'class', k.error_class, 'status', k.status, 'letters', k.n::text, 'oldest', tms._utc(k.oldest)) order by k.company_id, k.error_class, k.status), '[]')
        from (select d.company_id, d.error_class, d.status, count(*) as n, min(d.created_at) as oldest from tms.dead_letter_queue d where visible is null or d.company_id = any (visible) group by 1, 2, 3) k),
    'replays', (select coalesce(jsonb_agg(jsonb_build_object('run', r.id::text, 'tenant', tms._tenant_key(r.company_id), 'by', r.by_name, 'at', tms._utc(r.at), 'plan', r.plan, 'items', r.items, 'tried', r.tried, 'succeeded', r.succeeded,
        'failed', r.failed, 'withdrawn', r.withdrawn, 'finished_at', tms._utc(r.finished_at), 'stopped_why', r.stopped_why) order by r.id desc), '[]')
        from (select * from tms.replay_runs r where visible is null or r.company_id = any (visible) order by r.id desc limit 20) r));
end
$$;
grant execute on function tms.dlq_stats(jsonb) to tms_caller;

create or replace function tms.dlq_dispose(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('dlq_dispose', args, '{request_id,tenant,ids,action,until,why}', 'dlq.dispose');
  n integer;
  reason text;
begin
  if c.answer is not null then return c.answer; end if;
  if c.company_id is null then raise exception '"tenant" is missing' using errcode = 'TM400'; end if;
  reason := tms._text(args, 'why');
  if coalesce(args ->> 'action', '') not in ('snooze', 'discard') or (args ->> 'action' = 'snooze') <> (args ? 'until') then
    raise exception '"action" is snooze with "until", or discard' using errcode = 'TM400';
  end if;
  update tms.dead_letter_queue d set snooze_until = case when args ->> 'action' = 'snooze' then (args ->> 'until')::timestamptz end,
         status = case when args ->> 'action' = 'discard' then 'discarded' else d.status end, closed_at = case when args ->> 'action' = 'discard' then clock_timestamp() end, note = left(reason, 500)
   where d.id = any (tms._texts(args -> 'ids')::bigint[]) and d.company_id = c.company_id and d.status = 'open';
  get diagnostics n = row_count;
  perform tms._record(c, 'dlq.' || (args ->> 'action'), 'done', 'dead letters', reason, jsonb_build_object('ids', args -> 'ids', 'changed', n, 'until', args ->> 'until'));
  return tms._finish(c, jsonb_build_object('changed', n));
end
$$;
grant execute on function tms.dlq_dispose(jsonb) to tms_caller;
