-- The ledger: who did what, in an order that can't be changed afterwards without being seen.
--
-- Guarantees: every committed row of the inbox is sealed exactly once, whatever else is open; what is sealed stays; a row's
-- hash covers its place, the hash before it and everything it says; any row can be proved to belong to any later checkpoint.
-- A tenant's people see their tenants' rows only; rows of no tenant are for roles that span all tenants. Hashes say nothing
-- about anybody and are shown to everybody who may do something here.

set local role tms_owner;

-- ---------------------------------------------------------------------------------------------- lines
-- A row's line, from behind prev_hash. Declared stable and without settings, so that it is inlined: a call for each row cost
-- more than the hashing. printf and openssl can make the same line, hence no escapes: a newline in a field becomes a space.
create or replace function tms._ledger_rest(id bigint, at timestamptz, who text, credential text, role text, fn text, action text, outcome text,
  company_id uuid, subject text, why text, trace_id text, body_sha256 text) returns text
language sql stable as $$
  select pg_catalog.concat(E'\n', id, E'\n', pg_catalog.to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), E'\n',
    pg_catalog.replace(who, E'\n', ' '), E'\n', pg_catalog.replace(credential, E'\n', ' '), E'\n', pg_catalog.replace(role, E'\n', ' '), E'\n',
    pg_catalog.replace(fn, E'\n', ' '), E'\n', pg_catalog.replace(action, E'\n', ' '), E'\n', outcome, E'\n', company_id, E'\n',
    pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(subject, 'UTF8')), 'hex'), E'\n',
    pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(why, 'UTF8')), 'hex'), E'\n', pg_catalog.replace(trace_id, E'\n', ' '), E'\n', body_sha256)
$$;

create or replace function tms._ledger_line(seq bigint, prev_hash text, rest text) returns text
language sql stable as $$
  select pg_catalog.concat(E'tms-ledger-v1\n', seq, E'\n', prev_hash, rest)
$$;

-- The line of one sealed row, for other topics' functions; null where there is none.
create or replace function tms._ledger_line_of(seq bigint) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (select tms._ledger_line(l.seq, l.prev_hash, tms._ledger_rest(r.id, r.at, r.who, r.credential, r.role, r.fn, r.action, r.outcome, r.company_id,
            r.subject, r.why, r.trace_id, r.body_sha256))
            from tms.ledger l join tms.ledger_inbox r on r.id = l.inbox_id where l.seq = _ledger_line_of.seq);
end
$$;

create or replace function tms._ledger_origin() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return 'tms.invalid/ledger/' || (select e.database_id from tms.environment e);
end
$$;

-- ---------------------------------------------------------------------------------------------- tree
-- The complete subtrees of 16 leaves and more that end within these leaves. The first leaf is the one at `first`, a multiple
-- of 16. A subtree that begins before it takes its left half from what is stored.
create or replace function tms._tree_grow(first bigint, leaves bytea[]) returns table (level smallint, index bigint, hash bytea)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  below bytea[] := leaves;
  above bytea[];
  base bigint := first;
  l smallint := 0;
  sibling bytea;
begin
  while cardinality(below) > 0 loop
    if l >= 4 then
      return query select l, base + u.k - 1, u.h from unnest(below) with ordinality u (h, k);
      if base % 2 = 1 then
        select n.hash into sibling from tms.ledger_nodes n where n.level = l and n.index = base - 1;
        below := sibling || below;
        base := base - 1;
      end if;
    end if;
    above := '{}';
    for k in 1 .. cardinality(below) / 2 loop
      above[k] := sha256('\x01'::bytea || below[2 * k - 1] || below[2 * k]);
    end loop;
    below := above;
    base := base / 2;
    l := l + 1;
  end loop;
end
$$;

-- The hash of leaves [low, high), where low is a multiple of the smallest power of two that holds the range: the ranges of
-- RFC 6962. Null when a leaf or a node is missing.
create or replace function tms._tree_hash(low bigint, high bigint) returns bytea
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  parts bytea[] := '{}';
  below bytea[];
  part bytea;
  at bigint := low;
  l integer;
begin
  if high = low then return sha256(''); end if;
  while at < high loop
    l := 0;
    while (2::bigint << l) <= high - at loop l := l + 1; end loop;
    if l >= 4 then
      select n.hash into part from tms.ledger_nodes n where n.level = l and n.index = at >> l;
    else
      select array_agg(x.leaf order by x.seq) into below from tms.ledger x where x.seq >= at and x.seq < at + (1 << l);
      if cardinality(below) is distinct from 1 << l then return null; end if;
      while cardinality(below) > 1 loop
        below := array(select sha256('\x01'::bytea || below[2 * k - 1] || below[2 * k]) from generate_series(1, cardinality(below) / 2) k order by k);
      end loop;
      part := below[1];
    end if;
    parts := parts || part;
    at := at + (1::bigint << l);
  end loop;
  part := parts[cardinality(parts)];
  for k in reverse cardinality(parts) - 1 .. 1 loop
    part := sha256('\x01'::bytea || parts[k] || part);
  end loop;
  return part;
