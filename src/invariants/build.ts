import { createHash } from 'node:crypto'
import type { ReadInvariant } from './read.ts'

/**
 * The SQL that puts one policy into schema tms_invariants. It is text for an administrator's connection and never an
 * argument of a function: what calls an invariant later names it and sends no SQL.
 */

/** The bodies, as Postgres stores them: their hashes tell later that they are still these. */
export function bodies({ query, correction, functions, loaded: { reads, writes } }: ReadInvariant) {
  // Part of the hash: other grants are another policy.
  const grants = `\n-- reads ${reads.join(' ')}; writes ${writes.join(' ')}; calls ${functions.join(' ')}`
  return {
    // The statement stands between line breaks, so that a comment at its end hides nothing of ours.
    find:
      query === null
        ? null
        : `${grants}\nselect pg_catalog.to_jsonb(found) from (\n--> from here\n${query}\n--< to here\n) found limit most\n`,
    fix:
      correction === null
        ? null
        : `${grants}
#variable_conflict use_column
declare
  n bigint;
begin
  with changed as (
--> from here
${correction.statement}
--< to here
  returning 1) select count(*) into n from changed;
  -- what waits for the end of the transaction happens here: as this role, and within the count
  set constraints all immediate;
  return n;
end
`,
  }
}

export function sha256(text: string | null): string | null {
  return text === null ? null : createHash('sha256').update(text).digest('hex')
}

/** Once before the others. */
export const prepareSchema = `
create schema if not exists tms_invariants;
revoke all on schema tms_invariants from public;
grant usage on schema tms_invariants to tms_owner`

/** Takes away what an earlier load has made for these ids, privileges and row policies included. */
export function removal(ids: readonly string[]): string {
  return block(
    { ids },
    `
declare
  id text;
  role text;
begin
  for id in select lower(value) from jsonb_array_elements_text(d -> 'ids') loop
    foreach role in array array['tms_invariant_' || id, 'tms_correction_' || id] loop
      continue when to_regrole(role) is null;
      ${becomeMember}
      execute format('drop owned by %I', role);
    end loop;
  end loop;
end`,
  )
}

/**
 * Makes roles, grants and functions of one policy. Every refusal has the code TM400 and words for people; whoever runs
 * this sets a savepoint before, so that one bad policy leaves nothing and takes nothing else with it. `plainly`: errors stay
 * Postgres' own, which name their place in the statement; to be told in other words they lose it.
 */
