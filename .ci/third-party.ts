/**
 * Fills `.third-party/`, a buf module of its own, with the contracts that ours import. They come
 * from packages that the lockfile pins, so that `buf` works offline and nothing foreign is
 * committed: google/api and google/rpc from google-gax, grpc/* from the gRPC project's packages,
 * and buf/validate printed from the descriptor inside @bufbuild/protovalidate.
 */
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { file_buf_validate_validate } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { printProto } from "./print-proto.ts";

const out = ".third-party";
const gax = "node_modules/google-gax/build/protos";
const reflection = "node_modules/@grpc/reflection/build/proto";

const copies: Record<string, string> = {
  "google/api/annotations.proto": gax,
  "google/api/http.proto": gax,
  "google/api/httpbody.proto": gax,
  "google/api/field_behavior.proto": gax,
  "google/rpc/code.proto": gax,
  "google/rpc/status.proto": gax,
  "google/rpc/error_details.proto": gax,
  "grpc/reflection/v1/reflection.proto": reflection,
  "grpc/reflection/v1alpha/reflection.proto": reflection,
};

rmSync(out, { recursive: true, force: true });
for (const [path, from] of Object.entries(copies)) place(path, join(from, path));
place("grpc/health/v1/health.proto", "node_modules/grpc-health-check/proto/health/v1/health.proto");

const validate = join(out, "buf/validate/validate.proto");
mkdirSync(dirname(validate), { recursive: true });
writeFileSync(validate, printProto(file_buf_validate_validate));

function place(path: string, source: string): void {
  const target = join(out, path);
  mkdirSync(dirname(target), { recursive: true });
  cpSync(source, target);
}
