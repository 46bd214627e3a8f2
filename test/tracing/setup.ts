import { onTestFinished } from 'vitest'
import type { TaskInfo } from '../../src/tracing/trace.ts'
import { startTracing, type Tracer } from '../../src/tracing/tracer.ts'
import type { TracingOptions } from '../../src/tracing/options.ts'

export const parent = {
  traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
  spanId: '00f067aa0ba902b7',
  text: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  unsampled: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00',
}

export async function tracing(options: Partial<TracingOptions>): Promise<Tracer> {
  const tracer = await startTracing({
    enabled: true,
    samplePercent: 100,
    endpoint: null,
    headers: {},
    serviceName: 'tms-worker',
    serviceVersion: '1.2.3',
    environment: 'staging',
    redact: (value) => value,
    fetchTimeoutMs: 10_000,
    ...options,
  })
  onTestFinished(() => tracer.stop())
  return tracer
}

export function task(info: Partial<TaskInfo> = {}): TaskInfo {
  return {
    name: 'agent.task.execute',
    agent: 'rating',
    fn: 'quote_load',
    tenant: 'acme',
    taskId: '42',
    attempt: 2,
    traceparent: null,
    ...info,
  }
}
