// SPDX-License-Identifier: AGPL-3.0-only
// Further libraries by the lines that docs/guides/connect.md gives: each connects, gets every message once, and what it
// missed while it was away.

import assert from 'node:assert/strict';
import { OTHERS } from '../harness/bot.mjs';
import { story } from '../harness/stage.mjs';
import { WORLD } from '../harness/simulator.mjs';

/** Each message that was sent has reached the bot's handler, once. */
async function assertEach(stage, bot) {
  const sent = await stage.simulator.quiet();
  await bot.caughtUp(sent);
  assert.deepEqual(bot.handled.lost(sent), []);
  assert.deepEqual(bot.handled.twice(), []);
}

story(
  'by the line in the guide',
  { clients: Object.keys(OTHERS), only: true, targets: ['holdfast'] },
  {
    'connects and gets its messages': async (stage, client, told) => {
      told.bot = stage.bot(client, { guilds: WORLD.guilds });
      told.bot.start();
      await told.bot.ready();
      await stage.simulator.traffic({ rate: 100 });
      await stage.flows(told.bot);
      await assertEach(stage, told.bot);
    },

    'gets what it missed': async (stage, client, { bot }) => {
      await bot.kill();
      await stage.alone();
      await stage.simulator.traffic({ burst: 50 });
      await stage.simulator.trafficOver();
      bot.start();
      await assertEach(stage, bot);
    },
  },
);
