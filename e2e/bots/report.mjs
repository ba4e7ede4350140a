// SPDX-License-Identifier: AGPL-3.0-only
// In: what a bot sees. Out: JSON lines on stdout, written before anything else happens, so that
// a bot killed with -9 has reported all that it handled. Questions come as JSON lines on stdin.

import net from 'node:net';
import { eachLine } from '../harness/lines.mjs';

export const settings = JSON.parse(process.env.E2E_BOT);

export function report(e, details = {}) {
  process.stdout.write(`${JSON.stringify({ e, ...details })}\n`);
}

/** Counts a numbered message; `place` is 'wire' or 'handled'. */
export function count(place, content) {
  const numbered = /^sim (\d+) (\d+)/.exec(content);
  if (numbered) report(place, { g: numbered[1], n: Number(numbered[2]) });
}

/** Dispatches that scenarios look at, reported whole. */
const SHOWN = new Set(['VOICE_STATE_UPDATE', 'VOICE_SERVER_UPDATE', 'GUILD_MEMBERS_CHUNK', 'RATE_LIMITED']);

/** Reports a dispatch as it came off the wire. */
export function wire({ t, d }, shard) {
  if (t === 'MESSAGE_CREATE') count('wire', d.content ?? '');
  else if (t === 'TYPING_START') report('typing', { shard });
  else if (SHOWN.has(t)) report('dispatch', { t, d, shard });
}

/** Answers questions: `answers[what](details)` gives the value. */
export function answer(answers) {
  eachLine(process.stdin, async (line) => {
    const { id, ask, ...details } = JSON.parse(line);
    try {
      report('answer', { id, value: (await answers[ask](details)) ?? null });
    } catch (error) {
      report('answer', { id, error: String(error?.stack ?? error) });
    }
  });
}

// Nobody asks any more: the scenario is over, however it ended.
process.stdin.on('end', () => process.exit());

// Every connection that the process opens, whoever opens it, is reported with its address; and turned
// to the cutter where the stage can't have its address announced.
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function reported(...args) {
  // Either the normalized form [[options, callback]] or what the user of a socket gave.
  const [options] = Array.isArray(args[0]) ? args[0] : args;
  if (typeof options !== 'object') throw new Error(`a dial that is not understood: ${args}`);
  options.port = settings.detour?.[options.port] ?? options.port;
  if (!options.path) report('dial', { host: options.host ?? 'localhost', port: options.port });
  return connect.apply(this, args);
};

process.on('unhandledRejection', (error) => {
  report('failed', { error: String(error?.stack ?? error) });
});
