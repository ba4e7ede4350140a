// SPDX-License-Identifier: AGPL-3.0-only
// Messages by webhooks, through RabbitMQ and Holdfast: each webhook's in the order in which they are sent. In: a webhook
// and JSON. Out: that RabbitMQ has it, or what Discord made of it. The rules are in docs/contract.md, "Webhook messages".

import { fromBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { Asking, Refused, type Destination } from './asking.js';
import { WebhookMessageSchema, WebhookReplySchema } from './gen/holdfast/v1/webhook_pb.js';

/** Its id and its token. */
export interface Webhook {
  id: string;
  token: string;
}

const TO: Destination = ['webhook', ''];

export class Webhooks {
  private constructor(readonly asking: Asking) {}

  static async open(url: string, prefix = 'holdfast'): Promise<Webhooks> {
    return new Webhooks(await Asking.open(url, prefix));
  }

  close(): Promise<void> {
    return this.asking.close();
  }

  /**
   * Resolves when RabbitMQ has it, which outlives this process and Holdfast. `key`, the idempotency key, names the
   * message: it is sent once, however often this is called.
   */
  send(webhook: Webhook, body: object, key: string): Promise<void> {
    return this.asking.publish(TO, WebhookMessageSchema, execute(webhook, body, key), 10, properties(webhook));
  }

  /** Gives the message that Discord made. Throws `Refused`, or an AbortError: it may be sent later then. */
  async sent(webhook: Webhook, body: object, key: string, seconds = 60): Promise<any> {
    const deadlineMs = BigInt(Date.now() + seconds * 1000);
    const message = { ...execute(webhook, body, key, true), deadlineMs };
    // A margin: the reply may be that the deadline has passed.
    for await (const answer of this.asking.ask(TO, WebhookMessageSchema, message, seconds + 2, properties(webhook))) {
      const { error, response } = fromBinary(WebhookReplySchema, answer);
      if (error) throw new Refused(error);
      return JSON.parse(new TextDecoder().decode(response!.body));
    }
  }
}

function execute({ id, token }: Webhook, body: object, idempotencyKey: string, wait = false) {
  const value = { body: new TextEncoder().encode(JSON.stringify(body)), wait };
  return { schema: 1, webhookId: id, token, idempotencyKey, operation: { case: 'execute', value } } satisfies MessageInitShape<
    typeof WebhookMessageSchema
  >;
}

/** The header says which queue it goes to, and so in which order. */
function properties({ id }: Webhook) {
  return { headers: { webhook: id }, persistent: true };
}
