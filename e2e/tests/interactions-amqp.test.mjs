// SPDX-License-Identifier: AGPL-3.0-only
// Workers on RabbitMQ answer what Discord posts: in time, late, twice, wrongly, after a death of theirs or of `http`'s.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Answerer } from '../harness/answerer.mjs';
import { Http } from '../harness/http.mjs';
import { RabbitMq } from '../harness/rabbitmq.mjs';
import { Simulator } from '../harness/simulator.mjs';
import { FULL } from '../harness/stage.mjs';
import { until } from '../harness/until.mjs';
import { LANGUAGES } from '../harness/worker.mjs';

/** Types of interactions, and of what answers them. */
const [COMMAND, COMPONENT, AUTOCOMPLETE, MODAL] = [2, 3, 4, 5];
const [MESSAGE, DEFERRED, DEFERRED_UPDATE, UPDATE, CHOICES, FORM] = [4, 5, 6, 7, 8, 9];
const EPHEMERAL = 64;

/** There is no `ws` here. */
const TO_A_BOT = ['[[http.routes]]', 'name = "bot"', 'to = ["websocket"]'];

const WAITING = { type: DEFERRED };

/** Discord posts it and accepts the answer, whatever it is. */
async function press({ simulator, http }, name, kind = COMMAND) {
  const pressed = await simulator.press(http.interactions, { kind, name });
  assert.equal(pressed.failure, null, name);
  return pressed;
}

/** The answer, and no later than that. */
async function assertAnswer(stage, name, kind, answer, { from = 0, to = 1_000 } = {}) {
  const pressed = await press(stage, name, kind);
  assert.deepEqual(pressed.answer, answer, name);
  assert.ok(pressed.took_ms >= from && pressed.took_ms < to, `${name}: after ${pressed.took_ms} ms`);
  return pressed;
}

const SOON_DEFERRED = { from: 1_990, to: 3_000 };

/** Discord was told to wait, and nobody has said anything since. */
function assertDeferred(stage, name, kind = COMMAND, answer = WAITING) {
  return assertAnswer(stage, name, kind, answer, SOON_DEFERRED);
}

/** The deferred message's edits, as soon as there are any. */
async function edits({ simulator }, pressed) {
  return until('an edit', async () => {
    const { edits } = await simulator.followed(pressed);
    return edits.length > 0 && edits;
  });
}

/** The worker has begun. */
function isAsked({ worker }, key, times = 1) {
  return worker.until(`${key} arrives`, () => worker.of('asked').filter((report) => report.key === key).length >= times);
}

