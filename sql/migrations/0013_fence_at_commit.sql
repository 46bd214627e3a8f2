-- Writers of guarded tables held the fence's gate from their first statement until their end, so a halt waited for the next statement of
-- every open transaction, whose client may be slow, and ended those of the patient. They take it at their commit now.
set local role tms_owner;
-- One row for each statement that writes to a guarded table. Its trigger is the check at the commit, and deletes it: nobody ever sees one.
-- No index, for reading one would make serializable transactions conflict that have nothing to do with each other; unlogged, because what
-- a crash takes from it belonged to transactions that it took as well.
create unlogged table tms.fence_writes (
  target regclass not null,
  -- the marks as they were; null for people, whom only safe mode stops
  fence_mark bigint,
  safe_mark bigint not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, vacuum_truncate = off);
alter table tms.fence_writes enable row level security;
alter table tms.fence_writes force row level security;
-- sql/functions/31_fence.sql has the body
create function tms.fence_commit() returns trigger language plpgsql as $$ begin return null; end $$;
create constraint trigger at_commit after insert on tms.fence_writes
  deferrable initially deferred for each row execute function tms.fence_commit();
alter table tms.fence_writes enable always trigger at_commit;
