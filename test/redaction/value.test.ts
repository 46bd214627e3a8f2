import { describe, expect, test } from 'vitest'
import { redact, redactError } from '../../src/redaction/redact.ts'

describe('the name of a field', () => {
  test.each(
    (
      'password passwd user_password dbPassword PGPASSWORD password2 passwordConfirmation secret client_secret token accessToken ' +
      'refresh_token authorization Proxy-Authorization cookie set-cookie cookies api_key apikey apiKey X-API-Key x-api-key ' +
      'private_key privateKey ssn customerSSN card card_number cvv iban email customer_email emailAddress phone phoneNumber ' +
      'first_name lastName fullName customer_name address home_address address1 addressLine2 dob date_of_birth birthDate ' +
      'pw db_pw psw bearer sessionId session_ids ' +
      'phoneNum cardNum ccNum ssnNum acctNumber passportNum otpCode totp jwt secret_key_base accessTokenV2 token_hash passwort creds ssn_last4 ibanNumber ' +
      'pin otp passphrase signing_key SUPABASE_SERVICE_ROLE_KEY slack_webhook_url password_hash ｐａｓｓｗｏｒｄ'
    )
      .split(' ')
      .map((name) => [name]),
  )('hides the value of %s, whatever it is', (name) => {
    expect(JSON.stringify(redact({ [name]: 'Hidden' }))).not.toContain('Hidden')
    expect(JSON.stringify(redact({ a: [new Map([[name, { deep: 'Hidden' }]])] }))).not.toContain('Hidden')
    expect(JSON.stringify(redact({ [name]: ['Hidden', { a: 'Hidden' }] }))).not.toContain('Hidden')
  })

  test.each(
    (
      'trace_id task_id idempotency_key dedupe_key tenant_key key fn_name hostname filename status ip_address bind_address ' +
      'session forbearer spawn rate_card scorecard japan timespan token_count email_sent_at error_code column_name company_name'
    )
      .split(' ')
      .map((name) => [name]),
  )('shows the value of %s', (name) => {
    expect(redact({ [name]: 'shown' })).toEqual({ [name]: 'shown' })
  })

  test('leaves counts, flags and absence readable', () => {
    const value = { tokens: { input: 5, output: 7 }, max_tokens: 4096, password: null, email: '', secret: false }
    expect(redact(value)).toEqual(value)
    expect(redact({ ssn: 123456789, cvv: 123, tokens: ['abc'] })).toEqual({
      ssn: '[redacted:ssn]',
      cvv: '[redacted:card]',
      tokens: ['[redacted:secret]'],
    })
  })

  test('may stand beside the value: headers as pairs, as a list, as name and value; arguments of a program', () => {
    const value = {
      headers: [['authorization', 'Hidden']],
      rawHeaders: ['Host', 'x', 'Cookie', 'Hidden'],
      har: [{ name: 'X-Api-Key', value: 'Hidden' }],
      pairs: [
        { k: 'password', v: 'Hidden' },
        { title: 'Password', value: 'Hidden' },
        { name: 'field 3', label: 'Token', val: 'Hidden' },
      ],
      argv: ['psql', '--password', 'Hidden'],
      columns: ['id', 'email', 'created_at'],
    }
    const safe = redact(value)
    expect(JSON.stringify(safe)).not.toContain('Hidden')
    expect(safe).toMatchObject({
      columns: ['id', 'email', 'created_at'],
      rawHeaders: ['Host', 'x', 'Cookie', expect.anything()],
    })
  })
})

describe('redact', () => {
  test('makes JSON of what JSON has no word for', () => {
    const circle: Record<string, unknown> = { big: 10n, nan: NaN, f: () => 1, s: Symbol('x'), u: undefined }
    circle['self'] = circle
    circle['date'] = new Date(0)
    circle['bytes'] = new Uint8Array(3)
    circle['buffer'] = Buffer.from('abc')
    circle['map'] = new Map<unknown, unknown>([[1, 'a']])
    circle['set'] = new Set(['a'])
    circle['url'] = new URL('http://ann:pw@x.example/')
    expect(redact(circle)).toEqual({
      big: '10',
      nan: 'NaN',
      self: '[circular]',
      date: '1970-01-01T00:00:00.000Z',
      bytes: '[3 bytes]',
      buffer: '[3 bytes]',
      map: [[1, 'a']],
      set: ['a'],
      url: 'http://[redacted:credentials]@x.example/',
    })
    expect(redact(undefined)).toBeNull()
  })

  test('takes a Buffer that went through JSON for the bytes it is', () => {
    const sent: unknown = JSON.parse(JSON.stringify({ body: Buffer.from('sk_live_x') }))
    expect(redact(sent)).toEqual({ body: '[9 bytes]' })
    expect(redact({ type: 'Buffer', data: 'none' })).toEqual({ type: 'Buffer', data: 'none' })
  })

  test('shows the same object twice when it is there twice', () => {
    const shared = { a: 1 }
    expect(redact([shared, shared])).toEqual([shared, shared])
  })

  test('keeps what an error says, and its code, cause and fields', () => {
    const cause = Object.assign(new Error('mail ann@example.com'), {
      code: '23505',
      detail: 'Key (email)=(ann@example.com)',
    })
    const safe = redact(new TypeError('failed for ann@example.com', { cause }))
    expect(safe).toMatchObject({
      name: 'TypeError',
      message: 'failed for [redacted:email]',
      cause: { code: '23505', detail: 'Key (email)=([redacted:email])' },
    })
    expect(JSON.stringify(safe)).not.toContain('ann@')
  })

  test('survives whatever foreign code does', () => {
    const trap = () => {
      throw new Error('no')
    }
    const hostile = {
      get getter() {
        return trap()
      },
      json: { a: 1, toJSON: trap },
      proxy: new Proxy(
        { a: 1 },
        { get: trap, ownKeys: trap, getPrototypeOf: trap, has: trap, getOwnPropertyDescriptor: trap },
      ),
      revoked: (() => {
        const { proxy, revoke } = Proxy.revocable({}, {})
        revoke()
        return proxy
      })(),
      error: Object.defineProperty(new Error('x'), 'message', { get: trap }),
      map: new Proxy(new Map([['a', 1]]), {}),
      endless: endless(),
      ['__proto__']: 1,
    }
    expect(redact(hostile)).toMatchObject({ getter: '[unreadable]', json: { a: 1 }, proxy: '[unreadable]' })
    expect(() => redactError(hostile.proxy)).not.toThrow()
    expect(redactError(hostile.error)).toMatchObject({ name: 'Error' })
  })

  test('keeps two keys that were two addresses', () => {
    expect(redact({ 'a@x.com': 1, 'b@x.com': 2 })).toEqual({ '[redacted:email]': 1, '(2) [redacted:email]': 2 })
    // an open bracket takes all that follows: the number stands before it, or a second pass would eat it
    const open = redact({ 'Key (ssn)=(@': [], 'Key (ssn)=(eyJhbGciOi': 0 })
    expect(redact(open)).toEqual(open)
  })

  test('sees a card that became a number', () => {
    expect(redact({ reference: 4111111111111111, at: 1714564800123 })).toEqual({
      reference: '[redacted:card]',
      at: 1714564800123,
    })
  })
})

