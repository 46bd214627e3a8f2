-- Invariants: what must be true of the data, checked and, within bounds, corrected.
--
-- Guarantees: a check writes nothing, whatever its SQL says: it runs read-only, as a role with what its policy grants and nothing
-- else, in a subtransaction that is always undone; what could not be checked is unknown and never green; a correction that touches
-- more rows than its policy allows, or doesn't help, has touched none; nothing is corrected while the fleet is halted or in safe mode.
--
-- No function takes SQL. `tms invariants load` makes the functions of schema tms_invariants (src/invariants/build.ts); what is
-- run here is called by a name made from the invariant's id, after its body and its owner were compared with what was loaded.

set local role tms_owner;

-- ---------------------------------------------------------------------------------------------- checks of tms's own tables
-- Their rows are listed the same way as a policy's: at most `most` of them.
create or replace function tms._own_invariant(which text, most integer) returns setof jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  -- reaping comes every few seconds; this is what it must have missed
  grace constant interval := '2 minutes';
  window_start constant timestamptz := clock_timestamp() - interval '1 hour';
  lifted timestamptz := (select h.resumed_at from tms.halts h where h.kind = 'halt' and h.resumed_at is not null order by h.id desc limit 1);
begin
  case which
    when 'tasks_past_lease' then
      return query select jsonb_build_object('task', t.id::text, 'agent', t.agent, 'claimed_at', tms._utc(t.claimed_at), 'run_until', tms._utc(t.run_until),
          'worker', t.worker_id::text, 'lease_until', tms._utc(w.lease_until))
        from tms.agent_tasks t left join tms.workers w on w.id = t.worker_id
       where t.status = 'running'
         and (w.id is null or coalesce(w.stopped_at, w.lease_until) < clock_timestamp() - grace or t.run_until < clock_timestamp() - grace)
         -- a halt keeps everybody from handing back what they hold
         and not tms._halted()
       limit most;
    when 'tasks_without_policy' then
      return query select jsonb_build_object('agent', q.agent, 'tenant', tms._tenant_key(q.company_id), 'waiting', w.n, 'oldest', tms._utc(w.oldest))
        from tms.queues q cross join lateral (
          select count(*) as n, min(x.next_run_at) as oldest from (
            select t.next_run_at from tms.agent_tasks t
             where t.company_id = q.company_id and t.agent = q.agent and t.priority = q.priority and t.status = 'pending' and t.next_run_at < clock_timestamp() - grace
             order by t.next_run_at limit most) x) w
       where w.n > 0 and not exists (select from tms.agent_policies p where p.agent = q.agent)
       limit most;
    when 'outbox_past_slo' then
      return query select jsonb_build_object('delivery', d.id::text, 'target', d.target, 'topic', e.topic, 'status', d.status, 'attempts', d.attempts,
          'created_at', tms._utc(d.created_at), 'next_at', tms._utc(d.next_at))
        -- a target that is gone too: what was published while it was removed waits for nobody
        from tms.outbox_deliveries d left join tms.outbox_targets t on t.name = d.target left join tms.outbox_events e on e.id = d.event_id
       where t.paused is not true and (d.lane = 'halt' or not tms._halted())
         -- due for a minute and not even tried; one that is tried again and again has its own times
         and ((d.status = 'pending' and d.next_at < clock_timestamp() - interval '60 seconds'
               -- what a halt held back is due from its end on
               and (d.lane = 'halt' or lifted is null or lifted < clock_timestamp() - interval '60 seconds')
               -- what waits its turn behind an earlier one of its key, which is being tried or has its own time: that one is looked at
               and (d.ordering_key is null or not exists (
                 select from tms.outbox_deliveries b where b.target = d.target and b.ordering_key = d.ordering_key and b.company_id = d.company_id
                    and b.status in ('pending', 'sending') and b.id < d.id and (b.lane = 'halt' or not tms._halted()))))
           or (d.status = 'sending' and coalesce(d.lease_until, d.next_at) < clock_timestamp() - grace))
         and not exists (select from tms.tenant_state s where s.company_id = d.company_id and s.state = 'paused' and d.lane <> 'halt')
       limit most;
    when 'ledger_unsealed' then
      if to_regclass('tms.ledger') is null then return; end if;
      -- the newest hundred thousand: older gaps are the business of verification
      return query execute 'select jsonb_build_object(''inbox'', b.id::text, ''at'', tms._utc(b.at), ''action'', b.action)
          from tms.ledger_inbox b
         where b.at < clock_timestamp() - interval ''1 minute'' and b.id > (select max(x.id) - 100000 from tms.ledger_inbox x)
           and not exists (select from tms.ledger l where l.inbox_id = b.id)
         limit $1' using most;
    when 'flags_outside_catalogue' then
      return query select jsonb_build_object('flag', f.key, 'level', f.level, 'tenant', tms._tenant_key(f.company_id), 'updated_at', tms._utc(f.updated_at))
        from tms.feature_flags_v2 f where not exists (select from tms.flag_catalogue k where k.key = f.key) limit most;
    when 'effects_without_task' then
      return query select jsonb_build_object('task', x.task_id::text, 'at', tms._utc(x.at))
        from tms.task_effects x
       where not exists (select from tms.agent_tasks t where t.id = x.task_id and t.status = 'awaiting_approval')
       limit most;
    when 'replay_unbalanced' then
      return query select jsonb_build_object('replay', r.id::text, 'items', r.items, 'tried', r.tried, 'succeeded', r.succeeded, 'failed', r.failed,
          'withdrawn', r.withdrawn, 'finished_at', tms._utc(r.finished_at))
        from tms.replay_runs r
       where r.tried <> r.succeeded + r.failed or r.tried + r.withdrawn > r.items
          or (r.finished_at is not null and r.tried + r.withdrawn <> r.items)
       limit most;
    when 'deliveries_without_event' then
      return query select jsonb_build_object('delivery', d.id::text, 'event', d.event_id::text, 'target', d.target, 'status', d.status)
        from tms.outbox_deliveries d where not exists (select from tms.outbox_events e where e.id = d.event_id) limit most;
    when 'runs_without_task' then
      -- partitions by this very column: only the newest is read
      return query select jsonb_build_object('task', r.task_id::text, 'claim', r.claim, 'agent', r.agent, 'finished_at', tms._utc(r.finished_at))
        from tms.agent_runs r
       where r.finished_at > window_start
         and not exists (select from tms.agent_tasks t where t.id = r.task_id)
         and not exists (select from tms.agent_tasks_history h where h.id = r.task_id)
       limit most;
    when 'slots_beyond_limit' then
      return query select jsonb_build_object('slots', x.slots, 'limit', tms._fleet_limit())
        from (select sum(w.slots) as slots from tms.workers w where w.stopped_at is null and w.lease_until > clock_timestamp()) x
       -- a lower limit takes a heartbeat of each worker to arrive
       where x.slots > greatest(tms._fleet_limit(), 0)
         and not exists (select from tms.feature_flags_history h where h.key = 'budget.agents.maxConcurrent' and h.at > clock_timestamp() - grace)
         -- a fleet that comes back in steps has a lower one, too
         and not exists (select from tms.resumption r where r.since > clock_timestamp() - grace)
       limit most;
    when 'letters_without_task' then
      return query select jsonb_build_object('letter', l.id::text, 'task', l.task_id::text, 'agent', l.agent, 'status', l.status)
        from tms.dead_letter_queue l
       where l.status = 'open' and l.created_at > window_start
         and not exists (select from tms.agent_tasks t where t.id = l.task_id)
         and not exists (select from tms.agent_tasks_history h where h.id = l.task_id)
       limit most;
    else
      raise exception 'this database has no check "%": it is older than the policy', left(which, 60) using errcode = 'TM400';
  end case;
