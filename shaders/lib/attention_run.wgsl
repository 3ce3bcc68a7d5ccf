// attend_run: the visible keys first + run * part .. of one key head, for the query at row t of the REPEAT query heads that
// read it, by 256 lanes, 64 keys at a time; all loads of a chunk are issued before any is used, to wait for memory once.
// Scores: 8 lanes share a key, so that they read whole cache lines. Values: a lane owns four elements of D of every
// SLOTS-th key. The caller declares REPEAT, STEPS, params, q, length, key_at, value_at, store_sum (row t * H + h, part,
// column, sum, total) and store_stats (row, part, peak, total), and takes the libs
// attention_scores and visible.

const LANES: u32 = 256u;
const CHUNK: u32 = 64u;
const SHORTEST_RUN: u32 = 64u;
const VALUES: u32 = STEPS * 2u + STEPS % 4u / 3u; // keys of a chunk per slot, for D up to 32 * STEPS

var<workgroup> query: array<vec4<f32>, LANES>;
var<workgroup> factors: array<f32, REPEAT>;

fn attend_run(part: u32, parts: u32, g: u32, t: u32, lane: u32) {
  let width = params.D / 4u;
  let stride = params.G * width;
  let repeat = params.H / params.G;
  let end = u32(length[0]);
  let seen = visible_keys(end - params.T + t, end, params.S, params.causal, params.window, params.block);
  let run = max((seen.y - seen.x + parts - 1u) / parts, SHORTEST_RUN);
  let first = min(seen.x + part * run, seen.y);
  let last = min(first + run, seen.y);
  let start = first % params.S;

  let query_row = t * params.H + g * repeat;
  if (lane < repeat * width) {
    query[lane] = q[query_row * width + lane] * params.scale;
  }
  let own = lane % REPEAT; // the head whose softmax this lane helps with
  let slots = LANES / width;
  let slot = lane / width;
  var largest = -3.4e38;
  var total = 0.0;
  var gathered: array<vec4<f32>, REPEAT>;
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

    var products = array<f32, REPEAT>();
    var more_products = array<f32, REPEAT>();
    for (var s = 0u; s < STEPS; s++) {
      let c = s * TEAM + lane % TEAM;
      for (var r = 0u; r < REPEAT; r++) {
        let wanted = query[min(r * width + c, LANES - 1u)] * select(0.0, 1.0, c < width);
        products[r] += dot(wanted, keys[s]);
        more_products[r] += dot(wanted, more_keys[s]);
      }
    }
    sum_teams(products, 0u, count, lane);
    sum_teams(more_products, 1u, count, lane);

    // The largest score of a head: 8 lanes look through 8 keys each, then every lane of the head through their findings.
    var peak = largest;
    for (var n = 0u; n < 8u; n++) {
      peak = max(peak, scores[n * 8u * REPEAT + lane % (8u * REPEAT)]);
    }
    if (lane < 8u * REPEAT) {
      shares[lane] = peak;
    }
    workgroupBarrier();
    for (var n = 0u; n < 8u; n++) {
      peak = max(peak, shares[n * REPEAT + own]);
    }
    workgroupBarrier();
    let fade = exp(largest - peak);
    largest = peak;
    total *= fade;
    if (lane < REPEAT) {
      factors[lane] = fade;
    }
    for (var m = lane; m < CHUNK * REPEAT; m += LANES) {
      let share = exp(scores[m] - peak);
      shares[m] = share;
      total += share;
    }
    workgroupBarrier();
    for (var r = 0u; r < REPEAT; r++) {
      gathered[r] *= factors[r];
    }
    if (slot < slots) {
      for (var n = 0u; n < VALUES; n++) {
        let i = n * slots + slot;
        let counted = select(0.0, 1.0, i < CHUNK);
        for (var r = 0u; r < REPEAT; r++) {
          gathered[r] += counted * shares[min(i, CHUNK - 1u) * REPEAT + r] * values[n];
        }
      }
    }
    workgroupBarrier();
  }

  shares[lane] = total;
  workgroupBarrier();
  if (lane < repeat) {
    total = 0.0;
    for (var n = lane; n < LANES; n += REPEAT) {
      total += shares[n];
    }
    factors[lane] = total;
    store_stats(query_row + lane, part, select(0.0, largest, first < last), total);
  }
  for (var r = 0u; r < repeat; r++) {
    query[lane] = gathered[r];
    workgroupBarrier();
    if (lane < width) {
      var sum = query[lane];
      for (var s = 1u; s < slots; s++) {
        sum += query[s * width + lane];
      }
      store_sum(query_row + r, part, lane, sum, factors[r]);
    }
    workgroupBarrier();
  }
}
