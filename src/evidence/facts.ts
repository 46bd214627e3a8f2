import type { Contract } from '../drivers/contract.ts'
import { canonicalFile } from '../proof/canonical.ts'
import type { Judgement } from '../posture/judge.ts'
import { redact, redactText, type Json } from '../redaction/redact.ts'
import { traceLink } from '../tracing/link.ts'
import { alertsText } from './alerts.ts'
import { controlsOf } from './controls.ts'
import type { AuditDigestFile } from './schemas/audit-digest.ts'
import type { ControlsFile } from './schemas/controls.ts'
import type { FlagsFile } from './schemas/flags.ts'
import type { OutboxLagFile } from './schemas/outbox-lag.ts'
import type { SloSnapshotFile } from './schemas/slo-snapshot.ts'

/** What a pack says of a day, as data. Everything that people wrote is redacted here, once, before it is frozen. */

export type DayFacts = Contract['evidence_facts']['result']

export type PackFacts = {
  readonly flags: FlagsFile
  readonly slo: SloSnapshotFile
  readonly outbox: OutboxLagFile
  readonly audit: AuditDigestFile
  readonly controls: ControlsFile
  readonly alerts: string
  readonly traces: string
}

/** Deliveries take at most this long: DESIGN's numbers, drawn into the chart. */
const outboxLimits = { p95_ms: '5000', avg_ms: '2000' } as const

export function packFacts(facts: DayFacts, judged: Judgement, linkTemplate: string | null): PackFacts {
  const flags = flagsOf(facts)
  const slo = sloOf(facts, judged)
  const outbox = outboxOf(facts)
  const audit = auditOf(facts)
  return {
    flags,
    slo,
    outbox,
    audit,
    controls: controlsOf({ flags, slo, outbox, audit }),
    alerts: alertsText(slo),
    traces: tracesText(facts, linkTemplate),
  }
}

/** The files as they are hashed and signed, by name. */
export function factFiles({ flags, slo, outbox, audit, controls, alerts, traces }: PackFacts): Record<string, string> {
  return {
    'flags.json': canonicalFile(flags),
    'slo_snapshot.json': canonicalFile(slo),
    'outbox_lag.json': canonicalFile(outbox),
    'audit_digest.json': canonicalFile(audit),
    'controls.json': canonicalFile(controls),
    'alerts.sql.out': alerts,
    'trace-sample.txt': traces,
  }
}

function flagsOf({ day, flags, spend }: DayFacts): FlagsFile {
  return {
    type: 'tms-flags-v1',
    day,
    observed_at: flags.observed_at,
    catalogue_sha256: flags.catalogue_sha256,
    tenants: flags.tenants,
    flags: flags.flags.map(({ key, type, value, source, required }) => ({
      key,
      type,
      value: flagValue(key, value),
      source,
      required: required === null ? null : flagValue(key, required),
      meets: required === null ? null : JSON.stringify(value) === JSON.stringify(required),
    })),
    others: {
      count: flags.others_count,
      listed: flags.others.map((other) => ({ ...other, value: flagValue(other.key, other.value) })),
    },
    findings: {
      count: flags.findings_count,
      listed: flags.findings.map(({ key, tenant, observed, expected }) => ({
        key,
        tenant,
        observed: flagValue(key, observed),
        expected: flagValue(key, expected),
      })),
    },
    spend: { count: spend.count, listed: spend.rows },
  }
}

/** A flag's name may say that its value is a secret: `webhook.apiToken`. */
function flagValue(key: string, value: Json): boolean | string | number | null {
  const name = key.slice(key.lastIndexOf('.') + 1)
  // True because an object stays one, and has the one field.
  const [shown = null] = Object.values(redact({ [name]: value }) as Record<string, Json>)
  if (shown === null || typeof shown === 'boolean' || typeof shown === 'string') return shown
  return typeof shown === 'number' && Number.isSafeInteger(shown) ? shown : JSON.stringify(shown)
}

function sloOf(
  { day, from, until, as_of, runs, queue, alerts }: DayFacts,
  { verdict, ground, health, checks }: Judgement,
): SloSnapshotFile {
  const { quarters, ...totals } = runs
  return {
    type: 'tms-slo-snapshot-v1',
    day,
    window: { from, until },
    as_of,
    verdict,
    ground: { state: ground.state, why: redactText(ground.why) },
    health: health && {
      low: health.low,
      high: health.high,
      grade: health.grade,
      components: health.components.map(({ name, low, high, most, known, why }) => ({
        name,
        low,
        high,
        of: String(most),
        known,
        why: redactText(why),
      })),
    },
    checks: checks.map((check) => ({
      name: check.name,
      group: check.group,
      observed: check.observed,
      unit: check.unit,
      comparison: check.comparison,
      limit: check.limit,
      samples: check.samples,
      window: check.window === 'now' ? 'now' : { from: check.window.from, until: check.window.to },
      source: check.source,
      state: check.state,
      // It may name values of flags.
      why: check.why === null ? null : redactText(check.why),
      counts: check.counts,
    })),
    runs: totals,
    quarters,
    queue,
    alerts: { count: alerts.count, listed: alerts.rows.map((row) => ({ ...row, title: redactText(row.title) })) },
  }
}

function outboxOf({ day, from, until, as_of, outbox }: DayFacts): OutboxLagFile {
  return { type: 'tms-outbox-lag-v1', day, window: { from, until }, as_of, limits: outboxLimits, ...outbox }
}

function auditOf({ day, as_of, ledger, audit }: DayFacts): AuditDigestFile {
  const { origin, from_seq, tree_size, root_before, root_after } = ledger
  return {
    type: 'tms-audit-digest-v1',
    day,
    as_of,
    ledger: { origin, from_seq: Number(from_seq), tree_size: Number(tree_size), root_before, root_after },
    rows: audit.rows,
    critical: audit.critical,
    actions: audit.actions,
    counts: audit.counts,
    listed: audit.listed.map((row) => ({
      ...row,
      who: redactText(row.who),
      subject: row.subject === null ? null : redactText(row.subject),
    })),
  }
}

function tracesText({ day, traces }: DayFacts, linkTemplate: string | null): string {
  const lines = traces.map(({ trace_id, function: fn, outcome, ms, at }) => {
    const link = traceLink(linkTemplate, trace_id)
    // Redacted with another id in it: thirty-two hex digits look like a key.
    const safe = link !== null && redactText(link.replaceAll(trace_id, 'id')) === link.replaceAll(trace_id, 'id')
    return `${trace_id}  ${at}  ${fn}  ${outcome}  ${ms} ms\n  ${safe ? link : noLink}\n`
  })
  const head = `# Traces of ${day}: the slowest run, one that failed, and another, of those that were looked at.\n# trace id, end of the run (UTC), function, outcome, duration; then where to look at it\n\n`
  if (traces.length === 0) return `${head}# none: no run of this day has a trace\n`
  return `${head}${lines.join('\n')}${traces.length < 3 ? `\n# ${traces.length} of 3: no other run of this day has a trace\n` : ''}`
}

const noLink = '(no link: the setting traceLink names no page of traces)'
