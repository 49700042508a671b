/** The middle of some numbers. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

/** The value below which the given part of the numbers lies. */
export function quantile(sorted: ArrayLike<number>, part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

/** A number with three digits that mean something. */
export const short = (value: number): string =>
  value >= 1000 ? `${(value / 1000).toPrecision(3)}k` : value.toPrecision(3);

/** Prints a Markdown table. */
export function print(title: string, head: readonly string[], rows: readonly (readonly string[])[]): void {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  console.log(
    ["", `### ${title}`, "", line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n"),
  );
}
