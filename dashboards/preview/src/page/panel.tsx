// One panel of a board, by its type.
import type { DataFrame } from '@grafana/data';
import { PanelChrome } from '@grafana/ui';
import type { ReactElement } from 'react';
import type { Moment } from './annotations';
import type { Panel } from './board';
import { Lines } from './lines';
import type { Context } from './query';
import { Stat } from './stat';
import { TableOf } from './table';
import { Timeline } from './timeline';

/** What every drawing is given. */
export interface Drawn {
  panel: Panel;
  frames: DataFrame[];
  moments: Moment[];
  context: Context;
  width: number;
  height: number;
}

const DRAWINGS: Record<string, (drawn: Drawn) => ReactElement> = {
  stat: Stat,
  timeseries: Lines,
  'state-timeline': Timeline,
  table: TableOf,
};

/** Fails for a type that nothing here draws. */
export function assertKnown(panel: Panel): void {
  if (panel.type !== 'row' && !(panel.type in DRAWINGS)) {
    throw new Error(`panel "${panel.title}" is of type ${panel.type}, which the preview does not draw`);
  }
}

/** Says that there is nothing, as Grafana does for all types but stat. */
function Nothing({ panel, width, height }: { panel: Panel; width: number; height: number }) {
  const style = { width, height, display: 'flex', alignItems: 'center', justifyContent: 'center' };
  return <div style={{ ...style, textAlign: 'center' }}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
}

export function PanelView({ width, height, ...rest }: Drawn) {
  const { panel, frames } = rest;
  const isEmpty = panel.type !== 'stat' && frames.every((frame) => frame.length === 0);
  const Drawing = DRAWINGS[panel.type];
  return (
    <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
      {(innerWidth: number, innerHeight: number) => {
        const size = { width: innerWidth, height: innerHeight };
        return isEmpty || !Drawing ? <Nothing panel={panel} {...size} /> : <Drawing {...rest} {...size} />;
      }}
    </PanelChrome>
  );
}
