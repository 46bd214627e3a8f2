import { readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { AgentPolicy } from '../../drivers/contract/fleet.ts'
import { TmsError, type Problem } from '../../errors.ts'
import {
  inOrder,
  parsePolicyFile,
  problemLine,
  readPolicyFile,
  type FileProblem,
  type Keys,
  type ParsedPolicyFile,
  type PolicyFile,
} from '../../policy-file.ts'
import { amount, policyForm, spendingUnits, type PolicyForm } from './form.ts'

/** One file of policies/agents that is in order. */
export type ReadPolicy = {
  readonly path: string
  readonly agent: string
  readonly owner: string
  readonly description: string
  readonly policy: AgentPolicy
  /** Where each function is listed. */
  readonly functionLines: ReadonlyMap<string, number>
  /** The line of a field; null when it isn't written and its default applies. */
  readonly lineOf: (keys: Keys) => number | null
  readonly problemAt: (keys: Keys, message: string) => FileProblem
}

/** The agent is the one of the file's name: it is denied, whatever else the file says. */
export type AgentProblem = FileProblem & { readonly agent: string }

export type AgentPolicies = {
  readonly policies: readonly ReadPolicy[]
  readonly problems: readonly AgentProblem[]
  /** Where was looked, the first wins. */
  readonly folders: readonly string[]
}

/**
 * The agents' policies in these policy folders. A file of an earlier folder stands for the one of the same name in a later
 * folder, also when it is broken: a slip must not bring back a more generous one. A broken file denies its agent and no other.
 */
export async function readAgentPolicies(policyFolders: readonly string[]): Promise<AgentPolicies> {
  const folders = [...new Set(policyFolders.map((folder) => join(resolve(folder), 'agents')))]
  const seen = new Set<string>()
  const read: ReadPolicy[] = []
  const problems: AgentProblem[] = []
  for (const folder of folders) {
    const here = (await namesIn(folder)).filter(({ agent }) => !seen.has(agent))
    for (const { agent, name } of here) {
      seen.add(agent)
      const path = join(folder, name)
      const result = name.endsWith('.yml')
        ? { problems: [wholeFile(path, 'is not read: policies end in .yaml, so rename it')] }
        : readAgentPolicy(path, agent, (await readPolicyFile(path, policyForm)) ?? gone(path))
      if ('problems' in result) problems.push(...result.problems.map((problem) => ({ ...problem, agent })))
      else read.push(result)
    }
  }
  const twice = namedTwice(read)
  const denied = new Set(twice.map(({ agent }) => agent))
  return {
    policies: read.filter(({ agent }) => !denied.has(agent)).toSorted((a, b) => a.agent.localeCompare(b.agent)),
    problems: inOrder([...problems, ...twice]),
    folders,
  }
}

export function parseAgentPolicy(
  path: string,
  agent: string,
  text: string,
): ReadPolicy | { readonly problems: readonly FileProblem[] } {
  return readAgentPolicy(path, agent, parsePolicyFile(path, text, policyForm))
}

function readAgentPolicy(path: string, agent: string, file: ParsedPolicyFile<PolicyForm>) {
  if ('problems' in file) return file
  const problems = contradictions(agent, file)
  if (problems.length > 0) return { problems }
  const { value, lineOf, problemAt } = file
  return {
    path,
    agent,
    owner: value.owner,
    description: value.description,
    policy: policyOf(value),
    functionLines: new Map(value.functions.map(({ name }, index) => [name, lineOf(['functions', index]) ?? 1])),
    lineOf,
    problemAt,
  }
}

async function namesIn(folder: string): Promise<readonly { readonly agent: string; readonly name: string }[]> {
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
        why: `the system says ${code}, and without them it is unknown what agents may do`,
        next: [`ls -ld ${folder}`],
      },
      { cause: error },
    )
  }
  return names
    .filter((name) => /^[^.].*\.ya?ml$/.test(name))
    .toSorted()
    .map((name) => ({ name, agent: name.replace(/\.ya?ml$/, '') }))
}

