-- Invariants: what must be true of the data, what was found, the score.

set local role tms_owner;

create table tms.drift_scores (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  score numeric not null check (score between 0 and 100),
  detail jsonb not null default '{}'
);
create index drift_scores_at on tms.drift_scores (at);
alter table tms.drift_scores enable row level security;
alter table tms.drift_scores force row level security;
