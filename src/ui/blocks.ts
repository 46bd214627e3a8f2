/**
 * What a view is made of: plain data, so that topics describe results without knowing terminals, colours or widths.
 * A view lives in its topic's folder (`src/<topic>/views.ts`) and imports nothing from here but these types.
 */
export type View<T> = (data: T) => readonly Block[]

/** `good`, `bad` and `warn` are colours where there are any; the text must say the same without them. */
export type Tone = 'good' | 'bad' | 'warn' | 'dim' | 'strong'

export type Value = string | number | bigint | boolean | null
export type Cell = Value | { readonly text: Value; readonly tone: Tone }

export type Block =
  | { readonly kind: 'heading'; readonly text: string }
  /** One paragraph. */
  | { readonly kind: 'text'; readonly text: Cell }
  /** Lines as they are, never broken: what may be a file is printed so. */
  | { readonly kind: 'verbatim'; readonly text: string }
  /** Labels and values, one a line. */
  | { readonly kind: 'facts'; readonly rows: readonly (readonly [label: string, value: Cell])[] }
  | {
      readonly kind: 'table'
      readonly columns: readonly Column[]
      readonly rows: readonly (readonly Cell[])[]
      /** What to say instead of a table without rows. */
      readonly empty: string
    }
  | { readonly kind: 'list'; readonly items: readonly Cell[] }
  /** Commands to type next, most useful first. */
  | { readonly kind: 'next'; readonly commands: readonly string[] }

export type Column = string | { readonly title: string; readonly align: 'right' }