/** What each field allows and all of them together don't. */
function contradictions(agent: string, { value, problemAt }: PolicyFile<PolicyForm>): readonly FileProblem[] {
  const problems: FileProblem[] = []
  const say = (keys: Keys, message: string) => problems.push(problemAt(keys, message))
  if (value.agent !== agent) say(['agent'], `names ${value.agent}, but the file is that of ${agent}`)
  const names = value.functions.map(({ name }) => name)
  for (const [index, name] of names.entries()) {
    if (names.indexOf(name) < index) say(['functions', index], `${name} is listed twice`)
  }
  if (value.backoff.first > value.backoff.most) say(['backoff'], 'first is longer than most')
  const { per_task, per_tenant_per_day } = value.limits
  for (const unit of spendingUnits) {
    const task = amount(per_task[unit])
    const day = per_tenant_per_day[unit]
    // Without an end to the day a loop of cheap tasks spends without limit.
    if (task > 0n && day === undefined) {
      say(['limits', 'per_task', unit], `needs limits.per_tenant_per_day.${unit} too: without it a day has no limit`)
    }
    if (task === 0n && day !== undefined) {
      say(['limits', 'per_tenant_per_day', unit], `needs limits.per_task.${unit} too: without it no task may spend any`)
    }
    if (task > 0n && day !== undefined && amount(day) < task) {
      say(['limits', 'per_tenant_per_day', unit], 'is less than one task may spend')
    }
  }
  return problems
}

function policyOf({ agent, functions, limits, backoff, breaker, may }: PolicyForm): AgentPolicy {
  return {
    agent,
    functions: functions.map(({ name }) => name),
    approval: functions.flatMap(({ name, approval }) => (approval ? [name] : [])),
    publish: may.publish,
    enqueue: may.enqueue,
    apply: may.apply,
    max_attempts: limits.attempts,
    timeout_ms: limits.timeout * 1000,
    backoff_ms: backoff.first * 1000,
    backoff_cap_ms: backoff.most * 1000,
    requests_per_minute: limits.requests_per_minute ?? null,
    concurrency: limits.concurrency ?? null,
    tokens_per_task: limits.per_task.tokens,
    calls_per_task: limits.per_task.calls,
    cost_per_task: limits.per_task.cost,
    // Null where a task may spend none: a day's limit of 0 would close the queue.
    tokens_per_day: limits.per_tenant_per_day.tokens ?? null,
    calls_per_day: limits.per_tenant_per_day.calls ?? null,
    cost_per_day: limits.per_tenant_per_day.cost ?? null,
    breaker_percent: breaker.errors_percent,
    breaker_samples: breaker.samples,
    breaker_seconds: breaker.pause,
  }
}

/** Whoever is meant, the other would get tasks that aren't his: both are denied until somebody decides. */
function namedTwice(read: readonly ReadPolicy[]): readonly AgentProblem[] {
  const first = new Map<string, ReadPolicy>()
  const problems: AgentProblem[] = []
  const say = (one: ReadPolicy, other: ReadPolicy, name: string) => {
    const place = `${other.path}:${other.functionLines.get(name) ?? 1}`
    const keys = ['functions', one.policy.functions.indexOf(name)]
    problems.push({
      ...one.problemAt(keys, `${name} is listed by ${other.agent} too, at ${place}`),
      agent: one.agent,
    })
  }
  for (const policy of read) {
    for (const name of policy.functionLines.keys()) {
      const other = first.get(name)
      if (other === undefined) {
        first.set(name, policy)
      } else {
        say(other, policy, name)
        say(policy, other, name)
      }
    }
  }
  return problems
}

function wholeFile(path: string, message: string): FileProblem {
  return { path, line: 1, column: 1, keys: '', message }
}

/** Deleted between the listing and the reading, or a link that leads nowhere. */
function gone(path: string) {
  return { problems: [wholeFile(path, "isn't there any more, or leads nowhere")] }
}

/** The problem that a command ends with when files are broken; null when none is. */
export function policyProblem({ problems }: AgentPolicies): Problem | null {
  const [first] = problems
  if (first === undefined) return null
  const agents = [...new Set(problems.map(({ agent }) => agent))]
  return {
    code: 'POLICY_INVALID',
    what: `${agents.join(', ')}: the policy is wrong, so the agent is denied everything`,
    why: `${problems.length === 1 ? 'one problem' : `${problems.length} problems, the first of them`}: ${problemLine(first)}`,
    next: [`vi +${first.line} ${first.path}`],
  }
}
