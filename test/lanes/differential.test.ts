import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { reasons } from "#kernel/errors.ts";
import { frame } from "../support/lanes.ts";
import {
  type Call,
  createWireClient,
  requestOf,
  type Wire,
  type WireAnswer,
  wires,
} from "../support/raw-wire.ts";
import { type Probe, startProbe } from "./testdata/probe.ts";

/** A call that must come back the same from the express lanes as from the Connect library. */
interface Case extends Call {
  readonly name: string;
  /** On which wires it makes sense. */
  readonly on?: (wire: Wire) => boolean;
  /** Left to the Connect lane by design, on these wires. */
  readonly declined?: boolean | ((wire: Wire) => boolean);
}

const large = 5000;
const limit = 4 * 1024 * 1024;
const enveloped = (wire: Wire) => wire.enveloped;
/** Megabytes are sent once for each way of reading them. */
const huge = (wire: Wire) =>
  ["gRPC proto", "gRPC-Web json, HTTP/1", "Connect proto, HTTP/2", "Connect json, HTTP/1"].includes(
    wire.name,
  );
const hasBody = (wire: Wire) => !wire.get;
const flip = (flags: number) => (bytes: Buffer) => {
  const copy = Buffer.from(bytes);
  copy[0] = flags;
  return copy;
};

const headers = { "x-plain": "value", "x-data-bin": "AAEC/w==", "X-Mixed-Case": "  spaces around " };
const trailers = { "x-trailer": "at the end", "x-trailer-bin": "AQID" };

const oneOfEachCode = [...new Map([...reasons].map(([reason, { code }]) => [code, reason])).values()];

/** A few cases of what is left to Connect anyway. */
const leftToConnect: readonly Case[] = [
  { name: "an order", orders: [{ text: "hello" }], declined: true },
  { name: "two orders", orders: [{ text: "one" }, { text: "two" }], declined: true },
  { name: "a failure", orders: [{ fail: "DETAILED" }], declined: true },
];

