-- The ground floor: who may call, which tenants exist, flags, stored answers, the ledger's inbox.
--
-- Runs as tms_owner (the pusher switches; see src/db/push.ts), inside one transaction with everything else that is
-- pending. Guarantees kept here: every table has row security, forced for its owner too; no table grants to anybody;
-- identity tables belong to a second role, so that the policies which read them cannot recurse.

alter default privileges for role tms_owner revoke execute on functions from public;
alter default privileges for role tms_owner revoke usage on types from public;

-- ---------------------------------------------------------------------------------------------- identity
set local role tms_identity;
alter default privileges for role tms_identity revoke execute on functions from public;
alter default privileges for role tms_identity revoke usage on types from public;

-- A person or a machine. Names are e-mail addresses or account names; nothing else personal is kept.
-- `home` is the tenant whose admin made this principal, null for a super_admin's: a name is unique within its home, so
-- that no tenant's admin can take a name that another tenant will trust later.
create table tms.principals (
  id uuid primary key default gen_random_uuid(),
  kind text not null check (kind in ('human', 'service')),
  name text not null check (name ~ '^[A-Za-z0-9][A-Za-z0-9._%+@:-]{0,199}$'),
  home uuid,
  created_at timestamptz not null default now(),
  check (kind = 'human' or home is null)
);
create unique index principals_name on tms.principals (name, coalesce(home, '00000000-0000-0000-0000-000000000000'));

-- How a principal is recognised. One principal may have several (a rotation overlaps); each has an age and an end.
create table tms.logins (
  id uuid primary key default gen_random_uuid(),
  principal_id uuid not null references tms.principals (id),
  kind text not null check (kind in ('postgres', 'jwt', 'local', 'key')),
  -- the login role, the token's sub, the operating-system user, the key's id
  name text not null check (length(name) between 1 and 200),
  secret_sha256 text check (secret_sha256 ~ '^[0-9a-f]{64}$'),
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  check ((kind = 'key') = (secret_sha256 is not null))
);
-- The lookup of every call. A name is never reused for somebody else, so revoked rows count too.
create unique index logins_kind_name on tms.logins (kind, name);
create index logins_principal on tms.logins (principal_id);

-- Database logins that speak for others: PostgREST's (the principal is the token's sub) and the embedded owner's.
create table tms.gateways (
  login name primary key,
  kind text not null check (kind in ('jwt', 'local'))
);

