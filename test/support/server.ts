import type { DescService } from "@bufbuild/protobuf";
import { type Client, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import pino from "pino";
import { expect } from "vitest";
import { type Server, startServer } from "#gateway/server.ts";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import type { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { readConfig } from "#kernel/config.ts";
import { type Reason, reasonOf } from "#kernel/errors.ts";
import type { TestDatabase } from "./databases.ts";

/** A server on a port of its own, and clients that call it over the network. */
export interface TestServer {
  readonly url: string;
  readonly server: Server;
  /** Secret of the first administrator. */
  readonly admin: string;
  /** A client with an API key as its credential, or without one. */
  client<S extends DescService>(service: S, apiKey?: string, headers?: Record<string, string>): Client<S>;
  /** Makes an API key and gives its id and secret. */
  newKey(role: Role, options?: { tenantId?: string; by?: string }): Promise<{ id: string; secret: string }>;
  /** Registers a device group with a fresh id and gives the id. */
  newGroup(apiKey?: string, devices?: string[]): Promise<string>;
  /** A REST call with a JSON body. */
  rest(method: string, path: string, options?: RestOptions): Promise<RestAnswer>;
  stop(): Promise<void>;
}

export interface RestOptions {
  readonly apiKey?: string;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
}

export interface RestAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests read what they sent
  readonly json: any;
}

/** Starts the whole server on the database: with gRPC clients on SQLite, with Connect clients on PostgreSQL. */
export async function startTestServer(database: TestDatabase): Promise<TestServer> {
  const server = await startServer(
    readConfig({
      PORT: "0",
      PORTOLAN_DATA_DIR: database.folder,
      PORTOLAN_DATABASE_URL: database.url,
      PORTOLAN_SANDBOX: "off",
      PORTOLAN_LOG_LEVEL: "silent",
    }),
    pino({ level: "silent" }),
  );
  const { url } = server;
  const admin = server.adminKey as string;
  const sessions: Http2SessionManager[] = [];
  let groups = 0;

  const client: TestServer["client"] = (service, apiKey, headers = {}) => {
    const sessionManager = new Http2SessionManager(url);
    sessions.push(sessionManager);
    const credentials: Interceptor = (next) => (request) => {
      if (apiKey) request.header.set("x-api-key", apiKey);
      for (const [name, value] of Object.entries(headers)) request.header.set(name, value);
      return next(request);
    };
    const options = { baseUrl: url, interceptors: [credentials], sessionManager };
    return createClient(
      service,
      database.engine === "sqlite"
        ? createGrpcTransport(options)
        : createConnectTransport({ ...options, httpVersion: "2" }),
    );
  };

  return {
    url,
    server,
    admin,
    client,
    async newKey(role, { tenantId = "", by = admin } = {}) {
      const { apiKey, secret } = await client(ApiKeyService, by).createApiKey({
        name: "test",
        role,
        tenantId,
        plan: "unlimited",
      });
      return { id: apiKey?.id ?? "", secret };
    },
    async newGroup(apiKey = admin, devices = []) {
      const deviceGroupId = `dock-${groups++}`;
      const request = { deviceGroupId, name: "Dock", devices: devices.map((deviceId) => ({ deviceId })) };
      await client(ResourceService, apiKey).registerResource(request);
      return deviceGroupId;
    },
    async rest(method, path, { apiKey = admin, headers = {}, body } = {}) {
      const answer = await fetch(url + path, {
        method,
        headers: { "content-type": "application/json", ...(apiKey && { "x-api-key": apiKey }), ...headers },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      return {
        status: answer.status,
        headers: answer.headers,
        text,
        json: text ? JSON.parse(text) : undefined,
      };
    },
    async stop() {
      await server.stop();
      for (const session of sessions) session.abort();
    },
  };
}

/** Expects a call, or a stream, to fail with a reason of ours. */
export async function expectReason(
  call: Promise<unknown> | AsyncIterable<unknown>,
  reason: Reason,
): Promise<ConnectError> {
  try {
    if (Symbol.asyncIterator in call) for await (const _ of call);
    else await call;
  } catch (error) {
    const failure = ConnectError.from(error);
    expect(reasonOf(failure) ?? failure).toBe(reason);
    return failure;
  }
  throw new Error(`the call succeeded instead of failing with ${reason}`);
}

/** Reads a stream message by message. */
export function reader<T>(stream: AsyncIterable<T>) {
  const iterator = stream[Symbol.asyncIterator]();
  return {
    /** The next message; undefined at the end. */
    async next(): Promise<T | undefined> {
      const { done, value } = await iterator.next();
      return done ? undefined : value;
    },
    /** Reads on until a message is as wanted. */
    async until(wanted: (message: T) => boolean): Promise<T> {
      for (let { done, value } = await iterator.next(); !done; { done, value } = await iterator.next()) {
        if (wanted(value)) return value;
      }
      throw new Error("the stream ended before the message came");
    },
    /** What is left, to the end. */
    async rest(): Promise<T[]> {
      const messages: T[] = [];
      for (let { done, value } = await iterator.next(); !done; { done, value } = await iterator.next()) {
        messages.push(value);
      }
      return messages;
    },
    stop: () => iterator.return?.(),
  };
}
