import type { Block, Tone } from '../ui/blocks.ts'
import type { Built } from './build.ts'
import type { Schema } from './schemas/published.ts'

const tones: Record<Built['verdict'], Tone> = { green: 'good', red: 'bad', unknown: 'warn' }

export function builtView(built: Built): readonly Block[] {
  const { day, verdict, final, revision, folder, written, by, files, bytes, manifest_sha256, key, as_of } = built
  return [
    { kind: 'text', text: { text: `${verdict.toUpperCase()}: the pack of ${day}`, tone: tones[verdict] } },
    {
      kind: 'facts',
      rows: [
        [
          'revision',
          final ? `${revision}, final` : { text: `${revision}, provisional: the day is not over`, tone: 'warn' },
        ],
        ['facts of', `${as_of.slice(0, 19).replace('T', ' ')} UTC`],
        ['folder', folder],
        ['files', `${files}, ${Math.ceil(bytes / 1024)} KB, ${places[written]}`],
        ['made by', by],
        ['manifest', manifest_sha256],
        ['key', key],
      ],
    },
    {
      kind: 'next',
      commands: ['tms evidence keys export > key.pem', `tms evidence verify ${folder} --key key.pem`],
    },
  ]
}

const places: Record<Built['written'], string> = {
  written: 'written',
  same: 'there already, byte for byte',
  kept: 'not written: a newer revision lies there',
}

/** As a program wants it, also without --json: it is a file to be stored. */
export function schemaView({ schema }: Schema): readonly Block[] {
  return [{ kind: 'verbatim', text: JSON.stringify(schema, null, 2) }]
}

export function schemasView(list: readonly Schema[]): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['file', 'version'],
      rows: list.map(({ file, version }) => [file, version]),
      empty: 'No schemas.',
    },
    { kind: 'next', commands: ['tms evidence schema slo_snapshot.json'] },
  ]
}
