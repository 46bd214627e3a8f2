import type { PostgresConnection } from '../connection.ts'
import type { Driver } from '../driver.ts'
import { endpointOf } from './endpoint.ts'

/** Whoever opens it calls it: while the contract is loaded and built, 60 ms of processor, the server answers the greeting. */
export async function openPostgres(connection: PostgresConnection): Promise<Driver> {
  const primary = endpointOf(connection)
  primary.greet()
  const { driverOver } = await import('./calls.ts')
  return driverOver(connection, primary)
}
