import { randomUUID } from 'node:crypto'
import { basename } from 'node:path'
import type { Contract } from '../drivers/contract.ts'
import type { LoadedInvariant } from '../drivers/contract/invariants.ts'
import { SqlError, type SqlPlace } from '../drivers/database-error.ts'
import type { Driver, RunSql } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { problemLine } from '../policy-file.ts'
import { bodies, building, prepareSchema, removal, sha256 } from './build.ts'
import { invariantNameRule } from './form.ts'
import type { InvariantProblem, Invariants, ReadInvariant } from './read.ts'

export type Loaded = Contract['invariants_load']['result'] & {
  readonly problems: readonly InvariantProblem[]
  /** Their functions aren't in the database: this connection takes no SQL. */
  readonly pending: readonly string[]
  /** The database holds them and no file does. */
  readonly kept: readonly string[]
}

/** Those of the database that no file names any more; a broken file names its own. */
export async function invariantsToRemove(driver: Driver, files: Invariants): Promise<readonly string[]> {
  const { invariants: held } = granted(await driver.call('invariants_list', {}))
  return unnamed(files, held)
}

function unnamed({ invariants, problems }: Invariants, held: readonly { readonly invariant: string }[]): string[] {
  const named = new Set([...invariants.map(({ loaded }) => loaded.invariant), ...problems.map((one) => one.invariant)])
  return held.map(({ invariant }) => invariant).filter((invariant) => !named.has(invariant))
}

/** An empty folder is more likely the wrong one than the wish that nothing of the project's is checked any more. */
export function mayRemove({ noneOfItsOwn, folders }: Invariants, gone: readonly string[], none: boolean): void {
  if (!noneOfItsOwn || none || gone.length === 0) return
  throw new TmsError({
    code: 'POLICY_INVALID',
    what: `There are no invariants in ${folders[0] ?? 'the policies'}, and the database has ${gone.join(', ')}.`,
    why: 'That is more likely the wrong folder than the wish to check them no more, so nothing was changed.',
    next: ['tms config show', 'tms invariants load --none  (if there are to be none)'],
  })
}

/**
 * Puts these invariants into the database; of the others it removes what `remove` names, and nothing else. Their SQL goes in by the administrator's connection, as functions
 * of roles that may do what the policy grants; what a connection that only calls can't put there stays pending, and
 * unknown. A policy that is broken is loaded as broken: it is never green.
 */
export async function loadInvariants(
  driver: Driver,
  files: Invariants,
  remove: readonly string[] = [],
): Promise<Loaded> {
  const read = { ...files, invariants: files.invariants.map(withDigests) }
  const { invariants: held } = granted(await driver.call('invariants_list', {}))
  const queries = read.invariants.filter(({ loaded }) => loaded.kind === 'query')
  const build = queries.filter(({ loaded }) => {
    const there = held.find(({ invariant }) => invariant === loaded.invariant)
    return !(
      there?.fit === true &&
      there.query_sha256 === loaded.query_sha256 &&
      there.correction_sha256 === loaded.correction_sha256
    )
  })
  const wanted = new Set(queries.map(({ loaded }) => loaded.invariant))
  const kept = unnamed(files, held).filter((invariant) => !remove.includes(invariant))
  const stale = held
    .filter(({ kind, invariant }) => kind !== 'own' && !wanted.has(invariant) && !kept.includes(invariant))
    .map(({ invariant }) => invariant)
  const failed = build.length + stale.length > 0 && driver.administration ? await administer(driver, build, stale) : []
  const problems = [...read.problems, ...failed]
  const done = granted(
    await driver.call('invariants_load', {
      request_id: randomUUID(),
      invariants: entries(read, problems),
      ...(remove.length === 0 ? {} : { remove: [...remove] }),
    }),
  )
  return { ...done, kept, problems, pending: driver.administration ? [] : await unbuiltOnes(driver) }
}

async function unbuiltOnes(driver: Driver): Promise<readonly string[]> {
  const { invariants } = granted(await driver.call('invariants_list', {}))
  return invariants.filter(({ kind, fit }) => kind === 'query' && !fit).map(({ invariant }) => invariant)
}

/** What tells later that the functions are still the ones that were loaded. */
function withDigests(policy: ReadInvariant): ReadInvariant {
  const { find, fix } = bodies(policy)
  return { ...policy, loaded: { ...policy.loaded, query_sha256: sha256(find), correction_sha256: sha256(fix) } }
}

