// A tms that has loaded itself and waits for what it is to do: one message with its words. Quickstart has the next one ready while
// one works, so that both processors have something to do.
import { once } from 'node:events'
import { homedir, userInfo } from 'node:os'
import { fileURLToPath } from 'node:url'
// What every command that asks the database loads.
import '../dist/client.js'

try {
  homedir()
  userInfo()
  await import('../dist/run.js')
} catch {
  // A user without a home: bin/run.js sees to that before it loads the rest.
}
const [argv] = await once(process, 'message')
// Not within the event: Node 20 still has something to do with the channel after it.
setImmediate(() => process.disconnect())
const program = new URL('../bin/run.js', import.meta.url)
process.argv = [process.execPath, fileURLToPath(program), ...argv]
await import(program.href)
