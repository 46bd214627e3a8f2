-- Feature flags: global, environment, tenant; the most specific wins.
--
-- Guarantees: only keys and values of the catalogue; who may write what is roles.yaml's; a guarded flag is written by its
-- own mechanism only; every change is in the history and in the ledger, in its own transaction; a staged rollout moves one
-- stage at a time, not before its wait is over, and not on unknown health without a person's consent.

set local role tms_owner;

-- The first four bytes of sha256(key:tenant) as a number below 10,000: the same in SQL, TypeScript and a shell.
create or replace function tms._bucket(key text, company uuid) returns integer
language sql immutable parallel safe as $$
  select (('x' || pg_catalog.left(tms._sha256(key || ':' || company::text), 8))::bit(32)::bigint % 10000)::integer
$$;

create or replace function tms._percentage(hundredths integer) returns text
language sql immutable as $$ select pg_catalog.trim_scale(hundredths / 100.0)::text $$;

create or replace function tms._stage(f tms.feature_flags_v2) returns text
language sql immutable as $$
  select case
    when f.rollout = 10000 then 'all'
    when f.rollout > 0 then 'cohort'
    when f.canary <> '{}' then 'canary'
    else 'off' end
$$;

create or replace function tms._flag_scope(level text, environment text, company uuid) returns text
language sql stable as $$
  select case level when 'tenant' then 'tenant ' || coalesce(tms._tenant_key(company), company::text)
                    when 'environment' then 'environment ' || environment else 'global' end
$$;

-- The row that decides for a tenant (or, with null, for the environment); none: the default does. One query, no checks:
-- callers have checked.
create or replace function tms._flag_row(key text, company uuid) returns tms.feature_flags_v2
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (
  select f from tms.feature_flags_v2 f
   where f.key = _flag_row.key
     and (f.level = 'global'
       or (f.level = 'environment' and f.environment = (select e.name from tms.environment e))
       or (f.level = 'tenant' and f.company_id = company))
   order by case f.level when 'tenant' then 0 when 'environment' then 1 else 2 end
   limit 1);
end
$$;

-- What a row means for a tenant: its value inside the rollout, the default outside, whatever the type. Without a tenant a
-- partly rolled out flag is not on.
create or replace function tms._flag_of_row(f tms.feature_flags_v2, company uuid, otherwise jsonb) returns jsonb
language sql immutable as $$
  select case
    when f.id is null then otherwise
    when f.rollout = 10000 then f.value
    when company is null then otherwise
    when company = any (f.canary) or tms._bucket(f.key, company) < f.rollout then f.value
    else otherwise end
$$;

create or replace function tms._flag_value(key text, company uuid) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  f tms.feature_flags_v2;
  otherwise jsonb;
begin
  -- shows the fence; there is no second truth about it
  if key = 'autonomy.emergencyStop' then return to_jsonb(tms._halted()); end if;
  select c.default_value into otherwise from tms.flag_catalogue c where c.key = _flag_value.key;
  if not found then return null; end if;
  -- `select *` fills the row; a composite made in the query costs five times as much
  select * into f from tms.feature_flags_v2 x
   where x.key = _flag_value.key
     and (x.level = 'global'
       or (x.level = 'environment' and x.environment = (select e.name from tms.environment e))
       or (x.level = 'tenant' and x.company_id = company))
   order by case x.level when 'tenant' then 0 when 'environment' then 1 else 2 end
   limit 1;
  if f.id is null then return otherwise; end if;
  if f.rollout = 10000 then return f.value; end if;
  return tms._flag_of_row(f, company, otherwise);
end
$$;
grant execute on function tms._flag_value(text, uuid) to tms_identity;

-- Why a value may not stand in a flag; null when it may.
create or replace function tms._flag_problem(entry tms.flag_catalogue, value jsonb) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  kind text := jsonb_typeof(value);
  number numeric;
