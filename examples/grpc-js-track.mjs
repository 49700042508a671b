// Follows a job, device group, device or share with plain @grpc/grpc-js: a client made by hand, with
// the message descriptors of gen/ to encode and decode.
//   node examples/grpc-js-track.mjs --job ID | --resource ID [--url URL] [--key KEY] [--insecure]
import { parseArgs } from "node:util";
import { create, fromBinary, toBinary, toJsonString } from "@bufbuild/protobuf";
import grpc from "@grpc/grpc-js";
import { TrackKind } from "#gen/portolan/common/v1/track_pb.js";
import { TrackRequestSchema, TrackService } from "#gen/portolan/streams/v1/track_service_pb.js";

const { values } = parseArgs({
  options: {
    job: { type: "string" },
    resource: { type: "string", default: "sandbox-dock-1" },
    url: { type: "string", default: "http://127.0.0.1:8080" },
    key: { type: "string", default: process.env.PORTOLAN_API_KEY ?? "" },
    // Takes a TLS certificate that nobody has signed.
    insecure: { type: "boolean", default: false },
  },
});
const resourceId = values.job ?? values.resource;
const url = new URL(values.url);
const address = `${url.hostname}:${url.port || (url.protocol === "https:" ? 443 : 80)}`;
const credentials =
  url.protocol === "https:"
    ? grpc.credentials.createSsl(null, null, null, { rejectUnauthorized: !values.insecure })
    : grpc.credentials.createInsecure();

/** A grpc-js service definition from a generated descriptor. */
function definitionOf(service) {
  const entries = service.methods.map((method) => [
    method.localName,
    {
      path: `/${service.typeName}/${method.name}`,
      requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
      responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
      requestSerialize: (message) => Buffer.from(toBinary(method.input, message)),
      requestDeserialize: (bytes) => fromBinary(method.input, bytes),
      responseSerialize: (message) => Buffer.from(toBinary(method.output, message)),
      responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    },
  ]);
  return Object.fromEntries(entries);
}

const TrackClient = grpc.makeGenericClientConstructor(definitionOf(TrackService), "TrackService");
// TLS knows servers by name and not by address, which does not matter when nothing is verified.
const options = values.insecure ? { "grpc.ssl_target_name_override": "localhost" } : {};
const client = new TrackClient(address, credentials, options);
const metadata = new grpc.Metadata();
metadata.set("x-api-key", values.key);

const call = client.track(create(TrackRequestSchema, { resourceId }), metadata);
process.once("SIGINT", () => call.cancel());
call.on("data", (update) => {
  console.log(TrackKind[update.kind], toJsonString(TrackService.method.track.output, update));
});
call.on("error", (error) => {
  if (error.code !== grpc.status.CANCELLED) {
    console.error(`${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
  }
  client.close();
});
call.on("end", () => client.close());