end
$$;

-- The largest power of two below n, for n > 1.
create or replace function tms._tree_split(n bigint) returns bigint
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  k bigint := 1;
begin
  while k * 2 < n loop k := k * 2; end loop;
  return k;
end
$$;

-- RFC 6962, 2.1.1: from the leaf upwards.
create or replace function tms._tree_inclusion(leaf bigint, size bigint) returns bytea[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  low bigint := 0;
  high bigint := size;
  k bigint;
  path bytea[] := '{}';
begin
  while high - low > 1 loop
    k := low + tms._tree_split(high - low);
    if leaf < k then
      path := tms._tree_hash(k, high) || path;
      high := k;
    else
      path := tms._tree_hash(low, k) || path;
      low := k;
    end if;
  end loop;
  return path;
end
$$;

-- RFC 6962, 2.1.2.
create or replace function tms._tree_consistency(older bigint, newer bigint) returns bytea[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  low bigint := 0;
  high bigint := newer;
  k bigint;
  path bytea[] := '{}';
begin
  if older = 0 or older = newer then return path; end if;
  while older < high loop
    k := low + tms._tree_split(high - low);
    if older <= k then
      path := tms._tree_hash(k, high) || path;
      high := k;
    else
      path := tms._tree_hash(low, k) || path;
      low := k;
    end if;
  end loop;
  -- the older tree itself needn't be named: whoever checks has its root
  if low > 0 then path := tms._tree_hash(low, high) || path; end if;
  return path;
end
$$;

-- Complete subtrees that cover [low, high), left to right: what a reader of some rows needs of all others.
create or replace function tms._tree_cover(low bigint, high bigint) returns bytea[]
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  at bigint := low;
  l integer;
  cover bytea[] := '{}';
begin
  while at < high loop
    l := 0;
    while (at >> l) % 2 = 0 and (2::bigint << l) <= high - at loop l := l + 1; end loop;
    cover := cover || tms._tree_hash(at, at + (1::bigint << l));
    at := at + (1::bigint << l);
  end loop;
  return cover;
end
$$;

create or replace function tms._base64(hashes bytea[]) returns jsonb
language sql immutable as $$
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.encode(u.h, 'base64') order by u.k), '[]') from pg_catalog.unnest(hashes) with ordinality u (h, k)
$$;

-- ---------------------------------------------------------------------------------------------- sealing
-- What waits to be sealed: committed, and visible to this statement. The cursor skips what is known to be sealed; behind it
-- each row is looked up. Whoever calls this turns sorting off: it must read the index in its order and stop, and the planner,
-- which can't know where the cursor stands, would rather sort the whole backlog for each batch. `cap` leaves out rows of transactions that this server hasn't had yet: they came with a restore, and
-- were sealed by the pass that follows one.
create or replace function tms._unsealed(s tms.ledger_sealer, cap xid8, most integer) returns setof tms.ledger_inbox
language sql stable as $$
  select i.* from tms.ledger_inbox i
   where (i.xid, i.id) > (s.xid, s.inbox_id) and i.xid <= cap
     -- not as a join: that read the whole ledger to seal one row
     and (select l.seq from tms.ledger l where l.inbox_id = i.id) is null
   order by i.xid, i.id limit most
$$;

-- How many rows wait and since when, of those the caller sees. Counted up to a thousand: behind a backlog of a million, counting
-- took as long as sealing.
create or replace function tms._ledger_pending(out pending bigint, out oldest timestamptz)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off set enable_sort = off as $$
begin
  select count(*), min(u.at) into pending, oldest
    from tms.ledger_sealer s, tms._unsealed(s, pg_snapshot_xmax(pg_current_snapshot()), 1000) u;
end
$$;

-- Finished runs enter the ledger as a digest of their digests, at most one row for each quarter of an hour.
create or replace function tms._fold_runs(c tms.call, s tms.ledger_sealer) returns tms.ledger_sealer
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  quarter timestamptz := date_bin('15 minutes', tms.now(), '2000-01-01 00:00+00');
  d record;
begin
  if quarter <= s.digest_at then return s; end if;
  select count(*) as n, min(x.id) as first, max(x.id) as last, min(x.from_xid) as low, max(x.to_xid) as high, sum(x.runs)::bigint as runs
    into d from (select * from tms.run_digests r where r.id > s.digest_id order by r.id limit 10000) x;
  if d.n = 0 then return s; end if;
  s.digest_id := d.last;
  s.digest_at := quarter;
  perform tms._record(c, 'runs.digest', 'done', 'runs', '', jsonb_build_object('digest', tms._digest_of(d.first, d.last), 'first', d.first::text, 'last', d.last::text,
    'from_xid', d.low::text, 'to_xid', d.high::text, 'runs', d.runs::text));
  return s;
