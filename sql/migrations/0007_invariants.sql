-- Invariants: what must be true of the data, what was found, the score.

set local role tms_owner;

-- How far the data has drifted from what must be true of it, over time. Null: something that must be true could not be checked,
-- so nobody knows; then it lies between `lowest` and `highest`.
create table tms.drift_scores (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  score numeric check (score between 0 and 100),
  lowest numeric check (lowest between 0 and 100),
  highest numeric check (highest between 0 and 100),
  detail jsonb not null default '{}',
  check (score is null or (score = lowest and score = highest))
);
create index drift_scores_at on tms.drift_scores (at);

-- One row for each policy that was loaded, and how its last check ended. The SQL of a policy isn't here: it stands in functions
-- of schema tms_invariants, each owned by a role that holds what the policy grants and nothing else.
create table tms.invariants (
  id text primary key check (id ~ '^[A-Z][A-Z0-9_]{2,44}$'),
  -- own: a check of tms itself; query: a policy's; broken: a policy that failed to load, which is never green
  kind text not null check (kind in ('own', 'query', 'broken')),
  priority text not null check (priority in ('P1', 'P2', 'P3', 'P4')),
  title text not null check (length(title) between 1 and 200),
  owner text not null,
  own_check text,
  every_ms bigint not null check (every_ms between 60000 and 86400000),
  timeout_ms integer not null check (timeout_ms between 1000 and 30000),
  -- at_once: nothing but a person can mend it
  escalate text not null check (escalate in ('at_once', 'later')),
  reads text[] not null,
  writes text[] not null,
  -- columns whose values may be kept as they are; all others are kept as digests
  show text[] not null,
  rows_per_scan integer check (rows_per_scan between 1 and 100000),
  rows_per_violation integer check (rows_per_violation between 1 and 1000),
  -- sha256 of the function bodies that hold the SQL
  query_sha256 text,
  correction_sha256 text,
  problem text,
  loaded_at timestamptz not null,
  loaded_by text not null,

  outcome text not null default 'unknown' check (outcome in ('holds', 'violated', 'unknown')),
  why text not null default 'it has not been checked yet',
  violations integer,
  -- there are more than were counted
  more boolean not null default false,
  checked_at timestamptz,
  checked_by text,
  since timestamptz,
  ms integer,
  check ((kind = 'own') = (own_check is not null)),
  check ((kind = 'broken') = (problem is not null)),
  check ((correction_sha256 is null) = (rows_per_scan is null) and (correction_sha256 is null) = (rows_per_violation is null))
);

-- From the first scan that found it violated to the first that didn't.
create table tms.invariant_violations (
  id bigint generated always as identity primary key,
  invariant text not null,
  priority text not null,
  first_seen timestamptz not null,
  last_seen timestamptz not null,
  cleared_at timestamptz,
  cleared_why text,
  scans integer not null default 1,
  violations integer not null,
  most integer not null,
  more boolean not null,
  -- ten rows at most, with digests in place of what is not to be shown
  sample jsonb not null,
  -- rows that corrections touched
  touched integer not null default 0
);
create unique index invariant_violations_open on tms.invariant_violations (invariant) where cleared_at is null;
create index invariant_violations_id on tms.invariant_violations (invariant, id);

do $$
declare
  t text;
begin
  foreach t in array '{drift_scores,invariants,invariant_violations}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
  end loop;
end
$$;
