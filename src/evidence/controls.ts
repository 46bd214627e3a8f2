import type { AuditDigestFile } from './schemas/audit-digest.ts'
import type { ControlsFile } from './schemas/controls.ts'
import type { FlagsFile } from './schemas/flags.ts'
import type { OutboxLagFile } from './schemas/outbox-lag.ts'
import type { Check, SloSnapshotFile } from './schemas/slo-snapshot.ts'

/**
 * Which facts speak to which SOC 2 criteria, how strongly, and which criteria no fact speaks to. Every criterion of the
 * framework stands in exactly one of the two lists: leaving one out would look like covering it.
 */

type Verdict = Check['state']
type Facts = {
  readonly flags: FlagsFile
  readonly slo: SloSnapshotFile
  readonly outbox: OutboxLagFile
  readonly audit: AuditDigestFile
}
type Fact = {
  readonly file: string
  readonly fact: string
  readonly shows: string
  readonly state: (facts: Facts) => Verdict
}
type Criterion = {
  readonly id: string
  readonly about: string
  readonly strength: 'direct' | 'supporting'
  readonly facts: readonly Fact[]
  readonly not_shown: string
}

export function controlsOf(facts: Facts): ControlsFile {
  return {
    type: 'tms-controls-v1',
    day: facts.slo.day,
    framework: 'SOC 2, Trust Services Criteria of 2017 (points of focus revised in 2022)',
    notice:
      'A state is that of the facts of one day, not of a criterion: whether a control is designed and works over a period is for the auditor to judge.',
    criteria: criteria.map(({ id, about, strength, facts: named, not_shown }) => {
      const states = named.map(({ state }) => state(facts))
      return {
        id,
        about,
        strength,
        state: worst(states),
        facts: named.map(({ file, fact, shows }, at) => ({ file, fact, shows, state: states[at] ?? 'unknown' })),
        not_shown,
      }
    }),
    not_covered: notCovered.map(([id, about, why]) => ({ id, about, why })),
  }
}

/** Red beats unknown, and unknown beats green. */
function worst(states: readonly Verdict[]): Verdict {
  return states.includes('red') ? 'red' : states.includes('unknown') || states.length === 0 ? 'unknown' : 'green'
}

// ---- facts

/** A check of the posture, by its name. Absent is unknown: an older or newer posture may not have it. */
function checked(name: string, shows: string): Fact {
  return {
    file: 'slo_snapshot.json',
    fact: `checks, ${name}`,
    shows,
    state: ({ slo }) => {
      const found = slo.checks.filter((check) => check.name === name)
      return worst(found.map(({ state }) => state))
    },
  }
}

const posture: Fact = {
  file: 'flags.json',
  fact: 'findings',
  shows: 'the required settings held for the environment and for every tenant',
  state: ({ flags }) =>
    flags.findings.count > 0 ? 'red' : flags.flags.some(({ required }) => required !== null) ? 'green' : 'unknown',
}

/** What happened is a fact whether or not it happened today: an empty day of a sealed ledger is an answer. */
function recorded(actions: string, shows: string): Fact {
  return {
    file: 'audit_digest.json',
    fact: `counts and listed, ${actions}`,
    shows,
    state: ledgerState,
  }
}

const chained: Fact = {
  file: 'audit_digest.json',
  fact: 'ledger, with inclusion.tlog-proof and consistency.txt; no incident ledger_broken in alerts.sql.out',
  shows: 'the records of the day are in an append-only log whose growth can be checked, and nobody found it broken',
  state: ledgerState,
}

/**
 * Red while it is open that the ledger doesn't verify. When that ended within the day nobody can say from here what the
 * records before were worth.
 */
function ledgerState({ audit, slo }: Facts): Verdict {
  const broken = slo.alerts.listed.filter(({ type }) => type === 'ledger_broken')
  if (broken.some(({ status }) => status === 'OPEN')) return 'red'
  if (broken.length > 0 || audit.ledger.tree_size === 0) return 'unknown'
  // P1 comes first in the list, and other types can't push it out before there are more P1 than it shows
  const hidden =
    slo.alerts.count > slo.alerts.listed.length && slo.alerts.listed.every(({ priority }) => priority === 'P1')
  return hidden ? 'unknown' : 'green'
}

const grave: Fact = {
  file: 'alerts.sql.out',
  fact: 'incidents',
  shows: 'incidents are recorded, with a priority and their times; none of P1 or P2 was left open',
  state: ({ slo }) =>
    slo.alerts.listed.some(({ priority, status }) => status === 'OPEN' && (priority === 'P1' || priority === 'P2'))
      ? 'red'
      : 'green',
}

