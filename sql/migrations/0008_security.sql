-- What attackers try, counted; sources that are shut out for a while; targets that page people.

set local role tms_owner;

-- ---------------------------------------------------------------------------------------------- what was tried at the door
-- By the minute: a flood costs one row a minute for each source. Kept for 90 days. What is refused to those who came in is in
-- tms.refusals, and counted there alone.
create table tms.security_events (
  minute timestamptz not null,
  kind text not null check (kind in ('signature', 'nonce', 'role', 'rate', 'blocked')),
  -- as the door sees it, IPv6 by its /64; '*' for the rest of a minute that had more sources than are kept apart
  address text not null check (length(address) between 1 and 64),
  -- '': it named none that there is. Ids that don't exist are not kept: a stranger could write a book into them.
  key_id text not null check (length(key_id) <= 64),
  -- all zeros: none
  company_id uuid not null,
  reason text not null check (length(reason) <= 40),
  count bigint not null,
  -- of these, not yet answered by a block
  fresh bigint not null,
  last_at timestamptz not null,
  -- what one source did lately is one look
  primary key (kind, address, key_id, minute, company_id)
) with (fillfactor = 70);
-- how many sources this minute has; what is old
create index security_events_minute on tms.security_events (minute);

-- ---------------------------------------------------------------------------------------------- shut out
create table tms.security_blocks (
  -- an address: whoever there names no key that exists. A key: at one address. A principal: a person, by their own calls.
  kind text not null check (kind in ('address', 'key', 'principal')),
  -- the address, key@address, the principal's id
  source text not null check (length(source) between 1 and 140),
  address text,
  key_id text,
  principal_id uuid,
  cause text not null check (cause in ('signature', 'nonce', 'role')),
  count bigint not null,
  -- how often before within a day: each time twice as long
  level integer not null,
  since timestamptz not null,
  until timestamptz not null,
  lifted_at timestamptz,
  lifted_by text,
  lifted_why text,
  primary key (kind, source)
);
create index security_blocks_until on tms.security_blocks (until);

-- Keys that were seen at work at an address. Whoever stands behind the same address can't have them shut out by bad signatures.
create table tms.security_known (
  address text not null,
  key_id text not null,
  seen_at timestamptz not null,
  primary key (address, key_id)
);
create index security_known_seen on tms.security_known (seen_at);

do $$
declare
  t text;
begin
  foreach t in array '{security_events,security_blocks,security_known}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
  end loop;
end
$$;

-- ---------------------------------------------------------------------------------------------- notifications
alter table tms.outbox_targets drop constraint outbox_targets_kind_check;
alter table tms.outbox_targets add constraint outbox_targets_kind_check
  check (kind in ('webhook', 'n8n', 'slack', 'pagerduty', 'http', 'file'));
-- what a target lost, and what it took last
create index outbox_deliveries_dead on tms.outbox_deliveries (target, id) where status = 'dead';