create table tms.companies (
  id uuid primary key default gen_random_uuid(),
  key text not null unique check (key ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  name text not null check (length(name) between 1 and 200),
  created_at timestamptz not null default now()
);

-- The copy of policies/roles.yaml that decides. Filled by sql/functions/roles.sql, which is generated from it.
create table tms.roles (
  role text primary key,
  kind text not null check (kind in ('human', 'service')),
  scope text not null check (scope in ('all', 'own', 'fleet', 'none')),
  redacted boolean not null
);
create table tms.role_operations (
  role text not null,
  operation text not null,
  redacted boolean not null,
  -- when set, only subjects that match one of these: ops.*
  patterns text[],
  primary key (role, operation)
);
create table tms.portals (
  portal text primary key,
  path text not null,
  writers text[] not null,
  readers text[] not null
);

-- company_id is null for roles that span all tenants.
create table tms.memberships (
  id uuid primary key default gen_random_uuid(),
  principal_id uuid not null references tms.principals (id),
  role text not null,
  company_id uuid references tms.companies (id),
  granted_by uuid references tms.principals (id),
  granted_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
create unique index memberships_live on tms.memberships
  (principal_id, role, coalesce(company_id, '00000000-0000-0000-0000-000000000000')) where revoked_at is null;

do $$
declare
  t text;
begin
  foreach t in array '{principals,logins,gateways,companies,roles,role_operations,portals,memberships}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
    execute format('create policy identity on tms.%I to tms_identity using (true) with check (true)', t);
  end loop;
end
$$;

set local role tms_owner;

-- ---------------------------------------------------------------------------------------------- the database itself
create table tms.environment (
  one boolean primary key default true check (one),
  database_id uuid not null default gen_random_uuid(),
  name text check (name in ('production', 'staging', 'development')),
  override_token_sha256 text check (override_token_sha256 ~ '^[0-9a-f]{64}$'),
  signing_key_fingerprint text,
  initialised_at timestamptz,
  initialised_by uuid
);

-- ---------------------------------------------------------------------------------------------- requests and refusals
-- A repeat within a day gets the stored answer, so a retry after a lost connection is safe.
create table tms.requests (
  principal_id uuid not null,
  request_id uuid not null,
  fn text not null,
  args_sha256 text not null,
  answer jsonb,
  created_at timestamptz not null default clock_timestamp(),
  primary key (principal_id, request_id)
);
create index requests_age on tms.requests (created_at);

-- Refusals, counted by the minute: a loop of denied calls costs one row a minute and one ledger row, not one each.
create table tms.refusals (
  minute timestamptz not null,
  who text not null,
  fn text not null,
  code text not null,
  -- all zeros: none
  company_id uuid not null,
  count bigint not null,
  primary key (minute, who, fn, code, company_id)
);

-- ---------------------------------------------------------------------------------------------- ledger inbox
-- Written in the transaction of the action; the sealer chains it later. `body` is hashed as stored, byte for byte.
create table tms.ledger_inbox (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  xid xid8 not null default pg_current_xact_id(),
  principal_id uuid,
  who text not null,
  credential text not null,
  role text not null,
  fn text not null,
  action text not null,
  outcome text not null check (outcome in ('done', 'refused')),
  company_id uuid,
  subject text not null,
  why text not null,
  trace_id text,
  body text not null,
  body_sha256 text not null
);
create index ledger_inbox_company on tms.ledger_inbox (company_id, id);

-- ---------------------------------------------------------------------------------------------- flags
-- What may exist: loaded from policies/flags.yaml.
create table tms.flag_catalogue (
  key text primary key check (key ~ '^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+$' and length(key) <= 120),
  type text not null check (type in ('boolean', 'string', 'integer', 'decimal', 'json')),
  default_value jsonb not null,
  safe_value jsonb not null,
  required_value jsonb,
  allowed_values jsonb,
  minimum numeric,
  maximum numeric,
  guarded boolean not null,
  instead text[] not null,
  owner text not null,
  expires date,
  description text not null,
  catalogue_sha256 text not null
);

create table tms.feature_flags_v2 (
  id bigint generated always as identity primary key,
  key text not null,
  level text not null check (level in ('global', 'environment', 'tenant')),
  environment text check (environment in ('production', 'staging', 'development')),
  company_id uuid,
  value jsonb not null,
  -- hundredths of a percent of the tenants; the stage (off, canary, cohort, all) follows from it and the canary list
  rollout integer not null default 10000 check (rollout between 0 and 10000),
  canary uuid[] not null default '{}',
  -- the plan of a staged rollout; null when the row was simply set
  cohort_name text,
  cohort_rollout integer check (cohort_rollout between 1 and 9999),
  wait_seconds integer check (wait_seconds between 0 and 2592000),
  stage_since timestamptz,
  updated_at timestamptz not null,
  updated_by uuid not null,
  updated_by_name text not null,
  why text not null,
  check ((level = 'environment') = (environment is not null)),
  check ((level = 'tenant') = (company_id is not null))
);
create unique index feature_flags_v2_scope on tms.feature_flags_v2
  (key, level, coalesce(environment, ''), coalesce(company_id, '00000000-0000-0000-0000-000000000000'));
create index feature_flags_v2_company on tms.feature_flags_v2 (company_id) where company_id is not null;

create table tms.feature_flags_history (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  principal_id uuid not null,
  who text not null,
  role text not null,
  key text not null,
  level text not null,
  environment text,
  company_id uuid,
  action text not null,
  before jsonb not null,
  after jsonb not null,
  why text not null,
  request_id uuid
);
create index feature_flags_history_key on tms.feature_flags_history (key, id);
create index feature_flags_history_company on tms.feature_flags_history (company_id, id);

-- ---------------------------------------------------------------------------------------------- signals
-- For drivers without push. A row says "look again" and nothing else: any login can listen.
create table tms.signals (
  id bigint generated always as identity primary key,
  channel text not null,
  xid xid8 not null default pg_current_xact_id(),
  at timestamptz not null default clock_timestamp()
);
create index signals_cursor on tms.signals (channel, xid);

-- ---------------------------------------------------------------------------------------------- append-only
create function tms._append_only() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'tms.% is append-only', tg_table_name using errcode = 'TM403';
end
$$;

do $$
declare
  t text;
begin
  foreach t in array '{ledger_inbox,feature_flags_history}'::text[] loop
    execute format(
      'create trigger append_only before update or delete or truncate on tms.%I execute function tms._append_only()', t);
    -- fires under session_replication_role = replica too
    execute format('alter table tms.%I enable always trigger append_only', t);
  end loop;
end
$$;

do $$
declare
  t text;
begin
  foreach t in array '{environment,requests,refusals,ledger_inbox,flag_catalogue,feature_flags_v2,feature_flags_history,signals}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
  end loop;
end
$$;
-- The policies read the identity functions, so they stand in sql/functions/15_policies.sql.

-- What a contract function knows about its call; made by tms._begin.
create type tms.call as (
  fn text,
  -- set when the call is already answered: refused, or repeated
  answer jsonb,
  request_id uuid,
  principal_id uuid,
  who text,
  credential text,
  role text,
  operation text,
  company_id uuid,
  tenant text,
  -- personal data is shown of every tenant, of these tenants, and of what belongs to none
  clear_everywhere boolean,
  clear_companies uuid[],
  clear_shared boolean
);
grant usage on type tms.call to tms_identity;