end
$$;

-- ---------------------------------------------------------------------------------------------- running a check
-- A name in schema tms_invariants, and its role: made from the id, which holds letters, digits and _ only.
create or replace function tms._invariant_role(kind text, id text) returns name
language sql immutable as $$
  select ('tms_' || case kind when 'find' then 'invariant' else 'correction' end || '_' || pg_catalog.lower(id))::name
$$;

-- Why a function of a policy may not be run; null: it may. What was loaded is what is run, by the role that was made for it, and it
-- sees every row: a table that hides rows from it would make a violation look like none.
create or replace function tms._invariant_unfit(v tms.invariants, part text) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  made record;
  hidden text;
  role name := tms._invariant_role(part, v.id);
begin
  select p.oid, p.prosrc, p.prosecdef, p.provolatile, p.prorettype, r.rolname, r.rolcanlogin, r.rolsuper, r.rolbypassrls into made
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_roles r on r.oid = p.proowner
   where n.nspname = 'tms_invariants' and p.proname = part || '_' || lower(v.id);
  if made.oid is null then return 'its function is not in this database'; end if;
  if tms._sha256(made.prosrc) <> (case part when 'find' then v.query_sha256 else v.correction_sha256 end) then
    return 'its function is not the one that was loaded';
  end if;
  if not made.prosecdef or made.rolname <> role or made.rolcanlogin or made.rolsuper or made.rolbypassrls
     or exists (select from pg_auth_members m where m.member = role::regrole) then
    return format('its function does not run as %s, or that role may more than its policy grants', role);
  end if;
  -- by hand: to_regclass wants to be allowed to look into the schema
  select string_agg(t.name, ', ') into hidden from unnest(v.reads) t (name)
   where not exists (select from pg_class k join pg_namespace n on n.oid = k.relnamespace
                      where n.nspname = split_part(t.name, '.', 1) and k.relname = split_part(t.name, '.', 2) and has_table_privilege(role, k.oid, 'select'));
  if hidden is not null then return 'it may not read ' || hidden || ', or it is gone'; end if;
  select string_agg(t.name, ', ') into hidden
    from unnest(v.reads || case part when 'fix' then v.writes else '{}' end) t (name)
      join pg_namespace n on n.nspname = split_part(t.name, '.', 1) join pg_class k on k.relnamespace = n.oid and k.relname = split_part(t.name, '.', 2)
   where k.relrowsecurity
     and (not exists (select from pg_policy p where p.polrelid = k.oid and p.polpermissive and role::regrole = any (p.polroles)
                         and p.polcmd in ('*', 'r') and pg_get_expr(p.polqual, p.polrelid) = 'true')
       or exists (select from pg_policy p where p.polrelid = k.oid and not p.polpermissive and (p.polroles = '{0}' or role::regrole = any (p.polroles))));
  if hidden is not null then return 'row security hides rows of ' || hidden || ' from it'; end if;
  return null;
