-- Service accounts: the age of their credentials, and rotation with an overlap. Owned by tms_identity.
--
-- Guarantee: a service account's credential ends 90 days after it was made, whatever anybody asked for; the old one goes on
-- for the overlap and no longer; a credential's name is never used twice; a login that is not there for tms is never taken.

set local role tms_identity;

create or replace function tms._max_age() returns interval
language sql immutable as $$ select interval '90 days' $$;

create or replace function tms.accounts_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('accounts_list', args, '{}', 'accounts.rotate');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('max_age_days', extract(day from tms._max_age())::int, 'accounts', (
    select coalesce(jsonb_agg(jsonb_build_object(
             'account', p.name, 'scope', r.scope,
             'credentials', coalesce(l.list, '[]'),
             'state', case
               when l.list is null then 'none'
               when l.live is null or l.live <= clock_timestamp() then 'expired'
               when l.live < clock_timestamp() + interval '14 days' then 'due'
               else 'ok' end) order by p.name collate "C"), '[]')
      from tms.principals p
      join tms.roles r on r.role = p.name
      left join lateral (
        select jsonb_agg(tms._credential_json(x) order by x.created_at) as list, max(x.expires_at) filter (where x.revoked_at is null) as live
          from tms.logins x
         -- the embedded database's own ways to be a machine are no credentials: nobody holds them, and they have no end
         where x.principal_id = p.id and x.kind <> 'local') l on true
     where p.kind = 'service'));
end
$$;
grant execute on function tms.accounts_list(jsonb) to tms_caller;

create or replace function tms.accounts_rotate(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('accounts_rotate', args, '{request_id,account,kind,name,secret_sha256,overlap_seconds}', 'accounts.rotate');
  account tms.principals;
  made tms.logins;
  overlap interval;
begin
  if c.answer is not null then return c.answer; end if;
  select * into account from tms.principals p where p.name = rtrim(tms._text(args, 'account', 60), '@') and p.kind = 'service';
  if account.id is null then
    return tms._refuse(c, 'NOT_FOUND', format('there is no service account "%s"', left(args ->> 'account', 60)),
      format('there are: %s', (select string_agg(p.name, ', ' order by p.name) from tms.principals p where p.kind = 'service')),
      array['tms accounts list']);
  end if;
  if coalesce(args ->> 'kind', '') not in ('postgres', 'jwt', 'key') then
    raise exception 'a service account''s credential is postgres, jwt or key' using errcode = 'TM400';
  end if;
  if (args ->> 'kind' = 'key') <> (args ? 'secret_sha256') or coalesce(args ->> 'secret_sha256', repeat('0', 64)) !~ '^[0-9a-f]{64}$' then
    raise exception 'a key, and only a key, comes with "secret_sha256"' using errcode = 'TM400';
  end if;
  if jsonb_typeof(args -> 'overlap_seconds') is distinct from 'number' then
    raise exception '"overlap_seconds" is missing' using errcode = 'TM400';
  end if;
  overlap := make_interval(secs => (args ->> 'overlap_seconds')::integer);
  if overlap < interval '0' or overlap > interval '30 days' then
    raise exception 'the overlap is between 0 and 30 days' using errcode = 'TM400';
  end if;
  if args ->> 'kind' = 'postgres' then
    -- Postgres would cut it off, and the login would be nobody's
    if octet_length(tms._text(args, 'name', 200)) > 63 then raise exception 'a login''s name has at most 63 bytes' using errcode = 'TM400'; end if;
    if exists (select from pg_roles r where r.rolname = args ->> 'name' and (r.rolsuper or not pg_has_role(r.oid, 'tms_caller', 'member'))) then
      return tms._refuse(c, 'CONFLICT', format('the login "%s" is there already, and not for tms', left(args ->> 'name', 63)),
        'who signs in as it would become this account', array['give another --name', 'grant tms_caller to it first, if it was made for this account']);
    end if;
  end if;
  insert into tms.logins (principal_id, kind, name, secret_sha256, expires_at)
    values (account.id, args ->> 'kind', tms._text(args, 'name', 200), args ->> 'secret_sha256', clock_timestamp() + tms._max_age())
    on conflict (kind, name) do nothing returning * into made;
  if made.id is null then
    return tms._refuse(c, 'CONFLICT', format('%s "%s" was used before', args ->> 'kind', left(args ->> 'name', 60)),
      'a credential''s name is never used twice', array['tms accounts list']);
  end if;
  -- only the same kind retires: the database login and the door's key are rotated each in its own time
  update tms.logins l set expires_at = least(l.expires_at, clock_timestamp() + overlap)
   where l.principal_id = account.id and l.kind = made.kind and l.id <> made.id and l.revoked_at is null
     and (l.expires_at is null or l.expires_at > clock_timestamp());
  perform tms._record(c, 'account.rotate', 'done', account.name, '', jsonb_build_object(
    'account', account.id, 'credential', made.id, 'kind', made.kind, 'expires_at', tms._utc(made.expires_at),
    'overlap_seconds', (args ->> 'overlap_seconds')::integer));
  return tms._finish(c, jsonb_build_object('account', account.name, 'credential', tms._credential_json(made), 'retiring', (
    select coalesce(jsonb_agg(tms._credential_json(l) order by l.created_at), '[]') from tms.logins l
     where l.principal_id = account.id and l.kind = made.kind and l.id <> made.id and l.revoked_at is null
       and l.expires_at > clock_timestamp())));
end
$$;
grant execute on function tms.accounts_rotate(jsonb) to tms_caller;
