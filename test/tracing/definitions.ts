import { createRequire } from 'node:module'

/**
 * The decoder that the OpenTelemetry project generated from its own .proto files with protobufjs. It shares no code with
 * the hand-written writer of the release that is under test. The package is an older one of the same name, installed
 * under another.
 */
type Message<T> = {
  decode(bytes: Uint8Array): T
  encode(message: T): { finish(): Uint8Array }
}

/** What decoding gives: null stands for a field that wasn't on the wire. */
export type AnyValue = {
  readonly stringValue?: string | null
  readonly boolValue?: boolean | null
  readonly intValue?: Long | null
  readonly doubleValue?: number | null
  readonly arrayValue?: { readonly values: readonly AnyValue[] } | null
}

type Long = { toString(): string }

export type KeyValue = { readonly key: string | null; readonly value?: AnyValue | null }

export type ProtoSpan = {
  readonly traceId: Uint8Array | null
  readonly spanId: Uint8Array | null
  readonly parentSpanId: Uint8Array | null
  readonly name: string | null
  readonly kind: number | null
  readonly startTimeUnixNano: Long | null
  readonly endTimeUnixNano: Long | null
  readonly attributes: readonly KeyValue[]
  readonly events: readonly {
    readonly timeUnixNano: Long | null
    readonly name: string | null
    readonly attributes: readonly KeyValue[]
  }[]
  readonly links: readonly { readonly traceId: Uint8Array | null; readonly spanId: Uint8Array | null }[]
  readonly status?: { readonly code: number | null; readonly message: string | null } | null
  readonly flags: number | null
}

export type ExportRequest = {
  readonly resourceSpans: readonly {
    readonly resource?: { readonly attributes: readonly KeyValue[] } | null
    readonly scopeSpans: readonly {
      readonly scope?: { readonly name: string | null; readonly version: string | null } | null
      readonly spans: readonly ProtoSpan[]
    }[]
  }[]
}

type ExportResponse = {
  readonly partialSuccess?: { readonly rejectedSpans: number; readonly errorMessage: string }
}

type Root = {
  readonly opentelemetry: {
    readonly proto: {
      readonly collector: {
        readonly trace: {
          readonly v1: {
            readonly ExportTraceServiceRequest: Message<ExportRequest>
            readonly ExportTraceServiceResponse: Message<ExportResponse>
          }
        }
      }
    }
  }
}

// True by opentelemetry/proto/collector/trace/v1/trace_service.proto, which these names come from.
const root = createRequire(import.meta.url)('otlp-definitions/build/src/generated/root.js') as Root

export const { ExportTraceServiceRequest, ExportTraceServiceResponse } = root.opentelemetry.proto.collector.trace.v1
