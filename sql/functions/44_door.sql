-- The door: who may come in over HTTP.
--
-- Guarantees: a request is admitted once, whichever key it shows; only for a key that is live now, whose owner may do this for
-- this tenant; never more than so many a minute for an address, a key and a tenant, however many ask at once. Nothing an
-- unsigned stranger sends uses up a nonce, or the rate of a key or a tenant: those are counted after the key was judged.

set local role tms_identity;

-- Key ids are never used twice (tms.accounts_rotate), so an id has one secret.
create or replace function tms._key(key_id text, key_sha256 text) returns tms.logins
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select l from tms.logins l
   where l.kind = 'key' and l.name = key_id and l.secret_sha256 = key_sha256
     and l.revoked_at is null and l.expires_at > clock_timestamp()
$$;

-- What a key's owner may do from outside. Machines of the fleet and members of a tenant: people who see everything and the
-- break-glass account don't come through the door, and an agent acts for the task it holds, which a request doesn't.
create or replace function tms._key_grants(principal uuid, operation text) returns table (role text, company_id uuid, everywhere boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select m.role, m.company_id, m.scope = 'fleet'
    from tms._live_memberships(principal) m
    join tms.role_operations o on o.role = m.role and o.operation = _key_grants.operation
   where m.scope in ('fleet', 'own') and m.role <> 'agents' and o.patterns is null and not o.redacted
$$;
grant execute on function tms._key(text, text), tms._key_grants(uuid, text) to tms_owner;

set local role tms_owner;

create or replace function tms._door_rate(subject text) returns integer
language sql immutable as $$
  select case subject when 'knock' then 60 when 'address' then 1200 else 600 end
$$;

-- Counts one, unless the minute is full. One statement on one row: a thousand at once get exactly as many as there are. Who
-- takes several takes address, key, tenant in this order, so that no two wait for each other.
create or replace function tms._within_rate(kind text, who text, most integer) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  insert into tms.edge_rate_limits as r (subject, minute, used)
    values (kind || ':' || who, date_trunc('minute', clock_timestamp()), 1)
    on conflict on constraint edge_rate_limits_pkey do update set used = r.used + 1 where r.used < most;
  return found;
end
$$;

create or replace function tms._too_many(c tms.call, what text) returns jsonb
language sql as $$
  select tms._refuse_until(c, 'RATE_LIMITED', pg_catalog.format('too many requests of this %s in this minute', what), 'the next minute counts anew', array['wait a minute'],
    pg_catalog.date_trunc('minute', pg_catalog.clock_timestamp()) + interval '1 minute')
$$;

-- One verified request: judged, counted and remembered, all in this call. The door has checked the signature already and says
-- with which secret, by its hash.
create or replace function tms.door_admit(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  -- without the tenant: the key is judged first, and an unknown tenant is no answer to a key that is not known
  c tms.call := tms._begin('door_admit', args - 'tenant', '{request_id,key_id,key_sha256,nonce,timestamp,address,operation}', 'webhook.in');
  key_id text;
  address text;
  wanted text;
  asks_for text;
  key tms.logins;
  company tms.companies;
  shut integer;
begin
  if c.answer is not null then return c.answer; end if;
  key_id := tms._text(args, 'key_id', 64);
  address := tms._text(args, 'address', 64);
  wanted := tms._text(args, 'tenant', 100);
  asks_for := tms._text(args, 'operation', 40);
  if asks_for not in ('task.enqueue', 'webhook.in', 'dlq.dry_run', 'dlq.replay') then
    raise exception 'nothing of the door is "%"', asks_for using errcode = 'TM400';
  end if;
  if coalesce(args ->> 'nonce', '') !~ '^[A-Za-z0-9_-]{22,86}$' or jsonb_typeof(args -> 'timestamp') is distinct from 'number' then
    raise exception '"nonce" and "timestamp" are those of a signed request' using errcode = 'TM400';
  end if;

  key := tms._key(key_id, args ->> 'key_sha256');
  shut := tms._blocked_for('key', key_id || '@' || address);
  if shut is not null then
    perform tms._security_count(c, 'blocked', address, key_id, null, 'shut out');
    return tms._refuse_until(c, 'BLOCKED', 'a key is shut out at one address for a while', format('for %s seconds more: too many requests from there were wrong', shut),
      array['tms security blocks'], clock_timestamp() + shut * interval '1 second');
  end if;
  if key.id is null then
    perform tms._security_count(c, 'signature', address, key_id, null, 'not live');
    return tms._refuse(c, 'SIGNATURE_INVALID', 'a signed request came with a key that is not live', 'it is unknown, expired or revoked, or its secret is another one',
      array['tms accounts list']);
  end if;
  -- the database's clock too: one door with a wrong clock must not revive old requests
  if abs(extract(epoch from clock_timestamp()) - (args ->> 'timestamp')::numeric) > 300 then
    perform tms._security_count(c, 'signature', address, key_id, null, 'not of now');
    return tms._refuse(c, 'SIGNATURE_INVALID', format('a request signed by %s is not of now', tms._principal_name(key.principal_id)),
      'its time differs by more than five minutes from the database''s', array['timedatectl status']);
  end if;
  -- Whatever the key: the key's id is not part of what is signed, so with another id the same signature may pass again.
  if exists (select from tms.edge_nonces n where n.nonce = args ->> 'nonce' and n.key_id = '*') then
    perform tms._security_count(c, 'nonce', address, key_id, null, 'used');
    return tms._refuse(c, 'NONCE_REUSED', format('a request signed by %s came a second time', tms._principal_name(key.principal_id)), 'its nonce was used before',
      array['sign again with a new nonce']);
  end if;
  if not tms._within_rate('address', address, tms._door_rate('address')) then
    perform tms._security_count(c, 'rate', address, key_id, null, 'address');
    return tms._too_many(c, 'address');
  end if;
  if not tms._within_rate('key', key_id, tms._budget('budget.door.keyPerMinute', null, tms._door_rate('key'))::integer) then
    perform tms._security_count(c, 'rate', address, key_id, null, 'key');
    return tms._too_many(c, 'key');
  end if;

  if not exists (select from tms._key_grants(key.principal_id, asks_for)) then
    perform tms._security_count(c, 'role', address, key_id, null, asks_for);
    return tms._refuse(c, 'ROLE_DENIED', format('%s may not %s over the door', tms._principal_name(key.principal_id), asks_for), 'no role of this account grants it',
      array['tms accounts list']);
  end if;
  company := tms._company(wanted);
  if company.id is null or not exists (select from tms._key_grants(key.principal_id, asks_for) g where g.everywhere or g.company_id = company.id) then
    -- a tenant of somebody else is recorded, and answered as one that is not there
    if company.id is not null then
      c.company_id := company.id;
      perform tms._security_count(c, 'role', address, key_id, company.id, asks_for);
      perform tms._refuse(c, 'ROLE_DENIED', format('%s may not %s for tenant "%s"', tms._principal_name(key.principal_id), asks_for, company.key), 'it is not a member', '{}');
      c.company_id := null;
    end if;
    return tms._refuse(c, 'NOT_FOUND', 'there is no such tenant', 'neither a key nor an id of a tenant of this account', '{}');
  end if;
  c.company_id := company.id;
  if not tms._within_rate('tenant', company.id::text, tms._budget('budget.door.tenantPerMinute', company.id, tms._door_rate('tenant'))::integer) then
    perform tms._security_count(c, 'rate', address, key_id, company.id, 'tenant');
    return tms._too_many(c, 'tenant');
  end if;

  delete from tms.edge_nonces n where n.ctid = any (array(
    select x.ctid from tms.edge_nonces x where x.until < clock_timestamp() order by x.until limit 20 for update skip locked));
  if left(args ->> 'nonce', 1) = 'A' then
    -- one call in 64
    delete from tms.edge_rate_limits r where r.ctid = any (array(
      select x.ctid from tms.edge_rate_limits x where x.minute < clock_timestamp() - interval '10 minutes' limit 1000 for update skip locked));
  end if;
  -- the other of two at once waits here until the first has ended
  insert into tms.edge_nonces (key_id, nonce, until) values ('*', args ->> 'nonce', clock_timestamp() + interval '15 minutes') on conflict do nothing;
  if not found then
    perform tms._security_count(c, 'nonce', address, key_id, null, 'used at once');
    return tms._refuse(c, 'NONCE_REUSED', format('a request signed by %s came twice at once', tms._principal_name(key.principal_id)), 'its nonce was used before',
      array['sign again with a new nonce']);
  end if;
  perform tms._security_good(address, key_id);
  if asks_for = 'dlq.replay' then
    -- the replay itself is recorded as the door's
    perform tms._record(c, 'door.admit', 'done', asks_for, 'asked for over the door', jsonb_build_object(
      'key', key_id, 'account', tms._principal_name(key.principal_id), 'nonce', args ->> 'nonce'));
  end if;
  return tms._finish(c, jsonb_build_object('account', tms._principal_name(key.principal_id), 'tenant', company.key));
end
$$;
grant execute on function tms.door_admit(jsonb) to tms_caller;

-- Somebody sent something unsigned or wrongly signed. Counts for the address alone; all doors of this database share the count.
create or replace function tms.door_knock(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('door_knock', args, '{address}', 'webhook.in');
begin
  if c.answer is not null then return c.answer; end if;
  if not tms._within_rate('knock', tms._text(args, 'address', 64), tms._door_rate('knock')) then
    return tms._refuse(tms._name(c), 'RATE_LIMITED', 'too many unsigned or wrongly signed requests of one address', 'somebody tries the door', '{}');
  end if;
  return '{"counted": true}';
end
$$;
grant execute on function tms.door_knock(jsonb) to tms_caller;
