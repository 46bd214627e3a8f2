-- People and what they may do. Owned by tms_identity.
--
-- Guarantees: a tenant_admin hands out the tenant's roles in the own tenant only, no longer than the own one lasts, and to
-- people of its making: names that a tenant made mean nothing in another; nobody hands out a service account's role; a
-- super_admin without an end who can sign in always remains; a credential that names one principal is never given to another,
-- except that a super_admin may take one from a name that a tenant made; a refused call leaves nothing behind.

insert into tms.latches values ('super_admins') on conflict do nothing;

-- Super_admins are taken away one at a time, or two at once would leave none. Only for that, and not by locking the table: whoever
-- holds a transaction open must not block everybody's user management. Another super_admin still can, and is named.
create or replace function tms._latch_super_admins() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  for i in 1..60 loop
    if tms._latch('super_admins', false) then return; end if;
    perform pg_sleep(0.05);
  end loop;
  raise exception 'somebody else is changing who is super_admin' using errcode = 'TM409',
    detail = coalesce((
      select format('session %s of "%s" holds its transaction open', l.pid, a.usename)
        from tms.latches x join pg_locks l on l.locktype = 'transactionid' and l.transactionid = x.xmax and l.granted
        join pg_stat_activity a on a.pid = l.pid where x.name = 'super_admins'), 'their transaction is open'),
    hint = 'again in a moment; pg_terminate_backend ends a session';
end
$$;
grant execute on function tms._latch_super_admins() to tms_identity;

set local role tms_identity;

