import * as z from 'zod'
import { day, verdict } from './values.ts'

export const controlsFile = z
  .strictObject({
    type: z.literal('tms-controls-v1'),
    day,
    framework: z.string(),
    notice: z.string(),
    criteria: z.array(
      z.strictObject({
        id: z.string(),
        about: z.string(),
        strength: z
          .enum(['direct', 'supporting'])
          .describe('direct: the fact shows the control at work. supporting: it shows a part, or that it exists'),
        state: verdict.describe('of the facts named here, not of the criterion'),
        facts: z.array(z.strictObject({ file: z.string(), fact: z.string(), state: verdict, shows: z.string() })),
        not_shown: z.string().describe('what an auditor has to look for elsewhere'),
      }),
    ),
    not_covered: z.array(z.strictObject({ id: z.string(), about: z.string(), why: z.string() })),
  })
  .describe('Which facts of this pack speak to which SOC 2 criteria, how strongly, and which criteria none speaks to.')

export type ControlsFile = z.infer<typeof controlsFile>
