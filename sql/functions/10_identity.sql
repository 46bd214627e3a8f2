-- Who is calling, and what that principal may do. Owned by tms_identity.
--
-- Guarantee: a principal comes only from (a) the token's sub when session_user is a registered gateway, (b) session_user
-- itself, (c) the embedded owner's operating-system user. session_user cannot be changed by SET ROLE, by a security
-- definer function or by a setting, so nothing a caller can set moves it.

set local role tms_identity;

-- Tests replace this body to move the clock; `tms doctor` compares its hash with the shipped one.
create or replace function tms.now() returns timestamptz
language sql stable parallel safe as $$ select pg_catalog.now() $$;

create or replace function tms._utc(t timestamptz) returns text
language sql immutable parallel safe as $$
  select pg_catalog.to_char(t at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

create or replace function tms._sha256(t text) returns text
language sql immutable parallel safe as $$
  select pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(t, 'UTF8')), 'hex')
$$;

-- The login row of the caller, valid or not. No row: unknown.
create or replace function tms._credential() returns setof tms.logins
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  via text;
begin
  select g.kind into via from tms.gateways g where g.login = session_user;
  return query select l.* from tms.logins l
    where l.kind = coalesce(via, 'postgres')
      and l.name = case via
            when 'local' then current_setting('tms.local_user', true)
            when 'jwt' then nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
            else session_user::text end;
end
$$;

-- Expiry is judged by the wall clock: a moved test clock must not revive a key.
create or replace function tms._principal() returns uuid
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (select c.principal_id from tms._credential() c
           where c.revoked_at is null and (c.expires_at is null or c.expires_at > clock_timestamp()));
end
$$;

-- Memberships that count now. Service accounts hold the one role that carries their name.
create or replace function tms._live_memberships(principal uuid)
returns table (role text, company_id uuid, scope text, expires_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return query select m.role, m.company_id, r.scope, m.expires_at
    from tms.memberships m join tms.roles r on r.role = m.role
   where m.principal_id = principal and m.revoked_at is null
     and (m.expires_at is null or m.expires_at > clock_timestamp())
     -- a tenant's role without a tenant, or a global one with, means nothing
     and (r.scope = 'own') = (m.company_id is not null);
end
$$;

-- What the caller may do under one operation: company null means "every tenant and what belongs to none".
create or replace function tms._grants(operation text)
returns table (role text, company_id uuid, everywhere boolean, redacted boolean, patterns text[])
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare
  me uuid := tms._principal();
  holds uuid[];
begin
  -- not in the query below: a planner that estimates it calls it, for everybody, and a halt must not wait for who has locked the tasks
  if exists (select from tms.memberships m where m.principal_id = me and m.role = 'agents') then holds := tms._held_companies(); end if;
  return query
  -- what the list does not name is super_admin's; what it names is super_admin's only where it says so
  select m.role, null::uuid, true, false, null::text[]
    from tms._live_memberships(me) m
   where m.role = 'super_admin'
     and not exists (select from tms.role_operations o where o.operation = _grants.operation)
  union all
  -- agents are fleet-wide, but each call acts for the tenant of the task it holds, and for no other
  select m.role, case when m.role = 'agents' then held.id else m.company_id end,
         m.scope in ('all', 'fleet', 'none') and m.role <> 'agents', o.redacted, o.patterns
    from tms._live_memberships(me) m
    join tms.role_operations o on o.role = m.role and o.operation = _grants.operation
    left join lateral (select unnest(holds) union all select null) held (id) on m.role = 'agents';
end
$$;

-- The tenants an operation may touch; null means all of them.
create or replace function tms._allowed(operation text) returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select case when bool_or(g.everywhere) then null else coalesce(array_agg(g.company_id) filter (where g.company_id is not null), '{}') end
    from tms._grants(operation) g);
end
$$;

-- Whether this is a way into this database, and one without an end: a token where no gateway speaks for tokens opens nothing, nor does
-- a login that isn't there, that speaks for others, or that an embedded database would have to ask for.
create or replace function tms._opens(l tms.logins) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select l.revoked_at is null and l.expires_at is null and case l.kind
    when 'postgres' then exists (select from pg_roles r where r.rolname = l.name and r.rolcanlogin)
                         and not exists (select from tms.gateways g where g.kind = 'local' or g.login = l.name)
    else exists (select from tms.gateways g where g.kind = l.kind) end
$$;

-- Whether somebody could still give and take roles tomorrow: a super_admin without an end who can sign in.
create or replace function tms._super_admin_remains() returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select exists (
    select from tms.memberships m join tms.logins l using (principal_id)
     where m.role = 'super_admin' and m.revoked_at is null and m.expires_at is null and tms._opens(l))
$$;

-- For row security, ours and the users': is the caller a member of this tenant.
create or replace function tms._my_companies() returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (select coalesce(array_agg(m.company_id) filter (where m.company_id is not null), '{}')
            from tms._live_memberships(tms._principal()) m);
