-- Daily packs: each day's cut and the bytes that were signed.

set local role tms_owner;

-- What a pack will say, frozen before anything is signed. Its digest is in the ledger (`inbox_id`). A builder that dies leaves this
-- row, and the next one goes on from it.
create table tms.evidence_cuts (
  day date not null,
  revision integer not null check (revision between 1 and 100000),
  final boolean not null,
  as_of timestamptz not null,
  from_seq bigint not null check (from_seq >= 0),
  tree_size bigint not null check (tree_size >= from_seq),
  verdict text not null check (verdict in ('green', 'red', 'unknown')),
  -- whose signature it needs
  key text not null check (key ~ '^[0-9a-f]{64}$'),
  manifest text not null,
  manifest_sha256 text not null,
  files jsonb not null,
  inbox_id bigint not null unique,
  cut_at timestamptz not null default clock_timestamp(),
  primary key (day, revision)
);

-- The bytes of a pack, signatures included: what a rebuild writes, for ever.
create table tms.evidence_packs (
  day date not null,
  revision integer not null,
  final boolean not null,
  as_of timestamptz not null,
  from_seq bigint not null,
  tree_size bigint not null,
  verdict text not null,
  manifest_sha256 text not null,
  sums_sha256 text not null,
  -- all files that are text, by name
  files jsonb not null,
  -- SHA256SUMS.sig, base64
  signature text not null,
  stored_at timestamptz not null default clock_timestamp(),
  primary key (day, revision)
);
-- one final pack a day; the last one before a day
create unique index evidence_packs_final on tms.evidence_packs (day) where final;

-- How much waited, each quarter of an hour: nothing else remembers it.
create table tms.queue_samples (
  start timestamptz primary key,
  at timestamptz not null default clock_timestamp(),
  waiting bigint not null,
  running bigint not null,
  awaiting_approval bigint not null
);

-- a day's roll-ups, and what changed since a day's end, without reading the years before
create index run_digests_at on tms.run_digests (at);
create index feature_flags_history_at on tms.feature_flags_history (at);

do $$
declare
  t text;
begin
  foreach t in array '{evidence_cuts,evidence_packs}'::text[] loop
    execute format(
      'create trigger append_only before update or delete or truncate on tms.%I execute function tms._append_only()', t);
    execute format('alter table tms.%I enable always trigger append_only', t);
  end loop;
  foreach t in array '{evidence_cuts,evidence_packs,queue_samples}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
  end loop;
end
$$;

-- What is left of a day whose pack expired: signed, so that a gap and a deletion look different.
create table tms.evidence_tombstones (
  day date primary key,
  manifest_sha256 text not null,
  sums_sha256 text not null,
  -- the bytes of the file: a Sigstore bundle
  tombstone text not null,
  kept_at timestamptz not null default clock_timestamp()
);
create trigger append_only before update or delete or truncate on tms.evidence_tombstones execute function tms._append_only();
alter table tms.evidence_tombstones enable always trigger append_only;
alter table tms.evidence_tombstones enable row level security;
alter table tms.evidence_tombstones force row level security;
