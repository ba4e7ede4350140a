// SPDX-License-Identifier: AGPL-3.0-only
// Answers a command, a button, autocomplete and a modal. Replace the handlers by what your bot does.

import { setTimeout as pause } from 'node:timers/promises';
import { serve, type Handler } from './interactions.js';

const url = process.env.AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2f';
const prefix = process.env.PREFIX ?? 'holdfast';

// Types of responses ("Interaction Callback Type" in Discord's documentation).
const [MESSAGE, UPDATE, CHOICES, MODAL] = [4, 7, 8, 9];

const WORDS = ['chess', 'cheese', 'cherry'];

const handlers: Record<string, Handler> = {
  'command.ping': async () => ({ type: MESSAGE, data: { content: 'pong' } }),

  'command.think': async () => {
    // Longer than Discord waits: it is told to, and this becomes the message then.
    await pause(4_000);
    return { type: MESSAGE, data: { content: '42' } };
  },

  'component.vote': async ({ data }) => {
    // `vote:yes`: what stands behind the colon is ours.
    const [, choice] = data.data.custom_id.split(':');
    return { type: UPDATE, data: { content: `You voted ${choice}.`, components: [] } };
  },

  'autocomplete.find': async ({ data }) => {
    const { value } = data.data.options.find((option: any) => option.focused);
    const choices = WORDS.filter((word) => word.includes(value)).map((word) => ({ name: word, value: word }));
    return { type: CHOICES, data: { choices } };
  },

  'command.feedback': async () => {
    const word = { type: 4, custom_id: 'word', label: 'In a word?', style: 1 };
    return { type: MODAL, data: { custom_id: 'feedback', title: 'Feedback', components: [{ type: 1, components: [word] }] } };
  },

  'modal.feedback': async () => ({ type: MESSAGE, data: { content: 'Thanks!' } }),
};

await serve(url, `${prefix}.interactions.worker`, handlers, prefix);
