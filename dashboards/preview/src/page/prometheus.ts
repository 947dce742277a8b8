// Prometheus over its HTTP API, and its answers as the frames that Grafana's data source makes of them.
import { FieldType, type DataFrame, type Field, type Labels } from '@grafana/data';
import type { Request, Target } from './board';

/** Labels and samples, as the API has them. */
export interface Series {
  metric: Labels;
  values: [number, string][];
}

interface Answer<T> {
  status: 'success' | 'error';
  error?: string;
  data: T;
}

async function get<T>(path: string, parameters: Record<string, string>): Promise<T> {
  const response = await fetch(`/prometheus/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const answer = (await response.json()) as Answer<T>;
  if (answer.status !== 'success') {
    throw new Error(`Prometheus: ${answer.error} (${parameters['query'] ?? path})`);
  }
  return answer.data;
}

/** The values that `label_values(SELECTOR, LABEL)` means, within the time shown. */
export async function labelValues(query: string, request: Request): Promise<string[]> {
  const [, selector, label] = /^label_values\((.*),\s*(\w+)\)$/.exec(query) ?? [];
  if (selector === undefined || label === undefined) {
    throw new Error(`the preview knows label_values(SELECTOR, LABEL) only, not ${query}`);
  }
  const { from, to } = request;
  const within = { start: String(from / 1000), end: String(to / 1000) };
  return (await get<string[]>(`label/${label}/values`, { 'match[]': selector, ...within })).sort();
}

/** What an expression has at the end of the time shown. */
export async function instant(query: string, request: Request): Promise<Series[]> {
  const found = await get<{ result: { metric: Labels; value: [number, string] }[] }>('query', {
    query,
    time: String(request.to / 1000),
  });
  return found.result.map(({ metric, value }) => ({ metric, values: [value] }));
}

/** What an expression has over the time shown, aligned to the step as Grafana asks. */
export async function range(query: string, request: Request, step: number): Promise<Series[]> {
  const align = (time: number) => String(Math.floor(time / 1000 / step) * step);
  const [start, end] = [align(request.from), align(request.to)];
  const found = await get<{ result: Series[] }>('query_range', { query, start, end, step: String(step) });
  return found.result;
}

function number(text: string): number | null {
  const value = Number(text.replace('Inf', 'Infinity'));
  return Number.isNaN(value) ? null : value;
}

/** One frame a series, called by the legend. */
export function seriesFrames(series: Series[], target: Target, step: number): DataFrame[] {
  return series.map(({ metric, values }) => {
    const name = legend(target.legendFormat, metric);
    const time: Field = {
      name: 'Time',
      type: FieldType.time,
      config: { interval: step * 1000 },
      values: values.map(([at]) => at * 1000),
    };
    const value: Field = {
      name: 'Value',
      type: FieldType.number,
      config: { displayNameFromDS: name },
      labels: metric,
      values: values.map(([, text]) => number(text)),
    };
    return { refId: target.refId, name, fields: [time, value], length: values.length };
  });
}

/** One frame of all series: a column a label. */
export function tableFrame(series: Series[], target: Target): DataFrame[] {
  if (series.length === 0) {
    return [];
  }
  const labels = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const samples = series.map(({ values }) => values[0] ?? [0, 'NaN'] as [number, string]);
  const fields: Field[] = [
    { name: 'Time', type: FieldType.time, config: {}, values: samples.map(([at]) => at * 1000) },
    ...labels.map((label) => ({
      name: label,
      type: FieldType.string,
      config: { filterable: true },
      values: series.map(({ metric }) => metric[label] ?? ''),
    })),
    { name: 'Value', type: FieldType.number, config: {}, values: samples.map(([, text]) => number(text)) },
  ];
  return [{ refId: target.refId, fields, length: series.length }];
}

/** A text with labels in double braces. */
export function legend(format: string, labels: Labels): string {
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label: string) => labels[label] ?? '');
}