describe('the limit', () => {
  test('is 16 KB of JSON unless told otherwise, and small fields survive beside big ones', () => {
    const safe = redact({
      big: 'x'.repeat(1e6),
      list: Array.from({ length: 1e6 }, (_, i) => i),
      task: 't1',
      why: 'timeout',
    })
    expect(Buffer.byteLength(JSON.stringify(safe))).toBeLessThanOrEqual(16 * 1024)
    expect(Buffer.byteLength(JSON.stringify(safe))).toBeGreaterThan(12 * 1024)
    expect([Reflect.get(Object(safe), 'task'), Reflect.get(Object(safe), 'why')]).toEqual(['t1', 'timeout'])
  })

  test('says how much was cut', () => {
    const safe = JSON.stringify(redact({ text: 'x'.repeat(5000), list: Array(5000).fill('item') }, { limit: 1000 }))
    const [, characters] = /(\d+) characters\]/.exec(safe) ?? []
    const kept = /x{9,}/.exec(safe)?.[0].length ?? 0
    expect(Number(characters) + kept).toBe(5000)
    const [, items] = /(\d+) items\]/.exec(safe) ?? []
    expect(Number(items) + (safe.match(/"item"/g)?.length ?? 0)).toBe(5000)
    const fields = JSON.stringify(
      redact(Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`f${i}`, 'x'])), { limit: 1000 }),
    )
    const [, cut] = /(\d+) fields"/.exec(fields) ?? []
    expect(Number(cut) + (fields.match(/"f\d+"/g)?.length ?? 0)).toBe(5000)
  })

  test('never cuts a marker in half', () => {
    for (let before = 0; before < 300; before += 1) {
      const safe = redact(`${'x'.repeat(before)} ann@example.com ${'y'.repeat(300)}`, { limit: 256 })
      expect(safe).not.toMatch(/\[r[a-z:]*\[cut/)
    }
  })

  test('ends with the depth, too', () => {
    let deep: unknown = 'bottom'
    for (let level = 0; level < 20; level += 1) deep = { deep }
    expect(JSON.stringify(redact(deep))).toContain('[too deep]')
  })

  test('never cuts a secret in half, not even one that lies across a megabyte', () => {
    const key = 'sk_live_abcdefghijklmnopqrst'
    for (let before = 2 ** 20 - 40; before < 2 ** 20; before += 1) {
      // Almost everything before it is taken out, so that the end of the first megabyte is shown.
      const text = `-----BEGIN X-----${'A'.repeat(before - 34)}-----END X----- ${key} ${'y'.repeat(100)}`
      expect(JSON.stringify(redact(text))).not.toContain('sk_live_a')
    }
  })

  test('looks at no more than can be shown', () => {
    let reads = 0
    const list = new Proxy(Array(1e6).fill(0), {
      get(target, key) {
        reads += 1
        // True because the target is an array and answers any key.
        return Reflect.get(target, key) as unknown
      },
    })
    redact({ list }, { limit: 1000 })
    expect(reads).toBeLessThan(2000)
  })
})

describe('redactError', () => {
  test('keeps name, message and code, and nothing else', () => {
    const error = Object.assign(new RangeError('password=abc'), { code: 'E1', detail: 'x', cause: 'y' })
    expect(redactError(error)).toEqual({ name: 'RangeError', message: 'password=[redacted:secret]', code: 'E1' })
  })

  test.each([
    ['ann@example.com', '[redacted:email]'],
    [undefined, 'null'],
    [{ password: 'x' }, '{"password":"[redacted:secret]"}'],
  ])('takes %j, which is no error', (thrown, message) => {
    expect(redactError(thrown)).toEqual({ name: 'Error', message })
  })

  test('is short however long the message is', () => {
    expect(redactError(new Error('x'.repeat(1e6))).message.length).toBeLessThan(5000)
  })
})

/** An object that makes its own inside when looked at. */
function endless(): object {
  return new Proxy({ next: 1 }, { get: (_, key) => (key === 'next' ? endless() : undefined) })
}
