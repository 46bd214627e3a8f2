import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'

type Task = Contract['tasks_enqueue']['args']['tasks'][number]

export type Queue = {
  /** Resolves with the task's id when it is committed. */
  enqueue(task: Task): Promise<string>
}

/** The largest call: as many tasks as it takes, and well below what a request may weigh. */
const mostTasks = 1000
const mostBytes = 500_000

type Waiting = {
  readonly task: Task
  readonly bytes: number
  readonly resolve: (id: string) => void
  readonly reject: (error: unknown) => void
}

/**
 * Enqueues for one tenant. What comes while a call is under way goes with the next one, so that a thousand single tasks a
 * second are some hundred transactions. A call that is refused or fails fails each of its tasks.
 */
export function openQueue(driver: Driver, tenant: string): Queue {
  const waiting: Waiting[] = []
  let busy = false

  async function send(): Promise<void> {
    busy = true
    while (waiting.length > 0) {
      let bytes = 0
      let n = 0
      while (n < waiting.length && n < mostTasks) {
        bytes += waiting[n]?.bytes ?? 0
        if (n > 0 && bytes > mostBytes) break
        n++
      }
      const batch = waiting.splice(0, n)
      try {
        const { ids } = granted(
          await driver.call('tasks_enqueue', {
            request_id: randomUUID(),
            tenant,
            tasks: batch.map(({ task }) => task),
          }),
        )
        batch.forEach(({ resolve, reject }, at) => {
          const id = ids[at]
          if (id === undefined) reject(new Error('the database answered with fewer ids than tasks'))
          else resolve(id)
        })
      } catch (error) {
        for (const { reject } of batch) reject(error)
      }
    }
    busy = false
  }

  return {
    enqueue: (task) =>
      new Promise((resolve, reject) => {
        waiting.push({ task, bytes: JSON.stringify(task).length, resolve, reject })
        if (!busy) {
          busy = true
          // What is asked for in the same turn goes together.
          setImmediate(() => void send())
        }
      }),
  }
}
