// attend_part: one run of the visible keys of one key head, for the query at row t of all REPEAT query heads that read it,
// by a workgroup of 128 lanes, 128 keys at a time. Scores: 8 lanes share a key, so that they read whole cache lines.
// Values: a lane owns four elements of D, for every SLOTS-th key.
// The caller declares REPEAT, params, q, length, sums, stats, key_at and value_at, and takes the lib visible.

const LANES: u32 = 128u;
const CHUNK: u32 = 128u;
const TEAM: u32 = 8u;
const WIDEST: u32 = 32u;
const PITCH: u32 = 129u; // one more than LANES, so that the sums of a team lie in different banks
const SHORTEST_RUN: u32 = 64u;

var<workgroup> query: array<vec4<f32>, WIDEST * REPEAT>;
var<workgroup> scores: array<f32, CHUNK * REPEAT>;
var<workgroup> team_sums: array<f32, PITCH * REPEAT>;
var<workgroup> slot_sums: array<vec4<f32>, LANES>;
var<workgroup> fades: array<f32, REPEAT>;

fn attend_part(part: u32, g: u32, t: u32, lane: u32) {
  let width = params.D / 4u;
  let stride = params.G * width;
  let repeat = params.H / params.G;
  let end = u32(length[0]);
  let seen = visible_keys(end - params.T + t, end, params.S, params.causal, params.window, params.block);
  let run = max((seen.y - seen.x + params.parts - 1u) / params.parts, SHORTEST_RUN);
  let first = min(seen.x + part * run, seen.y);
  let last = min(first + run, seen.y);
  let start = first % params.S;

  let query_row = (t * params.H + g * repeat) * width;
  for (var i = lane; i < repeat * width; i += LANES) {
    query[i] = q[query_row + i] * params.scale;
  }
  // For the softmax, lane i looks after head i % REPEAT.
  let own = lane % REPEAT;
  let slots = LANES / width;
  let slot = lane / width;
  let column = lane % width;
  var largest = -3.4e38;
  var total = 0.0;
  var gathered: array<vec4<f32>, REPEAT>;
  workgroupBarrier();

  for (var base = first; base < last; base += CHUNK) {
    let count = min(CHUNK, last - base);
    for (var i = 0u; i < count; i += LANES / TEAM) {
      let key = min(base + i + lane / TEAM, last - 1u) - first;
      let row = ring_row(start, key, params.S) * stride + g * width;
      // Zeroed by name: left to itself, a variable in a loop keeps what the last turn left in it.
      var products = array<f32, REPEAT>();
      for (var c = lane % TEAM; c < width; c += TEAM) {
        let key_part = key_at(row + c);
        for (var r = 0u; r < REPEAT; r++) {
          products[r] += dot(query[min(r, repeat - 1u) * width + c], key_part);
        }
      }
      for (var r = 0u; r < REPEAT; r++) {
        team_sums[r * PITCH + lane] = products[r];
      }
      workgroupBarrier();
      for (var n = lane; n < LANES / TEAM * REPEAT; n += LANES) {
        var score = 0.0;
        for (var s = 0u; s < TEAM; s++) {
          score += team_sums[n % REPEAT * PITCH + n / REPEAT * TEAM + s];
        }
        scores[i * REPEAT + n] = score;
      }
      workgroupBarrier();
    }

    var peak = largest;
    for (var n = lane; n < count * REPEAT; n += LANES) {
      peak = max(peak, scores[n]);
    }
    team_sums[lane] = peak;
    workgroupBarrier();
    for (var n = own; n < LANES; n += REPEAT) {
      peak = max(peak, team_sums[n]);
    }
    let fade = exp(largest - peak);
    largest = peak;
    total *= fade;
    if (lane < REPEAT) {
      fades[lane] = fade;
    }
    for (var n = lane; n < count * REPEAT; n += LANES) {
      let weight = exp(scores[n] - peak);
      scores[n] = weight;
      total += weight;
    }
    workgroupBarrier();

    for (var r = 0u; r < REPEAT; r++) {
      gathered[r] *= fades[r];
    }
    if (slot < slots) {
      for (var i = slot; i < count; i += slots) {
        let value = value_at(ring_row(start, base - first + i, params.S) * stride + g * width + column);
        for (var r = 0u; r < REPEAT; r++) {
          gathered[r] += scores[i * REPEAT + r] * value;
        }
      }
    }
    workgroupBarrier();
  }

  team_sums[lane] = total;
  for (var r = 0u; r < REPEAT; r++) {
    workgroupBarrier();
    slot_sums[lane] = gathered[r];
    workgroupBarrier();
    if (lane < width && r < repeat) {
      var sum = slot_sums[lane];
      for (var s = 1u; s < slots; s++) {
        sum += slot_sums[s * width + lane];
      }
      sums[((query_row / width + r) * params.parts + part) * width + lane] = sum;
    }
  }
  if (lane < repeat) {
    var sum = 0.0;
    for (var n = own; n < LANES; n += REPEAT) {
      sum += team_sums[n];
    }
    stats[(query_row / width + lane) * params.parts + part] = vec2(select(0.0, largest, first < last), sum);
  }
}
