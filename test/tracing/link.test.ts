import { describe, expect, it } from 'vitest'
import { checkLinkTemplate, traceLink } from '../../src/tracing/link.ts'

const id = '4bf92f3577b34da6a3ce929d0e0e4736'

describe('a trace link', () => {
  it.each([
    ['in the path', 'https://traces.example.com/trace/{traceId}', `https://traces.example.com/trace/${id}`],
    ['in the query', 'http://t.example.com:8080/?q={traceId}&x=1', `http://t.example.com:8080/?q=${id}&x=1`],
    ['in the fragment', 'https://t.example.com/#/t/{traceId}', `https://t.example.com/#/t/${id}`],
    ['more than once', 'https://t.example.com/{traceId}?t={traceId}', `https://t.example.com/${id}?t=${id}`],
  ])('has the id %s', (_where, template, link) => {
    checkLinkTemplate(template)
    expect(traceLink(template, id)).toBe(link)
  })

  it('encodes an id that is none', () => {
    expect(traceLink('https://t.example.com/{traceId}', '../?a=b&c#d<$&')).toBe(
      'https://t.example.com/..%2F%3Fa%3Db%26c%23d%3C%24%26',
    )
  })

  it('is absent without a template', () => {
    expect(traceLink(null, id)).toBeNull()
  })

  it.each([
    ['without the place for the id', 'https://t.example.com/trace'],
    ['that is no address', '{traceId}'],
    ['that runs a script', 'javascript:alert("{traceId}")'],
    ['that is a file', 'file:///{traceId}'],
    ['with a password', 'https://reader:hunter2@t.example.com/{traceId}'],
    ['whose host depends on the id', 'https://{traceId}.example.com/'],
    ['whose port depends on the id', 'https://t.example.com:{traceId}/'],
  ])('is absent for a template %s, and the check says why', (_what, template) => {
    expect(traceLink(template, id)).toBeNull()
    expect(() => checkLinkTemplate(template)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
  })

  it('does not repeat a password in the error', () => {
    expect.assertions(1)
    try {
      checkLinkTemplate('https://reader:hunter2@t.example.com/{traceId}')
    } catch (error) {
      expect(JSON.stringify({ ...(error as object), message: String(error) })).not.toContain('hunter2')
    }
  })
})
