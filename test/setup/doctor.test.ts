import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { readSqlFiles, type SqlFiles } from '../../src/db/files.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import { readCatalogue, type Catalogue } from '../../src/flags/catalogue.ts'
import { readAlarmTypes } from '../../src/incident/alarm-types.ts'
import { diagnose, verdict, type Patient } from '../../src/setup/doctor.ts'
import { initialise, type Initialisation } from '../../src/setup/init.ts'
import { claimEnvironment, forgetToken, rotateOverrideToken } from '../../src/setup/override-token.ts'
import { initView } from '../../src/setup/views.ts'
import { makePrivateKey } from '../../src/keys/private.ts'
import { postgresSubject, supabaseSubject, type Subject } from '../contract/subjects.ts'
import { sqlFolder } from '../servers/schema.ts'

const folder = mkdtempSync(join(tmpdir(), 'tms-doctor-'))
const tokenFile = join(folder, 'override-token.json')
const policies = join(import.meta.dirname, '../../policies')
let subject: Subject
let files: SqlFiles
let catalogue: Catalogue
let patient: Patient

const theInput = (): Initialisation => ({
  files,
  catalogue,
  environment: 'staging',
  defaultEnvironment: 'staging',
  operator: 'x',
  signing: { keysFolder: folder, environment: {} },
  tokenFile,
})
beforeAll(async () => {
  subject = await postgresSubject()
  files = await readSqlFiles(sqlFolder)
  catalogue = await readCatalogue([policies])
  const driver = await subject.operator()
  await initialise(driver, theInput())
  await forgetToken(tokenFile)
  await driver.close()
  patient = {
    nodeVersion: process.version,
    open: () => subject.operator(),
    files,
    catalogue: async () => catalogue,
    alarms: async () => ({ types: new Map(), problems: [] }),
    signing: { keysFolder: folder, environment: {} },
    configFile: null,
    warnings: [],
    stopFile: '/nowhere/stop',
    now: () => new Date(),
  }
})
afterAll(async () => {
  await subject.stop()
  rmSync(folder, { recursive: true, force: true })
})

async function problems(changed: Partial<Patient> = {}): Promise<string[]> {
  const opened: Driver[] = []
  const open = changed.open ?? patient.open
  const { checks } = await diagnose({
    ...patient,
    ...changed,
    open: async () => {
      const driver = await open()
      opened.push(driver)
      return driver
    },
  })
  for (const driver of opened) await driver.close()
  for (const check of checks) if (check.state !== 'ok') expect(check.next.length, check.check).toBeGreaterThan(0)
  return checks.filter(({ state }) => state !== 'ok').map(({ check, state }) => `${check}: ${state}`)
}

test('what alarms do is looked at before one comes', async () => {
  const broken = join(folder, 'policies')
  mkdirSync(broken, { recursive: true })
  writeFileSync(join(broken, 'incidents.yaml'), 'types:\n  emergency_stop: { level: low }\n')
  expect(await problems({ alarms: () => readAlarmTypes([broken]) })).toEqual(['alarms: problem'])
})

test('a sound system has no problem', async () => {
  expect(await problems()).toEqual([])
})

