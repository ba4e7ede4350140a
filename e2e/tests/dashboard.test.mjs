// SPDX-License-Identifier: AGPL-3.0-only
// The dashboard in a real browser: told by Holdfast, and fed with what takes a large bot to happen.
// `E2E_SCREENSHOTS` names a folder for the pictures of docs/guides/operate.md.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { join } from 'node:path';
import { Browser } from '../harness/browser.mjs';
import { Feeder, snapshot } from '../harness/feeder.mjs';
import { Stage } from '../harness/stage.mjs';
import { until } from '../harness/until.mjs';

const STATES = { live: 'L', resuming: 'R', identifying: 'I', connecting: 'C', stopped: 'X', unowned: '?', elsewhere: 'E' };

let stage;
let browser;

before(async () => {
  stage = await Stage.open('holdfast', { shards: 2 });
  browser = await Browser.open();
});

after(async () => {
  await browser?.close();
  await stage?.close();
});

const text = (page, selector) => page.locator(selector).textContent();
const state = (page, shard) => page.locator(`#s${shard}`).getAttribute('class');
const shows = (page, selector, part) =>
  until(`${selector} shows ${part}`, async () => (await text(page, selector)).includes(part), {
    describe: () => text(page, selector),
  });

/** A page that is told `first`. */
async function fed(t, first) {
  const feeder = await Feeder.open(await (await fetch(stage.holdfast.admin)).text());
  feeder.tell(first);
  const page = await browser.visit(feeder.url);
  t.after(async () => {
    await page.close();
    await feeder.close();
  });
  await until('all shards are there', async () => (await page.locator('.cell').count()) === first.total);
  return { feeder, page };
}

const picture = async (page, name) => {
  const folder = process.env.E2E_SCREENSHOTS;
  if (folder) await page.screenshot({ path: join(folder, `dashboard-${name}.png`), fullPage: true });
};

/** Nothing is wider than the window. */
const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);

test('a shard drops and comes back, and so does Holdfast', { timeout: 120_000 }, async () => {
  const page = await browser.visit(stage.holdfast.admin);
  await shows(page, '#headline', '2 of 2 shards live');
  await shows(page, '#conditions', 'ready');
  assert.equal(await text(page, '#news'), '', 'nothing is news yet');
  await stage.simulator.fault({ shard: 1, kind: 'refuse' });
  await stage.simulator.fault({ shard: 1, kind: 'rst' });
  await shows(page, '#headline', '1 of 2 shards live');
  assert.doesNotMatch(await state(page, 1), /live/);
  assert.match(await text(page, '#conditions'), /ws: 1 of 2 shards are live/);
  await shows(page, '#news', 'shard 1');
  await stage.simulator.control('DELETE', 'fault');
  await shows(page, '#headline', '2 of 2 shards live');
  await shows(page, '#news', 'shard 1 live. 2 of 2 live.');
  assert.deepEqual(browser.complaints, []);
  const origins = new Set(browser.requests.map((url) => new URL(url).origin));
  assert.deepEqual([...origins], [stage.holdfast.admin], 'nothing from elsewhere');

  await stage.holdfast.kill();
  await shows(page, '#link', 'not connected, figures of');
  await stage.holdfast.start();
  await until('it is live again', async () => (await text(page, '#link')) === 'live');
  // That nobody answered meanwhile is no fault of the page's.
  browser.complaints = browser.complaints.filter((complaint) => !complaint.includes('net::ERR_'));
  await page.close();
});

test('a client that dies falls behind, and is told so', { timeout: 120_000 }, async () => {
  const bot = await stage.readyBot('discord.js, zlib-sync');
  const page = await browser.visit(stage.holdfast.admin);
  const rows = () => page.locator('#clients tr').allTextContents();
  const show = (pattern) => until(`clients are like ${pattern}`, async () => (await rows()).some((row) => pattern.test(row)), { describe: rows });
  await show(/connected *\d+$/);
  await bot.kill();
  await show(/waited for *\d+$/);
  await stage.simulator.traffic({ burst: 20 });
  await stage.simulator.trafficOver();
  // What the bot had been written when it died is no lag.
  await show(/waited for *[1-9]\d*$/);
  await page.close();
});

