import { join } from 'node:path'
import * as z from 'zod'
import type { Problem } from '../errors.ts'
import { inOrder, problemLine, readPolicyFile, type FileProblem } from '../policy-file.ts'

/** policies/incidents.yaml: what the types of alarms do, beside those that are levers by themselves. */

const levers = ['emergency_stop', 'soft_degrade', 'rollback'] as const
export type Lever = (typeof levers)[number]
export const levels = ['critical', 'high', 'medium', 'low'] as const
export type Level = (typeof levels)[number]
export const typeRule = /^[a-z][a-z0-9_.-]{0,79}$/

/** Whoever types a lever's name is in a hurry: only its letters count. */
export function leverNamed(type: string): Lever | null {
  const letters = (text: string) => text.toLowerCase().replace(/\P{L}/gu, '')
  return levers.find((lever) => letters(lever) === letters(type)) ?? null
}

export type AlarmTypes = {
  readonly types: ReadonlyMap<string, { readonly lever: Lever } | { readonly level: Level }>
  /** With one of them none of the file applies. */
  readonly problems: readonly FileProblem[]
}

const form = z.strictObject(
  {
    types: z.record(
      z.string(),
      z.strictObject(
        {
          lever: z.enum(levers, { error: `takes one of ${levers.join(', ')}` }).optional(),
          level: z.enum(levels, { error: `takes one of ${levels.join(', ')}` }).optional(),
        },
        { error: 'takes lever or level' },
      ),
      { error: 'takes types of alarms, each with lever or level' },
    ),
  },
  { error: 'takes types' },
)

/** The first folder's incidents.yaml: the project's own, else the shipped one. */
export async function readAlarmTypes(policyFolders: readonly string[]): Promise<AlarmTypes> {
  for (const folder of policyFolders) {
    const file = await readPolicyFile(join(folder, 'incidents.yaml'), form)
    if (file === null) continue
    if ('problems' in file) return { types: new Map(), problems: inOrder(file.problems) }
    const types = new Map<string, { readonly lever: Lever } | { readonly level: Level }>()
    const problems: FileProblem[] = []
    for (const [type, { lever, level }] of Object.entries(file.value.types)) {
      const say = (message: string) => problems.push(file.problemAt(['types', type], message))
      if (leverNamed(type) !== null) say('is a lever by itself, and stays one')
      else if (!typeRule.test(type)) say('is a word in lower case')
      else if (lever !== undefined && level === undefined) types.set(type, { lever })
      else if (level !== undefined && lever === undefined) types.set(type, { level })
      else say('takes lever or level: one of the two')
    }
    return problems.length === 0 ? { types, problems } : { types: new Map(), problems: inOrder(problems) }
  }
  return { types: new Map(), problems: [] }
}

/** The problem that an alarm ends with when the file is broken; null when it isn't. */
export function alarmTypesProblem({ problems }: AlarmTypes): Problem | null {
  const [first] = problems
  if (first === undefined) return null
  return {
    code: 'POLICY_INVALID',
    what: `${first.path} is wrong, so the alarm was taken as if no type were mapped.`,
    why: problems.map(problemLine).join('; '),
    next: [`vi +${first.line} ${first.path}`],
  }
}
