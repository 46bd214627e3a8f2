import { expect, test } from 'vitest'
import { certifyLater } from '../../src/incident/certify.ts'
import { openIncident } from '../../src/incident/incidents.ts'
import type { Signer } from '../../src/keys/signer.ts'
import { openScene, subjects } from './fixture.ts'

test('an incident without a halt is said to have none, whosever it is, and only one that is not there is missing', async () => {
  const scene = await openScene(await subjects.postgres())
  try {
    // nothing is signed here
    const signer: Signer = {
      fingerprint: '',
      publicKeyPem: '',
      publicKey: new Uint8Array(32),
      sign: () => Promise.reject(new Error('asked')),
    }
    const certify = (id: string) => certifyLater(scene.operator, id, { signer, folder: '/nowhere' })
    for (const tenant of [undefined, 'acme']) {
      const opened = await openIncident(scene.operator, {
        priority: 'P3',
        title: 'slow',
        type: 'slow',
        key: `slow:${tenant ?? ''}`,
        tenant,
      })
      const message = `Incident ${opened.incident.id} has no halt.`
      await expect(certify(opened.incident.id)).rejects.toMatchObject({ code: 'NOT_FOUND', message })
    }
    await expect(certify('999')).rejects.toMatchObject({ code: 'NOT_FOUND', message: 'there is no incident 999' })
  } finally {
    await scene.stop()
  }
})
