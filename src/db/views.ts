import type { Block } from '../ui/blocks.ts'
import type { ExportReport } from './export.ts'
import type { PushReport } from './push.ts'
import type { SchemaStatus } from './schema.ts'

export type Pushed = PushReport & { readonly target: string; readonly catalogue: string }

export function pushView({ target, migrations, functions, catalogue }: Pushed): readonly Block[] {
  if (migrations.length + functions.length === 0)
    return [{ kind: 'text', text: `${target} is up to date. ${catalogue}` }]
  return [
    { kind: 'text', text: `Applied to ${target}:` },
    { kind: 'list', items: [...migrations, ...functions.map((name) => `functions ${name}`)] },
    { kind: 'text', text: catalogue },
  ]
}

export function statusView(status: SchemaStatus): readonly Block[] {
  const differing = status.files.filter((file) => file.state !== 'applied')
  return [
    {
      kind: 'facts',
      rows: [
        ['database', status.target],
        ['schema tms', status.present ? 'present' : { text: 'absent', tone: 'bad' }],
        ['contract', `${status.contract ?? '-'} (this tms speaks ${status.speaks})`],
        [
          'files',
          status.upToDate
            ? { text: `all ${status.files.length} applied`, tone: 'good' }
            : { text: `${differing.length} of ${status.files.length} differ`, tone: 'bad' },
        ],
      ],
    },
    {
      kind: 'table',
      columns: ['kind', 'file', 'state', 'applied at'],
      rows: differing.map((file) => [file.kind, file.name, file.state, file.appliedAt]),
      empty: '',
    },
    { kind: 'next', commands: status.upToDate ? [] : ['tms db push'] },
  ]
}

export function exportView({ folder, written, kept }: ExportReport): readonly Block[] {
  if (written.length === 0) return [{ kind: 'text', text: `${folder} is up to date: ${kept} files.` }]
  return [
    { kind: 'text', text: `Written to ${folder}:` },
    { kind: 'list', items: written },
    { kind: 'next', commands: ['supabase db push'] },
  ]
}