export function building(policy: ReadInvariant, plainly = false): string {
  const { find, fix } = bodies(policy)
  const { loaded, query, correction } = policy
  return block(
    {
      id: loaded.invariant.toLowerCase(),
      // To be tried out, and between line breaks here, too.
      query: `select * from (\n${query ?? ''}\n) x`,
      correction: `with changed as (\n${correction?.statement ?? ''}\nreturning 1) select count(*) from changed`,
      find,
      fix,
      verb: correction?.verb ?? null,
      reads: loaded.reads,
      writes: loaded.writes,
      functions: policy.functions,
    },
    `
declare
  me name := current_user;
  id text := d ->> 'id';
  role text;
  reader text := 'tms_invariant_' || (d ->> 'id');
  fixer text := 'tms_correction_' || (d ->> 'id');
  t text;
  k record;
  hides boolean := false;
  shown text;
  found text;
  trial refcursor;
  settings text;
  part text := 'query';
begin
  if d ->> 'fix' is null then fixer := null; end if;
  foreach role in array array_remove(array[reader, fixer], null) loop
    begin
      if to_regrole(role) is null then execute format('create role %I nologin', role); end if;
    exception when duplicate_object or unique_violation then null; -- another database's load, at this moment
    end;
    if exists (select from pg_roles r where r.rolname = role and (r.rolcanlogin or r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolcreatedb or r.rolreplication))
       or exists (select from pg_auth_members m where m.member = role::regrole) then
      raise exception 'role % may more than an invariant''s may: it can log in, or is a member of another role', role;
    end if;
    ${becomeMember}
    execute format('grant usage, create on schema tms_invariants to %I', role);
  end loop;

  -- grants
  for t in select distinct value from jsonb_array_elements_text((d -> 'reads') || (d -> 'writes')) loop
    select c.oid, c.relkind, c.relrowsecurity, n.nspname into k from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass(t);
    if k.oid is null then raise exception 'there is no table % in this database', t; end if;
    if k.relkind not in ('r', 'p', 'v', 'm') then raise exception '% is no table and no view', t; end if;
    foreach role in array array_remove(array[reader, fixer], null) loop
      execute format('grant usage on schema %I to %I', k.nspname, role);
      execute format('grant select on %s to %I', k.oid::regclass, role);
      if role = fixer and (d -> 'writes') ? t then
        execute format('grant %s on %s to %I', d ->> 'verb', k.oid::regclass, role);
      end if;
      if k.relrowsecurity then
        hides := true;
        if exists (select from pg_policy p where p.polrelid = k.oid and not p.polpermissive) then
          raise exception 'a restrictive policy of row security hides rows of % whatever else allows them', t;
        end if;
        execute format('create policy %I on %s for %s to %I using (true)%s', role, k.oid::regclass,
          case when role = fixer then 'all' else 'select' end, role, case when role = fixer then ' with check (true)' else '' end);
      end if;
    end loop;
  end loop;
  for t in select value from jsonb_array_elements_text(d -> 'functions') loop
    for k in select p.oid, p.provolatile, p.prokind, n.nspname from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname || '.' || p.proname = t loop
      if k.provolatile = 'v' then raise exception 'function % is volatile: it may write, or answer differently each time', t; end if;
      foreach role in array array_remove(array[reader, fixer], null) loop
        execute format('grant usage on schema %I to %I', k.nspname, role);
        execute format('grant execute on function %s to %I', k.oid::regprocedure, role);
      end loop;
    end loop;
    if not found_any(t) then raise exception 'there is no function % in this database', t; end if;
  end loop;

  perform set_config('search_path', 'pg_catalog, pg_temp', true);
  execute format('set local role %I', reader);
  ${tryOut('query', `d -> 'reads'`)}
  ${makeFunction({
    name: 'find',
    arguments: 'most integer',
    returns: 'setof jsonb',
    // stable: Postgres itself refuses a statement that writes
    language: 'sql stable',
    body: 'find',
  })}
  execute format('select from tms_invariants.%I(0)', 'find_' || id);
  execute format('set local role %I', me);

  if fixer is not null then
    part := 'correct.statement';
    execute format('set local role %I', fixer);
    ${tryOut('correction', `(d -> 'reads') || (d -> 'writes')`)}
    ${makeFunction({ name: 'fix', arguments: '', returns: 'bigint', language: 'plpgsql volatile', body: 'fix' })}
    execute format('set local role %I', me);
  end if;
  foreach role in array array_remove(array[reader, fixer], null) loop
    execute format('revoke create on schema tms_invariants from %I', role);
  end loop;
exception
  when sqlstate 'TM400' then raise;
  when query_canceled then raise;
  when others then
    ${plainly ? 'raise;' : `raise exception using errcode = 'TM400', message = left(sqlerrm, 300), detail = 'in ' || part, hint = 'tms invariants load';`}
end`.replaceAll(
      'found_any(t)',
      `exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname || '.' || p.proname = t)`,
    ),
  )
}

/** From 16 on, whoever creates a role administers it without being able to act as it. */
const becomeMember = `if not pg_has_role(current_user, role, case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end) then
        execute format('grant %I to %I', role, current_user);
      end if;`

