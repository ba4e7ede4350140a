// SPDX-License-Identifier: AGPL-3.0-only
// In: the dashboard's page as Holdfast serves it, and snapshots. Out: a server that tells the page those instead: states
// and sizes that a simulator takes hours to bring about.

import { createServer } from 'node:http';

export class Feeder {
  #server;
  #watchers = new Set();
  #last = null;

  static async open(page) {
    const feeder = new Feeder();
    feeder.#server = createServer((request, answer) => {
      if (request.url !== '/events') {
        answer.writeHead(request.url === '/' ? 200 : 404, { 'content-type': 'text/html; charset=utf-8' });
        return answer.end(request.url === '/' ? page : '');
      }
      answer.writeHead(200, { 'content-type': 'text/event-stream' });
      answer.flushHeaders();
      feeder.#watchers.add(answer);
      answer.on('close', () => feeder.#watchers.delete(answer));
      if (feeder.#last) answer.write(feeder.#last);
    });
    await new Promise((resolve) => feeder.#server.listen(0, '127.0.0.1', resolve));
    return feeder;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}/`;
  }

  tell(snapshot) {
    this.#last = `data: ${JSON.stringify(snapshot)}\n\n`;
    for (const watcher of this.#watchers) watcher.write(this.#last);
  }

  close() {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }
}

/**
 * A snapshot as docs/contract.md outlines it, of a bot with `total` shards, the first `here` of them in this process.
 * `phases`: shard → phase, where it isn't live. `unowned`: shards that nobody has. `tick`: seconds since it began.
 */
export function snapshot({ total, here = total, phases = {}, unowned = [], tick = 0, replicas = here < total ? 3 : 0 }) {
  const rate = (shard) => 20 + ((shard * 37) % 61);
  const rows = Array.from({ length: here }, (_, shard) => {
    const phase = phases[shard] ?? 'live';
    const latency = phase === 'connecting' ? null : 30 + ((shard * 13) % 40) / 10;
    const events = 1000 + (phase === 'live' ? tick * rate(shard) : 0);
    return [shard, phase, latency, events, 900 + (shard % 90), shard % 2, 0, phase === 'live' ? 0 : 1, 1];
  });
  const share = Math.ceil((total - here) / Math.max(1, replicas - 1));
  const owner = (shard) => (shard < here ? 0 : 1 + Math.floor((shard - here) / share));
  const line = (index) => ({
    address: `10.0.0.${11 + index}:7878`,
    this: index === 0,
    draining: index === 2,
    started_unix_ms: 1_750_000_000_000 + index * 3_600_000,
  });
  const client = (index) => ({ name: `worker-${index}`, shard: index, shards: 1, connected: index !== 3, behind: index === 3 ? 412 : index % 2 });
  const live = rows.filter(([, phase]) => phase === 'live').length;
  const lines = Array.from({ length: 4 }, (_, index) => client(index)).toSorted((a, b) => b.behind - a.behind);
  return {
    at_ms: 1_750_100_000_000 + tick * 1000,
    version: '0.1.0',
    total,
    identifies: { remaining: 1834, total: 2000 },
    bounds: { log_memory_bytes: 134_217_728, log_disk_bytes: 4_294_967_296 },
    unmet: live === here ? [] : [`ws: ${live} of ${here} shards are live`],
    shards: rows,
    replicas: replicas ? Array.from({ length: replicas }, (_, index) => line(index)) : null,
    owners: replicas ? Array.from({ length: total }, (_, shard) => (unowned.includes(shard) ? null : owner(shard))) : null,
    clients: { count: lines.length, lines },
    figures: {
      ...(replicas ? { holdfast_cluster_replicas: replicas, holdfast_cluster_store_connected: 1 } : {}),
      holdfast_amqp_published_total: 5000 + tick * 3120,
      holdfast_amqp_confirmed_total: 5000 + tick * 3118,
      holdfast_amqp_connections_lost_total: 0,
      holdfast_api_answers_total: 900 + tick * 41,
      holdfast_api_connections: 12,
      holdfast_rest_in_flight: 3,
      holdfast_rest_invalid: 17,
      holdfast_rest_waiting: 2,
      holdfast_http_in_flight: 1,
      holdfast_http_interactions_total: 300 + tick * 6,
      holdfast_http_failure_ratio: 0.002,
      holdfast_ws_amqp_lag_events: 12,
      holdfast_ws_gaps_total: 0,
      holdfast_ws_log_disk_bytes: 1_610_612_736,
      holdfast_ws_log_memory_bytes: 91_226_112,
      holdfast_ws_log_unstored_events: 88,
      process_cpu_seconds_total: 700 + tick * 0.31,
      process_resident_memory_bytes: 412_000_000,
    },
  };
}
