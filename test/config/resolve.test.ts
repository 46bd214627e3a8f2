import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { resolveSettings, type ResolveInput } from '../../src/config/resolve.ts'
import { showSettings } from '../../src/config/show.ts'
import { settingNames, settingsTable } from '../../src/config/settings.ts'

let folder: string
let file: string
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'tms-config-')))
  file = join(folder, 'tms.config.yaml')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const config = (text: string) => writeFileSync(file, text, { mode: 0o600 })
const resolve = (input: Partial<ResolveInput> = {}) => resolveSettings({ folder, environment: {}, flags: {}, ...input })

const pg = 'postgres://ann:pa55word@db.example/tms'
const other = 'postgres://bob:0therpass@other.example/tms'
const supabase = { SUPABASE_URL: 'https://x.supabase.co', SUPABASE_ANON_KEY: 'anon-key' }

describe('which database', () => {
  test.each([
    [
      '--driver wins over everything',
      { driver: 'embedded' },
      { DATABASE_URL: pg },
      'driver: postgres\n',
      'embedded',
      '--driver',
    ],
    ['TMS_DRIVER wins over the file', {}, { TMS_DRIVER: 'embedded' }, 'driver: postgres\n', 'embedded', 'TMS_DRIVER'],
    ['the file wins over DATABASE_URL', {}, { DATABASE_URL: pg }, 'driver: embedded\n', 'embedded', ':1'],
    ['DATABASE_URL wins over SUPABASE_URL', {}, { DATABASE_URL: pg, ...supabase }, null, 'postgres', 'DATABASE_URL'],
    ['SUPABASE_URL alone means supabase', {}, supabase, null, 'supabase', 'SUPABASE_URL'],
    ['a file that says nothing means embedded', {}, {}, '# nothing\n', 'embedded', 'default'],
    ['a URL in the file is a choice of driver', {}, supabase, `databaseUrl: ${pg}\n`, 'postgres', ':1'],
    [
      'a URL in the profile wins over the driver outside it',
      { profile: 'production' },
      {},
      `driver: embedded\nprofiles:\n  production:\n    databaseUrl: ${pg}\n`,
      'postgres',
      ':4 (profile production)',
    ],
  ] as const)('%s', async (_name, flags, environment, text, driver, source) => {
    if (text !== null) config(text)
    const settings = await resolve({
      flags,
      environment: { ...(driver === 'postgres' ? { DATABASE_URL: pg } : {}), ...environment },
    })
    expect(settings.connection.driver).toBe(driver)
    expect(settings.sources.driver).toContain(source)
  })

  test('with neither a URL nor a file it is unknown', async () => {
    await expect(resolve()).rejects.toMatchObject({
      code: 'CONFIG_MISSING',
      exit: 2,
      next: ["cd <the project's folder>", expect.any(String), expect.any(String), 'tms init'],
    })
    await expect(resolve({ flags: { driver: 'embedded' } })).rejects.toMatchObject({ code: 'CONFIG_MISSING' })
  })

  test('only whoever may create one gets an embedded database out of nothing', async () => {
    const { connection } = await resolve({ create: true })
    expect(connection).toEqual({
      driver: 'embedded',
      directory: join(folder, '.tms'),
      create: true,
      callTimeoutMs: 30_000,
    })
    config('driver: embedded\n')
    expect((await resolve()).connection).toMatchObject({ create: false })
  })

  test('ambient URLs can be told to say nothing', async () => {
    const { connection } = await resolve({
      create: true,
      ambientUrls: false,
      environment: { DATABASE_URL: pg, ...supabase },
    })
    expect(connection.driver).toBe('embedded')
  })

  test('a driver without what it needs names the variable', async () => {
    config('driver: postgres\n')
    await expect(resolve()).rejects.toMatchObject({
      code: 'CONFIG_MISSING',
      why: expect.stringContaining('DATABASE_URL'),
    })
    config('supabaseUrl: https://x.supabase.co\n')
    await expect(resolve()).rejects.toMatchObject({
      code: 'CONFIG_MISSING',
      why: expect.stringContaining('SUPABASE_ANON_KEY'),
    })
  })

  test('a connection to Postgres has the replica and both time limits', async () => {
    const environment = { DATABASE_URL: pg, DATABASE_REPLICA_URL: other, TMS_CONNECT_TIMEOUT: '3' }
    expect((await resolve({ environment, flags: { timeout: 7 } })).connection).toEqual({
      driver: 'postgres',
      url: pg,
      replicaUrl: other,
      connectTimeoutMs: 3000,
      callTimeoutMs: 7000,
    })
  })

  test("a connection to Supabase has the project's key and the person's token", async () => {
    const environment = { ...supabase, SUPABASE_SERVICE_ROLE_KEY: 'service-key', TMS_TOKEN: 'a.b.c' }
    expect((await resolve({ environment })).connection).toEqual({
      driver: 'supabase',
      url: 'https://x.supabase.co',
      key: 'anon-key',
      token: 'a.b.c',
      callTimeoutMs: 30_000,
      pollMs: 2000,
    })
  })
})

