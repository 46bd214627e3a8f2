import { describe, expect, test } from 'vitest'
import * as z from 'zod'
import { factFiles, packFacts } from '../../src/evidence/facts.ts'
import { published, publishedNames, schemaOf } from '../../src/evidence/schemas/published.ts'
import { parseCanonicalFile } from '../../src/proof/canonical.ts'
import { busyDay, emptyDay, redJudgement, unknownJudgement } from './day.ts'

const built = [
  factFiles(packFacts(busyDay(), redJudgement, null)),
  factFiles(packFacts(emptyDay(), unknownJudgement, null)),
]

describe('the schemas of the files of a pack', () => {
  test.each(publishedNames)('%s has a version, an address and a description', (name) => {
    const { version, schema } = schemaOf(name)
    expect(version).toMatch(/^tms-[a-z-]+-v\d+$/)
    expect(schema).toMatchObject({
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      $id: `https://tms.invalid/schemas/${version}.json`,
      type: 'object',
      additionalProperties: false,
    })
    expect(schema['description']).toBeTypeOf('string')
  })

  test('fit every file that is built, as published and not only as defined', () => {
    for (const files of built) {
      for (const name of publishedNames.filter((file) => file in files)) {
        const value = parseCanonicalFile(files[name] ?? '')
        expect(z.fromJSONSchema(schemaOf(name).schema as never).safeParse(value), name).toMatchObject({ success: true })
        expect(published[name].safeParse(value), name).toMatchObject({ success: true })
      }
    }
  })

  test('refuse a field that nobody defined, and a file of another version', () => {
    const value = JSON.parse(built[0]?.['flags.json'] ?? '') as Record<string, unknown>
    const schema = z.fromJSONSchema(schemaOf('flags.json').schema)
    expect(schema.safeParse({ ...value, extra: 1 }).success).toBe(false)
    expect(schema.safeParse({ ...value, type: 'tms-flags-v2' }).success).toBe(false)
  })

  test('are found with or without the ending, and a wrong name is told the right ones', () => {
    expect(schemaOf('flags').file).toBe('flags.json')
    expect(() => schemaOf('index.html')).toThrow(/no JSON file of a pack/)
  })
})
