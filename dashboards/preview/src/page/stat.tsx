// Large values, with Grafana's own BigValue.
import { getFieldDisplayValues, type FieldDisplay } from '@grafana/data';
import { BigValue, VizRepeater } from '@grafana/ui';
import type { Drawn } from './panel';

export function Stat({ panel, frames, context, width, height }: Drawn) {
  const { options, fieldConfig } = panel;
  const values = () =>
    getFieldDisplayValues({
      data: frames,
      fieldConfig,
      reduceOptions: options.reduceOptions,
      replaceVariables: (text) => text,
      theme: context.theme,
      timeZone: 'utc',
    });
  return (
    <VizRepeater<FieldDisplay>
      getValues={values}
      source={frames}
      renderCounter={0}
      width={width}
      height={height}
      autoGrid
      orientation={options.orientation}
      itemSpacing={3}
      renderValue={({ value, width, height, count }) => (
        <BigValue
          value={value.display}
          count={count}
          colorMode={options.colorMode}
          graphMode={options.graphMode}
          justifyMode={options.justifyMode}
          textMode={options.textMode}
          width={width}
          height={height}
          theme={context.theme}
        />
      )}
    />
  );
}
