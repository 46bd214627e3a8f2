// Whether the queue keeps its time when it grows:
//
//   node bench/queue/growth.js                 10 million finished tasks, 5 million waiting for a paused tenant
//   node bench/queue/growth.js 100000 50000    fewer
import { root, withParts } from '../parts.js'

const [finished = '10000000', waiting = '5000000'] = process.argv.slice(2)
await withParts('bench/queue/growth-parts.ts', ({ growth }) =>
  growth(root, Number(finished), Number(waiting), (line) => process.stdout.write(`${line}\n`)),
)
