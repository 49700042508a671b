/** What a newcomer needs to see. */
export interface BannerFacts {
  readonly url: string;
  /** The generated key; undefined if the operator set it, or it cannot be known: it is not printed. */
  readonly apiKey: string | undefined;
  readonly sandbox: boolean;
}

/** The text printed at start: where the server is, its key, and commands to copy. */
export function banner({ url, apiKey, sandbox }: BannerFacts): string {
  const key = apiKey ?? "$PORTOLAN_ADMIN_API_KEY";
  const curl = url.startsWith("https:") ? "curl -sk" : "curl -s";
  const insecure = url.startsWith("https:") ? " --insecure" : "";
  const bufFlags = url.startsWith("https:") ? "--insecure" : "--http2-prior-knowledge";
  const device = `{"deviceGroupId":"my-dock","name":"My dock"}`;
  const group = sandbox ? "sandbox-dock-1" : "my-dock";
  const register = sandbox
    ? ""
    : `${curl} ${url}/v3/resources -H "x-api-key: $KEY" -H 'content-type: application/json' -d '${device}'\n    `;
  return `
  Portolan serves gRPC, gRPC-Web, Connect and REST on ${url}
  API key  ${key}
  Sandbox  ${sandbox ? "3 simulated docks are flying: sandbox-dock-1 to sandbox-dock-3" : "off"}
  Explorer ${url}/docs

  Create a job and follow it:

    export KEY=${key}
    ${register}JOB=$(${curl} ${url}/v3/jobs/create -H "x-api-key: $KEY" -H 'content-type: application/json' \\
      -d '{"name":"First flight","deviceGroupId":"${group}","missionId":"survey-1"}' | tee /dev/stderr | sed 's/.*"jobId":"\\([^"]*\\)".*/\\1/')
    ${curl}N ${url}/v3/jobs/$JOB/status/ws -H "x-api-key: $KEY"

  The same over gRPC, with the schema by reflection:

    npx buf curl ${bufFlags} --protocol grpc -H "x-api-key: $KEY" \\
      -d "{\\"job_id\\":\\"$JOB\\"}" ${url}/portolan.jobs.v1.JobService/TrackJob

  The same with grpc-js:

    node examples/grpc-js-track.mjs --url ${url} --key $KEY --job $JOB${insecure}

  Settings: npm start -- --help
`;
}
