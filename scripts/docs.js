// docs/commands.md, made from oclif.manifest.json and the settings table. `--check` fails when it is stale.
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readIfPresent, writeWhole } from './files.js'

const root = resolve(fileURLToPath(import.meta.url), '../..')
const path = join(root, 'docs/commands.md')
const { oclif } = JSON.parse(readIfPresent(join(root, 'package.json')))
const { commands } = JSON.parse(readIfPresent(join(root, 'oclif.manifest.json')))
const { settingsTable } = await import('../dist/settings.js')

const exitCodes = [
  ['0', 'done; or the check ran and the answer is yes'],
  ['1', 'finding: the check ran and the answer is no'],
  ['2', 'usage, configuration or a policy file is wrong; seen without touching the outside'],
  ['3', 'something outside kept tms from working or knowing'],
  ['4', 'refused: role, rail, fence, or consent missing'],
  ['70', 'a bug in tms'],
  ['130, 143', 'interrupted, terminated'],
]

const text = [...head(), ...settings(), ...Object.values(commands).flatMap(command), ''].join('\n')
if (!process.argv.includes('--check')) {
  writeWhole(path, text)
} else if (readIfPresent(path) !== text) {
  process.stderr.write('docs/commands.md does not match the commands.\nNext:\n  npm run manifest && npm run docs\n')
  process.exitCode = 1
}

function head() {
  const topics = Object.entries(oclif.topics).map(([name, { description }]) => [`\`${name}\``, description])
  const alone = Object.values(commands)
    .filter(({ id }) => !id.includes(':'))
    .map(({ id, summary }) => [`[\`${id}\`](#${anchor(id)})`, summary])
  const global = flagsOf(Object.values(commands)[0]).filter(({ helpGroup }) => helpGroup === 'GLOBAL')
  return [
    '# Commands',
    '',
    'Made by `npm run docs`; changes belong into `src/commands`.',
    '',
    ...table(['topic', ''], [...topics, ...alone]),
    '',
    '## Every command',
    '',
    ...table(['exit code', 'means'], exitCodes),
    '',
    'Data goes to stdout, everything else to stderr. With `--json` the last line of stdout is always',
    '`{ok, command, data, warnings, error: {code, message, why, next[]}}`; streams print one object per line before it.',
    "`--help` and `--version` print text, also with `--json`; `tms autocomplete` doesn't take it.",
    '',
    'A flag wins over its variable, a variable over `tms.config.yaml`, the file over the default. Boolean variables take',
    '`1`, `true`, `yes`, `on` and `0`, `false`, `no`, `off`. `NO_COLOR`, `FORCE_COLOR` and `COLUMNS` are respected, `TMS_DEBUG=1`',
    'shows stack traces. Consent (`--confirm`, `--execute`) and the steps of a rollout (`--next`, `--off`) have no variable, and the',
    'variable of a flag that excludes one that was typed says nothing.',
    '',
    ...flagTable(global),
    '',
  ]
}

function settings() {
  const rows = Object.entries(settingsTable).map(([name, row]) => [
    row.inFile ? `\`${name}\`` : '',
    `\`${row.variable}\``,
    row.default === undefined ? '' : `\`${row.default}\``,
    `${row.about}${row.secret === 'whole' ? ' (secret)' : ''}`,
  ])
  return [
    '## Settings',
    '',
    '`tms.config.yaml` is searched in the current folder and upwards. `profile: <name>` picks one of `profiles:`, a map',
    'from names to settings that win over those outside it. Relative paths are meant from the file. `tms config show`',
    'tells what applies and where each value comes from.',
    '',
    ...table(['key', 'variable', 'default', ''], rows),
    '',
  ]
}

function command(entry) {
  const own = flagsOf(entry).filter(({ helpGroup }) => helpGroup !== 'GLOBAL')
  const args = Object.values(entry.args)
  return [
    `## tms ${entry.id.replaceAll(':', ' ')}`,
    '',
    `${sentence(entry.summary)}`,
    '',
    ...(entry.description ? [entry.description, ''] : []),
    '```sh',
    ...entry.examples.map((example) => example.replaceAll('<%= config.bin %>', oclif.bin)),
    '```',
    '',
    `Usage: \`${usage(entry, args, own)}\``,
    '',
    ...(args.length > 0 ? [...table(['argument', ''], args.map(argument)), ''] : []),
    ...(own.length > 0 ? [...flagTable(own), ''] : []),
  ]
}

function usage(entry, args, own) {
  const words = args.map(({ name, required }) => (required ? `<${name}>` : `[<${name}>]`))
  const flags = own.map((flag) => (flag.required ? spelled(flag) : `[${spelled(flag)}]`))
  return [oclif.bin, entry.id.replaceAll(':', ' '), ...words, ...flags].join(' ')
}

function argument({ name, description, required, options }) {
  return [
    `\`${name}\``,
    [description, options && `one of ${options.join(', ')}`, !required && 'optional'].filter(Boolean).join('; '),
  ]
}

function flagTable(flags) {
  const rows = flags.map((flag) => [
    `\`${flag.char ? `-${flag.char}, ` : ''}${spelled(flag)}\``,
    flag.env ? `\`${flag.env}\`` : '',
    [
      flag.description,
      flag.required && 'required',
      flag.default !== undefined && flag.type === 'option' && `default ${flag.default}`,
    ]
      .filter(Boolean)
      .join('; '),
  ])
  return table(['flag', 'variable', ''], rows)
}

function spelled(flag) {
  if (flag.type === 'boolean') return `--${flag.allowNo ? '[no-]' : ''}${flag.name}`
  return `--${flag.name} ${flag.options ? flag.options.join('|') : (flag.helpValue ?? '<value>')}`
}

function flagsOf({ flags }) {
  return Object.values(flags).sort((a, b) => (a.name < b.name ? -1 : 1))
}

function table(titles, rows) {
  const cell = (text) => text.replaceAll('|', '\\|')
  const line = (cells) => `| ${cells.map(cell).join(' | ')} |`
  return [line(titles), `|${titles.map(() => '---|').join('')}`, ...rows.map(line)]
}

function sentence(text) {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`
}

function anchor(id) {
  return `tms-${id.replaceAll(':', '-')}`
}
