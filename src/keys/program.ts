import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { TmsError } from '../errors.ts'
import { fromBase64, ProofError } from '../proof/bytes.ts'
import { publicHalf, verifySignature, type PublicHalf } from '../proof/ed25519.ts'
import { redactText } from '../redaction/redact.ts'
import type { Signer } from './signer.ts'

/** A program that holds the private key, a KMS or a hardware token: bytes on its stdin, the signature on its stdout. */
export type SigningProgram = {
  /** Run as it stands, without a shell. */
  readonly command: readonly string[]
  /** The public half: PEM, or the path of a file with it. */
  readonly publicKey: string
  readonly timeoutMs?: number
}

type Outcome = { readonly stdout: Buffer; readonly stderr: string; readonly problem: string | null }

/** A token that wants to be touched gives a person time for that. */
const usualTimeoutMs = 30_000
/** A signature is 64 bytes, in base64 88; more is another program's output. */
const mostOutput = 4096

export async function openProgram(program: SigningProgram, environment: NodeJS.ProcessEnv): Promise<Signer> {
  const half = await programsPublicHalf(program.publicKey)
  return {
    ...half,
    sign: async (bytes) => {
      const outcome = await run(program, environment, bytes)
      if (outcome.problem !== null) throw failed(program, outcome.problem, outcome.stderr)
      const signature = signatureIn(outcome.stdout)
      if (!signature) throw failed(program, 'it printed neither 64 bytes nor 64 bytes in base64', outcome.stderr)
      // a token with another key would make evidence that nobody can verify
      if (!verifySignature(half, bytes, signature)) {
        throw failed(program, `its signature does not verify with ${half.fingerprint.slice(0, 16)}…`, outcome.stderr)
      }
      return signature
    },
  }
}

async function programsPublicHalf(given: string): Promise<PublicHalf> {
  const isPem = given.includes('-----BEGIN')
  try {
    return publicHalf(isPem ? given : await readFile(given, 'utf8'))
  } catch (error) {
    throw new TmsError(
      {
        code: 'CONFIG_INVALID',
        what: `signing.publicKey is no Ed25519 public key${isPem ? '' : ` in ${given}`}`,
        why: error instanceof ProofError ? error.message : 'the file cannot be read',
        next: ['tms config show', 'openssl pkey -in <key.pem> -pubout'],
      },
      { cause: error },
    )
  }
}

function run({ command, timeoutMs = usualTimeoutMs }: SigningProgram, env: NodeJS.ProcessEnv, bytes: Uint8Array) {
  const [file = '', ...args] = command
  return new Promise<Outcome>((resolve) => {
    const stdout: Buffer[] = []
    let printed = 0
    let stderr = ''
    let problem: string | null = null
    const child = spawn(file, args, { env, stdio: ['pipe', 'pipe', 'pipe'], shell: false })
    const end = (why: string) => {
      problem ??= why
      child.kill('SIGKILL')
      // whatever the program started may hold the pipes open
      child.stdout.destroy()
      child.stderr.destroy()
    }
    const alarm = setTimeout(() => end(`it did not answer within ${timeoutMs / 1000} s`), timeoutMs)
    child.stdout.on('data', (chunk: Buffer) => {
      printed += chunk.length
      if (printed > mostOutput) end('it printed more than a signature')
      else stdout.push(chunk)
    })
    child.stderr.on('data', (chunk: Buffer) => {
      if (stderr.length < mostOutput) stderr += chunk.toString('utf8')
    })
    // it may end without reading; what it says then is what counts
    child.stdin.on('error', () => undefined)
    child.stdin.end(bytes)
    child.on('error', (error) => {
      clearTimeout(alarm)
      problem ??= `it can't be started: ${'code' in error ? String(error.code) : 'unknown'}`
      resolve({ stdout: Buffer.concat(stdout), stderr, problem })
    })
    child.on('close', (code, signal) => {
      clearTimeout(alarm)
      if (code !== 0) problem ??= `it ended with ${signal ?? String(code)}`
      resolve({ stdout: Buffer.concat(stdout), stderr, problem })
    })
  })
}

function signatureIn(stdout: Buffer): Uint8Array | null {
  if (stdout.length === 64) return new Uint8Array(stdout)
  try {
    return fromBase64(stdout.toString('latin1').trim(), 64)
  } catch {
    return null
  }
}

/** Its arguments may hold a password, and so may what it prints: the name alone, and redacted lines. */
function failed({ command }: SigningProgram, problem: string, stderr: string): TmsError {
  const said = redactText(stderr.trim()).split('\n').slice(-3).join(' | ').slice(0, 400)
  return new TmsError({
    code: 'TOOL_FAILED',
    what: `the signing program ${command[0] ?? ''} made no signature`,
    why: said === '' ? problem : `${problem}; it says: ${said}`,
    next: ['tms config show', 'tms evidence keys list'],
  })
}
