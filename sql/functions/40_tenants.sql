-- Tenants. Owned by tms_identity, which owns the table.

set local role tms_identity;

create or replace function tms.tenants_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('tenants_list', args, '{}', 'tenants.manage');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('tenants', (
    select coalesce(jsonb_agg(jsonb_build_object('key', t.key, 'id', t.id, 'name', t.name, 'created_at', tms._utc(t.created_at))
             order by t.key collate "C"), '[]')
      from tms.companies t));
end
$$;
grant execute on function tms.tenants_list(jsonb) to tms_caller;

create or replace function tms.tenants_add(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('tenants_add', args, '{request_id,key,name}', 'tenants.manage');
  tenant_key text;
  tenant_name text;
  made tms.companies;
begin
  if c.answer is not null then return c.answer; end if;
  tenant_key := tms._text(args, 'key', 63);
  tenant_name := tms._text(args, 'name', 200);
  if tenant_key !~ '^[a-z0-9][a-z0-9-]{0,62}$' then
    raise exception 'a tenant key has lower-case letters, digits and dashes: "%" has not', left(tenant_key, 63) using errcode = 'TM400';
  end if;
  insert into tms.companies (key, name) values (tenant_key, tenant_name) on conflict (key) do nothing returning * into made;
  if made.id is null then
    return tms._refuse(c, 'CONFLICT', format('tenant "%s" exists already', tenant_key), 'keys are unique and never reused',
      array['tms tenants list']);
  end if;
  c.company_id := made.id;
  perform tms._record(c, 'tenant.add', 'done', tenant_key, '', jsonb_build_object('tenant', made.id, 'key', tenant_key));
  return tms._finish(c, jsonb_build_object('tenant', jsonb_build_object('key', made.key, 'id', made.id, 'name', made.name)));
end
$$;
grant execute on function tms.tenants_add(jsonb) to tms_caller;
