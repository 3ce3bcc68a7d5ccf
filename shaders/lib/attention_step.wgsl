// attend_step: the queries of a decode step, heads head .. head + REPEAT of one key head, over the visible keys
// first + part * run ..; by 256 lanes. The queries are one row of a fused projection, whose heads are normalised and rotated
// on the way. So is the newest key, which nobody reads from the cache: the first heads of a key head write it there.
// WIDE lanes share a key and a value, eight elements of each to a lane. Such a slot takes every SLOTS-th key, KEYS of them
// at a time, and its softmax is its own until the end: sums over its lanes are all that anyone waits for. What divides a
// head by its root mean square is put off until then too.
// The caller declares REPEAT, KEYS, WIDE; binds qkv, q_norm, k_norm, table (arrays of vec4), cache_k, cache_v (f16, eight
// to a vec4<u32>), length; defines params (S, G, D, H, epsilon, scale, window; D a multiple of 8, up to 8 * WIDE),
// store_sum(head, part, d, sum, total), store_stats(head, part, peak, total); and takes the libs step_row and visible.

const LANES: u32 = 256u;
const SHORTEST_RUN: u32 = 64u;
const SLOTS: u32 = LANES / WIDE;
const CHUNK: u32 = SLOTS * KEYS;
const SQUARES: u32 = REPEAT * KEYS; // behind the products of all heads with all keys of a slot
const NEWEST: u32 = SQUARES + REPEAT; // products with the newest key
const KEY_SQUARES: u32 = NEWEST + REPEAT;
const SUMS: u32 = KEY_SQUARES + 1u;
const PITCH: u32 = WIDE + 1u; // one more, so that lanes which read different sums read different banks
const END_PITCH: u32 = LANES + 4u; // the same in the end
const FOUND: u32 = max(SLOTS * SUMS * PITCH, 8u * END_PITCH);

var<workgroup> found: array<f32, FOUND>;
var<workgroup> slot_sums: array<f32, SLOTS * SUMS>;
var<workgroup> slot_stats: array<vec2<f32>, SLOTS * REPEAT>; // largest score, sum of weights

var<private> keys: array<vec4<u32>, KEYS>;
var<private> values: array<vec4<u32>, KEYS>;
var<private> peaks: array<f32, REPEAT>;
var<private> totals: array<f32, REPEAT>;
var<private> gathered: array<Eight, REPEAT>;

// Goes on by one weighted value.
fn gather(r: u32, share: f32, value: Eight) {
  totals[r] += share;
  gathered[r].low += share * value.low;
  gathered[r].high += share * value.high;
}

// Merges what the slots gathered for a head, and stores it.
fn finish(head: u32, r: u32, part: u32, lane: u32) {
  for (var j = 0u; j < 4u; j++) {
    found[j * END_PITCH + lane] = gathered[r].low[j];
    found[(4u + j) * END_PITCH + lane] = gathered[r].high[j];
  }
  if (lane % WIDE == 0u) {
    slot_stats[r * SLOTS + lane / WIDE] = vec2(peaks[r], totals[r]);
  }
  workgroupBarrier();
  if (lane < params.D) {
    var peak = -3.4e38;
    for (var s = 0u; s < SLOTS; s++) {
      peak = max(peak, slot_stats[r * SLOTS + s].x);
    }
    var sum = 0.0;
    var total = 0.0;
    for (var s = 0u; s < SLOTS; s++) {
      let stats = slot_stats[r * SLOTS + s];
      let share = exp(stats.x - peak);
      sum += share * found[lane % 8u * END_PITCH + s * WIDE + lane / 8u];
      total += share * stats.y;
    }
    store_sum(head + r, part, lane, sum, total);
    if (lane == 0u) {
      store_stats(head + r, part, select(0.0, peak, total > 0.0), total);
    }
  }
}

