// Moments across all panels. Grafana's own plugin for them is not in its packages.
import type { GrafanaTheme2 } from '@grafana/data';
import type uPlot from 'uplot';
import type { Annotation, Board } from './board';
import { legend, range } from './prometheus';
import { fill, type Context } from './query';

/** When something went on, in milliseconds. */
export interface Moment {
  name: string;
  from: number;
  to: number;
  colour: string;
  text: string;
}

/** How far values of an annotation are apart where it does not say so, in seconds. */
const STEP = 60;

/** All moments within the time shown: values that follow each other are one. */
export async function moments(board: Board, context: Context): Promise<Moment[]> {
  const enabled = board.annotations.list.filter(({ enable }) => enable);
  return (await Promise.all(enabled.map((one) => ask(one, context)))).flat();
}

async function ask(annotation: Annotation, context: Context): Promise<Moment[]> {
  const step = annotation.step === undefined ? STEP : Number.parseInt(annotation.step, 10);
  const series = await range(fill(annotation.expr, context, step), context.request, step);
  const { name, iconColor: colour } = annotation;
  return series.flatMap(({ metric, values }) => {
    const found: Moment[] = [];
    const text = legend(annotation.titleFormat, metric);
    for (const at of values.filter(([, value]) => Number(value) > 0).map(([time]) => time * 1000)) {
      const last = found.at(-1);
      if (last !== undefined && at <= last.to + step * 1000) {
        last.to = at;
      } else {
        found.push({ name, from: at, to: at, colour, text });
      }
    }
    return found;
  });
}

/** Draws dashed lines at both ends, a veil between them and a mark below. */
export function paint(plot: uPlot, moments: Moment[], theme: GrafanaTheme2): void {
  const { ctx, bbox } = plot;
  ctx.save();
  for (const { from, to, colour } of moments) {
    const [left, right] = [plot.valToPos(from, 'x', true), plot.valToPos(to, 'x', true)];
    ctx.fillStyle = ctx.strokeStyle = theme.visualization.getColorByName(colour);
    ctx.globalAlpha = 0.1;
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.globalAlpha = 1;
    ctx.setLineDash([5, 5]);
    for (const x of new Set([left, right])) {
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.fillRect(left - 2, bbox.top + bbox.height, Math.max(right - left, 0) + 4, 5);
  }
  ctx.restore();
}
