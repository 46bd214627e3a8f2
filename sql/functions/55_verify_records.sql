-- What is kept beside the ledger, held against the rows that speak of it.
--
-- Guarantee: a checkpoint, a pack, a cut, a tombstone or a signing key that is deleted, changed or slipped in behind the product's
-- back no longer fits the row that its making left in the ledger, and is named. The rows themselves are verified with the ledger.

set local role tms_owner;

-- One finding, in the order of the rows.
create or replace function tms._record_finding(inbox_id bigint, place text, what text) returns jsonb
language sql immutable as $$
  select pg_catalog.jsonb_build_object('id', inbox_id::text, 'place', place, 'what', what)
$$;

-- The rows of the inbox with ids in [from, to) that speak of something kept elsewhere. `kept` counts what is kept, before the rows are
-- looked at: whoever has looked at all of them has seen a row for each of these.
create or replace function tms.ledger_verify_records(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_verify_records', args, '{from,to}', 'ledger.seal');
  low bigint := (args ->> 'from')::bigint;
  high bigint := least((args ->> 'to')::bigint, low + 200000);
  kept jsonb;
  answer jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  kept := jsonb_build_object(
    'ledger.checkpoint', (select count(*)::text from tms.ledger_checkpoints),
    'evidence.manifest', (select count(*)::text from tms.evidence_cuts),
    'evidence.pack', (select count(*)::text from tms.evidence_packs),
    'evidence.tombstone', (select count(*)::text from tms.evidence_tombstones),
    'key.begin', (select count(*)::text from tms.signing_keys k where k.introduced_by is null),
    'key.rotate', (select count(*)::text from tms.signing_keys k where k.introduced_by is not null),
    'key.revoke', (select count(*)::text from tms.signing_keys k where k.revoked_at is not null));
  with said as materialized (
    select i.id, i.action, i.subject, i.body::jsonb as b from tms.ledger_inbox i
     where i.id >= low and i.id < high and i.outcome = 'done'
       and i.action in ('ledger.checkpoint', 'evidence.manifest', 'evidence.pack', 'evidence.tombstone', 'key.begin', 'key.rotate', 'key.revoke')
  ), judged as (
    select s.id, 'checkpoint of ' || (s.b ->> 'size') || ' rows' as place,
           case when x.id is null then 'it was signed and stored, and is gone' when encode(x.root, 'base64') <> s.b ->> 'root' then 'its root is not the one that was stored' end as what
      from said s left join tms.ledger_checkpoints x on x.size = (s.b ->> 'size')::bigint and x.key = s.b ->> 'key'
     where s.action = 'ledger.checkpoint'
    union all
    select s.id, 'facts of ' || s.subject,
           case when x.day is null then 'they were frozen, and are gone'
                when x.inbox_id <> s.id or x.manifest_sha256 <> s.b ->> 'manifest_sha256' or tms._sha256(x.manifest) <> s.b ->> 'manifest_sha256' then 'they are not the ones that were frozen'
                when (x.final, x.verdict, x.key) is distinct from ((x.manifest::jsonb -> 'final')::boolean, x.manifest::jsonb ->> 'verdict', x.manifest::jsonb ->> 'key')
                  or (x.as_of, x.from_seq, x.tree_size) is distinct from ((x.manifest::jsonb ->> 'as_of')::timestamptz, (x.manifest::jsonb #>> '{ledger,from_seq}')::bigint, (x.manifest::jsonb #>> '{ledger,tree_size}')::bigint)
                  then 'what is said of them is not what their manifest says' end
      from said s left join tms.evidence_cuts x on x.day = (s.b ->> 'day')::date and x.revision = (s.b ->> 'revision')::integer
     where s.action = 'evidence.manifest'
    union all
    select s.id, 'pack of ' || s.subject,
           case when x.day is null then 'it was stored, and is gone'
                when x.sums_sha256 <> s.b ->> 'sums_sha256' then 'its files are not the ones that were stored'
                -- what each day has of provisional packs is too much to read here
                when x.final and (tms._sha256(x.files ->> 'SHA256SUMS') is distinct from s.b ->> 'sums_sha256'
                  or exists (select from jsonb_each_text(x.files - 'SHA256SUMS') f where strpos(x.files ->> 'SHA256SUMS', tms._sha256(f.value) || '  ' || f.key || E'\n') = 0))
                  then 'its files are not the ones that were stored'
                when (x.verdict, x.final) is distinct from (s.b ->> 'verdict', (s.b -> 'final')::boolean) then 'its verdict is not the one that was stored'
                when (x.manifest_sha256, x.as_of, x.from_seq, x.tree_size) is distinct from (k.manifest_sha256, k.as_of, k.from_seq, k.tree_size) then 'it does not fit the facts that were frozen for it' end
      from said s left join tms.evidence_packs x on x.day = (s.b ->> 'day')::date and x.revision = (s.b ->> 'revision')::integer
                  left join tms.evidence_cuts k on k.day = x.day and k.revision = x.revision
     where s.action = 'evidence.pack'
    union all
    select s.id, 'tombstone of ' || s.subject,
           case when x.day is null then 'it was stored, and is gone'
                when (x.manifest_sha256, x.sums_sha256, tms._sha256(x.tombstone)) is distinct from (s.b ->> 'manifest_sha256', s.b ->> 'sums_sha256', s.b ->> 'tombstone_sha256') then 'it is not the one that was stored' end
      from said s left join tms.evidence_tombstones x on x.day = (s.b ->> 'day')::date
     where s.action = 'evidence.tombstone'
    union all
    select s.id, 'signing key ' || left(s.subject, 16),
           case when x.fingerprint is null then 'it was registered, and is gone'
                when (x.public_pem, tms._utc(x.not_before), tms._utc(x.not_after), x.introduced_by, x.introduction)
                  is distinct from (s.b ->> 'public_pem', s.b ->> 'not_before', s.b ->> 'not_after', s.b ->> 'introduced_by', s.b ->> 'introduction') then 'it is not what was registered' end
      from said s left join tms.signing_keys x on x.fingerprint = s.b ->> 'fingerprint'
     where s.action in ('key.begin', 'key.rotate')
    union all
    select s.id, 'signing key ' || left(s.subject, 16), 'it was revoked, and is not any more, or from another time on'
      from said s left join tms.signing_keys x on x.fingerprint = s.b ->> 'fingerprint'
     where s.action = 'key.revoke' and (x.state is distinct from 'revoked' or tms._utc(x.revoked_at) is distinct from s.b ->> 'revoked_at')
    union all
    -- keys among themselves, once: each signs until the next one takes over
    select 0, 'signing key ' || left(k.fingerprint, 16), 'the time at which another took over from it was changed'
      from (select x.*, lead(x.added_at) over (order by x.added_at) as next from tms.signing_keys x) k
     where low = 0 and case k.state when 'valid' then k.next is not null when 'retired' then k.ended_at is distinct from k.next
                                    else k.ended_at is distinct from least(k.revoked_at, k.next) end
  )
  select jsonb_build_object('from', low::text, 'to', high::text, 'end', (select coalesce(max(x.id) + 1, 0)::text from tms.ledger_inbox x), 'kept', kept,
      'said', (select coalesce(jsonb_object_agg(n.action, n.n::text), '{}') from (select s.action, count(*) as n from said s group by 1) n),
      'wrong', (select count(*)::text from judged j where j.what is not null),
      'findings', (select coalesce(jsonb_agg(tms._record_finding(j.id, j.place, j.what) order by j.id, j.place), '[]')
                     from (select * from judged x where x.what is not null order by x.id limit 100) j))
    into answer;
  return answer;
end
$$;
grant execute on function tms.ledger_verify_records(jsonb) to tms_caller;