/** As the role that will run it, and without running it: a function with a parsed body shows what it refers to. */
function tryOut(part: 'query' | 'correction', tables: string): string {
  return `-- as a cursor, which takes one statement only
  open trial for execute 'explain ' || (d ->> '${part}');
  execute 'create function tms_invariants.on_trial() returns setof record begin atomic ' || (d ->> '${part}') || '; end';
  select string_agg(distinct c.oid::regclass::text, ', ') into found
    from pg_depend p join pg_class c on c.oid = p.refobjid
   where p.classid = 'pg_proc'::regclass and p.objid = 'tms_invariants.on_trial'::regproc and p.refclassid = 'pg_class'::regclass
     and not c.oid in (select to_regclass(value)::oid from jsonb_array_elements_text(${tables}));
  if found is not null then raise exception 'it ${part === 'query' ? 'reads %, which grants.read does not name' : 'uses %, which neither grants.read nor correct.write names'}', found; end if;
  -- an operator calls its function, and a type the conditions of its domains; a type's own functions are written by superusers only
  with recursive used (class, id) as (
    select 'pg_proc'::regclass::oid, 'tms_invariants.on_trial'::regproc::oid
    union
    select r.class, r.id from used u cross join lateral (
        select p.refclassid, p.refobjid from pg_depend p
         where p.classid = u.class and p.objid = u.id and not (u.class = 'pg_type'::regclass and p.refclassid = 'pg_proc'::regclass)
        -- of what comes with Postgres pg_depend has nothing
        union all select 'pg_proc'::regclass, o.oprcode from pg_operator o where u.class = 'pg_operator'::regclass and o.oid = u.id
        union all select 'pg_constraint'::regclass, co.oid from pg_constraint co where u.class = 'pg_type'::regclass and co.contypid = u.id
        union all select 'pg_type'::regclass, a.atttypid from pg_type ty join pg_attribute a on a.attrelid = ty.typrelid and a.attnum > 0
                   where u.class = 'pg_type'::regclass and ty.oid = u.id) r (class, id)
     where u.class in ('pg_operator'::regclass, 'pg_type'::regclass, 'pg_constraint'::regclass) or u.id = 'tms_invariants.on_trial'::regproc
  )
  select string_agg(distinct f.oid::regprocedure::text, ', ') into found
    from used u join pg_proc f on u.class = 'pg_proc'::regclass and f.oid = u.id join pg_namespace n on n.oid = f.pronamespace
   where f.oid <> 'tms_invariants.on_trial'::regproc and not (d -> 'functions') ? (n.nspname || '.' || f.proname)
     and (n.nspname <> 'pg_catalog' or f.provolatile = 'v');
  if found is not null then raise exception 'it calls %, which grants.functions does not name', found; end if;
  -- a call of what comes with Postgres leaves no trace there: its name stands in the body's text, texts taken out and names left
  shown := regexp_replace(pg_get_function_sqlbody('tms_invariants.on_trial'::regproc), '("([^"]|"")*")|''([^'']|'''')*''', '\\1', 'g');
  drop function tms_invariants.on_trial();
  select string_agg(distinct p.proname, ', ') into found from pg_proc p
   where p.pronamespace = 'pg_catalog'::regnamespace and p.provolatile = 'v' and shown ~* ('(^|[^\\w$])"?' || p.proname || '"?\\s*\\(');
  if found is not null then raise exception 'the ${part} calls %: what is volatile may write, wait, or answer differently each time', found; end if;
  -- whether it may
  fetch trial into shown;
  close trial;`
}

function makeFunction(fn: { name: string; arguments: string; returns: string; language: string; body: string }) {
  return `settings := format('security definer set search_path = pg_catalog, pg_temp set jit = off set row_security = %s',
    -- off: a table that begins to hide rows after this makes an error, and never fewer violations
    case when hides then 'on' else 'off' end);
  execute format('create or replace function tms_invariants.%I(${fn.arguments}) returns ${fn.returns} language ${fn.language} %s as %L', '${fn.name}_' || id, settings, d ->> '${fn.body}');
  execute format('revoke all on function tms_invariants.%I from public', '${fn.name}_' || id);
  execute format('grant execute on function tms_invariants.%I to tms_owner', '${fn.name}_' || id);`
}

/** A block with its data as one literal, in which nothing can end the quotes it stands in. */
function block(data: object, code: string): string {
  const json = JSON.stringify(data)
  const tag = quoteTag(json + code)
  // The data comes in by a variable of the block around it.
  return `do ${tag}
<<load>>
declare
  d constant jsonb := E'${json.replaceAll('\\', '\\\\').replaceAll("'", "''")}';
begin
${code};
end
${tag}`
}

function quoteTag(text: string): string {
  for (let n = 0; ; n += 1) if (!text.includes(`$invariant${n}$`)) return `$invariant${n}$`
}
