import type { Block } from '../ui/blocks.ts'
import type { ShownSettings } from './show.ts'

export function settingsView(shown: ShownSettings): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['configuration', shown.file ?? 'none'],
        ['profile', shown.profile ?? 'none'],
      ],
    },
    {
      kind: 'table',
      columns: ['setting', 'value', 'from'],
      rows: shown.settings.map(({ name, value, from }) => [
        name,
        value ?? { text: 'not set', tone: 'dim' },
        from ? { text: from, tone: 'dim' } : null,
      ]),
      empty: 'No settings.',
    },
  ]
}
