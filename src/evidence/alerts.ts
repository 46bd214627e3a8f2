import type { SloSnapshotFile } from './schemas/slo-snapshot.ts'

/** alerts.sql.out: what psql would print. None, or what there was. */
export function alertsText({ day, window, alerts, checks }: SloSnapshotFile): string {
  const red = checks.filter(({ state }) => state === 'red')
  return [
    `-- Alerts of ${day} (UTC), until ${window.until}`,
    '',
    `-- incidents that were open at some time of the day, gravest first: ${alerts.count}`,
    ...psqlTable(
      ['id', 'priority', 'status', 'type', 'tenant', 'opened_at', 'ended_at', 'title'],
      alerts.listed.map((row) => [
        row.id,
        row.priority,
        row.status,
        row.type,
        row.tenant ?? '',
        row.opened_at,
        row.ended_at ?? '',
        row.title,
      ]),
    ),
    ...(alerts.count > alerts.listed.length ? [`-- ${alerts.count - alerts.listed.length} more are not listed`] : []),
    '',
    `-- checks that were red: ${red.length}`,
    ...psqlTable(
      ['group', 'name', 'observed', 'comparison', 'limit', 'samples'],
      red.map((check) => [
        check.group,
        check.name,
        check.observed ?? 'unknown',
        check.comparison,
        check.limit,
        String(check.samples),
      ]),
    ),
    '',
  ].join('\n')
}

/** A line break in a cell would make a row that nobody wrote; so would any other control character on a screen. */
function psqlTable(columns: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const cells = rows.map((row) => row.map((cell) => cell.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, ' ')))
  const widths = columns.map((name, at) => Math.max(name.length, ...cells.map((row) => (row[at] ?? '').length)))
  const line = (row: readonly string[]) =>
    ` ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')}`.trimEnd()
  return [
    line(columns),
    widths.map((width) => '-'.repeat(width + 2)).join('+'),
    ...cells.map(line),
    `(${rows.length} ${rows.length === 1 ? 'row' : 'rows'})`,
  ]
}
