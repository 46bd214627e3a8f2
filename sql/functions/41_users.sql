-- People and what they may do. Owned by tms_identity.
--
-- Guarantee: a tenant_admin hands out the tenant's roles in the own tenant only; nobody hands out a service account's role;
-- the last super_admin cannot be revoked; a credential that names one principal is never given to another.

set local role tms_identity;

create or replace function tms.users_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('users_list', args, '{tenant}', 'users.manage');
  visible uuid[];
begin
  if c.answer is not null then return c.answer; end if;
  visible := case when args ? 'tenant' then array[c.company_id] else tms._allowed('users.manage') end;
  return jsonb_build_object('users', (
    select coalesce(jsonb_agg(jsonb_build_object(
             'principal', p.name,
             'roles', (select coalesce(jsonb_agg(r.value), '[]') from jsonb_array_elements(tms._roles_json(p.id)) r
                        where visible is null or r.value ->> 'tenant' = any (select t.key from tms._companies_by(visible) t)),
             -- how somebody signs in is not for one of their tenants to see
             'credentials', case when visible is null then (
                select coalesce(jsonb_agg(tms._credential_json(l) order by l.created_at), '[]') from tms.logins l where l.principal_id = p.id)
                else '[]'::jsonb end,
             'created_at', tms._utc(p.created_at)) order by p.name collate "C"), '[]')
      from tms.principals p
     where p.kind = 'human'
       and (visible is null or exists (
             select from tms._live_memberships(p.id) m where m.company_id = any (visible)))));
end
$$;
grant execute on function tms.users_list(jsonb) to tms_caller;

