import type { Block, Cell, Column, Tone, Value } from './blocks.ts'
import { printable } from './escape.ts'
import type { Surface } from './terminal.ts'
import { displayWidth, wrap } from './wrap.ts'

/** The blocks as text. chalk and cli-table3 are loaded here, so only commands that print for people pay for them. */
export async function render(given: readonly Block[], surface: Surface): Promise<string> {
  const blocks = given.filter(saysSomething)
  const paint = await painter(surface)
  const parts: string[] = []
  for (const block of blocks) parts.push(await renderBlock(block, surface, paint))
  // A blank line between blocks, none after a heading.
  return parts
    .map((part, i) => (i === 0 ? part : `${blocks[i - 1]?.kind === 'heading' ? '\n' : '\n\n'}${part}`))
    .join('')
}

/** Views may have a list of nothing, or end in "type next" with nothing to type; that leaves no trace. */
function saysSomething(block: Block): boolean {
  if (block.kind === 'next') return block.commands.length > 0
  if (block.kind === 'list') return block.items.length > 0
  return block.kind !== 'table' || block.rows.length > 0 || block.empty !== ''
}

/** Colours one line; lines are broken before, because a break inside a colour's code shows the code. */
type Paint = (line: string, tone: Tone | undefined) => string

async function painter(surface: Surface): Promise<Paint> {
  if (!surface.colour) return (line) => line
  const { Chalk } = await import('chalk')
  const chalk = new Chalk({ level: 1 })
  const tones: Record<Tone, (text: string) => string> = {
    good: chalk.green,
    bad: chalk.red,
    warn: chalk.yellow,
    dim: chalk.dim,
    strong: chalk.bold,
  }
  return (line, tone) => (tone ? tones[tone](line) : line)
}

async function renderBlock(block: Block, surface: Surface, paint: Paint): Promise<string> {
  switch (block.kind) {
    case 'heading':
      return linesOf({ text: block.text, tone: 'strong' }, surface.width, paint).join('\n')
    case 'text':
      return linesOf(block.text, surface.width, paint).join('\n')
    case 'verbatim':
      return block.text.replace(/\n$/, '').split('\n').map(printable).join('\n')
    case 'facts':
      return facts(block.rows, surface, paint)
    case 'table':
      return block.rows.length === 0
        ? linesOf(block.empty, surface.width, paint).join('\n')
        : table(block.columns, block.rows, surface, paint)
    case 'list':
      return block.items.map((item) => hang('- ', item, surface, paint)).join('\n')
    case 'next':
      return ['Next:', ...block.commands.map((command) => `  ${printable(command)}`)].join('\n')
  }
}

function facts(rows: readonly (readonly [string, Cell])[], surface: Surface, paint: Paint): string {
  const labels = rows.map(([label]) => printable(label))
  const labelWidth = Math.max(0, ...labels.map(displayWidth))
  // Beside its label a long value would be squeezed into a narrow column; below it the whole line is free.
  const below = surface.width < labelWidth + 22
  return rows
    .map(([, value], i) => {
      const label = labels[i] ?? ''
      const head = below ? '  ' : label.padEnd(label.length + labelWidth - displayWidth(label) + 2)
      return `${below ? `${label}\n` : ''}${hang(head, value, surface, paint)}`
    })
    .join('\n')
}

async function table(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  surface: Surface,
  paint: Paint,
): Promise<string> {
  const titles = columns.map((column) => (typeof column === 'string' ? column : column.title))
  // On a narrow terminal borders take what the words need.
  const frame = surface.isTerminal && surface.width >= 80 ? boxed : bare
  const natural = titles.map((title, i) =>
    Math.max(displayWidth(title), ...rows.map((row) => displayWidth(textOf(row[i])))),
  )
  const widths = fit(natural, surface.width - frame.outside - frame.between * (titles.length - 1))
  // Too many columns for the terminal: each row as facts stays readable, a table of slivers doesn't.
  if (widths === null) {
    return rows
      .map((row) =>
        facts(
          titles.map((title, i) => [title, row[i] ?? null]),
          surface,
          paint,
        ),
      )
      .join('\n\n')
  }

  const { default: Table } = await import('cli-table3')
  const grid = new Table({
    head: titles.map((title, i) => linesOf({ text: title, tone: 'strong' }, widths[i] ?? 0, paint).join('\n')),
    chars: frame.chars,
    colAligns: columns.map((column) => (typeof column === 'string' ? 'left' : column.align)),
    // cli-table3 counts the padding as part of the column.
    colWidths: widths.map((width) => width + frame.padding),
    style: { head: [], border: [], 'padding-left': frame.padding / 2, 'padding-right': frame.padding / 2 },
  })
  grid.push(...rows.map((row) => widths.map((width, i) => linesOf(row[i] ?? null, width, paint).join('\n'))))
  return grid
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}

type Frame = {
  readonly chars: Readonly<Record<string, string>>
  readonly padding: number
  /** Columns taken by the border on the left and right, and between two cells, padding included. */
  readonly outside: number
  readonly between: number
}

/** Horizontal rules only under the head: a rule between all rows doubles the height of every list. */
const boxed: Frame = {
  chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' },
  padding: 2,
  outside: 4,
  between: 3,
}

/** For pipes and files: aligned columns that `awk` and eyes can both read. */
const bare: Frame = {
  // prettier-ignore
  chars: {
    top: '', 'top-mid': '', 'top-left': '', 'top-right': '', bottom: '', 'bottom-mid': '', 'bottom-left': '',
    'bottom-right': '', left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: '  ',
  },
  padding: 0,
  outside: 0,
  between: 2,
}

const narrowest = 8
/** A column of words that was cut to less reads as a pillar. */
const readable = 16

/** Column widths within `available`: the widest give first. Null when it can't be done readably. */
function fit(natural: readonly number[], available: number): number[] | null {
  const widths = [...natural]
  let excess = widths.reduce((sum, width) => sum + width, 0) - available
  while (excess > 0) {
    const widest = widths.indexOf(Math.max(...widths))
    const width = widths[widest] ?? 0
    if (width <= narrowest) return null
    widths[widest] = width - 1
    excess--
  }
  const pillar = Math.max(...natural) >= 2 * readable && Math.max(...widths) < readable
  return pillar ? null : widths
}

/** `head` followed by the cell, whose further lines start below the first. */
function hang(head: string, cell: Cell, surface: Surface, paint: Paint): string {
  const indent = displayWidth(head)
  return head + linesOf(cell, surface.width - indent, paint).join(`\n${' '.repeat(indent)}`)
}

/** The cell as lines of at most `width` columns, each safe to print. */
function linesOf(cell: Cell, width: number, paint: Paint): string[] {
  return wrap(textOf(cell), width).map((line) => paint(line, isToned(cell) ? cell.tone : undefined))
}

function isToned(cell: Cell): cell is Exclude<Cell, Value> {
  return typeof cell === 'object' && cell !== null
}

function textOf(cell: Cell | undefined): string {
  const value = cell === undefined ? null : isToned(cell) ? cell.text : cell
  return value === null ? '-' : printable(String(value))
}
