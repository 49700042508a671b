import type { DescEnum, DescEnumValue, DescField, DescMethod, JsonValue, Message } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";

/** How one method's bodies are spelled; everything not given is plain proto3 JSON and google.rpc.Status errors. */
export interface Dialect {
  /**
   * How enum values are written: `short` leaves out the enum's SCREAMING_SNAKE prefix, and both short
   * styles leave out fields that are unspecified. Every spelling is read, whatever the style.
   */
  enumStyle?: "canonical" | "short" | "short-lower";
  /** The style of one enum, where it is not the dialect's. */
  enumStyleOf?(desc: DescEnum): Dialect["enumStyle"];
  /** Whether output field names are those of the contract rather than lowerCamelCase. */
  protoNames?: boolean;
  /** Further names accepted on input, in the body and in the query. */
  fieldAliases?(field: DescField): readonly string[];
  /**
   * Whether query parameters `field[a][b]=c` of a string field are gathered into its value, as the
   * JSON `{"a":{"b":"c"}}`.
   */
  foldsBrackets?(field: DescField): boolean;
  /** Further spellings of an enum value accepted on input. */
  enumSpellings?(value: DescEnumValue): readonly string[];
  /** The status of a unary success; 200 if not given; 204 sends no body. */
  successStatus?: number;
  /** Wraps the body of unary responses, after `response_body` was taken. */
  envelope?(
    body: JsonValue,
    response: Message,
    method: DescMethod,
    info: { requestId: string | undefined },
  ): JsonValue;
  /**
   * Whether the envelope says something new in every response, such as the time. The entity tag is then
   * a weak one, made of what is in the envelope.
   */
  envelopeVaries?: boolean;
  /** Headers of a read that succeeded; `target` is the raw path and query that were asked for. */
  headers?(
    response: Message,
    method: DescMethod,
    info: { target: { readonly path: string; readonly query: string } },
  ): Readonly<Record<string, string>>;
  /** The body of errors. */
  errorBody?(error: ConnectError, info: { httpStatus: number; requestId: string | undefined }): JsonValue;
  /**
   * The HTTP status of an error, where it is not the one of its code. `conditional` says whether the request
   * had an `If-Match` header, so that a version that is not the one asked for can be a 412.
   */
  errorStatus?(error: ConnectError, info: { conditional: boolean }): number | undefined;
}
