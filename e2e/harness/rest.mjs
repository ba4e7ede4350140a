// SPDX-License-Identifier: AGPL-3.0-only
// In: a library's REST requests. Out: the simulator's answers, but for the gateway's address.
// Stands in for the service that will answer `/gateway` and `/gateway/bot` with our own front.

import { createServer, request } from 'node:http';

export class RestFront {
  #server;
  #simulatorPort;
  #answer;
  #token;
  port = 0;

  /**
   * `answer()` gives `{ url, shards }` for `/gateway/bot`. With `token`, requests go on with that
   * token whatever the library holds: so a wrong one gets as far as the gateway.
   */
  static async open({ simulatorPort, answer, token = null }) {
    const rest = new RestFront();
    rest.#simulatorPort = simulatorPort;
    rest.#answer = answer;
    rest.#token = token;
    rest.#server = createServer((incoming, outgoing) => rest.#serve(incoming, outgoing));
    await new Promise((resolve) => rest.#server.listen(0, '127.0.0.1', resolve));
    rest.port = rest.#server.address().port;
    return rest;
  }

  /** Without the version: libraries differ in who appends it. */
  get base() {
    return `http://127.0.0.1:${this.port}/api`;
  }

  #serve(incoming, outgoing) {
    const headers = { ...incoming.headers, host: `127.0.0.1:${this.#simulatorPort}` };
    if (this.#token && headers.authorization) headers.authorization = `Bot ${this.#token}`;
    const onward = request(
      { host: '127.0.0.1', port: this.#simulatorPort, method: incoming.method, path: incoming.url, headers },
      (answer) => {
        if (/\/gateway(\/bot)?$/.test(incoming.url.split('?')[0]) && answer.statusCode === 200) {
          this.#readdress(answer, outgoing);
        } else {
          outgoing.writeHead(answer.statusCode, answer.headers);
          answer.pipe(outgoing);
        }
      },
    );
    onward.on('error', (error) => outgoing.writeHead(502).end(String(error)));
    incoming.pipe(onward);
  }

  /** The simulator's answer with our own address and shard count in it. */
  async #readdress(answer, outgoing) {
    const chunks = [];
    for await (const chunk of answer) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString('utf8'));
    const { url, shards } = this.#answer();
    body.url = url;
    if ('shards' in body && shards) body.shards = shards;
    outgoing.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }

  close() {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }
}
