import { redacted } from './redacted.ts'
import type { Event, Json } from './target.ts'

/** What Slack accepts; above it the whole message is refused. */
export const slackLimits = {
  header: 150,
  section: 3000,
  field: 2000,
  fields: 10,
  blocks: 50,
  fallback: 4000,
  link: 3000,
} as const

type PlainText = { readonly type: 'plain_text'; readonly text: string; readonly emoji: boolean }
/** `verbatim`: Slack makes no links and mentions of its own out of it. */
type Markdown = { readonly type: 'mrkdwn'; readonly text: string; readonly verbatim: true }
type Button = {
  readonly type: 'button'
  readonly action_id: string
  readonly text: PlainText
  readonly url: string
}
type Block =
  | { readonly type: 'header'; readonly text: PlainText }
  | { readonly type: 'section'; readonly text: Markdown }
  | { readonly type: 'section'; readonly fields: readonly Markdown[] }
  | { readonly type: 'context'; readonly elements: readonly Markdown[] }
  | { readonly type: 'actions'; readonly elements: readonly Button[] }

export type SlackMessage = {
  readonly text: string
  readonly unfurl_links: false
  readonly unfurl_media: false
  readonly blocks: readonly Block[]
}

/**
 * A payload with `title`, `text` and `fields` (all optional) as a message; any other payload as JSON. What is in it is
 * shown as text: it can mention nobody, link nowhere and pass for no other message.
 */
export function slackMessage(event: Event, traceUrl: string | null): SlackMessage {
  const { title, text, fields, link } = readPayload(event)
  // One line, so that two messages of the same delivery can be seen to be one.
  const foot = [event.topic, event.tenant ?? 'fleet', event.createdAt, `delivery ${event.deliveryId}`]
    .map((part) => shortened(part, 200))
    .join(' · ')
  const buttons = [...button('trace', 'Trace', traceUrl), ...button('open', 'Open', link)]
  const actions: Block[] = buttons.length === 0 ? [] : [{ type: 'actions', elements: buttons }]
  const header: Block = {
    type: 'header',
    text: { type: 'plain_text', text: shortened(oneLine(title), slackLimits.header), emoji: false },
  }
  const context: Block = { type: 'context', elements: [markdown(foot)] }
  const table: Block[] = chunks(fields.slice(0, 5 * slackLimits.fields), slackLimits.fields).map((some) => ({
    type: 'section',
    fields: some.map(([name, value]) =>
      markdown(`*${shortened(oneLine(name), 200)}*\n${shortened(value, slackLimits.field - 300)}`),
    ),
  }))
  const room = slackLimits.blocks - 2 - table.length - actions.length
  const parts = pieces(text, slackLimits.section, room + 1)
  const cut = parts.length > room
  const sections: Block[] = parts
    .slice(0, cut ? room - 1 : room)
    .map((part) => ({ type: 'section', text: markdown(part) }))
  const note: Block[] = cut ? [{ type: 'section', text: markdown('… the rest does not fit') }] : []
  return {
    text: shortened(oneLine(title), slackLimits.fallback),
    unfurl_links: false,
    unfurl_media: false,
    blocks: [header, ...sections, ...note, ...table, ...actions, context],
  }
}

/** Fields of the product's own events that are shown elsewhere in the message. */
const elsewhere = new Set(['title', 'text', 'fields', 'dedup_key'])

function readPayload({ topic, tenant, payload }: Event) {
  const { value, fields: object } = redacted(payload, mostPayload)
  const known = typeof object.title === 'string' || typeof object.text === 'string'
  if (!known) return { title: topic, text: JSON.stringify(value, null, 1), fields: [], link: null }
  const { title, text, fields } = object
  const entries = typeof fields === 'object' && fields !== null && !Array.isArray(fields) ? Object.entries(fields) : []
  // An agent's event could lead people anywhere under a button of ours; the product's own can't.
  const own = tenant === null
  const link = own && typeof object.link === 'string' && URL.canParse(object.link) ? object.link : null
  const facts =
    own || topic.startsWith('incident.')
      ? Object.entries(object).filter(
          ([name, value]) => !elsewhere.has(name) && isPlain(value) && (name !== 'link' || link === null),
        )
      : []
  return {
    title: typeof title === 'string' && title.trim() !== '' ? title : topic,
    text: typeof text === 'string' ? text : '',
    fields: [...facts, ...entries].map(([name, value]) => [name, plain(value)] as const),
    link,
  }
}

/** More than 50 blocks can show. */
const mostPayload = 256 * 1024

function isPlain(value: Json): boolean {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
}

function button(id: string, label: string, url: string | null): readonly Button[] {
  if (url === null || !URL.canParse(url)) return []
  const { protocol, href } = new URL(url)
  if ((protocol !== 'https:' && protocol !== 'http:') || href.length > slackLimits.link) return []
  return [{ type: 'button', action_id: id, text: { type: 'plain_text', text: label, emoji: false }, url: href }]
}

function plain(value: Json): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function markdown(text: string): Markdown {
  return { type: 'mrkdwn', text, verbatim: true }
}

/** The three characters that mean something to Slack, in Slack's own way. */
const escapes: ReadonlyMap<string, string> = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'],
])

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}

/** Escaped and at most `limit` long, cut between characters and never inside an escape. Never empty. */
function shortened(text: string, limit: number): string {
  const [first, second] = pieces(text, limit, 2)
  if (first === undefined) return '–'
  return second === undefined ? first : `${pieces(text, limit - 1, 1)[0] ?? ''}…`
}

/** Escaped text in pieces of at most `limit`, and at most so many. Slack refuses pieces of nothing but spaces. */
function pieces(text: string, limit: number, most: number): readonly string[] {
  const found: string[] = []
  let piece = ''
  const end = () => {
    if (piece.trim() !== '') found.push(piece)
    piece = ''
  }
  for (const character of text.toWellFormed()) {
    const next = escapes.get(character) ?? character
    if (piece.length + next.length > limit) end()
    if (found.length === most) return found
    piece += next
  }
  end()
  return found
}

function chunks<T>(items: readonly T[], size: number): readonly (readonly T[])[] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  )
}
