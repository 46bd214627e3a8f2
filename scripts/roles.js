// Turns policies/roles.yaml into sql/functions/05_roles.sql. `--check` fails when the file on disk is another.
import { readFileSync, writeFileSync } from 'node:fs'
import { parse } from 'yaml'

const root = new URL('..', import.meta.url)
const target = new URL('sql/functions/05_roles.sql', root)
const source = parse(readFileSync(new URL('policies/roles.yaml', root), 'utf8'))

const quote = (text) => `'${String(text).replaceAll("'", "''")}'`
const array = (items) => (items.length === 0 ? `'{}'` : `'{${items.join(',')}}'`)

const roles = [
  ...Object.entries(source.human_roles).map(([role, text]) => {
    const words = text.split(/[ ,]+/)
    return { role, kind: 'human', scope: words[0], redacted: words.includes('redacted') }
  }),
  ...Object.entries(source.service_accounts).map(([role, scope]) => ({
    role,
    kind: 'service',
    scope,
    redacted: false,
  })),
]
const known = new Map(roles.map((role) => [role.role, role]))

/** `ops_manager own: ops.* budget.*`, `developer redacted`, `autopilot: canary and staged rollout steps`. */
function parseGrant(operation, text) {
  const [head, condition] = text.split(/:\s*/)
  const [name, ...words] = head.trim().split(/\s+/)
  const role = known.get(name)
  if (!role) throw new Error(`${operation}: there is no role "${name}"`)
  for (const word of words) {
    if (!['own', 'redacted', 'read'].includes(word)) throw new Error(`${operation}: "${text}" is not understood`)
    if (word === 'own' && role.scope !== 'own')
      throw new Error(`${operation}: ${name} is not scoped to its own tenants`)
  }
  // "finance functions" are the functions whose name starts with finance.
  const patterns = condition
    ?.split(/\s+/)
    .filter((word) => word.includes('.'))
    .concat(/^(\w+) functions$/.test(condition) ? [`${condition.split(' ')[0]}.*`] : [])
  return {
    role: name,
    redacted: role.redacted || words.includes('redacted'),
    patterns: patterns && patterns.length > 0 ? patterns : undefined,
  }
}

const operations = Object.entries(source.operations).flatMap(([operation, grants]) =>
  grants.map((text) => ({ operation, ...parseGrant(operation, text) })),
)
const portals = Object.entries(source.portals).map(([portal, { path, roles: entries }]) => {
  const split = entries.map((entry) => entry.split(/\s+/))
  for (const [name] of split) if (!known.has(name)) throw new Error(`portal ${portal}: there is no role "${name}"`)
  return {
    portal,
    path,
    writers: split.filter(([, read]) => read !== 'read').map(([name]) => name),
    readers: split.filter(([, read]) => read === 'read').map(([name]) => name),
  }
})

const values = (rows) => rows.map((row) => `    (${row.join(', ')})`).join(',\n')
const sql = `-- Generated from policies/roles.yaml by \`npm run roles\`; edit that file instead.
--
-- Guarantee: what the database enforces is this list, and a check fails when the two differ.

set local role tms_identity;

do $$
begin
  delete from tms.role_operations where true;
  delete from tms.portals where true;
  delete from tms.roles where true;
  insert into tms.roles (role, kind, scope, redacted) values
${values(roles.map((r) => [quote(r.role), quote(r.kind), quote(r.scope), r.redacted]))};
  insert into tms.role_operations (role, operation, redacted, patterns) values
${values(operations.map((o) => [quote(o.role), quote(o.operation), o.redacted, o.patterns ? array(o.patterns) : 'null']))};
  insert into tms.portals (portal, path, writers, readers) values
${values(portals.map((p) => [quote(p.portal), quote(p.path), array(p.writers), array(p.readers)]))};

  -- each service account is a principal that holds the role of its name, and nothing else ever
  insert into tms.principals (kind, name) select 'service', r.role from tms.roles r where r.kind = 'service'
    on conflict do nothing;
  insert into tms.memberships (principal_id, role)
    select p.id, p.name from tms.principals p join tms.roles r on r.role = p.name and r.kind = 'service' where p.kind = 'service'
    on conflict do nothing;
end
$$;
`

if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== sql) {
    console.error('sql/functions/05_roles.sql is not what policies/roles.yaml says. Type: npm run roles')
    process.exit(1)
  }
} else {
  writeFileSync(target, sql)
}
