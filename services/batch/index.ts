import { BatchService } from "#gen/portolan/batch/v1/batch_service_pb.js";
import { type Kernel, type ServiceModule, serve } from "#kernel/kernel.ts";
import { createBatchService, type Perform } from "./batch-service.ts";

/** Batches of REST operations. */
export function createBatch(kernel: Kernel, perform: Perform): ServiceModule {
  return { services: [serve(BatchService, createBatchService(kernel, perform))], migrations: [] };
}
