-- What can't be sent yet leaves the front of the index: behind one failing ordering key with 100,000 events, behind the backlog of a
-- paused tenant, or during a halt, each claim walked over all that waits (0.6 s). The order of a key is read within its tenant.
set local role tms_owner;
alter table tms.outbox_deliveries
  -- by what: an earlier one of its ordering key, or its tenant's pause. Not null for nothing: an index gives its order after an equality
  add column held text not null default '' check (held in ('', 'key', 'tenant'));
drop index tms.outbox_deliveries_ready;
create index outbox_deliveries_ready on tms.outbox_deliveries (target, lane, held, next_at, id) where status = 'pending';
drop index tms.outbox_deliveries_order;
create index outbox_deliveries_order on tms.outbox_deliveries (target, company_id, ordering_key, id)
  where ordering_key is not null and status in ('pending', 'sending');
create index outbox_deliveries_held on tms.outbox_deliveries (held, company_id, target, ordering_key, id) where status = 'pending' and held <> '';
