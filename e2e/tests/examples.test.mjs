// SPDX-License-Identifier: AGPL-3.0-only
// The examples as their READMEs say to run them: `holdfast up --simulate` with the settings of examples/, and a worker.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BINARY } from '../harness/holdfast.mjs';
import { Program, built } from '../harness/program.mjs';
import { RabbitMq } from '../harness/rabbitmq.mjs';
import { until } from '../harness/until.mjs';

const examples = (path) => fileURLToPath(new URL(`../../examples/${path}`, import.meta.url));

const PYTHON = examples('python-worker/.venv/bin/python');

const WORKERS = {
  'python-worker': [PYTHON, examples('python-worker/worker.py')],
  'typescript-worker': [process.execPath, examples('typescript-worker/dist/worker.js')],
  'go-worker': [examples('go-worker/worker')],
  'rust-worker': [built('worker'), 'events'],
};

const ANSWERERS = {
  'python-worker': [PYTHON, examples('python-worker/interactions_worker.py')],
  'typescript-worker': [process.execPath, examples('typescript-worker/dist/interactions-worker.js')],
  'rust-worker': [built('worker'), 'interactions'],
};

/** Plays with `start`, which starts programs, and `up`, which starts Holdfast with one of the examples' settings. */
async function withExample(play) {
  const rabbitmq = await RabbitMq.open();
  const programs = [];
  const start = (...program) => programs[programs.push(new Program(...program)) - 1];
  const up = (settings, env = {}) =>
    start('holdfast', BINARY, ['up', '--simulate', '--config', examples(settings)], {
      // Nothing of this machine's: names and ports of its own.
      env: {
        HOLDFAST__BROKER__URL: rabbitmq.url(rabbitmq.ofHoldfast),
        HOLDFAST__BROKER__PREFIX: rabbitmq.prefix,
        HOLDFAST__WS__LISTEN: '127.0.0.1:0',
        HOLDFAST__ADMIN__LISTEN: '127.0.0.1:0',
        ...env,
      },
    });
  try {
    await play({ rabbitmq, start, up });
  } finally {
    await Promise.all(programs.map((program) => program.kill()));
    await rabbitmq.close();
  }
}

/** Waits for something that Holdfast says, and gives it. */
function said(holdfast, what) {
  return until('it listens', () => String(holdfast.tail).match(what)?.[1], { describe: () => holdfast.tail });
}

/** Asks the control routes of the simulated Discord, whose address is the first of two that Holdfast says. */
async function simulated(holdfast) {
  const url = await said(holdfast, /REST +(\S+)\/api/);
  return async (path, body) => {
    const headers = { 'content-type': 'application/json' };
    const method = body ? 'POST' : 'GET';
    return (await fetch(`${url}/control/${path}`, { method, headers, body: body && JSON.stringify(body) })).json();
  };
}

for (const [name, [command, ...args]] of Object.entries(WORKERS)) {
  test(`examples: ${name} prints messages`, { timeout: 120_000 }, () =>
    withExample(async ({ rabbitmq, start, up }) => {
      const holdfast = up('holdfast.toml');
      await until('the queue is declared', () => String(holdfast.tail).includes('queues are declared queues=1'), {
        describe: () => holdfast.tail,
      });
      const lines = [];
      const worker = start(name, command, args, {
        env: { AMQP_URL: rabbitmq.url(rabbitmq.ofWorkers), QUEUE: rabbitmq.queue, PYTHONUNBUFFERED: '1' },
        onLine: (line, stream) => void (stream === 'stdout' && lines.push(line)),
      });
      await until('messages are printed', () => lines.length >= 5, { describe: () => worker.tail });
      for (const line of lines) assert.match(line, /^shard [01]  guild \d{17,20}  \S.*: sim \d+ \d+$/);
    }),
  );
}

/** What a user does, and what Discord then has: the answer, and what is edited into it later. */
const PRESSES = [
  [{ kind: 2, name: 'ping' }, { type: 4, data: { content: 'pong' } }],
  [{ kind: 3, name: 'vote:yes' }, { type: 7, data: { content: 'You voted yes.', components: [] } }],
  [{ kind: 4, name: 'find' }, { type: 8, data: { choices: ['chess', 'cheese', 'cherry'].map((name) => ({ name, value: name })) } }],
  [{ kind: 5, name: 'feedback' }, { type: 4, data: { content: 'Thanks!' } }],
  [{ kind: 2, name: 'think' }, { type: 5, data: { flags: 64 } }, { content: '42' }],
];