test('each state has a letter, a name and a place in the legend', async (t) => {
  const phases = { 1: 'resuming', 2: 'identifying', 3: 'connecting', 4: 'stopped' };
  const { feeder, page } = await fed(t, snapshot({ total: 12, here: 8, phases, unowned: [11] }));
  const where = { live: 0, resuming: 1, identifying: 2, connecting: 3, stopped: 4, elsewhere: 8, unowned: 11 };
  for (const [name, shard] of Object.entries(where)) {
    assert.match(await state(page, shard), new RegExp(`\\b${name}$`));
    assert.equal(await text(page, `#s${shard} b`), STATES[name]);
  }
  assert.equal(await page.locator('#legend li').count(), 7);
  assert.equal(await page.locator('#s3').getAttribute('aria-label'), 'Shard 3, connecting');
  assert.equal(await text(page, '#headline'), '4 of 8 shards live, 4 elsewhere');
  const replicas = await page.locator('#replicas tr').allTextContents();
  assert.match(replicas[0], /^10\.0\.0\.11:7878 *8 *0-7.*this one$/);
  assert.equal(replicas.length, 3);
  assert.match((await page.locator('#clients tr').allTextContents())[0], /^worker-3 *shard 3 *waited for *412$/);
  feeder.tell(snapshot({ total: 24, tick: 1 }));
  await shows(page, '#headline', '24 of 24 shards live');
  assert.equal(await page.locator('.cell').count(), 24, 'resharded');
  assert.ok(await page.locator('#replicas-section').isHidden());
  assert.deepEqual(browser.complaints, []);
});

test('2,000 shards: by keyboard, filtered, updated in place', { timeout: 120_000 }, async (t) => {
  const phases = Object.fromEntries([[3, 'resuming'], [40, 'connecting'], [41, 'identifying'], [1999, 'stopped']]);
  const { feeder, page } = await fed(t, snapshot({ total: 2000, phases }));
  await page.evaluate(() => { document.getElementById('s1500').mark = true; });

  await page.keyboard.press('Tab');
  await page.keyboard.type('connecting');
  assert.equal(await page.locator('.cell:visible').count(), 1);
  await page.locator('#filter').fill('30-41');
  assert.equal(await page.locator('.cell:visible').count(), 12);
  await page.locator('#filter').fill('7 live 99');
  assert.ok(await page.locator('#none').isVisible());
  await page.locator('#filter').fill('');

  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  const focused = () => page.evaluate(() => document.activeElement.id);
  assert.equal(await focused(), 'grid');
  const chosen = () => page.locator('#grid').getAttribute('aria-activedescendant');
  await page.keyboard.press('ArrowRight');
  assert.equal(await chosen(), 's1');
  await page.keyboard.press('ArrowDown');
  const columns = Number((await chosen()).slice(1)) - 1;
  assert.ok(columns > 5, `${columns} columns`);
  await page.keyboard.press('ArrowUp');
  assert.equal(await chosen(), 's1');
  await page.keyboard.press('End');
  assert.equal(await chosen(), 's1999');
  assert.match(await text(page, '#shard'), /1999 of 2000.*stopped for good/);
  assert.ok(await page.locator('#s1999').isVisible());
  await page.keyboard.press('ArrowLeft');

  feeder.tell(snapshot({ total: 2000, phases: { ...phases, 1500: 'resuming' }, tick: 1 }));
  await until('a shard has changed', async () => /resuming/.test(await state(page, 1500)));
  assert.ok(await page.evaluate(() => document.getElementById('s1500').mark), 'the cell is the same one');
  assert.deepEqual([await focused(), await chosen()], ['grid', 's1998'], 'nothing has moved');
  assert.match(await text(page, '#shard'), /Events per second75/);
  assert.match(await text(page, '#news'), /shard 1500 resuming\. 1,995 of 2,000 live\./);

  const took = await page.evaluate(() => {
    const begun = performance.now();
    for (let round = 0; round < 10; round += 1) draw();
    return (performance.now() - begun) / 10;
  });
  t.diagnostic(`2,000 shards are drawn in ${took.toFixed(1)} ms`);
  assert.ok(took < 250, `${took} ms of each second`);
  assert.deepEqual(browser.complaints, []);
});

test('a narrow window and the dark: all of it fits', async (t) => {
  const first = snapshot({ total: 96, here: 64, phases: { 5: 'resuming', 6: 'resuming', 31: 'connecting' } });
  const { feeder, page } = await fed(t, first);
  feeder.tell(snapshot({ total: 96, here: 64, phases: { 5: 'resuming', 6: 'resuming', 31: 'connecting' }, tick: 1 }));
  await page.locator('#s5').click();
  await shows(page, '#shard', 'resuming');
  await shows(page, '#panel-Broker', '3,120');
  await picture(page, 'light');
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.notEqual(await ground(), light);
  for (const width of [320, 390, 768]) {
    await page.setViewportSize({ width, height: 800 });
    assert.equal(await overflow(page), 0, `${width} wide`);
  }
});

test('the picture of a large bot', { skip: !process.env.E2E_SCREENSHOTS }, async (t) => {
  const phases = Object.fromEntries(Array.from({ length: 9 }, (_, index) => [200 + index, index < 5 ? 'resuming' : 'connecting']));
  const { feeder, page } = await fed(t, snapshot({ total: 2000, phases }));
  feeder.tell(snapshot({ total: 2000, phases, tick: 1 }));
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.locator('#s204').click();
  await shows(page, '#shard', 'resuming');
  await picture(page, 'dark');
});
