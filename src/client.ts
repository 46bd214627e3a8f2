/** For those who call the door: `@transbot/tms/client`. */
export { createSigningClient } from './signing/client.ts'
