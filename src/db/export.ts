import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TmsError } from '../errors.ts'
import { fileProblem, writeFileAtomically } from '../files.ts'
import type { SqlFile, SqlFiles } from './files.ts'

export type ExportReport = { readonly folder: string; readonly written: readonly string[]; readonly kept: number }

/** The first line of an exported file: which of ours it holds. */
const header = /^-- tms (migration|function) (\S+) sha256 ([0-9a-f]{64})$/m

/**
 * Writes what `supabase db push` takes: one file each, numbered after those already there, each recording itself as
 * applied so that `tms db status` and a later `tms db push` know it. Only ever appends: a file that was exported may have
 * been applied, and Supabase runs each name once.
 */
export async function exportForSupabase(files: SqlFiles, folder: string, now: Date): Promise<ExportReport> {
  await mkdir(folder, { recursive: true }).catch((error: unknown) => {
    throw fileProblem(folder, error)
  })
  const there = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  const exported = new Map<string, string>()
  for (const name of there) {
    const found = header.exec(await readFile(join(folder, name), 'utf8'))
    // A later export of a function file replaces an earlier one.
    if (found) exported.set(`${found[1] ?? ''} ${found[2] ?? ''}`, found[3] ?? '')
  }
  const pending = [...files.migrations, ...files.functions].filter((file) => {
    const sum = exported.get(`${file.kind} ${file.name}`)
    if (file.kind === 'migration' && sum !== undefined && sum !== file.sha256) {
      throw new TmsError({
        code: 'MIGRATION_CHANGED',
        what: `migration ${file.name} was changed after it was exported`,
        why: `${folder} holds another text of it, which may have been applied; nothing was written`,
        next: [`git checkout -- sql/migrations/${file.name}`, 'put the change into a new, higher-numbered migration'],
      })
    }
    return sum !== file.sha256
  })
  const written: string[] = []
  let stamp = nextStamp(there.at(-1), now)
  for (const file of pending) {
    const name = `${stamp}_tms_${file.kind}_${file.name}`
    await writeFileAtomically(join(folder, name), exportText(file, files))
    written.push(name)
    stamp = String(BigInt(stamp) + 1n)
  }
  return { folder, written, kept: exported.size }
}

/** Supabase orders by the fourteen digits in front; ours come after everything that is there. */
function nextStamp(last: string | undefined, now: Date): string {
  const today = now.toISOString().replace(/\D/g, '').slice(0, 14)
  const highest = /^\d{14}/.exec(last ?? '')?.[0] ?? '0'
  return BigInt(today) > BigInt(highest) ? today : String(BigInt(highest) + 1n)
}

function exportText(file: SqlFile, { prelude, postlude }: SqlFiles): string {
  return `-- tms ${file.kind} ${file.name} sha256 ${file.sha256}
-- Written by: tms db export --supabase. Do not edit: a change comes as another file.
begin;

${prelude}
${file.text}
${postlude}
set local role tms_owner;
insert into tms.schema_files (kind, name, sha256) values ('${file.kind}', '${file.name}', '${file.sha256}')
  on conflict (kind, name) do update set sha256 = excluded.sha256, applied_at = now();
commit;
notify pgrst, 'reload schema';
`
}
