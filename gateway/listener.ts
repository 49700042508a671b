import http, { type IncomingMessage, ServerResponse } from "node:http";
import http2, {
  Http2ServerRequest,
  Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import net, { type AddressInfo, type Socket } from "node:net";
import type { Duplex } from "node:stream";

/** What to listen on and who answers. */
export interface ListenerOptions {
  host: string;
  /** 0 picks a free port. */
  port: number;
  /** Key and certificate in PEM; without them the port is cleartext. */
  tls?: { key: string | Buffer; cert: string | Buffer };
  /** Answers every request of either protocol; what it throws or rejects with ends in a 500. */
  handler: (
    req: IncomingMessage | Http2ServerRequest,
    res: ServerResponse | Http2ServerResponse,
  ) => void | Promise<void>;
  /**
   * Is offered every HTTP/2 stream first, as it is; what it declines goes to `handler`. Declining,
   * it must not have touched the stream.
   */
  onStream?: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean;
  /** Takes over HTTP/1.1 connections that ask for `Upgrade: websocket`; other upgrades are ignored. */
  onUpgrade?: (req: IncomingMessage, socket: Duplex, head: Buffer) => void;
  /** The most bytes of headers in one request; 16 KiB unless told. */
  maxHeaderBytes?: number;
}

/** An open port. */
export interface Listener {
  readonly url: string;
  readonly port: number;
  /**
   * Stops accepting, lets requests in flight end and closes their connections; what is left after
   * `graceMs` is destroyed. Resolves when every connection is closed.
   */
  drain(graceMs: number): Promise<void>;
}

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
/** How long a client may take to show its protocol: the TLS handshake or the first bytes. */
const OPENING_MS = 10_000;
const HEADERS_MS = 15_000;
/** How long a request with a Content-Length may fall silent before its end. */
const SILENT_BODY_MS = 60_000;
/** Above the 60 s for which load balancers reuse idle connections, so that they close first. */
const KEEP_ALIVE_MS = 65_000;
const IDLE_SESSION_MS = 300_000;
/** How long a client may go on reading the answer to malformed input. */
const LINGER_MS = 1_000;
const STREAM_WINDOW = 256 * 1024;
/** Bounds what all streams of a connection together may send unread. */
const SESSION_WINDOW = 1024 * 1024;

/** How many streams of a connection may be reset at once, and every second from then on. */
const RESET_BURST = 1000;
const RESETS_PER_SECOND = 100;

const ignore = (): void => {};

/** Opens one port for HTTP/1.1 and HTTP/2, in cleartext or over TLS. */
export async function listen(options: ListenerOptions): Promise<Listener> {
  const maxHeaderSize = options.maxHeaderBytes ?? 16 * 1024;
  const http1Options = {
    maxHeaderSize,
    headersTimeout: HEADERS_MS,
    // Streams have no end in time: slow clients are held by the other limits.
    requestTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: 5_000,
  };
  const http2Options = {
    settings: {
      maxConcurrentStreams: 1000,
      initialWindowSize: STREAM_WINDOW,
      maxHeaderListSize: maxHeaderSize,
    },
    maxSessionMemory: 32,
    // Behind `calm`, which tells the client why: many resets may arrive before it runs.
    streamResetBurst: 2 * RESET_BURST,
    streamResetRate: 2 * RESETS_PER_SECOND,
  };

  const sockets = new Set<Socket>();
  const undecided = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();
  const responses = new Map<Duplex, Set<ServerResponse>>();
  let drained: Promise<void> | undefined;

  async function onRequest(
    req: IncomingMessage | Http2ServerRequest,
    res: ServerResponse | Http2ServerResponse,
  ): Promise<void> {
    res.on("error", ignore);
    if (res instanceof ServerResponse) onHttp1(req.socket, res);
    else if (headerBytes(req.rawHeaders) > maxHeaderSize) {
      // Node holds a client to maxHeaderListSize only after it has acknowledged the settings.
      answer(res, 431, "MALFORMED_REQUEST", "the headers are too large");
      return;
    }
    try {
      await options.handler(req, res);
    } catch (error) {
      fail(res, error);
    }
  }

  /** Offers a stream to `onStream`; what it declines becomes a request as Node itself makes it. */
  function onHttp2(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    _flags: number,
    rawHeaders: string[],
  ): void {
    const small = headerBytes(rawHeaders) <= maxHeaderSize;
    if (small && options.onStream?.(stream, headers)) {
      stream.on("error", ignore);
      return;
    }
    const req = new Http2ServerRequest(stream, headers, {}, rawHeaders);
    const res = new Http2ServerResponse(stream);
    if (headers[":method"] === "CONNECT") return void res.writeHead(405).end();
    if (headers.expect === "100-continue") res.writeContinue();
    else if (headers.expect !== undefined) return void res.writeHead(417).end();
    void onRequest(req, res);
  }

  function onHttp1(socket: Socket, res: ServerResponse): void {
    const open = responses.get(socket) ?? new Set();
    responses.set(socket, open.add(res));
    if (drained) res.setHeader("connection", "close");
    if (res.req.headers["content-length"]) {
      socket.setTimeout(SILENT_BODY_MS);
      res.req.once("end", () => {
        if (!res.writableFinished) socket.setTimeout(0);
      });
    }
    res.once("close", () => {
      open.delete(res);
      if (open.size > 0) return;
      responses.delete(socket);
      if (drained) socket.destroySoon();
    });
  }

  function onSession(session: ServerHttp2Session): void {
    let streams = 0;
    const calm = allowance(RESET_BURST, RESETS_PER_SECOND);
    sessions.add(session);
    session.on("error", ignore);
    session.once("close", () => sessions.delete(session));
    session.on("stream", (stream) => {
      streams++;
      stream.once("close", () => {
        // Streams that are opened only to be reset cost more to serve than to ask for.
        if (isReset(stream) && !calm()) {
          session.goaway(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM);
          session.destroy();
        }
        // The reset of a stream does not count as activity: the time of idleness begins here.
        if (--streams === 0 && !session.destroyed) session.setTimeout(IDLE_SESSION_MS);
      });
    });
    session.setTimeout(IDLE_SESSION_MS);
    session.on("timeout", () => {
      if (streams === 0) session.destroy();
    });
    session.setLocalWindowSize(SESSION_WINDOW);
    if (drained) session.close();
  }

  function onUpgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", ignore);
    try {
      options.onUpgrade?.(req, socket, head);
    } catch (error) {
      process.emitWarning(error as Error);
      socket.destroy();
    }
  }

  function onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    if (socket.writableEnded) return;
    const begun = [...(responses.get(socket) ?? [])].some((res) => res.headersSent);
    if (!socket.writable || begun || error.code === "ECONNRESET") {
      socket.destroy();
      return;
    }
    socket.end(malformed(error));
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  }

  function serve(server: http.Server | http2.Http2SecureServer): void {
    server.on("request", onRequest);
    server.on("clientError", onClientError);
    if (!options.onUpgrade) return;
    server.on("upgrade", onUpgrade);
    // Some clients offer "Upgrade: h2c" with every request: it has to stay a request.
    Object.assign(server, {
      shouldUpgradeCallback: (req: IncomingMessage) => req.headers.upgrade?.toLowerCase() === "websocket",
    });
  }

  function secure(tls: { key: string | Buffer; cert: string | Buffer }) {
    const server = http2.createSecureServer({
      ...http2Options,
      ...tls,
      allowHTTP1: true,
      ALPNProtocols: ["h2", "http/1.1"],
      handshakeTimeout: OPENING_MS,
      http1Options,
    });
    serve(server);
    // Since somebody listens for requests, Node would make them of HTTP/2 streams, too.
    server.removeAllListeners("stream");
    server.on("stream", onHttp2);
    server.on("session", onSession);
    server.on("secureConnection", (socket) => socket.on("error", ignore));
    return { server, stop: ignore };
  }

  function cleartext() {
    const http1Server = http.createServer(http1Options);
    const http2Server = http2.createServer(http2Options);
    http2Server.on("stream", onHttp2);
    serve(http1Server);
    http2Server.on("session", onSession);
    // Node watches the headers' timeout from this event on, which a server that is only handed
    // its connections would never see.
    http1Server.emit("listening");
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      undecided.add(socket);
      socket.once("close", () => undecided.delete(socket));
      peek(socket, (isHttp2) => {
        undecided.delete(socket);
        // An HTTP/2 session ends with its peer's half; HTTP/1 clients may close theirs and wait.
        if (isHttp2) socket.allowHalfOpen = false;
        (isHttp2 ? http2Server : http1Server).emit("connection", socket);
      });
    });
    return { server, stop: () => void http1Server.close() };
  }

  const { server, stop } = options.tls ? secure(options.tls) : cleartext();
  server.prependListener("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", ignore);
    socket.setNoDelay(true);
  });

  function drain(graceMs: number): Promise<void> {
    drained ??= new Promise((resolve) => {
      const timer = setTimeout(() => {
        for (const session of sessions) session.destroy();
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      server.close(() => {
        clearTimeout(timer);
        resolve();
      });
      stop();
      for (const socket of undecided) socket.destroy();
      for (const session of sessions) session.close();
      for (const res of [...responses.values()].flatMap((open) => [...open])) {
        if (!res.headersSent) res.setHeader("connection", "close");
      }
    });
    return drained;
  }

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.host, () => {
      server.off("error", reject);
      server.on("error", (error) => process.emitWarning(error));
      resolve();
    });
  });
  const { port } = server.address() as AddressInfo;
  const authority = `${urlHost(options.host)}:${port}`;
  return { url: `${options.tls ? "https" : "http"}://${authority}`, port, drain };
}

