/**
 * The last fence before text is printed: error messages come from libraries that quote what they were given.
 * Exact values (the secrets this process was started with) and shapes (credentials in URLs, JWTs, `password=`).
 */
export function redact(text: string, secrets: readonly string[] = []): string {
  let safe = text
  for (const secret of secrets) {
    // Shorter ones would blacken ordinary words and show by that what the secret is.
    if (secret.length >= 6) safe = safe.replaceAll(secret, mask)
  }
  return safe
    .replace(/([a-z][a-z0-9+.-]*:\/\/[^\s/:@'"]*):[^\s/@'"]+@/gi, `$1:${mask}@`)
    .replace(/\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*/g, mask)
    .replace(
      /\b(password|passwd|pwd|secret|token|apikey|api_key|routing_key)(["']?\s*[=:]\s*["']?)[^\s"'&,;]+/gi,
      `$1$2${mask}`,
    )
}

const mask = '********'