create or replace function tms._full_name(p tms.principals) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select tms._principal_name(p.id)
$$;

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
             -- a super_admin reads which tenant's it is: any tenant's admin can make a name that others have
             'principal', case when c.role = 'super_admin' then tms._full_name(p) else p.name end,
             'roles', (select coalesce(jsonb_agg(r.value), '[]') from jsonb_array_elements(tms._roles_json(p.id)) r
                        where visible is null or r.value ->> 'tenant' = any (select t.key from tms._companies_by(visible) t)),
             -- how somebody signs in is not for one of their tenants to see
             'credentials', case when c.role = 'super_admin' then (
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

-- People by name, as this caller may mean them: a super_admin's own names first, then those of the tenant.
create or replace function tms._person(c tms.call, person_name text) returns tms.principals
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select p from tms.principals p
   where p.name = person_name
     and ((p.home is null and c.role = 'super_admin') or p.home = c.company_id or p.kind = 'service')
   order by p.home nulls first limit 1
$$;

create or replace function tms.users_grant(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('users_grant', args, '{request_id,tenant,principal,role,expires_at,credential}', 'users.manage');
  wanted tms.roles;
  person tms.principals;
  person_name text;
  login tms.logins;
  owner tms.principals;
  login_kind text := args #>> '{credential,kind}';
  login_name text;
  until timestamptz;
  own_end timestamptz;
  changed boolean := false;
begin
  if c.answer is not null then return c.answer; end if;

  -- everything is judged before anything is written
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
    if args ->> 'expires_at' !~ '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d' then
      raise exception '"expires_at" is a time like 2027-03-31T12:00:00.000000Z' using errcode = 'TM400';
    end if;
    until := (args ->> 'expires_at')::timestamptz;
    if until <= clock_timestamp() then raise exception '"expires_at" lies in the past' using errcode = 'TM400'; end if;
  end if;
  if args ? 'credential' then
    if coalesce(login_kind, '') not in ('postgres', 'jwt', 'local') then
      raise exception 'a person''s credential is postgres, jwt or local' using errcode = 'TM400';
    end if;
    login_name := tms._text(args -> 'credential', 'name', 200);
    -- Postgres would cut it off, and the login would be nobody's
    if login_kind = 'postgres' and octet_length(login_name) > 63 then
      raise exception 'a login''s name has at most 63 bytes' using errcode = 'TM400';
    end if;
  end if;

  person := tms._person(c, person_name);
  if person.kind = 'service' then
    raise exception '"%" is a service account: its role is fixed', person_name using errcode = 'TM400';
  end if;
  if login_name is not null then
    select * into login from tms.logins l where l.kind = login_kind and l.name = login_name;
    if login.id is not null and login.principal_id is distinct from person.id then
      select * into owner from tms.principals p where p.id = login.principal_id;
    end if;
    -- what a tenant's admin says of a token holds until a super_admin knows better, or it could keep anybody out for ever
    if owner.id is not null and (c.role <> 'super_admin' or owner.home is null) then
      return tms._refuse(c, 'CONFLICT', format('%s "%s" belongs to somebody else', login_kind, left(login_name, 60)),
        'a credential names one principal for ever', array['tms users list', 'ask a super_admin']);
    end if;
  end if;
  if c.role <> 'super_admin' then
    select max(coalesce(m.expires_at, 'infinity')) into own_end from tms._live_memberships(c.principal_id) m
     where m.role = c.role and m.company_id = c.company_id;
    if own_end < coalesce(until, 'infinity') then
      return tms._refuse(c, 'ROLE_DENIED', format('%s may not grant a role for longer than its own', c.who),
        format('its own ends at %s', tms._utc(own_end)), array['give --expires', 'ask a super_admin']);
    end if;
    -- who could attach a login to somebody else's principal would become that somebody
    if login_name is not null and login.id is null and (person.id is not null or login_kind <> 'jwt') then
      return tms._refuse(c, 'ROLE_DENIED', format('%s may not add this credential to %s', c.who, person_name),
        'a tenant''s admin names the token subject of a person when granting the first role; anything else is a super_admin''s', array['ask a super_admin']);
    end if;
  end if;

  if wanted.role = 'super_admin' and until is not null then perform tms._latch_super_admins(); end if;
  if owner.id is not null and person.id is null and owner.name = person_name then
    -- the same person by the same login: it becomes a super_admin's own, with what it has
    update tms.principals p set home = null where p.id = owner.id returning p.* into person;
    changed := true;
  elsif owner.id is not null then
    -- a new row: what was recorded of the old one stays that principal's
    delete from tms.logins l where l.id = login.id;
    login := null;
  end if;
  if person.id is null then
    insert into tms.principals (kind, name, home)
      values ('human', person_name, case when c.role <> 'super_admin' then c.company_id end)
      on conflict do nothing returning * into person;
    if person.id is null then
      -- made by somebody else in this moment: judged anew
      raise exception 'somebody else is making %', person_name using errcode = '40001';
    end if;
    changed := true;
  end if;
  if login_name is not null and (login.id is null or login.revoked_at is not null) then
    insert into tms.logins (principal_id, kind, name) values (person.id, login_kind, login_name)
      on conflict (kind, name) do update set revoked_at = null where tms.logins.principal_id = person.id;
    if not found then raise exception 'somebody else is taking % "%"', login_kind, login_name using errcode = '40001'; end if;
    changed := true;
  end if;
  insert into tms.memberships (principal_id, role, company_id, granted_by, expires_at)
    values (person.id, wanted.role, c.company_id, c.principal_id, until)
    on conflict (principal_id, role, coalesce(company_id, '00000000-0000-0000-0000-000000000000')) where revoked_at is null
    do update set expires_at = excluded.expires_at, granted_by = excluded.granted_by
     where tms.memberships.expires_at is distinct from excluded.expires_at;
  changed := changed or found;
  if wanted.role = 'super_admin' and until is not null and not tms._super_admin_remains() then
    raise exception '% would be the last super_admin, and with an end', person.name using errcode = 'TM409',
      detail = 'somebody who can sign in here must still give and take roles tomorrow', hint = 'tms users grant <other> --role super_admin';
  end if;
  if changed then
    perform tms._record(c, 'user.grant', 'done', person.name, '', jsonb_build_object(
      'principal', person.id, 'role', wanted.role, 'tenant', c.company_id, 'expires_at', tms._utc(until),
      'credential', login_kind) || case when owner.id is null then '{}' else jsonb_build_object('credential_of', owner.id) end);
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
  called text;
  maker uuid;
  people tms.principals[];
  person tms.principals;
  latched boolean;
  touched boolean;
  gone integer;
  everything boolean := not args ?| '{tenant,role}';
  ended integer := 0;
begin
  if c.answer is not null then return c.answer; end if;
  called := tms._text(args, 'principal', 270);
  if called ~ '^\S+ \(\S+\)$' then
    maker := coalesce((tms._company(substring(called from '\((\S+)\)$'))).id, '00000000-0000-0000-0000-000000000000');
    called := split_part(called, ' ', 1);
  end if;
  if exists (select from tms.principals p where p.name = called and p.kind = 'service') then
    raise exception '"%" is a service account: rotate its key instead', left(called, 60) using errcode = 'TM400';
  end if;
  -- One person, never a namesake as well: anybody's tenant can make the name. Without a tenant a super_admin's own comes first.
  select array_agg(p order by p.home nulls first) into people from tms.principals p
   where p.name = called and p.kind = 'human' and (maker is null or p.home = maker)
     and (not args ? 'tenant' or exists (select from tms.memberships m where m.principal_id = p.id and m.company_id = c.company_id));
  if people is null then
    return tms._refuse(c, 'NOT_FOUND', format('there is no principal "%s"', left(args ->> 'principal', 60)), 'nobody of that name has a role here',
      array['tms users list']);
  end if;
  if args ? 'tenant' and cardinality(people) > 1 then
    people := coalesce((select array_agg(p) from unnest(people) p where exists (
      select from tms._live_memberships(p.id) m where m.company_id = c.company_id and m.role = coalesce(args ->> 'role', m.role))), people[1:1]);
  end if;
  person := people[1];
  if cardinality(people) > 1 and (args ? 'tenant' or person.home is not null) then
    return tms._refuse(c, 'CONFLICT', format('"%s" is more than one person', called),
      (select string_agg(tms._full_name(p), ', ' order by tms._full_name(p) collate "C") from unnest(people) p),
      (select array_agg(format('tms users revoke "%s"%s', tms._full_name(p), ' --tenant ' || c.tenant) order by tms._full_name(p) collate "C") from unnest(people) p where p.home is not null));
  end if;
  latched := not args ? 'tenant' and coalesce(args ->> 'role', 'super_admin') = 'super_admin' and exists (
    select from tms.memberships m where m.principal_id = person.id and m.role = 'super_admin' and m.revoked_at is null);
  if latched then perform tms._latch_super_admins(); end if;
  with revoked as (
    update tms.memberships m set revoked_at = tms.now()
     where m.principal_id = person.id and m.revoked_at is null
       and (not args ? 'tenant' or m.company_id = c.company_id)
       and (not args ? 'role' or m.role = args ->> 'role')
    returning m.role)
  select count(*), coalesce(bool_or(r.role = 'super_admin'), false) into gone, touched from revoked r;
  if touched and not latched then raise exception 'somebody is making % a super_admin', called using errcode = '40001'; end if;
  if everything then
    -- all roles gone: the ways to sign in go too
    update tms.logins l set revoked_at = clock_timestamp() where l.principal_id = person.id and l.revoked_at is null;
    get diagnostics ended = row_count;
  end if;
  if touched and not tms._super_admin_remains() then
    raise exception '% is the last super_admin', person.name using errcode = 'TM409',
      detail = 'somebody who can sign in here must still give and take roles tomorrow', hint = 'tms users grant <other> --role super_admin';
  end if;
  if gone + ended > 0 then
    perform tms._record(c, 'user.revoke', 'done', tms._full_name(person), '', jsonb_build_object(
      'principals', jsonb_build_array(person.id), 'role', args ->> 'role', 'tenant', c.company_id, 'memberships', gone, 'credentials', ended));
  end if;
  return tms._finish(c, jsonb_build_object('principal', args ->> 'principal', 'changed', gone + ended > 0, 'roles', (
    select coalesce(jsonb_agg(r.value), '[]') from jsonb_array_elements(tms._roles_json(person.id)) r
     where c.role = 'super_admin' or r.value ->> 'tenant' = c.tenant)));
end
$$;
grant execute on function tms.users_revoke(jsonb) to tms_caller;
