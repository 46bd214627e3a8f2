-- For which tenant a worker's call acts.
--
-- Guarantee: a worker acts for the tenants of the tasks it holds now; while an agent's own SQL function runs, for the tenant
-- of that one task and no other.

set local role tms_owner;

create or replace function tms._sealed(text) returns text
language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
  select $1 || '.' || tms._sha256((select s.secret from tms.seal s) || $1 || pg_current_xact_id()::text || pg_backend_pid()::text)
$$;

-- Says for the rest of this transaction whose task is being worked on. A caller can write the setting and cannot make the seal.
create or replace function tms._act_for(company uuid) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  perform set_config('tms.acting', case when company is null then '' else tms._sealed(company::text) end, true);
end
$$;

-- The tenant whose task's own SQL runs now; null: none does. Nothing says that one does but the stack: that SQL can write the setting too,
-- and would else have every tenant of its worker, or all of an approver's, for a blank.
create or replace function tms._acting() returns uuid
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  acting text := current_setting('tms.acting', true);
  stack text;
begin
  if acting is not null and acting <> '' and pg_current_xact_id_if_assigned() is not null
     and acting = tms._sealed(split_part(acting, '.', 1)) then
    return split_part(acting, '.', 1)::uuid;
  end if;
  -- whatever ends tasks has written
  if pg_current_xact_id_if_assigned() is not null then
    get diagnostics stack = pg_context;
    if stack ~ 'tms\._(apply_all|check_deferred)\(' then
      raise exception 'apply: "tms.acting" is not yours to change' using errcode = 'TM403';
    end if;
  end if;
  return null;
end
$$;
grant execute on function tms._acting() to tms_identity;

create or replace function tms._held_companies() returns uuid[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  acting uuid := tms._acting();
begin
  if acting is not null then return array[acting]; end if;
  return coalesce((
    select array_agg(distinct t.company_id)
      from tms.workers w join tms.agent_tasks t on t.worker_id = w.id and t.status = 'running'
     where w.principal_id = (select tms._principal()) and w.stopped_at is null and w.lease_until > clock_timestamp()), '{}');
end
$$;
grant execute on function tms._held_companies() to tms_identity;
