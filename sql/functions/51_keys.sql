-- Keys that sign evidence: public halves, who introduced whom, and until when.
--
-- Guarantees: no private half gets in; one key is in force at a time; a key is introduced by the one in force, or begins a
-- chain when none is; a revoked key stays revoked; each of it is in the ledger.

set local role tms_owner;

create or replace function tms._signing_key_json(k tms.signing_keys, with_why boolean) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  select jsonb_build_object('fingerprint', k.fingerprint, 'public_pem', k.public_pem, 'not_before', tms._utc(k.not_before),
    'not_after', tms._utc(k.not_after), 'introduced_by', k.introduced_by, 'introduction', k.introduction, 'state', k.state,
    'added_at', tms._utc(k.added_at), 'ended_at', tms._utc(k.ended_at), 'revoked_at', tms._utc(k.revoked_at),
    'why', case when with_why then k.why end)
$$;

-- Why this key may not sign now; null when it may. For the functions that take a signature in.
create or replace function tms._signing_key_problem(fingerprint text) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  k tms.signing_keys;
begin
  select * into k from tms.signing_keys s where s.fingerprint = _signing_key_problem.fingerprint;
  return case
    when k.fingerprint is null then 'this database does not know the key'
    when k.state = 'retired' then format('another key took over at %s', tms._utc(k.ended_at))
    when k.state = 'revoked' then format('it was revoked at %s', tms._utc(k.revoked_at))
    when tms.now() < k.not_before then format('it is valid from %s', tms._utc(k.not_before))
    when tms.now() > k.not_after then format('it was valid until %s', tms._utc(k.not_after))
  end;
end
$$;

-- A moment as it is signed: the one way tms writes it.
create or replace function tms._signed_moment(args jsonb, name text) returns timestamptz
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  value text := args ->> name;
begin
  if coalesce(value, '') !~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$' then
    raise exception '"%" is UTC with six digits: 2026-11-20T09:30:00.123456Z', name using errcode = 'TM400';
  end if;
  return value::timestamptz;
end
$$;