/** Whether a stream did not end as it should, and not by our own fault. */
function isReset({ rstCode = 0 }: ServerHttp2Stream): boolean {
  return rstCode !== http2.constants.NGHTTP2_NO_ERROR && rstCode !== http2.constants.NGHTTP2_INTERNAL_ERROR;
}

/** Tells whether one more is allowed: so many at once, and so many a second from then on. */
function allowance(burst: number, perSecond: number): () => boolean {
  let left = burst;
  let lastMs = performance.now();
  return () => {
    const nowMs = performance.now();
    left = Math.min(burst, left + ((nowMs - lastMs) / 1000) * perSecond) - 1;
    lastMs = nowMs;
    return left >= 0;
  };
}

/** Finds out whether a connection begins with the HTTP/2 preface, without consuming what it sent. */
function peek(socket: Socket, decide: (isHttp2: boolean) => void): void {
  let head: Buffer = Buffer.alloc(0);
  const giveUp = () => socket.destroy();
  const timer = setTimeout(giveUp, OPENING_MS);
  const onData = (chunk: Buffer): void => {
    head = head.length > 0 ? Buffer.concat([head, chunk]) : chunk;
    const length = Math.min(head.length, PREFACE.length);
    const matches = head.compare(PREFACE, 0, length, 0, length) === 0;
    if (matches && length < PREFACE.length) return;
    clearTimeout(timer);
    socket.off("data", onData);
    socket.off("end", giveUp);
    socket.pause();
    socket.unshift(head);
    decide(matches);
    if (!matches) socket.resume();
  };
  socket.on("data", onData);
  socket.once("end", giveUp);
  socket.once("close", () => clearTimeout(timer));
}

