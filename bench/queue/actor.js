// A process that plays one part for one contender: sender or worker. The runner's half of it; the other is `actor-process.js`.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const program = fileURLToPath(new URL('./actor-process.js', import.meta.url))

/** `ask` fails when the process says so, ends, is late, or the run is stopped. */
export function startActor(contender, signal) {
  signal.throwIfAborted()
  const child = fork(program, [contender], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    // Nothing of the caller's: PGHOST or DATABASE_URL would lead a library to another database.
    env: { PATH: process.env.PATH, HOME: process.env.HOME, NODE_ENV: 'production' },
  })
  let complaints = ''
  child.stderr.on('data', (chunk) => (complaints = (complaints + chunk).slice(-2_000)))

  const waiting = new Map()
  let ended
  const end = (error) => {
    ended ??= error
    for (const { reject } of waiting.values()) reject(ended)
    waiting.clear()
  }
  child.on('message', ({ id, value, error }) => {
    const asked = waiting.get(id)
    waiting.delete(id)
    if (error === undefined) asked?.resolve(value)
    else asked?.reject(new Error(error))
  })
  child.on('error', end)
  // `close` and not `exit`: what it complained about has arrived by then.
  child.on('close', (code, by) => end(new Error(`its process ended with ${by ?? code}: ${complaints.trim()}`)))

  const kill = () => {
    signal.removeEventListener('abort', kill)
    child.kill('SIGKILL')
    end(new Error('its process was ended'))
  }
  signal.addEventListener('abort', kill)

  let next = 0
  const ask = (what, input = {}, seconds = 60) =>
    new Promise((resolve, reject) => {
      if (ended) return reject(ended)
      const id = next++
      const late = setTimeout(() => {
        // With how far it came, if it is able to say so: 4,999 of 5,000 is another defect than 0 of 5,000.
        const progress = what === 'progress' ? Promise.resolve('') : ask('progress', {}, 2).catch(() => '')
        void progress.then((text) => {
          waiting.delete(id)
          reject(new Error(`${what}: not within ${seconds} s${text && `, ${text}`}`))
        })
      }, seconds * 1000)
      const settle = (finish) => (value) => {
        clearTimeout(late)
        finish(value)
      }
      waiting.set(id, { resolve: settle(resolve), reject: settle(reject) })
      child.send({ id, ask: what, input }, (error) => error && end(error))
    })
  return { ask, kill }
}
