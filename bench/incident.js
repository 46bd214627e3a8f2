// The big red button under load, as whole commands: `node bench/incident.js [presses] [writers]` (50 and 150).
// Each press is a process of the built command; the fence's own time is what the database measured.
import { root, withParts } from './parts.js'

const [presses = '50', writers = '150'] = process.argv.slice(2)
await withParts('bench/incident-parts.ts', ({ measure }) =>
  measure(root, Number(presses), Number(writers), (line) => process.stdout.write(`${line}\n`)),
)
