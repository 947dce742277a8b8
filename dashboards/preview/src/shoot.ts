// Renders boards to pictures: see the README.
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium, type Page, type Route } from 'playwright-core';
import { build } from 'vite';
import type { Board, Request } from './page/board';

const HOME = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const DIST = path.join(HOME, 'dist');
/** Where Debian's package fonts-inter has them. */
const FONTS = '/usr/share/fonts/opentype/inter';
const ICONS = path.join(HOME, 'node_modules/@grafana/ui/dist/public');

/** A name that is never looked up: all that the page asks for is answered here. */
const ORIGIN = 'http://preview.invalid';

const USAGE = `usage: npm run shoot -- [options] BOARD.json...
  --prometheus URL     the HTTP API that is asked (http://127.0.0.1:9090)
  --minutes N          how far back the boards look (15)
  --to SECONDS         the end of the time shown, since 1970 (now)
  --scrape SECONDS     the scrape interval that the data source is told (15, as Grafana has it by default)
  --var NAME=VALUE     a choice; may be repeated
  --out DIRECTORY      where NAME.png of NAME.json goes (.)
  --width PIXELS       of the picture (1600)
  --chromium PATH      the browser (/usr/bin/chromium)`;

const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

const OPTIONS = {
  prometheus: { type: 'string', default: 'http://127.0.0.1:9090' },
  minutes: { type: 'string', default: '15' },
  to: { type: 'string' },
  scrape: { type: 'string', default: '15' },
  var: { type: 'string', multiple: true, default: [] as string[] },
  out: { type: 'string', default: '.' },
  width: { type: 'string', default: '1600' },
  chromium: { type: 'string', default: '/usr/bin/chromium' },
} as const;

function number(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) {
    throw new Error(`--${name} ${text}: a number above 0 is wanted`);
  }
  return value;
}

function chosen(choices: string[]): Record<string, string[]> {
  const found: Record<string, string[]> = {};
  for (const choice of choices) {
    const [name, value] = choice.split(/=(.*)/s);
    if (!name || !value) {
      throw new Error(`--var ${choice}: NAME=VALUE is wanted`);
    }
    (found[name] ??= []).push(value);
  }
  return found;
}

/** Where a file of the bundle is, an icon of Grafana's, or a letter of the system's: its packages have none. */
function place(pathname: string): string {
  const icon = /^\/public\/build\/(.*)$/.exec(pathname)?.[1];
  const font = /^\/public\/fonts\/inter\/(.*)\.woff2$/.exec(pathname)?.[1];
  if (icon !== undefined) {
    return path.join(ICONS, icon);
  }
  return font === undefined ? path.join(DIST, pathname) : path.join(FONTS, `${font}.otf`);
}

async function file(route: Route, pathname: string): Promise<void> {
  const found = place(pathname);
  try {
    await route.fulfill({ body: await readFile(found), contentType: TYPES[path.extname(found)] });
  } catch {
    await route.fulfill({ status: 404, body: '' });
  }
}

async function serve(page: Page, prometheus: string, request: Request): Promise<void> {
  await page.route('**/*', async (route) => {
    const { pathname, search } = new URL(route.request().url());
    const asked = /^\/prometheus(\/.*)$/.exec(pathname)?.[1];
    if (asked !== undefined) {
      const answer = await fetch(`${prometheus}${asked}${search}`);
      await route.fulfill({ status: answer.status, body: await answer.text(), contentType: 'application/json' });
    } else if (pathname === '/request.json') {
      await route.fulfill({ json: request });
    } else {
      await file(route, pathname);
    }
  });
}

/** Fails with what the page says, or with what it wrote to its console. */
async function shoot(page: Page, target: string, width: number): Promise<void> {
  const errors: string[] = [];
  page.on('pageerror', (error) => errors.push(error.stack ?? error.message));
  await page.goto(`${ORIGIN}/index.html`);
  await page.waitForSelector('body[data-state]', { timeout: 60_000 });
  const state = await page.getAttribute('body', 'data-state');
  if (state !== 'ready') {
    throw new Error(state ?? 'the page has no state');
  }
  const content = page.locator('#root > div:first-child');
  // What is out of sight draws itself when it comes in sight.
  const height = Math.ceil((await content.boundingBox())?.height ?? 0);
  await page.setViewportSize({ width, height });
  await page.waitForLoadState('networkidle');
  await page.waitForTimeout(500);
  if (errors.length > 0) {
    throw new Error(errors.join('\n'));
  }
  await content.screenshot({ path: target });
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  if (positionals.length === 0) {
    throw new Error(USAGE);
  }
  const to = values.to === undefined ? Date.now() : number('to', values.to) * 1000;
  const from = to - number('minutes', values.minutes) * 60_000;
  const scrape = number('scrape', values.scrape);
  const width = number('width', values.width);
  await mkdir(values.out, { recursive: true });
  await build({ root: HOME, logLevel: 'error', build: { outDir: DIST, emptyOutDir: true, chunkSizeWarningLimit: 20_000 } });
  const browser = await chromium.launch({ executablePath: values.chromium, args: ['--no-sandbox'] });
  try {
    for (const source of positionals) {
      const board = JSON.parse(await readFile(source, 'utf8')) as Board;
      const page = await browser.newPage({ viewport: { width, height: 1000 } });
      await serve(page, values.prometheus, { board, from, to, scrape, chosen: chosen(values.var) });
      const target = path.join(values.out, `${path.basename(source, '.json')}.png`);
      await shoot(page, target, width);
      await page.close();
      console.log(target);
    }
  } finally {
    await browser.close();
  }
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
