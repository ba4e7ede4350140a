// SPDX-License-Identifier: AGPL-3.0-only
// Runs the scenarios: `node run.mjs [--full] [--target=direct|holdfast] [--only=<name pattern>] [file …]`.
// Two files at a time: a stage has three or four processes, and two cores are what CI has.

import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { full: { type: 'boolean' }, target: { type: 'string' }, only: { type: 'string' } },
});

const files = readdirSync(here('tests'))
  .filter((file) => file.endsWith('.test.mjs'))
  .filter((file) => positionals.length === 0 || positionals.some((name) => basename(name).startsWith(file.split('.')[0])))
  .map((file) => here(`tests/${file}`));

const tests = spawn(
  process.execPath,
  [
    '--no-warnings',
    '--test',
    '--test-concurrency=2',
    '--test-reporter=spec',
    // A handle that somebody forgot must not keep a finished run waiting.
    '--test-force-exit',
    ...(values.only ? [`--test-name-pattern=${values.only}`] : []),
    ...files,
  ],
  {
    stdio: 'inherit',
    env: {
      ...process.env,
      ...(values.full ? { E2E_FULL: '1' } : {}),
      ...(values.target ? { E2E_TARGETS: values.target } : {}),
    },
  },
);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => tests.kill(signal));
tests.on('exit', (code) => process.exit(code ?? 1));