begin
  if octet_length(value::text) > 16384 then return 'it is larger than 16 KB'; end if;
  -- clients read nested values with a call for each level: one such value, and nobody could list the flags any more
  if jsonb_path_exists(value, 'strict $.**{32 to last} ? (@.type() == "array" || @.type() == "object")') then return 'it is nested deeper than 32 levels'; end if;
  case entry.type
    when 'boolean' then
      if kind <> 'boolean' then return 'it takes true or false'; end if;
    when 'string' then
      if kind <> 'string' then return 'it takes a text'; end if;
      if length(value #>> '{}') > 1000 then return 'it takes at most 1,000 characters'; end if;
    when 'integer' then
      if kind <> 'number' or value #>> '{}' !~ '^-?[0-9]{1,16}$' or abs((value #>> '{}')::numeric) > 9007199254740991 then
        return 'it takes a whole number';
      end if;
      number := (value #>> '{}')::numeric;
    when 'decimal' then
      -- decimals and money are text: a JSON number loses digits
      if kind <> 'string' or value #>> '{}' !~ '^-?[0-9]{1,15}(\.[0-9]{1,9})?$' then return 'it takes a decimal number as text'; end if;
      number := (value #>> '{}')::numeric;
    else
  end case;
  if entry.allowed_values is not null
     and not exists (select from jsonb_array_elements(entry.allowed_values) v (allowed) where v.allowed = value) then
    return 'it takes one of ' || (select string_agg(v #>> '{}', ', ') from jsonb_array_elements(entry.allowed_values) v);
  end if;
  if number < entry.minimum then return 'it is at least ' || entry.minimum; end if;
  if number > entry.maximum then return 'it is at most ' || entry.maximum; end if;
  return null;
end
$$;

create or replace function tms._flag_json(c tms.call, entry tms.flag_catalogue, company uuid, visible uuid[]) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  f tms.feature_flags_v2 := tms._flag_row(entry.key, company);
begin
  return jsonb_build_object(
    'key', entry.key, 'type', entry.type, 'value', case when entry.key = 'autonomy.emergencyStop' then to_jsonb(tms._halted()) else tms._flag_of_row(f, company, entry.default_value) end,
    'source', coalesce(f.level, 'default'),
    'rollout', case when f.rollout < 10000 then jsonb_build_object(
        'stage', tms._stage(f), 'percentage', tms._percentage(f.rollout), 'cohort', f.cohort_name,
        'canary', tms._keys(f.canary, visible)) end,
    'default', entry.default_value, 'safe', entry.safe_value, 'owner', entry.owner, 'expires', entry.expires,
    'description', entry.description,
    'updated_at', tms._utc(f.updated_at),
    'updated_by', case when tms._clear(c, f.company_id) then f.updated_by_name end,
    'why', case when tms._clear(c, f.company_id) then f.why end);
end
$$;

-- Tenant keys of ids; those the caller may not know are left out.
create or replace function tms._keys(ids uuid[], visible uuid[]) returns jsonb
language sql stable as $$
  select coalesce(pg_catalog.jsonb_agg(t.key order by t.key collate "C"), '[]')
    from tms._companies_by(ids) t where visible is null or t.id = any (visible)
$$;

create or replace function tms._flag_unknown(c tms.call, key text) returns jsonb
language sql as $$
  select tms._refuse(c, 'NOT_FOUND', pg_catalog.format('there is no flag "%s"', pg_catalog.left(key, 120)), 'it is not in the catalogue',
    array['tms flags list', 'add it to policies/flags.yaml, then: tms db push'])
$$;

create or replace function tms.flags_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('flags_list', args, '{tenant}', 'flags.read');
  visible uuid[] := tms._allowed('flags.read');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object(
    'scope', case when args ? 'tenant' then 'tenant ' || c.tenant else 'environment ' || coalesce((select e.name from tms.environment e), '(not set)') end,
    'flags', (select coalesce(jsonb_agg(tms._flag_json(c, e, c.company_id, visible) order by e.key collate "C"), '[]')
                from tms.flag_catalogue e));
end
$$;
grant execute on function tms.flags_list(jsonb) to tms_caller;

create or replace function tms.flags_get(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('flags_get', args, '{tenant,key}', 'flags.read', args ->> 'key');
  visible uuid[] := tms._allowed('flags.read');
  entry tms.flag_catalogue;
begin
  if c.answer is not null then return c.answer; end if;
  select * into entry from tms.flag_catalogue e where e.key = tms._text(args, 'key');
  if entry.key is null then return tms._flag_unknown(c, args ->> 'key'); end if;
  return jsonb_build_object(
    'scope', case when args ? 'tenant' then 'tenant ' || c.tenant else 'environment ' || coalesce((select e.name from tms.environment e), '(not set)') end,
    'flag', tms._flag_json(c, entry, c.company_id, visible),
    'overrides', (
      select coalesce(jsonb_agg(jsonb_build_object(
               'scope', tms._flag_scope(f.level, f.environment, f.company_id), 'value', f.value,
               'percentage', tms._percentage(f.rollout), 'stage', tms._stage(f), 'canary', tms._keys(f.canary, visible),
               'updated_at', tms._utc(f.updated_at),
               'updated_by', case when tms._clear(c, f.company_id) then f.updated_by_name else 'redacted' end,
               'why', case when tms._clear(c, f.company_id) then f.why else 'redacted' end)
             order by case f.level when 'global' then 0 when 'environment' then 1 else 2 end, f.id), '[]')
        from tms.feature_flags_v2 f
       where f.key = entry.key
         and (f.company_id is null
           or case when args ? 'tenant' then f.company_id = c.company_id else visible is null or f.company_id = any (visible) end)));
end
$$;
grant execute on function tms.flags_get(jsonb) to tms_caller;

-- A percentage as text, in hundredths.
create or replace function tms._hundredths(percentage text) returns integer
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  if percentage !~ '^[0-9]{1,3}(\.[0-9]{1,2})?$' or percentage::numeric > 100 then
    raise exception 'a percentage lies between 0 and 100 and has at most two decimals: "%" does not', left(percentage, 20) using errcode = 'TM400';
  end if;
  return (percentage::numeric * 100)::integer;
end
$$;

-- Tenants by key. One that does not exist is bad input.
create or replace function tms._canary(keys jsonb) returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  key text;
  ids uuid[] := '{}';
  found_company tms.companies;
begin
  if jsonb_typeof(keys) <> 'array' or jsonb_array_length(keys) > 1000 then
    raise exception 'canary tenants are a list of at most 1,000 keys' using errcode = 'TM400';
  end if;
  for key in select jsonb_array_elements_text(keys) loop
    found_company := tms._company(key);
    if found_company.id is null then raise exception 'there is no tenant "%"', left(key, 60) using errcode = 'TM400'; end if;
    ids := ids || found_company.id;
  end loop;
  return array(select distinct unnest(ids) order by 1);
end
$$;

create or replace function tms._flag_state(f tms.feature_flags_v2) returns jsonb
language sql immutable as $$
  select case when f.id is null then 'null'::jsonb else pg_catalog.jsonb_build_object(
    'value', f.value, 'percentage', tms._percentage(f.rollout), 'stage', tms._stage(f), 'canary', pg_catalog.to_jsonb(f.canary),
    'rollout', case when f.stage_since is not null then pg_catalog.jsonb_build_object(
      'cohort', f.cohort_name, 'percentage', tms._percentage(f.cohort_rollout), 'wait_seconds', f.wait_seconds) end) end
$$;

-- History and ledger of one change. The ledger holds digests: values are the tenant's, and may be personal.
create or replace function tms._flag_changed(
  c tms.call, action text, key text, level text, environment text, company uuid, before jsonb, after jsonb, why text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  insert into tms.feature_flags_history
    (principal_id, who, role, key, level, environment, company_id, action, before, after, why, request_id)
    values (c.principal_id, c.who, c.role, key, level, environment, company, action, before, after, why, c.request_id);
  perform tms._record(c, action, 'done', key, why, jsonb_build_object(
    'key', key, 'level', level, 'environment', environment, 'tenant', company,
    'before_sha256', tms._sha256(before::text), 'after_sha256', tms._sha256(after::text), 'stage', after ->> 'stage'));
  perform tms._signal('flags');
end
$$;

create or replace function tms.flags_set(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('flags_set', args, '{request_id,tenant,key,level,value,unset,percentage,canary,why}', 'flags.write', args ->> 'key');
  entry tms.flag_catalogue;
  lvl text := args ->> 'level';
  env text;
  was tms.feature_flags_v2;
  now_is tms.feature_flags_v2;
  reason text;
  problem text;
begin
  if c.answer is not null then return c.answer; end if;
  reason := tms._text(args, 'why');
  select * into entry from tms.flag_catalogue e where e.key = tms._text(args, 'key', 120);
  if entry.key is null then
    -- a value that outlived its catalogue entry can still be taken away
    if not args ? 'unset' or not exists (select from tms.feature_flags_v2 f where f.key = args ->> 'key') then
      return tms._flag_unknown(c, args ->> 'key');
    end if;
    entry.key := args ->> 'key';
  end if;
  if entry.guarded then
    return tms._refuse(c, 'FLAG_GUARDED', format('%s is not set by hand', entry.key),
      'it shows the state of another mechanism and would not change it', entry.instead);
  end if;
  if coalesce(lvl, '') not in ('global', 'environment', 'tenant') or (lvl = 'tenant') <> (args ? 'tenant') then
    raise exception '"level" is global, environment or tenant, and a tenant is named for the last' using errcode = 'TM400';
  end if;
  if lvl = 'environment' then
    select e.name into env from tms.environment e;
    if env is null then raise exception 'this database has no environment yet: tms init' using errcode = 'TM400'; end if;
  end if;
  if lvl = 'tenant' and args ?| '{percentage,canary}' then
    raise exception 'a percentage and canary tenants choose among tenants; this sets one' using errcode = 'TM400';
  end if;
  if coalesce(args -> 'unset' = 'true'::jsonb, false) = (args ? 'value') then
    raise exception 'give a value, or unset' using errcode = 'TM400';
  end if;

  perform tms._flag_turn(entry.key, c.company_id);
  select * into was from tms.feature_flags_v2 f
   where f.key = entry.key and f.level = lvl and f.environment is not distinct from env
     and f.company_id is not distinct from c.company_id;

  if args ? 'value' then
    problem := tms._flag_problem(entry, args -> 'value');
    if problem is not null then raise exception '% cannot hold this: %', entry.key, problem using errcode = 'TM400'; end if;
    insert into tms.feature_flags_v2 as f
      (key, level, environment, company_id, value, rollout, canary, updated_at, updated_by, updated_by_name, why)
    values
      (entry.key, lvl, env, c.company_id, args -> 'value',
       case when args ? 'percentage' then tms._hundredths(args ->> 'percentage') when args ? 'canary' then 0 else 10000 end,
       case when args ? 'canary' then tms._canary(args -> 'canary') else '{}' end,
       tms.now(), c.principal_id, c.who, reason)
    on conflict (key, level, coalesce(environment, ''), coalesce(company_id, '00000000-0000-0000-0000-000000000000'))
    do update set value = excluded.value, rollout = excluded.rollout, canary = excluded.canary, cohort_name = null,
      cohort_rollout = null, wait_seconds = null, stage_since = null, updated_at = excluded.updated_at,
      updated_by = excluded.updated_by, updated_by_name = excluded.updated_by_name, why = excluded.why
    returning * into now_is;
  else
    delete from tms.feature_flags_v2 f where f.id = was.id;
  end if;

  if tms._flag_state(was) is distinct from tms._flag_state(now_is) then
    perform tms._flag_changed(c, case when now_is.id is null then 'flag.unset' else 'flag.set' end,
      entry.key, lvl, env, c.company_id, tms._flag_state(was), tms._flag_state(now_is), reason);
  end if;
  return tms._finish(c, jsonb_build_object(
    'key', entry.key, 'scope', tms._flag_scope(lvl, env, c.company_id),
    'before', was.value, 'after', now_is.value, 'percentage', tms._percentage(coalesce(now_is.rollout, 10000)),
    'changed', tms._flag_state(was) is distinct from tms._flag_state(now_is)));
end
$$;
grant execute on function tms.flags_set(jsonb) to tms_caller;

-- One change of a flag at a time, so that before and after in the history join up. A tenant's are among themselves: whoever may write for
-- one tenant, and leaves its transaction open, must not stand in the way of a lever, nor of a catalogue that is loaded.
create or replace function tms._flag_turn(flag text, company uuid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  if company is null then
    perform from tms.flag_catalogue e where e.key = flag for no key update;
  else
    perform tms._latch('flags of ' || company);
  end if;
end
$$;

create or replace function tms.flags_history(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('flags_history', args, '{tenant,key,limit,before}', 'flags.read', args ->> 'key');
  visible uuid[] := tms._allowed('flags.read');
begin
  if c.answer is not null then return c.answer; end if;
  -- what left the catalogue keeps its history
  if args ? 'key' and not exists (select from tms.flag_catalogue e where e.key = args ->> 'key')
     and not exists (select from tms.feature_flags_history h where h.key = args ->> 'key') then
    return tms._flag_unknown(c, args ->> 'key');
  end if;
  return jsonb_build_object('changes', (
    select coalesce(jsonb_agg(jsonb_build_object(
             'id', h.id::text, 'at', tms._utc(h.at),
             'who', case when tms._clear(c, h.company_id) then h.who else 'redacted' end, 'role', h.role, 'key', h.key,
             'scope', tms._flag_scope(h.level, h.environment, h.company_id), 'action', h.action,
             'before', tms._flag_state_shown(h.before, visible), 'after', tms._flag_state_shown(h.after, visible),
             'why', case when tms._clear(c, h.company_id) then h.why else 'redacted' end) order by h.id desc), '[]')
      from (select * from tms.feature_flags_history x
             where (not args ? 'key' or x.key = args ->> 'key')
               and (not args ? 'before' or x.id < (args ->> 'before')::bigint)
               and (x.company_id is null
                 or case when args ? 'tenant' then x.company_id = c.company_id else visible is null or x.company_id = any (visible) end)
             order by x.id desc limit tms._limit(args)) h));
end
$$;
grant execute on function tms.flags_history(jsonb) to tms_caller;

-- A state as a caller may see it: canary tenants by key, strangers left out.
create or replace function tms._flag_state_shown(state jsonb, visible uuid[]) returns jsonb
language sql stable as $$
  select case when pg_catalog.jsonb_typeof(state) = 'object' then
    state || pg_catalog.jsonb_build_object('canary', tms._keys(
      array(select x::uuid from pg_catalog.jsonb_array_elements_text(state -> 'canary') x), visible))
    else state end
$$;

-- ---------------------------------------------------------------------------------------------- staged rollout

-- Nothing measures the health of a stage before the posture exists, so it is unknown, and unknown is never green.
create or replace function tms._rollout_health(key text) returns text
language sql stable as $$ select 'unknown'::text $$;

-- The shortest wait of a stage: what is tried in production is watched for a quarter of an hour at least.
create or replace function tms._shortest_wait() returns integer
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select case (select e.name from tms.environment e) when 'production' then 900 when 'staging' then 60 else 0 end
$$;

create or replace function tms._rollout_json(entry tms.flag_catalogue, f tms.feature_flags_v2, visible uuid[]) returns jsonb
language sql stable as $$
  select pg_catalog.jsonb_build_object(
    'key', entry.key, 'value', coalesce(f.value, entry.default_value),
    'stage', case when f.id is null then 'off' else tms._stage(f) end, 'since', tms._utc(f.stage_since),
    'percentage', tms._percentage(coalesce(f.rollout, 0)), 'cohort', f.cohort_name,
    'canary', tms._keys(coalesce(f.canary, '{}'), visible), 'wait_seconds', coalesce(f.wait_seconds, 0),
    'next_at', case when f.stage_since is not null and tms._stage(f) in ('canary', 'cohort')
                    then tms._utc(f.stage_since + pg_catalog.make_interval(secs => f.wait_seconds)) end,
    'next_stage', case when f.stage_since is null then case when f.id is null or tms._stage(f) = 'off' then 'canary' end
                       else case tms._stage(f) when 'off' then 'canary' when 'canary' then 'cohort' when 'cohort' then 'all' end end,
    'health', tms._rollout_health(entry.key),
    -- what wins over the rollout, whatever its stage
    'by_hand', (select coalesce(pg_catalog.jsonb_agg(o.scope), '[]') from (
      select tms._flag_scope(x.level, x.environment, x.company_id) as scope
        from tms.feature_flags_v2 x
       where x.key = entry.key and x.level <> 'global' and x.value is distinct from entry.default_value
         and (x.level = 'tenant' or x.environment = (select e.name from tms.environment e))
         and (x.company_id is null or visible is null or x.company_id = any (visible))
       order by x.level, 1 limit 100) o))
$$;

create or replace function tms.flags_rollout_state(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('flags_rollout_state', args, '{key}', 'flags.read', args ->> 'key');
  entry tms.flag_catalogue;
  f tms.feature_flags_v2;
begin
  if c.answer is not null then return c.answer; end if;
  select * into entry from tms.flag_catalogue e where e.key = tms._text(args, 'key');
  if entry.key is null then return tms._flag_unknown(c, args ->> 'key'); end if;
  select * into f from tms.feature_flags_v2 x where x.key = entry.key and x.level = 'global';
  return tms._rollout_json(entry, f, tms._allowed('flags.read'));
end
$$;
grant execute on function tms.flags_rollout_state(jsonb) to tms_caller;

-- For a refusal, which the ledger keeps: it has no values that may hold anything.
create or replace function tms._flag_said(value jsonb) returns text
language sql immutable as $$
  select case when pg_catalog.jsonb_typeof(value) in ('boolean', 'number') then value::text else 'of type ' || pg_catalog.jsonb_typeof(value) end
$$;

create or replace function tms.flags_rollout(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('flags_rollout', args, '{request_id,key,step,value,canary,cohort,wait_seconds,consent,why}', 'flags.rollout', args ->> 'key');
  entry tms.flag_catalogue;
  was tms.feature_flags_v2;
  f tms.feature_flags_v2;
  step text := args ->> 'step';
  target text;
  health text;
  reason text;
  problem text;
begin
  if c.answer is not null then return c.answer; end if;
  reason := tms._text(args, 'why');
  perform tms._flag_turn(args ->> 'key', null);
  select * into entry from tms.flag_catalogue e where e.key = tms._text(args, 'key');
  if entry.key is null then return tms._flag_unknown(c, args ->> 'key'); end if;
  if entry.guarded then
    return tms._refuse(c, 'FLAG_GUARDED', format('%s is not rolled out', entry.key),
      'it shows the state of another mechanism and would not change it', entry.instead);
  end if;
  select * into was from tms.feature_flags_v2 x where x.key = entry.key and x.level = 'global';
  f := was;
  target := case step when 'start' then 'canary' when 'off' then 'off'
    when 'next' then case when was.stage_since is null then null else case tms._stage(was) when 'canary' then 'cohort' when 'cohort' then 'all' end end end;

  if step not in ('start', 'next', 'off') or step is null then
    raise exception '"step" is start, next or off' using errcode = 'TM400';
  end if;
  if step <> 'start' and args ?| '{value,canary,cohort,wait_seconds}' then
    raise exception 'the plan of a rollout is given when it starts' using errcode = 'TM400';
  end if;
  if step = 'next' and target is null then
    return tms._refuse(c, 'STAGE_REFUSED', format('%s has no next stage', entry.key),
      case when was.id is null or was.stage_since is null then 'no rollout is under way' else 'it has reached everybody' end,
      array[format('tms flags rollout %s', entry.key)]);
  end if;

  if step = 'off' and was.stage_since is null then
    -- ending what somebody has set by hand is `flags set`, and "off" would be false while that reaches anybody
    if tms._stage(was) <> 'off' and was.value is distinct from entry.default_value then
      return tms._refuse(c, 'STAGE_REFUSED', format('no rollout of %s is under way, and it stays as it is', entry.key),
        'somebody has set it by hand', array[format('tms flags set %s --unset --why <reason>', entry.key)]);
    end if;
    return tms._finish(c, tms._rollout_json(entry, was, null));
  end if;

  if step = 'start' then
    if was.stage_since is not null and tms._stage(was) in ('canary', 'cohort') then
      return tms._refuse(c, 'STAGE_REFUSED', format('a rollout of %s is under way', entry.key), format('it stands at %s', tms._stage(was)),
        array[format('tms flags rollout %s --next', entry.key), format('tms flags rollout %s --off', entry.key)]);
    end if;
    if exists (select from tms.feature_flags_v2 x where x.key = entry.key and x.level = 'environment'
                and x.environment = (select e.name from tms.environment e)) then
      return tms._refuse(c, 'STAGE_REFUSED', format('%s is set for the environment', entry.key),
        'that wins over what a rollout sets, so the rollout would do nothing', array[format('tms flags set %s --for-environment --unset', entry.key)]);
    end if;
    if not args ? 'value' or not args ? 'canary' or not args ? 'cohort' then
      raise exception 'a rollout starts with a value, canary tenants and a cohort' using errcode = 'TM400';
    end if;
    problem := tms._flag_problem(entry, args -> 'value');
    if problem is not null then raise exception '% cannot hold this: %', entry.key, problem using errcode = 'TM400'; end if;
    f.value := args -> 'value';
    f.canary := tms._canary(args -> 'canary');
    if f.canary = '{}' then raise exception 'a canary needs at least one tenant' using errcode = 'TM400'; end if;
    -- outside the canary a rollout begins with the default: whoever has something else now would lose it without a word
    if tms._stage(was) <> 'off' and was.value is distinct from entry.default_value and (was.rollout > 0 or not was.canary <@ f.canary) then
      return tms._refuse(c, 'STAGE_REFUSED', format('a rollout of %s would take the value %s from everybody outside the canary', entry.key, tms._flag_said(was.value)),
        format('%s; in a rollout they would have the default %s until it reaches them',
          case when was.stage_since is null then 'somebody has set it by hand' else 'an earlier rollout has reached everybody' end,
          tms._flag_said(entry.default_value)),
        array[case when was.stage_since is null then format('tms flags set %s --unset --why <reason>', entry.key)
                   else format('tms flags rollout %s --off --why <reason>', entry.key) end,
              format('tms flags get %s', entry.key)]);
    end if;
    f.cohort_name := tms._text(args -> 'cohort', 'name', 60);
    f.cohort_rollout := tms._hundredths(args #>> '{cohort,percentage}');
    if f.cohort_rollout not between 1 and 9999 then
      raise exception 'a cohort is more than none and less than all: 0.01 to 99.99 percent' using errcode = 'TM400';
    end if;
    f.wait_seconds := coalesce((args ->> 'wait_seconds')::integer, greatest(3600, tms._shortest_wait()));
    if f.wait_seconds < tms._shortest_wait() or f.wait_seconds > 2592000 then
      raise exception 'a stage waits between % seconds and 30 days here', tms._shortest_wait() using errcode = 'TM400';
    end if;
  end if;

  -- stopping never asks and never waits; every other step does both
  if target <> 'off' then
    if step = 'next' and tms.now() < was.stage_since + make_interval(secs => was.wait_seconds) then
      return tms._refuse(c, 'STAGE_REFUSED', format('%s may not leave %s yet', entry.key, tms._stage(was)),
        format('the wait of this stage ends at %s', tms._utc(was.stage_since + make_interval(secs => was.wait_seconds))),
        array[format('tms flags rollout %s', entry.key)]);
    end if;
    health := tms._rollout_health(entry.key);
    if health = 'red' then
      return tms._refuse(c, 'STAGE_REFUSED', format('%s may not go on to %s', entry.key, target), 'its health is red',
        array[format('tms flags rollout %s --off', entry.key)]);
    end if;
    if health <> 'green' and not tms._human() then
      return tms._refuse(c, 'CONSENT_MISSING', format('entering %s needs a person', target),
        'nothing measures the health of this stage yet, and no machine consents to what is unknown',
        array[format('tms flags rollout %s', entry.key)]);
    end if;
    if health <> 'green' and args ->> 'consent' is distinct from entry.key || '@' || target then
      return tms._refuse(c, 'CONSENT_MISSING', format('entering %s needs consent', target),
        'nothing measures the health of this stage yet, and unknown is not green',
        array[format('tms flags rollout %s --%s --confirm %s@%s', entry.key, step, entry.key, target)]);
    end if;
  end if;

  case target
    when 'off' then f.rollout := 0; f.canary := '{}';
    when 'canary' then f.rollout := 0;
    when 'cohort' then f.rollout := f.cohort_rollout;
    when 'all' then f.rollout := 10000;
  end case;
  f.stage_since := case when target = 'off' then null else tms.now() end;

  if step = 'start' then
    insert into tms.feature_flags_v2 as x
      (key, level, value, rollout, canary, cohort_name, cohort_rollout, wait_seconds, stage_since, updated_at, updated_by, updated_by_name, why)
    values (entry.key, 'global', f.value, f.rollout, f.canary, f.cohort_name, f.cohort_rollout, f.wait_seconds, f.stage_since,
            tms.now(), c.principal_id, c.who, reason)
    on conflict (key, level, coalesce(environment, ''), coalesce(company_id, '00000000-0000-0000-0000-000000000000'))
    do update set value = excluded.value, rollout = excluded.rollout, canary = excluded.canary, cohort_name = excluded.cohort_name,
      cohort_rollout = excluded.cohort_rollout, wait_seconds = excluded.wait_seconds, stage_since = excluded.stage_since,
      updated_at = excluded.updated_at, updated_by = excluded.updated_by, updated_by_name = excluded.updated_by_name, why = excluded.why
    returning * into f;
  else
    update tms.feature_flags_v2 x
       set rollout = f.rollout, canary = f.canary, stage_since = f.stage_since, updated_at = tms.now(),
           updated_by = c.principal_id, updated_by_name = c.who, why = reason
     where x.id = was.id returning * into f;
  end if;
  if tms._flag_state(was) is distinct from tms._flag_state(f) then
    perform tms._flag_changed(c, 'flag.rollout', entry.key, 'global', null, null, tms._flag_state(was), tms._flag_state(f), reason);
  end if;
  return tms._finish(c, tms._rollout_json(entry, f, null));
end
$$;
grant execute on function tms.flags_rollout(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- posture of the flags

create or replace function tms.flags_verify(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('flags_verify', args, '{}', 'flags.read');
  visible uuid[] := tms._allowed('flags.read');
  env text := (select e.name from tms.environment e);
begin
  if c.answer is not null then return c.answer; end if;
  return (
    with scope (id, name) as (
      select null::uuid, 'environment ' || coalesce(env, '(not set)')
      union all select t.id, 'tenant ' || t.key from tms._companies_by(visible) t
    ), differing as (
      select e.key, s.name as scope, tms._flag_value(e.key, s.id) as observed, e.required_value::text as expected,
             'the posture requires it' as why
        from tms.flag_catalogue e cross join scope s
       where e.required_value is not null and tms._flag_value(e.key, s.id) is distinct from e.required_value
      union all
      select f.key, tms._flag_scope(f.level, f.environment, f.company_id), f.value, 'not in the catalogue',
             'the flag was taken out of the catalogue and its value is still stored'
        from tms.feature_flags_v2 f
       where not exists (select from tms.flag_catalogue e where e.key = f.key)
         and (f.company_id is null or visible is null or f.company_id = any (visible))
      union all
      select f.key, tms._flag_scope(f.level, f.environment, f.company_id), f.value, e.type, tms._flag_problem(e, f.value)
        from tms.feature_flags_v2 f join tms.flag_catalogue e on e.key = f.key
       where tms._flag_problem(e, f.value) is not null
         and (f.company_id is null or visible is null or f.company_id = any (visible))
    )
    select jsonb_build_object(
      'checked', (select count(*) from tms.flag_catalogue),
      'required', (select count(*) from tms.flag_catalogue e where e.required_value is not null),
      'tenants', (select count(*) - 1 from scope),
      'catalogue_sha256', (select min(e.catalogue_sha256) from tms.flag_catalogue e),
      'expired', (select coalesce(jsonb_agg(jsonb_build_object('key', e.key, 'expires', e.expires, 'owner', e.owner) order by e.key collate "C"), '[]')
                    from tms.flag_catalogue e where e.expires < (tms.now() at time zone 'UTC')::date),
      'findings', (select coalesce(jsonb_agg(jsonb_build_object(
                     'key', d.key, 'scope', d.scope, 'observed', d.observed, 'expected', d.expected, 'why', d.why)
                     order by d.key collate "C", d.scope collate "C"), '[]') from differing d)));
end
$$;
grant execute on function tms.flags_verify(jsonb) to tms_caller;

-- Replaces the catalogue as a whole. Values of flags that leave it stay stored and are reported by flags_verify.
create or replace function tms.flags_catalogue(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('flags_catalogue', args, '{request_id,sha256,entries}', 'flags.catalogue');
  added text[];
  changed text[];
  removed text[];
begin
  if c.answer is not null then return c.answer; end if;
  if jsonb_typeof(args -> 'entries') is distinct from 'array' or jsonb_array_length(args -> 'entries') = 0 then
    raise exception 'a catalogue has at least one entry' using errcode = 'TM400';
  end if;
  lock table tms.flag_catalogue in share row exclusive mode;
  with wanted as (
    select e ->> 'key' as key, e ->> 'type' as type, e -> 'default' as default_value, e -> 'safe' as safe_value,
           e -> 'required' as required_value, e -> 'values' as allowed_values, (e ->> 'minimum')::numeric as minimum,
           (e ->> 'maximum')::numeric as maximum, coalesce((e ->> 'guarded')::boolean, false) as guarded,
           array(select jsonb_array_elements_text(coalesce(e -> 'instead', '[]'))) as instead, e ->> 'owner' as owner,
           (e ->> 'expires')::date as expires, e ->> 'description' as description
      from jsonb_array_elements(args -> 'entries') e
  ), gone as (
    delete from tms.flag_catalogue k where not exists (select from wanted w where w.key = k.key) returning k.key
  ), put as (
    insert into tms.flag_catalogue as k
      (key, type, default_value, safe_value, required_value, allowed_values, minimum, maximum, guarded, instead, owner, expires, description, catalogue_sha256)
    select w.*, tms._text(args, 'sha256', 64) from wanted w
    on conflict (key) do update set type = excluded.type, default_value = excluded.default_value, safe_value = excluded.safe_value,
      required_value = excluded.required_value, allowed_values = excluded.allowed_values, minimum = excluded.minimum,
      maximum = excluded.maximum, guarded = excluded.guarded, instead = excluded.instead, owner = excluded.owner,
      expires = excluded.expires, description = excluded.description, catalogue_sha256 = excluded.catalogue_sha256
    returning k.key
  ), before as (
    select k.key, to_jsonb(k) - 'catalogue_sha256' as entry from tms.flag_catalogue k
  )
  select array(select p.key from put p where not exists (select from before b where b.key = p.key) order by p.key collate "C"),
         array(select b.key from before b join wanted w on w.key = b.key where to_jsonb(w) is distinct from b.entry order by b.key collate "C"),
         array(select g.key from gone g order by g.key collate "C")
    into added, changed, removed;
  -- a default or safe value that its own entry forbids would surface at the worst moment
  if exists (select from tms.flag_catalogue e where tms._flag_problem(e, e.default_value) is not null or tms._flag_problem(e, e.safe_value) is not null
              or (e.required_value is not null and tms._flag_problem(e, e.required_value) is not null)) then
    raise exception 'the catalogue contradicts itself: %', (
      select string_agg(e.key, ', ' order by e.key) from tms.flag_catalogue e
       where tms._flag_problem(e, e.default_value) is not null or tms._flag_problem(e, e.safe_value) is not null
          or (e.required_value is not null and tms._flag_problem(e, e.required_value) is not null)) using errcode = 'TM400';
  end if;
  if added <> '{}' or changed <> '{}' or removed <> '{}' then
    perform tms._record(c, 'flag.catalogue', 'done', 'catalogue', '', jsonb_build_object(
      'sha256', args ->> 'sha256', 'added', to_jsonb(added), 'changed', to_jsonb(changed), 'removed', to_jsonb(removed)));
    perform tms._signal('flags');
  end if;
  return tms._finish(c, jsonb_build_object('added', to_jsonb(added), 'changed', to_jsonb(changed), 'removed', to_jsonb(removed)));
end
$$;
grant execute on function tms.flags_catalogue(jsonb) to tms_caller;
