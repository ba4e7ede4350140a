// SPDX-License-Identifier: AGPL-3.0-only
// The examples as their READMEs say to run them: `holdfast up --simulate` with examples/holdfast.toml, and a worker.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BINARY } from '../harness/holdfast.mjs';
import { Program } from '../harness/program.mjs';
import { RabbitMq } from '../harness/rabbitmq.mjs';
import { until } from '../harness/until.mjs';

const examples = (path) => fileURLToPath(new URL(`../../examples/${path}`, import.meta.url));

const WORKERS = {
  'python-worker': [examples('python-worker/.venv/bin/python'), examples('python-worker/worker.py')],
  'typescript-worker': [process.execPath, examples('typescript-worker/dist/worker.js')],
  'go-worker': [examples('go-worker/worker')],
};

for (const [name, [command, ...args]] of Object.entries(WORKERS)) {
  test(`examples: ${name} prints messages`, { timeout: 120_000 }, async () => {
    const rabbitmq = await RabbitMq.open();
    const programs = [];
    const start = (...program) => programs[programs.push(new Program(...program)) - 1];
    try {
      const holdfast = start('holdfast', BINARY, ['up', '--simulate', '--config', examples('holdfast.toml')], {
        // Nothing of this machine's: names and ports of its own.
        env: {
          HOLDFAST__BROKER__URL: rabbitmq.url(rabbitmq.ofHoldfast),
          HOLDFAST__BROKER__PREFIX: rabbitmq.prefix,
          HOLDFAST__WS__LISTEN: '127.0.0.1:0',
          HOLDFAST__ADMIN__LISTEN: '127.0.0.1:0',
        },
      });
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
    } finally {
      await Promise.all(programs.map((program) => program.kill()));
      await rabbitmq.close();
    }
  });
}