end
$$;

create or replace function tms._sees_all() returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (select coalesce(bool_or(m.scope in ('all', 'fleet') and m.role <> 'agents'), false)
            from tms._live_memberships(tms._principal()) m);
end
$$;

-- For the row security of the fleet's own tables: machines that span tenants, and who sees all. The break-glass account too:
-- a halt counts what runs, and a zero that only means "not seen" must not get into its certificate.
create or replace function tms._fleet() returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  -- not through _live_memberships: the hot path asks this nine times a batch, and this is half the time
  return (select coalesce(bool_or(r.scope in ('all', 'fleet', 'none')), false) from tms.memberships m join tms.roles r on r.role = m.role
           where m.principal_id = tms._principal() and m.revoked_at is null and m.company_id is null
             and (m.expires_at is null or m.expires_at > clock_timestamp()));
end
$$;

-- Who calls, when a fleet-wide role of theirs grants the operation; null: it may not. The hot path's whole check of identity and permission.
create or replace function tms._works(operation text) returns uuid
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  me uuid := tms._principal();
begin
  return (select me where exists (
     select from tms.memberships m
       join tms.roles r on r.role = m.role and r.scope in ('fleet', 'all')
       join tms.role_operations o on o.role = m.role and o.operation = _works.operation
      where m.principal_id = me and m.revoked_at is null and m.company_id is null
        and (m.expires_at is null or m.expires_at > clock_timestamp())));
end
$$;

-- People, as against machines and logins nobody knows.
create or replace function tms._human() returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return coalesce((select p.kind = 'human' from tms.principals p where p.id = tms._principal()), false);
end
$$;

-- Callers who share connections with others: through a gateway, or with the owner of an embedded database.
create or replace function tms._through_gateway() returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return exists (select from tms.gateways g where g.login = session_user);
end
$$;

create or replace function tms.is_company_member(company_id uuid) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  -- while a task's own SQL runs, whoever lets it: that task's tenant and no other. What an approver may see is not the agent's to use.
  select coalesce(is_company_member.company_id = (select tms._acting()),
         (select tms._sees_all())
      or is_company_member.company_id = any ((select tms._my_companies())::uuid[])
      or is_company_member.company_id = any ((select tms._held_companies())::uuid[]))
$$;
grant execute on function tms.is_company_member(uuid) to tms_caller;

-- Is `subject` covered: exact, or a trailing .* that covers everything below.
create or replace function tms._matches(subject text, patterns text[]) returns boolean
language sql immutable as $$
  select patterns is null or exists (
    select from pg_catalog.unnest(patterns) p
     where p = subject or (pg_catalog.right(p, 2) = '.*' and pg_catalog.starts_with(subject, pg_catalog.left(p, -1))))
$$;

-- A tenant by key or id.
create or replace function tms._company(tenant text) returns tms.companies
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select c from tms.companies c
   where c.key = lower(tenant)
      or (tenant ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' and c.id::text = lower(tenant))
   order by c.key = lower(tenant) desc limit 1);
end
$$;

-- Names that a tenant made carry it: root (acme). Any tenant's admin can make a name that others have, and no name has a blank in it.
create or replace function tms._principal_name(id uuid) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select p.name || coalesce(' (' || (select c.key from tms.companies c where c.id = p.home) || ')', '')
    from tms.principals p where p.id = _principal_name.id);
end
$$;

create or replace function tms._tenant_key(id uuid) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select c.key from tms.companies c where c.id = _tenant_key.id);
end
$$;

create or replace function tms._companies_by(ids uuid[]) returns setof tms.companies
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select c.* from tms.companies c where ids is null or c.id = any (ids) order by c.key collate "C"
$$;

create or replace function tms._roles_json(principal uuid) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(jsonb_agg(jsonb_build_object(
           'role', m.role, 'tenant', tms._tenant_key(m.company_id), 'expires_at', tms._utc(m.expires_at))
           order by m.role collate "C", tms._tenant_key(m.company_id) collate "C" nulls first), '[]')
    from tms._live_memberships(principal) m
$$;

create or replace function tms._credential_json(l tms.logins) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object(
    'kind', l.kind, 'name', l.name, 'created_at', tms._utc(l.created_at), 'expires_at', tms._utc(l.expires_at),
    'age_days', pg_catalog.floor(extract(epoch from pg_catalog.clock_timestamp() - l.created_at) / 86400)::int,
    'state', case
      when l.revoked_at is not null then 'revoked'
      when l.expires_at <= pg_catalog.clock_timestamp() then 'expired'
      when l.expires_at < pg_catalog.clock_timestamp() + interval '14 days' then 'expiring'
      else 'valid' end)
$$;

