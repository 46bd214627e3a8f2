#!/usr/bin/env node
// Old syntax on purpose: this file must parse on any Node, so that an old one gets a sentence and not a SyntaxError.
import { readFileSync } from 'fs'
import { constants, homedir, setPriority, userInfo } from 'os'

const [major, minor] = process.versions.node.split('.').map(Number)
const argv = process.argv.slice(2)

if (major < 20 || (major === 20 && minor < 19)) {
  complain(2, `tms needs Node 20.19 or later, and this is ${process.version}.`, 'see https://nodejs.org/en/download')
} else if (['--version', '-v', 'version'].includes(argv.find((word) => word !== '--json'))) {
  // Answered without loading anything else: three times faster than through oclif.
  const { name, version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  process.stdout.on('error', unwritten)
  process.stdout.write(`${name}/${version} ${process.platform}-${process.arch} node-${process.version}\n`)
} else {
  if (argv[0] === 'incident' && ['big-red-button', 'handle'].includes(argv[1])) goFirst()
  ensureHome()
  import('../dist/run.js').then(
    ({ run }) => run(argv),
    (error) => {
      if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
      complain(2, 'tms is not built yet.', 'npm run build')
    },
  )
}

// Who stops a machine that is too busy must not queue behind what it stops: a quarter of a press under load. Takes root.
function goFirst() {
  try {
    setPriority(constants.priority.PRIORITY_HIGHEST)
  } catch {
    // Then it waits its turn.
  }
}

// oclif asks for the home folder and the shell while it loads; both throw for a uid without an entry in passwd.
function ensureHome() {
  try {
    homedir()
    userInfo()
  } catch {
    process.env.HOME = process.env.HOME || '/nonexistent'
    process.env.SHELL = process.env.SHELL || '/bin/sh'
  }
}

// As commands do: that the reader left is nothing to say, a file that can't take the answer is.
function unwritten(error) {
  if (error.code === 'EPIPE' || process.stdout.isTTY) return
  complain(3, `The version could not be written to where standard output goes: ${error.code}.`, 'df -h')
}

function complain(code, what, next) {
  process.stderr.write(`${what}\nNext:\n  ${next}\n`)
  process.exitCode = code
}
