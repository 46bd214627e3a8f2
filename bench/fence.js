// How long a halt takes while a crowd writes:
//
//   node bench/fence.js             150 clients in 6 processes, 50 halts among short transactions, 50 with some that hold on for 10 s
//   node bench/fence.js 40 20       fewer clients, fewer halts
//
// Measured at the client, in a process of its own that does nothing else. The clients are those of
// test/attacks/fence.test.ts, which proves that nothing commits after the return; this only takes the time.
import { withParts } from './parts.js'

const [clients = '150', halts = '50'] = process.argv.slice(2)
await withParts('bench/fence-parts.ts', ({ fence }, file) =>
  fence(file, Number(clients), Number(halts), (line) => process.stdout.write(`${line}\n`)),
)
