// Opens reports in headless Chromium, as people look at them: light, dark, on a phone, printed.
//
//   node check.mjs SCREENSHOTS REPORT.html...
//
// Fails on a console message, a request that leaves the file, a script in it, an accessibility
// violation of any impact that axe knows, and a page that is wider than a phone. Screenshots go to the
// folder SCREENSHOTS. Needs a Chromium (CHROMIUM, or /usr/bin/chromium); downloads none.
import { createRequire } from 'node:module';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const [screenshots, ...reports] = process.argv.slice(2);
if (!screenshots || reports.length === 0) {
  console.error('usage: node check.mjs SCREENSHOTS REPORT.html...');
  process.exit(2);
}
mkdirSync(screenshots, { recursive: true });

const modes = [
  { name: 'light', width: 1280, colorScheme: 'light' },
  { name: 'dark', width: 1280, colorScheme: 'dark' },
  { name: 'phone', width: 390, colorScheme: 'light' },
  { name: 'phone-dark', width: 390, colorScheme: 'dark' },
  { name: 'print', width: 800, colorScheme: 'light', media: 'print' },
];
const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const profile = mkdtempSync(join(tmpdir(), 'lbaudit-chromium-'));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  headless: true,
  args: flags,
});

let wrong = 0;
const complain = (where, what) => {
  wrong += 1;
  console.error(`WRONG ${where}: ${what}`);
};

async function look(report, mode) {
  const url = pathToFileURL(resolve(report)).href;
  const where = `${report} (${mode.name})`;
  const page = await context.newPage();
  const requests = [];
  page.on('request', (request) => requests.push(request.url()));
  page.on('console', (message) => complain(where, `console: ${message.text()}`));
  page.on('pageerror', (error) => complain(where, `error in the page: ${error.message}`));
  await page.setViewportSize({ width: mode.width, height: 900 });
  await page.emulateMedia({ colorScheme: mode.colorScheme, media: mode.media ?? 'screen' });
  await page.goto(url, { waitUntil: 'load' });

  const elsewhere = requests.filter((one) => one !== url && !one.startsWith('data:'));
  console.log(`${where}: ${requests.length} request(s), ${elsewhere.length} of them elsewhere`);
  elsewhere.forEach((one) => complain(where, `asks for ${one}`));

  const facts = await page.evaluate(() => ({
    scripts: document.scripts.length,
    inline: [...document.querySelectorAll('*')]
      .flatMap((element) => element.getAttributeNames())
      .filter((name) => name.startsWith('on')).length,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    findings: document.querySelectorAll('article.finding').length,
    maps: document.querySelectorAll('.map').length,
    // Each map shows one of its two folds, whole and inside its box.
    badMaps: [...document.querySelectorAll('.map')].filter((map) => {
      const shown = [...map.querySelectorAll('svg')].filter((svg) => svg.getClientRects().length > 0);
      const box = map.getBoundingClientRect();
      return shown.length !== 1 || shown.some((svg) => {
        const is = svg.getBoundingClientRect();
        return is.left < box.left || is.right > box.right || is.bottom > box.bottom;
      });
    }).length,
    // A link that leads nowhere.
    lost: [...document.querySelectorAll('a[href^="#"]')]
      .map((link) => link.getAttribute('href').slice(1))
      .filter((id) => !document.getElementById(id)),
    index: document.querySelectorAll('nav.index a').length,
  }));
  console.log(`  ${facts.findings} finding(s), ${facts.maps} map(s)`);
  if (facts.badMaps > 0) complain(where, `${facts.badMaps} map(s) are cut off or not shown once`);
  facts.lost.forEach((id) => complain(where, `there is no #${id}`));
  if (facts.findings > 0 && facts.index === 0) complain(where, 'there is no index of findings');
  if (facts.scripts > 0 || facts.inline > 0) complain(where, 'there is a script in it');
  if (facts.wide > 0 && mode.media !== 'print') complain(where, `${facts.wide} px too wide`);

  // What is folded away is looked at, too. This is the checker's script, not the page's.
  await page.evaluate(() => document.querySelectorAll('details').forEach((it) => { it.open = true; }));
  await page.evaluate(axe);
  const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  for (const violation of result.violations) {
    const nodes = violation.nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary ?? ''}`);
    complain(where, `axe ${violation.id} (${violation.impact}): ${violation.help}\n  ${nodes.join('\n  ')}`);
  }
  console.log(`  axe ${result.testEngine.version}: ${result.violations.length} violation(s)`);
  await page.evaluate(() => document.querySelectorAll('details').forEach((it) => { it.open = false; }));
  const name = `${basename(dirname(dirname(resolve(report))))}-${basename(report, '.html')}-${mode.name}`;
  // A page of many findings is longer than any picture.
  const height = await page.evaluate(() => Math.min(document.documentElement.scrollHeight, 9000));
  await page.setViewportSize({ width: mode.width, height });
  await page.screenshot({ path: join(screenshots, `${name}.png`) });
  if (mode.media === 'print') {
    await page.pdf({ path: join(screenshots, `${name}.pdf`), format: 'A4' });
  }
  await page.close();
}

try {
  for (const report of reports) {
    for (const mode of modes) await look(report, mode);
  }
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
console.log(wrong === 0 ? 'nothing is wrong' : `${wrong} thing(s) are wrong`);
process.exit(wrong === 0 ? 0 : 1);
