import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { fileProblem, writeNewFile } from '../files.ts'
import { redactText } from '../redaction/redact.ts'
import { showIncident, type Shown } from './incidents.ts'

/** A draft of the postmortem: what the records say, and the questions that only people can answer. */

export type Impact = Contract['incident_impact']['result']
export type Report = { readonly incidentId: string; readonly file: string; readonly markdown: string }

export async function writeReport(driver: Driver, id: string, file: string): Promise<Report> {
  const shown = await showIncident(driver, id, mostRows)
  const impact = granted(await driver.call('incident_impact', { id }))
  const markdown = postmortem(shown, impact, driver.target.name)
  try {
    await mkdir(dirname(file), { recursive: true })
    // People write into the draft: it is never written over.
    await writeNewFile(file, markdown)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') {
      throw new TmsError({
        code: 'CONFLICT',
        what: `${file} is there already.`,
        why: 'People may have written into it, so it is left as it is.',
        next: [`tms incident report ${id} --output another.md`],
      })
    }
    throw fileProblem(file, error)
  }
  return { incidentId: id, file, markdown }
}

/** A timeline of which more is missing than that is no timeline; one without end is no file. */
const mostRows = 5000

const tried: ReadonlySet<string> = new Set([
  'attempt',
  'lever',
  'lever_undone',
  'resume',
  'slots',
  'certificate',
  'approved',
])

export function postmortem({ incident: i, events, levers, halts }: Shown, impact: Impact, target: string): string {
  const line = (e: Shown['events'][number]) =>
    `| ${e.at.slice(0, 19)} | ${e.kind} | ${inline(e.who)} | ${inline(e.text)} |`
  const attempts = events.filter(({ kind }) => tried.has(kind))
  return [
    `# Incident ${i.id}: ${inline(i.title)}`,
    '',
    `| | |`,
    `| --- | --- |`,
    `| Priority | ${i.priority} |`,
    `| About | ${inline(i.type)} |`,
    `| Whose | ${i.tenant ?? 'the whole fleet'} |`,
    `| Database | ${target} |`,
    `| Opened | ${i.opened_at.slice(0, 19)} UTC by ${inline(i.opened_by)} |`,
    `| Acted on | ${span(i.opened_at, i.acted_at)} |`,
    `| Over | ${span(i.opened_at, i.resolved_at)}${i.resolution === null ? '' : ` (${i.resolution})`} |`,
    '',
    '## What happened',
    '',
    '_In two sentences, for somebody who was not there._',
    '',
    '## Timeline (UTC)',
    '',
    '| When | What | Who | Words |',
    '| --- | --- | --- | --- |',
    ...events.map(line),
    ...(events.length < mostRows ? [] : ['', `_The newest ${mostRows} rows; what came before is not in this draft._`]),
    '',
    '## Impact',
    '',
    `From ${impact.from.slice(0, 19)} to ${impact.to.slice(0, 19)}${i.resolved_at === null ? ', and it is not over' : ''}:`,
    '',
    `- Tasks: ${impact.completed} completed, ${impact.failed} failed, ${impact.retried} attempts repeated, ${impact.dead_letters} dead letters`,
    `- Tenants with work in that time: ${impact.tenants}`,
    `- Money: $${impact.cost} spent, $${impact.wasted} of it on attempts that came to nothing`,
    `- The fleet stood still for ${impact.halted_seconds} s${halts.length === 0 ? '' : ` (${halts.length} ${halts.length === 1 ? 'press' : 'presses'} of the button)`}`,
    '',
    '## What was tried',
    '',
    ...(attempts.length === 0
      ? ['Nothing that is on record.']
      : attempts.map((e) => `- ${e.at.slice(11, 19)} ${inline(e.text || e.kind)}`)),
    ...levers.flatMap((lever) => [
      `- ${lever.kind.replace('_', ' ')} at ${lever.at.slice(11, 19)}: ${lever.changes.map(({ key }) => `\`${key}\``).join(', ')}${lever.undone_at === null ? '' : `, undone at ${lever.undone_at.slice(11, 19)}`}`,
      ...lever.kept.map(({ key, why }) => `  - \`${key}\` was left as it was: ${inline(why)}`),
    ]),
    '',
    '## Open questions',
    '',
    '- What was the first sign, and who or what could have seen it earlier?',
    '- Why did it happen? And why was that possible?',
    ...(!events.some(({ kind }) => kind === 'late')
      ? []
      : ['- Nobody acted on it in time. Who was called, and what did they see?']),
    ...(i.escalated_at === null ? [] : ['- It was escalated. What would have let it heal by itself?']),
    ...(halts.some(({ silent }) => silent.length > 0)
      ? ['- Workers did not acknowledge the halt. Which, and why?']
      : []),
    ...(halts.some(({ terminated }) => terminated.length > 0)
      ? ['- Sessions had to be terminated. What held their transactions open?']
      : []),
    ...(i.resolved_at === null ? ['- What is still to be done before it is over?'] : []),
    '',
    '## What we change',
    '',
    '| What | Who | Until |',
    '| --- | --- | --- |',
    '| | | |',
    '',
  ].join('\n')
}

/** What a terminal or an editor would obey instead of showing it: controls, and marks that reorder text. */
const unseen = /[\p{Cc}\p{Cs}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu

/**
 * What Markdown would make a link, an image, HTML, code, a cell or an address of: titles come from alarms, and whoever opens the draft
 * would fetch what they name. The backslash is one of them, or it would undo the one that is put before the next.
 */
const markup = /[\\|<>[\]!`*~&]|(?<![\p{L}\p{N}])_|_(?![\p{L}\p{N}])/gu
/** Many renderers make links of bare addresses too. The entity shows as the colon or the dot, and begins none. */
const addresses = /:(?=\/\/)|(?<=\bwww)\./gi

/** Free text of people and of errors: redacted again before it goes into a file that is passed around. */
function inline(text: string): string {
  return redactText(text)
    .replace(unseen, ' ')
    .replace(/\s+/g, ' ')
    .trim()
    .replace(markup, '\\$&')
    .replace(addresses, (mark) => `&#${mark.charCodeAt(0)};`)
}

function span(from: string, to: string | null): string {
  if (to === null) return 'not yet'
  const seconds = Math.max(0, Math.round((Date.parse(to) - Date.parse(from)) / 1000))
  return `${to.slice(0, 19)} UTC, after ${seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`}`
}
