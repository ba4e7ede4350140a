// SPDX-License-Identifier: AGPL-3.0-only
// In: a stream of bytes. Out: its lines, one call each. Owned by whoever owns the stream.

/** Calls `onLine` for each complete line of `stream`, without its newline. */
export function eachLine(stream, onLine) {
  let rest = '';
  stream.setEncoding('utf8');
  stream.on('data', (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    for (const line of lines) onLine(line);
  });
  stream.on('end', () => {
    if (rest) onLine(rest);
  });
}

/** The last lines that a process wrote: what a failed scenario prints. */
export class Tail {
  #lines = [];
  #limit;

  constructor(limit = 200) {
    this.#limit = limit;
  }

  push(line) {
    this.#lines.push(line);
    if (this.#lines.length > this.#limit) this.#lines.shift();
  }

  toString() {
    return this.#lines.join('\n');
  }
}
