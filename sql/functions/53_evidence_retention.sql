-- What expires: packs older than so many days leave a signed tombstone.
--
-- Guarantees: a day has one tombstone, for ever, and it is that of the day's final pack; neither the newest final pack nor a day that is
-- to be kept gets one; the tombstone is in the ledger before anybody deletes a folder.

set local role tms_owner;

create or replace function tms._evidence_keep(args jsonb) returns integer
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
  if coalesce(args ->> 'keep', '') !~ '^[0-9]{1,4}$' or (args ->> 'keep')::integer < 1 then
    raise exception '"keep" is a number of days, 1 or more' using errcode = 'TM400';
  end if;
  return (args ->> 'keep')::integer;
end
$$;

-- Which of these days have expired, and what the database knows of them.
create or replace function tms.evidence_expired(args jsonb) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('evidence_expired', args, '{keep,days}', 'evidence.prune');
  before date;
  newest date;
begin
  if c.answer is not null then return c.answer; end if;
  before := (tms.now() at time zone 'UTC')::date - tms._evidence_keep(args);
  select max(p.day) into newest from tms.evidence_packs p where p.final;
  return jsonb_build_object(
    'now', tms._utc(tms.now()),
    'before', to_char(before, 'YYYY-MM-DD'),
    'newest_final', to_char(newest, 'YYYY-MM-DD'),
    'days', (select coalesce(jsonb_agg(jsonb_build_object(
               'day', to_char(d.day, 'YYYY-MM-DD'), 'manifest_sha256', p.manifest_sha256, 'sums_sha256', p.sums_sha256,
               'checkpoint', p.files ->> 'checkpoint.txt', 'previous_manifest_sha256', (p.files ->> 'manifest.json')::jsonb #>> '{previous,manifest_sha256}',
               'tombstone', t.tombstone) order by d.day), '[]')
               from (select distinct tms._evidence_day(jsonb_build_object('day', x)) as day from jsonb_array_elements_text(args -> 'days') x) d
               left join tms.evidence_packs p on p.day = d.day and p.final
               left join tms.evidence_tombstones t on t.day = d.day
              where d.day < before and d.day is distinct from newest));
end
$$;
grant execute on function tms.evidence_expired(jsonb) to tms_caller;

-- Keeps a tombstone. Once: who comes second gets the bytes that the first one stored.
create or replace function tms.evidence_tombstone(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('evidence_tombstone', args, '{request_id,keep,day,manifest_sha256,sums_sha256,tombstone}', 'evidence.prune');
  the_day date;
  text_ text;
  pack tms.evidence_packs;
  there tms.evidence_tombstones;
begin
  if c.answer is not null then return c.answer; end if;
  the_day := tms._evidence_day(args);
  text_ := tms._text(args, 'tombstone', 20000);
  perform tms._latch('evidence');
  select * into there from tms.evidence_tombstones t where t.day = the_day;
  if there.day is not null then
    return tms._finish(c, jsonb_build_object('tombstone', there.tombstone, 'stored', false));
  end if;
  select * into pack from tms.evidence_packs p where p.day = the_day and p.final;
  if pack.day is null or pack.manifest_sha256 is distinct from args ->> 'manifest_sha256' or pack.sums_sha256 is distinct from args ->> 'sums_sha256' then
    return tms._refuse(c, 'CONFLICT', format('%s has no final pack with that digest here', args ->> 'day'),
      'a tombstone is that of the pack which this database made', array['tms evidence verify ' || (args ->> 'day'), 'tms evidence list']);
  end if;
  if the_day >= (tms.now() at time zone 'UTC')::date - tms._evidence_keep(args) or not exists (select from tms.evidence_packs p where p.final and p.day > the_day) then
    return tms._refuse(c, 'CONFLICT', format('%s has not expired', args ->> 'day'),
      format('the last %s days are kept, and the newest final pack always', args ->> 'keep'), array['tms evidence list']);
  end if;
  insert into tms.evidence_tombstones (day, manifest_sha256, sums_sha256, tombstone) values (the_day, pack.manifest_sha256, pack.sums_sha256, text_);
  perform tms._record(c, 'evidence.tombstone', 'done', args ->> 'day', 'older than ' || (args ->> 'keep') || ' days', jsonb_build_object(
    'day', args ->> 'day', 'manifest_sha256', pack.manifest_sha256, 'sums_sha256', pack.sums_sha256, 'tombstone_sha256', tms._sha256(text_)));
  return tms._finish(c, jsonb_build_object('tombstone', text_, 'stored', true));
end
$$;
grant execute on function tms.evidence_tombstone(jsonb) to tms_caller;
