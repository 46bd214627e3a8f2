import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { TmsError, type ErrorCode } from '../errors.ts'
import type { Contract, ContractFunction } from './contract.ts'
import type { Driver } from './driver.ts'
import { granted } from './refusal.ts'

/**
 * What every driver must do, as named cases for any test runner:
 *
 *     for (const { name, run } of conformance(harness)) test(name, run)
 *
 * Each case opens and closes its own drivers, one at a time: an embedded database has one owner.
 */
export type ConformanceHarness = {
  /** A super_admin of a database that holds the schema and whatever earlier cases left there. */
  readonly operator: () => Promise<Driver>
  /** How this driver recognises `somebody`, to whom the suite grants the role viewer in one tenant. */
  readonly credential: { readonly kind: 'postgres' | 'jwt' | 'local'; readonly name: string }
  readonly somebody: () => Promise<Driver>
}

export type ConformanceCase = { readonly name: string; readonly run: () => Promise<void> }

/** Generous: a case fails by its condition, and only a driver that never answers meets this. */
const patienceMs = 20_000

export function conformance(harness: ConformanceHarness): readonly ConformanceCase[] {
  const asOperator = (work: (driver: Driver) => Promise<void>) => () => using(harness.operator, work)
  return [
    {
      name: 'answers with the contract of the database',
      run: asOperator(async (driver) => {
        assert.equal(typeof granted(await driver.call('contract_version', {})).contract, 'number')
      }),
    },
    {
      name: 'knows who is calling',
      run: asOperator(async (driver) => {
        const me = granted(await driver.call('whoami', {}))
        assert.ok(me.roles.some(({ role }) => role === 'super_admin'))
      }),
    },
    {
      name: 'names its target without a password',
      run: asOperator(async (driver) => {
        assert.ok(driver.target.name.length > 0)
        assert.doesNotMatch(driver.target.name + driver.target.consentName, /:[^/@\s]+@/)
      }),
    },
    {
      name: 'gives a refusal as a value',
      run: async () => {
        const tenant = await using(harness.operator, async (driver) => {
          const key = await addTenant(driver)
          const { credential } = harness
          granted(
            await driver.call('users_grant', {
              request_id: randomUUID(),
              principal: 'conformance-somebody',
              role: 'viewer',
              tenant: key,
              credential,
            }),
          )
          return key
        })
        await using(harness.somebody, async (driver) => {
          const me = granted(await driver.call('whoami', {}))
          assert.equal(me.principal, 'conformance-somebody')
          const answer = await driver.call('tenants_add', { request_id: randomUUID(), key: 'forbidden', name: 'x' })
          assert.ok('refused' in answer && answer.refused.code === 'ROLE_DENIED')
          assert.ok(answer.refused.next.length > 0)
          granted(await driver.call('flags_list', { tenant }))
        })
      },
    },
    {
      name: 'calls nothing but functions of the contract',
      run: asOperator(async (driver) => {
        for (const fn of ['pg_sleep', '_bootstrap', 'now()', 'whoami; drop schema tms', '__proto__', '']) {
          // The cast is the attack: callers without types exist.
          await rejectsWith(driver.call(fn as ContractFunction, {}), ['INPUT_INVALID', 'USAGE', 'NOT_FOUND', 'BUG'])
        }
      }),
    },
    {
      name: 'turns bad arguments away and stores nothing',
      run: asOperator(async (driver) => {
        const before = granted(await driver.call('tenants_list', {})).tenants.length
        const bad: readonly unknown[] = [
          { request_id: 'no uuid', key: 'bad', name: 'x' },
          { request_id: randomUUID(), key: 'Bad Key!', name: 'x' },
          { request_id: randomUUID(), key: 'bad', name: 'x', stray: true },
          { request_id: randomUUID(), key: 'bad' },
          { key: 'bad', name: 'x' },
          { request_id: randomUUID(), key: 'bad', name: 'nul \0 inside' },
          { request_id: randomUUID(), key: 'bad', name: 'half \ud800 character' },
          { request_id: randomUUID(), key: 'bad', name: 'x'.repeat(2_000_000) },
          {
            request_id: randomUUID(),
            key: 'bad',
            name: JSON.parse(`${'['.repeat(6_000)}${']'.repeat(6_000)}`) as unknown,
          },
        ]
        for (const args of bad) {
          await rejectsWith(driver.call('tenants_add', args as Contract['tenants_add']['args']), ['INPUT_INVALID'])
        }
        assert.equal(granted(await driver.call('tenants_list', {})).tenants.length, before)
      }),
    },
    {
      name: 'answers a repeated request from its memory',
      run: asOperator(async (driver) => {
        const args = { request_id: randomUUID(), key: `once-${randomUUID()}`, name: 'Once' }
        const first = await driver.call('tenants_add', args)
        assert.deepEqual(await driver.call('tenants_add', args), first)
        const other = await driver.call('tenants_add', { ...args, key: 'another' })
        assert.ok('refused' in other && other.refused.code === 'REQUEST_REUSED')
      }),
    },
    {
      name: 'applies the same request once, however many send it at once',
      run: asOperator(async (driver) => {
        const args = { request_id: randomUUID(), key: `race-${randomUUID()}`, name: 'Race' }
        const answers = await Promise.all(Array.from({ length: 10 }, () => driver.call('tenants_add', args)))
        for (const answer of answers) assert.deepEqual(answer, answers[0])
        const { tenants } = granted(await driver.call('tenants_list', {}))
        assert.equal(tenants.filter(({ key }) => key === args.key).length, 1)
      }),
    },
    {
      name: 'gives each of many simultaneous calls its own answer',
      run: asOperator(async (driver) => {
        const names = Array.from({ length: 60 }, (_, i) => `parallel ${'é漢😀'.repeat(i % 7)} ${i}`)
        const answers = await Promise.all(
          names.map((name) => driver.call('tenants_add', { request_id: randomUUID(), key: `p-${randomUUID()}`, name })),
        )
        assert.deepEqual(
          answers.map((answer) => granted(answer).tenant.name),
          names,
        )
      }),
    },
    {
      name: 'carries large answers and every character unchanged',
      run: asOperator(async (driver) => {
        const name = 'quote " backslash \\ newline \n tab \t line separator \u2028 emoji 👩‍🚀 combining e\u0301'
        const { tenant } = granted(
          await driver.call('tenants_add', { request_id: randomUUID(), key: `c-${randomUUID()}`, name }),
        )
        assert.equal(tenant.name, name)
        for (let i = 0; i < 100; i++) {
          granted(
            await driver.call('tenants_add', {
              request_id: randomUUID(),
              key: `l-${randomUUID()}`,
              name: 'x'.repeat(200),
            }),
          )
        }
        const { tenants } = granted(await driver.call('tenants_list', {}))
        assert.ok(tenants.some((found) => found.name === name))
        assert.ok(tenants.filter((found) => found.name === 'x'.repeat(200)).length >= 100)
      }),
    },
    {
      name: 'stops waiting when its caller does',
      run: asOperator(async (driver) => {
        await assert.rejects(driver.call('whoami', {}, { signal: AbortSignal.abort() }))
        granted(await driver.call('whoami', {}))
      }),
    },
    {
      name: 'signals a change to whoever listens, and no longer after that',
      run: asOperator(async (driver) => {
        let heard = 0
        const unlisten = await driver.listen('flags', () => heard++)
        const change = () =>
          driver.call('flags_catalogue', {
            request_id: randomUUID(),
            sha256: randomUUID(),
            entries: [
              {
                key: 'ops.signal',
                type: 'boolean',
                default: false,
                safe: false,
                owner: 'x',
                expires: null,
                description: randomUUID(),
              },
            ],
          })
        granted(await change())
        await until(() => heard > 0)
        await unlisten()
        const then = heard
        granted(await change())
        granted(await driver.call('whoami', {}))
        assert.equal(heard, then)
      }),
    },
    {
      name: 'may be closed twice, and says so when it is called afterwards',
      run: async () => {
        const driver = await harness.operator()
        granted(await driver.call('whoami', {}))
        await driver.close()
        await driver.close()
        await assert.rejects(driver.call('whoami', {}), (error) => error instanceof TmsError)
      },
    },
  ]
}

async function using<T>(open: () => Promise<Driver>, work: (driver: Driver) => Promise<T>): Promise<T> {
  const driver = await open()
  try {
    return await work(driver)
  } finally {
    await driver.close()
  }
}

async function addTenant(driver: Driver): Promise<string> {
  const key = `t-${randomUUID()}`
  granted(await driver.call('tenants_add', { request_id: randomUUID(), key, name: key }))
  return key
}

async function rejectsWith(promise: Promise<unknown>, codes: readonly ErrorCode[]): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof TmsError, `a TmsError and not ${String(error)}`)
    assert.ok(codes.includes(error.code), `${error.code} (${error.message}) and not one of ${codes.join(', ')}`)
    return true
  })
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + patienceMs
  while (!condition()) {
    assert.ok(Date.now() < deadline, 'nothing was signalled')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
