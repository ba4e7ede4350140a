// SPDX-License-Identifier: AGPL-3.0-only
// The examples as their READMEs say to run them: `holdfast up --simulate` with the settings of examples/, and a worker.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BINARY } from '../harness/holdfast.mjs';
import { Program } from '../harness/program.mjs';
import { RabbitMq } from '../harness/rabbitmq.mjs';
import { until } from '../harness/until.mjs';

const examples = (path) => fileURLToPath(new URL(`../../examples/${path}`, import.meta.url));

const PYTHON = examples('python-worker/.venv/bin/python');

const WORKERS = {
  'python-worker': [PYTHON, examples('python-worker/worker.py')],
  'typescript-worker': [process.execPath, examples('typescript-worker/dist/worker.js')],
  'go-worker': [examples('go-worker/worker')],
};

const ANSWERERS = {
  'python-worker': [PYTHON, examples('python-worker/interactions_worker.py')],
  'typescript-worker': [process.execPath, examples('typescript-worker/dist/interactions-worker.js')],
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

for (const [name, [command, ...args]] of Object.entries(ANSWERERS)) {
  test(`examples: ${name} answers interactions`, { timeout: 120_000 }, () =>
    withExample(async ({ rabbitmq, start, up }) => {
      const holdfast = up('interactions.toml', { HOLDFAST__HTTP__LISTEN: '127.0.0.1:0', HOLDFAST__API__LISTEN: '127.0.0.1:0' });
      const said = (what) => String(holdfast.tail).match(what)?.[1];
      const url = await until('it listens', () => said(/webhooks +(\S+)/), { describe: () => holdfast.tail });
      // The first of two is the simulated Discord.
      const discord = said(/REST +(\S+)\/api/);
      const control = async (path, press) => {
        const headers = { 'content-type': 'application/json' };
        const body = press && JSON.stringify({ url, ...press });
        return (await fetch(`${discord}/control/${path}`, { method: press ? 'POST' : 'GET', headers, body })).json();
      };
      const worker = start(name, command, args, { env: { AMQP_URL: rabbitmq.url(rabbitmq.ofWorkers), PREFIX: rabbitmq.prefix } });
      const answers = async () => (await control('press', PRESSES[0][0])).answer?.type === 4;
      await until('the worker is there', answers, { describe: () => `${worker.tail}\n${holdfast.tail}` });
      for (const [press, answer, edit] of PRESSES) {
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
