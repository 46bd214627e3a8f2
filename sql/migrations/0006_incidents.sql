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
  detail jsonb not null default '{}',
  opened_at timestamptz not null default clock_timestamp(),
  opened_by text not null,
  -- symptoms: how often, and when last
  occurrences bigint not null default 1,
  last_seen_at timestamptz not null default clock_timestamp(),
  -- healing by itself
  attempts integer not null default 0,
  -- until then somebody or something has acted on it, or it is late
  response_due timestamptz not null default clock_timestamp(),
  acted_at timestamptz,
  late_at timestamptz,
  acked_at timestamptz,
  acked_by text,
  escalated_at timestamptz,
  resolved_at timestamptz,
  resolved_by text,
  resolution text check (resolution in ('auto_healed', 'resolved', 'resumed')),
  closed_at timestamptz,
  closed_by text
);
create unique index incidents_open on tms.incidents (dedupe_key) where status in ('OPEN', 'AUTO_HEALING', 'ESCALATED');

-- What happened to it, in order. Append-only.
create table tms.incident_events (
  id bigint generated always as identity primary key,
  incident_id bigint not null,
  company_id uuid,
  at timestamptz not null,
  who text not null,
  kind text not null check (kind ~ '^[a-z][a-z_]{1,40}$'),
  text text not null check (length(text) <= 2000),
  body jsonb not null default '{}'
);
create index incident_events_incident on tms.incident_events (incident_id, id);

-- How things stood when it was opened. No payloads and no flag values that belong to a tenant. Append-only.
create table tms.incident_snapshots (
  incident_id bigint primary key,
  company_id uuid,
  at timestamptz not null,
  body jsonb not null
);

-- Which presses belong to it: the first one, and those that found the fleet halted. Append-only.
create table tms.incident_halts (
  halt_id bigint primary key,
  incident_id bigint not null
);
create index incident_halts_incident on tms.incident_halts (incident_id, halt_id);

-- A halt's certificate as it was signed: these bytes, for ever. Append-only; its signatures too.
create table tms.halt_certificates (
  halt_id bigint primary key,
  incident_id bigint not null,
  at timestamptz not null default clock_timestamp(),
  by_name text not null,
  body text not null,
  sha256 text not null,
  -- workers that had acknowledged by then: the others' acknowledgements are late
  workers bigint[] not null
);
create table tms.halt_signatures (
  halt_id bigint not null,
  fingerprint text not null,
  signature text not null,
  at timestamptz not null default clock_timestamp(),
  by_name text not null,
  primary key (halt_id, fingerprint)
);

-- What a lever changed, whole rows, so that undoing it restores exactly that.
create table tms.incident_levers (
  id bigint generated always as identity primary key,
  incident_id bigint not null,
  company_id uuid,
  kind text not null check (kind in ('soft_degrade', 'rollback')),
  at timestamptz not null,
  by_name text not null,
  changes jsonb not null,
  undone_at timestamptz,
  undone_by text,
  kept jsonb
);
create index incident_levers_incident on tms.incident_levers (incident_id, id);

-- Who agrees that the fleet starts again, where that takes two.
create table tms.resume_approvals (
  incident_id bigint not null,
  epoch bigint not null,
  principal_id uuid not null,
  who text not null,
  at timestamptz not null default clock_timestamp(),
  primary key (incident_id, epoch, principal_id)
);

-- How much of the fleet's slots there is while it comes back from a halt. One row.
create table tms.resumption (
  one boolean primary key default true check (one),
  percent integer not null check (percent between 1 and 100),
  incident_id bigint,
  since timestamptz not null
);
insert into tms.resumption (percent, since) values (100, clock_timestamp());

do $$
declare
  t text;
begin
  foreach t in array '{incidents,incident_events,incident_snapshots,incident_halts,halt_certificates,halt_signatures,incident_levers,resume_approvals,resumption}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
  end loop;
  foreach t in array '{incident_events,incident_snapshots,incident_halts,halt_certificates,halt_signatures}'::text[] loop
    execute format('create trigger append_only before update or delete or truncate on tms.%I execute function tms._append_only()', t);
    execute format('alter table tms.%I enable always trigger append_only', t);
  end loop;
end
$$;
