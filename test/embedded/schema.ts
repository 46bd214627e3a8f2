/**
 * Functions of the contract with bodies made for the tests of this driver, so that a call can be slow, refused, wrong
 * or counted. The real ones are the conformance suite's.
 */
export const tinySchema = `
create schema tms;
create role tms_caller;
grant usage on schema tms to tms_caller;

create table tms.requests (request_id text primary key, answer jsonb not null);
-- One row each time that a change is applied: nothing here would stop a second one.
create table tms.effects (request_id text);
create table tms.attached (name text, times int);

create function tms._attach_local(who text) returns void language sql as $$
  insert into tms.attached (name, times) select who, 1 where not exists (select from tms.attached where name = who)
$$;

-- Applied once per request id, like every mutating function of the contract.
create function tms.tenants_add(args jsonb) returns jsonb language plpgsql security definer as $$
declare
  stored jsonb;
begin
  select answer into stored from tms.requests where request_id = args ->> 'request_id';
  if stored is not null then return stored; end if;
  stored := jsonb_build_object('tenant', jsonb_build_object('key', args ->> 'key', 'id', gen_random_uuid(), 'name', args ->> 'name'));
  insert into tms.requests (request_id, answer) values (args ->> 'request_id', stored);
  insert into tms.effects (request_id) values (args ->> 'request_id');
  perform pg_notify('tms_flags', '');
  return stored;
end $$;

create function tms.tenants_list(args jsonb) returns jsonb language sql security definer as $$
  select jsonb_build_object('tenants', coalesce(jsonb_agg(jsonb_build_object(
    'key', request_id, 'id', answer #>> '{tenant,id}', 'name', answer #>> '{tenant,name}',
    'created_at', '2026-01-01T00:00:00.000000Z')), '[]'))
  from tms.requests
$$;

-- Who calls: what no caller can choose.
create function tms.contract_version(args jsonb) returns jsonb language sql as $$
  select jsonb_build_object('contract', 2, 'server',
    session_user || ' ' || current_user || ' ' || current_setting('tms.local_user') || ' ' || current_setting('is_superuser'))
$$;

-- Keeps the database busy for the milliseconds in \`after\`; or fails; or is refused; or answers nonsense.
create function tms.signals(args jsonb) returns jsonb language plpgsql as $$
declare
  until timestamptz := clock_timestamp() + (args ->> 'after')::int * interval '1 ms';
begin
  if args ->> 'channel' = 'fails' then raise exception 'no such thing' using errcode = 'TM404', hint = 'tms status'; end if;
  if args ->> 'channel' = 'refused' then
    return jsonb_build_object('refused', jsonb_build_object('code', 'ROLE_DENIED', 'what', 'No.', 'why', 'Because.', 'next', jsonb_build_array('tms whoami')));
  end if;
  if args ->> 'channel' = 'nonsense' then return '{"cursor": 1}'; end if;
  if args ->> 'channel' = 'table' then perform count(*) from tms.requests; end if;
  while clock_timestamp() < until loop end loop;
  return jsonb_build_object('cursor', '0', 'signals', 0);
end $$;

-- Says in \`waited_for\` how many changes were applied before it.
create table tms.halted (at timestamptz);
create function tms.fence_halt(args jsonb) returns jsonb language sql security definer as $$
  insert into tms.halted values (clock_timestamp());
  select jsonb_build_object('halt', '1', 'epoch', 1, 'already', false, 'fenced', true, 'at', '2026-01-01T00:00:00.000000Z', 'ms', 1,
    'waited_for', (select count(*) from tms.effects), 'terminated', '[]'::jsonb, 'survivors', '[]'::jsonb, 'in_flight', 0)
$$;

revoke all on all functions in schema tms from public;
grant execute on all functions in schema tms to tms_caller;
`
