// Loaded before the program: ends the process with SIGKILL right after the nth change that it makes to a file, counted in its
// main thread or in the database's. With TMS_KILL_LOG it writes down what it counts.
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import threads from 'node:worker_threads'

const { TMS_KILL_THREAD: thread, TMS_KILL_AT: at = '0', TMS_KILL_LOG: log } = process.env
const { openSync, writeSync, constants } = fs
const notes = log === undefined ? null : openSync(log, 'a')
let count = 0

if (threads.isMainThread) {
  threads.Worker = class extends threads.Worker {
    constructor(file, options) {
      super(file, { ...options, execArgv: ['--import', import.meta.url], env: process.env })
    }
  }
}
if ((thread === 'main') === threads.isMainThread) {
  for (const name of 'openSync,writeSync,renameSync,unlinkSync,ftruncateSync,truncateSync,mkdirSync,rmdirSync,rmSync,linkSync,writeFileSync,copyFileSync'.split(
    ',',
  )) {
    const real = fs[name]
    fs[name] = (...args) => {
      const answer = real(...args)
      if (name === 'openSync' && !(Number(args[1]) & (constants.O_CREAT | constants.O_TRUNC))) return answer
      // What it prints is no file.
      if (name === 'writeSync' && args[0] <= 2) return answer
      count += 1
      if (notes !== null) writeSync(notes, `${name} ${String(args[0])}\n`)
      if (count === Number(at)) process.kill(process.pid, 'SIGKILL')
      return answer
    }
  }
}
syncBuiltinESMExports()
