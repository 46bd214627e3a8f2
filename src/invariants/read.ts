import { readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { LoadedInvariant } from '../drivers/contract/invariants.ts'
import { TmsError, type Problem } from '../errors.ts'
import { inOrder, problemLine, readPolicyFile, type FileProblem, type Keys, type PolicyFile } from '../policy-file.ts'
import { invariantForm, invariantNameRule, type InvariantForm } from './form.ts'
import { readStatement } from './sql.ts'

/** One file of policies/invariants that is in order. */
export type ReadInvariant = {
  readonly path: string
  readonly loaded: LoadedInvariant
  /** Null for one of tms's own checks. */
  readonly query: string | null
  readonly correction: { readonly statement: string; readonly verb: string } | null
  readonly functions: readonly string[]
  /** Where the SQL is written, for what only the database can find wrong with it; `line`: of the statement, from 0, when it is known. */
  readonly problemAt: (part: 'query' | 'correct', message: string, line?: number | null) => FileProblem
}

/** The invariant is the one of the file's name: it is unknown, whatever else the file says. */
export type InvariantProblem = FileProblem & { readonly invariant: string }

export type Invariants = {
  readonly invariants: readonly ReadInvariant[]
  readonly problems: readonly InvariantProblem[]
  /** Where was looked, the first wins. */
  readonly folders: readonly string[]
  /** The first folder, which is the project's, has none or isn't there. */
  readonly noneOfItsOwn: boolean
}

/**
 * The invariants in these policy folders. A file of an earlier folder stands for the one of the same name in a later folder,
 * also when it is broken: a slip must not bring back another query.
 */
export async function readInvariants(policyFolders: readonly string[]): Promise<Invariants> {
  const folders = [...new Set(policyFolders.map((folder) => join(resolve(folder), 'invariants')))]
  const seen = new Set<string>()
  const invariants: ReadInvariant[] = []
  const problems: InvariantProblem[] = []
  let noneOfItsOwn = true
  for (const [place, folder] of folders.entries()) {
    const here = (await namesIn(folder)).filter(({ invariant }) => !seen.has(invariant))
    if (place === 0) noneOfItsOwn = here.length === 0
    for (const { invariant, name } of here) {
      seen.add(invariant)
      const read = await readInvariant(join(folder, name), invariant)
      if ('problems' in read) problems.push(...read.problems.map((problem) => ({ ...problem, invariant })))
      else invariants.push(read)
    }
  }
  return {
    invariants: invariants.toSorted((a, b) => a.loaded.invariant.localeCompare(b.loaded.invariant)),
    problems: inOrder(problems),
    folders,
    noneOfItsOwn,
  }
}

async function readInvariant(path: string, invariant: string) {
  const whole = (message: string) => ({ problems: [{ path, line: 1, column: 1, keys: '', message }] })
  if (!path.endsWith('.yaml')) return whole('is not read: policies end in .yaml, so rename it')
  if (!invariantNameRule.test(invariant)) {
    return whole('is named after its invariant, in capital letters: NO_NEGATIVE_STOCK.yaml')
  }
  const file = await readPolicyFile(path, invariantForm)
  if (file === null) return whole("isn't there any more, or leads nowhere")
  if ('problems' in file) return file
  const problems = contradictions(invariant, file)
  if (problems.length > 0) return { problems }
  return invariantOf(path, file)
}

/** At a line of the statement (from 0) where its lines are the file's; else at its key. */
function problemWithin<T>(file: PolicyFile<T>, keys: Keys, message: string, line: number): FileProblem {
  const problem = file.problemAt(keys, message)
  const block = file.blockOf(keys)
  if (block === null) return problem
  // The form takes away the blank lines before it.
  const blank = block.text.slice(0, block.text.length - block.text.trimStart().length).split('\n').length - 1
  return { ...problem, line: block.line + blank + line, column: 1 }
}

function invariantOf(path: string, file: PolicyFile<InvariantForm>): ReadInvariant {
  const { value, problemAt } = file
  const { correct } = value
  const text = trimmed(value.query ?? null)
  const statement = trimmed(correct?.statement ?? null)
  const parsed = statement === null ? null : readStatement(statement)
  return {
    path,
    query: text,
    correction:
      statement === null || parsed === null || 'problem' in parsed
        ? null
        : { statement, verb: parsed.verb ?? 'delete' },
    functions: value.grants?.functions ?? [],
    problemAt: (part, message, line = null) => {
      const keys = part === 'query' ? ['query'] : ['correct', 'statement']
      return line === null ? problemAt(keys, message) : problemWithin(file, keys, message, line)
    },
    loaded: {
      invariant: value.invariant,
      kind: text === null ? 'own' : 'query',
      priority: value.priority,
      title: value.title,
      owner: value.owner,
      check: value.check ?? null,
      every_ms: value.every * 1000,
      timeout_ms: value.timeout * 1000,
      escalate: value.escalate,
      reads: value.grants?.read ?? [],
      writes: correct?.write ?? [],
      show: value.show,
      rows_per_scan: correct?.rows_per_scan ?? null,
      rows_per_violation: correct?.rows_per_violation ?? null,
      query_sha256: null,
      correction_sha256: null,
      problem: null,
    },
  }
}

/** The ; at the end, which is right in a file and wrong inside of another statement. */
function trimmed(text: string | null): string | null {
  if (text === null) return null
  const parsed = readStatement(text)
  if ('problem' in parsed || parsed.end === null) return text
  return `${text.slice(0, parsed.end)} ${text.slice(parsed.end + 1)}`.trimEnd()
}

/** What each field allows and all of them together don't. */
function contradictions(invariant: string, file: PolicyFile<InvariantForm>): readonly FileProblem[] {
  const { value, problemAt } = file
  const problems: FileProblem[] = []
  const say = (keys: Keys, message: string, line: number | null = null) => {
    problems.push(line === null ? problemAt(keys, message) : problemWithin(file, keys, message, line))
  }
  const { query, check, grants, correct } = value
  if (value.invariant !== invariant) {
    say(['invariant'], `names ${value.invariant}, but the file is that of ${invariant}`)
  }
  if ((query === undefined) === (check === undefined)) {
    say([query === undefined ? 'invariant' : 'check'], 'takes query or check: one of the two')
  }
  if (check !== undefined) {
    if (grants !== undefined) say(['grants'], "is for queries: tms's own checks read tms's own tables")
    if (correct !== undefined) say(['correct'], "is for queries: tms's own checks correct nothing")
  }
  if (query !== undefined) {
    if (grants === undefined) say(['query'], 'needs grants.read: the tables it may read; it sees no others')
    const parsed = readStatement(query)
    if ('problem' in parsed) say(['query'], parsed.problem, parsed.line)
    else {
      if (parsed.verb !== 'select') say(['query'], 'is a select that returns the violations, one a row', 0)
    }
  }
  if (correct !== undefined) {
    if (value.escalate === 'at_once') say(['escalate'], 'is later where there is a correction: that is tried first')
    const parsed = readStatement(correct.statement)
    if ('problem' in parsed) say(['correct', 'statement'], parsed.problem, parsed.line)
    else {
      if (parsed.verb === null || parsed.verb === 'select') {
        say(['correct', 'statement'], 'is a delete, an update or an insert', 0)
      }
      if (/(^|[^\w$])returning([^\w$]|$)/i.test(parsed.code)) {
        say(['correct', 'statement'], 'has no returning: the rows are counted for it')
      }
      for (const name of unlisted(parsed.functions, [...(grants?.functions ?? []), ...correct.write])) {
        say(['correct', 'statement'], `calls ${name}, which grants.functions does not name`)
      }
    }
  }
  return problems
}

/** `insert into retail.sales (…)` looks like a call: names of tables are among those that are allowed. */
function unlisted(calls: readonly string[], allowed: readonly string[]): readonly string[] {
  const plain = (name: string) => name.replaceAll('"', '').toLowerCase()
  return calls.filter((name) => !plain(name).startsWith('pg_catalog.') && !allowed.includes(plain(name)))
}

async function namesIn(folder: string): Promise<readonly { readonly invariant: string; readonly name: string }[]> {
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `the policies in ${folder} can't be read`,
        why: `the system says ${code}, and without them it is unknown what must be true`,
        next: [`ls -ld ${folder}`],
      },
      { cause: error },
    )
  }
  return names
    .filter((name) => /^[^.].*\.ya?ml$/.test(name))
    .toSorted()
    .map((name) => ({ name, invariant: name.replace(/\.ya?ml$/, '') }))
}

/** The problem that a command ends with when files are broken; null when none is. */
export function invariantProblem(problems: readonly InvariantProblem[]): Problem | null {
  const [first] = problems
  if (first === undefined) return null
  const names = [...new Set(problems.map(({ invariant }) => invariant))]
  return {
    code: 'POLICY_INVALID',
    what: `${names.join(', ')}: the policy is wrong, so whether it holds is unknown`,
    why: `${problems.length === 1 ? 'one problem' : `${problems.length} problems, the first of them`}: ${problemLine(first)}`,
    next: [`vi +${first.line} ${first.path}`],
  }
}