describe('precedence', () => {
  test('flag, variable, profile, file, default', async () => {
    config('timeout: 2\nartifacts: base\npollMs: 500\nprofiles:\n  p:\n    timeout: 3\n    artifacts: own\n')
    const flags = { profile: 'p' }
    expect((await resolve({ flags: { ...flags, timeout: 5 }, environment: { TMS_TIMEOUT: '4' } })).values.timeout).toBe(
      5,
    )
    expect((await resolve({ flags, environment: { TMS_TIMEOUT: '4' } })).values.timeout).toBe(4)
    const { values, sources } = await resolve({ flags })
    expect(values).toMatchObject({ timeout: 3, artifacts: join(folder, 'own'), pollMs: 500, connectTimeout: 10 })
    expect(sources).toMatchObject({
      timeout: `${file}:6 (profile p)`,
      pollMs: `${file}:3`,
      connectTimeout: 'default',
    })
  })

  test('the profile comes from the flag, TMS_PROFILE or the file', async () => {
    config('profile: a\nprofiles:\n  a: { timeout: 1 }\n  b: { timeout: 2 }\n  c:\n')
    expect((await resolve()).profile).toBe('a')
    expect((await resolve({ environment: { TMS_PROFILE: 'b' } })).values.timeout).toBe(2)
    expect((await resolve({ environment: { TMS_PROFILE: 'b' }, flags: { profile: 'c' } })).profile).toBe('c')
  })

  test('an unknown profile lists the known ones', async () => {
    config('profiles:\n  production: {}\n  staging: {}\n')
    await expect(resolve({ flags: { profile: 'prodution' } })).rejects.toMatchObject({
      code: 'PROFILE_UNKNOWN',
      why: expect.stringMatching(/production, staging.*Did you mean production\?/),
    })
  })

  test('an empty variable is none', async () => {
    config('timeout: 2\n')
    expect((await resolve({ environment: { TMS_TIMEOUT: '', TMS_CONFIG: '', TMS_PROFILE: '' } })).values.timeout).toBe(
      2,
    )
  })

  test('a wrong variable is refused without its value', async () => {
    const environment = { DATABASE_URL: 'mysql://ann:pa55word@db/tms' }
    const failure = await resolve({ environment }).catch((error: unknown) => error)
    expect(failure).toMatchObject({ code: 'CONFIG_INVALID', message: expect.stringContaining('DATABASE_URL') })
    expect(JSON.stringify(failure)).not.toContain('pa55word')
  })

  test('a variable that beats a URL in the file is pointed out', async () => {
    config(`databaseUrl: ${pg}\n`)
    expect((await resolve({ environment: { DATABASE_URL: other } })).warnings).toEqual([
      `DATABASE_URL is set and wins over databaseUrl in ${file}:1.`,
    ])
    expect((await resolve({ environment: { DATABASE_URL: pg } })).warnings).toEqual([])
  })
})

