// h[t, a, i] = silu(gate) * up; gate = m . w[e, i, :], up = m . w[e, I + i, :], e = experts[t, a],
// m = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * g, where x g is rounded to int8;
// experts[t, :] = the top largest of logits[t, :] in falling order, the lower id first among equals;
// weights[t, :] = their softmax, over themselves if normalise is set, else over all
// bindings: x [T, K] f32; g [K] f32; logits [T, E] f32; w_q [E, 2 I, K] int8, w_d [E, 2 I, K / 32] f16; h [T, top, I] f32;
//   weights [T, top] f32; experts [T, top] i32
// work: workgroup (i, a, t) ranks the experts and computes h[t, a, i * ITEMS * WG / TEAM ..]; see lib/int8_gemv. E up to 256
// tune: TEAM lanes share a product, ITEMS are taken by each team in turn, MOST is the longest row
// lib: int8_row, linked_sum, normed_row, int8_gemv, sigmoid

struct Params { K: u32, E: u32, I: u32, epsilon: f32, top: u32, normalise: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> w_d: array<u32>;
@group(0) @binding(5) var<storage, read_write> h: array<f32>;
@group(0) @binding(6) var<storage, read_write> weights: array<f32>;
@group(0) @binding(7) var<storage, read_write> experts: array<i32>;
@group(0) @binding(8) var<uniform> params: Params;

const WG: u32 = 256u; // tune
const TEAM: u32 = 32u; // tune
const ITEMS: u32 = 1u; // tune
const MOST: u32 = 2048u; // tune
const ROWS: u32 = 2u;
const MOST_EXPERTS: u32 = 256u;
const MOST_CHOSEN: u32 = 64u;
const AT_ONCE: u32 = 8u; // of the scores, by four: loads that do not wait for each other

var<workgroup> scores: array<vec4<i32>, MOST_EXPERTS / 4u>; // in the order of the logits
var<workgroup> chosen: array<u32, MOST_CHOSEN>;
var<workgroup> shares: array<f32, MOST_EXPERTS>; // of those that the weights are measured by
var<private> slot: u32;
var<private> expert: u32;

fn chunk_place(item: u32, row: u32, chunk: u32) -> u32 {
  return ((2u * expert + row) * params.I + item) * (params.K / 16u) + chunk;
}

fn finish(item: u32, totals: array<f32, ROWS>) {
  let scale = norm_scale();
  let gate = totals[0] * scale;
  h[(t * params.top + slot) * params.I + item] = gate * sigmoid(gate) * totals[1] * scale;
}

// Whole numbers in the order of the logits, -0 equal to 0; applied twice it leads back.
fn ordered(bits: vec4<i32>) -> vec4<i32> {
  return bits ^ ((bits >> vec4(31u)) & vec4(0x7fffffff));
}

fn logit_of(e: u32) -> f32 {
  return bitcast<vec4<f32>>(ordered(scores[e / 4u]))[e % 4u];
}

// Ranks them by the last lanes, as the first round the row meanwhile.
fn rank_experts(lane: u32) {
  for (var e = WG - 1u - lane; e < params.E; e += WG) {
    let own = scores[e / 4u][e % 4u];
    // Counted are larger ones, and of those before also equal ones: larger than the next smaller number.
    var before = vec4<u32>();
    for (var base = 0u; base < params.E / 4u; base += AT_ONCE) {
      for (var q = base; q < base + AT_ONCE; q++) {
        before += select(vec4(0u), vec4(1u), scores[q] > vec4(own - i32(q < e / 4u)));
      }
    }
    let near = (scores[e / 4u] == vec4(own)) & (vec4(0u, 1u, 2u, 3u) < vec4(e % 4u));
    before += select(vec4(0u), vec4(1u), near);
    let rank = before.x + before.y + before.z + before.w;
    if (rank < params.top) {
      chosen[rank] = e;
    }
  }
}

fn share_of(e: u32) -> f32 {
  return exp(logit_of(e) - logit_of(chosen[0]));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  t = group.z;
  slot = group.y;
  take_row(params.K, lane);
  if (lane < MOST_EXPERTS / 4u) {
    let four = ordered(bitcast<vec4<i32>>(logits[t * params.E / 4u + min(lane, params.E / 4u - 1u)] + vec4(0.0)));
    scores[lane] = select(vec4(-0x7fffffff), four, lane < params.E / 4u);
  }
  workgroupBarrier();
  rank_experts(lane);
  round_normed_row(lane);
  expert = chosen[slot];
  let first = group.x * ITEMS * TEAMS;
  load_item(min(first + lane / TEAM, params.I - 1u), params.K, lane);
  let normalised = params.normalise == 1u;
  let measured = select(params.E, params.top, normalised);
  if (group.x == 0u && lane < measured) {
    var e = lane;
    if (normalised) {
      e = chosen[lane];
    }
    shares[lane] = share_of(e);
  }
  int8_products(first, params.I, params.K, lane);
  workgroupBarrier();
  // The last lanes have the least to do now.
  if (group.x == 0u && lane == WG - 1u) {
    var total = 0.0;
    for (var i = 0u; i < measured; i++) {
      total += shares[i];
    }
    weights[t * params.top + slot] = share_of(expert) / total;
    experts[t * params.top + slot] = i32(expert);
  }
}