describe('each check finds what it is for:', () => {
  const body = (fn: string, text: string) => `create or replace function tms.${fn} language sql stable as $$ ${text} $$`

  test.each([
    [
      'row security',
      'alter table tms.signals no force row level security',
      'alter table tms.signals force row level security',
    ],
    ['owners', 'alter table tms.signals owner to current_user', 'alter table tms.signals owner to tms_owner'],
    ['owners', 'alter role tms_owner bypassrls', 'alter role tms_owner nobypassrls'],
    ['table grants', 'grant select on tms.signals to public', 'revoke select on tms.signals from public'],
    [
      'table grants',
      'grant select (why) on tms.ledger_inbox to public',
      'revoke select (why) on tms.ledger_inbox from public',
    ],
    [
      'function grants',
      'grant execute on function tms._gateway(name) to tms_caller',
      'revoke execute on function tms._gateway(name) from tms_caller',
    ],
    [
      'function rights',
      'alter function tms.flags_set(jsonb) security invoker',
      'alter function tms.flags_set(jsonb) security definer',
    ],
    [
      'function rights',
      'alter function tms._grants(text) reset search_path',
      'alter function tms._grants(text) set search_path = pg_catalog, pg_temp',
    ],
    [
      'policies',
      'create policy all_of_it on tms.feature_flags_v2 using (true)',
      'drop policy all_of_it on tms.feature_flags_v2',
    ],
    [
      'append-only',
      'alter table tms.ledger_inbox disable trigger append_only',
      'alter table tms.ledger_inbox enable always trigger append_only',
    ],
    [
      'guards',
      'alter table tms.safe_writes enable trigger at_commit',
      'alter table tms.safe_writes enable always trigger at_commit',
    ],
    ['owners', 'create role intruder login; grant tms_identity to intruder', 'drop role intruder'],
    [
      'dynamic SQL',
      'create role anon; create schema hidden; create function hidden.run(q text) returns void language plpgsql security definer as $$ begin execute q; end $$; create function public.report(q text) returns void language sql as $$ select hidden.run(q) $$; grant usage on schema public to anon',
      'drop function public.report(text); drop schema hidden cascade; revoke all on schema public from anon; drop role anon',
    ],
    [
      'dynamic SQL',
      'create role anon; create extension tablefunc; grant usage on schema public to anon',
      'drop extension tablefunc; revoke all on schema public from anon; drop role anon',
    ],
    [
      'function grants',
      'grant execute on function tms._utc(timestamptz) to public',
      'revoke execute on function tms._utc(timestamptz) from public',
    ],
    [
      'functions',
      body('now() returns timestamptz', `select pg_catalog.now() + interval '1 hour'`),
      body('now() returns timestamptz', 'select pg_catalog.now()'),
    ],
    [
      'functions',
      'create function tms.extra() returns int language sql as $$ select 1 $$; revoke execute on function tms.extra() from public; alter function tms.extra() owner to tms_owner',
      'drop function tms.extra()',
    ],
    [
      'schema',
      `update tms.schema_files set sha256 = 'x' || sha256 where name = '50_ledger.sql'`,
      `update tms.schema_files set sha256 = substr(sha256, 2) where name = '50_ledger.sql'`,
    ],
    [
      'flag catalogue',
      `update tms.flag_catalogue set catalogue_sha256 = 'x' || catalogue_sha256`,
      `update tms.flag_catalogue set catalogue_sha256 = substr(catalogue_sha256, 2)`,
    ],
    [
      'dynamic SQL',
      `create role anon; create function public.run_it(q text) returns void language plpgsql as $$ begin execute q; end $$; grant usage on schema public to anon`,
      `drop function public.run_it(text); revoke all on schema public from anon; drop role anon`,
    ],
  ])('%s (%#)', async (check, spoil, mend) => {
    await subject.sql(`${spoil}; select 1`)
    try {
      expect(await problems()).toContain(`${check}: problem`)
    } finally {
      await subject.sql(`${mend}; select 1`)
    }
    expect(await problems()).toEqual([])
  })

  test('service account keys, connection limits and powerful logins', async () => {
    const login = await subject.account('ci')
    await subject.sql(
      `alter role "${login}" connection limit -1; update tms.logins set expires_at = now() + interval '1 day' where name = '${login}'`,
    )
    expect(await problems()).toEqual(['service account keys: problem', 'connection limits: problem'])
    await subject.sql(
      `alter role "${login}" connection limit 5 bypassrls; update tms.logins set expires_at = now() + interval '60 days' where name = '${login}'`,
    )
    expect(await problems()).toEqual(['powerful logins: problem'])
    await subject.sql(`alter role "${login}" nobypassrls`)
    expect(await problems()).toEqual([])
  })

  test('an old transaction of another login, where it may be seen, and says so where not', async () => {
    await subject.sql('revoke pg_read_all_stats from tms_owner')
    expect(await problems()).toEqual(['old transactions: unknown'])
    await subject.sql('grant pg_read_all_stats to tms_owner')
    expect(await problems()).toEqual([])
  })

  test('an old Node, a wrong clock, a configuration that others can read', async () => {
    expect(await problems({ nodeVersion: 'v20.18.3' })).toEqual(['node: problem'])
    expect(await problems({ now: () => new Date(Date.now() + 120_000) })).toEqual(['clock: problem'])
    expect(await problems({ warnings: ['others can read it'] })).toEqual(['configuration: problem'])
  })

  test('a signing key that is absent, readable by others, or none', async () => {
    const other = mkdtempSync(join(folder, 'keys-'))
    expect(await problems({ signing: { keysFolder: other, environment: {} } })).toEqual(['signing key: problem'])
    const path = join(other, 'signing.pem')
    writeFileSync(path, makePrivateKey(), { mode: 0o600 })
    // another one than the database expects
    expect(await problems({ signing: { keysFolder: other, environment: {} } })).toEqual(['signing: problem'])
    chmodSync(path, 0o644)
    expect(await problems({ signing: { keysFolder: other, environment: {} } })).toEqual(['signing key: problem'])
    writeFileSync(path, 'no key')
    expect(await problems({ signing: { keysFolder: other, environment: {} } })).toEqual(['signing key: unknown'])
  })
})

