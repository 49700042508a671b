import pino, { type DestinationStream, type Logger } from "pino";
import { redactor } from "./redact.ts";

/** The log of the process, in lines of JSON; no line leaves with a secret in it. */
export function createLog(level: string, destination?: DestinationStream): Logger {
  return pino(
    { level, hooks: { streamWrite: (line) => redactor.redact(line) } },
    // Synchronous, so that the last line before a crash is there.
    destination ?? pino.destination({ fd: 2, sync: true }),
  );
}
