-- How every contract function starts and ends: arguments, identity, stored answers, permission, refusal, ledger.
--
-- Guarantees: an argument that is not declared is refused; a repeated request id gets the stored answer and runs nothing;
-- what roles.yaml does not grant is refused and the refusal is recorded and commits; an action and its ledger row commit
-- together.

set local role tms_owner;

-- A refusal as a value. Recorded once a minute per caller, function, code and tenant in the ledger, and always counted.
-- `again_at` is when the same may be granted; null: nobody knows, or never.
create or replace function tms._refuse_until(c tms.call, code text, what text, why text, next text[], again_at timestamptz) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  refusal jsonb := jsonb_build_object('refused', jsonb_strip_nulls(jsonb_build_object('code', code, 'what', what, 'why', why, 'next', next, 'again_at', tms._utc(again_at))));
  first_in_minute boolean;
begin
  -- a replica cannot record; the driver asks the primary again
  if current_setting('transaction_read_only') = 'on' then return refusal; end if;
  -- a slip of the pen is no event
  if code <> 'NOT_FOUND' then
    insert into tms.refusals as r (minute, who, fn, code, company_id, count)
      values (date_trunc('minute', clock_timestamp()), c.who, c.fn, code,
              coalesce(c.company_id, '00000000-0000-0000-0000-000000000000'), 1)
      on conflict on constraint refusals_pkey do update set count = r.count + 1
      returning r.count = 1 into first_in_minute;
    if first_in_minute then
      perform tms._record(c, c.fn, 'refused', coalesce(c.operation, c.fn), code || ': ' || what, refusal);
    end if;
    if code in ('ROLE_DENIED', 'ENVIRONMENT_DENIED') then perform tms._security_refused(c); end if;
  end if;
  if c.request_id is not null and c.principal_id is not null then
    if code = 'FENCED' then
      -- asked again after the resume it shall be done, not told about a halt that is over
      delete from tms.requests where principal_id = c.principal_id and request_id = c.request_id;
    else
      update tms.requests set answer = refusal where principal_id = c.principal_id and request_id = c.request_id;
    end if;
  end if;
  return refusal;
end
$$;

create or replace function tms._refuse(c tms.call, code text, what text, why text, next text[]) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return tms._refuse_until(c, code, what, why, next, null);
end
$$;

-- Budgets of a day are counted by UTC days.
create or replace function tms._tomorrow() returns timestamptz
language sql stable as $$
  select (pg_catalog.date_trunc('day', pg_catalog.clock_timestamp() at time zone 'UTC') + interval '1 day') at time zone 'UTC'
$$;

-- The ledger row of an action, in the action's transaction.
create or replace function tms._record(c tms.call, action text, outcome text, subject text, why text, body jsonb)
returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  insert into tms.ledger_inbox
    (principal_id, who, credential, role, fn, action, outcome, company_id, subject, why, body, body_sha256)
  values
    (c.principal_id, c.who, c.credential, coalesce(c.role, ''), c.fn, action, outcome, c.company_id,
     left(subject, 400), left(why, 1000), body::text, tms._sha256(body::text));
end
$$;

