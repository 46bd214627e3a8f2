import type { Connection } from './connection.ts'
import type { Driver } from './driver.ts'

/**
 * The only place that knows all drivers. Each is imported when it is used: PGlite, pg and supabase-js cost 50 to
 * 200 ms at start, and a command needs one of them at most.
 */
export async function openDriver(connection: Connection): Promise<Driver> {
  switch (connection.driver) {
    case 'embedded': {
      const { openEmbedded } = await import('./embedded/driver.ts')
      return openEmbedded(connection)
    }
    case 'postgres': {
      const { openPostgres } = await import('./postgres/driver.ts')
      return openPostgres(connection)
    }
    case 'supabase': {
      const { openSupabase } = await import('./supabase/driver.ts')
      return openSupabase(connection)
    }
  }
}