const stepsOf = (language) => ({
  'a message, an update, choices, a modal, at once': async (stage) => {
    const { worker } = stage;
    // Its queue is bound when something comes.
    await until('the worker answers', async () => (await press(stage, 'ping')).answer.type === MESSAGE);
    await assertAnswer(stage, 'ping', COMMAND, { type: MESSAGE, data: { content: 'pong' } });
    await assertAnswer(stage, 'vote:1', COMPONENT, { type: UPDATE, data: { content: 'voted' } });
    const choices = [{ name: 'hello', value: 'hello' }];
    await assertAnswer(stage, 'find', AUTOCOMPLETE, { type: CHOICES, data: { choices } });
    const { answer } = await press(stage, 'form');
    assert.deepEqual([answer.type, answer.data.custom_id], [FORM, 'form']);
    await assertAnswer(stage, 'form', MODAL, { type: MESSAGE, data: { content: 'read' } });
    assert.ok(worker.of('asked').some(({ key }) => key === 'component.vote'));
  },

  'after 1 s it is the answer': async (stage) => {
    await assertAnswer(stage, 'after-1', COMMAND, { type: MESSAGE, data: { content: 'after 1 s' } }, { from: 990, to: 2_000 });
  },

  'after 2.5 s Discord has been told to wait, and the message is edited': async (stage) => {
    const command = assertDeferred(stage, 'after-2.5');
    const component = assertDeferred(stage, 'after-2.5', COMPONENT, { type: DEFERRED_UPDATE });
    const autocomplete = assertDeferred(stage, 'after-2.5', AUTOCOMPLETE, { type: CHOICES, data: { choices: [] } });
    assert.deepEqual(await edits(stage, await command), [{ content: 'after 2.5 s' }]);
    assert.deepEqual(await edits(stage, await component), [{ content: 'voted late' }]);
    assert.deepEqual((await stage.simulator.followed(await autocomplete)).edits, []);
  },

  'never: Discord is told to wait, and that is all': async (stage) => {
    const pressed = await assertDeferred(stage, 'never');
    assert.deepEqual((await stage.simulator.followed(pressed)).edits, []);
    assert.ok((await stage.http.metric('holdfast_http_waiting_late')) >= 1);
  },

  'an answer that comes twice counts once': async (stage) => {
    await assertAnswer(stage, 'twice', COMMAND, { type: MESSAGE, data: { content: 'once' } });
    const pressed = await assertDeferred(stage, 'twice-late');
    const refused = () => stage.http.metric('holdfast_http_late_total{outcome="already_answered"}');
    await until('the second one is refused', async () => (await refused()) === 1);
    assert.deepEqual(await edits(stage, pressed), [{ content: 'once' }]);
  },

  'what a worker says after its answer counts for nothing': async (stage) => {
    const refused = () => stage.http.metric('holdfast_http_late_total{outcome="already_answered"}');
    const before = await refused();
    const answers = [COMMAND, COMPONENT].map((kind) => assertAnswer(stage, 'again', kind, { type: MESSAGE, data: { content: 'once' } }));
    const pressed = await Promise.all(answers);
    await until('what comes then is refused', async () => (await refused()) === before + 2);
    for (const each of pressed) {
      const { edits, follow_ups } = await stage.simulator.followed(each);
      assert.deepEqual([edits, follow_ups], [[], []]);
    }
  },

  'interactions for a bot that was never there disturb nobody': async (stage) => {
    const { simulator, http } = stage;
    for (let n = 0; n < 10; n += 1) {
      const bot = simulator.press(http.interactions, { kind: COMMAND, name: 'bot' });
      await assertAnswer(stage, 'ping', COMMAND, { type: MESSAGE, data: { content: 'pong' } });
      assert.equal((await bot).status, 504);
    }
  },

  "http's connection is cut while a worker works: what it says arrives": async (stage) => {
    const pressing = press(stage, 'after-1');
    await isAsked(stage, 'command.after-1', 2);
    stage.rabbitmq.ofHoldfast.cut('rst');
    const pressed = await pressing;
    const said = { content: 'after 1 s' };
    if (pressed.answer.type === DEFERRED) assert.deepEqual(await edits(stage, pressed), [said]);
    else assert.deepEqual(pressed.answer.data, said);
  },

  'nonsense is not passed on: Discord is told to wait, and sense may follow': async (stage) => {
    const pressed = await assertAnswer(stage, 'nonsense', COMMAND, WAITING);
    assert.deepEqual(await edits(stage, pressed), [{ content: 'sense' }]);
    assert.equal(await stage.http.metric('holdfast_http_deferred_total{cause="invalid"}'), 1);
  },

  'a worker killed with -9 finds in its next life what it had begun, and what came meanwhile': async (stage) => {
    const { worker } = stage;
    const begun = assertDeferred(stage, 'told');
    await isAsked(stage, 'command.told');
    await worker.kill();
    const missed = assertDeferred(stage, 'ping');
    const [first, second] = [await begun, await missed];
    worker.start();
    assert.deepEqual(await edits(stage, second), [{ content: 'pong' }]);
    await isAsked(stage, 'command.told', 2);
    worker.tell();
    assert.deepEqual(await edits(stage, first), [{ content: 'as told' }]);
  },

  'a late reply outlives http': async (stage) => {
    const { worker, http } = stage;
    await worker.kill();
    const pressed = await assertDeferred(stage, 'told');
    await http.kill();
    worker.start();
    await isAsked(stage, 'command.told', 3);
    worker.tell();
    await stage.rabbitmq.holds('interactions.late', 1);
    await http.start();
    assert.deepEqual(await edits(stage, pressed), [{ content: 'as told' }]);
  },

  ...(language === 'rust' && {
    'what a worker has deferred itself outlives http': async (stage) => {
      const pressed = await assertAnswer(stage, 'deferring', COMMAND, { type: DEFERRED, data: { flags: EPHEMERAL } });
      // Before it has sent anything: it waits a second for Discord to have the deferral.
      await stage.http.kill();
      await stage.http.start();
      assert.deepEqual(await edits(stage, pressed), [{ content: 'deferred' }]);
    },

    // Holdfast would have promised an update, and a message would follow that.
    'a message that a worker has promised itself is edited, after a button too': async (stage) => {
      const pressed = await assertAnswer(stage, 'deferring', COMPONENT, { type: DEFERRED, data: { flags: EPHEMERAL } });
      assert.deepEqual(await edits(stage, pressed), [{ content: 'deferred' }]);
      assert.deepEqual((await stage.simulator.followed(pressed)).follow_ups, []);
    },
  }),

  'RabbitMQ is out of reach for http: Discord is told to wait, and to send its events again': async (stage) => {
    const { simulator, http, worker, rabbitmq } = stage;
    rabbitmq.ofHoldfast.hold();
    rabbitmq.ofHoldfast.cut('rst');
    const pressed = await assertDeferred(stage, 'ping');
    const event = () => simulator.postEvent(http.events, 'ENTITLEMENT_CREATE', { id: '7' });
    assert.equal(await event(), 503);
    rabbitmq.ofHoldfast.release();
    await until('http is connected again', () => http.isReady());
    // It was kept, and is asked now.
    assert.deepEqual(await edits(stage, pressed), [{ content: 'pong' }]);
    await assertAnswer(stage, 'ping', COMMAND, { type: MESSAGE, data: { content: 'pong' } });
    assert.equal(await event(), 204);
    await worker.until('the event arrives', () => worker.of('event').length > 0);
  },

  'a webhook event that Discord sends again arrives once': async (stage) => {
    const { simulator, http, worker } = stage;
    const before = worker.of('event').length;
    const event = (name, data) => simulator.postEvent(http.events, name, data);
    for (let n = 0; n < 3; n += 1) assert.equal(await event('APPLICATION_AUTHORIZED', { scopes: ['bot'] }), 204);
    assert.equal(await event('ENTITLEMENT_CREATE', { id: '8' }), 204);
    const since = () => worker.of('event').slice(before);
    await worker.until('the last one arrives', () => since().some(({ data }) => data.id === '8'));
    const known = { e: 'event', type: 'holdfast.v1.WebhookEvent', known: true };
    assert.deepEqual(since(), [
      { ...known, name: 'APPLICATION_AUTHORIZED', data: { scopes: ['bot'] } },
      { ...known, name: 'ENTITLEMENT_CREATE', data: { id: '8' } },
    ]);
  },

  "the worker's connection is cut: it comes back": async (stage) => {
    for (const how of ['rst', 'fin']) {
      stage.rabbitmq.ofWorkers.cut(how);
      const pressed = await press(stage, 'ping');
      if (pressed.answer.type === DEFERRED) assert.deepEqual(await edits(stage, pressed), [{ content: 'pong' }]);
      await assertAnswer(stage, 'ping', COMMAND, { type: MESSAGE, data: { content: 'pong' } });
    }
  },

  ...(FULL && {
    'after 10 s the message is edited': async (stage) => {
      const pressed = await assertDeferred(stage, 'after-10');
      assert.deepEqual(await edits(stage, pressed), [{ content: 'after 10 s' }]);
    },
  }),

  'http ends in order: what is being answered is answered': async (stage) => {
    const { worker, http } = stage;
    const answered = assertAnswer(stage, 'after-1', COMMAND, { type: MESSAGE, data: { content: 'after 1 s' } }, { from: 990, to: 2_000 });
    // Once more than it was by what came before, the one that was cut among it.
    await isAsked(stage, 'command.after-1', 4);
    assert.equal((await http.terminate()).code, 0);
    await answered;
  },
});

for (const language of Object.keys(LANGUAGES)) {
  test(`holdfast: a ${language} worker answers what Discord posts`, { timeout: 300_000 }, async (t) => {
    const rabbitmq = await RabbitMq.open();
    const simulator = await Simulator.start();
    const stage = { rabbitmq, simulator };
    const said = () => [simulator, stage.http, stage.worker].map((each) => `──── ${each?.name ?? 'simulator'}\n${each?.tail}`);
    try {
      stage.http = await Http.start(simulator, [...TO_A_BOT, ...rabbitmq.broker()]);
      stage.worker = new Answerer(language, { url: rabbitmq.url(rabbitmq.ofWorkers), prefix: rabbitmq.prefix }).start();
      for (const [step, play] of Object.entries(stepsOf(language))) {
        let done = false;
        await t.test(step, async () => {
          try {
            await play(stage);
          } catch (error) {
            error.message += `\n${said().join('\n')}`;
            throw error;
          }
          done = true;
        });
        // What follows builds on it.
        if (!done) break;
      }
    } finally {
      await stage.worker?.kill();
      await stage.http?.stop();
      await simulator.stop();
      await rabbitmq.close();
    }
  });
}