-- Tells listeners to look again: a push where there is push, a row for those who poll. One per transaction and channel
-- reaches anybody, Postgres folds equal notifications.
create or replace function tms._signal(channel text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  insert into tms.signals (channel) values (channel);
  delete from tms.signals where id = any (array(
    select id from tms.signals s where s.at < clock_timestamp() - interval '1 day' order by id limit 50 for update skip locked));
  perform pg_notify('tms_' || channel, '');
end
$$;

-- Starts a call. `allowed` names the arguments; one of them being request_id makes it a mutation. `operation` null: any
-- known principal. The tenant comes from the argument of that name; `subject` is what patterns are matched against.
create or replace function tms._begin(fn text, args jsonb, allowed text[], operation text, subject text default null)
returns tms.call
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call;
  credential tms.logins;
  company tms.companies;
  stray text;
  writes boolean := 'request_id' = any (allowed);
  -- no row type of the table: looking that up waits for whoever has locked the table, and a halt must not
  earlier record;
  grant_row record;
  held text;
  barred boolean := false;
  shut integer;
  -- what is asked, as text: as long as the list of a bulk call, so made once
  said text;
begin
  c.fn := fn;
  c.operation := operation;
  if args is null or jsonb_typeof(args) <> 'object' then
    raise exception '% takes one JSON object', fn using errcode = 'TM400';
  end if;
  -- An older snapshot still shows roles and credentials that were taken away since it was made.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'tms is called at read committed: this transaction is %', current_setting('transaction_isolation')
      using errcode = 'TM400', hint = 'begin isolation level read committed';
  end if;
  said := (args - 'request_id')::text;
  if octet_length(said) > 1048576 then
    raise exception 'the arguments of % are larger than 1 MB', fn using errcode = 'TM400';
  end if;
  select k into stray from jsonb_object_keys(args) k where k <> all (allowed) limit 1;
  if found then
    raise exception '% has no argument "%"', fn, left(stray, 60) using errcode = 'TM400';
  end if;
  if writes and coalesce(args ->> 'request_id', '') = '' then
    raise exception '% needs a request_id', fn using errcode = 'TM400';
  end if;

  -- who
  select * into credential from tms._credential();
  c.credential := coalesce(credential.kind || ':' || credential.id, 'unknown:' || session_user);
  c.who := 'login ' || session_user;
  if credential.id is null then
    c.answer := tms._refuse(c, 'IDENTITY_UNKNOWN', 'this connection belongs to nobody tms knows',
      format('login "%s" is not mapped to a principal, or the token has no known subject', session_user),
      case when tms._super_admin_remains() then array['tms users grant <who> --role <role> --login <login> (as super_admin)']
        else array['tms init'] end);
    return c;
  end if;
  c.who := tms._principal_name(credential.principal_id);
  if credential.revoked_at is null and coalesce(credential.expires_at > clock_timestamp(), true) then
    c.principal_id := credential.principal_id;
  end if;
  if c.principal_id is null then
    c.answer := tms._refuse(c, 'CREDENTIAL_EXPIRED', format('the credential of %s has ended', c.who),
      format('it was %s', case when credential.revoked_at is not null then 'revoked' else 'valid until ' || tms._utc(credential.expires_at) end),
      array['tms accounts rotate <account> (as super_admin or autopilot)', 'tms users grant <who> … (as super_admin)']);
    return c;
  end if;

  -- Shut out, after thousands of calls that were refused? Stopping is not asked: not even the table is looked at.
  if fn not in ('fence_halt', 'fence_certificate', 'fence_state', 'safe_mode_on', 'agents_control', 'agents_settle', 'whoami') and fn not like 'incident\_%' then
    shut := tms._blocked_for('principal', c.principal_id::text);
    if shut is not null then
      c.answer := tms._refuse_until(c, 'BLOCKED', format('%s is shut out for %s seconds more', c.who, shut), 'too many calls were refused; stopping still works',
        array['tms whoami', 'tms security unblock <who> (as super_admin)'], clock_timestamp() + shut * interval '1 second');
      return c;
    end if;
  end if;

  -- asked before?
  if writes then
    c.request_id := (args ->> 'request_id')::uuid;
    -- now and then: each call would pay for finding nothing
    if random() < 0.05 then
      delete from tms.requests where (principal_id, request_id) in (
        select r.principal_id, r.request_id from tms.requests r
         where r.created_at < clock_timestamp() - interval '24 hours' order by r.created_at limit 400 for update skip locked);
    end if;
    insert into tms.requests (principal_id, request_id, fn, args_sha256)
      values (c.principal_id, c.request_id, fn, tms._sha256(said)) on conflict do nothing;
    if not found then
      select * into earlier from tms.requests r
       where r.principal_id = c.principal_id and r.request_id = c.request_id for update;
      if earlier.answer is null then
        -- the other attempt is not visible to this snapshot: only above read committed
        raise exception 'the same request is being answered' using errcode = '40001';
      end if;
      if earlier.created_at < clock_timestamp() - interval '24 hours' then
        -- past its day it answers nothing any more, swept or not
        update tms.requests r set fn = c.fn, args_sha256 = tms._sha256(said), answer = null,
               created_at = clock_timestamp()
         where r.principal_id = c.principal_id and r.request_id = c.request_id;
      elsif earlier.fn <> fn or earlier.args_sha256 <> tms._sha256(said) then
        c.request_id := null; -- the stored answer stays what it is
        c.answer := tms._refuse(c, 'REQUEST_REUSED', 'this request id was used for another request',
          format('it answered %s', earlier.fn), array['ask again with a new request id']);
        return c;
      else
        c.answer := earlier.answer;
        return c;
      end if;
    end if;
  end if;

  -- may they?
  if args ? 'tenant' then
    c.tenant := args ->> 'tenant';
    company := tms._company(c.tenant);
    c.company_id := company.id;
    c.tenant := coalesce(company.key, c.tenant);
  end if;
  if operation is null then return c; end if;
  for grant_row in
    select * from tms._grants(operation) g
     where g.everywhere
        or (args ? 'tenant' and g.company_id = company.id)
        -- a read that names no tenant covers the tenants of its grants
        or (not args ? 'tenant' and not writes)
     order by g.redacted
  loop
    held := grant_row.role;
    if grant_row.role = 'developer' and writes and (select e.name = 'production' from tms.environment e) then
      barred := true;
      continue;
    end if;
    if tms._matches(coalesce(subject, ''), grant_row.patterns) then
      if args ? 'tenant' and company.id is null then
        -- only who may see every tenant learns that this one does not exist
        c.answer := tms._refuse(c, 'NOT_FOUND', format('there is no tenant "%s"', left(c.tenant, 60)),
          'neither a key nor an id of a tenant', array['tms tenants list']);
        return c;
      end if;
      c.role := grant_row.role;
      -- the usual case by far, without asking twice
      if grant_row.everywhere and not grant_row.redacted then
        c.clear_everywhere := true;
        c.clear_shared := true;
        return c;
      end if;
      select bool_or(g.everywhere and not g.redacted),
             array_agg(g.company_id) filter (where g.company_id is not null and not g.redacted),
             bool_or(g.everywhere and not g.redacted) or not bool_or(g.redacted)
        into c.clear_everywhere, c.clear_companies, c.clear_shared
        from tms._grants(operation) g;
      return c;
    end if;
  end loop;
  if barred then
    c.answer := tms._refuse(c, 'ENVIRONMENT_DENIED', format('%s may not %s in production', c.who, operation),
      'developers have no write in production', array['tms whoami', 'ask a super_admin']);
  else
    c.answer := tms._refuse(c, 'ROLE_DENIED',
      format('%s may not %s%s%s', c.who, operation,
        case when args ? 'tenant' then format(' for tenant "%s"', left(args ->> 'tenant', 60)) end,
        case when held is not null then format(' on "%s"', left(subject, 60)) end),
      case when held is null then 'no role of this principal grants it here' else format('%s grants it for other subjects only', held) end,
      array['tms whoami', 'ask a super_admin']);
  end if;
  return c;
end
$$;

-- Whether personal data of a tenant's rows (null: of rows that belong to none) may be shown. Judged row by row: a read that
-- covers several tenants may be clear in one and redacted in the next.
create or replace function tms._clear(c tms.call, company uuid) returns boolean
language sql immutable as $$
  select coalesce(c.clear_everywhere, false) or case when company is null then coalesce(c.clear_shared, false)
    else coalesce(company = any (c.clear_companies), false) end
$$;

-- Ends a mutation: the answer is stored under its request id.
create or replace function tms._finish(c tms.call, answer jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  update tms.requests set answer = _finish.answer where principal_id = c.principal_id and request_id = c.request_id;
  return answer;
end
$$;

-- A required text argument, trimmed; anything else is bad input and undoes the call.
create or replace function tms._text(args jsonb, name text, longest integer default 1000) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  value text := btrim(args ->> name);
begin
  if jsonb_typeof(args -> name) is distinct from 'string' or value = '' then
    raise exception '"%" is missing', name using errcode = 'TM400';
  end if;
  if length(value) > longest then
    raise exception '"%" is longer than % characters', name, longest using errcode = 'TM400';
  end if;
  return value;
end
$$;

create or replace function tms._limit(args jsonb) returns integer
language sql immutable as $$
  select greatest(1, least(1000, coalesce((args ->> 'limit')::integer, 50)))
$$;

grant execute on function
  tms._refuse(tms.call, text, text, text, text[]), tms._record(tms.call, text, text, text, text, jsonb),
  tms._begin(text, jsonb, text[], text, text), tms._finish(tms.call, jsonb), tms._text(jsonb, text, integer),
  tms._limit(jsonb), tms._signal(text), tms._clear(tms.call, uuid)
  to tms_identity;

-- Raised with each release that changes the contract (src/drivers/contract.ts holds the same number).
create or replace function tms.contract_version(args jsonb) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object('contract', 1, 'server', pg_catalog.current_setting('server_version'))
$$;
grant execute on function tms.contract_version(jsonb) to tms_caller;

create or replace function tms.signals(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('signals', args, '{channel,after}', null);
  horizon xid8 := pg_snapshot_xmin(pg_current_snapshot());
begin
  if c.answer is not null then return c.answer; end if;
  -- below the horizon every transaction has ended: nothing can appear there later, so nothing is missed or seen twice
  return jsonb_build_object(
    'cursor', horizon::text,
    'signals', (select count(*) from tms.signals s
                 where s.channel = args ->> 'channel' and s.xid < horizon
                   and s.xid >= (args ->> 'after')::xid8));
end
$$;
grant execute on function tms.signals(jsonb) to tms_caller;
