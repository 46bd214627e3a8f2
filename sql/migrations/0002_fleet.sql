-- The fleet: the fence, workers and their slots, tasks and runs, rails, the outbox, dead letters, the door.
--
-- Indexes stand next to the table with the query that needs them. The hot tables carry few: each index costs every claim
-- and every completion.

set local role tms_owner;

-- ---------------------------------------------------------------------------------------------- fence
-- Who commits something autonomous holds ROW SHARE on this empty table until its transaction ends; a halt looks in
-- pg_locks who held it when the mark was set.
create table tms.fence_gate ();
-- The same for safe mode: people hold this one too, and a halt doesn't wait for people.
create table tms.safe_gate ();
-- Held for the microseconds in which the mark is read and moved, so that a lift never undoes a halt that came meanwhile.
create table tms.fence_turn ();
-- last_value is twice the epoch, plus one while halted. A sequence, because its value is read and written outside of
-- snapshots: a transaction that began before the halt sees it all the same.
create sequence tms.fence_mark minvalue 0 start 0;
create sequence tms.safe_mode_mark minvalue 0 start 0;

create table tms.fence (
  one boolean primary key default true check (one),
  epoch bigint not null,
  safe_epoch bigint not null
);
insert into tms.fence (epoch, safe_epoch) values (0, 0);

create table tms.halts (
  id bigint generated always as identity primary key,
  kind text not null check (kind in ('halt', 'safe_mode')),
  epoch bigint not null,
  at timestamptz not null,
  by_id uuid not null,
  by_name text not null,
  why text not null,
  fenced boolean not null,
  ms_to_fence numeric not null,
  waited_for jsonb not null,
  terminated jsonb not null,
  survivors jsonb not null,
  in_flight integer not null,
  resumed_at timestamptz,
  resumed_by text,
  resumed_why text
);

