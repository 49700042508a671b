import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ErrorInfoSchema, RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "#gen/google/rpc/status_pb.js";
import { JobState, TrackKind } from "#gen/portolan/common/v1/track_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { type Device, flying, startDevice } from "../support/device.ts";
import { adminKey, startTestServer, type TestServer, until } from "../support/gateway.ts";

const dock = "grpcjs-dock";

/** A method in the form that grpc-js wants. */
function plain<I extends DescMessage, O extends DescMessage>(method: DescMethod & { input: I; output: O }) {
  return [
    `/${method.parent.typeName}/${method.name}`,
    (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
    (bytes: Buffer) => fromBinary(method.output, bytes),
  ] as const;
}

describe("a plain grpc-js client", () => {
  let server: TestServer;
  let device: Device;
  let client: Client;

  beforeAll(async () => {
    server = await startTestServer();
    device = await startDevice(server.grpc(), dock);
    client = new Client(new URL(server.url).host, credentials.createInsecure());
  });

  afterAll(async () => {
    client?.close();
    await device?.stop();
    await server?.stop();
  });

  const metadata = (extra: Record<string, string> = {}): Metadata =>
    Metadata.fromHttp2Headers({ "x-api-key": adminKey, ...extra });

  function unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    request: MessageShape<I>,
    headers: Metadata = metadata(),
  ): Promise<{ response: MessageShape<O>; initial: Metadata; trailer: StatusObject }> {
    return new Promise((resolve, reject) => {
      let response: MessageShape<O> | undefined;
      let initial = new Metadata();
      const call = client.makeUnaryRequest(...plain(method), request, headers, {}, (error, answer) => {
        if (error) reject(error);
        else response = answer;
      });
      call.on("metadata", (received) => {
        initial = received;
      });
      call.on("status", (trailer) => {
        if (response) resolve({ response, initial, trailer });
      });
    });
  }

  function open<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    request: MessageShape<I>,
    options: { deadline?: Date } = {},
  ) {
    const stream = client.makeServerStreamRequest(...plain(method), request, metadata(), options);
    const ended = new Promise<StatusObject>((resolve) => stream.once("status", resolve));
    stream.on("error", () => {}); // told by the status as well
    return { stream: stream as ClientReadableStream<MessageShape<O>>, ended };
  }

  const createJob = async (): Promise<string> => {
    const request = create(JobService.method.createJob.input, { name: "Survey", deviceGroupId: dock });
    const { response } = await unary(JobService.method.createJob, request);
    return response.job?.jobId ?? "";
  };

  const track = (jobId: string, options?: { deadline: Date }) =>
    open(JobService.method.trackJob, create(JobService.method.trackJob.input, { jobId }), options);

  it("calls a unary RPC and gets metadata and the status", async () => {
    const request = create(JobService.method.listJobs.input, { limit: 1 });
    const { response, initial, trailer } = await unary(
      JobService.method.listJobs,
      request,
      metadata({ "x-request-id": "grpc-js-1" }),
    );
    expect(response.count).toBe(response.jobs.length);
    expect(initial.get("x-request-id")).toEqual(["grpc-js-1"]);
    expect(trailer.code).toBe(status.OK);
  });

  it("reads error details from grpc-status-details-bin", async () => {
    const request = create(JobService.method.getJob.input, { jobId: "job-none" });
    const error: ServiceError = await unary(
      JobService.method.getJob,
      request,
      metadata({ "x-request-id": "grpc-js-2" }),
    ).then(
      () => expect.unreachable(),
      (reason) => reason,
    );
    expect(error.code).toBe(status.NOT_FOUND);
    expect(error.details).toBe("Job not found");
    const [bytes] = error.metadata.get("grpc-status-details-bin");
    const { code, message, details } = fromBinary(StatusSchema, bytes as Buffer);
    expect([code, message]).toEqual([status.NOT_FOUND, "Job not found"]);
    const [info, requestInfo] = details;
    expect(info?.typeUrl).toBe("type.googleapis.com/google.rpc.ErrorInfo");
    expect(fromBinary(ErrorInfoSchema, info?.value as Uint8Array)).toMatchObject({
      reason: "JOB_NOT_FOUND",
      domain: "portolan",
    });
    expect(fromBinary(RequestInfoSchema, requestInfo?.value as Uint8Array).requestId).toBe("grpc-js-2");
  });

  it("follows a job to its end", async () => {
    const jobId = await createJob();
    const { stream, ended } = track(jobId);
    const updates: MessageShape<typeof JobService.method.trackJob.output>[] = [];
    stream.on("data", (update) => updates.push(update));
    await device.launch(jobId);
    await device.publish(flying(dock, jobId, [14.5, 46, 310]));
    await until(() => updates.some(({ navigation }) => navigation));
    await device.report(jobId, JobState.COMPLETED);
    expect((await ended).code).toBe(status.OK);
    expect(updates[0]?.subject).toBe(jobId);
    expect(updates.at(-1)).toMatchObject({
      kind: TrackKind.FINAL,
      jobState: JobState.COMPLETED,
      progress: 100,
    });
    expect(updates.filter(({ kind }) => kind === TrackKind.FINAL)).toHaveLength(1);
    const sequences = updates.map(({ sequence }) => sequence);
    expect(sequences).toEqual([...new Set(sequences)].sort((a, b) => (a < b ? -1 : 1)));
  });

  it("publishes telemetry in a client stream, which is recorded when the answer comes", async () => {
    const { publishTelemetry, listSamples } = TelemetryService.method;
    const answer = await new Promise<MessageShape<typeof publishTelemetry.output>>((resolve, reject) => {
      const call = client.makeClientStreamRequest(
        ...plain(publishTelemetry),
        metadata(),
        {},
        (error, response) => (error ? reject(error) : resolve(response as never)),
      );
      for (const altitude of [301, 302, 303]) {
        const sample = flying(dock, "", [14.5, 46, altitude]);
        call.write(create(publishTelemetry.input, { deviceGroupId: dock, sample }));
      }
      call.end();
    });
    expect(answer.accepted).toBe(3n);
    const request = create(listSamples.input, { deviceGroupId: dock, limit: 1000 });
    const { response } = await unary(listSamples, request);
    const last = response.samples.slice(-3);
    expect(last.map(({ sample }) => sample?.navigation?.position?.coordinates[2])).toEqual([301, 302, 303]);
    expect(last.at(-1)?.sequence).toBe(answer.lastSequence);
  });

  it("is refused a bad sample in a client stream with the field named", async () => {
    const { publishTelemetry } = TelemetryService.method;
    const error = await new Promise<ServiceError>((resolve, reject) => {
      const call = client.makeClientStreamRequest(...plain(publishTelemetry), metadata(), {}, (failure) =>
        failure ? resolve(failure) : reject(new Error("accepted")),
      );
      const sample = { ...flying(dock, "", [14.5, 46, 300]), batteryPercent: 101 };
      call.write(create(publishTelemetry.input, { deviceGroupId: dock, sample }));
      call.end();
    });
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(error.details).toContain("sample.battery_percent");
  });

  it("has its deadline kept", async () => {
    const jobId = await createJob();
    const { stream, ended } = track(jobId, { deadline: new Date(Date.now() + 3000) });
    let messages = 0;
    stream.on("data", () => messages++);
    expect((await ended).code).toBe(status.DEADLINE_EXCEEDED);
    expect(messages).toBeGreaterThan(0);
  });

  it("cancels a stream, and the server lets go of it", async () => {
    const { createShare, getShare, trackShare } = ShareService.method;
    const request = create(createShare.input, { resourceId: dock, expiresIn: 600, permissions: ["view"] });
    const { share } = (await unary(createShare, request)).response;
    const shareCode = share?.shareCode ?? "";
    const viewers = async () => {
      const { response } = await unary(getShare, create(getShare.input, { shareCode }));
      return response.share?.viewerCount;
    };
    const { stream, ended } = open(trackShare, create(trackShare.input, { shareCode }));
    await new Promise((resolve) => stream.once("data", resolve));
    expect(await viewers()).toBe(1);
    stream.cancel();
    expect((await ended).code).toBe(status.CANCELLED);
    await until(async () => (await viewers()) === 0);
  });
});
