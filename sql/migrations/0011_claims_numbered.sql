-- The number of each worker's last claim: one that comes late, or again, takes nothing and gives nothing back.
set local role tms_owner;
alter table tms.workers add column claims bigint not null default 0;
