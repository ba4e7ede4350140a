// SPDX-License-Identifier: AGPL-3.0-only
// In: a client's TCP connections. Out: the same bytes at the gateway, until a scenario cuts them.
// Stands between every client and its gateway; owned by the stage.

import { createServer, connect } from 'node:net';

export class Cutter {
  #servers = [];
  #pairs = new Set();
  #held = null;
  /** Where the listener for the gateway and the one for RESUME lead. */
  #targets = [];
  /** The ports of the two. */
  ports = [];

  /** Listens on free ports; `leadTo` says where they lead. */
  static async open() {
    const cutter = new Cutter();
    for (const which of [0, 1]) {
      const server = createServer((client) => cutter.#accept(client, which));
      await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
      cutter.#servers.push(server);
      cutter.ports.push(server.address().port);
    }
    return cutter;
  }

  leadTo(gateway, resume) {
    this.#targets = [gateway, resume];
  }

  get gatewayUrl() {
    return `ws://127.0.0.1:${this.ports[0]}`;
  }

  #accept(client, which) {
    client.on('error', () => {});
    client.setNoDelay(true);
    if (this.#held) this.#held.push([client, which]);
    else this.#join(client, which);
  }

  #join(client, which) {
    if (client.destroyed) return;
    const gateway = connect({ host: '127.0.0.1', port: this.#targets[which], noDelay: true });
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
    for (const [client, which] of held) this.#join(client, which);
  }

  async close() {
    for (const [client] of this.#held ?? []) client.destroy();
    this.cut();
    await Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))));
  }
}
