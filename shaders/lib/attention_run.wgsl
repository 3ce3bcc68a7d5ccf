// attend_run: the visible keys first + run * part .. of one key head, for the query at row t of the query heads that read
// it, up to REPEAT, by 256 lanes, 64 keys at a time; all loads of a chunk are issued before any is used, to wait for memory
// once. What a chunk reads behind a barrier, the next writes only behind another. Scores: 8 lanes share a key, so that
// they read whole cache lines. Values: a lane owns four elements of D of every SLOTS-th key. The caller declares REPEAT,
// STEPS, params, key_at, value_at, store_sum (row t * H + h, part, column, sum, total) and store_stats (row, part, peak,
// total), and takes the libs attention_heads, attention_rows (seen_keys, fill_query) and visible.

const SHORTEST_RUN: u32 = 64u;
const VALUES: u32 = STEPS * 2u + STEPS % 4u / 3u; // keys of a chunk per slot, for D up to 32 * STEPS

fn attend_run(part: u32, parts: u32, g: u32, t: u32, lane: u32) {
  let width = params.D / 4u;
  let stride = params.G * width;
  let repeat = params.H / params.G;
  let seen = seen_keys(t);
  let run = max((seen.y - seen.x + parts - 1u) / parts, SHORTEST_RUN);
  let first = min(seen.x + part * run, seen.y);
  let last = min(first + run, seen.y);
  let start = first % params.S;

  let query_row = t * params.H + g * repeat;
  fill_query(t, g, lane);
  let own = lane % REPEAT; // the head whose softmax this lane helps with
  let slots = LANES / width;
  let slot = lane / width;
  var largest = -3.4e38;
  var total = 0.0;
  var gathered: Heads;
  workgroupBarrier();

  for (var base = first; base < last; base += CHUNK) {
    let count = min(CHUNK, last - base);
    var keys: array<vec4<f32>, STEPS>;
    var more_keys: array<vec4<f32>, STEPS>;
    let done = base - first;
    let row = ring_row(start, done + min(lane / TEAM, count - 1u), params.S);
    let more_row = ring_row(start, done + min(TEAMS + lane / TEAM, count - 1u), params.S);
    for (var s = 0u; s < STEPS; s++) {
      let c = g * width + min(s * TEAM + lane % TEAM, width - 1u);
      keys[s] = key_at(row * stride + c);
      more_keys[s] = key_at(more_row * stride + c);
    }
    var values: array<vec4<f32>, VALUES>;
    for (var n = 0u; n < VALUES; n++) {
      let value_row = ring_row(start, done + min(n * slots + slot, count - 1u), params.S);
      values[n] = value_at(value_row * stride + g * width + lane % width);
    }

    var products = Scores();
    var more_products = Scores();
    let c = lane % TEAM;
    add_products(&products, &more_products, c, keys[0], more_keys[0]);
    if (STEPS > 1u) {
      add_products(&products, &more_products, c + 1u * TEAM, keys[min(1u, STEPS - 1u)], more_keys[min(1u, STEPS - 1u)]);
    }
    if (STEPS > 2u) {
      add_products(&products, &more_products, c + 2u * TEAM, keys[min(2u, STEPS - 1u)], more_keys[min(2u, STEPS - 1u)]);
    }
    if (STEPS > 3u) {
      add_products(&products, &more_products, c + 3u * TEAM, keys[min(3u, STEPS - 1u)], more_keys[min(3u, STEPS - 1u)]);
    }
    keep(products, 0u, lane);
    if (HALVES == 2u) {
      keep(more_products, HALVES - 1u, lane);
    }
    workgroupBarrier();
    sum_teams(0u, count, lane);
    workgroupBarrier();
    if (HALVES == 1u) {
      keep(more_products, 0u, lane);
      workgroupBarrier();
      sum_teams(1u, count, lane);
      workgroupBarrier();
    }

    // The largest score of a head: 8 lanes look through 8 keys each, then every lane of the head through their findings.
    var peak = largest;
    for (var n = 0u; n < 8u; n++) {
      peak = max(peak, scores[n * 8u * REPEAT + lane % (8u * REPEAT)]);
    }
    if (lane < 8u * REPEAT) {
      peaks[lane] = peak;
    }
    workgroupBarrier();
    for (var n = 0u; n < 8u; n++) {
      peak = max(peak, peaks[n * REPEAT + own]);
    }
    let fade = exp(largest - peak);
    largest = peak;
    total *= fade;
    if (lane < REPEAT) {
      factors[lane] = fade;
    }
    for (var m = lane; m < CHUNK * REPEAT; m += LANES) {
      let share = exp(scores[m] - peak);
      scores[m] = share;
      total += share;
    }
    workgroupBarrier();
    for (var r = 0u; r < REPEAT; r++) {
      gathered[r] *= factors[r];
    }
    if (slot < slots) {
      add_value(&gathered, slot, values[0]);
      add_value(&gathered, slot + slots, values[1]);
      if (VALUES > 2u) {
        add_value(&gathered, slot + 2u * slots, values[min(2u, VALUES - 1u)]);
        add_value(&gathered, slot + 3u * slots, values[min(3u, VALUES - 1u)]);
      }
      if (VALUES > 4u) {
        add_value(&gathered, slot + 4u * slots, values[min(4u, VALUES - 1u)]);
        add_value(&gathered, slot + 5u * slots, values[min(5u, VALUES - 1u)]);
        add_value(&gathered, slot + 6u * slots, values[min(6u, VALUES - 1u)]);
      }
      if (VALUES > 7u) {
        add_value(&gathered, slot + 7u * slots, values[min(7u, VALUES - 1u)]);
      }
    }
  }

  found[lane] = total;
  workgroupBarrier();
  if (lane < repeat) {
    total = 0.0;
    for (var n = lane; n < LANES; n += REPEAT) {
      total += found[n];
    }
    factors[lane] = total;
    store_stats(query_row + lane, part, select(0.0, largest, first < last), total);
  }
  // Spelled out with constant indices: compilers move an array that is indexed otherwise out of the registers.
  finish(gathered[0], query_row, 0u, part, lane);
  if (REPEAT > 1u) {
    finish(gathered[min(1u, REPEAT - 1u)], query_row, 1u, part, lane);
  }
  if (REPEAT > 2u) {
    finish(gathered[min(2u, REPEAT - 1u)], query_row, 2u, part, lane);
    finish(gathered[min(3u, REPEAT - 1u)], query_row, 3u, part, lane);
  }
  if (REPEAT > 4u) {
    finish(gathered[min(4u, REPEAT - 1u)], query_row, 4u, part, lane);
    finish(gathered[min(5u, REPEAT - 1u)], query_row, 5u, part, lane);
    finish(gathered[min(6u, REPEAT - 1u)], query_row, 6u, part, lane);
    finish(gathered[min(7u, REPEAT - 1u)], query_row, 7u, part, lane);
  }
}
