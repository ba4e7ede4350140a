// SPDX-License-Identifier: AGPL-3.0-only
// Discord's REST API through RabbitMQ and Holdfast, which waits for rate limits. In: method, path, JSON. Out: Discord's
// answer. The rules are in docs/contract.md, "Requests to Discord's REST API".

import { setTimeout as pause } from 'node:timers/promises';
import { create, fromBinary } from '@bufbuild/protobuf';
import { Asking, Refused } from './asking.js';
import { ErrorCode } from './gen/holdfast/v1/error_pb.js';
import { RestReplySchema, RestRequestSchema, type RestReply, type RestRequest, type RestResponse } from './gen/holdfast/v1/rest_pb.js';

/** Discord says no. `code` is one of its JSON error codes, if it gave any. */
export class DiscordError extends Error {
  constructor(
    readonly status: number,
    readonly code?: number,
    message = '',
  ) {
    super(`${status}: ${message}`);
  }
}

export class Rest {
  private constructor(
    readonly asking: Asking,
    readonly token: string,
  ) {}

  static async open(url: string, token: string, prefix = 'holdfast'): Promise<Rest> {
    return new Rest(await Asking.open(url, prefix), token);
  }

  close(): Promise<void> {
    return this.asking.close();
  }

  /**
   * Gives Discord's JSON. `key`, the idempotency key, names what is to be done: with it, it is done once, however often
   * this is called. Throws `DiscordError`, `Refused`, or an AbortError when nobody has answered.
   */
  async request(method: string, path: string, body?: object, { key = '', seconds = 30 } = {}): Promise<any> {
    const deadline = Date.now() + seconds * 1000;
    const headers = [header('Authorization', `Bot ${this.token}`)];
    if (body) headers.push(header('Content-Type', 'application/json'));
    const asked = create(RestRequestSchema, {
      schema: 1,
      method,
      path,
      headers,
      body: bytes(body ? JSON.stringify(body) : ''),
      deadlineMs: BigInt(deadline),
      idempotencyKey: key,
    });
    for (let wait = 500; ; ) {
      const { result } = await this.#once(asked, deadline - Date.now());
      if (result.case === 'response') return answer(result.value);
      const { code, retryAfterMs } = result.value!;
      // Not done; or begun under this key, so that asking again does nothing twice.
      const later = (code >= 100 && code < 200) || code === ErrorCode.UNDECIDED;
      wait = Math.max(2 * wait, Number(retryAfterMs));
      if (!later || Date.now() + wait >= deadline) throw new Refused(result.value!);
      await pause(wait);
    }
  }

  async #once(asked: RestRequest, ms: number): Promise<RestReply> {
    // A margin: the reply may be that the deadline has passed.
    const replies = this.asking.ask(['requests', 'rest'], RestRequestSchema, asked, ms / 1000 + 2, { expiration: ms });
    for await (const body of replies) return fromBinary(RestReplySchema, body);
    throw new Error('the connection to RabbitMQ ended');
  }
}

function answer({ status, body }: RestResponse): any {
  const text = new TextDecoder().decode(body);
  if (status >= 400) throw problem(status, text);
  return text ? JSON.parse(text) : null;
}

function problem(status: number, text: string): DiscordError {
  try {
    const { code, message } = JSON.parse(text);
    return new DiscordError(status, code, message);
  } catch {
    // A page for people, as of a proxy before Discord.
    return new DiscordError(status);
  }
}

const bytes = (text: string) => new TextEncoder().encode(text);
const header = (name: string, value: string) => ({ name, value: bytes(value) });
