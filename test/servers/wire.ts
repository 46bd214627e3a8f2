import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'

/** A TCP proxy in front of a real server, to cut or stall what goes over it. */
export type Wire = {
  readonly port: number
  /** How many connections were accepted so far. */
  accepted(): number
  /** Cuts every connection; new ones are welcome. */
  readonly cut: () => void
  /** From now on bytes go nowhere, in both directions, and connections stay open. */
  readonly stall: () => void
  /** Cuts every connection and doesn't accept new ones until `resume`. */
  readonly refuse: () => Promise<void>
  /** Undoes stall and refuse. */
  readonly resume: () => Promise<void>
  /**
   * The next answer is lost: the request whose bytes match reaches the server, and the connection is cut when the
   * server answers, so that the client can't know what happened.
   */
  loseAnswerTo(bytes: string): void
  /** The answer to the next request whose bytes match waits until `resume`. Resolves when the request has gone by. */
  holdAnswerTo(bytes: string): Promise<void>
  /** From now on all bytes take so long, in each direction. */
  slow(milliseconds: number): void
  stop(): Promise<void>
}

export async function startWire(targetPort: number): Promise<Wire> {
  const pairs = new Set<readonly [Socket, Socket]>()
  let accepted = 0
  let stalled = false
  let loseAnswerTo: string | undefined
  let holdAnswerTo: { readonly bytes: string; readonly gone: () => void } | undefined
  let delayMs = 0
  const held: (() => void)[] = []
  const later = (send: () => void): void => {
    if (delayMs === 0) send()
    else setTimeout(send, delayMs)
  }
  const server = createServer({ allowHalfOpen: true }, (client) => {
    accepted++
    const target = connect({ port: targetPort, host: '127.0.0.1', allowHalfOpen: true })
    const pair = [client, target] as const
    pairs.add(pair)
    const end = (): void => {
      pairs.delete(pair)
      client.destroy()
      target.destroy()
    }
    let cutOnAnswer = false
    let holding = false
    client.on('data', (chunk: Buffer) => {
      if (stalled) return
      if (loseAnswerTo !== undefined && chunk.includes(loseAnswerTo)) {
        loseAnswerTo = undefined
        cutOnAnswer = true
      }
      if (holdAnswerTo !== undefined && chunk.includes(holdAnswerTo.bytes)) {
        holding = true
        held.push(() => (holding = false))
        holdAnswerTo.gone()
        holdAnswerTo = undefined
      }
      later(() => target.write(chunk))
    })
    target.on('data', (chunk: Buffer) => {
      if (stalled) return
      if (cutOnAnswer) end()
      else if (holding) held.push(() => client.write(chunk))
      else later(() => client.write(chunk))
    })
    for (const socket of pair) socket.on('error', end).on('close', end)
    // A goodbye doesn't get through a dead wire either.
    client.on('end', () => stalled || target.end())
    target.on('end', () => stalled || client.end())
  })
  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, '127.0.0.1', resolve)
    })
  const cut = (): void => {
    for (const pair of pairs) for (const socket of pair) socket.destroy()
    pairs.clear()
  }
  await listen(0)
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const { port } = address
  const refuse = async (): Promise<void> => {
    const closed = new Promise((resolve) => server.close(resolve))
    cut()
    await closed
  }
  return {
    port,
    accepted: () => accepted,
    cut,
    stall: () => void (stalled = true),
    refuse,
    resume: async () => {
      stalled = false
      for (const go of held.splice(0)) go()
      if (!server.listening) await listen(port)
    },
    loseAnswerTo: (bytes) => void (loseAnswerTo = bytes),
    holdAnswerTo: (bytes) => new Promise((gone) => (holdAnswerTo = { bytes, gone })),
    slow: (milliseconds) => void (delayMs = milliseconds),
    stop: async () => {
      if (server.listening) await refuse()
    },
  }
}
