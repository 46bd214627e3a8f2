/** For programs that give the fleet work: `@transbot/tms/client`. */
export { createSigningClient } from './signing/client.ts'
export { openQueue } from './agents/queue.ts'
export type { Queue } from './agents/queue.ts'
export { openDriver } from './drivers/open.ts'