-- Called by the embedded owner as superuser when it opens: the local user is super_admin there (the folder is 0700).
create or replace function tms._attach_local(os_user text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  who uuid;
begin
  insert into tms.gateways values ('tms_local', 'local') on conflict do nothing;
  -- the folder's owner may also act as a machine, so that workers there are held by the workers' rules
  if not exists (select from tms.logins where kind = 'local' and name = 'account:agents') then
    insert into tms.principals (kind, name) select 'service', r.role from tms.roles r where r.kind = 'service' on conflict do nothing;
    insert into tms.logins (principal_id, kind, name)
      select p.id, 'local', 'account:' || p.name from tms.principals p where p.kind = 'service' on conflict do nothing;
    insert into tms.memberships (principal_id, role) select p.id, p.name from tms.principals p where p.kind = 'service' on conflict do nothing;
  end if;
  -- who was revoked stays so, unless nobody is left who could sign in and repair it: the folder is the local user's in any case
  select l.principal_id into who from tms.logins l where l.kind = 'local' and l.name = os_user;
  if who is not null and tms._super_admin_remains() then return; end if;
  if who is null then
    insert into tms.principals (kind, name) values ('human', 'local:' || regexp_replace(os_user, '[^A-Za-z0-9._%+@:-]', '_', 'g'))
      on conflict (name, coalesce(home, '00000000-0000-0000-0000-000000000000')) do update set name = excluded.name returning id into who;
  end if;
  -- migrations run as the superuser of the embedded database: under forced row security it must be somebody too
  insert into tms.logins (principal_id, kind, name) values (who, 'local', os_user), (who, 'postgres', session_user)
    on conflict (kind, name) do update set revoked_at = null, expires_at = null where tms.logins.principal_id = excluded.principal_id;
  insert into tms.memberships (principal_id, role) values (who, 'super_admin')
    on conflict (principal_id, role, coalesce(company_id, '00000000-0000-0000-0000-000000000000')) where revoked_at is null
    do update set expires_at = null;
end
$$;

-- The first operator. Granted to nobody: only whoever can act as tms_identity (who pushed the schema) may call it, and it
-- does nothing while a super_admin without an end can sign in. The login that pushes is mapped too: under forced row security a migration that
-- runs as nobody would see no rows, silently.
create or replace function tms._bootstrap(login_kind text, login_name text, principal_name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  who uuid;
  owner text;
begin
  perform tms._latch_super_admins();
  if tms._super_admin_remains() then return false; end if;
  -- a machine that became operator could not be revoked as a person can
  if exists (select from tms.roles r where r.role = principal_name) then
    raise exception '"%" is the name of a role or service account; name a person', principal_name using errcode = 'TM400';
  end if;
  insert into tms.principals (kind, name) values ('human', principal_name)
    on conflict (name, coalesce(home, '00000000-0000-0000-0000-000000000000')) do update set name = excluded.name returning id into who;
  insert into tms.logins (principal_id, kind, name)
    select who, x.kind, x.name from (select login_kind, login_name union select 'postgres', session_user::text) x (kind, name)
    on conflict (kind, name) do update set revoked_at = null, expires_at = null where tms.logins.principal_id = excluded.principal_id;
  insert into tms.memberships (principal_id, role) values (who, 'super_admin')
    on conflict (principal_id, role, coalesce(company_id, '00000000-0000-0000-0000-000000000000')) where revoked_at is null
    do update set expires_at = null;
  select p.name into owner from tms.logins l join tms.principals p on p.id = l.principal_id
   where l.kind = login_kind and l.name = login_name and p.id <> who;
  if owner is not null or not tms._super_admin_remains() then
    raise exception '% could not sign in as % "%"', principal_name, login_kind, login_name using errcode = 'TM409',
      detail = coalesce(format('that is %s''s', owner), 'it is no way into this database'), hint = coalesce(format('name %s instead', owner), 'create the login first');
  end if;
  return true;
end
$$;

-- Makes a database login a gateway for tokens (PostgREST's `authenticator`). Granted to nobody.
create or replace function tms._gateway(login name) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into tms.gateways values (login, 'jwt') on conflict do nothing
$$;

do $$
begin
  -- PostgREST and Supabase: their roles exist before tms comes, or the gateway is registered by hand later
  if exists (select from pg_roles where rolname = 'authenticator') then perform tms._gateway('authenticator'); end if;
end
$$;

-- What tms_owner's functions and policies call; _attach_local, _bootstrap and _gateway are not among them.
grant execute on function
  tms.now(), tms._utc(timestamptz), tms._sha256(text), tms._credential(), tms._principal(), tms._live_memberships(uuid),
  tms._fleet(), tms._works(text), tms._human(), tms._through_gateway(), tms._grants(text), tms._allowed(text), tms._my_companies(), tms._sees_all(),
  tms.is_company_member(uuid), tms._matches(text, text[]), tms._company(text), tms._tenant_key(uuid), tms._principal_name(uuid), tms._super_admin_remains(),
  tms._companies_by(uuid[]), tms._roles_json(uuid), tms._credential_json(tms.logins)
  to tms_owner;
