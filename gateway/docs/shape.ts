import type { DescMethod } from "@bufbuild/protobuf";

/** Whether a method answers with many messages. */
export const isStreamOut = ({ methodKind }: DescMethod): boolean =>
  methodKind === "server_streaming" || methodKind === "bidi_streaming";

/** Whether a method is asked with many messages. */
export const isStreamIn = ({ methodKind }: DescMethod): boolean =>
  methodKind === "client_streaming" || methodKind === "bidi_streaming";
