import type { IncomingMessage } from "node:http";
import { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { join } from "node:path";
import { createRegistry, type DescService } from "@bufbuild/protobuf";
import type { Logger } from "pino";
import * as errorDetails from "#gen/google/rpc/error_details_pb.js";
import { Health } from "#gen/grpc/health/v1/health_pb.js";
import { ServerReflection as ReflectionV1 } from "#gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ReflectionV1alpha } from "#gen/grpc/reflection/v1alpha/reflection_pb.js";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { AuditLogService } from "#gen/portolan/identity/v1/audit_log_service_pb.js";
import { TenantService } from "#gen/portolan/identity/v1/tenant_service_pb.js";
import { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { UserService } from "#gen/portolan/identity/v1/user_service_pb.js";
import { auditMigrations } from "#kernel/audit-store.ts";
import type { Config } from "#kernel/config.ts";
import { type Database, openPostgres, openSqlite } from "#kernel/database.ts";
import { createBus, eventMigrations } from "#kernel/events.ts";
import { createTransactions, type Kernel, type ServiceModule, serve } from "#kernel/kernel.ts";
import { demandIndexes } from "#kernel/list/indexes.ts";
import { createLiveCounts } from "#kernel/live-counts.ts";
import { migrate } from "#kernel/migrate.ts";
import { createPresence } from "#kernel/presence.ts";
import { pruneReplays, replayMigrations } from "#kernel/replay.ts";
import { createSequence } from "#kernel/sequence.ts";
import { createStanding } from "#kernel/standing.ts";
import { createTicker } from "#kernel/ticker.ts";
import { createTopics } from "#kernel/topics.ts";
import { createBatch } from "#services/batch/index.ts";
import { createIdentity, migrations as identityMigrations } from "#services/identity/index.ts";
import { createJobs } from "#services/jobs/index.ts";
import { createMeta } from "#services/meta/index.ts";
import { createShares } from "#services/shares/index.ts";
import { createStreams } from "#services/streams/index.ts";
import { openAdminKey } from "./admin-key.ts";
import { createCallContexts, originOf, performingAs, requestIdOf } from "./call-context.ts";
import {
  createConnectLane,
  maxMessageBytes,
  protocolOf,
  type Request,
  type Response,
} from "./connect/lane.ts";
import { collectHeaders, createCors } from "./cors.ts";
import { createDocuments, type Documents } from "./docs/serve.ts";
import { createExpressLane } from "./express/lane.ts";
import { createAdmission } from "./gate/admission/index.ts";
import { createLoad, type Load } from "./gate/admission/load.ts";
import { createGate } from "./gate/gate.ts";
import { permissionsByRole } from "./gate/policy.ts";
import { createHealth } from "./health.ts";
import { listen } from "./listener.ts";
import { createAccessLog } from "./observe/access-log.ts";
import { createMetricsPage } from "./observe/metrics.ts";
import { createObserver, refusalOf } from "./observe/observer.ts";
import { wantsTraces } from "./observe/otel-env.ts";
import { redactor } from "./observe/redact.ts";
import { Tallies } from "./observe/tally.ts";
import { createPages } from "./pages.ts";
import { createPeers } from "./peers.ts";
import { createProbes, databaseCheck } from "./probes.ts";
import { createReflection } from "./reflection.ts";
import { createTranscoder } from "./rest/index.ts";
import { setSecurityHeaders } from "./security-headers.ts";
import { dialectOf, dialectOfPath, transcodingError } from "./surfaces.ts";
import { versionSelection } from "./versions.ts";

/** How long calls in flight may take to finish when the server stops, in milliseconds. */
const drainMs = 10_000;

/** How often stored idempotency keys are looked through for old ones, in milliseconds. */
const pruneMs = 60 * 60 * 1000;

/** A running server. */
export interface Server {
  readonly url: string;
  readonly kernel: Kernel;
  /** The administrator's key, see openAdminKey. */
  readonly adminKey: string | undefined;
  /** The documents of the contract and the API explorer. */
  readonly documents: Documents;
  /** Stops taking calls, ends streams cleanly, lets calls in flight finish, and closes the store. */
  stop(): Promise<void>;
}

/** Opens the store, brings up every service, and listens. The load is measured unless given. */
export async function startServer(
  config: Config,
  log: Logger,
  load: Load = createLoad(config),
): Promise<Server> {
  const database = openDatabase(config);
  const peers = createPeers();
  const kernel = createKernel(database, peers, log);
  let url = "";

  const modules: ServiceModule[] = [
    createStreams(kernel),
    createJobs(kernel),
    createShares(kernel, () => url),
    createMeta(() => services),
    createBatch(kernel, (request, { info, ...how }) =>
      rest.perform(request, { ...how, ...performingAs(info) }),
    ),
  ];
  await migrate(database, [
    ...eventMigrations,
    ...replayMigrations,
    ...auditMigrations,
    ...identityMigrations,
    ...modules.flatMap((module) => module.migrations),
  ]);

  const services: DescService[] = [
    TokenService,
    ApiKeyService,
    TenantService,
    UserService,
    AuditLogService,
    ...modules.flatMap((module) => module.services.map(({ service }) => service)),
  ];
  const permissions = permissionsByRole(services.flatMap((service) => service.methods));
  const identity = await createIdentity(kernel, permissions, config);
  modules.unshift(identity.module);
  const adminKey = await openAdminKey(kernel, config);
  await demandIndexes(
    database,
    modules.flatMap((module) => module.lists ?? []),
  );

  redactor.hideFieldsOf(services);
  for (const secret of [adminKey, config.metrics.token]) redactor.hideValue(secret);
  const tracing = wantsTraces(config.otel)
    ? (await import("./observe/tracing.ts")).startTracing(config.otel, log)
    : undefined;
  const tallies = new Tallies();
  const observer = createObserver(tallies, [
    // First, so that the line of a call can name its trace.
    ...(tracing ? [tracing] : []),
    createAccessLog(log, config.accessLog),
  ]);
  const admission = createAdmission({ plans: config.plans, load, nowMs: kernel.nowMs });
  const gate = createGate({
    database,
    log,
    observer,
    authenticator: identity.authenticator,
    admission,
    standing: kernel.standing,
    usage: identity.usage,
  });
  const endpoints = modules.flatMap((module) =>
    module.services.flatMap((registration) => gate.bind(registration)),
  );
  peers.add(endpoints);

  const health = createHealth(services.map((service) => service.typeName));
  health.setServing(false);
  const reflection = createReflection(services);
  const callContexts = createCallContexts();
  const contextValues = (request: Request, route?: string) => callContexts(originOf(request), route);
  const stray = ({ socket }: { readonly socket?: unknown }) =>
    admission.stray((socket as Socket | undefined)?.remoteAddress ?? "");
  const connect = createConnectLane({
    endpoints,
    ungated: [
      serve(Health, health.impl),
      serve(ReflectionV1, reflection.v1),
      serve(ReflectionV1alpha, reflection.v1alpha),
    ],
    contextValues,
    observer,
    stray,
    log,
  });
  const rest = createTranscoder({
    endpoints,
    registry: createRegistry(...Object.values(errorDetails).filter(isMessageSchema)),
    dialect: dialectOf,
    unmatchedDialect: dialectOfPath,
    maxBodyBytes: maxMessageBytes,
    contextValues,
    stray,
    credentialQueryParameters: ["token", "access_token"],
    error: transcodingError,
    ...versionSelection,
    onDone: ({ error, method, req }) => {
      if (error) observer.refuse(refusalOf(req, "rest", error, method));
    },
  });

  let state: "starting" | "ok" | "draining" = "starting";
  const metrics = createMetricsPage(config.metrics, tallies, kernel.counts);
  const pages = createPages({
    ...createProbes({ server: () => state, database: databaseCheck(database) }),
    ...(metrics && { "/metrics": metrics }),
  });
  const cors = createCors({
    origins: config.corsOrigins,
    methods: [...services, Health, ReflectionV1, ReflectionV1alpha].flatMap(({ methods }) => methods),
    allow: (path) => pages.allow(path) ?? rest.allow(path),
  });
  const documents = createDocuments();
  const express = config.express
    ? createExpressLane({
        endpoints,
        contextValues: callContexts,
        refused: (error, { exchange, plan }) =>
          observer.refuse(
            refusalOf(exchange, protocolOf(exchange.headers["content-type"]), error, plan.method),
          ),
        headers: (request) =>
          collectHeaders((answer) => {
            setSecurityHeaders(request, answer, config.tls !== undefined);
            cors.mark(request, answer);
          }),
        log,
      })
    : undefined;

  async function handle(request: Request, response: Response): Promise<void> {
    if (
      express &&
      response instanceof ServerResponse &&
      express.request(request as IncomingMessage, response)
    )
      return;
    const path = request.url?.split("?", 1)[0] ?? "/";
    response.setHeader("x-request-id", requestIdOf(request));
    setSecurityHeaders(request, response, config.tls !== undefined);
    if (cors(path, request, response)) return;
    const page = pages.at(path);
    if (page) return page(request, response);
    if (connect(request, response)) return;
    if (documents.serve(request, response)) return;
    if (await rest.handle(request, response)) return;
    rest.notFound(request, response);
  }

  for (const module of modules) await module.start?.();
  const pruning = setInterval(() => {
    kernel
      .write(({ queries }) => pruneReplays(queries))
      .catch((err) => log.error({ err }, "old idempotency keys were not forgotten"));
  }, pruneMs);
  pruning.unref();

  const listener = await listen({
    host: config.host,
    port: config.port,
    handler: handle,
    ...(express && { onStream: express.stream }),
    ...(config.tls && { tls: config.tls }),
  }).catch(async (error) => {
    for (const module of modules) await module.stop?.();
    await database.close();
    throw error;
  });
  url = listener.url;
  state = "ok";
  health.setServing(true);

  return {
    url,
    kernel,
    adminKey,
    documents,
    async stop() {
      state = "draining";
      health.shutdown();
      kernel.topics.shutdown();
      load.stop?.();
      clearInterval(pruning);
      const stopping = modules.map((module) => module.stop?.());
      await listener.drain(drainMs);
      await Promise.all(stopping);
      await tracing?.shutdown();
      await database.close();
    },
  };
}

function openDatabase(config: Config): Database {
  return config.databaseUrl
    ? openPostgres(config.databaseUrl)
    : openSqlite(join(config.dataDir, "portolan.db"));
}

function createKernel(database: Database, peers: ReturnType<typeof createPeers>, log: Logger): Kernel {
  const nowMs = Date.now;
  const counts = createLiveCounts();
  const bus = createBus((err, event) => log.error({ err, event: event.type }, "a listener failed"));
  return {
    database,
    bus,
    topics: createTopics(createTicker(counts), nowMs, counts),
    counts,
    presence: createPresence(nowMs),
    standing: createStanding(),
    log,
    nowMs,
    nextSequence: createSequence(nowMs),
    peer: peers.peer,
    peerStream: peers.peerStream,
    ...createTransactions(database, bus),
  };
}

const isMessageSchema = (value: unknown): value is typeof errorDetails.ErrorInfoSchema =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "message";