create or replace function tms.users_grant(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('users_grant', args, '{request_id,tenant,principal,role,expires_at,credential}', 'users.manage');
  wanted tms.roles;
  person tms.principals;
  person_name text;
  login tms.logins;
  until timestamptz;
  changed boolean := false;
  fresh boolean := false;
begin
  if c.answer is not null then return c.answer; end if;
  person_name := tms._text(args, 'principal', 200);
  if person_name !~ '^[A-Za-z0-9][A-Za-z0-9._%+@:-]{0,199}$' then
    raise exception 'a principal is an e-mail address or a plain name' using errcode = 'TM400';
  end if;
  select * into wanted from tms.roles r where r.role = tms._text(args, 'role', 60) and r.kind = 'human';
  if not found then
    raise exception 'there is no role "%" for people; there are: %', left(args ->> 'role', 60),
      (select string_agg(r.role, ', ' order by r.role) from tms.roles r where r.kind = 'human') using errcode = 'TM400';
  end if;
  if (wanted.scope = 'own') <> (args ? 'tenant') then
    raise exception 'role % %', wanted.role, case when wanted.scope = 'own' then 'is held in one tenant: name it' else 'spans all tenants: name none' end
      using errcode = 'TM400';
  end if;
  if args ? 'expires_at' then
    until := (args ->> 'expires_at')::timestamptz;
    if until <= clock_timestamp() then raise exception '"expires_at" lies in the past' using errcode = 'TM400'; end if;
  end if;

  select * into person from tms.principals p where p.name = person_name;
  if person.kind = 'service' then
    raise exception '"%" is a service account: its role is fixed', person_name using errcode = 'TM400';
  end if;
  if person.id is null then
    insert into tms.principals (kind, name) values ('human', person_name) on conflict (name) do nothing returning * into person;
    fresh := person.id is not null;
    if not fresh then select * into person from tms.principals p where p.name = person_name; end if;
    changed := fresh;
  end if;

  if args ? 'credential' then
    -- a tenant's admin who could attach a login to somebody else's principal would become that somebody
    if c.role <> 'super_admin' and not fresh
       and not exists (select from tms.logins l where l.principal_id = person.id
                        and l.kind = args #>> '{credential,kind}' and l.name = args #>> '{credential,name}') then
      return tms._refuse(c, 'ROLE_DENIED', format('%s may not add a credential to %s', c.who, person.name),
        'this person was known before; another credential is a super_admin''s to add', array['ask a super_admin']);
    end if;
    if coalesce(args #>> '{credential,kind}', '') not in ('postgres', 'jwt', 'local') then
      raise exception 'a person''s credential is postgres, jwt or local' using errcode = 'TM400';
    end if;
    if c.role <> 'super_admin' and args #>> '{credential,kind}' <> 'jwt' then
      return tms._refuse(c, 'ROLE_DENIED', format('%s may not map a database login', c.who),
        'a tenant''s people sign in with tokens; database logins are a super_admin''s to map', array['ask a super_admin']);
    end if;
    insert into tms.logins (principal_id, kind, name)
      values (person.id, args #>> '{credential,kind}', tms._text(args -> 'credential', 'name', 200))
      on conflict (kind, name) do nothing;
    changed := changed or found;
    select * into login from tms.logins l where l.kind = args #>> '{credential,kind}' and l.name = args #>> '{credential,name}';
    if login.principal_id <> person.id then
      return tms._refuse(c, 'CONFLICT', format('%s "%s" belongs to somebody else', login.kind, login.name),
        'a credential names one principal for ever', array['tms users list']);
    end if;
  end if;

  insert into tms.memberships (principal_id, role, company_id, granted_by, expires_at)
    values (person.id, wanted.role, c.company_id, c.principal_id, until)
    on conflict (principal_id, role, coalesce(company_id, '00000000-0000-0000-0000-000000000000')) where revoked_at is null
    do update set expires_at = excluded.expires_at, granted_by = excluded.granted_by
     where tms.memberships.expires_at is distinct from excluded.expires_at;
  changed := changed or found;
  if changed then
    perform tms._record(c, 'user.grant', 'done', person.name, '', jsonb_build_object(
      'principal', person.id, 'role', wanted.role, 'tenant', c.company_id, 'expires_at', tms._utc(until),
      'credential', args #>> '{credential,kind}'));
  end if;
  return tms._finish(c, jsonb_build_object('principal', person.name, 'changed', changed, 'roles', (
    select coalesce(jsonb_agg(r.value), '[]') from jsonb_array_elements(tms._roles_json(person.id)) r
     where c.role = 'super_admin' or r.value ->> 'tenant' = c.tenant)));
end
$$;
grant execute on function tms.users_grant(jsonb) to tms_caller;

create or replace function tms.users_revoke(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('users_revoke', args, '{request_id,tenant,principal,role}', 'users.manage');
  person tms.principals;
  gone integer;
begin
  if c.answer is not null then return c.answer; end if;
  select * into person from tms.principals p where p.name = tms._text(args, 'principal', 200);
  -- for a tenant's admin, somebody without a role there does not exist
  if person.id is null or (c.role <> 'super_admin'
       and not exists (select from tms.memberships m where m.principal_id = person.id and m.company_id = c.company_id)) then
    return tms._refuse(c, 'NOT_FOUND', format('there is no principal "%s"', left(args ->> 'principal', 60)), 'nobody of that name has a role here',
      array['tms users list']);
  end if;
  if person.kind = 'service' then
    raise exception '"%" is a service account: rotate its key instead', person.name using errcode = 'TM400';
  end if;
  -- two admins revoking each other must not leave none
  lock table tms.memberships in share row exclusive mode;
  update tms.memberships m set revoked_at = tms.now()
   where m.principal_id = person.id and m.revoked_at is null
     and (not args ? 'tenant' or m.company_id = c.company_id)
     and (not args ? 'role' or m.role = args ->> 'role');
  get diagnostics gone = row_count;
  if not exists (
    select from tms.memberships m join tms.logins l using (principal_id)
     where m.role = 'super_admin' and m.revoked_at is null and (m.expires_at is null or m.expires_at > clock_timestamp())
       and l.revoked_at is null and (l.expires_at is null or l.expires_at > clock_timestamp())) then
    raise exception '% is the last super_admin', person.name using errcode = 'TM409',
      hint = 'tms users grant <other> --role super_admin';
  end if;
  if gone > 0 then
    perform tms._record(c, 'user.revoke', 'done', person.name, '', jsonb_build_object(
      'principal', person.id, 'role', args ->> 'role', 'tenant', c.company_id, 'memberships', gone));
  end if;
  return tms._finish(c, jsonb_build_object('principal', person.name, 'changed', gone > 0, 'roles', (
    select coalesce(jsonb_agg(r.value), '[]') from jsonb_array_elements(tms._roles_json(person.id)) r
     where c.role = 'super_admin' or r.value ->> 'tenant' = c.tenant)));
end
$$;
grant execute on function tms.users_revoke(jsonb) to tms_caller;
