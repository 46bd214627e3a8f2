-- What the workers had said of a halt when it ended: later they speak of other halts, and its certificate must fit for ever. And a
-- signature nobody here can check must not keep another person's out: each may put one under a key.
set local role tms_owner;
alter table tms.halts add column heard jsonb;
alter table tms.halt_signatures drop constraint halt_signatures_pkey, add primary key (halt_id, fingerprint, by_name);
