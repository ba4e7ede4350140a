// SPDX-License-Identifier: AGPL-3.0-only
// A discord.js bot behind the WebSocket front, as it always was, answers what Discord posts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Http } from '../harness/http.mjs';
import { RabbitMq } from '../harness/rabbitmq.mjs';
import { Stage } from '../harness/stage.mjs';
import { until } from '../harness/until.mjs';

const TO_CLIENTS = ['[[http.routes]]', 'to = ["websocket"]'];

/** Types of interactions, and of what answers them. */
const [COMMAND, COMPONENT, AUTOCOMPLETE, MODAL] = [2, 3, 4, 5];
const [MESSAGE, DEFERRED, UPDATE, CHOICES, FORM] = [4, 5, 7, 8, 9];

/** What a user does, and what the bot calls back with. */
const PRESSES = {
  'a command: reply': [{ kind: COMMAND, name: 'ping' }, MESSAGE],
  'a command: deferReply, then editReply': [{ kind: COMMAND, name: 'think' }, DEFERRED],
  'a button: update': [{ kind: COMPONENT, name: 'vote:1' }, UPDATE],
  'autocomplete: respond': [{ kind: AUTOCOMPLETE, name: 'find' }, CHOICES],
  'a command: showModal': [{ kind: COMMAND, name: 'form' }, FORM],
  'the modal: reply': [{ kind: MODAL, name: 'form' }, MESSAGE],
};

/** Discord posts it; 202 comes once the bot has it; the bot calls back. */
async function press(stage, press) {
  const { simulator } = stage;
  const pressed = await simulator.press(stage.interactions, press);
  assert.deepEqual([pressed.status, pressed.failure], [202, null]);
  await until('the bot calls back', async () => (await simulator.followed(pressed)).callback !== null);
  return simulator.followed(pressed);
}

const steps = {
  'each kind, in a guild of each shard and without one': async (stage) => {
    const bot = await stage.readyBot('discord.js, no zlib-sync');
    const [one] = stage.simulator.guilds();
    const other = stage.simulator.guilds().find((guild) => stage.shardOf(guild) !== stage.shardOf(one));
    for (const guild of [one, other, null]) {
      for (const [what, [pressed, callback]] of Object.entries(PRESSES)) {
        const followed = await press(stage, { ...pressed, guild });
        assert.deepEqual([followed.callback, followed.by_rest], [callback, true], what);
        assert.equal(bot.of('interaction').at(-1).guild, guild, what);
      }
    }
    // An autocomplete's focused word and a modal's text came along: the library would have thrown.
    assert.deepEqual(bot.of('failed'), []);
    assert.equal(bot.of('interaction').length, 3 * Object.keys(PRESSES).length);
  },

  'two bots on one shard: each interaction reaches one of them': async (stage) => {
    const [one] = stage.bots;
    const other = await stage.readyBot('discord.js, no zlib-sync');
    const ids = () => [one, other].flatMap((bot) => bot.of('interaction').map(({ interaction }) => interaction));
    const before = ids().length;
    for (let n = 0; n < 10; n += 1) {
      assert.equal((await press(stage, { kind: COMMAND, name: 'ping' })).callback, MESSAGE);
    }
    await stage.barrier(one);
    await stage.barrier(other);
    assert.equal(ids().length, before + 10);
    assert.equal(new Set(ids()).size, before + 10);
    assert.ok(other.of('interaction').length > 0, 'they take turns');
    await other.kill();
  },

  'the bot is killed with -9: Discord hears that nobody is there, and the next life answers': async (stage) => {
    const [bot] = stage.bots;
    await bot.kill();
    const ping = { kind: COMMAND, name: 'ping' };
    await until('nobody is there', async () => (await stage.simulator.press(stage.interactions, ping)).status === 504);
    bot.start();
    await bot.ready();
    assert.equal((await press(stage, ping)).callback, MESSAGE);
  },
};

/** `up` has all services; or `http` has a process of its own, and RabbitMQ is between the two. */
const PLACES = {
  'in one process': async () => {
    const stage = await Stage.open('holdfast', { http: [...TO_CLIENTS, '[api]', 'listen = "127.0.0.1:0"'] });
    assert.ok(stage.holdfast.rest, 'the bot calls back through it');
    stage.interactions = stage.holdfast.interactions;
    return { stage, close: () => stage.close() };
  },

  'over RabbitMQ': async () => {
    const rabbitmq = await RabbitMq.open();
    try {
      const stage = await Stage.open('holdfast', { ws: rabbitmq.settings() });
      const http = await Http.start(stage.simulator, [...TO_CLIENTS, ...rabbitmq.broker()]);
      stage.workers.push(http);
      stage.interactions = http.interactions;
      const close = async () => {
        await stage.close();
        await http.stop();
        await rabbitmq.close();
      };
      return { stage, close };
    } catch (error) {
      await rabbitmq.close();
      throw error;
    }
  },
};

for (const [where, open] of Object.entries(PLACES)) {
  test(`holdfast: discord.js answers what Discord posts, ${where}`, { timeout: 300_000 }, async (t) => {
    const { stage, close } = await open();
    try {
      for (const [step, play] of Object.entries({ ...steps, 'nothing to punish': (s) => s.assertClean() })) {
        let done = false;
        await t.test(step, async () => {
          await stage.withSaid(() => play(stage));
          done = true;
        });
        // What follows builds on it.
        if (!done) break;
      }
    } finally {
      await close();
    }
  });
}