test('what cannot be looked at is unknown, and unknown is not ok', async () => {
  const open = () => Promise.reject(new TmsError({ code: 'DB_UNREACHABLE', what: 'gone', why: 'gone', next: ['look'] }))
  expect(await problems({ open })).toEqual(['database: unknown'])
  expect(verdict(await diagnose({ ...patient, open }))).toBe('unknown')
  const login = await subject.credential('viewer')
  const operator = await subject.operator()
  granted(await operator.call('tenants_add', { request_id: crypto.randomUUID(), key: 'acme', name: 'acme' }))
  granted(
    await operator.call('users_grant', {
      request_id: crypto.randomUUID(),
      principal: 'v',
      role: 'viewer',
      tenant: 'acme',
      credential: login,
    }),
  )
  await operator.close()
  expect(await problems({ open: () => subject.as(login.name) })).toContain('inside the database: unknown')
})

describe('init', () => {
  test('finishes what an interrupted one left, and changes nothing when all is done', async () => {
    const driver = await subject.operator()
    const again = await initialise(driver, {
      files,
      catalogue,
      environment: 'staging',
      defaultEnvironment: 'staging',
      operator: 'x',
      signing: { keysFolder: folder, environment: {} },
      tokenFile,
    })
    expect([again.first, again.overrideToken, again.flagsSet, again.signingKey.made]).toEqual([false, null, [], false])
    await expect(
      initialise(driver, {
        files,
        catalogue,
        environment: 'production',
        defaultEnvironment: 'staging',
        operator: 'x',
        signing: { keysFolder: folder, environment: {} },
        tokenFile,
      }),
    ).rejects.toMatchObject({ code: 'CONFLICT' })
    await driver.close()
  })

  describe('the override token waits in a file until it was shown', () => {
    let driver: Driver
    let input: Initialisation
    beforeEach(async () => {
      driver = await subject.operator()
      await subject.sql(`update tms.environment set initialised_at = null where one`)
      input = theInput()
    })
    afterEach(async () => {
      await forgetToken(tokenFile)
      await driver.close()
    })

    const known = async () =>
      String((await subject.sql(`select override_token_sha256 as hash from tms.environment`))[0]?.['hash'])
    const hashOf = (token: string | null) => createHash('sha256').update(String(token)).digest('hex')

    test('an init after one that ended too early shows the same, and none does once it was seen', async () => {
      const first = await initialise(driver, input)
      expect(statSync(tokenFile).mode & 0o777).toBe(0o600)
      const again = await initialise(driver, input)
      expect([again.first, again.overrideToken]).toEqual([true, first.overrideToken])
      expect(hashOf(again.overrideToken)).toBe(await known())
      await expect(initialise(driver, { ...input, environment: 'production' })).rejects.toMatchObject({
        code: 'CONFLICT',
      })
      await forgetToken(tokenFile)
      const seen = await initialise(driver, input)
      expect([seen.first, seen.overrideToken, seen.unshownToken]).toEqual([false, null, null])
    })

    test('what was written down before the database was asked counts as soon as it is', async () => {
      const deaf: Driver = {
        target: driver.target,
        call: (fn, args, options) => {
          if (fn === 'environment_init') throw new Error('killed')
          return driver.call(fn, args, options)
        },
        listen: (channel, onSignal) => driver.listen(channel, onSignal),
        close: () => driver.close(),
        ...(driver.administration ? { administration: driver.administration } : {}),
      }
      await expect(initialise(deaf, input)).rejects.toThrow('killed')
      // True by how the file is written.
      const { overrideToken: written } = JSON.parse(readFileSync(tokenFile, 'utf8')) as { overrideToken: string }
      // Asked for something else, it is over: nobody was ever told of it.
      const other = await initialise(driver, { ...input, environment: 'production' })
      expect(other.overrideToken).not.toBe(written)
      expect(hashOf(other.overrideToken)).toBe(await known())
      await subject.sql(`update tms.environment set initialised_at = null where one`)
      await forgetToken(tokenFile)
      await expect(initialise(deaf, input)).rejects.toThrow('killed')
      // As above.
      const kept = JSON.parse(readFileSync(tokenFile, 'utf8')) as { overrideToken: string }
      const same = await initialise(driver, input)
      expect(same.overrideToken).toBe(kept.overrideToken)
      expect(hashOf(same.overrideToken)).toBe(await known())
    })

    test('two at once show the same one', async () => {
      const other = await subject.operator()
      const both = await Promise.all([initialise(driver, input), initialise(other, input)])
      await other.close()
      expect(both.map(({ overrideToken }) => hashOf(overrideToken))).toEqual([await known(), await known()])
    })

    test('of several that find no file at the same moment one writes it, and all go on with that one', async () => {
      const asked = new Set<unknown>()
      const noting: Driver = {
        target: driver.target,
        call: (fn, args, options) => {
          // The cast is true because of the function's name.
          if (fn === 'environment_init') asked.add((args as { request_id: string }).request_id)
          return driver.call(fn, args, options)
        },
        listen: (channel, onSignal) => driver.listen(channel, onSignal),
        close: () => driver.close(),
      }
      const wanted = { environment: 'staging', signing_key_fingerprint: 'f'.repeat(64) } as const
      const all = await Promise.all(
        Array.from({ length: 8 }, () => claimEnvironment(noting, { path: tokenFile, needed: true }, wanted, false)),
      )
      expect(asked.size).toBe(1)
      expect(new Set(all.map(({ overrideToken }) => hashOf(overrideToken)))).toEqual(new Set([await known()]))
    })

    test('of two on two machines the second shows none and keeps none', async () => {
      const elsewhere = join(folder, 'elsewhere.json')
      const late: Driver = {
        target: driver.target,
        call: async (fn, args, options) => {
          if (fn === 'environment_init' && !existsSync(elsewhere)) {
            const other = await subject.operator()
            await initialise(other, { ...input, tokenFile: elsewhere })
            await other.close()
          }
          return driver.call(fn, args, options)
        },
        listen: (channel, onSignal) => driver.listen(channel, onSignal),
        close: () => driver.close(),
        ...(driver.administration ? { administration: driver.administration } : {}),
      }
      const second = await initialise(late, input)
      expect([second.first, second.overrideToken, second.unshownToken]).toEqual([false, null, null])
      expect(existsSync(tokenFile)).toBe(false)
    })

    test.each([
      ['within the day for which the database knows a request', '0 hours'],
      ['after it', '25 hours'],
    ])('one that was replaced elsewhere is not shown: it is said, and its file is gone, %s', async (_when, age) => {
      await initialise(driver, input)
      await rotateOverrideToken(driver, join(folder, 'of another machine.json'), 'lost')
      await subject.sql(`update tms.requests set created_at = created_at - interval '${age}'`)
      const late = await initialise(driver, input)
      expect([late.first, late.overrideToken, late.unshownToken]).toEqual([false, null, null])
      expect([late.replacedToken, existsSync(tokenFile)]).toEqual([tokenFile, false])
      expect(JSON.stringify(initView({ ...late, configFile: 'x', configWritten: false }))).toContain('was replaced')
      expect((await initialise(driver, input)).replacedToken).toBeNull()
    })

    test('after the day for which the database knows a request, the file is named', async () => {
      await initialise(driver, input)
      await subject.sql(`update tms.requests set created_at = created_at - interval '25 hours'`)
      const late = await initialise(driver, input)
      expect([late.first, late.overrideToken, late.unshownToken]).toEqual([false, null, tokenFile])
      expect(existsSync(tokenFile)).toBe(true)
    })

    test('where it cannot be written down and the signing key is kept elsewhere, it is shown all the same', async () => {
      const blocked = join(folder, 'no folder')
      writeFileSync(blocked, '')
      const TMS_SIGNING_KEY = makePrivateKey()
      const elsewhere = { ...input, signing: { keysFolder: blocked, environment: { TMS_SIGNING_KEY } } }
      const done = await initialise(driver, { ...elsewhere, tokenFile: join(blocked, 'x.json') })
      expect([done.first, hashOf(done.overrideToken), done.tokenFile]).toEqual([true, await known(), null])
      expect((await initialise(driver, { ...elsewhere, tokenFile: join(blocked, 'x.json') })).first).toBe(false)
    })

    test('where it cannot be written down nothing is set', async () => {
      const blocked = join(folder, 'a file')
      writeFileSync(blocked, '')
      await expect(initialise(driver, { ...input, tokenFile: join(blocked, 'x.json') })).rejects.toMatchObject({
        code: 'FILE_UNWRITABLE',
      })
      expect((await initialise(driver, input)).first).toBe(true)
    })
  })

  test('keeps no secret in the database', async () => {
    const driver = await subject.operator()
    await subject.sql(`update tms.environment set initialised_at = null where one`)
    const { overrideToken } = await initialise(driver, {
      files,
      catalogue,
      environment: 'staging',
      defaultEnvironment: 'staging',
      operator: 'x',
      signing: { keysFolder: folder, environment: {} },
      tokenFile,
    })
    await driver.close()
    await forgetToken(tokenFile)
    const rows = await subject.sql(
      `select string_agg(x::text, '') as all from (select e::text from tms.environment e union all select r::text from tms.requests r union all select l::text from tms.ledger_inbox l) s (x)`,
    )
    expect(overrideToken).toMatch(/^tms-override-.{32}$/)
    expect(String(rows[0]?.['all'])).not.toContain(overrideToken)
  })

  test('through an API names the statement that makes the first operator, and works once it was run', async () => {
    const supabase = await supabaseSubject()
    try {
      await supabase.sql(
        `delete from tms.memberships where role = 'super_admin'; delete from tms.logins; delete from tms.principals where kind = 'human'; select 1`,
      )
      const driver = await supabase.as('a-sub-nobody-knows')
      const input = {
        files,
        catalogue,
        environment: 'staging',
        defaultEnvironment: 'staging',
        operator: 'ann@example.com',
        signing: { keysFolder: folder, environment: {} },
        tokenFile,
      } as const
      await expect(initialise(driver, input)).rejects.toMatchObject({
        code: 'IDENTITY_UNKNOWN',
        next: expect.arrayContaining([expect.stringContaining('tms._bootstrap(')]),
      })
      await supabase.sql(`select tms._bootstrap('jwt', 'a-sub-nobody-knows', 'ann@example.com')`)
      expect((await initialise(driver, input)).operator).toBe('ann@example.com')
      await driver.close()
    } finally {
      await supabase.stop()
    }
  })
})