-- ---------------------------------------------------------------------------------------------- policies and control
-- One row for each file of policies/agents: what the hot path needs is taken apart.
create table tms.agent_policies (
  agent text primary key check (agent ~ '^[a-z][a-z0-9_-]{0,62}$'),
  policy jsonb not null,
  sha256 text not null,
  functions text[] not null,
  approval text[] not null,
  publish text[] not null,
  enqueue text[] not null,
  apply text[] not null,
  max_attempts integer not null check (max_attempts between 1 and 100),
  timeout_ms integer not null check (timeout_ms between 1 and 86400000),
  backoff_ms integer not null check (backoff_ms between 1 and 86400000),
  backoff_cap_ms integer not null check (backoff_cap_ms between 1 and 604800000),
  requests_per_minute integer check (requests_per_minute > 0),
  concurrency integer check (concurrency > 0),
  tokens_per_task bigint,
  calls_per_task bigint,
  cost_per_task numeric,
  tokens_per_day bigint,
  calls_per_day bigint,
  cost_per_day numeric,
  breaker_percent numeric not null,
  breaker_samples integer not null,
  breaker_seconds integer not null,
  loaded_at timestamptz not null,
  loaded_by text not null
);
create table tms.agent_functions (
  fn_name text primary key check (fn_name ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$' and length(fn_name) <= 120),
  agent text not null
);

create table tms.agent_state (
  agent text primary key,
  state text not null default 'running' check (state in ('running', 'paused', 'draining', 'quarantined')),
  why text not null default '',
  since timestamptz,
  changed_by text not null default '',
  breaker text not null default 'closed' check (breaker in ('closed', 'open', 'half_open')),
  breaker_until timestamptz,
  breaker_opened integer not null default 0,
  -- only what came after counts
  breaker_since timestamptz not null default '-infinity',
  breaker_why text not null default '',
  minute timestamptz,
  minute_used integer not null default 0
);
create table tms.tenant_state (
  company_id uuid primary key,
  state text not null default 'running' check (state in ('running', 'paused', 'draining')),
  why text not null default '',
  since timestamptz,
  changed_by text not null default ''
);

-- Outcomes by the minute, for the breaker. Sharded by connection, so that completions don't wait for each other.
create table tms.agent_pulse (
  agent text not null,
  minute timestamptz not null,
  shard integer not null,
  ok integer not null,
  errors integer not null,
  primary key (agent, minute, shard)
) with (fillfactor = 50);

create table tms.spend (
  company_id uuid not null,
  day date not null,
  agent text not null,
  tokens bigint not null,
  calls bigint not null,
  cost numeric not null,
  primary key (company_id, day, agent)
) with (fillfactor = 50);
create table tms.task_spend (
  task_id bigint primary key,
  company_id uuid not null,
  tokens bigint not null,
  calls bigint not null,
  cost numeric not null
);

-- ---------------------------------------------------------------------------------------------- workers
-- The lease is the worker's, and its tasks live as long as it does: one row to renew, whatever it holds.
create table tms.workers (
  id bigint generated always as identity primary key,
  principal_id uuid not null,
  -- a hello that is repeated after a lost answer finds its worker
  request_id uuid not null unique,
  name text not null,
  host text not null,
  pid integer not null,
  agents text[] not null,
  wanted integer not null,
  slots integer not null,
  lease_until timestamptz not null,
  started_at timestamptz not null default clock_timestamp(),
  -- the halt it said it has seen
  acknowledged_epoch bigint,
  acknowledged_at timestamptz,
  stopped_at timestamptz
) with (fillfactor = 50);
create index workers_live on tms.workers (principal_id) where stopped_at is null;

-- ---------------------------------------------------------------------------------------------- tasks
create table tms.agent_tasks (
  id bigint generated always as identity primary key,
  company_id uuid not null,
  agent text not null,
  fn_name text not null,
  status text not null default 'pending'
    check (status in ('pending', 'running', 'awaiting_approval', 'completed', 'failed', 'quarantined')),
  priority smallint not null default 0 check (priority between -1 and 1),
  -- spent; `claim` counts every claim and never goes back: only the newest claim may finish the task
  attempts integer not null default 0,
  claim integer not null default 0,
  max_attempts integer not null,
  worker_id bigint,
  next_run_at timestamptz not null,
  claimed_at timestamptz,
  run_until timestamptz,
  finished_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  created_by uuid,
  parent_id bigint,
  dead_letter_id bigint,
  replay_run_id bigint,
  idempotency_key text check (length(idempotency_key) between 1 and 200),
  traceparent text,
  error_class text,
  error text,
  payload jsonb not null,
  output jsonb
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000, autovacuum_vacuum_cost_delay = 0);
-- claim: the head of each queue. Ready rows only, so that history costs nothing.
create index agent_tasks_ready on tms.agent_tasks (company_id, agent, priority, next_run_at, id) where status = 'pending';
-- reaping, what a worker holds, what runs
create index agent_tasks_running on tms.agent_tasks (worker_id) where status = 'running';
create index agent_tasks_waiting on tms.agent_tasks (company_id, id) where status = 'awaiting_approval';
create unique index agent_tasks_key on tms.agent_tasks (company_id, fn_name, idempotency_key) where idempotency_key is not null;
-- moving finished ones to the history: by age, of which a block range knows enough
create index agent_tasks_age on tms.agent_tasks using brin (created_at) with (pages_per_range = 32, autosummarize = on);
-- stopping a replay
create index agent_tasks_replay on tms.agent_tasks (replay_run_id) where replay_run_id is not null and status = 'pending';

-- Queues that exist: a claim looks at the head of each. A row is made by the first task and goes when idle for a day.
create table tms.queues (
  company_id uuid not null,
  agent text not null,
  priority smallint not null,
  touched_on date not null,
  primary key (company_id, agent, priority)
);

-- Finished tasks leave the hot table.
create table tms.agent_tasks_history (like tms.agent_tasks) partition by range (finished_at);
create index agent_tasks_history_id on tms.agent_tasks_history (id);
create index agent_tasks_history_company on tms.agent_tasks_history (company_id, id);

-- One row for each attempt, written when it ends. `xid` lets the roll-up take each row once, however late it commits.
create table tms.agent_runs (
  task_id bigint not null,
  claim integer not null,
  attempt integer not null,
  company_id uuid not null,
  agent text not null,
  fn_name text not null,
  worker_id bigint,
  outcome text not null check (outcome in ('completed', 'awaiting_approval', 'failed', 'retried', 'lost', 'returned')),
  error_class text check (error_class in ('timeout', 'validation', 'external_api', 'quota_exceeded', 'policy', 'bug')),
  error text,
  started_at timestamptz,
  finished_at timestamptz not null,
  ms integer not null,
  tokens bigint not null default 0,
  calls bigint not null default 0,
  cost numeric not null default 0,
  trace_id text,
  epoch bigint not null,
  xid bigint not null default (pg_current_xact_id()::text::bigint)
) partition by range (finished_at);
create index agent_runs_task on tms.agent_runs (task_id, claim);
create index agent_runs_xid on tms.agent_runs using brin (xid) with (pages_per_range = 32, autosummarize = on);

create table tms.task_steps (
  task_id bigint not null,
  name text not null check (length(name) between 1 and 200),
  company_id uuid not null,
  result jsonb not null,
  at timestamptz not null default clock_timestamp(),
  primary key (task_id, name)
);
-- What a finished task would do, kept until somebody approves it.
create table tms.task_effects (
  task_id bigint primary key,
  company_id uuid not null,
  claim integer not null,
  effects jsonb not null,
  at timestamptz not null default clock_timestamp()
);

create table tms.agent_logs (
  at timestamptz not null,
  company_id uuid,
  agent text not null,
  task_id bigint,
  claim integer,
  level text not null check (level in ('debug', 'info', 'warn', 'error')),
  message text not null,
  fields jsonb,
  trace_id text
) partition by range (at);
create index agent_logs_task on tms.agent_logs (task_id, at);
create index agent_logs_at on tms.agent_logs (at);

-- Fifteen minutes of one function for one tenant. buckets[i] counts runs of at most 2^((i-1)/4) ms.
create table tms.agent_metrics (
  start timestamptz not null,
  company_id uuid not null,
  agent text not null,
  fn_name text not null,
  completed bigint not null,
  failed bigint not null,
  retried bigint not null,
  lost bigint not null,
  tokens bigint not null,
  calls bigint not null,
  cost numeric not null,
  buckets bigint[] not null,
  primary key (start, company_id, agent, fn_name)
);
-- What the runs up to an xid were folded into; digests stay when the runs expire.
create table tms.run_digests (
  id bigint generated always as identity primary key,
  from_xid bigint not null,
  to_xid bigint not null,
  at timestamptz not null default clock_timestamp(),
  runs bigint not null,
  sha256 text not null
);

-- ---------------------------------------------------------------------------------------------- dead letters
create table tms.dead_letter_queue (
  id bigint generated always as identity primary key,
  task_id bigint not null unique,
  company_id uuid not null,
  agent text not null,
  fn_name text not null,
  payload jsonb not null,
  bytes integer not null,
  error_class text not null check (error_class in ('timeout', 'validation', 'external_api', 'quota_exceeded', 'policy', 'bug')),
  error text not null,
  attempts integer not null,
  trace_id text,
  traceparent text,
  created_at timestamptz not null default clock_timestamp(),
  status text not null default 'open' check (status in ('open', 'replaying', 'replayed', 'discarded')),
  snooze_until timestamptz,
  replays integer not null default 0,
  replay_task_id bigint,
  closed_at timestamptz,
  note text
);
create index dead_letter_queue_company on tms.dead_letter_queue (company_id, status, id);

create table tms.replay_runs (
  id bigint generated always as identity primary key,
  company_id uuid not null,
  by_name text not null,
  plan text not null,
  at timestamptz not null default clock_timestamp(),
  items integer not null,
  bytes bigint not null,
  tried integer not null default 0,
  succeeded integer not null default 0,
  failed integer not null default 0,
  withdrawn integer not null default 0,
  finished_at timestamptz,
  stopped_why text
);
create index replay_runs_company on tms.replay_runs (company_id, at);

-- ---------------------------------------------------------------------------------------------- outbox
create table tms.outbox_targets (
  name text primary key check (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
  kind text not null check (kind in ('webhook', 'n8n', 'slack', 'http', 'file')),
  topics text[] not null,
  -- null: events of every tenant
  company_id uuid,
  -- no secrets: the names of the places where the delivering host finds them
  config jsonb not null,
  max_attempts integer not null check (max_attempts between 1 and 100),
  paused boolean not null default false,
  updated_at timestamptz not null,
  updated_by text not null
);
create table tms.outbox_events (
  id bigint generated always as identity primary key,
  company_id uuid not null,
  topic text not null check (length(topic) between 1 and 120),
  payload jsonb not null,
  ordering_key text check (length(ordering_key) between 1 and 200),
  idempotency_key text,
  task_id bigint,
  claim integer,
  traceparent text,
  created_at timestamptz not null default clock_timestamp()
);
create index outbox_events_age on tms.outbox_events using brin (created_at);
create table tms.outbox_keys (
  company_id uuid not null,
  topic text not null,
  key text not null check (length(key) between 1 and 200),
  event_id bigint not null,
  until timestamptz not null,
  primary key (company_id, topic, key)
);
create index outbox_keys_until on tms.outbox_keys (until);
create table tms.outbox_deliveries (
  id bigint generated always as identity primary key,
  event_id bigint not null,
  target text not null,
  company_id uuid not null,
  -- 'halt' passes the fence: notifications about the halt itself
  lane text not null default 'normal' check (lane in ('normal', 'halt')),
  ordering_key text,
  status text not null default 'pending' check (status in ('pending', 'sending', 'delivered', 'dead')),
  attempts integer not null default 0,
  claim integer not null default 0,
  -- whose claim it is
  holder uuid,
  next_at timestamptz not null default clock_timestamp(),
  lease_until timestamptz,
  created_at timestamptz not null,
  delivered_at timestamptz,
  last_error text
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
-- claim by target
create index outbox_deliveries_ready on tms.outbox_deliveries (target, next_at, id) where status = 'pending';
-- order: is there an earlier one of this key
create index outbox_deliveries_order on tms.outbox_deliveries (target, ordering_key, id)
  where ordering_key is not null and status in ('pending', 'sending');
create index outbox_deliveries_sending on tms.outbox_deliveries (lease_until) where status = 'sending';
create index outbox_deliveries_event on tms.outbox_deliveries (event_id);
create index outbox_deliveries_age on tms.outbox_deliveries using brin (created_at);

-- ---------------------------------------------------------------------------------------------- the door
-- A nonce works once. Kept for twice the window in which its timestamp is accepted.
create table tms.edge_nonces (
  key_id text not null,
  nonce text not null,
  until timestamptz not null,
  primary key (key_id, nonce)
);
create index edge_nonces_until on tms.edge_nonces (until);
create table tms.edge_rate_limits (
  subject text not null,
  minute timestamptz not null,
  used integer not null,
  primary key (subject, minute)
) with (fillfactor = 50);
-- What must happen one at a time takes its row here. Not advisory locks: any login can hold those for ever.
create table tms.latches (
  name text primary key
);
insert into tms.latches values ('slots'), ('policies'), ('roll-up'), ('upkeep');
-- A secret that nobody outside of these functions can read: it seals what one function tells another within a transaction.
create table tms.seal (
  one boolean primary key default true check (one),
  secret text not null
);
insert into tms.seal (secret) values (gen_random_uuid()::text || gen_random_uuid()::text);

do $$
declare
  t text;
begin
  foreach t in array '{fence_gate,safe_gate,fence_turn,fence,halts,agent_policies,agent_functions,agent_state,tenant_state,agent_pulse,spend,task_spend,workers,agent_tasks,queues,agent_tasks_history,agent_runs,task_steps,task_effects,agent_logs,agent_metrics,run_digests,dead_letter_queue,replay_runs,outbox_targets,outbox_events,outbox_keys,outbox_deliveries,edge_nonces,edge_rate_limits,latches,seal}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
  end loop;
end
$$;

-- Monthly partitions, made ahead; the default ones only catch what nobody foresaw.
create table tms.agent_tasks_history_default partition of tms.agent_tasks_history default;
create table tms.agent_runs_default partition of tms.agent_runs default;
create table tms.agent_logs_default partition of tms.agent_logs default;

create function tms._make_partitions(around timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  parent text;
  month date;
  name text;
begin
  foreach parent in array '{agent_tasks_history,agent_runs,agent_logs}'::text[] loop
    for month in select generate_series(date_trunc('month', around at time zone 'UTC'), date_trunc('month', around at time zone 'UTC') + interval '2 months', interval '1 month')::date loop
      name := parent || '_' || to_char(month, 'YYYYMM');
      continue when to_regclass('tms.' || name) is not null;
      execute format('create table tms.%I partition of tms.%I for values from (%L) to (%L)', name, parent,
        month::text || ' 00:00:00+00', (month + interval '1 month')::date::text || ' 00:00:00+00');
    end loop;
  end loop;
  for name in select c.relname from pg_class c where c.relnamespace = 'tms'::regnamespace and c.relkind = 'r' and c.relispartition
               and not (c.relrowsecurity and c.relforcerowsecurity) loop
    execute format('alter table tms.%I enable row level security', name);
    execute format('alter table tms.%I force row level security', name);
  end loop;
end
$$;
select tms._make_partitions(now());

-- It reads tasks from here on, which tms_owner owns; sql/functions/12_held.sql has the body.
reset role;
do $$
begin
  if to_regprocedure('tms._held_companies()') is not null then
    alter function tms._held_companies() owner to tms_owner;
  end if;
end
$$;
set local role tms_owner;
