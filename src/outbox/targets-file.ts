import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import * as z from 'zod'
import { topicPattern } from '../agents/policy/form.ts'
import type { Contract } from '../drivers/contract.ts'
import { targetKinds } from '../drivers/contract/fleet.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError, type Problem } from '../errors.ts'
import {
  inOrder,
  parsePolicyFile,
  problemLine,
  readPolicyFile,
  type FileProblem,
  type Keys,
  type ParsedPolicyFile,
} from '../policy-file.ts'
import type { Block } from '../ui/blocks.ts'
import { openTarget } from './targets/kinds.ts'

/** policies/targets.yaml: where the events of the outbox go. */

export type OutboxTarget = Contract['outbox_targets_set']['args']['targets'][number]

export type Targets = {
  /** Null: no folder has one. */
  readonly path: string | null
  /** None when there are problems: a target that is left out loses what waits for it, so it is all or nothing. */
  readonly targets: readonly OutboxTarget[]
  /** False: variables like SLACK_WEBHOOK_URL stand for no targets. */
  readonly defaults?: boolean
  readonly problems: readonly FileProblem[]
}

const name = 'takes a name: small letters, digits, _ and -'
const attempts = 'takes a whole number from 1 to 100'

const form = z.strictObject(
  {
    targets: z.array(
      z.strictObject(
        {
          name: z.string({ error: name }).regex(/^[a-z][a-z0-9_-]{0,62}$/, name),
          kind: z.enum(targetKinds, { error: `takes one of ${targetKinds.join(', ')}` }),
          topics: z.array(topicPattern, { error: 'takes a list of topics' }).min(1, 'takes at least one topic'),
          tenant: z
            .string({ error: 'takes the key of a tenant' })
            .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'takes the key of a tenant')
            .optional(),
          max_attempts: z.int({ error: attempts }).min(1, attempts).max(100, attempts).optional(),
          config: z.record(z.string(), z.json(), { error: 'takes what the kind of target needs' }),
        },
        { error: 'takes a target: name, kind, topics and config' },
      ),
      { error: 'takes a list of targets' },
    ),
    defaults: z.boolean({ error: 'takes true or false' }).optional(),
  },
  { error: 'takes targets: a list' },
)

/** The first folder's targets.yaml; a later one isn't looked at, so that each target stands in one place. */
export async function readTargets(policyFolders: readonly string[]): Promise<Targets> {
  for (const folder of policyFolders) {
    const path = join(folder, 'targets.yaml')
    const file = await readPolicyFile(path, form)
    if (file !== null) return targetsOf(path, file)
  }
  return { path: null, targets: [], problems: [] }
}

export function parseTargets(path: string, text: string): Targets {
  return targetsOf(path, parsePolicyFile(path, text, form))
}

function targetsOf(path: string, file: ParsedPolicyFile<z.output<typeof form>>): Targets {
  if ('problems' in file) return { path, targets: [], problems: inOrder(file.problems) }
  const { value, problemAt } = file
  const names = value.targets.map((target) => target.name)
  const problems = value.targets.flatMap(({ name, kind, topics, config }, index) => {
    const at: Keys = ['targets', index]
    const twice = names.indexOf(name) < index ? [problemAt([...at, 'name'], `there are two targets named ${name}`)] : []
    const endless = kind === 'pagerduty' ? endlessProblem(topics) : null
    if (endless !== null) return [...twice, problemAt([...at, 'topics'], endless)]
    const wrong = configProblem(kind, config)
    if (wrong === null) return twice
    return [...twice, problemAt([...at, 'config', ...wrong.keys], wrong.message)]
  })
  const defaults = value.defaults === false ? { defaults: false } : {}
  if (problems.length > 0) return { path, targets: [], ...defaults, problems: inOrder(problems) }
  const targets = value.targets.map(({ tenant, max_attempts, ...target }) => ({
    ...target,
    ...(tenant === undefined ? {} : { tenant }),
    ...(max_attempts === undefined ? {} : { max_attempts }),
  }))
  return { path, targets, ...defaults, problems: [] }
}