/** Everything at once as a script, for an SQL console: what `loadInvariants` would run. */
export function loadScript({ invariants }: Invariants): string {
  const queries = invariants.filter(({ loaded }) => loaded.kind === 'query')
  const ids = queries.map(({ loaded }) => loaded.invariant)
  return ['begin', prepareSchema, removal(ids), ...queries.map((policy) => building(policy)), 'commit', ''].join(';\n')
}

async function administer(driver: Driver, build: readonly ReadInvariant[], stale: readonly string[]) {
  // Loads nothing: whoever may not is told so by the database's own words, and not by the first statement that fails.
  granted(await driver.call('invariants_load', { request_id: randomUUID(), invariants: [] }))
  try {
    return (await driver.administration?.transaction((run) => construct(run, build, stale))) ?? []
  } catch (error) {
    if (!(error instanceof TmsError) || error.code !== 'ROLE_DENIED') throw error
    throw new TmsError(
      {
        code: 'ROLE_DENIED',
        what: `This login may not put the SQL of invariants into ${driver.target.name}.`,
        why: `It needs to create roles and to grant on the tables (${error.message}).`,
        next: ['tms invariants load --print', 'tms whoami'],
      },
      { cause: error },
    )
  }
}

async function construct(
  run: RunSql,
  build: readonly ReadInvariant[],
  stale: readonly string[],
): Promise<readonly InvariantProblem[]> {
  await run(prepareSchema)
  await run(removal([...stale, ...build.map(({ loaded }) => loaded.invariant)]))
  const problems: InvariantProblem[] = []
  for (const policy of build) {
    await run('savepoint one_invariant')
    try {
      await run(building(policy))
    } catch (error) {
      if (!(error instanceof TmsError) || error.code !== 'INPUT_INVALID') throw error
      await run('rollback to savepoint one_invariant')
      const part = error.why === 'in correct.statement' ? 'correct' : 'query'
      const line = await lineOf(run, policy, part)
      problems.push({ ...policy.problemAt(part, error.message, line), invariant: policy.loaded.invariant })
    }
  }
  return problems
}

/** The line of the statement, from 0, at which the database finds it wrong when it is tried once more; null: it names none. */
async function lineOf(run: RunSql, policy: ReadInvariant, part: 'query' | 'correct'): Promise<number | null> {
  let found: number | null = null
  try {
    await run(building(policy, true))
  } catch (error) {
    const text = part === 'query' ? policy.query : policy.correction?.statement
    if (error instanceof SqlError && text) found = lineWithin(text, error.place)
  }
  await run('rollback to savepoint one_invariant')
  return found
}

/** Ours stands around it: what is wrong behind its end is wrong at its end. */
function lineWithin(text: string, { statement, position }: SqlPlace): number | null {
  const start = statement.indexOf(text)
  // Postgres counts characters, of which some are two here.
  const before = Array.from(statement)
    .slice(0, position - 1)
    .join('')
  if (start < 0 || before.length < start) return null
  return before.slice(start, start + text.length).split('\n').length - 1
}

function entries(read: Invariants, problems: readonly InvariantProblem[]): LoadedInvariant[] {
  const broken = new Map(
    // Without the folder: where somebody keeps their files is nobody else's business.
    problems
      .toReversed()
      .map((problem) => [problem.invariant, problemLine({ ...problem, path: basename(problem.path) })]),
  )
  const whole = read.invariants.filter(({ loaded }) => !broken.has(loaded.invariant)).map(({ loaded }) => loaded)
  return [
    ...whole,
    // A file of which not even the name is right can't be told apart from others: whoever loads is told.
    ...[...broken]
      .filter(([invariant]) => invariantNameRule.test(invariant))
      .map(([invariant, problem]): LoadedInvariant => {
        const known = read.invariants.find(({ loaded }) => loaded.invariant === invariant)?.loaded
        return {
          ...(known ?? nothingKnown(invariant)),
          ...unbuilt,
          kind: 'broken',
          check: null,
          problem: problem.slice(0, 400),
        }
      }),
  ]
}

const unbuilt = { query_sha256: null, correction_sha256: null, rows_per_scan: null, rows_per_violation: null }

/** As bad as can be: what isn't known can't be taken for small. */
function nothingKnown(invariant: string): LoadedInvariant {
  return {
    invariant,
    kind: 'broken',
    priority: 'P1',
    title: 'its policy could not be read',
    owner: 'unknown',
    check: null,
    every_ms: 300_000,
    timeout_ms: 5_000,
    escalate: 'later',
    reads: [],
    writes: [],
    show: [],
    ...unbuilt,
    problem: null,
  }
}
