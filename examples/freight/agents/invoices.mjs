import { defineAgent, TaskFailure, z } from '@transbot/tms/agent'

/** Builds an invoice, where the tenant lets machines do that. */
export default defineAgent({
  name: 'invoices',
  functions: {
    'invoices.build': {
      input: z.object({ load: z.string(), price: z.string() }),
      output: z.object({ invoice: z.string() }),
      run: async (context, { load, price }) => {
        if ((await context.flag('finance.autoInvoice')) !== true) {
          // Another try would find the same: a person decides, and replays.
          throw new TaskFailure('policy', `finance.autoInvoice is off for ${context.tenant}`)
        }
        const invoice = await context.step('number', async () => `INV-${load}`)
        context.publish('invoices.built', { load, invoice, price }, { key: `built/${load}`, order: load })
        return { invoice }
      },
    },
  },
})
