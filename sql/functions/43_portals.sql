-- The twenty portals: which role opens which, and the flag that gates each. Owned by tms_identity.
--
-- Guarantee: a viewer never writes; a portal whose flag is off opens for nobody; a role opens only what roles.yaml lists.

set local role tms_identity;

create or replace function tms._portal_access(portal tms.portals, role text) returns text
language sql immutable as $$
  select case
    when role = 'super_admin' then 'write'
    when role = any (portal.readers) then 'read'
    when role = any (portal.writers) then case when role = 'viewer' then 'read' else 'write' end
    else 'none' end
$$;

create or replace function tms._portal_enabled(portal text, company uuid) returns boolean
language sql stable as $$
  select coalesce(tms._flag_value('portal.' || portal || '.enabled', company) = 'true'::jsonb, false)
$$;

create or replace function tms.portals_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('portals_list', args, '{tenant}', 'portals.manage');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('portals', (
    select coalesce(jsonb_agg(jsonb_build_object(
             'portal', p.portal, 'path', p.path, 'enabled', tms._portal_enabled(p.portal, c.company_id),
             'roles', (select coalesce(jsonb_agg(jsonb_build_object('role', r.role, 'access', tms._portal_access(p, r.role)) order by r.role collate "C"), '[]')
                         from tms.roles r where tms._portal_access(p, r.role) <> 'none')) order by p.portal collate "C"), '[]')
      from tms.portals p));
end
$$;
grant execute on function tms.portals_list(jsonb) to tms_caller;

create or replace function tms.portals_check(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('portals_check', args, '{tenant,portal,as}', case when args ? 'as' then 'portals.manage' end);
  wanted tms.portals;
  enabled boolean;
  best text := 'none';
  best_role text := '';
  candidate record;
begin
  if c.answer is not null then return c.answer; end if;
  select * into wanted from tms.portals p where p.portal = tms._text(args, 'portal', 60);
  if wanted.portal is null then
    return tms._refuse(c, 'NOT_FOUND', format('there is no portal "%s"', left(args ->> 'portal', 60)),
      format('there are: %s', (select string_agg(p.portal, ', ' order by p.portal) from tms.portals p)), array['tms portals list']);
  end if;
  if args ? 'tenant' and c.company_id is null and tms._sees_all() then
    return tms._refuse(c, 'NOT_FOUND', format('there is no tenant "%s"', left(c.tenant, 60)), 'neither a key nor an id of a tenant',
      array['tms tenants list']);
  end if;
  if args ? 'as' and not exists (select from tms.roles r where r.role = args ->> 'as') then
    raise exception 'there is no role "%"; there are: %', left(args ->> 'as', 60),
      (select string_agg(r.role, ', ' order by r.role) from tms.roles r) using errcode = 'TM400';
  end if;
  -- somebody who names a tenant is judged by the roles held there; one who is no member gets the same answer as for a
  -- tenant that does not exist
  for candidate in
    select m.role from tms._live_memberships(c.principal_id) m
     where not args ? 'as' and (not args ? 'tenant' or m.company_id is null or m.company_id = c.company_id)
    union select args ->> 'as' where args ? 'as'
  loop
    if best <> 'write' and tms._portal_access(wanted, candidate.role) <> 'none' then
      best := tms._portal_access(wanted, candidate.role);
      best_role := candidate.role;
    end if;
    best_role := coalesce(nullif(best_role, ''), candidate.role);
  end loop;
  -- a tenant's own setting of the flag is told only to who may know the tenant
  enabled := tms._portal_enabled(wanted.portal, case when best <> 'none' then c.company_id end);
  return jsonb_build_object('portal', wanted.portal, 'path', wanted.path, 'role', best_role, 'enabled', enabled, 'access', best,
    'why', case
      when best = 'none' then format('role %s is not listed for portal %s', coalesce(nullif(best_role, ''), '(none here)'), wanted.portal)
      when not enabled then format('flag portal.%s.enabled is off', wanted.portal)
      else format('role %s may %s', best_role, best) end);
end
$$;
grant execute on function tms.portals_check(jsonb) to tms_caller;
