import type { OutboxTarget, Targets } from './targets-file.ts'

/** What the variables that people have already stand for, unless a target names them itself. */

type Environment = Readonly<Record<string, string | undefined>>

/** What people are told without having asked for it. */
const news = ['incident.*', 'fleet.*', 'posture.*', 'security.*', 'deploy.*', 'rollback.*', 'notify.*']

const signingSecret = 'TMS_SECRET_ALERTS'

/** The targets of the file and the defaults; those of the file only, when it is wrong or says `defaults: false`. */
export function withDefaults(read: Targets, environment: Environment): Targets {
  if (read.problems.length > 0 || read.defaults === false) return read
  const named = namesOf(read.targets.map(({ config }) => config))
  const taken = new Set(read.targets.map(({ name }) => name))
  const made = defaultTargets(environment).filter(
    ({ variable, target }) => !named.has(variable) && !taken.has(target.name),
  )
  return { ...read, targets: [...read.targets, ...made.map(({ target }) => target)] }
}

type Default = { readonly variable: string; readonly target: OutboxTarget }

function defaultTargets(environment: Environment): readonly Default[] {
  const set = (variable: string) => (environment[variable] ?? '') !== ''
  const trace = environment['TMS_TRACE_LINK']
  const traceUrl = trace?.includes('{traceId}') === true && URL.canParse(trace) ? { traceUrl: trace } : {}
  const pager = environment['PAGERDUTY_URL']
  return [
    ...(set('SLACK_WEBHOOK_URL')
      ? [
          {
            variable: 'SLACK_WEBHOOK_URL',
            target: {
              name: 'default-slack',
              kind: 'slack' as const,
              topics: [...news, 'agent.dead_letter'],
              config: { urlFrom: { env: 'SLACK_WEBHOOK_URL' }, ...traceUrl },
            },
          },
        ]
      : []),
    ...(set('PAGERDUTY_ROUTING_KEY')
      ? [
          {
            variable: 'PAGERDUTY_ROUTING_KEY',
            target: {
              name: 'default-pagerduty',
              kind: 'pagerduty' as const,
              topics: ['incident.*', 'fleet.resumed', 'deploy.*', 'rollback.*'],
              config: {
                routingKeyFrom: { env: 'PAGERDUTY_ROUTING_KEY' },
                ...(pager ? { baseUrl: pager, hosts: hostOf(pager) } : {}),
              },
            },
          },
        ]
      : []),
    ...(set('ALERT_WEBHOOK_URL')
      ? [
          {
            variable: 'ALERT_WEBHOOK_URL',
            target: {
              name: 'default-alerts',
              topics: news,
              // Signed where there is a secret to sign with; many receivers know nothing of signatures.
              ...(set(signingSecret)
                ? {
                    kind: 'webhook' as const,
                    config: {
                      urlFrom: { env: 'ALERT_WEBHOOK_URL' },
                      keyId: 'tms-alerts',
                      secretFrom: { env: signingSecret },
                    },
                  }
                : { kind: 'http' as const, config: { urlFrom: { env: 'ALERT_WEBHOOK_URL' } } }),
            },
          },
        ]
      : []),
  ]
}

/** The operator of this host says so with a variable: that is the permission which `hosts` is. */
function hostOf(url: string): string[] {
  return URL.canParse(url) ? [new URL(url).host] : []
}

/** Every variable that a configuration names, however deep. */
function namesOf(value: unknown): ReadonlySet<string> {
  if (typeof value !== 'object' || value === null) return new Set()
  const inside = Object.entries(value).flatMap(([key, one]: [string, unknown]) =>
    key === 'env' && typeof one === 'string' ? [one] : [...namesOf(one)],
  )
  return new Set(inside)
}
