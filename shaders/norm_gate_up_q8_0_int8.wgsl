// h[t, i] = silu(gate) * up; gate = m . w[i, :], up = m . w[I + i, :], m = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * g,
// where x g is rounded to int8
// bindings: x [T, K] f32; g [K] f32; w_q [2 I, K] int8, w_d [2 I, K / 32] f16; h [T, I] f32
// work: workgroup (i, j, t) computes h[t, (i + j * groups.x) * ITEMS * WG / TEAM ..]; see lib/int8_gemv
// tune: TEAM lanes share a product, ITEMS are taken by each team in turn, MOST is the longest row
// lib: int8_row, linked_sum, normed_row, int8_gemv, sigmoid

struct Params { K: u32, I: u32, epsilon: f32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> w_d: array<u32>;
@group(0) @binding(4) var<storage, read_write> h: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const WG: u32 = 256u; // tune
const TEAM: u32 = 32u; // tune
const ITEMS: u32 = 1u; // tune
const MOST: u32 = 2048u; // tune
const ROWS: u32 = 2u;

fn chunk_place(item: u32, row: u32, chunk: u32) -> u32 {
  return (row * params.I + item) * (params.K / 16u) + chunk;
}

fn finish(item: u32, totals: array<f32, ROWS>) {
  let scale = norm_scale();
  let gate = totals[0] * scale;
  h[t * params.I + item] = gate * sigmoid(gate) * totals[1] * scale;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_invocation_id) place: u32,
) {
  t = group.z;
  let first = (group.y * groups.x + group.x) * ITEMS * TEAMS;
  load_item(min(first + lane / TEAM, params.I - 1u), params.K, lane);
  take_row(params.K, lane);
  round_normed_row(lane);
  int8_products(first, params.I, params.K, lane, place);
}
