// From a fresh clone to a working system: installs, builds, makes an embedded database in .tms/ and shows the main job.
// Safe to run again; leaves nothing running.
import { spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { build, install, requireNode, root } from './install.js'

const started = Date.now()
requireNode()
install()
build()

// Which database is meant is settled here, whatever the surroundings say.
const env = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !/^(TMS_|DATABASE_|SUPABASE_|API_SECRET_KEY|ALERT_|SLACK_|PAGERDUTY_)/.test(name),
  ),
)
// The fleet of examples/freight, in this folder's database.
env.TMS_AGENTS = join(root, 'examples/freight/agents')
env.TMS_POLICIES = join(root, 'examples/freight/policies')
const program = join(root, 'bin/run.js')
let owner

process.once('SIGINT', () => end(130))
process.once('SIGTERM', () => end(143))

try {
  heading('A database, a signing key, the first operator')
  tms(['init', '--yes', '--environment', 'development', '--keys', '.tms/keys'])
  owner = await serve()

  heading('Two tenants')
  const { tenants } = json(['tenants', 'list'])
  for (const key of ['acme', 'globex']) {
    if (!tenants.some((tenant) => tenant.key === key)) tms(['tenants', 'add', key])
  }
  tms(['tenants', 'list'])

  heading('Set a flag, and roll one out in stages')
  tms(['flags', 'set', 'budget.agents.maxConcurrent', '100', '--why', 'quickstart'])
  const flag = 'ops.notificationsEnabled'
  if (json(['flags', 'rollout', flag]).since !== null) tms(['flags', 'rollout', flag, '--off', '--why', 'start over'])
  const why = ['--why', 'quickstart']
  tms([
    'flags',
    'rollout',
    flag,
    '--start',
    'true',
    '--canary',
    'acme',
    '--cohort',
    'early=25',
    '--wait',
    '0s',
    ...why,
    '--confirm',
    `${flag}@canary`,
  ])
  tms(['flags', 'rollout', flag, '--next', ...why, '--confirm', `${flag}@cohort`])
  tms(['flags', 'get', flag, '--tenant', 'acme'])

  heading('A small fleet at work: a load is priced, its invoice is enqueued, events go to the outbox')
  const load = `L-${Date.now().toString(36)}`
  const enqueue = ['--tenant', 'acme', '--payload', JSON.stringify({ load, miles: 420 })]
  if (json(['flags', 'get', 'finance.autoInvoice', '--tenant', 'acme']).flag.value !== false) {
    tms(['flags', 'set', 'finance.autoInvoice', 'false', '--tenant', 'acme', ...why])
  }
  tms(['agents', 'status'])
  tms(['agents', 'enqueue', 'rates.price_one', ...enqueue])
  const letter = await eventually(() => json(['dlq', 'list', '--tenant', 'acme', '--status', 'open']).letters[0])
  tms(['agents', 'runs', '--tenant', 'acme', '--limit', '4'])

  heading('The invoice failed: machines may not build them for acme. A dead letter keeps it')
  tms(['dlq', 'list', '--tenant', 'acme', '--status', 'open'])

  heading('Somebody allows it, and replays what failed: first dry, then with consent')
  tms(['flags', 'set', 'finance.autoInvoice', 'true', '--tenant', 'acme', ...why])
  tms(['flags', 'set', 'ops.replayEnabled', 'true', '--tenant', 'acme', ...why])
  const replay = ['dlq', 'replay', '--tenant', 'acme', '--ids', letter.id, ...why]
  tms(replay)
  const { plan } = json(replay)
  tms([...replay, '--execute', '--wait', '30s', '--confirm', `acme/${plan}`])
  await eventually(
    () =>
      json(['outbox', 'list', '--tenant', 'acme']).deliveries.every(({ status }) => status === 'delivered') ||
      undefined,
  )
  tms(['outbox', 'list', '--tenant', 'acme', '--limit', '3'])
  tms(['outbox', 'lag', '--tenant', 'acme'])

  heading('Be refused: the emergency stop is no flag to be flipped by hand')
  tms(['flags', 'set', 'autonomy.emergencyStop', 'true', ...why], 4)

  heading('Is the posture green, and who did what?')
  tms(['flags', 'verify'])
  tms(['ledger', 'tail', '--limit', '8'])

  heading(
    `Done in ${Math.round((Date.now() - started) / 1000)} s. The database stays in .tms/; nothing is left running.`,
  )
  process.stdout.write('Type next:\n  node bin/run.js doctor\n  node bin/run.js flags list\n  node bin/run.js --help\n')
} finally {
  await stop()
}

function heading(text) {
  process.stdout.write(`\n== ${text}\n`)
}

/** Shows a command and what it prints; another exit code than the expected one ends the quickstart. */
function tms(args, expected = 0) {
  const shown = args.map((arg) => (/^[\w@./=:-]+$/.test(arg) ? arg : `'${arg}'`)).join(' ')
  process.stdout.write(`\n$ tms ${shown}\n`)
  const { status } = spawnSync(process.execPath, [program, ...args], {
    cwd: root,
    env,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (status === expected) return
  process.stderr.write(
    `\nThis ended with exit code ${status}, and ${expected} was expected. Look with: node bin/run.js doctor\n`,
  )
  void end(status ?? 3)
  throw new Error('quickstart stopped')
}

/** Until there is an answer: the fleet works by itself. */
async function eventually(look) {
  for (const until = Date.now() + 30_000; Date.now() < until;) {
    const found = look()
    if (found !== undefined) return found
    await pause(100)
  }
  throw new Error('the fleet did not do its work within 30 s; look with: node bin/run.js agents status')
}

function json(args) {
  const { stdout, status } = spawnSync(process.execPath, [program, ...args, '--json'], {
    cwd: root,
    env,
    encoding: 'utf8',
  })
  if (status === 0) return JSON.parse(stdout).data
  process.stderr.write(stdout)
  process.exitCode = status ?? 3
  throw new Error(`tms ${args.join(' ')} ended with exit code ${status}`)
}

/** One process keeps the database open, as `tms up` would; the commands go through its socket and start faster. */
function serve() {
  const child = spawn(process.execPath, [program, 'up', '--json', '--timeout', '3'], {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return new Promise((resolve, reject) => {
    // 3: another `tms up` serves this folder already, which does as well
    child.once('exit', (code) =>
      code === 3 ? resolve(undefined) : reject(new Error(`tms up ended with exit code ${code}`)),
    )
    // The second line says that the fleet works.
    let said = ''
    child.stdout.on('data', (part) => {
      said += part
      if (said.split('\n').length > 2) resolve(child)
    })
  })
}

async function stop() {
  const child = owner
  owner = undefined
  if (!child || child.exitCode !== null) return
  child.removeAllListeners('exit')
  child.kill('SIGTERM')
  await new Promise((resolve) => child.once('exit', resolve))
}

async function end(code) {
  await stop()
  process.exit(code)
}
