import type { DescMessage, Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator } from "@bufbuild/protovalidate";
import type { ConnectError } from "@connectrpc/connect";
import { fail } from "#kernel/errors.ts";

const validator = createValidator();

/** The message that the field paths of an error start from, where they are spelled as in the contract. */
const roots = new WeakMap<ConnectError, DescMessage>();

/** The message that the field paths of an error start from, if `validate` has raised it. */
export const rootOf = (error: ConnectError): DescMessage | undefined => roots.get(error);

/** Checks a message against the rules of its contract; fails with VALIDATION_ERROR naming each field. */
export function validate(desc: DescMessage, message: Message): void {
  const result = validator.validate(desc, message);
  if (result.kind === "valid") return;
  if (result.kind === "error") throw fail("INTERNAL", { cause: result.error });
  const violations = result.violations.map(({ field, message: text, ruleId }) => ({
    field: pathToString(field),
    description: text,
    reason: reasonOfRule(ruleId),
  }));
  const first = violations[0];
  const error = fail("VALIDATION_ERROR", {
    message: first?.field ? `${first.field}: ${first.description}` : first?.description,
    violations,
  });
  roots.set(error, desc);
  throw error;
}

/** A rule id such as `string.min_len` in the form of google.rpc reasons. */
const reasonOfRule = (ruleId: string) => ruleId.replaceAll(/[^A-Za-z0-9]+/g, "_").toUpperCase();
