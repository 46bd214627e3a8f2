import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromHex, toHex } from '../../src/proof/bytes.ts'
import {
  consistencyProof,
  emptyRoot,
  inclusionProof,
  leafHash,
  nodeHash,
  rootOf,
  startTree,
  verifyConsistency,
  verifyInclusion,
} from '../../src/proof/merkle.ts'
import { flipped } from './signers.ts'

/** The leaves and roots that Certificate Transparency's own tests use. */
const known = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'].map(
  (hex) => leafHash(fromHex(hex)),
)
const knownRoots = [
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
]

const leaves = Array.from({ length: 130 }, (_, n) => leafHash(`leaf ${n}`))
const roots = Array.from({ length: 131 }, (_, n) => rootOf(leaves.slice(0, n)))
const rootAt = (size: number) => roots[size] ?? emptyRoot
const leafAt = (index: number) => leaves[index] ?? emptyRoot

describe('Merkle trees as in RFC 6962', () => {
  test('have the roots that Certificate Transparency has', () => {
    expect(knownRoots.map((_, size) => toHex(rootOf(known.slice(0, size))))).toEqual(knownRoots)
  })

  test('have the proofs that Certificate Transparency has', () => {
    expect(inclusionProof(known, 0).map(toHex)).toEqual([
      '96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7',
      '5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e',
      '6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4',
    ])
    expect(inclusionProof(known, 5).map(toHex)).toEqual([
      'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b',
      'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0',
      'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    ])
    expect(consistencyProof(known, 6).map(toHex)).toEqual([
      '0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a',
      'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0',
      'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    ])
  })

  test('grow to the same root as the definition gives', () => {
    const byDefinition = (part: readonly Uint8Array[]): Uint8Array => {
      const [only] = part
      if (only === undefined) return emptyRoot
      if (part.length === 1) return only
      const split = 2 ** Math.ceil(Math.log2(part.length) - 1)
      return nodeHash(byDefinition(part.slice(0, split)), byDefinition(part.slice(split)))
    }
    const tree = startTree()
    for (const [index, leaf] of leaves.entries()) {
      expect([tree.size(), toHex(tree.root())]).toEqual([index, toHex(byDefinition(leaves.slice(0, index)))])
      tree.add(leaf)
    }
  })

  test('every leaf of every tree up to 130 leaves is shown to be in it, and nowhere else', () => {
    const wrong: string[] = []
    for (let size = 1; size <= 130; size += 1) {
      for (let index = 0; index < size; index += 1) {
        const claim = {
          index,
          size,
          leaf: leafAt(index),
          root: rootAt(size),
          proof: inclusionProof(leaves.slice(0, size), index),
        }
        if (!verifyInclusion(claim)) wrong.push(`${index} of ${size} refused`)
        if (verifyInclusion({ ...claim, leaf: leafAt(index + 1) })) wrong.push(`${index} of ${size}: another leaf`)
        if (verifyInclusion({ ...claim, root: rootAt(size - 1) })) wrong.push(`${index} of ${size}: another root`)
        if (verifyInclusion({ ...claim, proof: [...claim.proof, emptyRoot] })) wrong.push(`${index} of ${size}: longer`)
        if (size > 1 && verifyInclusion({ ...claim, proof: claim.proof.slice(1) }))
          wrong.push(`${index} of ${size}: shorter`)
        const other = (index + 1) % size
        if (size > 1 && verifyInclusion({ ...claim, index: other })) wrong.push(`${index} of ${size}: as ${other}`)
      }
    }
    expect(wrong).toEqual([])
  })

  test('every beginning of every tree up to 64 leaves is shown to be one', () => {
    const wrong: string[] = []
    for (let to = 0; to <= 64; to += 1) {
      for (let from = 0; from <= to; from += 1) {
        const claim = {
          from,
          to,
          fromRoot: rootAt(from),
          toRoot: rootAt(to),
          proof: consistencyProof(leaves.slice(0, to), from),
        }
        if (!verifyConsistency(claim)) wrong.push(`${from} to ${to} refused`)
        if (verifyConsistency({ ...claim, proof: [...claim.proof, emptyRoot] })) wrong.push(`${from} to ${to}: longer`)
        if (from > 0 && verifyConsistency({ ...claim, toRoot: rootAt(to + 1) }))
          wrong.push(`${from} to ${to}: other end`)
        if (verifyConsistency({ ...claim, fromRoot: rootAt(from + 1) })) wrong.push(`${from} to ${to}: other beginning`)
        if (claim.proof.length > 0 && verifyConsistency({ ...claim, proof: claim.proof.slice(0, -1) }))
          wrong.push(`${from} to ${to}: shorter`)
      }
    }
    expect(wrong).toEqual([])
  })

  test('a proof with any bit turned over is refused', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 130 }), fc.nat(), fc.nat(), fc.nat(), (size, a, b, c) => {
        const part = leaves.slice(0, size)
        const index = a % size
        const proof = inclusionProof(part, index)
        const broken = proof.map((hash, at) => (at === b % proof.length ? flipped(hash, c % 256) : hash))
        expect(verifyInclusion({ index, size, leaf: leafAt(index), root: rootAt(size), proof: broken })).toBe(false)
        const from = 1 + (a % (size - 1))
        const way = consistencyProof(part, from)
        const brokenWay = way.map((hash, at) => (at === b % way.length ? flipped(hash, c % 256) : hash))
        expect(
          verifyConsistency({ from, to: size, fromRoot: rootAt(from), toRoot: rootAt(size), proof: brokenWay }),
        ).toBe(false)
      }),
      { numRuns: 500 },
    )
  })

  test('a tree whose old leaf was rewritten is consistent with no earlier root', () => {
    const rewritten = leaves.map((leaf, index) => (index === 3 ? leafHash('rewritten') : leaf))
    for (let from = 4; from < 130; from += 1) {
      const proof = consistencyProof(rewritten, from)
      expect(verifyConsistency({ from, to: 130, fromRoot: rootAt(from), toRoot: rootOf(rewritten), proof })).toBe(false)
    }
  })

  test('sizes and indexes that are none are refused, and so is a hash of another length', () => {
    const claim = { index: 1, size: 4, leaf: leafAt(1), root: rootAt(4), proof: inclusionProof(leaves.slice(0, 4), 1) }
    for (const odd of [{ index: -1 }, { index: 4 }, { index: 1.5 }, { size: 0 }, { size: NaN }, { size: 2 ** 60 }]) {
      expect(verifyInclusion({ ...claim, ...odd })).toBe(false)
    }
    expect(verifyInclusion({ ...claim, leaf: new Uint8Array(31) })).toBe(false)
    expect(() => inclusionProof(leaves, 130)).toThrow('no leaf 130')
    expect(() => consistencyProof(leaves, 131)).toThrow('no beginning of 131')
  })

  test('nothing is a beginning of everything, but only as the empty tree', () => {
    const claim = { from: 0, to: 5, fromRoot: emptyRoot, toRoot: rootAt(5), proof: [] }
    expect(verifyConsistency(claim)).toBe(true)
    expect(verifyConsistency({ ...claim, fromRoot: rootAt(1) })).toBe(false)
    expect(verifyConsistency({ ...claim, to: 0, fromRoot: rootAt(1), toRoot: rootAt(1) })).toBe(false)
  })

  test('a log beyond 2^31 leaves is verified, too', () => {
    // the last leaf of 2^32 + 1 is alone on the right: its way is one hash
    const size = 2 ** 32 + 1
    const left = leafHash('left')
    const claim = { index: 2 ** 32, size, leaf: leafAt(0), root: nodeHash(left, leafAt(0)), proof: [left] }
    expect(verifyInclusion(claim)).toBe(true)
    expect(verifyInclusion({ ...claim, index: 0 })).toBe(false)
  })
})
