// The parts of Grafana's classic model that the boards of Leadline use.
import type { FieldConfigSource } from '@grafana/data';

export interface Place {
  h: number;
  w: number;
  x: number;
  y: number;
}

export interface Target {
  refId: string;
  expr: string;
  legendFormat: string;
  instant: boolean;
  format: 'table' | 'time_series';
}

export interface Transformation {
  id: string;
  options: Record<string, unknown>;
}

export interface Panel {
  id: number;
  type: string;
  title: string;
  gridPos: Place;
  description?: string;
  fieldConfig: FieldConfigSource;
  // Each kind of panel has options of its own.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  options: any;
  targets: Target[];
  transformations?: Transformation[];
  interval?: string;
}

export interface Variable {
  type: string;
  name: string;
  label: string;
  query: string | { query: string };
  includeAll: boolean;
  allValue?: string;
}

export interface Annotation {
  name: string;
  expr: string;
  enable: boolean;
  iconColor: string;
  titleFormat: string;
  step?: string;
}

export interface Board {
  title: string;
  links: { title: string; type: string }[];
  panels: Panel[];
  annotations: { list: Annotation[] };
  templating: { list: Variable[] };
}

/** What the command line says. */
export interface Request {
  board: Board;
  /** Milliseconds since 1970. */
  from: number;
  to: number;
  /** Seconds between two scrapes, as the data source is told them. */
  scrape: number;
  /** Chosen values by the names of variables; of others all are chosen. */
  chosen: Record<string, string[]>;
}
