import type { SqlFiles } from '../db/files.ts'
import type { Driver } from '../drivers/driver.ts'
import { turnIncidents } from '../incident/incidents.ts'
import { scanInvariants } from '../invariants/scan.ts'
import { sealLedger } from '../ledger/ledger.ts'
import { verifyLedger } from '../ledger/verify.ts'
import { watchNotifications } from '../notify/notify.ts'
import { actOnPosture } from '../posture/act.ts'
import { posture, recordPosture } from '../posture/posture.ts'
import { openProber, type ProbeReach } from '../posture/probe.ts'
import { readSlo } from '../posture/slo.ts'
import { reportBrokenLedger } from '../security/security.ts'
import type { Duty } from './duties.ts'

export type Housekeeping = {
  /** As the service account autopilot. */
  readonly driver: Driver
  readonly policyFolders: readonly string[]
  readonly sqlFiles: SqlFiles
  readonly reach: Omit<ProbeReach, 'driver'>
}

const second = 1000

/** What the product does by itself while it runs, besides the fleet's work: it seals, verifies, probes, judges, scans and looks after incidents. */
export function housekeeping({ driver, policyFolders, sqlFiles, reach }: Housekeeping): readonly Duty[] {
  const prober = openProber({ ...reach, driver })
  const duty = (name: string, seconds: number, run: () => Promise<unknown>): Duty => ({
    name,
    everyMs: seconds * second,
    run: async () => {
      await run()
      return false
    },
  })
  return [
    duty('the ledger', 2, () => sealLedger(driver)),
    duty('incidents', 5, () => turnIncidents(driver)),
    duty('probes', 30, () => prober.probe()),
    duty('notifications', 60, () => watchNotifications(driver)),
    duty('the posture', 60, async () => {
      // Read anew each time: a limit that was changed counts from the next look on.
      const slo = await readSlo(policyFolders)
      const now = await posture(driver, { slo, sqlFiles })
      await recordPosture(driver, now)
      await actOnPosture(driver, now, slo)
    }),
    // All of it each hour: a million rows take ten seconds, in small pieces.
    duty('the ledger, verified', 3600, async () => {
      const verification = await verifyLedger(driver, {})
      if (verification.verdict === 'broken') await reportBrokenLedger(driver, verification)
    }),
    duty('invariants', 60, () => scanInvariants(driver, { due: true, correct: true })),
  ]
}