describe('the file', () => {
  test('is searched upwards, and paths in it are meant from it', async () => {
    config('directory: data\nartifacts: /var/tms\n')
    const below = join(folder, 'a/b')
    mkdirSync(below, { recursive: true })
    const settings = await resolve({ folder: below })
    expect(settings.file).toBe(file)
    expect(settings.values).toMatchObject({ directory: join(folder, 'data'), artifacts: '/var/tms' })
  })

  test('named by --config or TMS_CONFIG it must exist', async () => {
    await expect(resolve({ flags: { config: 'none.yaml' } })).rejects.toMatchObject({ code: 'CONFIG_MISSING' })
    await expect(resolve({ environment: { TMS_CONFIG: 'none.yaml' } })).rejects.toMatchObject({
      code: 'CONFIG_MISSING',
    })
    writeFileSync(join(folder, 'mine.yaml'), 'timeout: 9\n')
    expect((await resolve({ flags: { config: 'mine.yaml' } })).values.timeout).toBe(9)
  })

  test.each([
    ['an unknown key', 'timeout: 5\ndrivr: embedded\n', ':2:1', /drivr is no setting.*Did you mean driver\?/],
    [
      'an unknown key in a profile',
      'profiles:\n  p:\n    timout: 5\n',
      ':3:5',
      /profiles\.p\.timout.*Did you mean timeout\?/,
    ],
    ['a wrong type', 'timeout: soon\n', ':1:1', /timeout.*expected number/],
    ['a wrong choice', 'driver: mysql\n', ':1:1', /driver.*"embedded"\|"postgres"\|"supabase"/],
    ['a number out of range', 'timeout: 0\n', ':1:1', /timeout/],
    ['a token, which belongs to a person', 'token: a.b.c\n', ':1:1', /token is no setting/],
    ['broken YAML', 'driver: [embedded\n', ':2:1', /not valid YAML|flow/i],
    ['a duplicate key', 'timeout: 1\ntimeout: 2\n', ':2:1', /unique/],
    ['a tab as indentation', 'profiles:\n\tp: {}\n', ':2', /tab/i],
    ['two documents', 'timeout: 1\n---\ntimeout: 2\n', ':2:1', /a second document begins here/],
    ['a key in a value', 'driver: embedded\n  foo: [1,', ':2:', /a key stands within the value of another/],
    ['a list', '- embedded\n', ':1:1', /expected/],
    ['an alias to nothing', 'timeout: *x\n', ':1', /alias/i],
  ])('with %s is refused with line and column', async (_name, text, place, message) => {
    config(text)
    const failure = (await resolve().catch((error: unknown) => error)) as Error & { why: string }
    expect(failure).toMatchObject({ code: 'CONFIG_INVALID', exit: 2 })
    expect(failure.message).toContain(`${file}${place}`)
    expect(`${failure.message} ${failure.why}`).toMatch(message)
  })

  test.each([
    ['aliases of aliases', bomb()],
    ['nesting without end', '['.repeat(100_000)],
    ['two megabytes', `# ${'x'.repeat(2_000_000)}\n`],
  ])('with %s is refused before it does harm', async (_name, text) => {
    config(text)
    await expect(resolve()).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
  })

  test('that is no text is refused', async () => {
    writeFileSync(file, Buffer.from([0xff, 0xfe, 0x00]))
    await expect(resolve()).rejects.toMatchObject({ code: 'CONFIG_INVALID', message: expect.stringContaining('UTF-8') })
  })

  test('that is a folder is refused', async () => {
    mkdirSync(file)
    await expect(resolve()).rejects.toMatchObject({ code: expect.stringMatching(/CONFIG_INVALID|FILE_UNREADABLE/) })
  })

  test('may be empty', async () => {
    config('')
    expect((await resolve()).connection.driver).toBe('embedded')
  })

  test('with a secret that others can read is warned about, without one it is not', async () => {
    config(`databaseUrl: ${pg}\n`)
    expect((await resolve()).warnings).toEqual([])
    chmodSync(file, 0o644)
    expect((await resolve()).warnings).toEqual([expect.stringContaining(`chmod 600 ${file}`)])
    config('databaseUrl: postgres://ann@db/tms\n')
    expect((await resolve()).warnings).toEqual([])
  })
})

