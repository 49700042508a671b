// Creates a job and follows it to its end over gRPC, printing a line per message.
//   node examples/follow-job.ts [--group ID] [--mission ID] [--url URL] [--key KEY]
import { parseArgs } from "node:util";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { DroneState, JobState, TrackKind, type TrackUpdate } from "#gen/portolan/common/v1/track_pb.js";
import { ActionOnArrival } from "#gen/portolan/jobs/v1/job_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";

const { values } = parseArgs({
  options: {
    group: { type: "string", default: "sandbox-dock-1" },
    mission: { type: "string", default: "example-survey" },
    url: { type: "string", default: "http://127.0.0.1:8080" },
    key: { type: "string", default: process.env.PORTOLAN_API_KEY ?? "" },
  },
});
const { group: deviceGroupId, mission: missionId } = values;
const transport = createGrpcTransport({
  baseUrl: values.url,
  interceptors: [
    (next) => (request) => {
      request.header.set("x-api-key", values.key);
      return next(request);
    },
  ],
});
const jobs = createClient(JobService, transport);

function print(update: TrackUpdate): void {
  const time = update.timestamp === undefined ? "-" : timestampDate(update.timestamp).toISOString();
  const coordinates = update.navigation?.position?.coordinates ?? [];
  console.log(
    [
      time,
      TrackKind[update.kind].padEnd(9),
      JobState[update.jobState].padEnd(10),
      `${(update.progress ?? 0).toFixed(0)}%`.padStart(4),
      DroneState[update.droneState].padEnd(10),
      coordinates.map((one, i) => one.toFixed(i < 2 ? 5 : 1)).join(" "),
      update.message,
    ].join("  "),
  );
}

const { job } = await jobs.createJob(
  { name: "Example survey", deviceGroupId, missionId, actionOnArrival: ActionOnArrival.MISSION },
  // The key makes it safe to send the same request again when no answer came.
  { headers: { "Idempotency-Key": crypto.randomUUID() } },
);
const jobId = job?.jobId ?? "";
console.log(`${jobId} for ${deviceGroupId}`);

let afterSequence = 0n;
let jobState = JobState.UNSPECIFIED;
for (let over = false; !over; ) {
  try {
    for await (const update of jobs.trackJob({ jobId, afterSequence })) {
      print(update);
      afterSequence = update.sequence;
      jobState = update.jobState;
      over = update.kind === TrackKind.FINAL;
    }
  } catch (error) {
    if (ConnectError.from(error).code !== Code.Unavailable) {
      throw error;
    }
    console.log("connection lost; going on from the last message");
  }
  if (!over) {
    await new Promise((resolve) => setTimeout(resolve, 500 + 1000 * Math.random()));
  }
}
process.exit(jobState === JobState.COMPLETED ? 0 : 1);
