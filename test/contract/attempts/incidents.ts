import { randomUUID } from 'node:crypto'
import type { Driver } from '../../../src/drivers/driver.ts'
import { granted } from '../../../src/drivers/refusal.ts'
import type { Attempt } from './attempt.ts'

export const incidentsAttempts: readonly Attempt[] = [
  { fn: 'incident_press', args: () => ({ why: 'the walk' }) },
  { fn: 'incident_snapshot', args: () => ({ id: '0' }) },
  { fn: 'incident_halt', args: () => ({ halt: '0' }) },
  { fn: 'incident_certified', args: () => ({ halt: '0', certificate: '{}' }) },
  { fn: 'incident_certificates', args: () => ({ id: '0' }) },
  { fn: 'incident_soft_degrade', args: () => ({ why: 'the walk' }), undo: degraded },
  { fn: 'incident_rollback_plan', args: () => ({}) },
  {
    fn: 'incident_rollback_wanted',
    args: () => ({ priority: 'P4', why: 'the walk' }),
  },
  { fn: 'incident_rollback', args: () => ({ plan: 'none', why: 'the walk' }) },
  { fn: 'incident_resume', args: () => ({ id: '0', step: 'slots', percent: 100, why: 'the walk' }) },
  { fn: 'incident_health', args: () => ({ id: '0' }) },
  { fn: 'incident_open', args: () => ({ priority: 'P4', title: 'the walk', key: 'walk' }) },
  { fn: 'incident_list', args: () => ({}) },
  { fn: 'incident_show', args: () => ({ id: '0' }) },
  { fn: 'incident_work', args: () => ({ id: '0', action: 'note', text: 'the walk' }) },
  { fn: 'incident_times', args: () => ({}) },
  { fn: 'incident_impact', args: () => ({ id: '0' }) },
  { fn: 'incident_cycle', args: () => ({}) },
  { fn: 'incident_rehearse', args: () => ({ id: '0', step: 'look' }) },
]

/** Undoes every soft degrade of the walk, the fleet's and the tenants'. */
async function degraded(operator: Driver): Promise<void> {
  const { incidents } = granted(await operator.call('incident_list', { limit: 100 }))
  for (const { id } of incidents.filter(({ type }) => type === 'soft_degrade')) {
    const resume = (step: 'prepare' | 'slots', percent?: number) =>
      operator.call('incident_resume', {
        request_id: randomUUID(),
        id,
        step,
        ...(percent === undefined ? {} : { percent }),
        why: 'goes on',
      })
    granted(await resume('prepare'))
    for (const percent of [50, 100]) await resume('slots', percent)
  }
}
