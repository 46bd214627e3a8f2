/**
 * What one call's arguments may nest. JSON.stringify overruns its stack at about 4,000 levels, Postgres in WebAssembly at
 * its own number, and whoever walks a value somewhere before: this is below all of them.
 */
export const deepestArguments = 1000
/** What one value may that travels within arguments. */
export const deepestValue = 500

/** How deep brackets nest, without building anything. What is no JSON has some depth too; the parser says the rest. */
export function depthOf(text: string): number {
  let depth = 0
  let most = 0
  let quoted = false
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charCodeAt(at)
    if (quoted) {
      if (char === 0x5c) at += 1
      else if (char === 0x22) quoted = false
    } else if (char === 0x22) quoted = true
    else if (char === 0x7b || char === 0x5b) most = Math.max(most, (depth += 1))
    else if (char === 0x7d || char === 0x5d) depth -= 1
  }
  return most
}