end
$$;

create or replace function tms._digest_of(first bigint, last bigint) returns text
language sql stable as $$
  select tms._sha256(string_agg(pg_catalog.concat_ws(' ', x.id, x.from_xid, x.to_xid, x.runs, x.sha256), E'\n' order by x.id))
    from tms.run_digests x where x.id between first and last
$$;

-- Seals up to `most` rows and answers how many. Only one at a time: the caller holds the latch. Takes every row it can see, so an
-- open transaction holds back its own rows and nobody else's; the horizon only says from where to look next time.
create or replace function tms._seal(s tms.ledger_sealer, most integer) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_sort = off as $$
declare
  -- before the batch is read: whatever ended before it is in the batch
  horizon xid8 := pg_snapshot_xmin(pg_current_snapshot());
  cap xid8 := greatest(pg_snapshot_xmax(pg_current_snapshot()), pg_current_xact_id());
  here text := (select x.system_identifier::text from pg_control_system() x);
  before text := repeat('0', 64);
  prev text;
  line bytea;
  last_xid xid8;
  last_id bigint;
  ids bigint[];
  rests text[];
  hashes text[] := '{}';
  leaves bytea[] := '{}';
  n integer;
begin
  if s.cluster <> here and s.resume_xid is null then
    s.xid := '0';
    s.inbox_id := 0;
    s.resume_xid := horizon;
  end if;
  if s.resume_xid is not null then cap := '18446744073709551615'; end if;
  if s.size > 0 then select l.row_hash into before from tms.ledger l where l.seq = s.size - 1; end if;

  -- In the order of their ids, as long as one batch holds all that waits; a longer backlog is cut by transaction.
  with batch as materialized (select * from tms._unsealed(s, cap, most))
  select array_agg(b.id order by b.id),
         array_agg(tms._ledger_rest(b.id, b.at, b.who, b.credential, b.role, b.fn, b.action, b.outcome, b.company_id, b.subject, b.why, b.trace_id, b.body_sha256) order by b.id),
         count(*)
    into ids, rests, n from batch b;

  if n > 0 then
    -- Arrays and a loop: each hash needs the one before. 50,000 rows take about a third of a second.
    prev := before;
    for k in 1 .. n loop
      line := convert_to(tms._ledger_line(s.size + k - 1, prev, rests[k]), 'UTF8');
      prev := encode(sha256(line), 'hex');
      hashes[k] := prev;
      leaves[k] := sha256('\x00'::bytea || line);
    end loop;
    insert into tms.ledger (seq, inbox_id, prev_hash, row_hash, leaf)
      select s.size + u.k - 1, u.id, lag(u.hash, 1, before) over (order by u.k), u.hash, u.leaf
        from unnest(ids, hashes, leaves) with ordinality u (id, hash, leaf, k);
    insert into tms.ledger_nodes (level, index, hash)
      select g.level, g.index, g.hash
        from tms._tree_grow(s.size & ~15::bigint, array(select l.leaf from tms.ledger l where l.seq >= (s.size & ~15::bigint) and l.seq < s.size order by l.seq) || leaves) g
       -- what isn't aligned begins with leaves whose subtrees stand already
       where (g.index + 1) << g.level > s.size;
    s.size := s.size + n;
  end if;

  if n = most then
    select i.xid, i.id into last_xid, last_id from tms.ledger_inbox i where i.id = any (ids) order by i.xid desc, i.id desc limit 1;
  end if;
  if n = most and (last_xid < horizon or s.resume_xid is not null) then
    s.xid := last_xid;
    s.inbox_id := last_id;
  elsif n < most and s.resume_xid is not null then
    s.xid := s.resume_xid;
    s.inbox_id := 0;
    s.resume_xid := null;
    s.cluster := here;
  else
    s.xid := horizon;
    s.inbox_id := 0;
  end if;
  update tms.ledger_sealer set size = s.size, xid = s.xid, inbox_id = s.inbox_id, cluster = s.cluster, resume_xid = s.resume_xid,
    digest_id = s.digest_id, digest_at = s.digest_at;
  return n;
end
$$;

