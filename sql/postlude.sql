-- After the last file of every push.
--
-- Where PostgREST is, its role for signed-in people may call what tms_caller may. Granted function by function: Supabase
-- makes that role NOINHERIT, so being a member of tms_caller would give it nothing.
do $$
declare
  f record;
begin
  if not exists (select from pg_roles where rolname = 'authenticated') then return; end if;
  set local role tms_owner;
  grant usage on schema tms to authenticated;
  for f in
    select p.oid::regprocedure as signature, pg_get_userbyid(p.proowner) as owner from pg_proc p
     where p.pronamespace = 'tms'::regnamespace and has_function_privilege('tms_caller', p.oid, 'execute')
  loop
    execute format('set local role %I', f.owner);
    execute format('grant execute on function %s to authenticated', f.signature);
  end loop;
  set local role tms_owner;
end
$$;
