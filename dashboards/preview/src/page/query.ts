// What a panel asks, and what it is answered as frames with all of its field configuration.
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  FieldConfigOptionsRegistry,
  FieldType,
  rangeUtil,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
  type DataFrame,
  type Field,
  type FieldConfigPropertyItem,
  type GrafanaTheme2,
  type TimeRange,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';
import type { Panel, Request, Target } from './board';
import { instant, range, seriesFrames, tableFrame } from './prometheus';
import { insert, inserted, type Values } from './variables';

/** All that is needed beside the panel. */
export interface Context {
  request: Request;
  values: Values;
  timeRange: TimeRange;
  theme: GrafanaTheme2;
}

standardTransformersRegistry.setInit(() => [
  {
    id: standardTransformers.organizeFieldsTransformer.id,
    name: standardTransformers.organizeFieldsTransformer.name,
    transformation: () => Promise.resolve(standardTransformers.organizeFieldsTransformer),
    editor: () => null,
    imageDark: '',
    imageLight: '',
  },
]);

/** Seconds between two values of a drawing of that many pixels, as Grafana reckons them. */
export function stepOf(context: Context, pixels: number): number {
  const { timeRange, request } = context;
  const { intervalMs } = rangeUtil.calculateInterval(timeRange, pixels, `${request.scrape}s`);
  return intervalMs / 1000;
}

/** An expression with the variables of the board and those of Grafana itself. */
export function fill(expression: string, context: Context, step: number): string {
  const { request, values } = context;
  const shown = Math.round((request.to - request.from) / 1000);
  const own = new Map([
    ['__interval', `${step}s`],
    ['__rate_interval', `${Math.max(step + request.scrape, 4 * request.scrape)}s`],
    ['__range', `${shown}s`],
    ['__range_s', String(shown)],
  ]);
  return insert(expression, new Map([...inserted(values), ...own]));
}

async function ask(target: Target, context: Context, step: number): Promise<DataFrame[]> {
  const expression = fill(target.expr, context, step);
  if (target.instant) {
    const series = await instant(expression, context.request);
    return target.format === 'table' ? tableFrame(series, target) : seriesFrames(series, target, step);
  }
  return seriesFrames(await range(expression, context.request, step), target, step);
}

/** The frames of a panel, ready to be drawn. */
export async function frames(panel: Panel, context: Context, pixels: number): Promise<DataFrame[]> {
  const step = stepOf(context, pixels);
  const answers = await Promise.all(panel.targets.map((target) => ask(target, context, step)));
  const { theme } = context;
  const transformed = await firstValueFrom(transformDataFrame(panel.transformations ?? [], answers.flat()));
  const found = applyFieldOverrides({
    data: transformed,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry(panel),
    replaceVariables: (text) => fill(text, context, step),
    theme,
    timeZone: 'utc',
  });
  // Tables read the names from there.
  cacheFieldDisplayNames(found);
  return found;
}

const isNumber = (field: Field) => field.type === FieldType.number;
const always = () => true;

/** The options that every field has, and whether they apply to it: Grafana's own list is not in its packages. */
const STANDARD: [string, (field: Field) => boolean][] = [
  ['unit', always],
  ['min', isNumber],
  ['max', isNumber],
  ['decimals', isNumber],
  ['displayName', always],
  ['color', always],
  ['noValue', always],
  ['links', (field) => field.type !== FieldType.time],
  ['mappings', (field) => field.type !== FieldType.time],
  ['thresholds', always],
];

function option(path: string, isCustom: boolean, shouldApply: (field: Field) => boolean): FieldConfigPropertyItem {
  const id = isCustom ? `custom.${path}` : path;
  const editor = () => null;
  return { id, path, name: id, isCustom, shouldApply, process: (value) => value, editor, override: editor };
}

/** The standard options, and those of this kind of panel that it or its overrides set. */
function registry(panel: Panel): FieldConfigOptionsRegistry {
  const { defaults, overrides } = panel.fieldConfig;
  const overridden = overrides.flatMap(({ properties }) => properties.map(({ id }) => id));
  const named = overridden.filter((id) => id.startsWith('custom.')).map((id) => id.slice('custom.'.length));
  const custom = new Set([...Object.keys(defaults.custom ?? {}), ...named]);
  return new FieldConfigOptionsRegistry(() => [
    ...STANDARD.map(([path, applies]) => option(path, false, applies)),
    ...[...custom].map((path) => option(path, true, always)),
  ]);
}