/** Who is paged for an incident must hear its end through the same key, or the alert stays for ever. */
function endlessProblem(topics: readonly string[]): string | null {
  const takes = (topic: string) =>
    topics.some((one) => one === topic || (one.endsWith('.*') && topic.startsWith(one.slice(0, -1))))
  if (!['incident.opened', 'incident.late', 'incident.escalated', 'fleet.halted'].some(takes)) return null
  return takes('incident.resolved') ? null : 'takes incident.resolved, too: what pages people must end it'
}

/** What the kind of target says against its configuration. Its words name a field first, and never quote a value. */
function configProblem(kind: string, config: unknown): { readonly keys: Keys; readonly message: string } | null {
  try {
    openTarget(kind, config)
    return null
  } catch (error) {
    if (!(error instanceof TmsError)) throw error
    const [field = ''] = /^[A-Za-z0-9_.-]+(?=: | is not known)/.exec(error.why) ?? []
    return { keys: field === '' ? [] : field.split('.'), message: `${error.why}; ${error.next.join(', ')}` }
  }
}

/** The problem that a command ends with when the file is broken; null when it isn't. */
export function targetsProblem({ path, problems }: Targets): Problem | null {
  const [first] = problems
  if (first === undefined) return null
  return {
    code: 'POLICY_INVALID',
    what: `${path ?? 'targets.yaml'} is wrong, so none of it is loaded`,
    why: `${problems.length === 1 ? 'one problem' : `${problems.length} problems, the first of them`}: ${problemLine(first)}`,
    next: [`vi +${first.line} ${first.path}`],
  }
}

/** Targets of the database that a load would remove, with how many deliveries wait for each. */
export async function targetsToRemove(
  driver: Driver,
  { targets }: Targets,
): Promise<readonly { readonly name: string; readonly waiting: number }[]> {
  const held = granted(await driver.call('outbox_list', { limit: 1 }))
  const kept = new Set(targets.map((target) => target.name))
  return held.targets.filter((target) => !kept.has(target.name)).map(({ name, waiting }) => ({ name, waiting }))
}

/** Makes the database's targets these, and no others. */
export async function loadTargets(driver: Driver, read: Targets): Promise<Contract['outbox_targets_set']['result']> {
  const problem = targetsProblem(read)
  if (problem) throw new TmsError(problem)
  if (read.path === null && read.targets.length === 0) {
    throw new TmsError({
      code: 'POLICY_INVALID',
      what: 'there is no targets.yaml',
      why: 'an absent file is more likely a mistake than the wish to have no targets; that is `targets: []`',
      next: ['vi policies/targets.yaml'],
    })
  }
  return granted(await driver.call('outbox_targets_set', { request_id: randomUUID(), targets: [...read.targets] }))
}

export type TargetsShown = Targets & {
  readonly loaded: { readonly target: string; readonly removed: number } | null
}

export function targetsView({ path, targets, problems, loaded }: TargetsShown): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['target', 'kind', 'topics', 'tenant', 'attempts'],
      rows: targets.map(({ name, kind, topics, tenant, max_attempts }) => [
        name,
        kind,
        topics.join(' '),
        tenant ?? 'all',
        max_attempts ?? 'default',
      ]),
      empty:
        path === null
          ? 'There is no targets.yaml, and no variable that stands for a target.'
          : `${path} has no usable targets.`,
    },
    ...(problems.length > 0
      ? [
          { kind: 'heading' as const, text: 'Problems' },
          { kind: 'list' as const, items: problems.map((one) => ({ text: problemLine(one), tone: 'bad' as const })) },
        ]
      : []),
    ...(loaded === null
      ? problems.length === 0 && (path !== null || targets.length > 0)
        ? [{ kind: 'next' as const, commands: ['tms outbox targets --load'] }]
        : []
      : [
          {
            kind: 'text' as const,
            text: `Loaded into ${loaded.target}: ${targets.length} targets, ${loaded.removed} removed.`,
          },
        ]),
  ]
}
