// Lines and bars over time, with Grafana's own TimeSeries.
import type { DataFrame, Field } from '@grafana/data';
import { TimeSeries, UPlotConfigBuilder } from '@grafana/ui';
import type { Drawn } from './panel';
import { paint } from './annotations';

const PALETTE = 'palette-classic';

/** What Grafana's plugin adds to what a board leaves out. */
const DEFAULTS = {
  axisPlacement: 'auto',
  axisLabel: '',
  barAlignment: 0,
  fillOpacity: 0,
  gradientMode: 'none',
  lineStyle: { fill: 'solid' },
  pointSize: 5,
  scaleDistribution: { type: 'linear' },
  stacking: { mode: 'none', group: 'A' },
  hideFrom: { legend: false, tooltip: false, viz: false },
};

function completed(field: Field): Field {
  const config = { color: { mode: PALETTE }, ...field.config, custom: { ...DEFAULTS, ...field.config.custom } };
  return { ...field, config };
}

export function Lines({ panel, frames, moments, context, width, height }: Drawn) {
  const { options } = panel;
  const drawn: DataFrame[] = frames.map((frame) => ({ ...frame, fields: frame.fields.map(completed) }));
  return (
    <TimeSeries
      frames={drawn}
      timeRange={context.timeRange}
      timeZone="utc"
      width={width}
      height={height}
      legend={options.legend}
      options={options}
      structureRev={1}
    >
      {(builder: UPlotConfigBuilder) => {
        // The builder is made once and asked for at every rendering.
        if (!painted.has(builder)) {
          painted.add(builder);
          builder.addHook('draw', (plot) => paint(plot, moments, context.theme));
        }
        return null;
      }}
    </TimeSeries>
  );
}

const painted = new WeakSet<UPlotConfigBuilder>();
