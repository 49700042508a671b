"""Creates a job and follows it with grpcio.

The stubs are generated, not kept here. The contracts use protovalidate and googleapis, which
`npm run third-party` puts into .third-party/:

    pip install grpcio grpcio-tools googleapis-common-protos
    npm run third-party
    mkdir -p /tmp/portolan-py
    python -m grpc_tools.protoc -I proto -I .third-party \\
        --python_out=/tmp/portolan-py --grpc_python_out=/tmp/portolan-py \\
        $(cd proto && find portolan -name '*.proto') buf/validate/validate.proto
    PYTHONPATH=/tmp/portolan-py PORTOLAN_API_KEY=sk_... python examples/python/track.py [GROUP [HOST:PORT]]
"""

import os
import sys
import uuid

import grpc
from portolan.common.v1 import track_pb2
from portolan.jobs.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc


def main() -> int:
    group = sys.argv[1] if len(sys.argv) > 1 else "sandbox-dock-1"
    address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:8080"
    credentials = (("x-api-key", os.environ.get("PORTOLAN_API_KEY", "")),)
    with grpc.insecure_channel(address) as channel:
        jobs = job_service_pb2_grpc.JobServiceStub(channel)
        request = job_service_pb2.CreateJobRequest(
            name="From Python",
            device_group_id=group,
            mission_id="python-survey",
            action_on_arrival=job_pb2.ACTION_ON_ARRIVAL_MISSION,
        )
        job = jobs.CreateJob(
            request,
            metadata=(*credentials, ("idempotency-key", str(uuid.uuid4()))),
            timeout=10,
        ).job
        print(job.job_id, "for", group)
        state = track_pb2.JOB_STATE_UNSPECIFIED
        track = job_service_pb2.TrackJobRequest(job_id=job.job_id)
        for update in jobs.TrackJob(track, metadata=credentials):
            state = update.job_state
            print(
                update.timestamp.ToJsonString(),
                track_pb2.JobState.Name(state).removeprefix("JOB_STATE_"),
                f"{update.progress:.0f}%",
                track_pb2.DroneState.Name(update.drone_state).removeprefix("DRONE_STATE_"),
                list(update.navigation.position.coordinates),
            )
        return 0 if state == track_pb2.JOB_STATE_COMPLETED else 1


if __name__ == "__main__":
    sys.exit(main())
