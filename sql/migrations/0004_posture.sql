-- Posture: probes, what was seen, what was done about it.

set local role tms_owner;

-- Runs with a trace, counted where runs are folded in. Null: folded before this was counted, so nothing is known.
alter table tms.agent_metrics add column traced bigint;
-- dead letters of a window
create index dead_letter_queue_age on tms.dead_letter_queue using brin (created_at);
create index replay_runs_age on tms.replay_runs (at);

-- One row for each minute and kind, whoever probed and however often. A minute without a row is unknown.
create table tms.probes (
  minute timestamptz not null check (minute = date_trunc('minute', minute at time zone 'UTC') at time zone 'UTC'),
  kind text not null check (kind in ('database', 'door', 'fleet')),
  up integer not null,
  down integer not null,
  -- the slowest answer
  ms integer,
  -- of the last failure: an error's code, never its text
  why text not null default '',
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (minute, kind)
);

-- The newest state of each check.
create table tms.posture_checks (
  name text primary key check (length(name) between 1 and 80),
  state text not null check (state in ('green', 'red', 'unknown')),
  since timestamptz not null,
  -- When the breach began. Unknown doesn't end a breach: only green does.
  red_since timestamptz
);

-- One row for each change. `seen_at` and `as_of` of the newest move on while nothing changes.
create table tms.posture_states (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  as_of timestamptz not null,
  seen_at timestamptz not null,
  verdict text not null check (verdict in ('green', 'red', 'unknown')),
  score_low numeric not null,
  score_high numeric not null,
  grade text not null check (grade in ('A', 'B', 'C', 'D', 'F')),
  changes jsonb not null,
  by_name text not null
);

-- What a breach led to. `report_only`: it would have, and was told not to.
create table tms.posture_actions (
  id bigint generated always as identity primary key,
  action text not null check (action in ('throttle', 'freeze', 'quarantine', 'pause_replay', 'safe_mode')),
  -- the fleet, or an agent
  subject text not null,
  check_name text not null,
  breach_since timestamptz not null,
  at timestamptz not null default clock_timestamp(),
  by_name text not null,
  report_only boolean not null,
  observed text not null,
  limit_text text not null,
  samples text not null,
  -- what people read
  before jsonb not null,
  after jsonb not null,
  -- what undoing needs: the rows as they were, and the state they were brought into
  kept jsonb not null default '[]',
  undone_at timestamptz,
  undone_by text,
  undone_why text
);
create index posture_actions_action on tms.posture_actions (action, id);

do $$
declare
  t text;
begin
  foreach t in array '{probes,posture_checks,posture_states,posture_actions}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
  end loop;
end
$$;
