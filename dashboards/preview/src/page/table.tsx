// Tables, with the component of Grafana's own table panel.
import { TableNG } from '@grafana/ui/unstable';
import type { Drawn } from './panel';

export function TableOf({ panel, frames, context, width, height }: Drawn) {
  const frame = frames[0];
  if (frame === undefined || frames.length > 1) {
    throw new Error(`table "${panel.title}" has ${frames.length} frames: the preview draws one`);
  }
  return (
    <div style={{ width, height }}>
    <TableNG
      data={frame}
      width={width}
      height={height}
      noHeader={!panel.options.showHeader}
      cellHeight={panel.options.cellHeight}
      sortBy={panel.options.sortBy}
      timeRange={context.timeRange}
      fieldConfig={panel.fieldConfig}
      noValue={panel.fieldConfig.defaults.noValue}
      enableVirtualization={false}
    />
    </div>
  );
}
