// attend_run: the visible keys first + run * part .. of one key head, for the query at row t of the REPEAT query heads that
// read it, by 256 lanes, 64 keys at a time; all loads of a chunk are issued before any is used, to wait for memory once.
// Scores: 8 lanes share a key, so that they read whole cache lines. Values: a lane owns four elements of D of every
// SLOTS-th key. The caller declares REPEAT, STEPS, params, q, length, key_at, value_at, store_sum (row t * H + h, part,
// column, sum, total) and store_stats (row, part, peak, total), and takes the lib visible.

const LANES: u32 = 256u;
const CHUNK: u32 = 64u;
const TEAM: u32 = 8u;
const TEAMS: u32 = 32u;
const PITCH: u32 = 257u; // one more than LANES, so that the sums of a team lie in different banks
const SHORTEST_RUN: u32 = 64u;
const VALUES: u32 = STEPS * 2u + STEPS % 4u / 3u; // keys of a chunk per slot, for D up to 32 * STEPS

var<workgroup> query: array<vec4<f32>, LANES>;
var<workgroup> scores: array<f32, CHUNK * REPEAT>;
var<workgroup> shares: array<f32, PITCH * REPEAT>;
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
  let column = lane % width;
  var largest = -3.4e38;
  var total = 0.0;
  var gathered: array<vec4<f32>, REPEAT>;
  workgroupBarrier();

  for (var base = first; base < last; base += CHUNK) {
    let count = min(CHUNK, last - base);
    var keys: array<vec4<f32>, 2u * STEPS>;
    for (var n = 0u; n < 2u; n++) {
      let key = min(n * TEAMS + lane / TEAM, count - 1u) + base - first;
      let row = ring_row(start, key, params.S) * stride + g * width;
      for (var s = 0u; s < STEPS; s++) {
        let c = s * TEAM + lane % TEAM;
        keys[n * STEPS + s] = select(vec4(0.0), key_at(row + min(c, width - 1u)), c < width);
      }
    }
    var values: array<vec4<f32>, VALUES>;
    for (var n = 0u; n < VALUES; n++) {
      let key = min(n * slots + slot, count - 1u) + base - first;
      values[n] = value_at(ring_row(start, key, params.S) * stride + g * width + column);
    }

    for (var n = 0u; n < 2u; n++) {
      for (var r = 0u; r < REPEAT; r++) {
        var product = 0.0;
        for (var s = 0u; s < STEPS; s++) {
          let c = min(s * TEAM + lane % TEAM, width - 1u);
          product += dot(query[min(r, repeat - 1u) * width + c], keys[n * STEPS + s]);
        }
        shares[r * PITCH + lane] = product;
      }
      workgroupBarrier();
      for (var m = lane; m < TEAMS * REPEAT; m += LANES) {
        var score = 0.0;
        for (var s = 0u; s < TEAM; s++) {
          score += shares[m % REPEAT * PITCH + m / REPEAT * TEAM + s];
        }
        scores[n * TEAMS * REPEAT + m] = score;
      }
      workgroupBarrier();
    }

    var peak = largest;
    for (var i = 0u; i < count; i++) {
      peak = max(peak, scores[i * REPEAT + own]);
    }
    let fade = exp(largest - peak);
    largest = peak;
    total *= fade;
    if (lane < REPEAT) {
      factors[lane] = fade;
    }
    for (var m = lane; m < CHUNK * REPEAT; m += LANES) {
      let share = select(0.0, exp(min(scores[m] - peak, 0.0)), m < count * REPEAT);
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
        for (var r = 0u; r < REPEAT; r++) {
          gathered[r] += select(0.0, shares[min(i, CHUNK - 1u) * REPEAT + r], i < CHUNK) * values[n];
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
