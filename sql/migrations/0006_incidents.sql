-- Incidents and their life.

set local role tms_owner;

create table tms.incidents (
  id bigint generated always as identity primary key,
  priority text not null check (priority in ('P1', 'P2', 'P3', 'P4')),
  status text not null default 'OPEN' check (status in ('OPEN', 'AUTO_HEALING', 'ESCALATED', 'RESOLVED', 'CLOSED')),
  -- what it is about: an emergency stop, an invariant, a broken ledger, a person's words
  type text not null check (length(type) between 1 and 80),
  -- symptoms of the same key join the one that is open
  dedupe_key text not null check (length(dedupe_key) between 1 and 200),
  -- null: the whole fleet
  company_id uuid,
  title text not null check (length(title) between 1 and 300),
  opened_at timestamptz not null default clock_timestamp(),
  opened_by text not null,
  resolved_at timestamptz,
  closed_at timestamptz
);
create unique index incidents_open on tms.incidents (dedupe_key) where status in ('OPEN', 'AUTO_HEALING', 'ESCALATED');
alter table tms.incidents enable row level security;
alter table tms.incidents force row level security;
