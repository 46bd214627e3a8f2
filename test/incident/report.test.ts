import { expect, test } from 'vitest'
import type { Shown } from '../../src/incident/incidents.ts'
import { postmortem } from '../../src/incident/report.ts'
import { certifiedView } from '../../src/incident/views.ts'

const at = '2026-11-20T03:00:00.000000Z'

/** True as far as the draft reads them. */
function draftOf(said: string): string {
  const incident = { id: '7', priority: 'P1', status: 'OPEN', type: 'reported', tenant: null, title: said }
  const shown = {
    incident: { ...incident, opened_at: at, opened_by: said, acted_at: null, resolved_at: null, late_at: null },
    events: [{ id: '1', at, kind: 'attempt', who: said, text: said }],
    levers: [],
    halts: [],
  }
  const impact = { from: at, to: at, completed: '0', failed: '0', retried: '0', dead_letters: '0', tenants: '0' }
  return postmortem(shown as unknown as Shown, { ...impact, cost: '0', wasted: '0', halted_seconds: '0' }, 'here')
}

test('the draft holds nothing that a terminal would obey', () => {
  const draft = draftOf('red \u001b[31m\u0007 \u202e turned\u0000 | \n# over')
  expect(draft).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f\u202e]/u)
  expect(draft).toContain('turned \\| # over')
})

test('a hostile title stays words: no image, no link, no HTML, no broken row', () => {
  const title = String.raw`a\|b | ![x](http://evil/x.png) <script>alert(1)</script> www.evil.com <!-- ${'`'}code *bold _thin_ a_b \\| &lt;`
  const lines = draftOf(title).split('\n')
  const said = lines.filter((line) => line.includes('evil'))
  // The heading, who opened it, the row of the timeline (twice in it), what was tried.
  expect(said).toHaveLength(4)
  for (const line of said) {
    // What an escape is put before is a letter; what is left must mean nothing.
    const bare = line.replace(/\\[!-/:-@[-`{-~]/g, '')
    expect(bare).not.toMatch(/[<>[\]!`*~\\]|https?:|www\.|&(?!#(58|46);)/)
    const cells = bare.split('|').length - 1
    expect(cells).toBe(line.startsWith('| Opened') ? 3 : line.startsWith('|') ? 5 : 0)
  }
  expect(said[0]).toContain(String.raw`a\\\|b \| \!\[x\](http&#58;//evil/x.png) \<script\>`)
  expect(said[0]).toContain(String.raw`\_thin\_ a_b`)
})

test('certify lists each file once, however many halts it signed', () => {
  const one = { sha256: '', fingerprint: 'ab'.repeat(32), before: false, aside: null }
  const view = certifiedView({
    incidentId: '7',
    target: 'here',
    certificates: [
      { ...one, halt: '1', files: ['certificate-1.json', 'key.pem', 'HOW-TO-CHECK-1.txt'] },
      { ...one, halt: '2', files: ['certificate-2.json', 'key.pem', 'HOW-TO-CHECK-2.txt'] },
    ],
  })
  expect(view.find(({ kind }) => kind === 'list')).toMatchObject({
    items: ['certificate-1.json', 'key.pem', 'HOW-TO-CHECK-1.txt', 'certificate-2.json', 'HOW-TO-CHECK-2.txt'],
  })
})
