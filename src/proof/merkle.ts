import { ProofError, sameBytes, sha256 } from './bytes.ts'

/**
 * Merkle trees as in RFC 6962. Everywhere here a leaf is its hash, as `leafHash` makes it, and an index counts from 0.
 * No bit operations: those end at 2^31.
 */

const leafPrefix = Uint8Array.of(0)
const nodePrefix = Uint8Array.of(1)

export function leafHash(data: Uint8Array | string): Uint8Array {
  return sha256(leafPrefix, data)
}

export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return sha256(nodePrefix, left, right)
}

/** The root of the tree without leaves. */
export const emptyRoot: Uint8Array = sha256('')

/** A tree that grows leaf by leaf and keeps a hash for each power of two only: for reading a ledger as a stream. */
export type GrowingTree = { add(leaf: Uint8Array): void; size(): number; root(): Uint8Array }

export function startTree(): GrowingTree {
  // full subtrees, largest first; that of 2^k leaves is there when bit k of the size is set
  const peaks: Uint8Array[] = []
  let size = 0
  return {
    add(leaf) {
      let hash = leaf
      for (let full = size; full % 2 === 1; full = (full - 1) / 2) {
        const left = peaks.pop()
        if (left) hash = nodeHash(left, hash)
      }
      peaks.push(hash)
      size += 1
    },
    size: () => size,
    root: () => (size === 0 ? emptyRoot : peaks.reduceRight((right, left) => nodeHash(left, right))),
  }
}

export function rootOf(leaves: Iterable<Uint8Array>): Uint8Array {
  const tree = startTree()
  for (const leaf of leaves) tree.add(leaf)
  return tree.root()
}

/** Shows that the leaf at `index` is in the tree of these leaves: the hashes beside its way to the root, lowest first. */
export function inclusionProof(leaves: readonly Uint8Array[], index: number): Uint8Array[] {
  if (!(Number.isSafeInteger(index) && index >= 0 && index < leaves.length)) {
    throw new ProofError(`there is no leaf ${index} among ${leaves.length}`)
  }
  if (leaves.length === 1) return []
  const split = largestPowerBelow(leaves.length)
  const left = leaves.slice(0, split)
  const right = leaves.slice(split)
  return index < split
    ? [...inclusionProof(left, index), rootOf(right)]
    : [...inclusionProof(right, index - split), rootOf(left)]
}

/** Shows that the tree of the first `from` leaves is the beginning of the tree of all of them. Empty from 0. */
export function consistencyProof(leaves: readonly Uint8Array[], from: number): Uint8Array[] {
  if (!(Number.isSafeInteger(from) && from >= 0 && from <= leaves.length)) {
    throw new ProofError(`a tree of ${leaves.length} leaves has no beginning of ${from}`)
  }
  return from === 0 ? [] : subProof(leaves, from, true)
}

function subProof(leaves: readonly Uint8Array[], from: number, whole: boolean): Uint8Array[] {
  if (from === leaves.length) return whole ? [] : [rootOf(leaves)]
  const split = largestPowerBelow(leaves.length)
  const left = leaves.slice(0, split)
  const right = leaves.slice(split)
  return from <= split
    ? [...subProof(left, from, whole), rootOf(right)]
    : [...subProof(right, from - split, false), rootOf(left)]
}

export type InclusionClaim = {
  readonly index: number
  readonly size: number
  readonly leaf: Uint8Array
  readonly root: Uint8Array
  readonly proof: readonly Uint8Array[]
}

/** RFC 9162, 2.1.3.2. */
export function verifyInclusion({ index, size, leaf, root, proof }: InclusionClaim): boolean {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) return false
  if (!hashes([leaf, root, ...proof])) return false
  let node = index
  let last = size - 1
  let hash = leaf
  for (const beside of proof) {
    if (last === 0) return false
    if (node % 2 === 1 || node === last) {
      hash = nodeHash(beside, hash)
      while (node % 2 === 0 && node !== 0) [node, last] = [half(node), half(last)]
    } else {
      hash = nodeHash(hash, beside)
    }
    node = half(node)
    last = half(last)
  }
  return last === 0 && sameBytes(hash, root)
}

export type ConsistencyClaim = {
  readonly from: number
  readonly to: number
  readonly fromRoot: Uint8Array
  readonly toRoot: Uint8Array
  readonly proof: readonly Uint8Array[]
}

/** RFC 9162, 2.1.4.2. The tree without leaves is the beginning of every tree, and needs no proof. */
export function verifyConsistency({ from, to, fromRoot, toRoot, proof }: ConsistencyClaim): boolean {
  if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to) || from < 0 || from > to) return false
  if (!hashes([fromRoot, toRoot, ...proof])) return false
  if (from === to) return proof.length === 0 && sameBytes(fromRoot, toRoot) && (to > 0 || sameBytes(toRoot, emptyRoot))
  if (from === 0) return proof.length === 0 && sameBytes(fromRoot, emptyRoot)
  // a full old tree is itself the first hash of the way, and isn't repeated in the proof
  const [first, ...rest] = isPowerOfTwo(from) ? [fromRoot, ...proof] : proof
  if (!first) return false
  let node = from - 1
  let last = to - 1
  while (node % 2 === 1) [node, last] = [half(node), half(last)]
  let old = first
  let grown = first
  for (const beside of rest) {
    if (last === 0) return false
    if (node % 2 === 1 || node === last) {
      old = nodeHash(beside, old)
      grown = nodeHash(beside, grown)
      while (node % 2 === 0 && node !== 0) [node, last] = [half(node), half(last)]
    } else {
      grown = nodeHash(grown, beside)
    }
    node = half(node)
    last = half(last)
  }
  return last === 0 && sameBytes(old, fromRoot) && sameBytes(grown, toRoot)
}

function half(value: number): number {
  return Math.floor(value / 2)
}

function hashes(values: readonly Uint8Array[]): boolean {
  return values.every(({ length }) => length === 32)
}

function isPowerOfTwo(value: number): boolean {
  return largestPowerBelow(value + 1) === value
}

/** The largest power of two that is smaller than `size`. */
function largestPowerBelow(size: number): number {
  let power = 1
  while (power * 2 < size) power *= 2
  return power
}
