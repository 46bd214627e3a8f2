import { BlockList, isIP } from 'node:net'
import { TmsError } from '../errors.ts'

/**
 * Whose rate an address counts for. IPv6: the /64, because a customer has that many addresses and would otherwise have as
 * many rates. What no address is (a header can say anything) is counted for `fallback`.
 */
export function rateAddress(address: string | undefined, fallback: string): string {
  const text = withoutPort(address ?? '')
  const mapped = /^::ffff:(\d{1,3}(?:\.\d{1,3}){3})$/i.exec(text)?.[1]
  if (mapped !== undefined && isIP(mapped) === 4) return mapped
  if (isIP(text) === 4) return text
  if (isIP(text) !== 6) return fallback
  return `${groupsOf(text).slice(0, 4).join(':')}::/64`
}

/** Some proxies write where a connection came from, port and all. */
function withoutPort(entry: string): string {
  return /^\[([^\]]*)\](?::\d{1,5})?$/.exec(entry)?.[1] ?? /^([\d.]+):\d{1,5}$/.exec(entry)?.[1] ?? entry
}

/** The eight groups of an IPv6 address, without leading zeros. */
function groupsOf(address: string): string[] {
  const plain = address.replace(/%.*$/, '').replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => {
    const group = (high: unknown, low: unknown) => (Number(high) * 256 + Number(low)).toString(16)
    return `${group(a, b)}:${group(c, d)}`
  })
  const [head = '', tail] = plain.split('::')
  const before = head === '' ? [] : head.split(':')
  const after = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = Array.from({ length: Math.max(0, 8 - before.length - after.length) }, () => '0')
  return [...before, ...zeros, ...after].map((group) => Number.parseInt(group, 16).toString(16))
}

export function isLoopback(address: string | undefined): boolean {
  return address !== undefined && /^(127\.|::1$|::ffff:127\.)/i.test(address)
}

/** Loopback as a host to listen on. */
export function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || (isIP(host) !== 0 && isLoopback(host))
}

/** Whether an entry of X-Forwarded-For, or a peer, is one of these addresses and networks. */
export function trustIn(proxies: readonly string[]): (entry: string) => boolean {
  const list = new BlockList()
  for (const proxy of proxies) {
    const [address = '', bits] = proxy.split('/')
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
    list.addSubnet(address, Number(bits ?? (family === 'ipv6' ? 128 : 32)), family)
  }
  return (entry) => {
    const address = withoutPort(entry).replace(/%.*$/, '')
    const family = isIP(address)
    return family !== 0 && list.check(address, family === 6 ? 'ipv6' : 'ipv4')
  }
}

/** Addresses and networks of the proxies whose X-Forwarded-For is believed. */
export function parseProxies(given: readonly string[]): string[] {
  return given.map((text) => {
    const [address = '', bits, more] = text.trim().split('/')
    const family = isIP(address)
    const widest = family === 4 ? 32 : 128
    const fits = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) > 0 && Number(bits) <= widest)
    if (family !== 0 && fits && more === undefined) return text.trim()
    throw new TmsError({
      code: 'USAGE',
      what: `--trust-proxy takes an address or a network, not "${text.slice(0, 60)}"`,
      why: 'whoever is in it decides which address a request counts for; everybody (/0) is refused',
      next: ['tms serve --trust-proxy 10.0.0.0/8'],
    })
  })
}