/** What does not depend on the kind of RPC. */
const common: readonly Case[] = [
  {
    name: "an order",
    orders: [{ text: "hello", number: 9007199254740993n, blob: new Uint8Array([0, 255]) }],
  },
  { name: "an empty order", orders: [{}] },
  { name: "text outside ASCII", orders: [{ text: "Zürich, 東京 🚁" }] },
  { name: "a large order", orders: [{ text: "y".repeat(200_000) }], on: hasBody },
  { name: "a large answer", orders: [{ size: 300_000 }] },
  { name: "the largest order but one byte", orders: [{ text: "y".repeat(limit - 100) }], on: huge },
  { name: "an order above the limit", orders: [{ text: "y".repeat(limit + 1) }], on: huge },
  { name: "an answer above the limit", orders: [{ size: limit + 1 }], on: huge },
  {
    name: "headers and trailers of the handler",
    orders: [{ text: "hello", header: headers, trailer: trailers }],
  },
  { name: "headers that come twice", orders: [{ header: { "set-cookie": "a=1", "x-request-id": "other" } }] },
  { name: "a header that handlers replace", orders: [{ header: { "cache-control": "no-store" } }] },
  {
    name: "trailers above what is worth compressing",
    orders: [{ trailer: { "x-long": "z".repeat(large) } }],
    accept: "gzip",
  },
  { name: "a header that is not allowed", orders: [{ header: { "bad name": "value" } }] },
  {
    name: "request headers, binary ones too",
    orders: [{ ask: ["x-mine", "x-mine-bin", "X-Upper", "cookie", "x-none", "x-request-id"] }],
    headers: { "x-mine": "a, b", "x-mine-bin": "AAEC", "x-upper": "CASE", cookie: "a=1; b=2" },
  },
  ...["gzip", "br"].flatMap((coding): Case[] => [
    { name: `an order in ${coding}`, orders: [{ text: "y".repeat(large) }], coding, accept: "identity" },
    { name: `an order in ${coding}, answered alike`, orders: [{ text: "y".repeat(large) }], coding },
    { name: `a small order in ${coding}`, orders: [{ text: "y" }], coding },
    { name: `an answer in ${coding}`, orders: [{ size: large }], accept: coding },
    { name: `a small answer to who accepts ${coding}`, orders: [{ size: 10 }], accept: coding },
    { name: `a failure to who accepts ${coding}`, orders: [{ fail: "DETAILED" }], accept: coding },
    { name: `${coding} that does not unpack`, orders: [{ text: "y".repeat(large) }], coding, body: spoil },
    { name: `${coding} that is cut`, orders: [{ text: "y".repeat(large) }], coding, body: cut },
    {
      name: `${coding} that unpacks to more than the limit`,
      orders: [{ text: "y".repeat(limit + 1) }],
      coding,
    },
    { name: `a malformed order in ${coding}`, orders: [{}], message: () => Buffer.from("{\u000f"), coding },
  ]),
  { name: "a coding that does not exist", coding: "zip", orders: [{ text: "y" }] },
  { name: "a coding with a new name for none", coding: "identity", orders: [{ text: "y" }] },
  { name: "accepted codings in a row", orders: [{ size: large }], accept: "identity, deflate,br , gzip" },
  { name: "accepted codings of which none exists", orders: [{ size: large }], accept: "deflate, zstd" },
  { name: "no accepted coding", orders: [{ size: large }], accept: "" },
  { name: "bytes that are no message", orders: [{}], message: () => Buffer.from("{\u000f") },
  { name: "a message that is cut", orders: [{ text: "hello" }], message: (bytes) => bytes.subarray(0, -1) },
  { name: "a message of nothing", orders: [{}], message: () => Buffer.alloc(0) },
  {
    name: "an unknown field",
    message: (_, binary) => (binary ? Buffer.from([0xa2, 6, 1, 65]) : Buffer.from('{"colour":"red"}')),
  },
  {
    name: "a value of the wrong type",
    message: (_, binary) => (binary ? Buffer.from([0x08, 1]) : Buffer.from('{"count":"many"}')),
  },
  { name: "JSON that is no object", message: () => Buffer.from("[1]") },
  { name: "a deadline that is kept", orders: [{ text: "in time" }], timeout: 60_000 },
  { name: "a deadline that passes", orders: [{ wait: true }], timeout: 20 },
  { name: "a deadline that has passed", orders: [{ wait: true }], timeout: 0 },
  { name: "a deadline that is no time", orders: [{ text: "y" }], timeout: "soon" },
  { name: "a deadline that is negative", orders: [{ text: "y" }], timeout: "-5" },
  { name: "a deadline too far away", orders: [{ text: "y" }], timeout: 90_000_000 },
  { name: "a deadline in another unit", orders: [{ text: "y" }], timeout: "100S" },
  { name: "a failure with details", orders: [{ fail: "DETAILED" }] },
  { name: "a failure with metadata", orders: [{ fail: "METADATA", trailer: trailers }] },
  {
    name: "a failure after headers and trailers",
    orders: [{ fail: "JOB_NOT_FOUND", header: headers, trailer: trailers }],
  },
  { name: "a defect", orders: [{ fail: "BROKEN" }] },
  { name: "a method that does not exist", method: "Nothing", declined: true },
  { name: "a content type that does not exist", type: "text/plain", declined: true, on: hasBody },
  {
    name: "a content type in capitals",
    type: (type) => type.toUpperCase(),
    orders: [{ text: "y" }],
    on: hasBody,
  },
  {
    name: "a content type with a charset",
    type: (type) => `${type}; charset=utf-8`,
    on: hasBody,
    declined: odd,
  },
  {
    name: "a content type with something else",
    type: (type) => `${type}; boundary=x`,
    on: hasBody,
    declined: true,
  },
  { name: "no content type", type: "", on: hasBody, declined: true },
  { name: "PUT", verb: "PUT", declined: true },
  { name: "DELETE", verb: "DELETE", declined: true },
  { name: "a query on a POST", path: (path) => `${path}?x=1`, on: hasBody },
  { name: "a trailing slash", method: "Echo/", declined: true },
  ...oneOfEachCode.map((reason): Case => ({ name: `the failure ${reason}`, orders: [{ fail: reason }] })),
];

const framing: readonly Case[] = (
  [
    { name: "no envelope", body: () => Buffer.alloc(0) },
    { name: "two messages", orders: [{ text: "one" }, { text: "two" }] },
    { name: "two messages, the second malformed", body: (bytes) => Buffer.concat([bytes, frame("{\u000f")]) },
    { name: "a message and a cut one", body: (bytes) => Buffer.concat([bytes, frame("xyz").subarray(0, 6)]) },
    { name: "half an envelope", orders: [{ text: "hello" }], body: (bytes) => bytes.subarray(0, -2) },
    { name: "half the head of an envelope", body: (bytes) => bytes.subarray(0, 3) },
    { name: "an envelope that announces 4 GiB", body: () => Buffer.from([0, 255, 255, 255, 255, 0]) },
    { name: "a flag that means nothing", orders: [{ text: "x" }], body: flip(0x40) },
    { name: "a message marked compressed, without a coding", orders: [{ text: "x" }], body: flip(1) },
    { name: "a message marked as the end of a Connect stream", orders: [{ text: "x" }], body: flip(2) },
    { name: "a message marked as the trailers of gRPC-Web", orders: [{ text: "x" }], body: flip(0x80) },
    { name: "trailers after the message", body: (bytes) => Buffer.concat([bytes, frame("x: y\r\n", 0x80)]) },
    {
      name: "the end of a Connect stream after the message",
      body: (bytes) => Buffer.concat([bytes, frame("{}", 2)]),
    },
    { name: "two compressed messages", orders: [{ text: "y".repeat(large) }, { text: "z" }], coding: "gzip" },
    { name: "an uncompressed message although there is a coding", coding: "gzip", body: () => frame("") },
  ] satisfies Case[]
).map((one: Case) => ({ ...one, on: enveloped }));

