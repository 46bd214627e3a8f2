// How long the pack of a full day takes, and whether history costs anything:
//
//   node bench/evidence.js                       10 million runs and 1 million ledger rows in the day, 30 days of history
//   node bench/evidence.js 100000 20000 3        fewer
import { root, withParts } from './parts.js'

const [runs = '10000000', rows = '1000000', history = '30'] = process.argv.slice(2)
await withParts('bench/evidence-parts.ts', ({ evidence }) =>
  evidence(root, Number(runs), Number(rows), Number(history), (line) => process.stdout.write(`${line}\n`)),
)
