-- Writers of guarded tables held the fence's gate from their first statement until their end, so a halt waited for the next statement of
-- every open transaction, whose client may be slow, and ended those of the patient. They take it at their commit now.
set local role tms_owner;
-- One row for each statement that writes to a guarded table: a machine's, whose lock on this table tells a halt who has something open.
-- Its trigger is the check at the commit, and deletes it: nobody ever sees one. No index, for reading one would make serializable
-- transactions conflict that have nothing to do with each other; unlogged, because what a crash takes from it belonged to transactions
-- that it took as well.
create unlogged table tms.fence_writes (
  target regclass not null,
  -- the marks as they were
  fence_mark bigint,
  safe_mark bigint not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
-- People's, whom only safe mode stops: without the fence's mark.
create unlogged table tms.safe_writes (like tms.fence_writes)
  with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
-- sql/functions/31_fence.sql has the body
create function tms.fence_commit() returns trigger language plpgsql as $$ begin return null; end $$;
do $$
declare
  t text;
begin
  foreach t in array '{fence_writes,safe_writes}'::text[] loop
    execute format('alter table tms.%I enable row level security', t);
    execute format('alter table tms.%I force row level security', t);
    execute format('create constraint trigger at_commit after insert on tms.%I deferrable initially deferred for each row execute function tms.fence_commit()', t);
    execute format('alter table tms.%I enable always trigger at_commit', t);
  end loop;
end
$$;
