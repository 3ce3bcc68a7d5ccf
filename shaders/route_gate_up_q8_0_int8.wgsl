// h[t, a, i] = silu(gate) * up; gate = m . w[e, i, :], up = m . w[e, I + i, :], e = experts[t, a],
// m = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * g, where x g is rounded to int8;
// experts[t, :] = the top largest of logits[t, :] in falling order, the lower id first among equals;
// weights[t, :] = their softmax, over themselves if normalise is set, else over all
// bindings: x [T, K] f32; g [K] f32; logits [T, E] f32; w_q [E, 2 I, K] int8, w_d [E, 2 I, K / 32] f16; h [T, top, I] f32;
//   weights [T, top] f32; experts [T, top] i32
// work: workgroup (i, a, t) finds the expert and computes h[t, a, i * ITEMS * WG / TEAM ..]; see lib/int8_gemv. E up to 128
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
const MOST_EXPERTS: u32 = 128u;
const KEYS: u32 = MOST_EXPERTS / 4u / LINKED; // of a lane, by four: linked lanes hold all of them
const NONE: i32 = -0x80000000; // a key struck out, below all others; also the bits of -0

var<private> slot: u32;
var<private> expert: u32;
var<private> keys: array<vec4<i32>, KEYS>;

fn chunk_place(item: u32, row: u32, chunk: u32) -> u32 {
  return ((2u * expert + row) * params.I + item) * (params.K / 16u) + chunk;
}

fn finish(item: u32, totals: array<f32, ROWS>) {
  let scale = norm_scale();
  let gate = totals[0] * scale;
  h[(t * params.top + slot) * params.I + item] = gate * sigmoid(gate) * totals[1] * scale;
}

// Whole numbers in the order of the logits, -0 equal to 0; applied twice it leads back to the value.
fn ordered(bits: vec4<i32>) -> vec4<i32> {
  return select(bits, vec4(NONE) - bits, bits < vec4(0));
}

fn take_logits(lane: u32) {
  for (var i = 0u; i < KEYS; i++) {
    let four = lane % LINKED * KEYS + i;
    let values = logits[t * params.E / 4u + min(four, params.E / 4u - 1u)];
    keys[i] = select(vec4(NONE), ordered(bitcast<vec4<i32>>(values)), four < params.E / 4u);
  }
}

// The largest key; the first expert that has it is struck out, and is the expert if `wanted`.
fn next_largest(lane: u32, wanted: bool) -> i32 {
  var most = keys[0];
  for (var i = 1u; i < KEYS; i++) {
    most = max(most, keys[i]);
  }
  let largest = subgroupMax(max(max(most.x, most.y), max(most.z, most.w)));
  var first = MOST_EXPERTS;
  for (var i = 0u; i < KEYS; i++) {
    let same = keys[i] == vec4(largest);
    let place = select(select(select(3u, 2u, same.z), 1u, same.y), 0u, same.x);
    first = min(first, select(MOST_EXPERTS, 4u * (lane % LINKED * KEYS + i) + place, any(same)));
  }
  first = subgroupMin(first);
  for (var i = 0u; i < KEYS; i++) {
    let four = vec4(4u * (lane % LINKED * KEYS + i)) + vec4(0u, 1u, 2u, 3u);
    keys[i] = select(keys[i], vec4(NONE), four == vec4(first));
  }
  expert = select(expert, first, wanted);
  return largest;
}

fn exponentials(values: vec4<i32>, largest: f32) -> vec4<f32> {
  return exp(bitcast<vec4<f32>>(ordered(values)) - largest);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_invocation_id) place: u32,
) {
  t = group.z;
  slot = group.y;
  take_logits(lane);
  take_row(params.K, lane);
  // Each subgroup finds the expert by itself, so that the weights are under way before the first barrier.
  var largest = 0.0;
  var share = 0.0;
  var total = 0.0;
  for (var n = 0u; n < select(slot + 1u, params.top, group.x == 0u); n++) {
    let key = next_largest(lane, n == slot);
    if (n == 0u) {
      largest = bitcast<f32>(ordered(vec4(key)).x);
    }
    let own = exponentials(vec4(key), largest).x;
    total += own;
    share = select(share, own, n == slot);
  }
  let first = group.x * ITEMS * TEAMS;
  load_item(min(first + lane / TEAM, params.I - 1u), params.K, lane);
  if (group.x == 0u) {
    var others = 0.0;
    for (var i = 0u; i < KEYS; i++) {
      let four = select(vec4(0.0), exponentials(keys[i], largest), keys[i] != vec4(NONE));
      others += four.x + four.y + four.z + four.w;
    }
    others = linked_sum(others, LINKED);
    if (lane == 0u) {
      weights[t * params.top + slot] = share / (total + select(others, 0.0, params.normalise == 1u));
      experts[t * params.top + slot] = i32(expert);
    }
  }
  round_normed_row(lane);
  int8_products(first, params.I, params.K, lane, place);
}
