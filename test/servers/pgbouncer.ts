import { chown, mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Database, Postgres } from './postgres.ts'
import { query } from './postgres.ts'
import { freePort, startProcess, until } from './process.ts'

export type Pgbouncer = { readonly port: number; urlOf(url: string): string; stop(): Promise<void> }

/** A real pgbouncer (Debian: `apt-get install pgbouncer`) with two server connections, so that clients do share them. */
export async function startPgbouncer(
  postgres: Postgres,
  database: Database,
  settings: Readonly<Record<string, string>> = {},
): Promise<Pgbouncer> {
  const user = postgres.cluster?.user
  const directory = await mkdtemp(join('/tmp', 'tms-pgb-'))
  const { username, password } = new URL(database.url)
  const port = await freePort()
  const all = {
    listen_addr: '127.0.0.1',
    listen_port: String(port),
    unix_socket_dir: '',
    auth_type: 'scram-sha-256',
    auth_file: join(directory, 'users.txt'),
    pool_mode: 'transaction',
    default_pool_size: '2',
    admin_users: username,
    ...settings,
  }
  const lines = Object.entries(all).map(([name, value]) => `${name} = ${value}`)
  await writeFile(join(directory, 'users.txt'), `"${username}" "${password}"\n`)
  await writeFile(
    join(directory, 'pgbouncer.ini'),
    `[databases]\n${database.name} = host=127.0.0.1 port=${postgres.port}\n[pgbouncer]\n${lines.join('\n')}\n`,
  )
  if (user)
    for (const name of ['.', 'users.txt', 'pgbouncer.ini']) await chown(join(directory, name), user.uid, user.gid)
  const server = startProcess({
    command: 'pgbouncer',
    args: [join(directory, 'pgbouncer.ini')],
    directory,
    stopSignal: 'SIGINT',
    user,
  })
  const urlOf = (url: string): string => Object.assign(new URL(url), { port: String(port) }).toString()
  await until('pgbouncer answers', async () => {
    if (!server.running()) throw new Error(`pgbouncer ended:\n${await server.log()}`)
    return query(urlOf(database.url), 'select 1').then(
      () => true,
      () => false,
    )
  })
  return { port, urlOf, stop: () => server.stop() }
}
