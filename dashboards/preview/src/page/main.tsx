// The page: a whole board, as wide as the window.
import { createTheme, dateTime, type DataFrame, type GrafanaTheme2, type TimeRange } from '@grafana/data';
import { GlobalStyles, PortalContainer, ThemeContext } from '@grafana/ui';
import { StrictMode, type ReactNode } from 'react';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';
import { moments, type Moment } from './annotations';
import type { Board, Panel, Place, Request } from './board';
import { assertKnown, PanelView } from './panel';
import { frames, type Context } from './query';
import { resolve, type Values } from './variables';
// Grafana's own build puts it beside its tables.
import '@grafana/react-data-grid/lib/styles.css';

/** Grafana's grid. */
const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
const EDGE = 16;

function pixels({ x, y, w, h }: Place): { left: number; top: number; width: number; height: number } {
  const column = (window.innerWidth - 2 * EDGE - (COLUMNS - 1) * GAP) / COLUMNS;
  return {
    left: Math.round(x * (column + GAP)),
    top: y * (CELL + GAP),
    width: Math.round(w * column + (w - 1) * GAP),
    height: h * CELL + (h - 1) * GAP,
  };
}

interface Loaded {
  panel: Panel;
  frames: DataFrame[];
}

function Head({ board, values, timeRange }: { board: Board; values: Values; timeRange: TimeRange }) {
  const time = (at: TimeRange['from']) => at.utc().format('YYYY-MM-DD HH:mm:ss');
  return (
    <header style={{ display: 'flex', gap: 24, alignItems: 'baseline', padding: '12px 0' }}>
      <strong style={{ fontSize: 18 }}>{board.title}</strong>
      {[...values.values()].map(({ label, text, choices }) => (
        <span key={label}>
          {label}: <b>{choices.length === 0 ? `${text} (of none)` : text}</b>
        </span>
      ))}
      <span style={{ marginLeft: 'auto' }}>
        {time(timeRange.from)} to {time(timeRange.to)} UTC
      </span>
    </header>
  );
}

function Grid({ loaded, marks, context }: { loaded: Loaded[]; marks: Moment[]; context: Context }) {
  const height = Math.max(...loaded.map(({ panel }) => panel.gridPos.y + panel.gridPos.h)) * (CELL + GAP);
  return (
    <main style={{ position: 'relative', height }}>
      {loaded.map(({ panel, frames }) => {
        const place = pixels(panel.gridPos);
        const size = { width: place.width, height: place.height };
        const content: ReactNode =
          panel.type === 'row' ? (
            <div style={{ paddingTop: 6, fontSize: 16, fontWeight: 500 }}>⌄ {panel.title}</div>
          ) : (
            <PanelView panel={panel} frames={frames} moments={marks} context={context} {...size} />
          );
        return (
          <div key={panel.id} style={{ position: 'absolute', ...place }}>
            {content}
          </div>
        );
      })}
    </main>
  );
}

async function load(): Promise<ReactNode> {
  const request = (await (await fetch('/request.json')).json()) as Request;
  const { board } = request;
  board.panels.forEach(assertKnown);
  const [from, to] = [dateTime(request.from), dateTime(request.to)];
  const theme = createTheme({ colors: { mode: 'dark' } });
  const values = await resolve(board, request);
  const context: Context = { request, values, theme, timeRange: { from, to, raw: { from, to } } };
  const load = async (panel: Panel): Promise<Loaded> => ({
    panel,
    frames: panel.type === 'row' ? [] : await frames(panel, context, pixels(panel.gridPos).width),
  });
  const [loaded, marks] = await Promise.all([Promise.all(board.panels.map(load)), moments(board, context)]);
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ padding: `0 ${EDGE}px ${EDGE}px`, width: window.innerWidth, overflow: 'hidden' }}>
        <Head board={board} values={values} timeRange={context.timeRange} />
        <Grid loaded={loaded} marks={marks} context={context} />
      </div>
      <PortalContainer />
    </ThemeContext.Provider>
  );
}

const root = document.getElementById('root');
if (root === null) {
  throw new Error('index.html has no element #root');
}
const mounted = createRoot(root);

/** Loads the letters, whose widths are measured and remembered as soon as anything is drawn. */
async function letters(theme: GrafanaTheme2): Promise<void> {
  const styles = (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
    </ThemeContext.Provider>
  );
  flushSync(() => mounted.render(styles));
  while (document.fonts.size === 0) {
    await new Promise(requestAnimationFrame);
  }
  await Promise.allSettled([...document.fonts].map((font) => font.load()));
}

load().then(
  async (content) => {
    await letters(createTheme({ colors: { mode: 'dark' } }));
    mounted.render(<StrictMode>{content}</StrictMode>);
    document.body.dataset['state'] = 'ready';
  },
  (error: Error) => {
    document.body.dataset['state'] = `failed: ${error.message}`;
  },
);
