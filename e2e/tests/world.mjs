// SPDX-License-Identifier: AGPL-3.0-only
// In: a bot's cache. Out: whether it is the simulator's world.

import assert from 'node:assert/strict';
import { WORLD } from '../harness/simulator.mjs';

/** The guild as Discord has it now: the `d` of a GUILD_CREATE. */
export function guildAtDiscord(stage, guild) {
  return stage.simulator.control('GET', `guild/${guild}`);
}

/** Compares each count that the library's cache has with the guild at the simulator. */
export async function assertCacheIsTheWorld(stage, bot) {
  const cache = await bot.ask('cache');
  const guilds = stage.simulator.guilds();
  assert.equal(guilds.length, WORLD.guilds);
  assert.deepEqual(Object.keys(cache).toSorted(), guilds.toSorted());
  for (const [id, counts] of Object.entries(cache)) {
    const guild = await guildAtDiscord(stage, id);
    const expected = { available: true, name: guild.name, member_count: guild.member_count };
    for (const kind of Object.keys(counts)) expected[kind] ??= guild[kind].length;
    assert.deepEqual(counts, expected, `guild ${id}`);
  }
}

/** The same JSON with its lists of entities in the order of their ids: Discord promises none. */
export function sorted(value) {
  if (Array.isArray(value)) {
    const key = (entity) => entity?.id ?? entity?.user?.id ?? entity?.user_id;
    const items = value.map(sorted);
    return items.every(key) ? items.toSorted((a, b) => (key(a) < key(b) ? -1 : 1)) : items;
  }
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, sorted(item)]));
}
