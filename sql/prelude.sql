-- Before the first migration, and again before every push: the roles, the schema, the list of what was applied.
-- Runs as whoever pushes; that needs CREATEROLE the first time and CREATE on the database, not superuser.
set local client_min_messages = warning;

do $$
declare
  r text;
begin
  foreach r in array '{tms_owner,tms_identity,tms_caller}'::text[] loop
    -- roles belong to the whole cluster: another database's push may be making the same one now
    begin
      if not exists (select from pg_roles where rolname = r) then
        execute format('create role %I nologin', r);
      end if;
    exception when duplicate_object or unique_violation or internal_error then null;
    end;
    begin
      -- from 16 on, whoever creates a role administers it without being able to act as it
      if r <> 'tms_caller' and not pg_has_role(current_user, r,
           (case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end)) then
        execute format('grant %I to %I', r, current_user);
      end if;
    exception
      when duplicate_object or unique_violation or internal_error then null;
      when insufficient_privilege then
        raise exception 'login "%" may not act as %, which another login made', current_user, r
          using errcode = 'TM403', hint = format('grant tms_owner, tms_identity to %I  -- as that login or a superuser', current_user);
    end;
  end loop;
  -- so that `tms doctor` sees everybody's old transactions; where that may not be granted, doctor says that it can't
  begin
    if not pg_has_role('tms_owner', 'pg_read_all_stats', 'MEMBER') then grant pg_read_all_stats to tms_owner; end if;
  exception when others then null;
  end;
  -- so that a halt can end the sessions of those who hold out; without it they are named and the answer is not `fenced`
  begin
    if not pg_has_role('tms_owner', 'pg_signal_backend', 'MEMBER') then grant pg_signal_backend to tms_owner; end if;
  exception when others then null;
  end;
end
$$;

set local check_function_bodies = off;
create schema if not exists tms authorization tms_owner;
set local role tms_owner;
grant usage, create on schema tms to tms_identity;
grant usage on schema tms to tms_caller;

create table if not exists tms.schema_files (
  kind text not null check (kind in ('migration', 'function')),
  name text not null,
  sha256 text not null,
  applied_at timestamptz not null default now(),
  primary key (kind, name)
);
alter table tms.schema_files enable row level security;
alter table tms.schema_files force row level security;
do $$
begin
  if not exists (select from pg_policies where schemaname = 'tms' and tablename = 'schema_files') then
    create policy shared on tms.schema_files to tms_owner using (true) with check (true);
  end if;
end
$$;
