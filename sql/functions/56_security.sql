-- Attempts that failed, and sources that are shut out for a while.
--
-- Guarantees: a flood costs one row a minute for each source and a thousand in all; who is shut out is let in again by time
-- alone; nobody is shut out by what somebody else sent: not the owner of a key whose id a stranger writes down, not who shares
-- an address with one, not a service account that many hosts use; nothing here is asked before a halt.

set local role tms_identity;

-- The id as it is counted: '' for one that never was.
create or replace function tms._known_key(key_id text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select case when exists (select from tms.logins l where l.kind = 'key' and l.name = key_id) then key_id else '' end
$$;

-- Whether a person may be shut out by what they were refused. Not machines: many hosts share an account, and one of them must
-- not stop the others. Not who holds the levers.
create or replace function tms._may_be_blocked(principal uuid) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select exists (select from tms.principals p where p.id = principal and p.kind = 'human')
     and not exists (select from tms._live_memberships(principal) m where m.role = 'super_admin')
$$;

-- For the list, and for who lifts a block by a person's name.
create or replace function tms._principals_named(wanted text) returns setof uuid
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select p.id from tms.principals p where p.name = wanted
$$;
grant execute on function tms._known_key(text), tms._may_be_blocked(uuid), tms._principals_named(text) to tms_owner;

set local role tms_owner;

-- How many within five minutes shut a source out, and for how long; 0: never. Whole database: a tenant can't change it.
create or replace function tms._security_number(name text) returns integer
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return coalesce((tms._flag_value('security.block.' || name, null) #>> '{}')::integer,
    case name when 'signatures' then 20 when 'nonces' then 10 when 'refusals' then 2000 when 'seconds' then 60 else 86400 end);
end
$$;

-- Seconds that are left; null: let in.
create or replace function tms._blocked_for(kind text, source text) returns integer
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select ceil(extract(epoch from b.until - tms.now()))::integer from tms.security_blocks b
   where b.kind = _blocked_for.kind and b.source = _blocked_for.source and b.until > tms.now());
end
$$;

create or replace function tms._security_block(c tms.call, kind text, source text, address text, key_id text, principal uuid, cause text, n bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  made tms.security_blocks;
  base numeric := tms._security_number('seconds');
  most numeric := tms._security_number('longest');
begin
  insert into tms.security_blocks as b (kind, source, address, key_id, principal_id, cause, count, level, since, until)
    values (kind, source, address, key_id, principal, cause, n, 0, tms.now(), tms.now() + least(base, most) * interval '1 second')
    on conflict on constraint security_blocks_pkey do update
      -- after one that was lifted the next is a first one again
      set level = case when b.lifted_at is null and b.until > tms.now() - interval '1 day' then least(b.level + 1, 30) else 0 end,
          until = tms.now() + least(base * power(2, case when b.lifted_at is null and b.until > tms.now() - interval '1 day' then least(b.level + 1, 30) else 0 end), most) * interval '1 second',
          since = tms.now(), cause = excluded.cause, count = excluded.count, lifted_at = null, lifted_by = null, lifted_why = null
      where b.until <= tms.now()
    returning * into made;
  if made.source is null then return; end if;
  c := tms._name(c);
  -- the ledger is handed out: an address is somebody's
  perform tms._record(c, 'security.block', 'done', case kind when 'key' then 'key ' || key_id when 'principal' then tms._principal_name(principal) else 'an address' end,
    format('%s times %s within five minutes', n, cause), jsonb_build_object('kind', kind, 'source_sha256', tms._sha256(source), 'cause', cause, 'level', made.level, 'until', tms._utc(made.until)));
  -- a thousand addresses are one message in ten minutes
  perform tms._announce('security.blocked', jsonb_build_object('title', 'A source is shut out for a while', 'severity', 'warning',
      'what', case kind when 'key' then 'key ' || key_id || ' at one address' when 'principal' then 'a person, by their own calls' else 'an address without a key' end,
      'cause', cause, 'count', n, 'until', tms._utc(made.until), 'look', 'tms security blocks'),
    'security.blocked ' || tms._utc(date_bin('10 minutes', tms.now(), '2000-01-01 00:00+00')));
end
$$;

-- Counts what a source did at the door, and shuts it out when that is too much.
create or replace function tms._security_count(c tms.call, kind text, address text, key_id text, company uuid, reason text, n bigint default 1) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  this_minute timestamptz := date_trunc('minute', tms.now());
  nobody constant uuid := '00000000-0000-0000-0000-000000000000';
  key text := tms._known_key(key_id);
  source_kind text := case when key = '' then 'address' else 'key' end;
  source text := case when key = '' then address else key || '@' || address end;
  most integer;
  -- what a source does while it is shut out is answered already
  add bigint := case when address <> '*' and kind in ('signature', 'nonce') and tms._blocked_for(source_kind, source) is null then n else 0 end;
  total bigint;
begin
  update tms.security_events e set count = e.count + n, fresh = e.fresh + add, reason = left(_security_count.reason, 40), last_at = tms.now()
   where e.kind = _security_count.kind and e.address = _security_count.address and e.key_id = key and e.minute = this_minute
     and e.company_id = coalesce(company, nobody);
  if not found then
    -- who comes from a thousand addresses gets one row for the rest of them
    if exists (select from tms.security_events e where e.kind = _security_count.kind and e.address = '*' and e.key_id = '' and e.minute = this_minute)
       or (select count(*) from (select from tms.security_events e where e.minute = this_minute limit 1000) x) >= 1000 then
      address := '*'; key := ''; add := 0;
    end if;
    insert into tms.security_events as e (minute, kind, address, key_id, company_id, reason, count, fresh, last_at)
      values (this_minute, kind, address, key, coalesce(company, nobody), left(reason, 40), n, add, tms.now())
      on conflict on constraint security_events_pkey do update
        set count = e.count + excluded.count, fresh = e.fresh + excluded.fresh, reason = excluded.reason, last_at = excluded.last_at;
  end if;
  if add = 0 then return; end if;
  most := tms._security_number(case kind when 'nonce' then 'nonces' else 'signatures' end);
  if most <= 0 then return; end if;
  select coalesce(sum(e.fresh), 0) into total from tms.security_events e
   where e.kind = _security_count.kind and e.address = _security_count.address and e.key_id = key and e.minute > tms.now() - interval '5 minutes';
  if total < most then return; end if;
  -- A key that works at this address: its owner sits there, and whoever sends bad signatures from behind the same address
  -- must not put the owner out. A repeated request is signed by the key itself.
  if kind = 'signature' and exists (select from tms.security_known k
       where k.address = _security_count.address and k.key_id = key and k.seen_at > tms.now() - interval '1 day') then return; end if;
  update tms.security_events e set fresh = 0
   where e.kind = _security_count.kind and e.address = _security_count.address and e.key_id = key and e.minute > tms.now() - interval '5 minutes';
  perform tms._security_block(c, source_kind, source, address, nullif(key, ''), null, kind, total);
end
$$;

-- What is past its time goes. A door asks every few seconds, and then more goes than can have come.
create or replace function tms._security_sweep() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  delete from tms.security_events e where e.ctid = any (array(
    select x.ctid from tms.security_events x where x.minute < tms.now() - interval '90 days' order by x.minute limit 1000 for update skip locked));
  delete from tms.security_blocks b where b.ctid = any (array(
    select x.ctid from tms.security_blocks x where x.until < tms.now() - interval '90 days' order by x.until limit 1000 for update skip locked));
  delete from tms.security_known k where k.ctid = any (array(
    select x.ctid from tms.security_known x where x.seen_at < tms.now() - interval '2 days' order by x.seen_at limit 1000 for update skip locked));
end
$$;

-- A request of this key from this address was let in.
create or replace function tms._security_good(address text, key_id text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  -- written now and then: each request would be a row's new version
  if exists (select from tms.security_known k where k.address = _security_good.address and k.key_id = _security_good.key_id and k.seen_at > tms.now() - interval '1 hour') then return; end if;
  insert into tms.security_known (address, key_id, seen_at) values (address, key_id, tms.now())
    on conflict on constraint security_known_pkey do update set seen_at = excluded.seen_at;
end
$$;

-- Somebody was refused once more. tms._refuse calls it, after it has counted.
create or replace function tms._security_refused(c tms.call) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  most integer := tms._security_number('refusals');
  total bigint;
begin
  if most <= 0 or c.principal_id is null then return; end if;
  select coalesce(sum(r.count), 0) into total from tms.refusals r
   where r.minute > greatest(clock_timestamp() - interval '5 minutes',
           -- what a block has answered is not answered twice
           (select b.until from tms.security_blocks b where b.kind = 'principal' and b.source = c.principal_id::text))
     and r.who = c.who and r.code in ('ROLE_DENIED', 'ENVIRONMENT_DENIED');
  if total < most or not tms._may_be_blocked(c.principal_id) then return; end if;
  perform tms._security_block(c, 'principal', c.principal_id::text, null, null, c.principal_id, 'role', total);
end
$$;
grant execute on function tms._security_refused(tms.call), tms._blocked_for(text, text) to tms_identity;

-- What a door saw since it last said so, summed up by it, and the answer: whom to keep out. A door is believed about what came
-- to it; it can shut nobody out who is known to work.
create or replace function tms.door_report(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_work('door_report', args, '{events}', 'webhook.in');
  e record;
  counted integer := 0;
begin
  if c.answer is not null then return c.answer; end if;
  if jsonb_typeof(args -> 'events') is distinct from 'array' or jsonb_array_length(args -> 'events') > 500 then
    raise exception '"events" is a list of at most 500' using errcode = 'TM400';
  end if;
  -- in one order, so that two doors with the same sources wait for each other and don't deadlock
  for e in select * from jsonb_to_recordset(args -> 'events') x (kind text, address text, key_id text, reason text, count bigint)
            order by x.kind collate "C", x.address collate "C", x.key_id collate "C" loop
    if e.kind is null or e.kind not in ('signature', 'blocked') or coalesce(length(e.address), 0) not between 1 and 64 or coalesce(e.count, 0) not between 1 and 10000000 then
      raise exception 'an event of a door is a signature or blocked, with an address and a count' using errcode = 'TM400';
    end if;
    perform tms._security_count(c, e.kind, e.address, coalesce(e.key_id, ''), null, coalesce(e.reason, ''), e.count);
    counted := counted + 1;
  end loop;
  perform tms._security_sweep();
  return jsonb_build_object('counted', counted, 'blocks', (
    select coalesce(jsonb_agg(jsonb_build_object('address', b.address, 'key_id', b.key_id, 'seconds', ceil(extract(epoch from b.until - tms.now()))::integer) order by b.until desc), '[]')
      from (select * from tms.security_blocks x where x.until > tms.now() and x.kind <> 'principal' order by x.until desc limit 5000) b));
end
$$;
grant execute on function tms.door_report(jsonb) to tms_caller;

-- What was tried: at the door, and by those who are in. Newest minute first. Who and where from only as far as the caller may
-- see personal data.
create or replace function tms.security_events(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('security_events', args, '{tenant,kind,minutes,limit}', 'audit.read');
  visible uuid[] := tms._allowed('audit.read');
  span interval := least(greatest(coalesce((args ->> 'minutes')::integer, 60), 1), 129600) * interval '1 minute';
  nobody constant uuid := '00000000-0000-0000-0000-000000000000';
begin
  if c.answer is not null then return c.answer; end if;
  if args ? 'tenant' then visible := array[c.company_id]; end if;
  return (
    with seen as materialized (
      select e.minute, e.kind, e.address, nullif(e.key_id, '') as key_id, null::text as who, null::text as fn, e.company_id, e.reason, e.count
        from tms.security_events e where e.minute > tms.now() - span
      union all
      -- the door's own are above, by source
      select r.minute, k.kind, null, null, r.who, r.fn, r.company_id, r.code, r.count
        from tms.refusals r
        join (values ('ROLE_DENIED', 'role'), ('ENVIRONMENT_DENIED', 'role'), ('IDENTITY_UNKNOWN', 'identity'), ('CREDENTIAL_EXPIRED', 'identity'),
                     ('TOKEN_WRONG', 'token'), ('RATE_LIMITED', 'rate'), ('BLOCKED', 'blocked')) k (code, kind) on k.code = r.code
       where r.minute > clock_timestamp() - span and r.fn not in ('door_admit', 'door_knock', 'door_report')
    ), mine as materialized (
      select s.*, nullif(s.company_id, nobody) as company from seen s
       where (visible is null or s.company_id = any (visible)) and (not args ? 'kind' or s.kind = args ->> 'kind')
    )
    select jsonb_build_object('since', tms._utc(tms.now() - span),
      'totals', (select coalesce(jsonb_object_agg(t.kind, t.n::text), '{}') from (select m.kind, sum(m.count) as n from mine m group by m.kind) t),
      'events', (select coalesce(jsonb_agg(jsonb_build_object('minute', tms._utc(m.minute), 'kind', m.kind, 'count', m.count::text, 'reason', m.reason,
          'address', case when tms._clear(c, m.company) then m.address end, 'key', m.key_id, 'who', case when tms._clear(c, m.company) then m.who end,
          'function', m.fn, 'tenant', tms._tenant_key(m.company)) order by m.minute desc, m.count desc, m.kind collate "C", m.address collate "C", m.who collate "C"), '[]')
        from (select * from mine x order by x.minute desc, x.count desc, x.kind collate "C", x.address collate "C", x.who collate "C" limit tms._limit(args)) m)));
end
$$;
grant execute on function tms.security_events(jsonb) to tms_caller;

-- Who is shut out now, and with `all` who was in the last 90 days. No tenant's: for those who see every tenant.
create or replace function tms.security_blocks(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('security_blocks', args, '{all,limit}', 'audit.read');
  everywhere boolean := tms._allowed('audit.read') is null;
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('all_visible', everywhere, 'blocks', (
    select coalesce(jsonb_agg(jsonb_build_object('kind', b.kind,
        'source', case when tms._clear(c, null) then case b.kind when 'principal' then tms._principal_name(b.principal_id) else b.source end end,
        'key', b.key_id, 'cause', b.cause, 'count', b.count::text, 'times', greatest(b.level, 0) + 1, 'since', tms._utc(b.since), 'until', tms._utc(b.until),
        'active', b.until > tms.now(), 'lifted_at', tms._utc(b.lifted_at), 'lifted_by', case when tms._clear(c, null) then b.lifted_by end) order by b.until desc, b.source collate "C"), '[]')
      from (select * from tms.security_blocks x where everywhere and (x.until > tms.now() or args -> 'all' = 'true')
             order by x.until desc, x.source collate "C" limit tms._limit(args)) b));
end
$$;
grant execute on function tms.security_blocks(jsonb) to tms_caller;

-- Lets a source in again: an address with all keys at it, key@address, or a person by name.
create or replace function tms.security_unblock(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('security_unblock', args, '{request_id,source,why}', 'accounts.manage');
  wanted text;
  lifted jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  wanted := tms._text(args, 'source', 140);
  with found as (
    update tms.security_blocks b set until = tms.now(), lifted_at = tms.now(), lifted_by = c.who, lifted_why = left(coalesce(args ->> 'why', ''), 300)
     where b.until > tms.now() and (b.source = wanted or b.address = wanted or (b.kind = 'principal' and b.principal_id in (select tms._principals_named(wanted))))
     returning b.kind, b.source, b.address, b.key_id
  ), cleared as (
    update tms.security_events e set fresh = 0 from found f
     where e.address = f.address and e.key_id = coalesce(f.key_id, '') and e.minute > tms.now() - interval '5 minutes' and e.fresh > 0
     returning 1
  )
  select coalesce(jsonb_agg(f.kind order by f.kind), '[]') into lifted from found f;
  if lifted = '[]' then
    return tms._refuse(c, 'NOT_FOUND', 'nothing of that name is shut out now', 'it never was, or its time is over', array['tms security blocks']);
  end if;
  perform tms._record(c, 'security.unblock', 'done', 'a source', coalesce(args ->> 'why', ''), jsonb_build_object('source_sha256', tms._sha256(wanted), 'blocks', lifted));
  return tms._finish(c, jsonb_build_object('source', wanted, 'lifted', jsonb_array_length(lifted)));
end
$$;
grant execute on function tms.security_unblock(jsonb) to tms_caller;

-- A ledger that doesn't verify is an incident of the highest priority, once.
create or replace function tms._security_ledger_broken(detail jsonb, by text default 'tms') returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return tms._incident_open('P1', 'ledger_broken', 'ledger:broken', null, 'The ledger does not verify: what was recorded may have been changed', detail, by);
end
$$;

create or replace function tms.security_ledger_broken(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('security_ledger_broken', args, '{request_id,detail}', 'incident.open');
  incident bigint;
begin
  if c.answer is not null then return c.answer; end if;
  if jsonb_typeof(args -> 'detail') is distinct from 'object' or octet_length(args ->> 'detail') > 8192 then
    raise exception '"detail" is an object of at most 8 KB' using errcode = 'TM400';
  end if;
  incident := tms._security_ledger_broken(args -> 'detail', c.who);
  perform tms._record(c, 'security.ledger_broken', 'done', 'incident ' || incident, 'the ledger does not verify', jsonb_build_object('incident', incident::text));
  return tms._finish(c, jsonb_build_object('incident', incident::text));
end
$$;
grant execute on function tms.security_ledger_broken(jsonb) to tms_caller;