const lag: Fact = {
  file: 'outbox_lag.json',
  fact: 'p95_ms and avg_ms',
  shows: 'events reached their receivers in time, or how late they were',
  state: ({ outbox }) => {
    if (outbox.p95_ms === null || outbox.avg_ms === null) return 'unknown'
    const within =
      Number(outbox.p95_ms) <= Number(outbox.limits.p95_ms) && Number(outbox.avg_ms) <= Number(outbox.limits.avg_ms)
    return within ? 'green' : 'red'
  },
}

const spend: Fact = {
  file: 'flags.json',
  fact: 'spend',
  shows: "what the day's work used of the budgets that limit it",
  state: ({ flags }) =>
    flags.spend.listed.some((row) => over(row.cost, row.cost_limit) || over(row.tokens, row.tokens_limit))
      ? 'red'
      : flags.spend.count > 0
        ? 'green'
        : 'unknown',
}

function over(used: string, limit: string | null): boolean {
  return limit !== null && Number(used) > Number(limit)
}

// ---- the criteria

const criteria: readonly Criterion[] = [
  {
    id: 'CC2.1',
    about: 'information that controls rest on is obtained and of good quality',
    strength: 'supporting',
    facts: [chained],
    not_shown: 'whether the people who need the information get it and use it',
  },
  {
    id: 'CC4.1',
    about: 'controls are evaluated continuously',
    strength: 'supporting',
    facts: [
      posture,
      checked('task_success_percent', 'a service level is judged each day, and red days are kept as well'),
    ],
    not_shown: 'evaluations that people make, and the independence of whoever makes them',
  },
  {
    id: 'CC5.2',
    about: 'general controls over technology',
    strength: 'supporting',
    facts: [posture, checked('agents_at_once', 'the limit on how many agents work at once held')],
    not_shown: 'controls over infrastructure, networks and what is outside this database',
  },
  {
    id: 'CC6.1',
    about: 'logical access to information is restricted',
    strength: 'supporting',
    facts: [recorded('refused', 'what roles did not allow was refused and recorded')],
    not_shown: 'encryption, network access, and logins to the database that do not go through its functions',
  },
  {
    id: 'CC6.2',
    about: 'users are registered and authorised before they get access, and removed after',
    strength: 'supporting',
    facts: [recorded('user.* and account.*', 'each grant and each revocation, by whom and in which role')],
    not_shown: 'whether a grant was approved beforehand, and whether leavers were reported in time',
  },
  {
    id: 'CC6.3',
    about: 'access follows roles, with least privilege and separated duties',
    strength: 'supporting',
    facts: [recorded('user.* and refused', 'changes of roles, and what roles kept from happening')],
    not_shown: 'reviews of who holds which role',
  },
  {
    id: 'CC6.6',
    about: 'protection against threats from outside the boundary',
    strength: 'supporting',
    facts: [recorded('door.*', 'requests that were not signed as they must be were refused')],
    not_shown: 'firewalls, intrusion detection, and everything before the request reaches the door',
  },
  {
    id: 'CC7.1',
    about: 'changes of configuration that open a weakness are detected',
    strength: 'direct',
    facts: [posture, checked('pending_migrations', 'the schema was that of the release')],
    not_shown: 'scans for known vulnerabilities',
  },
  {
    id: 'CC7.2',
    about: 'the system is watched for anomalies',
    strength: 'direct',
    facts: [
      checked('task_success_percent', 'how much of the work succeeded, against its limit'),
      checked('p95_latency_ms', 'how long the work took, against its limit'),
      checked('uptime_percent', 'how much of the time the system answered, from recorded probes'),
      grave,
    ],
    not_shown: 'anomalies that none of these numbers shows',
  },
  {
    id: 'CC7.3',
    about: 'events are evaluated: are they incidents',
    strength: 'supporting',
    facts: [grave],
    not_shown: 'how a person came to the judgement',
  },
  {
    id: 'CC7.4',
    about: 'incidents are responded to',
    strength: 'supporting',
    facts: [grave, recorded('fence.*, safe_mode.* and incident.*', 'which levers were pulled, when, in which role')],
    not_shown: 'communication outside of the system, and what was learnt',
  },
  {
    id: 'CC8.1',
    about: 'changes are authorised, recorded and controlled',
    strength: 'supporting',
    facts: [recorded('flag.*, agents.policy, deploy.* and gate.*', 'each change of behaviour that went through tms')],
    not_shown: 'reviews and tests of code, and changes made elsewhere',
  },
  {
    id: 'A1.1',
    about: 'capacity is watched and managed',
    strength: 'direct',
    facts: [checked('agents_at_once', 'how much of the limit was in use'), lag, spend],
    not_shown: 'capacity of machines, disks and networks',
  },
  {
    id: 'A1.2',
    about: 'backups and recovery facilities',
    strength: 'supporting',
    facts: [checked('backup_age_hours', 'the age of the last valid backup')],
    not_shown: 'where backups are kept, and environmental protections',
  },
  {
    id: 'PI1.3',
    about: 'processing is complete, valid, accurate and timely',
    strength: 'supporting',
    facts: [
      checked('task_success_percent', 'tasks that ended well, against those that did not'),
      checked('quarantine_percent', 'tasks that were taken out after their last try'),
    ],
    not_shown: 'whether results were right in substance',
  },
  {
    id: 'PI1.4',
    about: 'output is delivered completely and in time',
    strength: 'direct',
    facts: [lag],
    not_shown: 'what receivers did with it',
  },
  {
    id: 'PI1.5',
    about: 'what is stored stays complete and unchanged',
    strength: 'supporting',
    facts: [chained],
    not_shown: 'data of the business outside of the ledger',
  },
]