-- Gives what waits its place. Without a request id: whoever asks again seals what is still to be sealed. `everything` looks
-- through the whole inbox for rows that were missed.
create or replace function tms.ledger_seal(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_seal', args, '{limit,everything}', 'ledger.seal');
  most integer := least(greatest(coalesce((args ->> 'limit')::integer, 10000), 1), 100000);
  s tms.ledger_sealer;
  n integer := 0;
  there bigint;
begin
  if c.answer is not null then return c.answer; end if;
  -- Losing a sealed row in a crash after its checkpoint went out would look like a cut tail ever after.
  perform set_config('synchronous_commit', 'on', true);
  if not tms._latch('ledger', false) then
    return tms._seal_answer(0, true, false);
  end if;
  select * into s from tms.ledger_sealer;
  there := (select coalesce(max(l.seq) + 1, 0) from tms.ledger l);
  if there <> s.size then
    perform tms._security_ledger_broken(jsonb_build_object('rows', there::text, 'sealed', s.size::text), c.who);
    return tms._refuse(c, 'CONFLICT', format('the ledger has %s rows, and %s were sealed', there, s.size),
      'its end was cut off or added to behind the sealer''s back; going on would cover that up', array['tms ledger verify']);
  end if;
  if coalesce((args ->> 'everything')::boolean, false) then
    s.cluster := '';
    s.resume_xid := null;
  end if;
  s := tms._fold_runs(c, s);
  n := tms._seal(s, most);
  return tms._seal_answer(n, false, n = most);
end
$$;
grant execute on function tms.ledger_seal(jsonb) to tms_caller;

create or replace function tms._seal_answer(sealed integer, busy boolean, more boolean) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return (select jsonb_build_object('sealed', sealed, 'busy', busy, 'more', more, 'size', s.size::text, 'pending', p.pending::text,
      'oldest_pending_seconds', floor(extract(epoch from clock_timestamp() - p.oldest))::bigint)
    from tms.ledger_sealer s, tms._ledger_pending() p);
end
$$;

-- ---------------------------------------------------------------------------------------------- heads, proofs, checkpoints
-- For whoever may do anything here at all: hashes say nothing about anybody.
create or replace function tms._begin_public(fn text, args jsonb, allowed text[]) returns tms.call
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin(fn, args, allowed, null);
begin
  if c.answer is null and tms._operations_json(c.principal_id) = '[]' then
    c.answer := tms._refuse(c, 'ROLE_DENIED', format('%s may do nothing here', c.who), 'none of its roles grants an operation', array['tms whoami']);
  end if;
  return c;
end
$$;

create or replace function tms._out_of_tree(c tms.call, size bigint) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  return tms._refuse(c, 'NOT_FOUND', format('the ledger has %s sealed rows', size), 'what was asked for lies beyond', array['tms ledger seal', 'tms ledger tail']);
end
$$;

-- The tree now, or as it was when it had `size` rows.
create or replace function tms.ledger_head(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_public('ledger_head', args, '{size}');
  sealed bigint := (select coalesce(max(l.seq) + 1, 0) from tms.ledger l);
  size bigint := coalesce((args ->> 'size')::bigint, sealed);
  p record;
begin
  if c.answer is not null then return c.answer; end if;
  if size < 0 or size > sealed then return tms._out_of_tree(c, sealed); end if;
  -- who doesn't see all rows can't know how many wait
  if tms._sees_all() then select * into p from tms._ledger_pending(); else select null::bigint as pending, null::timestamptz as oldest into p; end if;
  return jsonb_build_object('origin', tms._ledger_origin(), 'size', size::text, 'sealed', sealed::text, 'root', encode(tms._tree_hash(0, size), 'base64'),
    'pending', p.pending::text, 'oldest_pending_seconds', floor(extract(epoch from clock_timestamp() - p.oldest))::bigint);
end
$$;
grant execute on function tms.ledger_head(jsonb) to tms_caller;

-- That row `index` is in the tree of `size` rows.
create or replace function tms.ledger_proof(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_public('ledger_proof', args, '{index,size}');
  sealed bigint := (select coalesce(max(l.seq) + 1, 0) from tms.ledger l);
  size bigint := (args ->> 'size')::bigint;
  index bigint := (args ->> 'index')::bigint;
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(size > sealed or index >= size or index < 0, true) then return tms._out_of_tree(c, sealed); end if;
  return jsonb_build_object('hashes', tms._base64(tms._tree_inclusion(index, size)), 'root', encode(tms._tree_hash(0, size), 'base64'),
    'leaf', (select encode(l.leaf, 'base64') from tms.ledger l where l.seq = index));
end
$$;
grant execute on function tms.ledger_proof(jsonb) to tms_caller;

-- That the tree of `to` rows begins with the tree of `from` rows.
create or replace function tms.ledger_consistency(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_public('ledger_consistency', args, '{from,to}');
  sealed bigint := (select coalesce(max(l.seq) + 1, 0) from tms.ledger l);
  low bigint := (args ->> 'from')::bigint;
  high bigint := (args ->> 'to')::bigint;
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(high > sealed or low > high or low < 0, true) then return tms._out_of_tree(c, sealed); end if;
  return jsonb_build_object('hashes', tms._base64(tms._tree_consistency(low, high)), 'from_root', encode(tms._tree_hash(0, low), 'base64'),
    'to_root', encode(tms._tree_hash(0, high), 'base64'));
end
$$;
grant execute on function tms.ledger_consistency(jsonb) to tms_caller;

-- Complete subtrees before row `from` and from row `to` up to `size`: with the rows between them they make the root.
create or replace function tms.ledger_cover(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_public('ledger_cover', args, '{from,to,size}');
  sealed bigint := (select coalesce(max(l.seq) + 1, 0) from tms.ledger l);
  low bigint := (args ->> 'from')::bigint;
  high bigint := (args ->> 'to')::bigint;
  size bigint := (args ->> 'size')::bigint;
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(size > sealed or high > size or low > high or low < 0, true) then return tms._out_of_tree(c, sealed); end if;
  return jsonb_build_object('before', tms._base64(tms._tree_cover(0, low)), 'after', tms._base64(tms._tree_cover(high, size)));
end
$$;
grant execute on function tms.ledger_cover(jsonb) to tms_caller;

-- The form of a signed note's line: an em dash, a name, base64 of so many bytes.
create or replace function tms._note_line(line text, bytes integer) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
  part text[] := regexp_match(line, '^— ([^ +]+) ([A-Za-z0-9+/]+={0,2})$');
begin
  if part is null or length(part[2]) % 4 <> 0 or translate(encode(decode(part[2], 'base64'), 'base64'), E'\n', '') <> part[2]
     or length(decode(part[2], 'base64')) <> bytes then
    return null;
  end if;
  return part[1];
end
$$;

-- What names a key of the log in a note: it is made of the origin and the key's 32 bytes, the last ones of its PEM.
create or replace function tms._note_key_id(fingerprint text) returns bytea
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  pem text := (select k.public_pem from tms.signing_keys k where k.fingerprint = _note_key_id.fingerprint);
begin
  return substr(sha256(convert_to(tms._ledger_origin(), 'UTF8') || '\x0a01'::bytea
    || substr(decode(regexp_replace(pem, '-----[A-Z ]+-----|\s', '', 'g'), 'base64'), 13, 32)), 1, 4);
end
$$;

create or replace function tms._checkpoint_json(x tms.ledger_checkpoints) returns jsonb
language sql stable as $$
  select jsonb_build_object('id', x.id::text, 'size', x.size::text, 'root', pg_catalog.encode(x.root, 'base64'), 'key', x.key, 'at', tms._utc(x.at), 'note', x.note,
    'witnesses', (select coalesce(pg_catalog.jsonb_agg(w.line order by w.id), '[]') from tms.ledger_witnesses w where w.checkpoint_id = x.id))
$$;

-- Stores a checkpoint that was signed elsewhere: the private key never gets here. Signatures are verified by whoever has the
-- public key; this looks at form, at
-- the tree, and at whether the key may sign now.
create or replace function tms.ledger_checkpoint_add(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_checkpoint_add', args, '{request_id,note,size,root,key}', 'ledger.seal');
  sealed bigint := (select coalesce(max(l.seq) + 1, 0) from tms.ledger l);
  covers bigint := (args ->> 'size')::bigint;
  note text := args ->> 'note';
  problem text;
  body text;
  x tms.ledger_checkpoints;
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(args ->> 'key', '') !~ '^[0-9a-f]{64}$' then raise exception '"key" is a fingerprint: 64 hexadecimal digits' using errcode = 'TM400'; end if;
  if coalesce(covers < 1 or covers > sealed, true) then return tms._out_of_tree(c, sealed); end if;
  if args ->> 'root' is distinct from encode(tms._tree_hash(0, covers), 'base64') then
    return tms._refuse(c, 'CONFLICT', format('that is not the root of the first %s rows', covers), 'it was made for another ledger, or one of them was changed', array['tms ledger verify']);
  end if;
  problem := tms._signing_key_problem(args ->> 'key');
  if problem is not null then
    return tms._refuse(c, 'SIGNATURE_INVALID', format('the key %s… may not sign', left(args ->> 'key', 16)), problem, array['tms evidence keys list']);
  end if;
  body := format(E'%s\n%s\n%s\n\n', tms._ledger_origin(), covers, args ->> 'root');
  if left(coalesce(note, ''), length(body)) <> body or right(note, 1) <> E'\n' or length(note) > 10000
     or not exists (select from regexp_split_to_table(rtrim(substr(note, length(body) + 1), E'\n'), E'\n') l
                     where tms._note_line(l, 68) = tms._ledger_origin() and substr(decode(split_part(l, ' ', 3), 'base64'), 1, 4) = tms._note_key_id(args ->> 'key')) then
    return tms._refuse(c, 'SIGNATURE_INVALID', 'that is no signed note of this root', 'it needs origin, size, root, an empty line, and a signature by this key in the name of the origin', array['tms ledger checkpoint']);
  end if;
  perform set_config('synchronous_commit', 'on', true);
  insert into tms.ledger_checkpoints (size, root, note, key, by_name) values (covers, decode(args ->> 'root', 'base64'), note, args ->> 'key', c.who)
    on conflict on constraint ledger_checkpoints_size_key_key do nothing returning * into x;
  if x.id is null then
    select * into x from tms.ledger_checkpoints y where y.size = covers and y.key = args ->> 'key';
    return tms._finish(c, tms._checkpoint_json(x) || '{"first": false}');
  end if;
  perform tms._record(c, 'ledger.checkpoint', 'done', 'size ' || covers, '', jsonb_build_object('size', covers::text, 'root', args ->> 'root', 'key', x.key));
  return tms._finish(c, tms._checkpoint_json(x) || '{"first": true}');
end
$$;
grant execute on function tms.ledger_checkpoint_add(jsonb) to tms_caller;

create or replace function tms.ledger_witness_add(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_witness_add', args, '{request_id,size,root,line}', 'ledger.seal');
  name text := tms._note_line(args ->> 'line', 76);
  x tms.ledger_checkpoints;
begin
  if c.answer is not null then return c.answer; end if;
  if name is null then
    return tms._refuse(c, 'SIGNATURE_INVALID', 'that is no line of a witness', 'it is an em dash, a name, and base64 of key id, time and signature', array['tms ledger witness --help']);
  end if;
  -- what a witness signs is origin, size and root, whoever else signed it
  select * into x from tms.ledger_checkpoints y where y.size = (args ->> 'size')::bigint and encode(y.root, 'base64') = args ->> 'root' order by y.id limit 1;
  if x.id is null then
    return tms._refuse(c, 'NOT_FOUND', 'this checkpoint is not stored here', 'a witness signs one that is', array['tms ledger checkpoint']);
  end if;
  insert into tms.ledger_witnesses (checkpoint_id, name, line, by_name) values (x.id, name, args ->> 'line', c.who) on conflict do nothing;
  if found then
    perform tms._record(c, 'ledger.witness', 'done', 'size ' || x.size, '', jsonb_build_object('size', x.size::text, 'root', args ->> 'root', 'witness', name));
  end if;
  return tms._finish(c, tms._checkpoint_json(x));
end
$$;
grant execute on function tms.ledger_witness_add(jsonb) to tms_caller;

-- The newest ones, or from the first that covers `at_least` rows.
create or replace function tms.ledger_checkpoints(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin_public('ledger_checkpoints', args, '{limit,at_least}');
begin
  if c.answer is not null then return c.answer; end if;
  if args ->> 'at_least' is not null then
    return jsonb_build_object('checkpoints', (select coalesce(jsonb_agg(tms._checkpoint_json(x) order by x.size, x.id), '[]')
      from (select * from tms.ledger_checkpoints y where y.size >= (args ->> 'at_least')::bigint order by y.size, y.id limit tms._limit(args)) x));
  end if;
  return jsonb_build_object('checkpoints', (select coalesce(jsonb_agg(tms._checkpoint_json(x) order by x.size desc, x.id desc), '[]')
    from (select * from tms.ledger_checkpoints y order by y.size desc, y.id desc limit tms._limit(args)) x));
end
$$;
grant execute on function tms.ledger_checkpoints(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- reading
create or replace function tms.ledger_tail(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_tail', args, '{tenant,limit,before}', 'audit.read');
  visible uuid[] := tms._allowed('audit.read');
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('rows', (
    select coalesce(jsonb_agg(jsonb_build_object(
             'id', r.id::text, 'seq', (select l.seq::text from tms.ledger l where l.inbox_id = r.id), 'at', tms._utc(r.at),
             'who', case when tms._clear(c, r.company_id) then r.who else 'redacted' end, 'role', r.role,
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

-- One sealed row with everything it says. What isn't the caller's to see doesn't exist for it.
create or replace function tms.ledger_show(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_show', args, '{seq}', 'audit.read');
  visible uuid[] := tms._allowed('audit.read');
  l tms.ledger;
  r tms.ledger_inbox;
  clear boolean;
begin
  if c.answer is not null then return c.answer; end if;
  select * into l from tms.ledger x where x.seq = (args ->> 'seq')::bigint;
  select * into r from tms.ledger_inbox x where x.id = l.inbox_id and (visible is null or x.company_id = any (visible));
  if r.id is null then
    return tms._refuse(c, 'NOT_FOUND', format('there is no row %s', left(args ->> 'seq', 20)), 'it is not sealed yet, or it is not yours to see', array['tms ledger tail']);
  end if;
  clear := tms._clear(c, r.company_id);
  return jsonb_build_object('seq', l.seq::text, 'id', r.id::text, 'at', tms._utc(r.at), 'sealed_at', tms._utc(l.sealed_at),
    'who', case when clear then r.who else 'redacted' end, 'credential', case when clear then r.credential else 'redacted' end, 'role', r.role, 'fn', r.fn,
    'action', r.action, 'outcome', r.outcome, 'tenant', tms._tenant_key(r.company_id),
    'subject', case when clear or r.outcome = 'refused' or r.action like 'flag.%' then r.subject else 'redacted' end,
    'why', case when clear then r.why else 'redacted' end, 'trace_id', r.trace_id, 'body', case when clear then r.body end, 'body_sha256', r.body_sha256,
    'prev_hash', l.prev_hash, 'row_hash', l.row_hash, 'leaf', encode(l.leaf, 'base64'),
    'line', case when clear then tms._ledger_line(l.seq, l.prev_hash, tms._ledger_rest(r.id, r.at, r.who, r.credential, r.role, r.fn, r.action, r.outcome, r.company_id,
      r.subject, r.why, r.trace_id, r.body_sha256)) end);
end
$$;
grant execute on function tms.ledger_show(jsonb) to tms_caller;

-- Rows [from, to) as they are exported: line, subject, why, body, row hash, leaf. Of rows that the caller may not see, or only
-- redacted, the hashes alone: the line names a person. For programs that read all of it: no names of columns, no request for each row.
create or replace function tms.ledger_lines(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_lines', args, '{from,to}', 'audit.read');
  visible uuid[] := tms._allowed('audit.read');
  low bigint := (args ->> 'from')::bigint;
  high bigint := least((args ->> 'to')::bigint, low + 5000);
begin
  if c.answer is not null then return c.answer; end if;
  return jsonb_build_object('rows', (
    select coalesce(jsonb_agg(jsonb_build_array(
        case when k.clear then tms._ledger_line(k.seq, k.prev_hash, tms._ledger_rest(k.id, k.at, k.who, k.credential, k.role, k.fn, k.action, k.outcome, k.company_id,
          k.subject, k.why, k.trace_id, k.body_sha256)) end,
        case when k.clear then k.subject end, case when k.clear then k.why end, case when k.clear then k.body end, k.row_hash, encode(k.leaf, 'base64')) order by k.seq), '[]')
      from (select l.seq, l.prev_hash, l.row_hash, l.leaf, r.*,
                   r.id is not null and (visible is null or r.company_id = any (visible)) and tms._clear(c, r.company_id) as clear
              from tms.ledger l left join tms.ledger_inbox r on r.id = l.inbox_id where l.seq >= low and l.seq < high) k));
end
$$;
grant execute on function tms.ledger_lines(jsonb) to tms_caller;

-- ---------------------------------------------------------------------------------------------- verification
-- Rows [from, to): line, chain, leaf, body, and the subtrees that end in them. Findings are counted, and the first hundred named.
create or replace function tms.ledger_verify(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_verify', args, '{from,to}', 'ledger.seal');
  low bigint := greatest((args ->> 'from')::bigint, 0) & ~15::bigint;
  high bigint := least((args ->> 'to')::bigint, low + 65536, (select coalesce(max(l.seq) + 1, 0) from tms.ledger l));
  ids int8range;
  leaves bytea[];
  checked bigint;
  wrong jsonb[];
  prev text := repeat('0', 64);
begin
  if c.answer is not null then return c.answer; end if;
  if low > 0 then select l.row_hash into prev from tms.ledger l where l.seq = low - 1; end if;
  -- Both sides of the join as ranges, so that neither is looked up row by row. The zeros keep the planner from looking for the
  -- smallest id of all, which reads everything before this piece.
  select int8range(min(l.inbox_id + 0), max(l.inbox_id + 0), '[]') into ids from tms.ledger l where l.seq >= low and l.seq < high;
  with sealed as (
    select l.seq, l.inbox_id, l.prev_hash, l.row_hash, l.leaf, lag(l.row_hash, 1, prev) over w as before, lag(l.seq, 1, low - 1) over w as follows
      from tms.ledger l where l.seq >= low and l.seq < high window w as (order by l.seq)
  ), read as (
    select s.*, r.id, r.action, r.body, r.body_sha256,
           convert_to(tms._ledger_line(s.seq, s.prev_hash, tms._ledger_rest(r.id, r.at, r.who, r.credential, r.role, r.fn, r.action, r.outcome, r.company_id,
             r.subject, r.why, r.trace_id, r.body_sha256)), 'UTF8') as line
      from sealed s left join tms.ledger_inbox r on r.id = s.inbox_id and r.id >= lower(ids) and r.id < upper(ids)
    offset 0 -- each line is made once and not wherever it is used
  ), judged as (
    select k.seq, case
        when k.follows <> k.seq - 1 then jsonb_build_object('kind', 'gap', 'from', (k.follows + 1)::text, 'to', (k.seq - 1)::text)
        when k.id is null then jsonb_build_object('kind', 'missing', 'id', k.inbox_id::text)
        when encode(sha256(convert_to(k.body, 'UTF8')), 'hex') <> k.body_sha256 then jsonb_build_object('kind', 'body')
        when k.row_hash <> encode(sha256(k.line), 'hex') then jsonb_build_object('kind', 'line', 'expected', k.row_hash, 'found', encode(sha256(k.line), 'hex'))
        when k.prev_hash <> k.before then jsonb_build_object('kind', 'chain', 'expected', k.before, 'found', k.prev_hash)
        when k.leaf <> sha256('\x00'::bytea || k.line) then jsonb_build_object('kind', 'leaf')
        when k.action = 'runs.digest' and not tms._digest_holds(k.body) then jsonb_build_object('kind', 'runs')
      end as wrong
      from read k
  )
  select count(*), array_agg(j.wrong || jsonb_build_object('seq', j.seq::text) order by j.seq) filter (where j.wrong is not null)
    into checked, wrong from judged j;
  leaves := array(select l.leaf from tms.ledger l where l.seq >= low and l.seq < high order by l.seq);
  wrong := coalesce(wrong, '{}') || coalesce((
    select array_agg(jsonb_build_object('kind', 'node', 'seq', (g.index << g.level)::text, 'level', g.level) order by g.level, g.index)
      from tms._tree_grow(low, leaves) g
     -- not as a join: that read the whole tree to look at a piece of it
     where (select n.hash from tms.ledger_nodes n where n.level = g.level and n.index = g.index) is distinct from g.hash), '{}');
  return jsonb_build_object('from', low::text, 'to', high::text, 'checked', checked::text, 'wrong', cardinality(wrong)::text, 'findings', to_jsonb(wrong[1:100]));
end
$$;
grant execute on function tms.ledger_verify(jsonb) to tms_caller;

-- Whether the digests that a row of the ledger speaks of are still what they were.
create or replace function tms._digest_holds(body text) returns boolean
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  b jsonb := body::jsonb;
begin
  return tms._digest_of((b ->> 'first')::bigint, (b ->> 'last')::bigint) is not distinct from b ->> 'digest';
exception when others then return false;
end
$$;

-- Rows of the inbox with ids in [from, to): those that should be sealed and aren't.
create or replace function tms.ledger_verify_inbox(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_verify_inbox', args, '{from,to}', 'ledger.seal');
  low bigint := (args ->> 'from')::bigint;
  high bigint := least((args ->> 'to')::bigint, low + 200000);
begin
  if c.answer is not null then return c.answer; end if;
  return (
    select jsonb_build_object('from', low::text, 'to', high::text, 'checked', count(*)::text, 'end', (select coalesce(max(x.id) + 1, 0)::text from tms.ledger_inbox x),
        'unsealed', count(*) filter (where u.old)::text, 'first_id', (min(u.id) filter (where u.old))::text, 'last_id', (max(u.id) filter (where u.old))::text,
        'oldest', tms._utc(min(u.at) filter (where u.old)))
      from (select r.id, r.at, l.inbox_id is null and r.at < clock_timestamp() - interval '1 minute' as old
              from (select x.id, x.at from tms.ledger_inbox x where x.id >= low and x.id < high) r
              left join (select y.inbox_id from tms.ledger y where y.inbox_id >= low and y.inbox_id < high) l on l.inbox_id = r.id) u);
end
$$;
grant execute on function tms.ledger_verify_inbox(jsonb) to tms_caller;

-- What concerns the ledger as a whole: its end, the number of nodes, and the stored checkpoints against the tree.
create or replace function tms.ledger_verify_end(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('ledger_verify_end', args, '{}', 'ledger.seal');
  answer jsonb;
begin
  if c.answer is not null then return c.answer; end if;
  -- one statement, one snapshot: the sealer may be at work
  select jsonb_build_object('origin', tms._ledger_origin(), 'rows', l.rows::text, 'size', l.size::text, 'sealed', s.size::text,
      'nodes_beyond', (select count(*) from tms.ledger_nodes n where (n.index + 1) << n.level > l.size)::text,
      'checkpoints', (select count(*) from tms.ledger_checkpoints)::text,
      'findings', (select coalesce(jsonb_agg(jsonb_build_object('kind', case when x.size > l.size then 'cut' else 'rewritten' end, 'size', x.size::text, 'at', tms._utc(x.at),
                      'expected', encode(x.root, 'base64'), 'found', case when x.size <= l.size then encode(tms._tree_hash(0, x.size), 'base64') end) order by x.size), '[]')
                     from (select y.* from tms.ledger_checkpoints y
                            where y.size > l.size or y.root is distinct from tms._tree_hash(0, y.size)
                               or not starts_with(y.note, format(E'%s\n%s\n%s\n\n', tms._ledger_origin(), y.size, encode(y.root, 'base64')))
                            order by y.size limit 100) x))
    into answer
    from tms.ledger_sealer s, (select count(*) as rows, coalesce(max(x.seq) + 1, 0) as size from tms.ledger x) l;
  return answer;
end
$$;
grant execute on function tms.ledger_verify_end(jsonb) to tms_caller;