fn attend_step(part: u32, parts: u32, head: u32, lane: u32) {
  let shared_by = params.H / params.G;
  let slot = lane / WIDE;
  let member = lane % WIDE;
  let end = u32(length[0]);
  let seen = visible_keys(end - 1u, end, params.S, 1u, params.window, 0u);
  let run = max((seen.y - seen.x + parts - 1u) / parts, SHORTEST_RUN);
  let first = min(seen.x + part * run, seen.y);
  let stop = min(first + run, seen.y);
  let newest = first < stop && stop == seen.y;
  let old = stop - first - u32(newest); // keys of the run that are in the cache
  let column = head / shared_by * params.D / 8u + min(member, params.D / 8u - 1u);
  make_query(head, head / shared_by, member);
  for (var r = 0u; r < REPEAT; r++) {
    peaks[r] = -3.4e38;
  }

  for (var done = 0u; done < stop - first; done += CHUNK) {
    for (var n = 0u; n < KEYS; n++) {
      let key = min(done + n * SLOTS + slot, max(old, 1u) - 1u);
      let place = ring_row(first % params.S, key, params.S) * params.G * params.D / 8u + column;
      keys[n] = cache_k[place];
      values[n] = cache_v[place];
    }
    let own = slot * SUMS;
    for (var n = 0u; n < KEYS; n++) {
      let key = eight(keys[n]);
      for (var r = 0u; r < REPEAT; r++) {
        found[(own + r * KEYS + n) * PITCH + member] = product(query[r], key);
      }
    }
    if (done == 0u) {
      for (var r = 0u; r < REPEAT; r++) {
        found[(own + SQUARES + r) * PITCH + member] = squares[r];
        found[(own + NEWEST + r) * PITCH + member] = product(query[r], new_key);
      }
      found[(own + KEY_SQUARES) * PITCH + member] = key_squares;
    }
    workgroupBarrier();
    for (var v = member; v < select(SQUARES, SUMS, done == 0u); v += WIDE) {
      var sum = 0.0;
      for (var m = 0u; m < WIDE; m++) {
        sum += found[(own + v) * PITCH + m];
      }
      slot_sums[own + v] = sum;
    }
    workgroupBarrier();
    let key_factor = inverseSqrt(slot_sums[own + KEY_SQUARES] / f32(params.D) + params.epsilon);
    let ends = newest && slot == 0u && done + CHUNK >= stop - first;
    for (var r = 0u; r < REPEAT; r++) {
      let factor = params.scale * inverseSqrt(slot_sums[own + SQUARES + r] / f32(params.D) + params.epsilon);
      let score = select(-3.4e38, factor * key_factor * slot_sums[own + NEWEST + r], ends);
      var peak = max(peaks[r], score);
      var scores: array<f32, KEYS>;
      for (var n = 0u; n < KEYS; n++) {
        scores[n] = select(-3.4e38, factor * slot_sums[own + r * KEYS + n], done + n * SLOTS + slot < old);
        peak = max(peak, scores[n]);
      }
      let fade = exp(peaks[r] - peak);
      peaks[r] = peak;
      totals[r] *= fade;
      gathered[r].low *= fade;
      gathered[r].high *= fade;
      for (var n = 0u; n < KEYS; n++) {
        gather(r, select(0.0, exp(scores[n] - peak), done + n * SLOTS + slot < old), eight(values[n]));
      }
      gather(r, select(0.0, exp(score - peak), ends), new_value);
    }
    if (ends && head % shared_by == 0u && member < params.D / 8u) {
      let place = (end - 1u) % params.S * params.G * params.D / 8u + column;
      cache_k[place] = packed(Eight(key_factor * new_key.low, key_factor * new_key.high));
      cache_v[place] = packed(new_value);
    }
  }
  finish(head, 0u, part, lane);
  if (REPEAT > 1u) {
    workgroupBarrier();
    finish(head, REPEAT - 1u, part, lane);
  }
}
