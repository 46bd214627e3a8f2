import { lookup as dnsLookup } from 'node:dns/promises'
import { BlockList, isIP } from 'node:net'

/**
 * Which addresses a delivery may go to. A target's address is data, and the worker stands inside the network. So what only
 * the inside can reach has to be listed by name, where a reviewer sees it; a URL from a secret or a host name that comes to
 * lead inside is not enough. The name is looked up once more by fetch: a resolver that answers differently the second
 * time gets past this, and only rules of the network stop that.
 *
 * - `https` to public addresses needs no permission.
 * - Plain `http`, and every private or loopback address, needs its host in the target's `hosts`.
 * - Link-local addresses are never allowed: the credentials of cloud machines are served there.
 */

const never = blockList(
  [
    ['169.254.0.0', 16],
    ['0.0.0.0', 8],
    ['224.0.0.0', 4],
    ['240.0.0.0', 4],
    ['100.100.100.200', 32], // metadata of another cloud, inside the shared range
    ['168.63.129.16', 32], // and of a third, at a public address
  ],
  [
    ['fe80::', 10],
    ['fd00:ec2::', 32],
    ['fd20:ce::254', 128],
    ['ff00::', 8],
    ['::', 128],
  ],
)

const inside = blockList(
  [
    ['10.0.0.0', 8],
    ['100.64.0.0', 10],
    ['127.0.0.0', 8],
    ['172.16.0.0', 12],
    ['192.0.0.0', 24],
    ['192.0.2.0', 24],
    ['192.88.99.0', 24],
    ['192.168.0.0', 16],
    ['198.18.0.0', 15],
    ['198.51.100.0', 24],
    ['203.0.113.0', 24],
  ],
  [
    ['::1', 128],
    ['100::', 64],
    ['2001::', 23],
    ['2001:db8::', 32],
    ['fc00::', 7],
    ['fec0::', 10],
  ],
)

type Range = readonly [network: string, prefix: number]

function blockList(four: readonly Range[], six: readonly Range[]): BlockList {
  const list = new BlockList()
  for (const [network, prefix] of four) list.addSubnet(network, prefix, 'ipv4')
  for (const [network, prefix] of six) list.addSubnet(network, prefix, 'ipv6')
  return list
}

export type Reach = 'public' | 'inside' | 'never'

/** Where an IP address leads, also one that carries an IPv4 address inside. */
export function reachOf(address: string): Reach {
  const plain = address.split('%')[0] ?? ''
  const version = isIP(plain)
  if (version === 0) return 'never'
  if (version === 4) return reachIn(plain, 'ipv4')
  const carried = carriedAddress(plain)
  return carried === null ? reachIn(plain, 'ipv6') : reachIn(carried, 'ipv4')
}

function reachIn(address: string, family: 'ipv4' | 'ipv6'): Reach {
  return never.check(address, family) ? 'never' : inside.check(address, family) ? 'inside' : 'public'
}

/**
 * IPv4 in IPv6: compatible, 6to4 and NAT64 addresses end up at the IPv4 address they carry. Mapped ones (::ffff:) too, but
 * those BlockList looks into by itself.
 */
function carriedAddress(address: string): string | null {
  const groups = expand(address)
  const four = (high = 0, low = 0) => [high >> 8, high & 255, low >> 8, low & 255].join('.')
  const zeros = (count: number) => groups.slice(0, count).every((group) => group === 0)
  if (zeros(6) && (groups[6] !== 0 || (groups[7] ?? 0) > 1)) return four(groups[6], groups[7])
  if (groups[0] === 0x64 && groups[1] === 0xff9b) return four(groups[6], groups[7])
  if (groups[0] === 0x2002) return four(groups[1], groups[2])
  return null
}

/** The eight groups of an IPv6 address. The URL parser writes the shortest form, whatever it was given. */
function expand(address: string): readonly number[] {
  const shortest = new URL(`http://[${address}]`).hostname.slice(1, -1)
  const [head = '', tail] = shortest.split('::')
  const numbers = (text: string) => (text === '' ? [] : text.split(':').map((group) => parseInt(group, 16)))
  if (tail === undefined) return numbers(head)
  const [left, right] = [numbers(head), numbers(tail)]
  return [...left, ...Array<number>(8 - left.length - right.length).fill(0), ...right]
}

/** Why this address must not be sent to, or null. Names the rule and never the address, which may be a secret. */
export async function addressProblem(
  address: URL,
  hosts: readonly string[],
  lookup: (hostname: string) => Promise<readonly string[]>,
): Promise<string | null> {
  const listed = hosts.includes(address.hostname) || hosts.includes(`${address.hostname}:${portOf(address)}`)
  if (address.protocol === 'http:' && !listed) return 'plain http is only sent to a host that the target lists in hosts'
  const literal = address.hostname.replace(/^\[|\]$/g, '')
  const found = isIP(literal) === 0 ? await lookup(address.hostname) : [literal]
  if (found.length === 0) throw Object.assign(new Error('no address'), { code: 'ENODATA' })
  const reaches = found.map(reachOf)
  if (reaches.includes('never')) return 'link-local and reserved addresses are never sent to'
  if (reaches.includes('inside') && !listed)
    return 'a private address is only sent to when the target lists it in hosts'
  return null
}

export const notSafe = 'takes an https address, or one of this host'

/** Nobody in between can read it: https, or this host itself. For addresses that are a secret or get one. */
export function isSafe({ protocol, hostname }: URL): boolean {
  return protocol === 'https:' || (protocol === 'http:' && /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(hostname))
}

function portOf({ port, protocol }: URL): string {
  return port || (protocol === 'https:' ? '443' : '80')
}

/** The addresses the system's resolver gives. */
export async function lookup(hostname: string): Promise<readonly string[]> {
  return (await dnsLookup(hostname, { all: true })).map(({ address }) => address)
}