end
$$;

-- What an error says, where its words are the server's own. Words of somebody's code, and messages about values, hold what stands in
-- rows: those are left out, for this goes into the ledger and to people of every tenant.
create or replace function tms._error_words(state text, message text, context text) returns text
language sql immutable as $$
  select case when state ~ '^2[23]' then 'a value or a constraint stood in its way'
              when state !~ '^(0A|25|4[02]|5[3457])' or context like '%at RAISE%' then 'code that it calls raised an error'
              else pg_catalog.left(message, 200) end
$$;

-- Runs a check and lists what it finds, at most `most` rows. What it does besides is undone: the subtransaction ends with an
-- exception, always. `done` is set here and nowhere else: a query that raises the same exception has not been done.
create or replace function tms._invariant_find(v tms.invariants, most integer, out hits jsonb[], out problem text, out ms integer)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  done boolean := false;
  began timestamptz := clock_timestamp();
  words text;
begin
  problem := case v.kind when 'broken' then v.problem when 'query' then tms._invariant_unfit(v, 'find') end;
  if problem is null then
    begin
      -- once a snapshot was taken nothing within this subtransaction can take it back
      perform set_config('transaction_read_only', 'on', true);
      -- nobody's lock is waited for, and nobody's way is stood in
      perform set_config('lock_timeout', '1s', true);
      if v.kind = 'own' then
        select array_agg(x) into hits from tms._own_invariant(v.own_check, most) x;
      else
        execute format('select array_agg(y) from (select x from tms_invariants.%I($1) x (x) limit $1) z (y)', 'find_' || lower(v.id)) into hits using most;
      end if;
      done := true;
      raise exception using errcode = 'TM000';
    exception
      when sqlstate 'TM000' then
        if not done then problem := 'its query raised an error of tms'; end if;
      -- not among `others`
      when query_canceled then problem := format('it took longer than its time limit, or was cancelled, after %s ms', round(extract(epoch from clock_timestamp() - began) * 1000));
      when lock_not_available then problem := 'a table was locked by somebody for longer than a second';
      when assert_failure or others then
        get stacked diagnostics words = pg_exception_context;
        problem := format('its query failed: %s (%s)', case v.kind when 'own' then left(sqlerrm, 200) else tms._error_words(sqlstate, sqlerrm, words) end, sqlstate);
    end;
  end if;
  ms := round(extract(epoch from clock_timestamp() - began) * 1000);
  if problem is null and ms > v.timeout_ms then
    -- where the limit could not be set for this call alone
    problem := format('it took %s ms, and its policy allows %s', ms, v.timeout_ms);
  end if;
  if problem is not null then hits := null; end if;
end
$$;

