import { defineAgent, z } from '@transbot/tms/agent'

const money = z.string().regex(/^\d+\.\d\d$/)

/** Prices a load by the mile and hands it on to the invoices. */
export default defineAgent({
  name: 'rates',
  functions: {
    'rates.price_one': {
      input: z.object({ load: z.string(), miles: z.number().int().positive() }),
      output: z.object({ load: z.string(), price: money }),
      run: async (context, { load, miles }) => {
        const price = (miles * 2.35).toFixed(2)
        context.log.info('priced', { load, miles, price })
        // Both happen when this task ends well, or not at all.
        context.publish('rates.priced', { load, price }, { key: `priced/${load}`, order: load })
        context.enqueue('invoices.build', { load, price }, { key: `invoice/${load}` })
        return { load, price }
      },
    },
  },
})
