-- The sealed ledger: order, chain, Merkle tree, checkpoints, and the keys that sign.

set local role tms_owner;

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
