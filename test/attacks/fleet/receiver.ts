import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import * as z from 'zod'

/** Knows a delivery again by its id, refuses some, and loses some of its answers. */
export type Receiver = {
  readonly url: string
  /** What came, once per delivery id, in the order of arrival. Ordering keys are a tenant's own. */
  readonly deliveries: ReadonlyMap<
    string,
    { readonly event: number; readonly task: string; readonly order: string | null }
  >
  /** How often something came that was there already. */
  repeated(): number
  stop(): Promise<void>
}

const told = z.object({
  id: z.string(),
  deliveryId: z.string(),
  tenant: z.string(),
  orderingKey: z.string().nullable(),
  payload: z.object({ task: z.string() }),
})

export async function startReceiver(): Promise<Receiver> {
  const deliveries = new Map<string, { event: number; task: string; order: string | null }>()
  let repeated = 0
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const luck = Math.random() * 100
      if (luck < 3) return response.writeHead(503).end()
      const { id, deliveryId, tenant, orderingKey, payload } = told.parse(JSON.parse(Buffer.concat(parts).toString()))
      if (deliveries.has(deliveryId)) repeated++
      else
        deliveries.set(deliveryId, {
          event: Number(id),
          task: payload.task,
          order: orderingKey === null ? null : `${tenant} ${orderingKey}`,
        })
      if (luck > 97) return request.socket.resetAndDestroy()
      return response.writeHead(200).end()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  // True because it listens on a port, not on a pipe.
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    deliveries,
    repeated: () => repeated,
    stop: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
