// SPDX-License-Identifier: AGPL-3.0-only
// In: an address. Out: a page in a real Chromium without a window, with a profile of its own, and what it complained of.

import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const CHROMIUM = process.env.E2E_CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(existsSync);
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export class Browser {
  #profile;
  #context;
  /** Errors of scripts and of the policy, in all pages. */
  complaints = [];
  /** Addresses that pages asked for. */
  requests = [];

  static async open() {
    const browser = new Browser();
    browser.#profile = await mkdtemp(join(tmpdir(), 'holdfast-e2e-browser-'));
    browser.#context = await chromium.launchPersistentContext(browser.#profile, {
      executablePath: CHROMIUM,
      headless: true,
      args: FLAGS,
      viewport: { width: 1200, height: 900 },
    });
    return browser;
  }

  async visit(url) {
    const page = await this.#context.newPage();
    page.on('pageerror', (error) => this.complaints.push(String(error)));
    page.on('console', (message) => message.type() === 'error' && this.complaints.push(message.text()));
    page.on('request', (request) => this.requests.push(request.url()));
    await page.goto(url);
    return page;
  }

  async close() {
    await this.#context?.close();
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
