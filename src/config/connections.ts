import type { Connection, ServiceAccount } from '../drivers/connection.ts'

/** The same database as this service account; undefined where the credential alone says who calls. */
export function callingAs(connection: Connection, account: ServiceAccount): Connection | undefined {
  return connection.driver === 'embedded' ? { ...connection, account } : undefined
}

/** For whoever only looks: makes no database where there is none. */
export function creatingNothing(connection: Connection): Connection {
  return connection.driver === 'embedded' ? { ...connection, create: false } : connection
}

/** For the button: whoever presses it wants to know soon that there is nothing to connect to. */
export function hurried(connection: Connection): Connection {
  return connection.driver === 'postgres'
    ? { ...connection, connectTimeoutMs: Math.min(connection.connectTimeoutMs, 5000) }
    : connection
}
