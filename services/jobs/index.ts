import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import type { Job } from "#gen/portolan/jobs/v1/job_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { type Kernel, type ServiceModule, serve } from "#kernel/kernel.ts";
import { createDispatchService } from "./dispatch-service.ts";
import { createDispatcher } from "./dispatcher.ts";
import { createJobService } from "./job-service.ts";
import { createLiveJobs } from "./live-jobs.ts";
import { jobList, migrations } from "./store.ts";

/** Jobs and their dispatch to devices. */
export function createJobs(kernel: Kernel): ServiceModule {
  const dispatcher = createDispatcher(kernel);
  const closing = new AbortController();
  kernel.topics.provide("job", createLiveJobs(kernel), "job-");
  const unlisten = kernel.bus.listen("job.", ({ tenantId, data }) => {
    dispatcher.look(tenantId, (data as Job).deviceGroupId);
  });
  return {
    services: [
      serve(JobService, createJobService(kernel)),
      serve(DispatchService, createDispatchService(kernel, dispatcher, closing.signal)),
    ],
    migrations,
    lists: [jobList],
    start: () => dispatcher.start(),
    async stop() {
      closing.abort();
      unlisten();
      await dispatcher.stop();
    },
  };
}
