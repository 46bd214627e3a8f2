-- Reading the ledger's inbox. Guarantee: a tenant's people see their tenants' rows only; rows of no tenant are for roles
-- that span all tenants.

set local role tms_owner;

create or replace function tms.ledger_tail(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_tail', args, '{tenant,limit,before}', 'audit.read');
  visible uuid[] := tms._allowed('audit.read');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('rows', (
    select coalesce(jsonb_agg(jsonb_build_object(
             'id', r.id::text, 'at', tms._utc(r.at), 'who', case when tms._clear(c, r.company_id) then r.who else 'redacted' end, 'role', r.role,
             'action', r.action, 'outcome', r.outcome, 'tenant', tms._tenant_key(r.company_id), 
             -- who was granted a role is a person too: without clearance only subjects that are never people are shown
             'subject', case when tms._clear(c, r.company_id) or r.outcome = 'refused' or r.action like 'flag.%' then r.subject else 'redacted' end,
             'why', case when tms._clear(c, r.company_id) then r.why else 'redacted' end, 'body_sha256', r.body_sha256) order by r.id desc), '[]')
      from (select * from tms.ledger_inbox x
             where (not args ? 'before' or x.id < (args ->> 'before')::bigint)
               and case when args ? 'tenant' then x.company_id = c.company_id else visible is null or x.company_id = any (visible) end
             order by x.id desc limit tms._limit(args)) r));
end
$$;
grant execute on function tms.ledger_tail(jsonb) to tms_caller;