describe('showing the settings', () => {
  const environment = {
    DATABASE_URL: 'postgres://ann:pa%24%24word@db.example/tms?sslpassword=t0psecret&sslmode=require',
    SUPABASE_ANON_KEY: 'anon-secret',
    SUPABASE_SERVICE_ROLE_KEY: 'service-secret',
    SUPABASE_URL: 'https://user:urlsecret@x.supabase.co',
    TMS_TOKEN: 'token-secret',
    API_SECRET_KEY: 'api-secret',
    ALERT_WEBHOOK_URL: 'https://hooks.example/alert-secret',
    SLACK_WEBHOOK_URL: 'https://hooks.slack.com/slack-secret',
    PAGERDUTY_ROUTING_KEY: 'pager-secret',
    DATABASE_REPLICA_URL: 'postgres://ann:replicasecret@r/tms',
  }

  test('no secret is shown, but where each comes from', async () => {
    const shown = showSettings(await resolve({ environment }))
    expect(JSON.stringify(shown)).not.toMatch(/secret"|-secret|pa%24|t0psecret|urlsecret|replicasecret/)
    expect(shown.settings.find(({ name }) => name === 'databaseUrl')).toEqual({
      name: 'databaseUrl',
      value: 'postgres://ann:********@db.example/tms?sslpassword=********&sslmode=require',
      from: 'DATABASE_URL',
      variable: 'DATABASE_URL',
    })
    expect(shown.settings.find(({ name }) => name === 'token')).toMatchObject({ value: '********', from: 'TMS_TOKEN' })
  })

  test('every secret is known to whoever prints, decoded too', async () => {
    const { secrets } = await resolve({ environment })
    expect(secrets).toEqual(
      expect.arrayContaining([
        'pa%24%24word',
        'pa$$word',
        't0psecret',
        'anon-secret',
        'token-secret',
        'api-secret',
        'pager-secret',
      ]),
    )
  })

  const withWords = {
    TMS_DIRECTORY: '.tms',
    TMS_SIGNING_COMMAND: JSON.stringify([
      'kms-sign',
      '--pin',
      '48151623',
      '--token=tok-word',
      'pkcs11:object=evidence;pin-value=pin-word',
      '--key',
      'alias/evidence',
    ]),
    TMS_TRACE_LINK:
      'https://traces.example/t/{traceId}?org=7&api_key=link-word&trace={traceId}&sig=x{traceId}y#token=last-word',
  }

  test('secrets within the words of a program and within a template of links are masked, the rest is readable', async () => {
    config('')
    const { settings } = showSettings(await resolve({ environment: withWords }))
    expect(settings.find(({ name }) => name === 'signing.command')?.value).toBe(
      JSON.stringify([
        'kms-sign',
        '--pin',
        '[redacted:secret]',
        '--token=[redacted:secret]',
        'pkcs11:object=evidence;pin-value=[redacted:secret]',
        '--key',
        'alias/evidence',
      ]),
    )
    expect(settings.find(({ name }) => name === 'traceLink')?.value).toBe(
      'https://traces.example/t/{traceId}?org=7&api_key=[redacted:secret]&trace={traceId}&sig=[redacted:secret]{traceId}#token=[redacted:secret]',
    )
  })

  test('a login among the words of a program is shown without its password', async () => {
    config('')
    const words = [
      'curl',
      '-u',
      'ops:login-word',
      '-uops:joined-word',
      '--user=ops:long-word',
      '--user',
      'ops',
      '-f',
      'a:b',
    ]
    const { settings } = showSettings(
      await resolve({ environment: { TMS_DIRECTORY: '.tms', TMS_SIGNING_COMMAND: JSON.stringify(words) } }),
    )
    expect(JSON.parse(String(settings.find(({ name }) => name === 'signing.command')?.value))).toEqual([
      'curl',
      '-u',
      'ops:[redacted:password]',
      '-uops:[redacted:password]',
      '--user=ops:[redacted:password]',
      '--user',
      'ops',
      '-f',
      'a:b',
    ])
  })

  test('a command and a template without a secret are shown as they are', async () => {
    config('')
    const plain = {
      TMS_SIGNING_COMMAND: JSON.stringify(['kms-sign', '--key', 'alias/evidence', 'ünïcode']),
      TMS_TRACE_LINK: 'https://traces.example/t/{traceId}?left={"q":"{traceId}"}&orgId=1#{traceId}',
    }
    const { settings } = showSettings(await resolve({ environment: plain }))
    expect(settings.find(({ name }) => name === 'signing.command')?.value).toBe(plain.TMS_SIGNING_COMMAND)
    expect(settings.find(({ name }) => name === 'traceLink')?.value).toBe(plain.TMS_TRACE_LINK)
  })

  test('what is masked in them is known to whoever prints, and counts as a secret of the file', async () => {
    config(`signing:\n  command: [kms-sign, --pin, "48151623"]\n`)
    chmodSync(file, 0o644)
    const { secrets, warnings } = await resolve({ environment: { TMS_TRACE_LINK: withWords.TMS_TRACE_LINK } })
    expect(secrets).toEqual(['link-word', 'xy', 'last-word', '48151623'])
    expect(warnings).toEqual([expect.stringContaining(`chmod 600 ${file}`)])
  })

  test('every setting is listed, with its variable', async () => {
    const shown = showSettings(await resolve({ environment }))
    expect(shown.settings.map(({ name }) => name)).toEqual(settingNames)
    expect(new Set(settingNames.map((name) => settingsTable[name].variable)).size).toBe(settingNames.length)
  })
})

/** Nine levels of nine aliases each: a hundred bytes a line, a gigabyte when expanded. */
function bomb(): string {
  const levels = Array.from({ length: 9 }, (_, i) => {
    const items = i === 0 ? Array.from({ length: 9 }, () => 'lol') : Array.from({ length: 9 }, () => `*l${i - 1}`)
    return `l${i}: &l${i} [${items.join(', ')}]`
  })
  return `${levels.join('\n')}\n`
}
