// y[t, n] = r[t, n] + sum_a weights[t, a] * sum_i h[t, a, i] * w[experts[t, a], n, i], where h is rounded to int8
// bindings: h [T, A, I] f32; w_q [E, N, I] int8, w_d [E, N, I / 32] f16; experts [T, A] i32; weights [T, A] f32;
//   r [T, N] f32; y [T, N] f32
// work: workgroup (j, t) computes y[t, j * rows ..], rows = TURNS * (WG / TEAM / A): each team of lanes serves one slot and
//   multiplies its expert's part of TURNS rows, whose weights are under way while h is rounded.
//   A * I up to MOST, A * TEAM to WG
// tune: TEAM lanes share a row of an expert, a multiple of 64 and up to 96 * TEAM long, whose scales linked ones load once
//   and shuffle; TURNS rows are multiplied by each team
// lib: int8_row, linked_sum

struct Params { N: u32, I: u32, A: u32 }

@group(0) @binding(0) var<storage, read> h: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> w_d: array<u32>;
@group(0) @binding(3) var<storage, read> experts: array<i32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> r: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

const WG: u32 = 512u; // tune
const TEAM: u32 = 8u; // tune
const TURNS: u32 = 1u; // tune
const MOST: u32 = 6144u;
const CHUNKS: u32 = 6u; // of 16 values, per lane and row
const TEAMS: u32 = WG / TEAM;
const JOINED: u32 = min(LINKED, TEAM); // lanes whose sums need no workgroup memory
const PARTS: u32 = TEAM / JOINED;
const STEP: u32 = 1u + 3u * min(LINKED / TEAM, 1u); // chunks per word of scales that a lane loads
const WORDS: u32 = (CHUNKS + STEP - 1u) / STEP;
const SLOTS: u32 = 8u; // whose sums are read at once

var<workgroup> team_parts: array<f32, TURNS * WG / 4u>;

var<private> t: u32;

fn activation(v: u32, seen: f32) -> vec4<f32> {
  return h[t * params.A * params.I / 4u + v] * seen;
}

// i / each of small numbers without a division.
fn quotient(i: u32, each: u32) -> u32 {
  return u32((f32(i) + 0.5) * (1.0 / f32(each)));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_invocation_id) place: u32,
) {
  t = group.y;
  let at_once = quotient(TEAMS, params.A); // rows; neighbouring teams serve one slot, and read the same activations
  let team = lane / TEAM;
  let member = lane % TEAM;
  let served = quotient(team, at_once);
  let slot = min(served, params.A - 1u);
  let row_of_team = team - served * at_once;
  let first = group.x * at_once * TURNS;
  let chunks = params.I / 16u;
  let choice = t * params.A + slot;
  let expert = u32(experts[choice]);
  let weight = weights[choice];
  let own = first + lane; // the row that this lane finishes, if any
  let residual = r[t * params.N + min(own, params.N - 1u)];
  var quants: array<array<vec4<u32>, CHUNKS>, TURNS>;
  var scales: array<array<u32, WORDS>, TURNS>;
  for (var turn = 0u; turn < TURNS; turn++) {
    let row = (expert * params.N + min(first + turn * at_once + row_of_team, params.N - 1u)) * chunks;
    for (var c = 0u; c < CHUNKS; c++) {
      quants[turn][c] = w_q[row + min(c * TEAM + member, chunks - 1u)];
    }
    for (var k = 0u; k < WORDS; k++) {
      scales[turn][k] = w_d[(row + min(STEP * (k * TEAM + member), chunks - 1u)) / 4u];
    }
  }
  take_row(params.A * params.I, lane);
  round_row(lane);

  var totals: array<f32, TURNS>;
  for (var c = 0u; c < CHUNKS; c++) {
    let chunk = c * TEAM + member;
    let at = slot * chunks + min(chunk, chunks - 1u);
    let words = vec4(row_words[at], row_words[PLANE + at], row_words[2u * PLANE + at], row_words[3u * PLANE + at]);
    let scale = select(0.0, row_scales[at], chunk < chunks);
    for (var turn = 0u; turn < TURNS; turn++) {
      let four = quants[turn][c];
      var sum = dot4I8Packed(four.x, words.x);
      sum += dot4I8Packed(four.y, words.y);
      sum += dot4I8Packed(four.z, words.z);
      sum += dot4I8Packed(four.w, words.w);
      var both = scales[turn][c / STEP];
      if (STEP > 1u) {
        both = subgroupShuffle(both, place - member + c % STEP * (TEAM / STEP) + member / STEP);
      }
      totals[turn] += f32(sum) * scale * unpack2x16float(both >> (member * 8u & 16u)).x;
    }
  }
  for (var turn = 0u; turn < TURNS; turn++) {
    let total = linked_sum(totals[turn] * weight, JOINED);
    if (member % JOINED == 0u) {
      team_parts[(turn * TEAMS + team) * PARTS + member / JOINED] = total;
    }
  }
  workgroupBarrier();
  if (lane < at_once * TURNS && own < params.N) {
    let turn = quotient(lane, at_once);
    let start = turn * TEAMS + lane - turn * at_once;
    var sum = residual;
    for (var a = 0u; a < params.A; a += SLOTS) {
      for (var n = 0u; n < SLOTS * PARTS; n++) {
        let other = a + n / PARTS;
        let part = (start + min(other, params.A - 1u) * at_once) * PARTS + n % PARTS;
        sum += select(0.0, 1.0, other < params.A) * team_parts[part];
      }
    }
    y[t * params.N + own] = sum;
  }
}
