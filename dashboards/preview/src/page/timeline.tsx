// A strip a series. Grafana's state timeline is not in its packages: this draws one in its likeness.
import { dateTimeFormat, FieldType, getFieldDisplayName, type DataFrame, type Field } from '@grafana/data';
import { LegendDisplayMode, measureText, VizLegend, VizLayout } from '@grafana/ui';
import type { Drawn } from './panel';

const FONT = 12;
const AXIS = 22;

interface Strip {
  name: string;
  boxes: { from: number; to: number; text: string; colour: string }[];
}

/** Equal neighbours are one box; it ends where values are missing. */
function strip(frame: DataFrame, frames: DataFrame[], value: Field, end: number): Strip {
  const times = frame.fields.find(({ type }) => type === FieldType.time);
  const step = times?.config.interval ?? 0;
  const boxes: Strip['boxes'] = [];
  value.values.forEach((one: number | null, index) => {
    if (one === null || times === undefined) {
      return;
    }
    const from: number = times.values[index];
    const next: number = times.values[index + 1] ?? end;
    const to = Math.min(next, from + step, end);
    const shown = value.display?.(one);
    const [text, colour] = [`${shown?.prefix ?? ''}${shown?.text ?? one}${shown?.suffix ?? ''}`, shown?.color ?? ''];
    const last = boxes.at(-1);
    if (last !== undefined && last.to === from && last.text === text) {
      last.to = to;
    } else {
      boxes.push({ from, to, text, colour });
    }
  });
  return { name: getFieldDisplayName(value, frame, frames), boxes };
}

function ticks(from: number, to: number, pixels: number): number[] {
  const minutes = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360].map((many) => many * 60_000);
  const every = minutes.find((many) => (pixels * many) / (to - from) > 60) ?? 720 * 60_000;
  const first = Math.ceil(from / every) * every;
  return Array.from({ length: Math.floor((to - first) / every) + 1 }, (_, index) => first + index * every);
}

/** All strips of the frames, and the words that stand in them. */
export function Timeline({ width, height, ...drawn }: Drawn) {
  const { panel, frames, context } = drawn;
  const numbers = (frame: DataFrame) => frame.fields.filter(({ type }) => type === FieldType.number);
  const values = frames.flatMap((frame) => numbers(frame).map((one) => ({ frame, one })));
  const strips = values.map(({ frame, one }) => strip(frame, frames, one, context.request.to));
  const words = new Map(strips.flatMap(({ boxes }) => boxes.map(({ text, colour }) => [text, colour] as const)));
  const items = [...words].map(([label, color]) => ({ label, color, yAxis: 1 }));
  const legend = panel.options.legend.showLegend ? (
    <VizLayout.Legend placement="bottom">
      <VizLegend items={items} displayMode={LegendDisplayMode.List} placement="bottom" readonly />
    </VizLayout.Legend>
  ) : null;
  return (
    <VizLayout width={width} height={height} legend={legend}>
      {(width: number, height: number) => <Strips {...drawn} strips={strips} width={width} height={height} />}
    </VizLayout>
  );
}

function Strips({ panel, strips, moments, context, width, height }: Drawn & { strips: Strip[] }) {
  const { request, theme } = context;
  // Widths that are measured before the letters are there are those of narrower ones.
  const left = Math.max(...strips.map(({ name }) => measureText(name, FONT).width)) * 1.15 + 14;
  const plot = width - left - 8;
  const x = (time: number) => left + ((Math.max(time, request.from) - request.from) / (request.to - request.from)) * plot;
  const row = (height - AXIS) / strips.length;
  const opacity = (panel.fieldConfig.defaults.custom?.fillOpacity ?? 70) / 100;
  const thick = row * panel.options.rowHeight;
  const { text: ink, border } = theme.colors;
  return (
    <svg width={width} height={height} fontSize={FONT} fontFamily={theme.typography.fontFamily}>
      {ticks(request.from, request.to, plot).map((time) => (
        <g key={time}>
          <line x1={x(time)} x2={x(time)} y1={0} y2={height - AXIS} stroke={border.weak} />
          <text x={x(time)} y={height - 6} textAnchor="middle" fill={ink.primary}>
            {dateTimeFormat(time, { timeZone: 'utc', format: 'HH:mm' })}
          </text>
        </g>
      ))}
      {strips.map(({ name, boxes }, index) => {
        const middle = index * row + row / 2;
        return (
          <g key={name}>
            <text x={left - 8} y={middle + 4} textAnchor="end" fill={ink.primary}>
              {name}
            </text>
            {boxes.map(({ from, to, text, colour }) => (
              <g key={from}>
                <rect x={x(from)} width={x(to) - x(from)} y={middle - thick / 2} height={thick} fill={colour} fillOpacity={opacity} />
                {measureText(text, FONT).width + 8 < x(to) - x(from) && FONT < thick && (
                  <text x={x(from) + 4} y={middle + 4} fill={theme.colors.getContrastText(colour)}>
                    {text}
                  </text>
                )}
              </g>
            ))}
          </g>
        );
      })}
      {moments.map(({ from, colour, name, text }) => (
        <line key={`${name} ${text} ${from}`} x1={x(from)} x2={x(from)} y1={0} y2={height - AXIS}
          stroke={theme.visualization.getColorByName(colour)} strokeDasharray="5 5" />
      ))}
    </svg>
  );
}
