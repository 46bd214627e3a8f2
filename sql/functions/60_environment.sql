-- The database itself: whose it is, what it is, whether it is sound.

set local role tms_owner;

-- Whether this is the hash that the database has. Only whoever may set it learns that: the hash is what safe mode is left with.
create or replace function tms._token_in_force(args jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select jsonb_build_object('token_in_force', exists (select from tms.environment e where e.override_token_sha256 = args ->> 'override_token_sha256'))
$$;

create or replace function tms.environment_init(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('environment_init', args, '{request_id,environment,override_token_sha256,signing_key_fingerprint}', 'environment.init');
  e tms.environment;
  wanted text := args ->> 'environment';
begin
  if c.answer is not null then
    -- what it answered then; whether its token still counts is of now
    return c.answer || case when c.answer ? 'first' then tms._token_in_force(args) else '{}' end;
  end if;
  if coalesce(wanted, '') not in ('production', 'staging', 'development') then
    raise exception '"environment" is production, staging or development' using errcode = 'TM400';
  end if;
  if coalesce(args ->> 'override_token_sha256', '') !~ '^[0-9a-f]{64}$' then
    raise exception '"override_token_sha256" is 64 hexadecimal digits' using errcode = 'TM400';
  end if;
  insert into tms.environment (one) values (true) on conflict do nothing;
  select * into e from tms.environment for update;
  if e.initialised_at is not null then
    -- set once: a production database that could be called development would lose its rails
    if e.name <> wanted then
      return tms._refuse(c, 'CONFLICT', format('this database is %s already', e.name), 'the environment is set once',
        array['tms status']);
    end if;
    return tms._finish(c, jsonb_build_object('environment', e.name, 'first', false, 'database_id', e.database_id) || tms._token_in_force(args));
  end if;
  update tms.environment set name = wanted, override_token_sha256 = args ->> 'override_token_sha256',
         signing_key_fingerprint = args ->> 'signing_key_fingerprint', initialised_at = tms.now(), initialised_by = c.principal_id
   where one returning * into e;
  -- the embedded database starts from a copy that was made with the release, maybe months ago
  begin
    perform tms._make_partitions(clock_timestamp());
  -- somebody reads one of the tables: the first worker makes them
  exception when lock_not_available then null;
  end;
  perform tms._record(c, 'environment.init', 'done', wanted, '', jsonb_build_object(
    'environment', wanted, 'database', e.database_id, 'signing_key', e.signing_key_fingerprint));
  return tms._finish(c, jsonb_build_object('environment', e.name, 'first', true, 'database_id', e.database_id) || tms._token_in_force(args));
end
$$;
grant execute on function tms.environment_init(jsonb) to tms_caller;

-- For a token that was shown and lost. The hash of the old one is gone in the same moment; the token itself never gets here.
create or replace function tms.override_token_rotate(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('override_token_rotate', args, '{request_id,override_token_sha256,why}', 'environment.override_token');
  reason text;
begin
  if c.answer is not null then return c.answer; end if;
  reason := tms._text(args, 'why');
  if coalesce(args ->> 'override_token_sha256', '') !~ '^[0-9a-f]{64}$' then
    raise exception '"override_token_sha256" is 64 hexadecimal digits' using errcode = 'TM400';
  end if;
  update tms.environment set override_token_sha256 = args ->> 'override_token_sha256' where one and initialised_at is not null;
  if not found then
    return tms._refuse(c, 'CONFLICT', 'this database has no override token yet', 'init makes the first one', array['tms init']);
  end if;
  perform tms._record(c, 'override_token.rotate', 'done', 'override token', reason, '{}');
  return tms._finish(c, jsonb_build_object('rotated', true));
end
$$;
grant execute on function tms.override_token_rotate(jsonb) to tms_caller;

create or replace function tms.whoami(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('whoami', args, '{}', null);
  l tms.logins;
begin
  if c.answer is not null then return c.answer; end if;
  select * into l from tms._credential();
  return jsonb_build_object(
    'principal', c.who, 'kind', tms._principal_kind(c.principal_id),
    'credential', jsonb_build_object('kind', l.kind, 'expires_at', tms._utc(l.expires_at)),
    'roles', tms._roles_json(c.principal_id),
    'environment', (select e.name from tms.environment e),
    'operations', tms._operations_json(c.principal_id));
end
$$;
grant execute on function tms.whoami(jsonb) to tms_caller;

-- Counts are of what row security shows the caller.
create or replace function tms.status(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('status', args, '{}', null);
  e tms.environment;
begin
  if c.answer is not null then return c.answer; end if;
  -- portal-only roles, and people without any, have no business here
  if tms._operations_json(c.principal_id) = '[]' then
    return tms._refuse(c, 'ROLE_DENIED', format('%s may do nothing here', c.who), 'none of its roles grants an operation', array['tms whoami']);
  end if;
  select * into e from tms.environment;
  return jsonb_build_object(
    'environment', e.name, 'initialised_at', tms._utc(e.initialised_at), 'database_id', e.database_id,
    'contract', (tms.contract_version('{}') ->> 'contract')::int, 'server', current_setting('server_version'),
    'now', tms._utc(clock_timestamp()),
    'tenants', (select count(*) from tms._companies_by(case when tms._sees_all() then null else tms._my_companies() end)),
    'flags_set', (select count(*) from tms.feature_flags_v2),
    'last_change_at', (select tms._utc(max(r.at)) from tms.ledger_inbox r where r.outcome = 'done'),
    'unsealed_ledger_rows', (select p.pending::text from tms._ledger_pending() p));
end
$$;
grant execute on function tms.status(jsonb) to tms_caller;

-- Which files made this schema. Says nothing about what is in it.
create or replace function tms.schema_state(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('schema_state', args, '{}', null);
begin
  if c.answer is not null then return c.answer; end if;
  -- portal-only roles, and people without any, have no business here
  if tms._operations_json(c.principal_id) = '[]' then
    return tms._refuse(c, 'ROLE_DENIED', format('%s may do nothing here', c.who), 'none of its roles grants an operation', array['tms whoami']);
  end if;
  return jsonb_build_object('files', (
    select coalesce(jsonb_agg(jsonb_build_object('kind', f.kind, 'name', f.name, 'sha256', f.sha256, 'applied_at', tms._utc(f.applied_at))
             order by f.kind desc, f.name collate "C"), '[]')
      from tms.schema_files f));
end
$$;
grant execute on function tms.schema_state(jsonb) to tms_caller;

-- Findings about the database, each with what to type. What a caller above the database must compare (function bodies,
-- clocks) is in the answer too.
create or replace function tms.doctor(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('doctor', args, '{}', 'doctor.read');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object(
    'functions', (select jsonb_object_agg(p.proname, tms._sha256(p.prosrc))
                    from pg_proc p where p.pronamespace = 'tms'::regnamespace),
    'checks', case when pg_has_role('tms_owner', 'pg_read_all_stats', 'usage') then '[]'::jsonb else jsonb_build_array(jsonb_build_object(
        'check', 'old transactions', 'state', 'unknown', 'what', 'tms_owner may not see other logins'' transactions',
        'next', jsonb_build_array('grant pg_read_all_stats to tms_owner'))) end || (select jsonb_agg(jsonb_build_object('check', k.name, 'state', case when k.bad is null then 'ok' else 'problem' end,
                        'what', coalesce(k.bad, k.good), 'next', case when k.bad is null then '[]'::jsonb else to_jsonb(k.next) end))
      from (
        select 'environment' as name, 'the database knows its environment' as good,
               case when not exists (select from tms.environment e where e.initialised_at is not null) then 'the database has no environment' end as bad,
               array['tms init'] as next
        union all
        select 'row security', 'every table of schema tms has row security, forced for its owner',
               (select 'without row security: ' || string_agg(t.relname, ', ' order by t.relname) from pg_class t
                 where t.relnamespace = 'tms'::regnamespace and t.relkind in ('r', 'p') and not (t.relrowsecurity and t.relforcerowsecurity)),
               array['alter table tms.<table> force row level security', 'tms db push']
        union all
        select 'policies', 'row security has the shipped policies and no other',
               (select 'not shipped: ' || string_agg(format('%s on %s', p.policyname, p.tablename), ', ' order by p.tablename) from pg_policies p
                 where p.schemaname = 'tms' and (p.policyname not in ('identity', 'shared', 'own_requests', 'member_read', 'member_write', 'member_insert', 'member_delete', 'member_append', 'append', 'fleet', 'member', 'product')
                    or not p.roles <@ '{tms_owner,tms_identity}'::name[])),
               array['drop policy <policy> on tms.<table>']
        union all
        select 'append-only', 'ledger and history refuse every change, replicas included',
               (select 'not guarded: ' || string_agg(t.name, ', ') from unnest('{ledger_inbox,feature_flags_history}'::text[]) t (name)
                 where not exists (select from pg_trigger g where g.tgrelid = ('tms.' || t.name)::regclass and g.tgname = 'append_only' and g.tgenabled = 'A')),
               array['alter table tms.<table> enable always trigger append_only']
        union all
        select 'guards', 'who wrote to a guarded table is checked at the commit',
               case when not tms._checked_at_commit() then 'trigger at_commit is off, or is another: a halt keeps nobody from committing what was written before it' end,
               array['alter table tms.<fence_writes | safe_writes> enable always trigger at_commit']
        union all
        select 'owners', 'tables and functions belong to tms_owner and tms_identity, which cannot log in or bypass row security',
               (select string_agg(x.what, '; ') from (
                  select 'tms.' || t.relname || ' belongs to ' || r.rolname as what from pg_class t join pg_roles r on r.oid = t.relowner
                   where t.relnamespace = 'tms'::regnamespace and t.relkind in ('r', 'p') and r.rolname not in ('tms_owner', 'tms_identity')
                  union all
                  select 'tms.' || p.proname || '() belongs to ' || r.rolname from pg_proc p join pg_roles r on r.oid = p.proowner
                   where p.pronamespace = 'tms'::regnamespace and r.rolname not in ('tms_owner', 'tms_identity')
                  union all
                  select r.rolname || ' may log in or bypass row security' from pg_roles r
                   where r.rolname in ('tms_owner', 'tms_identity') and (r.rolcanlogin or r.rolbypassrls or r.rolsuper)
                  union all
                  -- whoever can act as the owners is above every rule: that is for who migrates, and nobody else
                  select r.rolname || ' can act as ' || m.roleid::regrole from pg_auth_members m join pg_roles r on r.oid = m.member
                   where m.roleid in ('tms_owner'::regrole, 'tms_identity'::regrole) and not r.rolsuper
                     and r.rolname <> all (tms._operator_logins())) x),
               array['alter table|function … owner to tms_owner', 'alter role tms_owner nologin nobypassrls', 'revoke tms_owner, tms_identity from <login>']
        union all
        select 'table grants', 'no table of schema tms is granted to anybody',
               (select 'granted: ' || string_agg(distinct x.name, ', ') from (
                  select t.relname::text as name from pg_class t, aclexplode(t.relacl) a
                   where t.relnamespace = 'tms'::regnamespace and t.relkind in ('r', 'p', 'v', 'm', 'S') and a.grantee <> t.relowner
                  union all
                  select t.relname || '.' || col.attname from pg_class t join pg_attribute col on col.attrelid = t.oid, aclexplode(col.attacl) a
                   where t.relnamespace = 'tms'::regnamespace and a.grantee <> t.relowner) x),
               array['revoke all on all tables in schema tms from public, <role>', 'revoke all (<column>) on tms.<table> from public, <role>']
        union all
        select 'function grants', 'only contract functions may be called, and not by public',
               (select 'may be called: ' || string_agg(distinct p.proname || ' by ' || case a.grantee when 0 then 'public' else a.grantee::regrole::text end, ', ') from pg_proc p,
                       aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                 where p.pronamespace = 'tms'::regnamespace
                   -- a table's owner makes its guard; that function has no rights of its own
                   and p.proname not in ('fence_guard', 'guard_table')
                   and (a.grantee = 0
                     or (left(p.proname, 1) = '_' and a.grantee not in ('tms_owner'::regrole, 'tms_identity'::regrole)))),
               array['revoke execute on function tms.<function> from public, <role>']
        union all
        select 'function rights', 'functions that run with the owner''s rights look names up in pg_catalog first, and contract functions have those rights',
               (select 'changed: ' || string_agg(p.proname, ', ' order by p.proname) from pg_proc p
                 where p.pronamespace = 'tms'::regnamespace
                   and ((p.prosecdef and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false))
                     or (not p.prosecdef and left(p.proname, 1) <> '_' and p.proname not in ('now', 'contract_version', 'guard_table')))),
               array['alter function tms.<function> security definer set search_path = pg_catalog, pg_temp']
        union all
        -- Anybody who can run SQL of their own through a gateway can set the claims and be anybody. Not only EXECUTE runs
        -- text: query_to_xml() and its kin do, from a plain SQL function too, and so do some extensions' functions. Compiled
        -- languages cannot be read at all. What a callable function calls counts as callable.
        select 'dynamic SQL', 'no function that API roles may call runs SQL it is given',
               (with recursive bodies as (
                  select p.oid, p.proname, l.lanname, case when l.lanname in ('internal', 'c') then '' else pg_get_functiondef(p.oid) end as body,
                         exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e') as of_extension, p.pronamespace
                    from pg_proc p join pg_language l on l.oid = p.prolang
                   where p.pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'tms'::regnamespace)
                     and p.prokind in ('f', 'p') and p.prorettype <> 'trigger'::regtype
                ), reached as (
                  select b.oid, b.oid as entry from bodies b
                   where exists (select from tms._api_roles() r (name) where has_function_privilege(r.name, b.oid, 'execute')
                                   and has_schema_privilege(r.name, b.pronamespace, 'usage'))
                  union
                  select called.oid, r.entry from reached r join bodies b on b.oid = r.oid
                    join bodies called on called.oid <> b.oid and strpos(b.body, called.proname || '(') > 0
                )
                select 'may be called through the API and runs dynamic SQL: ' || string_agg(distinct r.entry::regprocedure::text, ', ')
                  from reached r join bodies b on b.oid = r.oid
                 where b.proname ~ '^(crosstab|connectby|dblink|xpath_table)'
                    or (not b.of_extension and b.lanname not in ('sql', 'plpgsql', 'internal', 'c'))
                    or (not b.of_extension and b.body ~* (case when b.lanname = 'plpgsql' then '\mexecute\M|' else '' end
                        || '\m(query_to_xml\w*|cursor_to_xml\w*|ts_stat|ts_rewrite|dblink\w*|crosstab\w*|connectby|xpath_table)\M|\mset_config\M\s*\(\s*[^''\s]'))),
               array['revoke execute on function <function> from public, anon, authenticated']
        union all
        select 'service account keys', 'every service account with a credential has one with more than 14 days left',
               (select 'end soon or have ended: ' || string_agg(a.value ->> 'account', ', ')
                  from jsonb_array_elements(tms._accounts_due()) a),
               array['tms accounts rotate <account>']
        union all
        select 'connection limits', 'worker logins have a connection limit, so that operators always get in',
               (select 'without a limit: ' || string_agg(r.rolname, ', ' order by r.rolname) from pg_roles r
                 where r.rolconnlimit < 0 and r.rolname = any (tms._service_logins())),
               array['alter role <login> connection limit 20']
        union all
        select 'powerful logins', 'no mapped login is superuser or bypasses row security',
               (select 'superuser or bypassrls: ' || string_agg(r.rolname, ', ' order by r.rolname) from pg_roles r
                 where (r.rolsuper or r.rolbypassrls) and r.rolname = any (tms._mapped_logins())),
               array['alter role <login> nosuperuser nobypassrls']
        union all
        select 'old transactions', 'no transaction is older than an hour',
               (select format('%s transaction(s) older than an hour hold back the cleaning of dead rows', count(*)) from pg_stat_activity a
                 where a.xact_start < clock_timestamp() - interval '1 hour' having count(*) > 0),
               array['select pid, usename, xact_start from pg_stat_activity order by xact_start', 'select pg_terminate_backend(<pid>)']
         where pg_has_role('tms_owner', 'pg_read_all_stats', 'usage')
        union all
        -- an old transaction, or a vacuum that can't keep up, makes every claim walk over what is long gone
        select 'dead rows', 'the hot tables hold no heap of dead rows',
               (select 'dead rows: ' || string_agg(format('%s in %s', s.n_dead_tup, s.relname), ', ' order by s.relname) from pg_stat_all_tables s
                 where s.schemaname = 'tms' and s.relname in ('agent_tasks', 'workers', 'queues', 'agent_pulse', 'outbox_deliveries') and s.n_dead_tup > 500000),
               array['vacuum tms.agent_tasks', 'select pid, usename, xact_start from pg_stat_activity order by xact_start']
        union all
        select 'guards', 'every guarded table and each of its partitions has a guard that always fires',
               (select 'not guarded: ' || string_agg(t.value ->> 'table', ', ') from jsonb_array_elements(tms._guards()) t where t.value ->> 'state' <> 'guarded'),
               array['tms guard check', 'tms guard add <table>']
        union all
        select 'halting', 'a halt may end the sessions of those who hold out',
               case when not pg_has_role('tms_owner', 'pg_signal_backend', 'member') then 'tms_owner may not end sessions: a halt would name who holds out and not be fenced' end,
               array['grant pg_signal_backend to tms_owner']
         where current_setting('server_version_num')::int > 0 and not exists (select from pg_roles r where r.rolname = 'tms_local')
        union all
        select 'server version', 'Postgres 15 or later',
               case when current_setting('server_version_num')::int < 150000 then 'Postgres ' || current_setting('server_version') end,
               array['upgrade the server to Postgres 15 or later']
      ) k));
end
$$;
grant execute on function tms.doctor(jsonb) to tms_caller;

set local role tms_identity;

create or replace function tms._principal_kind(id uuid) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select p.kind from tms.principals p where p.id = _principal_kind.id
$$;

create or replace function tms._operations_json(principal uuid) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(jsonb_agg(distinct o.operation), '[]')
    from tms._live_memberships(principal) m join tms.role_operations o on o.role = m.role
$$;

create or replace function tms._accounts_due() returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(jsonb_agg(jsonb_build_object('account', d.name) order by d.name), '[]') from (
    select p.name from tms.principals p join tms.logins l on l.principal_id = p.id
     where p.kind = 'service' and l.revoked_at is null
     group by p.name, l.kind having max(l.expires_at) < clock_timestamp() + interval '14 days') d
$$;

create or replace function tms._service_logins() returns name[]
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(array_agg(l.name::name), '{}') from tms.logins l join tms.principals p on p.id = l.principal_id
   where l.kind = 'postgres' and p.kind = 'service' and l.revoked_at is null
$$;

-- Every database login somebody is mapped to. The embedded database's own superuser is behind its folder's permissions.
create or replace function tms._mapped_logins() returns name[]
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(array_agg(l.name::name), '{}') from tms.logins l
   where l.kind = 'postgres' and l.revoked_at is null
     and not exists (select from tms.gateways g where g.kind = 'local')
$$;

-- The logins of super_admins: who may migrate.
create or replace function tms._operator_logins() returns name[]
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select coalesce(array_agg(l.name::name), '{}') from tms.logins l
   where l.kind = 'postgres' and l.revoked_at is null
     and exists (select from tms._live_memberships(l.principal_id) m where m.role = 'super_admin')
$$;

-- The roles a token can turn into.
create or replace function tms._api_roles() returns setof name
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select r.rolname from pg_roles r where r.rolname in ('anon', 'authenticated', 'service_role')
  union select m.roleid::regrole::text::name from pg_auth_members m
   where m.member in (select g.login::text::regrole from tms.gateways g where exists (select from pg_roles x where x.rolname = g.login))
$$;

grant execute on function tms._principal_kind(uuid), tms._operations_json(uuid), tms._accounts_due(), tms._service_logins(),
  tms._mapped_logins(), tms._operator_logins(), tms._api_roles() to tms_owner;
