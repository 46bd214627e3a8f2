import type { Event, Json } from './target.ts'

/** What Slack accepts; above it the whole message is refused. */
export const slackLimits = { header: 150, section: 3000, field: 2000, fields: 10, blocks: 50, fallback: 4000 } as const

type PlainText = { readonly type: 'plain_text'; readonly text: string; readonly emoji: boolean }
/** `verbatim`: Slack makes no links and mentions of its own out of it. */
type Markdown = { readonly type: 'mrkdwn'; readonly text: string; readonly verbatim: true }
type Block =
  | { readonly type: 'header'; readonly text: PlainText }
  | { readonly type: 'section'; readonly text: Markdown }
  | { readonly type: 'section'; readonly fields: readonly Markdown[] }
  | { readonly type: 'context'; readonly elements: readonly Markdown[] }

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
  const { title, text, fields } = readPayload(event)
  const foot = [
    ...(traceUrl === null ? [] : [`<${escaped(traceUrl).replaceAll('|', '%7C')}|trace>`]),
    // One line, so that two messages of the same delivery can be seen to be one.
    [event.topic, event.tenant, event.createdAt, `delivery ${event.deliveryId}`]
      .map((part) => shortened(part, 200))
      .join(' · '),
  ]
  const header: Block = {
    type: 'header',
    text: { type: 'plain_text', text: shortened(oneLine(title), slackLimits.header), emoji: false },
  }
  const context: Block = { type: 'context', elements: foot.map(markdown) }
  const table: Block[] = chunks(fields.slice(0, 5 * slackLimits.fields), slackLimits.fields).map((some) => ({
    type: 'section',
    fields: some.map(([name, value]) =>
      markdown(`*${shortened(oneLine(name), 200)}*\n${shortened(value, slackLimits.field - 300)}`),
    ),
  }))
  const room = slackLimits.blocks - 2 - table.length
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
    blocks: [header, ...sections, ...note, ...table, context],
  }
}

function readPayload({ topic, payload }: Event) {
  const object = typeof payload === 'object' && payload !== null && !Array.isArray(payload) ? payload : null
  const known = object !== null && (typeof object.title === 'string' || typeof object.text === 'string')
  if (!known) return { title: topic, text: JSON.stringify(payload, null, 1), fields: [] }
  const { title, text, fields } = object
  const entries = typeof fields === 'object' && fields !== null && !Array.isArray(fields) ? Object.entries(fields) : []
  return {
    title: typeof title === 'string' && title.trim() !== '' ? title : topic,
    text: typeof text === 'string' ? text : '',
    fields: entries.map(([name, value]) => [name, plain(value)] as const),
  }
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

function escaped(text: string): string {
  return text.replace(/[&<>]/g, (character) => escapes.get(character) ?? '')
}

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