-- Public halves are everybody's to read: whoever verifies needs them. Why one was revoked is for those who manage them.
create or replace function tms.keys_list(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('keys_list', args, '{}', null);
  manages boolean;
begin
  if c.answer is not null then return c.answer; end if;
  manages := exists (select from tms._grants('evidence.keys'));
  return jsonb_build_object(
    'now', tms._utc(tms.now()),
    -- what `init` noted down before keys had a table
    'announced', (select e.signing_key_fingerprint from tms.environment e where e.one),
    'keys', (select coalesce(jsonb_agg(tms._signing_key_json(k, manages) order by k.added_at, k.fingerprint), '[]') from tms.signing_keys k));
end
$$;
grant execute on function tms.keys_list(jsonb) to tms_caller;

create or replace function tms.keys_add(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('keys_add', args, '{request_id,fingerprint,public_pem,not_before,not_after,introduced_by,introduction}', 'evidence.keys');
  pem text := args ->> 'public_pem';
  der bytea;
  print text := args ->> 'fingerprint';
  older text := args ->> 'introduced_by';
  since timestamptz;
  until timestamptz;
  in_force tms.signing_keys;
  made tms.signing_keys;
begin
  if c.answer is not null then return c.answer; end if;
  if coalesce(pem, '') !~ '^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/]{59}=\n-----END PUBLIC KEY-----\n$' then
    raise exception '"public_pem" is an Ed25519 public key in PEM' using errcode = 'TM400';
  end if;
  der := decode(split_part(pem, E'\n', 2), 'base64');
  if octet_length(der) <> 44 or substr(der, 1, 12) <> '\x302a300506032b6570032100'::bytea or encode(der, 'base64') <> split_part(pem, E'\n', 2) then
    raise exception '"public_pem" is an Ed25519 public key in PEM' using errcode = 'TM400';
  end if;
  if print is distinct from encode(sha256(der), 'hex') then
    raise exception '"fingerprint" is the sha256 of the key' using errcode = 'TM400';
  end if;
  if coalesce(args ->> 'introduction', '') !~ '^[A-Za-z0-9+/]{86}==$' then
    raise exception '"introduction" is a signature of 64 bytes in base64' using errcode = 'TM400';
  end if;
  since := tms._signed_moment(args, 'not_before');
  until := tms._signed_moment(args, 'not_after');
  if since > tms.now() + interval '1 day' or since < tms.now() - interval '1 day' or until <= tms.now() or until <= since then
    raise exception 'a key is valid from now on, and for a while' using errcode = 'TM400';
  end if;
  if until > since + interval '1830 days' then
    raise exception 'a key is valid for five years at most' using errcode = 'TM400';
  end if;

  -- both of two at once would see no key in force
  lock table tms.signing_keys in share row exclusive mode;
  if exists (select from tms.signing_keys k where k.fingerprint = print) then
    return tms._refuse(c, 'CONFLICT', format('the key %s… is here already', left(print, 16)),
      'a key is registered once; one that is retired or revoked does not come back', array['tms evidence keys list']);
  end if;
  select * into in_force from tms.signing_keys k where k.state = 'valid';
  if older is null and in_force.fingerprint is not null then
    return tms._refuse(c, 'CONFLICT', format('the key %s… is in force', left(in_force.fingerprint, 16)),
      'a new one takes over by being introduced by it', array['tms evidence keys list', 'tms evidence keys rotate']);
  end if;
  if older is distinct from in_force.fingerprint then
    return tms._refuse(c, 'CONFLICT', format('the key %s… may not introduce another', left(older, 16)),
      coalesce(tms._signing_key_problem(older), 'it is not the key in force'), array['tms evidence keys list']);
  end if;

  update tms.signing_keys k set state = 'retired', ended_at = tms.now() where k.state = 'valid';
  insert into tms.signing_keys (fingerprint, public_pem, not_before, not_after, introduced_by, introduction, added_at)
    values (print, pem, since, until, older, args ->> 'introduction', tms.now()) returning * into made;
  perform tms._record(c, case when older is null then 'key.begin' else 'key.rotate' end, 'done', print, '', jsonb_build_object(
    'fingerprint', print, 'public_pem', pem, 'not_before', tms._utc(since), 'not_after', tms._utc(until),
    'introduced_by', older, 'introduction', made.introduction));
  return tms._finish(c, jsonb_build_object('key', tms._signing_key_json(made, true), 'retired', older));
end
$$;
grant execute on function tms.keys_add(jsonb) to tms_caller;

create or replace function tms.keys_revoke(args jsonb) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  c tms.call := tms._begin('keys_revoke', args, '{request_id,fingerprint,why}', 'evidence.keys');
  k tms.signing_keys;
begin
  if c.answer is not null then return c.answer; end if;
  select * into k from tms.signing_keys s where s.fingerprint = tms._text(args, 'fingerprint', 64) for update;
  if k.fingerprint is null then
    return tms._refuse(c, 'NOT_FOUND', 'this database does not know the key', 'a fingerprint is 64 hexadecimal digits',
      array['tms evidence keys list']);
  end if;
  if k.state = 'revoked' then
    return tms._refuse(c, 'CONFLICT', format('the key %s… was revoked at %s', left(k.fingerprint, 16), tms._utc(k.revoked_at)),
      'it stays revoked', array['tms evidence keys list']);
  end if;
  update tms.signing_keys s set state = 'revoked', revoked_at = tms.now(), ended_at = coalesce(s.ended_at, tms.now()), why = tms._text(args, 'why')
   where s.fingerprint = k.fingerprint returning * into k;
  perform tms._record(c, 'key.revoke', 'done', k.fingerprint, k.why, jsonb_build_object(
    'fingerprint', k.fingerprint, 'revoked_at', tms._utc(k.revoked_at)));
  return tms._finish(c, jsonb_build_object('key', tms._signing_key_json(k, true)));
end
$$;
grant execute on function tms.keys_revoke(jsonb) to tms_caller;
