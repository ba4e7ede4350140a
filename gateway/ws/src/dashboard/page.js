// SPDX-License-Identifier: AGPL-3.0-only
// In: a snapshot a second, by server-sent events. Out: the page, of which only what has changed is touched: with 2,000
// shards building it anew each second would keep a browser busy, and take the place from under who reads.
'use strict';

const at = (id) => document.getElementById(id);
const number = (value, digits = 0) =>
  value === null || value === undefined ? '–' : value.toLocaleString('en', { maximumFractionDigits: digits });
const bytes = (value) => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${number(value, unit && value < 100 ? 1 : 0)} ${units[unit]}`;
};

/** State → its letter. Never by colour alone. */
const LETTERS = {
  live: 'L', resuming: 'R', identifying: 'I', connecting: 'C', stopped: 'X', unowned: '?', elsewhere: 'E',
};
const WORDS = { stopped: 'stopped for good', unowned: 'nobody has it' };
const word = (state) => WORDS[state] ?? state;
const COLUMNS = ['shard', 'state', 'latency', 'events', 'guilds', 'clients', 'waiting', 'resumes', 'identifies'];

/** By number: what is known of a shard, with its cell. */
let shards = [];
let snapshot = null;
let before = null;
let chosen = 0;

const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// ---- What a snapshot says of each shard.

function take(next) {
  before = snapshot;
  snapshot = next;
  const built = shards.length !== next.total;
  if (built) build(next.total);
  const owner = (shard) => next.replicas?.[next.owners?.[shard]] ?? null;
  const seconds = before ? (next.at_ms - before.at_ms) / 1000 : 0;
  const here = new Map(next.shards.map((row) => [row[0], row]));
  for (const shard of shards) {
    const was = shard.events;
    const row = here.get(shard.shard);
    COLUMNS.slice(1).forEach((column, index) => { shard[column] = row?.[index + 1] ?? null; });
    shard.owner = owner(shard.shard);
    // Without the store's answer nobody knows whether somebody has it.
    if (!row) shard.state = next.owners && !shard.owner ? 'unowned' : 'elsewhere';
    const counted = row && was !== null && seconds > 0 && shard.events >= was;
    shard.rate = counted ? (shard.events - was) / seconds : null;
  }
  if (built) choose(Math.min(chosen, next.total - 1));
}

function build(total) {
  shards = Array.from({ length: total }, (_, shard) => {
    const letter = element('b', { 'aria-hidden': 'true' });
    const value = element('span', { 'aria-hidden': 'true' });
    const cell = element('div', { role: 'option', id: `s${shard}`, 'aria-selected': 'false', class: 'cell' }, letter, value);
    return { shard, cell, letter, value, events: null, shown: null };
  });
  at('grid').replaceChildren(...shards.map(({ cell }) => cell));
}

// ---- The grid.

function drawGrid() {
  const column = at('show').value;
  const counts = {};
  const changed = [];
  for (const shard of shards) {
    counts[shard.state] = (counts[shard.state] ?? 0) + 1;
    if (shard.shown !== shard.state) {
      if (shard.shown !== null) changed.push(shard);
      shard.was = shard.shown;
      shard.shown = shard.state;
      shard.cell.className = `cell ${shard.state}`;
      name(shard);
      set(shard.letter, LETTERS[shard.state]);
    }
    set(shard.value, number(shard[column], column === 'rate' && shard.rate < 10 ? 1 : 0));
  }
  const states = Object.keys(LETTERS).filter((state) => counts[state]);
  const legend = states.map((state) => `${LETTERS[state]} ${word(state)} ${number(counts[state])}`);
  list(at('legend'), legend, (item, index) => { item.className = states[index]; });
  const live = counts.live ?? 0;
  const here = snapshot.shards.length;
  const where = here === snapshot.total ? '' : `, ${number(snapshot.total - here)} elsewhere`;
  set(at('headline'), `${number(live)} of ${number(here)} shards live${where}`);
  document.title = `${live}/${here} live – Holdfast`;
  announce(changed, `${number(live)} of ${number(here)} live`);
}

/** A list of lines, of which only those are touched that have changed. */
function list(parent, lines, style = () => {}) {
  while (parent.children.length > lines.length) parent.lastChild.remove();
  lines.forEach((line, index) => {
    const item = parent.children[index] ?? parent.appendChild(element('li'));
    set(item, line);
    style(item, index);
  });
}

function accepts(words) {
  const tests = words.map((text) => {
    const range = text.match(/^(\d+)(?:-(\d+))?$/);
    if (range) return (shard) => shard.shard >= +range[1] && shard.shard <= +(range[2] ?? range[1]);
    return (shard) => word(shard.state).includes(text) || (shard.owner?.address ?? '').includes(text);
  });
  return (shard) => tests.every((test) => test(shard));
}

function filter() {
  const accepted = accepts(at('filter').value.toLowerCase().split(/\s+/).filter(Boolean));
  let some = false;
  for (const shard of shards) {
    const hidden = !accepted(shard);
    some ||= !hidden;
    if (shard.cell.hidden !== hidden) shard.cell.hidden = hidden;
  }
  at('none').hidden = some;
}

/** What a screen reader says of a cell; of the chosen one, figures too. */
function name(shard) {
  const more = ` ${number(shard.latency)} ms, ${number(shard.rate, 1)} events per second, ${number(shard.guilds)} guilds`;
  const figures = shard.shard === chosen && shard.latency !== null ? `,${more}` : '';
  shard.cell.setAttribute('aria-label', `Shard ${shard.shard}, ${word(shard.state)}${figures}`);
}

function choose(next) {
  const left = shards[chosen];
  chosen = next;
  const { cell } = shards[chosen];
  left?.cell.setAttribute('aria-selected', 'false');
  if (left) name(left);
  cell.setAttribute('aria-selected', 'true');
  name(shards[chosen]);
  at('grid').setAttribute('aria-activedescendant', cell.id);
  drawShard();
}

at('grid').addEventListener('click', ({ target }) => {
  const cell = target.closest('.cell');
  if (cell) choose(Number(cell.id.slice(1)));
});

at('grid').addEventListener('keydown', (event) => {
  const visible = shards.filter(({ cell }) => !cell.hidden);
  if (visible.length === 0 || event.ctrlKey || event.altKey || event.metaKey) return;
  const top = visible[0].cell.offsetTop;
  const below = visible.findIndex(({ cell }) => cell.offsetTop > top);
  const columns = below < 0 ? visible.length : below;
  const index = Math.max(0, visible.findIndex(({ shard }) => shard === chosen));
  const steps = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
    PageUp: -10 * columns, PageDown: 10 * columns, Home: -index, End: visible.length - 1 - index,
  };
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  choose(visible[Math.min(visible.length - 1, Math.max(0, index + step))].shard);
  shards[chosen].cell.scrollIntoView({ block: 'nearest' });
});

// ---- What changes is said, but no more often than somebody can listen.

const SAY_EVERY_MS = 5000;
/** By shard, the state that was last said. */
const unsaid = new Map();
let said = 0;

function announce(changed, sum) {
  for (const shard of changed) {
    if (!unsaid.has(shard.shard)) unsaid.set(shard.shard, shard.was);
    // It is as it was when something was last said: a hiccup isn't news.
    if (unsaid.get(shard.shard) === shard.state) unsaid.delete(shard.shard);
  }
  if (unsaid.size === 0 || Date.now() - said < SAY_EVERY_MS) return;
  said = Date.now();
  const numbers = [...unsaid.keys()];
  const of = numbers.slice(0, 5).map((shard) => `shard ${shard} ${word(shards[shard]?.state ?? 'unowned')}`);
  const more = numbers.length > 5 ? `, and ${number(numbers.length - 5)} more` : '';
  unsaid.clear();
  set(at('news'), `${of.join(', ')}${more}. ${sum}.`);
}

// ---- Everything else.

/** Pairs of a name and a value as `<dl>`; a third is the part of its bound. */
function pairs(parent, values) {
  while (parent.children.length > values.length) parent.lastChild.remove();
  values.forEach(([name, value, part], index) => {
    const fresh = () => element('div', {}, element('dt'), element('dd', {}, element('span')));
    const line = parent.children[index] ?? parent.appendChild(fresh());
    const [dt, dd] = line.children;
    set(dt, name);
    set(dd.firstChild, value);
    let meter = dd.querySelector('meter');
    if (part === undefined) return meter?.remove();
    meter ??= dd.appendChild(element('meter', { min: 0, max: 1 }));
    meter.setAttribute('aria-label', name);
    meter.value = part;
  });
}

function drawShard() {
  const shard = shards[chosen];
  if (!shard) return;
  pairs(at('shard'), [
    ['Shard', `${shard.shard} of ${snapshot.total}`],
    ['State', word(shard.state)],
    ['Latency', shard.latency === null ? '–' : `${number(shard.latency, 1)} ms`],
    ['Events per second', number(shard.rate, 1)],
    ['Guilds', number(shard.guilds)],
    ['Clients, and waited for', `${number(shard.clients)}, ${number(shard.waiting)}`],
    ['Resumes, identifies', `${number(shard.resumes)}, ${number(shard.identifies)}`],
    ...(snapshot.replicas ? [['Owner', shard.owner ? shard.owner.address + (shard.owner.this ? ' (this)' : '') : '–']] : []),
  ]);
}

/** How much a counter has risen in a second. */
function rate(name) {
  const [now, then] = [snapshot.figures[name], before?.figures[name]];
  if (now === undefined || then === undefined || now < then) return null;
  return ((now - then) * 1000) / (snapshot.at_ms - before.at_ms);
}

function drawPanels() {
  const { figures: of, identifies, bounds } = snapshot;
  const used = (value, bound) => [`${bytes(value)} of ${bytes(bound)}`, bound ? value / bound : 0];
  const events = shards.reduce((sum, shard) => sum + (shard.rate ?? 0), 0);
  const guilds = shards.reduce((sum, shard) => sum + (shard.guilds ?? 0), 0);
  const panels = {
    'This process': [
      ['Events per second', number(events, 1)],
      ['Guilds', number(guilds)],
      ['Memory', bytes(of.process_resident_memory_bytes ?? 0)],
      ['Processors in use', number(rate('process_cpu_seconds_total'), 2)],
    ],
    'IDENTIFYs': [
      ['Left today', `${number(identifies.remaining)} of ${number(identifies.total)}`, identifies.total ? identifies.remaining / identifies.total : 0],
      ['Sessions lost', number(of.holdfast_ws_gaps_total)],
    ],
    'Log': [
      ['Memory (ring)', ...used(of.holdfast_ws_log_memory_bytes ?? 0, bounds.log_memory_bytes)],
      ['Disk', ...used(of.holdfast_ws_log_disk_bytes ?? 0, bounds.log_disk_bytes)],
      ['Not yet on disk', number(of.holdfast_ws_log_unstored_events)],
    ],
    'Broker': 'holdfast_amqp_published_total' in of && [
      ['State', condition('broker')],
      ['Published per second', number(rate('holdfast_amqp_published_total'), 1)],
      ['Confirmed per second', number(rate('holdfast_amqp_confirmed_total'), 1)],
      ['Events it lacks', number(of.holdfast_ws_amqp_lag_events)],
      ['Connections lost', number(of.holdfast_amqp_connections_lost_total)],
    ],
    'Store': 'holdfast_cluster_store_connected' in of && [
      ['State', of.holdfast_cluster_store_connected ? 'connected' : 'away'],
      ['Condition', condition('cluster')],
      ['Replicas', number(of.holdfast_cluster_replicas)],
    ],
    'REST': 'holdfast_api_connections' in of && [
      ['Answers per second', number(rate('holdfast_api_answers_total'), 1)],
      ['Waiting', number(of.holdfast_rest_waiting)],
      ['In flight', number(of.holdfast_rest_in_flight)],
      ['Invalid, last 10 min', number(of.holdfast_rest_invalid)],
      ['429s from Discord', number(of.holdfast_rest_limited_total ?? 0)],
      ['Answered by Holdfast', number(of.holdfast_api_errors_total ?? 0)],
    ],
    'Interactions': 'holdfast_http_in_flight' in of && [
      ['Per second', number(rate('holdfast_http_interactions_total'), 1)],
      ['In flight', number(of.holdfast_http_in_flight)],
      ['Deferred', number(of.holdfast_http_deferred_total ?? 0)],
      ['Refused', number(of.holdfast_http_refused_total ?? 0)],
      ['Failed, last 10 min', `${number((of.holdfast_http_failure_ratio ?? 0) * 100, 1)} %`],
    ],
    'Webhooks': 'holdfast_webhook_sending' in of && [
      ['Messages per second', number(rate('holdfast_webhook_messages_total'), 1)],
      ['Sending', number(of.holdfast_webhook_sending)],
      ['Waiting', number(of.holdfast_webhook_parked)],
    ],
  };
  for (const [title, values] of Object.entries(panels)) {
    let panel = at(`panel-${title}`);
    if (!values) panel?.remove();
    else panel ??= at('panels').appendChild(element('section', { id: `panel-${title}`, 'aria-label': title }, element('h2', {}, title), element('dl')));
    if (values) pairs(panel.querySelector('dl'), values);
  }
}

/** The reason why a condition isn't met, or that it is. */
function condition(name) {
  const line = snapshot.unmet.find((unmet) => unmet.startsWith(`${name}: `));
  return line ? line.slice(name.length + 2) : 'well';
}

function drawConditions() {
  const { unmet } = snapshot;
  const lines = unmet.length === 0 ? ['✓ ready'] : unmet.map((line) => `✗ ${line}`);
  list(at('conditions'), lines, (item) => { item.className = unmet.length === 0 ? 'live' : 'unmet'; });
}

function rows(body, lines) {
  while (body.children.length > lines.length) body.lastChild.remove();
  lines.forEach((line, index) => {
    const row = body.children[index] ?? body.appendChild(element('tr', {}, ...line.map(() => element('td'))));
    line.forEach((text, column) => set(row.children[column], text));
  });
}

/** Numbers as ranges: `0-3, 7`. */
function ranges(numbers) {
  const found = [];
  for (const next of numbers) {
    const last = found.at(-1);
    if (last?.[1] === next - 1) last[1] = next;
    else found.push([next, next]);
  }
  const text = found.slice(0, 12).map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(', ');
  return found.length > 12 ? `${text}, …` : text;
}

function drawTables() {
  const { replicas, owners, clients } = snapshot;
  at('replicas-section').hidden = !replicas;
  rows(at('replicas'), (replicas ?? []).map((replica, index) => {
    const owned = owners && owners.flatMap((owner, shard) => (owner === index ? [shard] : []));
    const since = replica.started_unix_ms ? new Date(replica.started_unix_ms).toLocaleString() : '–';
    const state = [replica.this && 'this one', replica.draining && 'leaving'].filter(Boolean).join(', ') || 'there';
    return [replica.address, owned ? number(owned.length) : '–', owned ? ranges(owned) : 'the store does not answer', since, state];
  }));
  const shown = clients.lines.length < clients.count ? `, the ${clients.lines.length} that are furthest behind` : '';
  set(at('clients-count'), clients.count ? `${number(clients.count)}${shown}` : 'none');
  rows(at('clients'), clients.lines.map(({ name, shard, shards: of, connected, behind }) => [
    name ?? '(no name)', of > 1 ? `${of}, from ${shard}` : `shard ${shard}`, connected ? 'connected' : 'waited for', number(behind),
  ]));
}

function draw() {
  set(at('version'), snapshot.version);
  drawConditions();
  drawGrid();
  filter();
  drawShard();
  drawPanels();
  drawTables();
}

at('filter').addEventListener('input', filter);
at('show').addEventListener('change', () => snapshot && drawGrid());

// ---- The stream.

const AGAIN_MS = 3000;
/** Longer without a snapshot, and what is shown isn't so any more. */
const STALE_MS = 5000;
let heard = 0;

function link(state, text) {
  at('link').dataset.link = state;
  set(at('link'), text);
}

function lost() {
  const since = heard ? `, figures of ${new Date(heard).toLocaleTimeString()}` : '';
  link('lost', `not connected${since}`);
}

function listen() {
  const events = new EventSource('events');
  events.onmessage = ({ data }) => {
    heard = Date.now();
    take(JSON.parse(data));
    draw();
    link('live', 'live');
  };
  events.onerror = () => {
    lost();
    // Refused (too many watch, or somebody else answers): a browser doesn't come again by itself.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
  };
}

setInterval(() => { if (heard && Date.now() - heard > STALE_MS) lost(); }, 1000);
listen();
