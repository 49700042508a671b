import { readFileSync } from "node:fs";
import { z } from "zod";
import { type Plans, readPlans } from "./plans.ts";

const logLevels = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;

const port = z.coerce.number().int().min(0).max(65535);
const onOff = z.enum(["on", "off"]).transform((value) => value === "on");

/** The origins of a comma-separated list, as browsers send them. */
function originsOf(list: string, context: z.RefinementCtx): readonly string[] {
  const origins = list.split(",").map((origin) => origin.trim());
  const isOrigin = (text: string) =>
    URL.canParse(text) && new URL(text).origin === text && !text.includes("*");
  for (const origin of origins) {
    if (origin === "*" ? origins.length === 1 : isOrigin(origin)) continue;
    context.addIssue(`"${origin}" is not an origin such as https://app.example.com`);
  }
  return origins;
}

/** Every setting: its variable, what it means, and how it is read. */
const settings = {
  PORT: { about: "Port to listen on; 0 takes a free one", schema: port.default(8080) },
  HOST: { about: "Address to listen on", schema: z.string().min(1).default("127.0.0.1") },
  PORTOLAN_DATA_DIR: {
    about: "Folder of the database and the generated API key",
    schema: z.string().min(1).default(".data"),
  },
  PORTOLAN_DATABASE_URL: {
    about: "postgres://… to use PostgreSQL instead of SQLite in the data folder",
    schema: z
      .string()
      .regex(/^postgres(ql)?:\/\//, "must begin with postgres://")
      .optional(),
  },
  PORTOLAN_ADMIN_API_KEY: {
    about: "API key of the first administrator; unset generates one on first start",
    schema: z.string().min(8, "must have at least 8 characters").optional(),
  },
  PORTOLAN_SANDBOX: {
    about: "on starts simulated docks and drones, off does not",
    schema: onOff.default(true),
  },
  PORTOLAN_AUDIT_DAYS: {
    about: "How many days a row of the audit log is kept",
    schema: z.coerce.number().int().min(1).max(36_500).default(400),
  },
  PORTOLAN_PLANS: {
    about: "JSON file of rate limit plans, added to the built-in ones",
    schema: z.string().optional(),
  },
  PORTOLAN_MAX_CALLS: {
    about: "Unary calls in flight above which new ones are refused",
    schema: z.coerce.number().int().min(1).default(10_000),
  },
  PORTOLAN_MAX_LOOP_DELAY: {
    about: "Milliseconds of delay above which new calls are refused",
    schema: z.coerce.number().int().min(1).default(500),
  },
  PORTOLAN_EXPRESS: {
    about: "off serves gRPC, gRPC-Web and Connect by the Connect library alone, see docs/express.md",
    schema: onOff.default(true),
  },
  PORTOLAN_LOG_LEVEL: { about: `One of ${logLevels.join(", ")}`, schema: z.enum(logLevels).default("info") },
  PORTOLAN_ACCESS_LOG: {
    about: "on logs every call at level info, off at debug; faults of the server always show",
    schema: onOff.default(false),
  },
  PORTOLAN_METRICS: {
    about: "Who may read /metrics: loopback (this machine), on (everybody) or off",
    schema: z.enum(["loopback", "on", "off"]).default("loopback"),
  },
  PORTOLAN_METRICS_TOKEN: {
    about: "Bearer token that /metrics asks for, from wherever it is read",
    schema: z.string().min(8, "must have at least 8 characters").optional(),
  },
  PORTOLAN_CORS_ORIGINS: {
    about: "Origins whose pages may call, separated by commas, or * for all; unset means none",
    schema: z.string().transform(originsOf).optional(),
  },
  PORTOLAN_TLS_CERT: {
    about: "PEM file of the certificate chain; with PORTOLAN_TLS_KEY turns TLS on",
    schema: z.string().optional(),
  },
  PORTOLAN_TLS_KEY: { about: "PEM file of the private key", schema: z.string().optional() },
} satisfies Record<string, { about: string; schema: z.ZodType }>;

/** The settings of a process. */
export interface Config {
  readonly port: number;
  readonly host: string;
  readonly dataDir: string;
  readonly databaseUrl: string | undefined;
  readonly adminApiKey: string | undefined;
  readonly sandbox: boolean;
  /** How long a row of the audit log is kept, in days. */
  readonly auditDays: number;
  readonly plans: Plans;
  /** Unary calls in flight above which the process counts as overloaded. */
  readonly maxCallsInFlight: number;
  /** Mean delay of the event loop above which it does, in milliseconds. */
  readonly maxLoopDelayMs: number;
  /** Whether the express lanes are open. */
  readonly express: boolean;
  readonly logLevel: (typeof logLevels)[number];
  /** Whether every call is logged, not only faults. */
  readonly accessLog: boolean;
  readonly metrics: {
    readonly readers: "loopback" | "on" | "off";
    readonly token: string | undefined;
  };
  /** Origins of pages that may call, or `*` alone; empty means none. */
  readonly corsOrigins: readonly string[];
  /** The standard variables of OpenTelemetry, `OTEL_…`. */
  readonly otel: Readonly<Record<string, string>>;
  readonly tls: { readonly cert: Buffer; readonly key: Buffer } | undefined;
}

/** Says what is wrong with the environment, one line for each variable. */
export class ConfigError extends Error {}

/**
 * Reads the settings from environment variables. Empty ones count as unset.
 * @throws ConfigError naming each variable at fault
 */
export function readConfig(env: Record<string, string | undefined>): Config {
  const problems: string[] = [];
  const unknown = Object.keys(env).filter((name) => name.startsWith("PORTOLAN_") && !(name in settings));
  // Clients of ours read this one; it is no setting of the server, and no mistake either.
  for (const name of unknown.filter((name) => name !== "PORTOLAN_API_KEY")) {
    problems.push(`${name}: there is no such setting`);
  }

  function read<N extends keyof typeof settings>(name: N): z.output<(typeof settings)[N]["schema"]> {
    const result = settings[name].schema.safeParse(env[name] || undefined);
    if (result.success) return result.data as never;
    problems.push(`${name}: ${result.error.issues.map((issue) => issue.message).join("; ")}`);
    return undefined as never;
  }
  function readFile(name: "PORTOLAN_TLS_CERT" | "PORTOLAN_TLS_KEY"): Buffer | undefined {
    const path = read(name);
    if (!path) return undefined;
    try {
      return readFileSync(path);
    } catch (error) {
      problems.push(`${name}: ${(error as Error).message}`);
      return undefined;
    }
  }

  function plans(): Plans {
    const path = read("PORTOLAN_PLANS");
    try {
      return readPlans(path);
    } catch (error) {
      problems.push(`PORTOLAN_PLANS: ${(error as Error).message}`);
      return new Map();
    }
  }

  const cert = readFile("PORTOLAN_TLS_CERT");
  const key = readFile("PORTOLAN_TLS_KEY");
  if (Boolean(env.PORTOLAN_TLS_CERT) !== Boolean(env.PORTOLAN_TLS_KEY)) {
    problems.push("PORTOLAN_TLS_CERT and PORTOLAN_TLS_KEY: set both or neither");
  }
  const config: Config = {
    port: read("PORT"),
    host: read("HOST"),
    dataDir: read("PORTOLAN_DATA_DIR"),
    databaseUrl: read("PORTOLAN_DATABASE_URL"),
    adminApiKey: read("PORTOLAN_ADMIN_API_KEY"),
    sandbox: read("PORTOLAN_SANDBOX"),
    auditDays: read("PORTOLAN_AUDIT_DAYS"),
    plans: plans(),
    maxCallsInFlight: read("PORTOLAN_MAX_CALLS"),
    maxLoopDelayMs: read("PORTOLAN_MAX_LOOP_DELAY"),
    express: read("PORTOLAN_EXPRESS"),
    logLevel: read("PORTOLAN_LOG_LEVEL"),
    accessLog: read("PORTOLAN_ACCESS_LOG"),
    metrics: { readers: read("PORTOLAN_METRICS"), token: read("PORTOLAN_METRICS_TOKEN") },
    corsOrigins: read("PORTOLAN_CORS_ORIGINS") ?? [],
    otel: Object.fromEntries(
      Object.entries(env).filter(
        (entry): entry is [string, string] => entry[0].startsWith("OTEL_") && Boolean(entry[1]),
      ),
    ),
    tls: cert && key ? { cert, key } : undefined,
  };
  if (problems.length > 0) throw new ConfigError(problems.join("\n"));
  return config;
}

/** The text of `--help`: every setting with its meaning and default. */
export function describeSettings(): string {
  const lines = Object.entries(settings).map(([name, { about, schema }]) => {
    const fallback = schema instanceof z.ZodOptional ? undefined : schema.parse(undefined);
    const shown = typeof fallback === "boolean" ? (fallback ? "on" : "off") : fallback;
    return `  ${name.padEnd(24)} ${about}${shown === undefined ? "" : ` (default ${shown})`}`;
  });
  const standard =
    "  OTEL_…                   The standard variables of OpenTelemetry: an endpoint turns traces on";
  return ["Settings, all environment variables:", ...lines, standard].join("\n");
}
