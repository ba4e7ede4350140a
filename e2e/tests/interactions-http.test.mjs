// SPDX-License-Identifier: AGPL-3.0-only
// A worker behind a URL, which checks what comes as if it came from Discord, with the library for that.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { InteractionResponseType, InteractionType, verifyKey } from 'discord-interactions';
import { Http } from '../harness/http.mjs';
import { Simulator } from '../harness/simulator.mjs';
import { until } from '../harness/until.mjs';

const COMMAND = InteractionType.APPLICATION_COMMAND;
const DEFERRED = { type: InteractionResponseType.DEFERRED_CHANNEL_MESSAGE_WITH_SOURCE };
const message = (content) => ({ type: InteractionResponseType.CHANNEL_MESSAGE_WITH_SOURCE, data: { content } });

/** A worker as its users write it. */
class WebWorker {
  /** The requests that it took for Discord's: `{ headers, body }`. */
  taken = [];
  #key;
  #server;

  static async open(key) {
    const worker = new WebWorker();
    worker.#key = key;
    worker.#server = createServer((request, response) => worker.#serve(request, response));
    await new Promise((resolve) => worker.#server.listen(0, '127.0.0.1', resolve));
    return worker;
  }

  url(path) {
    return `http://127.0.0.1:${this.#server.address().port}${path}`;
  }

  async #serve(request, response) {
    const { headers, url } = request;
    const body = await buffer(request);
    if (!(await verifyKey(body, headers['x-signature-ed25519'], headers['x-signature-timestamp'], this.#key))) {
      return response.writeHead(401).end('bad request signature');
    }
    this.taken.push({ headers, body });
    const { data } = JSON.parse(body);
    if (url === '/events') return response.writeHead(204).end();
    // It will call back by the REST API.
    if (data.name === 'by-rest') return response.writeHead(202).end();
    if (data.name === 'slow') await pause(2_500);
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(message(data.name)));
  }

  close() {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Somebody sends on what the worker has had before; with other bytes, another signature or another time. */
async function sendOn(worker, { headers, body }, change = {}) {
  const { signature = headers['x-signature-ed25519'], time = headers['x-signature-timestamp'], ...other } = change;
  const answer = await fetch(worker.url('/interactions'), {
    method: 'POST',
    headers: {
      'content-type': headers['content-type'],
      'x-signature-ed25519': signature,
      'x-signature-timestamp': time,
    },
    body: other.body ?? body,
  });
  return answer.status;
}

const steps = {
  "Discord's signature arrives, and the worker's answer becomes the answer": async ({ simulator, http, worker }) => {
    const pressed = await simulator.press(http.interactions, { kind: COMMAND, name: 'ping' });
    assert.deepEqual([pressed.status, pressed.answer, pressed.failure], [200, message('ping'), null]);
    assert.equal(worker.taken.length, 1);
  },

  'what was changed on the way is refused': async ({ worker }) => {
    const [taken] = worker.taken;
    const { 'x-signature-ed25519': signature, 'x-signature-timestamp': time } = taken.headers;
    assert.equal(await sendOn(worker, taken), 200);
    const body = Buffer.from(taken.body.toString().replace('"ping"', '"pong"'));
    assert.equal(body.length, taken.body.length);
    const other = signature[0] === '0' ? '1' : '0';
    for (const change of [{ body }, { time: String(Number(time) + 1) }, { signature: other + signature.slice(1) }]) {
      assert.equal(await sendOn(worker, taken, change), 401, Object.keys(change).join());
    }
  },

  'a worker that calls back says so by 202': async ({ simulator, http }) => {
    const pressed = await simulator.press(http.interactions, { kind: COMMAND, name: 'by-rest' });
    assert.deepEqual([pressed.status, pressed.failure], [202, null]);
  },

  'a slow one: Discord is told to wait, and the message is edited': async ({ simulator, http }) => {
    const pressed = await simulator.press(http.interactions, { kind: COMMAND, name: 'slow' });
    assert.deepEqual([pressed.answer, pressed.failure], [DEFERRED, null]);
    const followed = () => simulator.followed(pressed);
    await until('the edit', async () => (await followed()).edits.length > 0);
    assert.deepEqual((await followed()).edits, [message('slow').data]);
  },

  'webhook events arrive with their signature, once': async ({ simulator, http, worker }) => {
    const before = worker.taken.length;
    for (let n = 0; n < 2; n += 1) {
      assert.equal(await simulator.postEvent(http.events, 'ENTITLEMENT_CREATE', { id: '7' }), 204);
    }
    const events = worker.taken.slice(before).map(({ body }) => JSON.parse(body).event);
    assert.deepEqual(events.map(({ type, data }) => [type, data]), [['ENTITLEMENT_CREATE', { id: '7' }]]);
  },

  'no worker: Discord is told to wait at once, and to send its events again': async ({ simulator, http, worker }) => {
    await worker.close();
    const pressed = await simulator.press(http.interactions, { kind: COMMAND, name: 'ping' });
    assert.deepEqual([pressed.answer, pressed.failure], [DEFERRED, null]);
    assert.ok(pressed.took_ms < 1_000, `after ${pressed.took_ms} ms`);
    assert.equal(await simulator.postEvent(http.events, 'ENTITLEMENT_CREATE', { id: '8' }), 503);
  },
};

test('holdfast: a worker behind a URL checks with discord-interactions', { timeout: 120_000 }, async (t) => {
  const simulator = await Simulator.start();
  const worker = await WebWorker.open(await simulator.publicKey());
  let http;
  try {
    http = await Http.start(simulator, [
      '[[http.routes]]',
      'to = ["http"]',
      `url = "${worker.url('/interactions')}"`,
      '[http.events]',
      `url = "${worker.url('/events')}"`,
    ]);
    for (const [step, play] of Object.entries(steps)) await t.test(step, () => play({ simulator, http, worker }));
  } finally {
    await worker.close();
    await http?.stop();
    await simulator.stop();
  }
});
