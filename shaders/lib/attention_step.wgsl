// attend_step: the queries of a decode step, heads head .. head + REPEAT of one key head, over the visible keys
// first + part * run .. . The queries are one row of a fused projection, whose heads are normalised and rotated on the way. So
// is the newest key, which nobody reads from the cache: the first heads of a key head write it there.
// WIDE lanes share a key and a value, eight elements of each to a lane. Such a slot takes every SLOTS-th key, KEYS of them
// at a time, and its softmax is its own until the end. Of the COUNT scores of a turn each lane knows one, that of its own
// number: of key own_key for head own_head. To a lane key q is key own_key ^ q of the turn, and head k is head own_head ^ k:
// lanes that exchange what they hold then name it by the same constants (lib/slot_lanes).
// The caller declares REPEAT, KEYS, WIDE, LANES (REPEAT * KEYS up to WIDE, all powers of two); binds qkv, q_norm, k_norm,
// table (arrays of vec4), cache_k, cache_v (f16, eight to a vec4<u32>), length; defines params (S, G, D, H, epsilon, scale,
// window; D a multiple of 8, up to 8 * WIDE), store_sum(head, part, c, sum, total) of four elements from 4 c on,
// store_stats(head, part, peak, total); and takes the libs linked_sum, slot_lanes, slot_merge, step_row, visible.

const SHORTEST_RUN: u32 = 64u;
const SLOTS: u32 = LANES / WIDE;
const COUNT: u32 = REPEAT * KEYS;
const CHUNK: u32 = SLOTS * KEYS;
// Loads of a turn are under way before the row is made, and before the next turn begins. With four heads that takes more
// registers than two workgroups have on one processor of an H200, and costs more than it wins.
const EARLY: u32 = 1u - min(REPEAT / 4u, 1u);

var<private> query: array<Eight, REPEAT>;
var<private> keys: array<vec4<u32>, KEYS>;
var<private> values: array<vec4<u32>, KEYS>;
var<private> gathered: array<Eight, REPEAT>;

// Loads the keys and values from key `done` of the run on, of which `old` are in the cache, from row `start` of it on.
fn take_turn(done: u32, old: u32, start: u32, column: u32, lane: u32) {
  let own_key = lane % COUNT / REPEAT;
  for (var q = 0u; q < KEYS; q++) {
    let key = min(done + (q ^ own_key) * SLOTS + lane / WIDE, max(old, 1u) - 1u);
    let place = ring_row(start, key, params.S) * (params.G * params.D / 8u) + column;
    keys[q] = cache_k[place];
    values[q] = cache_v[place];
  }
}

fn attend_step(part: u32, parts: u32, head: u32, lane: u32) {
  let shared_by = params.H / params.G;
  let slot = lane / WIDE;
  let member = lane % WIDE;
  let own_head = member % REPEAT;
  let own_key = member % COUNT / REPEAT;
  let end = u32(length[0]);
  let seen = visible_keys(end - 1u, end, params.S, 1u, params.window, 0u);
  let run = max((seen.y - seen.x + parts - 1u) / parts, SHORTEST_RUN);
  let first = min(seen.x + part * run, seen.y);
  let stop = min(first + run, seen.y);
  let newest = first < stop && stop == seen.y;
  let old = stop - first - u32(newest); // keys of the run that are in the cache
  let column = head / shared_by * params.D / 8u + min(member, params.D / 8u - 1u);
  if (EARLY == 1u) {
    take_turn(0u, old, first % params.S, column, lane);
  }
  make_rows(head, head / shared_by, lane);
  workgroupBarrier();
  var peak = -3.4e38;
  var total = 0.0; // of the weights that this lane knows
  for (var k = 0u; k < REPEAT; k++) {
    query[k] = row_part(own_head ^ k, member);
    gathered[k] = Eight();
  }
  if (newest) {
    let new_key = row_part(REPEAT, member);
    let new_value = value_part(head / shared_by, member);
    for (var p = 0u; p < COUNT; p++) {
      products[p] = product(query[p % REPEAT], new_key);
    }
    let score = sum_products(lane);
    if (slot == 0u) {
      peak = score;
      total = select(0.0, 1.0, own_key == 0u);
      for (var k = 0u; k < REPEAT; k++) {
        gathered[k] = new_value;
      }
    }
    if (slot == 0u && head % shared_by == 0u && member < params.D / 8u) {
      let place = (end - 1u) % params.S * params.G * params.D / 8u + column;
      cache_k[place] = packed(new_key);
      cache_v[place] = packed(new_value);
    }
  }

  for (var done = 0u; done < old; done += CHUNK) {
    if (EARLY == 0u) {
      take_turn(done, old, first % params.S, column, lane);
    }
    for (var q = 0u; q < KEYS; q++) {
      let key = eight(keys[q]);
      for (var k = 0u; k < REPEAT; k++) {
        products[q * REPEAT + k] = product(query[k], key);
      }
    }
    let shown = done + own_key * SLOTS + slot < old;
    let score = select(-3.4e38, sum_products(lane), shown);
    let largest = max_over_keys(max(peak, score), lane);
    let fade = exp(peak - largest);
    let weight = select(0.0, exp(score - largest), shown);
    peak = largest;
    total = total * fade + weight;
    tell(FADE, fade, lane);
    tell(WEIGHT, weight, lane);
    listen();
    fade_gathered(fade, lane);
    for (var q = 0u; q < KEYS; q++) {
      let value = eight(values[q]);
      for (var k = 0u; k < REPEAT; k++) {
        let share = hear(WEIGHT, weight, q * REPEAT + k, lane);
        gathered[k].low += share * value.low;
        gathered[k].high += share * value.high;
      }
    }
    if (EARLY == 1u && done + CHUNK < old) {
      take_turn(done + CHUNK, old, first % params.S, column, lane);
    }
  }
  merge_slots(head, part, lane, peak, total);
}