/** What only some of them show: here, to defer by themselves. */
const MORE_PRESSES = {
  'rust-worker': [[{ kind: 2, name: 'ponder' }, { type: 5, data: { flags: 64 } }, { content: '43' }]],
};

for (const [name, [command, ...args]] of Object.entries(ANSWERERS)) {
  test(`examples: ${name} answers interactions`, { timeout: 120_000 }, () =>
    withExample(async ({ rabbitmq, start, up }) => {
      const holdfast = up('interactions.toml', { HOLDFAST__HTTP__LISTEN: '127.0.0.1:0', HOLDFAST__API__LISTEN: '127.0.0.1:0' });
      const url = await said(holdfast, /webhooks +(\S+)/);
      const discord = await simulated(holdfast);
      const control = (path, press) => discord(path, press && { url, ...press });
      const worker = start(name, command, args, { env: { AMQP_URL: rabbitmq.url(rabbitmq.ofWorkers), PREFIX: rabbitmq.prefix } });
      const answers = async () => (await control('press', PRESSES[0][0])).answer?.type === 4;
      await until('the worker is there', answers, { describe: () => `${worker.tail}\n${holdfast.tail}` });
      for (const [press, answer, edit] of [...PRESSES, ...(MORE_PRESSES[name] ?? [])]) {
        const pressed = await control('press', press);
        assert.deepEqual([pressed.answer, pressed.failure], [answer, null]);
        if (!edit) continue;
        const edits = async () => (await control(`followed/${pressed.token}`)).edits;
        await until('the edit', async () => (await edits()).length > 0);
        assert.deepEqual(await edits(), [edit]);
      }
      assert.equal((await control('press', { kind: 2, name: 'feedback' })).answer.type, 9);
    }),
  );
}

test('examples: rust-worker sends commands, a request and messages by a webhook', { timeout: 120_000 }, () =>
  withExample(async ({ rabbitmq, start, up }) => {
    const holdfast = up('holdfast.toml', { HOLDFAST__API__LISTEN: '127.0.0.1:0', HOLDFAST__WEBHOOK__PARTITIONS: '1' });
    const discord = await simulated(holdfast);
    const run = async (...words) => {
      const lines = [];
      const worker = start('rust-worker', built('worker'), words, {
        env: { AMQP_URL: rabbitmq.url(rabbitmq.ofWorkers), PREFIX: rabbitmq.prefix, DISCORD_TOKEN: 'simulated-token' },
        onLine: (line, stream) => void (stream === 'stdout' && lines.push(line)),
      });
      assert.deepEqual(await worker.exit, { code: 0, signal: null }, String(worker.tail));
      return lines;
    };
    for (const queue of ['commands.guild', 'requests.rest', 'webhook.0']) await rabbitmq.declared(queue);
    // There is a message of each guild: so each shard has its session.
    const sent = async () => Object.entries((await discord('traffic')).sent);
    const live = async () => (await sent()).every(([, count]) => count > 0) && (await sent()).length > 0;
    await until('all shards have messages', live, { describe: () => holdfast.tail });
    const [[guild]] = await sent();
    const { channels, members } = await discord(`guild/${guild}`);

    const told = await run('commands', guild);
    assert.deepEqual(told.slice(0, 2).toSorted(), [0, 1].map((shard) => `shard ${shard} of 2 plays chess`));
    const chunks = told.slice(2).map((line) => /^chunk (\d+) of (\d+): (\d+) members$/.exec(line).slice(1).map(Number));
    assert.deepEqual(chunks.map(([chunk, of]) => [chunk, of]), chunks.map((_, index) => [index + 1, chunks.length]));
    assert.equal(chunks.reduce((sum, [, , count]) => sum + count, 0), members.length);

    const { id: channel } = channels.find(({ type }) => type === 0);
    assert.match((await run('rest', channel, 'hello')).join(), /^message \d+$/);
    assert.match((await run('webhooks', '1181384788765712385', 'webhook-token', 'hello')).join(), /^message \d+$/);
    const messages = await discord('webhook_messages');
    assert.deepEqual(messages.map(({ body }) => body.content), ['And now:', 'hello']);
  }),
);
