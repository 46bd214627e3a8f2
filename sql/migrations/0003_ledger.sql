-- The sealed ledger: order, chain, Merkle tree, checkpoints, and the keys that sign.
--
-- Guarantee: what is sealed is never changed, deleted or emptied by a role of the product; a superuser who does it anyway
-- leaves hashes that no longer fit (see tms.ledger_verify).

set local role tms_owner;

-- A row of the inbox in its place. The hash is over the line that tms._ledger_line makes; the leaf is RFC 6962's.
create table tms.ledger (
  seq bigint primary key check (seq >= 0),
  inbox_id bigint not null unique,
  prev_hash text not null,
  row_hash text not null,
  leaf bytea not null,
  sealed_at timestamptz not null default clock_timestamp()
);

-- Complete subtrees of the Merkle tree, from 16 leaves up: node (level, index) covers the leaves from index * 2^level on.
-- Smaller ones are computed from the leaves; storing them would double the table for no gain.
create table tms.ledger_nodes (
  level smallint not null,
  index bigint not null,
  hash bytea not null,
  primary key (level, index)
);

-- Signed statements of the tree: C2SP signed notes, as they were handed out.
create table tms.ledger_checkpoints (
  id bigint generated always as identity primary key,
  size bigint not null,
  root bytea not null,
  note text not null,
  -- fingerprint of the key that signed
  key text not null,
  at timestamptz not null default clock_timestamp(),
  by_name text not null,
  -- the same statement by the same key is one checkpoint
  unique (size, key)
);

-- Who else saw a checkpoint: lines of C2SP cosignatures.
create table tms.ledger_witnesses (
  id bigint generated always as identity primary key,
  checkpoint_id bigint not null references tms.ledger_checkpoints (id),
  name text not null,
  line text not null,
  at timestamptz not null default clock_timestamp(),
  by_name text not null,
  unique (checkpoint_id, line)
);

-- Where the sealer looks next: only so that it needn't look everywhere. Whatever stands here, a row that was missed or sealed
-- twice is found by verification.
create table tms.ledger_sealer (
  one boolean primary key default true check (one),
  size bigint not null default 0,
  -- every row written by a transaction before this one is sealed
  xid xid8 not null default '0',
  -- and by this transaction up to this row
  inbox_id bigint not null default 0,
  -- a restored database counts its transactions anew: then the sealer looks everywhere once
  cluster text not null default '',
  -- while it does so: where to go on afterwards
  resume_xid xid8,
  -- digests of finished runs up to this one have their row
  digest_id bigint not null default 0,
  digest_at timestamptz not null default '-infinity'
);
insert into tms.ledger_sealer default values;

-- what isn't sealed yet, oldest transaction first
create index ledger_inbox_xid on tms.ledger_inbox (xid, id);

do $$
declare
  t text;
begin
  foreach t in array '{ledger,ledger_nodes,ledger_checkpoints,ledger_witnesses}'::text[] loop
    execute format(
      'create trigger append_only before update or delete or truncate on tms.%I execute function tms._append_only()', t);
    execute format('alter table tms.%I enable always trigger append_only', t);
  end loop;
  foreach t in array '{ledger,ledger_nodes,ledger_checkpoints,ledger_witnesses,ledger_sealer}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
  end loop;
end
$$;

-- ---------------------------------------------------------------------------------------------- keys that sign

-- Public halves only. One is valid at a time; the others are history, and verify what was signed in their time.
create table tms.signing_keys (
  fingerprint text primary key check (fingerprint ~ '^[0-9a-f]{64}$'),
  public_pem text not null unique,
  not_before timestamptz not null,
  not_after timestamptz not null check (not_after > not_before),
  -- null: the beginning of a chain, which only somebody outside can trust
  introduced_by text references tms.signing_keys,
  -- base64: the signature of the key that introduces it, or of itself, over what is said of it here
  introduction text not null check (introduction ~ '^[A-Za-z0-9+/]{86}==$'),
  state text not null default 'valid' check (state in ('valid', 'retired', 'revoked')),
  added_at timestamptz not null,
  -- when it stopped signing, because another took over or because it is revoked
  ended_at timestamptz check ((ended_at is null) = (state = 'valid')),
  revoked_at timestamptz check ((revoked_at is null) = (state <> 'revoked')),
  why text not null default ''
);
-- two that rotate at once: the second finds that its key isn't the one in force any more
create unique index signing_keys_in_force on tms.signing_keys ((true)) where state = 'valid';
alter table tms.signing_keys enable row level security;
alter table tms.signing_keys force row level security;