const streaming: readonly Case[] = [
  { name: "ten messages", orders: [{ text: "tick", count: 10 }] },
  { name: "many messages", orders: [{ text: "tick", count: 500, size: 500 }] },
  { name: "messages worth compressing", orders: [{ size: large, count: 5 }], accept: "gzip" },
  { name: "more than fits a window", orders: [{ size: 100_000, count: 20 }] },
  { name: "a failure after three messages", orders: [{ count: 5, fail: "JOB_NOT_FOUND", failAfter: 3 }] },
  {
    name: "a failure at the very end",
    orders: [{ count: 2, fail: "DETAILED", failAfter: 2, trailer: trailers }],
  },
  { name: "a defect after a message", orders: [{ count: 2, fail: "BROKEN", failAfter: 1 }] },
  { name: "a stream within its deadline", orders: [{ count: 3 }], timeout: 60_000 },
];

const queries: readonly Case[] = (
  [
    { name: "an unknown parameter", query: (query) => query.set("extra", "1"), declined: true },
    { name: "a parameter given twice", query: (query) => query.append("message", "x"), declined: true },
    { name: "no encoding", query: (query) => query.delete("encoding"), declined: true },
    {
      name: "an encoding that does not exist",
      query: (query) => query.set("encoding", "xml"),
      declined: true,
    },
    { name: "no message", query: (query) => query.delete("message") },
    { name: "no version", query: (query) => query.delete("connect") },
    { name: "another version", query: (query) => query.set("connect", "v2") },
    { name: "Base64 that is none", query: noBase64, declined: true },
    { name: "a Base64 marker that is not 1", query: (query) => query.set("base64", "true") },
    { name: "a method with side effects", method: "Change", declined: true },
    { name: "a stream", method: "Watch", declined: true },
    { name: "HEAD", verb: "HEAD", declined: true },
    { name: "a content type", type: "application/json", declined: true },
  ] satisfies Case[]
).map((one: Case) => ({ ...one, on: (wire: Wire) => wire.get === true }));

function noBase64(query: URLSearchParams): void {
  query.set("base64", "1");
  query.set("message", "!!!");
}

function spoil(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  for (let i = Math.min(8, copy.length - 1); i < copy.length; i++) copy[i] = 0x55;
  return copy;
}

function cut(bytes: Buffer): Buffer {
  // The envelope, if there is one, announces what has come.
  if (bytes[0] === 1) return frame(bytes.subarray(5, -6), 1);
  return bytes.subarray(0, -6);
}

function odd(wire: Wire): boolean {
  return wire.type !== "application/json";
}

let marks = 0;
let express: Probe;
let reference: Probe;
let clients: { express: ReturnType<typeof createWireClient>; reference: ReturnType<typeof createWireClient> };

beforeAll(async () => {
  [express, reference] = await Promise.all([startProbe(true), startProbe(false)]);
  clients = {
    express: createWireClient(express.listener),
    reference: createWireClient(reference.listener),
  };
});

afterAll(async () => {
  clients?.express.close();
  clients?.reference.close();
  await Promise.all([express?.listener.drain(0), reference?.listener.drain(0)]);
});

/** What has to be the same; a body is shown as text, byte by byte. */
function essence({ status, headers: all, body, trailers: last, reset }: WireAnswer) {
  const {
    date: _date,
    connection: _connection,
    "keep-alive": _keepAlive,
    "transfer-encoding": _transfer,
    "content-length": length,
    ...rest
  } = all;
  if (length !== undefined) expect(Number(length)).toBe(body.length);
  const shown = body.length > 20_000 ? [body.length, hash(body)] : body.toString("latin1");
  return { status, headers: rest, body: shown, trailers: last, reset };
}

const hash = (bytes: Buffer) => bytes.reduce((sum, byte) => (sum * 31 + byte) | 0, 7);

describe.concurrent.each(wires)("$name", (wire) => {
  const table = wire.kinds.flatMap((kind) => {
    const hot = [...common, ...framing, ...queries, ...(kind === "Watch" ? streaming : [])];
    const cases = kind === "Echo" || kind === "Watch" ? hot : leftToConnect;
    return cases.filter(({ on }) => on?.(wire) ?? true).map((one) => ({ kind, ...one }));
  });

  it.each(table)("$kind: $name", async (one) => {
    const mark = `case-${marks++}`;
    const request = await requestOf(wire, { ...one, headers: { "x-case": mark, ...one.headers } });
    const [theirs, ours] = await Promise.all([
      clients.reference.send(request),
      clients.express.send(request),
    ]);
    expect(theirs.status).not.toBe(0);
    expect(essence(ours)).toEqual(essence(theirs));
    const declined = typeof one.declined === "function" ? one.declined(wire) : (one.declined ?? false);
    expect(express.taken.has(mark)).toBe(!declined);
  });
});
