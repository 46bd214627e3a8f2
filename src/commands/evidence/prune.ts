import { Flags } from '@oclif/core'
import { join } from 'node:path'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class EvidencePrune extends TmsCommand {
  static override summary = 'delete packs that expired; a signed tombstone of each stays'
  static override description =
    'The last days are kept, and the newest final pack always. A pack that does not verify is left and named: exit 1.'
  static override examples = [
    '<%= config.bin %> evidence prune --confirm keep-35',
    '<%= config.bin %> evidence prune --keep 400 --confirm keep-400',
  ]
  static override flags = {
    ...consentFlags,
    keep: Flags.integer({ description: 'days to keep', default: 35, min: 1, max: 9999 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(EvidencePrune)
    const [{ consentName, planPrune, prune, settleEvidence }, { prunedView, prunePlanView }, { self }] =
      await Promise.all([
        import('../../evidence/prune.ts'),
        import('../../evidence/verify-views.ts'),
        import('../../config/self.ts'),
      ])
    const root = join((await this.settings()).values.artifacts, 'green-posture')
    await settleEvidence(root, self)
    const driver = await this.database()
    const plan = await planPrune({ driver, root, keep: flags.keep })
    if (plan.go.length === 0) {
      const nothing = { ...plan, pruned: [] }
      return plan.stay.length > 0 ? this.finding(prunedView, nothing) : this.show(prunedView, nothing)
    }
    await this.line(prunePlanView, plan)
    await this.consent(consentName(plan), `delete the packs of ${plan.go.length} days before ${plan.before}`)
    const pruned = await this.uncancellable(() =>
      prune({ driver, root, keep: flags.keep, plan, signer: () => this.signer() }),
    )
    return pruned.stay.length > 0 ? this.finding(prunedView, pruned) : this.show(prunedView, pruned)
  }

  private async signer() {
    const [{ usableSigner }, { signerSources }] = await Promise.all([
      import('../../keys/keys.ts'),
      import('../../config/signing.ts'),
    ])
    return usableSigner(
      await this.database(),
      signerSources(await this.settings(), process.env),
      () => new Date(),
      (text) => this.warn(text),
    )
  }
}
