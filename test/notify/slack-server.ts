import { receiver, type Check, type Receiver } from '../outbox/targets/receivers.ts'

/** An incoming webhook of Slack, as far as what it checks and answers. */

export const slackPath = '/services/T00000000/B00000000/slack-path-secret-77'

export async function startSlack(): Promise<Receiver & { readonly webhook: string }> {
  const there = await receiver(checkSlack)
  return Object.assign(there, { webhook: there.url + slackPath })
}

/** Slack's own checks: what is required, what is too long, and what a block may hold. */
export const checkSlack: Check = ({ headers, path, body }) => {
  if (path !== slackPath) return [404, 'no_service']
  let message: unknown
  try {
    message = JSON.parse(body)
  } catch {
    return [400, 'invalid_payload']
  }
  if (headers['content-type'] !== 'application/json' || !isObject(message)) return [400, 'invalid_payload']
  const { text, blocks = [] } = message
  if (text !== undefined && (typeof text !== 'string' || text.length > 40_000)) return [400, 'invalid_payload']
  if (!Array.isArray(blocks)) return [400, 'invalid_payload']
  if (blocks.length === 0 && !text) return [400, 'no_text']
  return blocks.length <= 50 && blocks.every(isBlock) ? [200, 'ok'] : [400, 'invalid_blocks']
}

function isBlock(block: unknown): boolean {
  if (!isObject(block)) return false
  const { type, text, fields, elements } = block
  if (type === 'header') return isText(text, 150, ['plain_text'])
  if (type === 'context') return isTexts(elements, 10, 3000)
  if (type === 'actions') return isButtons(elements)
  if (type !== 'section' || (text === undefined && fields === undefined)) return false
  return (text === undefined || isText(text, 3000)) && (fields === undefined || isTexts(fields, 10, 2000))
}

function isButtons(elements: unknown): boolean {
  if (!Array.isArray(elements) || elements.length < 1 || elements.length > 25) return false
  const ids = elements.map((element: unknown) => (isObject(element) ? element.action_id : undefined))
  if (new Set(ids).size !== ids.length) return false
  return elements.every(
    (element: unknown) =>
      isObject(element) &&
      element.type === 'button' &&
      isText(element.text, 75, ['plain_text']) &&
      typeof element.action_id === 'string' &&
      element.action_id.length <= 255 &&
      (element.url === undefined ||
        (typeof element.url === 'string' && element.url.length <= 3000 && URL.canParse(element.url))),
  )
}

function isTexts(texts: unknown, most: number, longest: number): boolean {
  return Array.isArray(texts) && texts.length >= 1 && texts.length <= most && texts.every((one) => isText(one, longest))
}

function isText(text: unknown, longest: number, types = ['plain_text', 'mrkdwn']): boolean {
  if (!isObject(text) || !types.includes(String(text.type)) || typeof text.text !== 'string') return false
  if ('emoji' in text && text.type !== 'plain_text') return false
  if ('verbatim' in text && text.type !== 'mrkdwn') return false
  if (!text.text.isWellFormed()) return false
  return text.text.trim().length >= 1 && text.text.length <= longest
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
