/** What agents are written with: `@transbot/tms/agent`. */
export { defineAgent, TaskFailure } from './agents/define.ts'
export type { Agent, Context, FollowUp, Spending } from './agents/define.ts'
export { runForTest } from './agents/rehearse.ts'
export type { Rehearsal, RehearsalOptions } from './agents/rehearse.ts'
// The same zod that tms parses with: an agent needs no other.
export * as z from 'zod'