const organisation = 'a matter of people and organisation; nothing in a database shows it'
const privacy =
  'a matter of notices, consent and requests of persons; packs hold no personal data and say nothing about it'

const notCovered: readonly (readonly [id: string, about: string, why: string])[] = [
  ['CC1.1', 'integrity and ethical values', organisation],
  ['CC1.2', 'oversight by the board', organisation],
  ['CC1.3', 'structures, reporting lines, authority', organisation],
  ['CC1.4', 'competent people', organisation],
  ['CC1.5', 'accountability', organisation],
  ['CC2.2', 'communication inside', organisation],
  ['CC2.3', 'communication with others', organisation],
  ['CC3.1', 'objectives clear enough to assess risks', organisation],
  ['CC3.2', 'risks are identified and analysed', organisation],
  ['CC3.3', 'fraud is considered', organisation],
  ['CC3.4', 'changes that matter are identified', organisation],
  [
    'CC4.2',
    'deficiencies are communicated and corrected',
    'a pack shows that a day was red, not who was told and what they did',
  ],
  ['CC5.1', 'control activities are chosen against risks', organisation],
  ['CC5.3', 'policies and procedures', organisation],
  ['CC6.4', 'physical access', 'outside of software'],
  ['CC6.5', 'disposal of assets', 'outside of software'],
  ['CC6.7', 'data is protected when it is moved', 'transport and removable media are outside of what tms sees'],
  ['CC6.8', 'unauthorised or malicious software', 'tms does not see what is installed on machines'],
  ['CC7.5', 'recovery from incidents', 'restores and drills have records of their own, which are not in this pack'],
  ['CC9.1', 'risks of disruption are mitigated', organisation],
  ['CC9.2', 'vendors and partners', organisation],
  ['A1.3', 'recovery is tested', 'drills have records of their own, which are not in this pack'],
  ['C1.1', 'confidential information is identified and kept', 'classification is not in this pack'],
  ['C1.2', 'confidential information is disposed of', 'disposal is not in this pack'],
  ['PI1.1', 'specifications of processing', 'specifications are not in this pack'],
  ['PI1.2', 'input is complete and accurate', 'what comes in is judged by agents, not by tms'],
  ['P1.1', 'notice of privacy practices', privacy],
  ['P2.1', 'choice and consent', privacy],
  ['P3.1', 'collection', privacy],
  ['P3.2', 'explicit consent', privacy],
  ['P4.1', 'use', privacy],
  ['P4.2', 'retention', privacy],
  ['P4.3', 'disposal', privacy],
  ['P5.1', 'access of persons to their data', privacy],
  ['P5.2', 'correction', privacy],
  ['P6.1', 'disclosure to others', privacy],
  ['P6.2', 'record of authorised disclosures', privacy],
  ['P6.3', 'record of unauthorised disclosures', privacy],
  ['P6.4', 'commitments of vendors', privacy],
  ['P6.5', 'vendors notify of disclosures', privacy],
  ['P6.6', 'notification of breaches', privacy],
  ['P6.7', 'account of what is held', privacy],
  ['P7.1', 'data stays accurate', privacy],
  ['P8.1', 'inquiries and complaints', privacy],
]
