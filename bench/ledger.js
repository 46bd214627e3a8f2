// How fast the ledger is sealed, verified, exported, and an export verified:
//
//   node bench/ledger.js               1 million rows
//   node bench/ledger.js 100000        fewer
//
// One private Postgres with fsync on. Beside each wall time stands the processor time that the database's sessions and this
// process used: on a busy machine only the latter says something. Promised: sealing 50,000 rows/s, verifying 200,000 rows/s.
import { root, withParts } from './parts.js'

const [rows = '1000000'] = process.argv.slice(2)
await withParts('bench/ledger-parts.ts', ({ measure }) =>
  measure(root, Number(rows), (line) => process.stdout.write(`${line}\n`)),
)
