// SPDX-License-Identifier: AGPL-3.0-only
// In: a client's TCP connections. Out: the same bytes at the gateway, until a scenario cuts them.
// Stands between every client and its gateway; owned by the stage.

import { createServer, connect } from 'node:net';

export class Cutter {
  #server;
  #gatewayPort;
  #pairs = new Set();
  #held = null;
  port = 0;

  /** Listens on a free port and passes connections on to `gatewayPort`. */
  static async open(gatewayPort) {
    const cutter = new Cutter();
    cutter.#gatewayPort = gatewayPort;
    await cutter.#listen(0);
    cutter.port = cutter.#server.address().port;
    return cutter;
  }

  #listen(port) {
    this.#server = createServer((client) => this.#accept(client));
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, '127.0.0.1', resolve);
    });
  }

  #accept(client) {
    client.on('error', () => {});
    client.setNoDelay(true);
    if (this.#held) this.#held.push(client);
    else this.#join(client);
  }

  #join(client) {
    if (client.destroyed) return;
    const gateway = connect({ host: '127.0.0.1', port: this.#gatewayPort, noDelay: true });
    const pair = { client, gateway };
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      client.destroy();
      gateway.destroy();
    };
    // FIN is passed on as FIN by `pipe`; anything harder ends both sides.
    gateway.on('error', () => client.resetAndDestroy());
    client.on('error', () => gateway.resetAndDestroy());
    gateway.on('close', end);
    client.on('close', end);
    client.pipe(gateway);
    gateway.pipe(client);
  }

  get connections() {
    return this.#pairs.size;
  }

  /** Ends every connection on both sides, by FIN or by RST. */
  cut(how = 'fin') {
    for (const { client, gateway } of this.#pairs) {
      for (const socket of [client, gateway]) {
        socket.unpipe();
        if (how === 'rst') socket.resetAndDestroy();
        else socket.destroy();
      }
    }
    this.#pairs.clear();
  }

  /** From now on connections are accepted but not passed on: the network swallows them. */
  hold() {
    this.#held ??= [];
  }

  /** Ends `hold`: what waited is passed on. */
  release() {
    const held = this.#held ?? [];
    this.#held = null;
    for (const client of held) this.#join(client);
  }

  async close() {
    for (const client of this.#held ?? []) client.destroy();
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
