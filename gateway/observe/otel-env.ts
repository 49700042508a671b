/** The variables of OpenTelemetry that are set, by name. */
export type OtelEnv = Readonly<Record<string, string>>;

/** Whether the variables ask for traces: an OTLP endpoint does, unless another one forbids. */
export function wantsTraces(otel: OtelEnv): boolean {
  if (otel.OTEL_SDK_DISABLED?.toLowerCase() === "true" || otel.OTEL_TRACES_EXPORTER === "none") return false;
  return Boolean(otel.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || otel.OTEL_EXPORTER_OTLP_ENDPOINT);
}

/** Where traces go: the endpoint for traces as it stands, or the common one with its path. */
export function tracesUrl(otel: OtelEnv): string {
  return (
    otel.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ??
    `${otel.OTEL_EXPORTER_OTLP_ENDPOINT?.replace(/\/$/, "")}/v1/traces`
  );
}

/** A variable that holds a number; undefined if it is not set or holds something else. */
export function numberOf(otel: OtelEnv, name: string): number | undefined {
  const value = Number(otel[name]);
  return otel[name] !== undefined && Number.isFinite(value) && value >= 0 ? value : undefined;
}
