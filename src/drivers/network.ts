/** What went wrong below the protocol, from the codes Node and OpenSSL give. */
export type NetworkFailure = {
  readonly kind: 'refused' | 'dns' | 'unroutable' | 'cut' | 'certificate' | 'tls' | 'denied'
  readonly why: string
}

const byCode: Readonly<Record<string, NetworkFailure>> = {
  ECONNREFUSED: { kind: 'refused', why: 'The host answered, but nothing listens on that port.' },
  ENOENT: { kind: 'refused', why: 'There is no socket at that path.' },
  ENOTFOUND: { kind: 'dns', why: 'The name of the host is not known.' },
  EAI_AGAIN: { kind: 'dns', why: 'The name server did not answer.' },
  EHOSTUNREACH: { kind: 'unroutable', why: 'There is no route to the host.' },
  ENETUNREACH: { kind: 'unroutable', why: 'There is no route to the network of the host.' },
  ETIMEDOUT: { kind: 'unroutable', why: 'The host did not answer: it is down, or a firewall drops the packets.' },
  UND_ERR_CONNECT_TIMEOUT: {
    kind: 'unroutable',
    why: 'The host did not answer: it is down, or a firewall drops the packets.',
  },
  EACCES: { kind: 'denied', why: 'The operating system does not allow this connection.' },
  EPERM: { kind: 'denied', why: 'The operating system does not allow this connection.' },
  ECONNRESET: { kind: 'cut', why: 'The other side cut the connection.' },
  EPIPE: { kind: 'cut', why: 'The other side cut the connection.' },
  ECONNABORTED: { kind: 'cut', why: 'The connection was cut.' },
  UND_ERR_SOCKET: { kind: 'cut', why: 'The other side cut the connection.' },
  DEPTH_ZERO_SELF_SIGNED_CERT: { kind: 'certificate', why: 'The certificate is signed by itself.' },
  SELF_SIGNED_CERT_IN_CHAIN: {
    kind: 'certificate',
    why: 'An authority that is not trusted here signed the certificate.',
  },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: {
    kind: 'certificate',
    why: 'An authority that is not trusted here signed the certificate.',
  },
  UNABLE_TO_GET_ISSUER_CERT: { kind: 'certificate', why: 'The certificate of the signing authority is missing.' },
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: {
    kind: 'certificate',
    why: 'An authority that is not trusted here signed the certificate.',
  },
  CERT_HAS_EXPIRED: { kind: 'certificate', why: 'The certificate has expired.' },
  CERT_NOT_YET_VALID: {
    kind: 'certificate',
    why: 'The certificate is not valid yet; check the clock of this machine.',
  },
  CERT_SIGNATURE_FAILURE: { kind: 'certificate', why: 'The signature of the certificate is wrong.' },
  ERR_TLS_CERT_ALTNAME_INVALID: { kind: 'certificate', why: 'The certificate is made out to another host name.' },
  EPROTO: { kind: 'tls', why: 'The TLS handshake failed: the other side may not speak TLS at all.' },
}

/** Looks into the causes too: fetch wraps the error, and a name with several addresses gives one error for each. */
export function networkFailure(error: unknown): NetworkFailure | undefined {
  if (!(error instanceof Error)) return undefined
  // Sockets, DNS and TLS give words; an aborted fetch gives a number.
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  const known = byCode[code]
  if (known) return known
  if (code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_')) return byCode['EPROTO']
  if (error instanceof AggregateError) return networkFailure(error.errors[0])
  return networkFailure(error.cause)
}
