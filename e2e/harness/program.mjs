// SPDX-License-Identifier: AGPL-3.0-only
// In: a command line. Out: a child process with its lines, its end, and a tail of what it said.
// Ends with the test process at the latest: nothing is left behind.

import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eachLine, Tail } from './lines.mjs';

/** What cargo has built for development, by its name. */
export function built(name) {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  return resolve(root, process.env.CARGO_TARGET_DIR ?? 'target', 'debug', name);
}

const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

export class Program {
  #child;
  /** `{ code, signal }` once it has ended. */
  ended = null;
  /** Resolves with `ended`. */
  exit;
  tail = new Tail();

  constructor(name, command, args, { env = {}, cwd, onLine = () => {} } = {}) {
    this.name = name;
    this.#child = spawn(command, args, {
      cwd,
      env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    running.add(this.#child);
    // A program that is gone can't be written to: its end is reported by `exit`.
    this.#child.stdin.on('error', () => {});
    this.exit = new Promise((resolve) => {
      const end = (code, signal) => {
        running.delete(this.#child);
        this.ended ??= { code, signal };
        resolve(this.ended);
      };
      this.#child.on('error', (error) => {
        this.tail.push(String(error));
        end(null, null);
      });
      // `close`, not `exit`: its last lines have been read by then.
      this.#child.on('close', end);
    });
    eachLine(this.#child.stdout, (line) => {
      if (onLine(line, 'stdout') !== true) this.tail.push(line);
    });
    eachLine(this.#child.stderr, (line) => {
      onLine(line, 'stderr');
      this.tail.push(line);
    });
  }

  write(line) {
    this.#child.stdin.write(`${line}\n`);
  }

  signal(name) {
    if (!this.ended) this.#child.kill(name);
  }

  /** SIGKILL; resolves when the process is gone. */
  kill() {
    this.signal('SIGKILL');
    return this.exit;
  }
}