/** The answer to bytes that are no request. */
function malformed({ code }: NodeJS.ErrnoException): string {
  if (code === "HPE_HEADER_OVERFLOW") return rawAnswer(431, "the headers are too large");
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return rawAnswer(408, "the headers did not arrive in time");
  return rawAnswer(400, "this is not a valid HTTP request");
}

function rawAnswer(status: number, message: string): string {
  const body = errorBody("MALFORMED_REQUEST", message);
  return [
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}`,
    "Connection: close",
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "",
    body,
  ].join("\r\n");
}

function errorBody(error: string, message: string): string {
  return JSON.stringify({ error, message });
}

/** Answers for a handler that threw. */
function fail(res: ServerResponse | Http2ServerResponse, error: unknown): void {
  // Requests carry their own host and path, which may be missing or form no URL.
  const { headers } = res.req;
  const malformedUrl =
    (!headers.host && !headers[":authority"]) ||
    (error instanceof TypeError && "code" in error && error.code === "ERR_INVALID_URL");
  if (!malformedUrl) process.emitWarning(error instanceof Error ? error : String(error));
  if (res.headersSent) {
    if (res instanceof ServerResponse) res.destroy();
    else res.stream?.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    return;
  }
  if (malformedUrl) answer(res, 400, "MALFORMED_REQUEST", "host and path are not a URL");
  else answer(res, 500, "INTERNAL", "the request could not be handled");
}

function answer(
  res: ServerResponse | Http2ServerResponse,
  status: number,
  error: string,
  message: string,
): void {
  res.statusCode = status;
  res.setHeader("content-type", "application/json");
  res.end(errorBody(error, message));
}

/** The size of a header list as HTTP/2 counts it. */
function headerBytes(list: string[]): number {
  return list.reduce((sum, one) => sum + one.length + 16, 0);
}

/** A host as written in a URL; an address that stands for all interfaces is reached as localhost. */
function urlHost(host: string): string {
  if (host === "" || host === "0.0.0.0" || host === "::") return "localhost";
  return net.isIPv6(host) ? `[${host}]` : host;
}
