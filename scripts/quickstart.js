// From a fresh clone to a working system: installs, builds, makes an embedded database in .tms/ and shows the main job.
// Safe to run again; leaves nothing running.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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
const openssl = !spawnSync('openssl', ['version']).error
/** The process that keeps the database open, and this one's connection to it, for what is only looked up. */
let owner
let driver
/** The command that comes next, loaded already. */
let next

process.once('SIGINT', () => end(130))
process.once('SIGTERM', () => end(143))

try {
  heading('A database, a signing key, the first operator')
  await tms(['init', '--yes', '--environment', 'development', '--keys', '.tms/keys'])
  owner = await serve()
  driver = await connected()

  const { tenants } = await ask('tenants_list', {})
  const absent = ['acme', 'globex'].filter((key) => !tenants.some((tenant) => tenant.key === key))
  if (absent.length > 0) heading('Two tenants')
  for (const key of absent) await tms(['tenants', 'add', key])

  heading('Set a flag, and roll one out in stages')
  await tms(['flags', 'set', 'budget.agents.maxConcurrent', '100', '--why', 'quickstart'])
  const flag = 'ops.notificationsEnabled'
  if ((await ask('flags_rollout_state', { key: flag })).since !== null)
    await tms(['flags', 'rollout', flag, '--off', '--why', 'start over'])
  const why = ['--why', 'quickstart']
  await tms([
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
  await tms(['flags', 'rollout', flag, '--next', ...why, '--confirm', `${flag}@cohort`])
  await tms(['flags', 'get', flag, '--tenant', 'acme'])

  heading('A small fleet at work: a load is priced, its invoice is enqueued, events go to the outbox')
  const load = `L-${Date.now().toString(36)}`
  const enqueue = ['--tenant', 'acme', '--payload', JSON.stringify({ load, miles: 420 })]
  const invoicing = await ask('flags_get', { key: 'finance.autoInvoice', tenant: 'acme' })
  if (invoicing.flag.value !== false) {
    await tms(['flags', 'set', 'finance.autoInvoice', 'false', '--tenant', 'acme', ...why])
  }
  await tms(['agents', 'status'])
  const letters = async () => (await ask('dlq_list', { tenant: 'acme', status: 'open', limit: 100 })).letters
  // Those of earlier runs that the limit of replays has kept.
  const before = new Set((await letters()).map(({ id }) => id))
  await tms(['agents', 'enqueue', 'rates.price_one', ...enqueue])
  const letter = await eventually(async () => (await letters()).find(({ id }) => !before.has(id)))
  await tms(['agents', 'runs', '--tenant', 'acme', '--limit', '4'])

  heading('The invoice failed: machines may not build them for acme. A dead letter keeps it')
  await tms(['dlq', 'list', '--tenant', 'acme', '--status', 'open'])

  heading('Somebody allows it, and replays what failed: first dry, then with consent')
  await tms(['flags', 'set', 'finance.autoInvoice', 'true', '--tenant', 'acme', ...why])
  await tms(['flags', 'set', 'ops.replayEnabled', 'true', '--tenant', 'acme', ...why])
  const replay = ['dlq', 'replay', '--tenant', 'acme', '--ids', letter.id, ...why]
  await tms(replay)
  const { plan, barred } = await ask('dlq_plan', { tenant: 'acme', ids: [letter.id], limit: 50 })
  const execute = [...replay, '--execute', '--wait', '30s', '--confirm', `acme/${plan}`]
  if (barred) {
    heading(
      'Refused, and rightly: three replays in five minutes are the limit, so that nobody replays a flood. It stays kept',
    )
    await tms(execute, 4)
  } else await tms(execute)
  await eventually(async () => {
    const { deliveries } = await ask('outbox_list', { tenant: 'acme', limit: 20 })
    return deliveries.every(({ status }) => status === 'delivered') || undefined
  })
  await tms(['outbox', 'list', '--tenant', 'acme', '--limit', '3'])

  heading('The button, pressed while the fleet works: nothing autonomous commits any more, and a certificate says so')
  await manyTasks('rates.price_one', 400)
  await tms(['incident', 'big-red-button', '--reason', 'quickstart'])
  const [{ id: incident }] = (await ask('incident_list', { limit: 1 })).incidents
  certificate(join(root, 'artifacts/incidents', incident))
  await tms(['incident', 'resume', incident, '--watch', '1s', ...why, '--confirm', `.tms@incident-${incident}`])
  await tms(['incident', 'close', incident])

  heading('Be refused: the emergency stop is no flag to be flipped by hand')
  await tms(['flags', 'set', 'autonomy.emergencyStop', 'true', ...why], 4)

  heading('Is the posture green, and who did what?')
  await tms(['flags', 'verify'])
  await tms(['ledger', 'tail', '--limit', '8'])

  heading("The day's evidence, and what an auditor does with it: sh, sha256sum and openssl")
  await tms(['evidence', 'build'], [0, 1, 3])
  const day = new Date().toISOString().slice(0, 10)
  const pack = join('artifacts/green-posture', day)
  writeFileSync(join(root, '.tms/key.pem'), capture(['evidence', 'keys', 'export']))
  run('sh', [join(pack, 'VERIFY.sh'), '.tms/key.pem'], openssl ? 0 : 3)
  heading('One flipped bit, in a copy')
  const copy = join('.tms', day)
  rmSync(join(root, copy), { recursive: true, force: true })
  cpSync(join(root, pack), join(root, copy), { recursive: true })
  const facts = join(root, copy, 'slo_snapshot.json')
  const bytes = readFileSync(facts)
  bytes[200] ^= 1
  writeFileSync(facts, bytes)
  run('sh', [join(copy, 'VERIFY.sh'), '.tms/key.pem'], openssl ? 1 : [1, 3])

  heading(
    `Done in ${Math.round((Date.now() - started) / 1000)} s. The database stays in .tms/; nothing is left running.`,
  )
  process.stdout.write('Type next:\n  node bin/run.js doctor\n  node bin/run.js flags list\n  node bin/run.js --help\n')
} catch (error) {
  process.stderr.write(
    `\n${error instanceof Error ? error.message : String(error)}\nLook with: node bin/run.js doctor\n`,
  )
  process.exitCode ||= 3
} finally {
  await stop()
}

function heading(text) {
  process.stdout.write(`\n== ${text}\n`)
}

/** Shows a command and what it prints; another exit code than the expected one ends the quickstart. */
async function tms(args, expected = 0) {
  const shown = args.map((arg) => (/^[\w@./=:-]+$/.test(arg) ? arg : `'${arg}'`)).join(' ')
  process.stdout.write(`\n$ tms ${shown}\n`)
  const command = next ?? standby()
  command.send(args)
  next = standby()
  const [status] = await once(command, 'exit')
  expect(status, expected)
}

function standby() {
  return spawn(process.execPath, [join(root, 'scripts/standby.js')], {
    cwd: root,
    env,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
}

/** The same for what isn't tms. */
function run(program, args, expected = 0) {
  process.stdout.write(`\n$ ${[program, ...args].join(' ')}\n`)
  const { status } = spawnSync(program, args, { cwd: root, env, stdio: ['ignore', 'inherit', 'inherit'] })
  expect(status, expected)
}

function expect(status, expected) {
  if ([expected].flat().includes(status)) return
  process.exitCode = status || 3
  throw new Error(`This ended with exit code ${status}, and ${expected} was expected.`)
}

/** Gives the fleet so much to do that it is in the middle of it when the button is pressed. */
async function manyTasks(fn, count) {
  const { openQueue } = await import('../dist/client.js')
  const queue = openQueue(driver, 'acme')
  await Promise.all(
    Array.from({ length: count }, (_, at) =>
      queue.enqueue({ function: fn, payload: { load: `Q-${Date.now().toString(36)}-${at}`, miles: 300 } }),
    ),
  )
}

/** What HOW-TO-CHECK-<halt>.txt beside it says. */
function certificate(folder) {
  if (!openssl) return process.stdout.write('\nopenssl is not installed here: the certificate is not checked\n')
  const names = readdirSync(folder)
  const key = names.find((name) => name.endsWith('.pem'))
  const file = join(
    folder,
    names.find((name) => /^certificate-\d+\.json$/.test(name)),
  )
  run('openssl', [
    'pkeyutl',
    '-verify',
    '-pubin',
    '-inkey',
    join(folder, key),
    '-rawin',
    '-in',
    file,
    '-sigfile',
    `${file}.sig`,
  ])
}

function capture(args) {
  const { stdout, status } = spawnSync(process.execPath, [program, ...args], { cwd: root, env, encoding: 'utf8' })
  expect(status, 0)
  return stdout
}

/** Until there is an answer: the fleet works by itself. */
async function eventually(look) {
  for (const until = Date.now() + 30_000; Date.now() < until;) {
    const found = await look()
    if (found !== undefined) return found
    await pause(100)
  }
  throw new Error('the fleet did not do its work within 30 s; look with: node bin/run.js agents status')
}

/** A driver through that process: what a command would only look up costs a hundredth of starting one. */
async function connected() {
  const { openDriver } = await import('../dist/client.js')
  return openDriver({ driver: 'embedded', directory: join(root, '.tms'), create: false, callTimeoutMs: 20_000 })
}

async function ask(fn, args) {
  const answer = await driver.call(fn, args)
  if ('refused' in answer) throw new Error(`${answer.refused.what}: ${answer.refused.why}`)
  return answer
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
  next?.kill()
  next = undefined
  await driver?.close()
  driver = undefined
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