-- Ten rows for people. Values of columns that the policy does not name are digests with this database's secret: equal ones look
-- equal, and nobody finds out what they were by trying.
create or replace function tms._invariant_sample(hits jsonb[], show text[]) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(jsonb_agg(r.shown order by r.n), '[]') from (
    select x.n, (select coalesce(jsonb_object_agg(left(f.key, 60), case
                   when jsonb_typeof(f.value) = 'null' then f.value
                   when show is null or f.key = any (show) then case when length(f.value #>> '{}') > 200 then to_jsonb(left(f.value #>> '{}', 200) || '…') else f.value end
                   else to_jsonb('digest ' || left(tms._sha256((select s.secret from tms.seal s) || (f.value #>> '{}')), 12)) end), '{}')
                   from (select * from jsonb_each(case jsonb_typeof(x.hit) when 'object' then x.hit else jsonb_build_object('value', x.hit) end) limit 20) f) as shown
      from unnest(hits[1:10]) with ordinality x (hit, n)) r
$$;

-- ---------------------------------------------------------------------------------------------- correcting
-- Rows of anybody's tables that this transaction has written, by the server's own count: cascades and triggers are in it, and a
-- statement can't hide any. Large objects are rows of two tables of the system.
create or replace function tms._touched() returns bigint
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(sum(pg_stat_get_xact_tuples_inserted(k.oid) + pg_stat_get_xact_tuples_updated(k.oid) + pg_stat_get_xact_tuples_deleted(k.oid)), 0)::bigint
    from pg_class k where k.relkind = 'r'
     and (k.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) or k.oid in ('pg_largeobject'::regclass, 'pg_largeobject_metadata'::regclass))
     and k.relpersistence <> 't'
     -- what the guard of a table notes for its commit is nobody's row
     and k.oid not in ('tms.fence_writes'::regclass, 'tms.safe_writes'::regclass)
$$;

-- The tables that there are, by oid: before a correction, for _uncounted.
create or replace function tms._tables() returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(jsonb_object_agg(k.oid, k.oid::regclass::text), '{}')
    from pg_class k where k.relkind in ('r', 'f') and k.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
     and k.relpersistence <> 't'
$$;

-- Which of these tables this transaction has truncated, dropped or altered, and which foreign ones it has written to; null: none. No
-- counter has the rows that go this way, and truncating takes back what was counted before. It is seen by the lock, which whatever
-- does so holds until it is undone: a column that is dropped leaves no other trace, and what others do meanwhile isn't taken for this.
create or replace function tms._uncounted(tables jsonb) returns text
language sql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select left(string_agg(case when l.mode = 'RowExclusiveLock' then 'written to ' when k.oid is null then 'dropped ' else 'truncated or altered ' end
           || coalesce(t.value, k.oid::regclass::text), ', ' order by t.value), 200)
    from pg_locks l left join jsonb_each_text(tables) t on t.key = l.relation::text left join pg_class k on k.oid = l.relation
   where l.locktype = 'relation' and l.pid = pg_backend_pid() and l.granted
     and ((l.mode = 'AccessExclusiveLock' and t.key is not null) or (l.mode = 'RowExclusiveLock' and k.relkind = 'f'))
     and l.database = (select d.oid from pg_database d where d.datname = current_database())
$$;

-- Tries the policy's correction. `after`: how many are left; null when it was undone, with the reason.
create or replace function tms._invariant_correct(c tms.call, v tms.invariants, violations integer, out touched integer, out after integer, out why text, out allowed integer, out barred boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  before bigint;
  tables jsonb;
  taken text;
  said bigint;
  rest record;
  done boolean := false;
  left_over integer;
  words text;
begin
  allowed := least(v.rows_per_scan::bigint, violations::bigint * v.rows_per_violation);
  touched := 0;
  barred := true;
  why := case
    -- it passes the same gate as every machine, so a halt waits for it or ends it; who started it doesn't matter
    when tms._pass() is not null then 'the fleet is halted'
    when tms._safe_mode() then 'safe mode: nothing is written'
    when not tms._human() and tms._flag_value('agents.autonomousEnabled', null) = 'false' then 'agents.autonomousEnabled is off'
    end;
  if why is not null then return; end if;
  barred := false;
  why := case when current_setting('track_counts') <> 'on' then 'the server does not count rows (track_counts is off), so its bound could not be held'
    else tms._invariant_unfit(v, 'fix') end;
  if why is not null then return; end if;
  begin
    perform set_config('lock_timeout', '1s', true);
    before := tms._touched();
    tables := tms._tables();
    execute format('select tms_invariants.%I()', 'fix_' || lower(v.id)) into said;
    touched := greatest(said, tms._touched() - before);
    taken := tms._uncounted(tables);
    if taken is not null then
      why := format('it would have %s, and rows that go this way are not counted', taken);
      raise exception using errcode = 'TM000';
    end if;
    if touched > allowed then
      why := format('it would have touched %s rows and may touch %s', touched, allowed);
      raise exception using errcode = 'TM000';
    end if;
    select * into rest from tms._invariant_find(v, 1001);
    if rest.problem is not null then
      why := 'whether it helped could not be seen: ' || rest.problem;
      raise exception using errcode = 'TM000';
    end if;
    left_over := coalesce(cardinality(rest.hits), 0);
    if left_over >= violations then
      why := format('it touched %s rows and %s violations were left of %s', touched, left_over, violations);
      raise exception using errcode = 'TM000';
    end if;
    done := true;
  exception
    when sqlstate 'TM000' then why := coalesce(why, 'its statement raised an error of tms');
    when query_canceled then why := 'it took longer than its time limit';
    when assert_failure or others then
      get stacked diagnostics words = pg_exception_context;
      why := format('its statement failed: %s (%s)', tms._error_words(sqlstate, sqlerrm, words), sqlstate);
  end;
  if done then after := left_over; else touched := 0; end if;
end
$$;

-- A person's affair from here on.
create or replace function tms._invariant_escalate(key text, why text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  i tms.incidents;
begin
  update tms.incidents x set status = 'ESCALATED', escalated_at = tms.now() where x.dedupe_key = key and x.status in ('OPEN', 'AUTO_HEALING') returning * into i;
  if i.id is null then return; end if;
  perform tms._incident_event(i.id, i.company_id, 'tms', 'escalated', why);
  perform tms._incident_announce('incident.escalated', i, 'escalated', jsonb_build_object('why', left(why, 300)));
end
$$;

-- Once may happen. What can't be checked for long is news.
create or replace function tms._invariant_unchecked(c tms.call, v tms.invariants) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if v.since > tms.now() - greatest(v.every_ms * 3, 900000) * interval '1 millisecond' then return null; end if;
  return tms._incident_open('P3', 'invariant', 'unknown:' || v.id, null, v.id || ' cannot be checked', jsonb_build_object('invariant', v.id, 'why', v.why, 'since', tms._utc(v.since)), c.who);
end
$$;

-- ---------------------------------------------------------------------------------------------- scanning
-- Checks one invariant, and with `correct` also tries its correction. `since`: when this scan began; what another scan has found
-- out after that is taken from it.
create or replace function tms.invariants_scan(args jsonb) returns jsonb
-- PostgREST makes this the limit of the request; other drivers set the policy's own before they call
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set statement_timeout = '95s' as $$
declare
  c tms.call := tms._begin('invariants_scan', args, '{request_id,invariant,correct,since}', 'invariants.scan');
  v tms.invariants;
  was text;
  f record;
  fixed record;
  n integer;
  key text;
  number bigint;
  tried boolean := false;
  touched integer := 0;
  -- the second look of one scan, which corrects what the first has found
  again boolean := false;
  told jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  key := 'invariant:' || tms._text(args, 'invariant', 60);
  if not exists (select from tms.invariants x where x.id = args ->> 'invariant') then
    return tms._refuse(c, 'NOT_FOUND', format('there is no invariant "%s"', left(args ->> 'invariant', 60)), 'no policy of this name is loaded', array['tms invariants list', 'tms invariants load']);
  end if;
  -- its own row is the latch
  select * into v from tms.invariants x where x.id = args ->> 'invariant' for update skip locked;
  if v.id is null then
    return tms._finish(c, jsonb_build_object('invariant', args ->> 'invariant', 'by', 'another', 'outcome', null, 'why', 'another scan is at it'));
  end if;
  was := v.outcome;
  again := coalesce((args ->> 'correct')::boolean, false) and v.outcome = 'violated' and v.checked_by = c.who and v.checked_at >= (args ->> 'since')::timestamptz;
  if args ? 'since' and v.checked_at > (args ->> 'since')::timestamptz and not coalesce((args ->> 'correct')::boolean, false) then
    return tms._finish(c, tms._invariant_result(v) || jsonb_build_object('by', 'another', 'why', format('another scan did it at %s', tms._utc(v.checked_at))));
  end if;
  select * into f from tms._invariant_find(v, 1001);
  n := coalesce(cardinality(f.hits), 0);

  if f.problem is not null then
    update tms.invariants x set outcome = 'unknown', why = left(f.problem, 400), checked_at = tms.now(), checked_by = c.who, ms = f.ms,
           since = case when x.outcome = 'unknown' then coalesce(x.since, tms.now()) else tms.now() end
     where x.id = v.id returning * into v;
    number := tms._invariant_unchecked(c, v);
    if was <> 'unknown' then perform tms._record(c, 'invariant.unknown', 'done', 'invariant ' || v.id, v.why, tms._invariant_result(v)); end if;
    return tms._finish(c, tms._invariant_result(v) || jsonb_build_object('by', 'this', 'incident', number::text));
  end if;

  if n > 0 then
    insert into tms.invariant_violations as w (invariant, priority, first_seen, last_seen, violations, most, more, sample)
      values (v.id, v.priority, tms.now(), tms.now(), least(n, 1000), least(n, 1000), n > 1000, tms._invariant_sample(f.hits, case v.kind when 'query' then v.show end))
      on conflict (invariant) where cleared_at is null
      do update set last_seen = excluded.last_seen, scans = w.scans + case when again then 0 else 1 end, violations = excluded.violations, most = greatest(w.most, excluded.most),
        more = excluded.more, sample = excluded.sample, priority = excluded.priority;
    if again then select i.id into number from tms.incidents i where i.dedupe_key = key and i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED'); end if;
    number := coalesce(number, tms._incident_open(v.priority, 'invariant', key, null, format('%s: %s%s violation%s', v.id, case when n > 1000 then 'more than ' else '' end, least(n, 1000), case when n = 1 then '' else 's' end),
      jsonb_build_object('invariant', v.id, 'title', v.title, 'owner', v.owner, 'violations', least(n, 1000), 'more', n > 1000), c.who));
    if coalesce((args ->> 'correct')::boolean, false) and v.correction_sha256 is not null then
      tried := true;
      if n > 1000 then
        select 0 as touched, null::integer as after, 'there are more than 1000 violations: that is no slip' as why, 0 as allowed, false as barred into fixed;
      else
        select * into fixed from tms._invariant_correct(c, v, n);
      end if;
      touched := fixed.touched;
      told := jsonb_build_object('invariant', v.id, 'before', n, 'touched', fixed.touched, 'allowed', fixed.allowed, 'after', coalesce(fixed.after, n), 'why', coalesce(fixed.why, ''));
      perform tms._record(c, case when fixed.after is null then 'invariant.not_corrected' else 'invariant.corrected' end, 'done', 'invariant ' || v.id,
        coalesce(fixed.why, format('%s rows touched, %s violations left of %s', fixed.touched, fixed.after, n)), told);
      if not fixed.barred then
        perform tms._incident_attempt(key, coalesce('not corrected: ' || fixed.why, format('corrected: %s rows touched, %s violations left of %s', fixed.touched, fixed.after, n)));
      end if;
      if fixed.after is not null then
        n := fixed.after;
        update tms.invariant_violations w set touched = w.touched + fixed.touched, violations = n where w.invariant = v.id and w.cleared_at is null;
      elsif not fixed.barred then
        perform tms._invariant_escalate(key, 'not corrected: ' || fixed.why);
      end if;
    elsif v.escalate = 'at_once' then
      perform tms._invariant_escalate(key, 'nothing corrects it but a person');
    elsif v.correction_sha256 is null then
      -- looking is all that is tried: the third look is somebody's
      perform tms._incident_attempt(key, format('looked: %s', least(n, 1000)), false);
    end if;
  end if;

  update tms.invariants x set outcome = case when n = 0 then 'holds' else 'violated' end, violations = least(n, 1000), more = n > 1000, checked_at = tms.now(), checked_by = c.who, ms = f.ms,
         why = case when n > 0 then '' when tried then format('corrected: %s rows touched', touched) else '' end,
         since = case when x.outcome = (case when n = 0 then 'holds' else 'violated' end) then coalesce(x.since, tms.now()) else tms.now() end
   where x.id = v.id returning * into v;
  if n = 0 then
    update tms.invariant_violations w set cleared_at = tms.now(), cleared_why = case when tried then 'corrected' else 'no violation is found any more' end, violations = 0
     where w.invariant = v.id and w.cleared_at is null;
    perform tms._incident_clear(key, case when tried then format('corrected: %s rows touched, no violation is left', touched) else 'no violation is found any more' end);
  end if;
  perform tms._incident_clear('unknown:' || v.id, 'it can be checked again');
  if was <> v.outcome then
    perform tms._record(c, 'invariant.' || v.outcome, 'done', 'invariant ' || v.id, v.title, tms._invariant_result(v));
  end if;
  return tms._finish(c, tms._invariant_result(v) || jsonb_build_object('by', 'this', 'incident', number::text, 'correction', told));
end
$$;
grant execute on function tms.invariants_scan(jsonb) to tms_caller;

create or replace function tms._invariant_result(v tms.invariants) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object('invariant', v.id, 'priority', v.priority, 'outcome', v.outcome, 'why', v.why, 'violations', case when v.outcome = 'violated' then v.violations end,
    'more', v.outcome = 'violated' and v.more, 'checked_at', tms._utc(v.checked_at), 'ms', v.ms, 'correctable', v.correction_sha256 is not null)
$$;

-- Weights: what a violated invariant of this priority takes away at most, and what an unknown one leaves open.
create or replace function tms._invariant_weight(priority text) returns numeric
language sql immutable as $$
  select case priority when 'P1' then 40.0 when 'P2' then 20.0 when 'P3' then 8.0 else 3.0 end
$$;

-- The drift score from how each invariant stands at this moment.
create or replace function tms._drift_measure(out score numeric, out lowest numeric, out highest numeric, out detail jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  unknown integer;
  total integer;
begin
  with looked as (
    select x.id, tms._invariant_weight(x.priority) as weight, tms._invariant_stands(x) as stands,
           case when x.violations >= 100 or x.more then 1.0 when x.violations >= 10 then 0.75 else 0.5 end as share, x.violations
      from tms.invariants x
  )
  select count(*), count(*) filter (where l.stands = 'unknown'),
         100 - coalesce(sum(l.weight * l.share) filter (where l.stands = 'violated'), 0),
         100 - coalesce(sum(case l.stands when 'violated' then l.weight * l.share when 'unknown' then l.weight else 0 end), 0),
         jsonb_build_object('invariants', count(*), 'unknown', coalesce(jsonb_agg(l.id order by l.id) filter (where l.stands = 'unknown'), '[]'),
           'violated', coalesce(jsonb_object_agg(l.id, l.violations) filter (where l.stands = 'violated'), '{}'))
    into total, unknown, highest, lowest, detail from looked l;
  highest := greatest(highest, 0);
  -- nothing was looked at: nobody knows anything
  lowest := case when total = 0 then 0 else greatest(lowest, 0) end;
  score := case when total > 0 and unknown = 0 then highest end;
end
$$;

create or replace function tms._drift_record() returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  insert into tms.drift_scores (at, score, lowest, highest, detail) select tms.now(), m.score, m.lowest, m.highest, m.detail from tms._drift_measure() m;
  delete from tms.drift_scores d where d.id = any (array(select y.id from tms.drift_scores y where y.at < tms.now() - interval '400 days' order by y.at limit 100));
end
$$;

-- Records the drift score. `missed`: checks that gave no answer at all (their transaction is gone), which are unknown.
create or replace function tms.invariants_score(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('invariants_score', args, '{request_id,missed}', 'invariants.scan');
  v tms.invariants;
begin
  if c.answer is not null then return c.answer; end if;
  for v in update tms.invariants x set outcome = 'unknown', why = left(m.why, 400), checked_at = tms.now(), checked_by = c.who,
                  since = case when x.outcome = 'unknown' then coalesce(x.since, tms.now()) else tms.now() end
             from jsonb_to_recordset(coalesce(args -> 'missed', '[]')) m (invariant text, why text)
            where x.id = m.invariant returning x.* loop
    perform tms._invariant_unchecked(c, v);
  end loop;
  perform tms._drift_record();
  return tms._finish(c, tms._drift_now());
end
$$;
grant execute on function tms.invariants_score(jsonb) to tms_caller;

-- How it stands now: a result that is older than two of its intervals says nothing any more.
create or replace function tms._invariant_stands(v tms.invariants) returns text
language sql stable as $$
  select case when v.checked_at is null or v.checked_at < tms.now() - v.every_ms * 2 * interval '1 millisecond' then 'unknown' else v.outcome end
$$;

create or replace function tms._drift_now() returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select jsonb_build_object('at', tms._utc(tms.now()), 'score', round(m.score, 2)::text, 'lowest', round(m.lowest, 2)::text, 'highest', round(m.highest, 2)::text, 'detail', m.detail)
    from tms._drift_measure() m
$$;

-- ---------------------------------------------------------------------------------------------- loading and looking
-- What the policies say, apart from their SQL. What isn't in the list stays, unless `remove` names it: a list that was read in the
-- wrong folder takes nothing away.
create or replace function tms.invariants_load(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('invariants_load', args, '{request_id,invariants,remove}', 'invariants.load');
  p jsonb;
  names text[] := '{}';
  changed text[] := '{}';
  removed text[];
  mine tms.invariants;
  old tms.invariants;
  i tms.incidents;
begin
  if c.answer is not null then return c.answer; end if;
  if jsonb_typeof(args -> 'invariants') is distinct from 'array' then raise exception '"invariants" is a list' using errcode = 'TM400'; end if;
  for p in select value from jsonb_array_elements(args -> 'invariants') loop
    names := names || (p ->> 'invariant');
    select * into old from tms.invariants x where x.id = p ->> 'invariant' for update;
    mine := null;
    mine.id := p ->> 'invariant'; mine.kind := p ->> 'kind'; mine.priority := p ->> 'priority'; mine.title := p ->> 'title'; mine.owner := p ->> 'owner';
    mine.own_check := p ->> 'check'; mine.every_ms := (p ->> 'every_ms')::bigint; mine.timeout_ms := (p ->> 'timeout_ms')::integer; mine.escalate := p ->> 'escalate';
    mine.reads := tms._texts(p -> 'reads'); mine.writes := tms._texts(p -> 'writes'); mine.show := tms._texts(p -> 'show');
    mine.rows_per_scan := (p ->> 'rows_per_scan')::integer; mine.rows_per_violation := (p ->> 'rows_per_violation')::integer;
    mine.query_sha256 := p ->> 'query_sha256'; mine.correction_sha256 := p ->> 'correction_sha256'; mine.problem := left(p ->> 'problem', 400);
    continue when old.id is not null and (old.kind, old.priority, old.title, old.owner, old.own_check, old.every_ms, old.timeout_ms, old.escalate, old.reads, old.writes, old.show,
        old.rows_per_scan, old.rows_per_violation, old.query_sha256, old.correction_sha256, old.problem)
      is not distinct from (mine.kind, mine.priority, mine.title, mine.owner, mine.own_check, mine.every_ms, mine.timeout_ms, mine.escalate, mine.reads, mine.writes, mine.show,
        mine.rows_per_scan, mine.rows_per_violation, mine.query_sha256, mine.correction_sha256, mine.problem);
    changed := changed || mine.id;
    insert into tms.invariants as x (id, kind, priority, title, owner, own_check, every_ms, timeout_ms, escalate, reads, writes, show, rows_per_scan, rows_per_violation,
        query_sha256, correction_sha256, problem, loaded_at, loaded_by)
      values (mine.id, mine.kind, mine.priority, mine.title, mine.owner, mine.own_check, mine.every_ms, mine.timeout_ms, mine.escalate, mine.reads, mine.writes, mine.show,
        mine.rows_per_scan, mine.rows_per_violation, mine.query_sha256, mine.correction_sha256, mine.problem, tms.now(), c.who)
      on conflict (id) do update set kind = excluded.kind, priority = excluded.priority, title = excluded.title, owner = excluded.owner, own_check = excluded.own_check,
        every_ms = excluded.every_ms, timeout_ms = excluded.timeout_ms, escalate = excluded.escalate, reads = excluded.reads, writes = excluded.writes, show = excluded.show,
        rows_per_scan = excluded.rows_per_scan, rows_per_violation = excluded.rows_per_violation, query_sha256 = excluded.query_sha256,
        correction_sha256 = excluded.correction_sha256, problem = excluded.problem, loaded_at = excluded.loaded_at, loaded_by = excluded.loaded_by,
        -- what another query found says nothing about this one
        outcome = 'unknown', why = coalesce(excluded.problem, 'it has not been checked since it was loaded'), checked_at = null, since = excluded.loaded_at, violations = null, more = false;
  end loop;
  with gone as (delete from tms.invariants x where x.id = any (tms._texts(args -> 'remove')) and x.id <> all (names) returning x.id)
  select coalesce(array_agg(id order by id), '{}') into removed from gone;
  -- its incident stays: taking the policy away heals nothing
  update tms.invariant_violations w set cleared_at = tms.now(), cleared_why = 'its policy was removed' where w.cleared_at is null and w.invariant = any (removed);
  for i in select * from tms.incidents x where x.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED')
              and x.dedupe_key = any (select k || ':' || r from unnest(removed) r, unnest('{invariant,unknown}'::text[]) k) loop
    perform tms._incident_event(i.id, i.company_id, c.who, 'unwatched', 'its invariant was removed: no scan will end this, a person resolves it');
  end loop;
  if changed <> '{}' or removed <> '{}' then
    -- the last score was of other invariants
    perform tms._drift_record();
    perform tms._record(c, 'invariants.load', 'done', 'invariants', 'policies loaded', jsonb_build_object('changed', to_jsonb(changed), 'removed', to_jsonb(removed),
      'sha256', (select coalesce(jsonb_object_agg(x.id, coalesce(x.query_sha256, x.own_check, 'broken')), '{}') from tms.invariants x)));
  end if;
  return tms._finish(c, jsonb_build_object('loaded', to_jsonb(names), 'changed', to_jsonb(changed), 'removed', to_jsonb(removed)));
end
$$;
grant execute on function tms.invariants_load(jsonb) to tms_caller;

-- The text of a policy's SQL, as it stands in its function.
create or replace function tms._invariant_text(part text, id text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select substring(p.prosrc from E'\n--> from here\n(.*)\n--< to here\n') from pg_proc p join pg_namespace n on n.oid = p.pronamespace
   where n.nspname = 'tms_invariants' and p.proname = part || '_' || lower(id)
$$;

-- All of them, or one with its SQL and its last violations. Rows of the data span tenants: only who may see every tenant sees them.
create or replace function tms.invariants_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('invariants_list', args, '{invariant}', 'incident.read');
  everything boolean := tms._allowed('incident.read') is null;
  one boolean := args ? 'invariant';
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('now', tms._utc(tms.now()), 'drift', case when everything and exists (select from tms.drift_scores) then tms._drift_now() else 'null' end,
    'invariants', (select coalesce(jsonb_agg(tms._invariant_result(x) || jsonb_build_object(
        'outcome', tms._invariant_stands(x), 'title', x.title, 'owner', x.owner, 'kind', x.kind, 'check', x.own_check, 'every_ms', x.every_ms::text, 'timeout_ms', x.timeout_ms, 'escalate', x.escalate,
        'why', case when tms._invariant_stands(x) = 'unknown' and x.outcome <> 'unknown' then format('its last check is too old: %s', tms._utc(x.checked_at)) else x.why end,
        'violations', case when everything and x.outcome = 'violated' then x.violations end, 'since', tms._utc(x.since),
        'reads', to_jsonb(x.reads), 'writes', to_jsonb(x.writes), 'show', to_jsonb(x.show), 'rows_per_scan', x.rows_per_scan, 'rows_per_violation', x.rows_per_violation,
        'query_sha256', x.query_sha256, 'correction_sha256', x.correction_sha256,
        'fit', x.kind = 'own' or (x.kind = 'query' and tms._invariant_unfit(x, 'find') is null and (x.correction_sha256 is null or tms._invariant_unfit(x, 'fix') is null)),
        'loaded_at', tms._utc(x.loaded_at), 'loaded_by', case when tms._clear(c, null) then x.loaded_by else 'redacted' end,
        'query', case when one and everything then tms._invariant_text('find', x.id) end, 'correction', case when one and everything then tms._invariant_text('fix', x.id) end,
        'sample', case when one and everything and tms._clear(c, null) then (select w.sample from tms.invariant_violations w where w.invariant = x.id order by w.id desc limit 1) end,
        'incident', case when everything then (select i.id::text from tms.incidents i where i.dedupe_key = 'invariant:' || x.id and i.status in ('OPEN', 'AUTO_HEALING', 'ESCALATED')) end)
        order by x.priority, x.id), '[]')
      from tms.invariants x where not one or x.id = args ->> 'invariant'));
end
$$;
grant execute on function tms.invariants_list(jsonb) to tms_caller;

-- Scores and violations over time.
create or replace function tms.invariants_history(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('invariants_history', args, '{invariant,limit}', 'incident.read');
  everything boolean := tms._allowed('incident.read') is null;
begin
  if c.answer is not null then return c.answer; end if;
  if not everything then return jsonb_build_object('scores', '[]'::jsonb, 'violations', '[]'::jsonb); end if;
  return jsonb_build_object(
    'scores', (select coalesce(jsonb_agg(jsonb_build_object('at', tms._utc(d.at), 'score', round(d.score, 2)::text, 'lowest', round(d.lowest, 2)::text, 'highest', round(d.highest, 2)::text, 'detail', d.detail) order by d.id desc), '[]')
      from (select * from tms.drift_scores s where not args ? 'invariant' order by s.id desc limit tms._limit(args)) d),
    'violations', (select coalesce(jsonb_agg(jsonb_build_object('invariant', w.invariant, 'priority', w.priority, 'first_seen', tms._utc(w.first_seen), 'last_seen', tms._utc(w.last_seen),
        'cleared_at', tms._utc(w.cleared_at), 'cleared_why', w.cleared_why, 'scans', w.scans, 'most', w.most, 'more', w.more, 'touched', w.touched) order by w.id desc), '[]')
      from (select * from tms.invariant_violations y where not args ? 'invariant' or y.invariant = args ->> 'invariant' order by y.id desc limit tms._limit(args)) w));
end
$$;
grant execute on function tms.invariants_history(jsonb) to tms_caller;
