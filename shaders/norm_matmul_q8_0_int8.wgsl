// y[t, n] = sum_k m[t, k] * w[n, k], m[t, k] = x[t, k] / sqrt(mean(x[t, :]^2) + epsilon) * g[k], where x g is rounded to int8
// bindings: x [T, K] f32; g [K] f32; w_q [row_count, K] int8, w_d [row_count, K / 32] f16, rows row_start.. of N;
//   y [T, N] f32
// work: workgroup (i, j, t) computes weight rows (i + j * groups.x) * ITEMS * WG / TEAM .. for row t; see lib/int8_gemv
// tune: TEAM lanes share a product, ITEMS are taken by each team in turn, MOST is the longest row
// lib: int8_row, linked_sum, normed_row, int8_gemv

struct Params { K: u32, N: u32, epsilon: f32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> w_d: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const WG: u32 = 256u; // tune
const TEAM: u32 = 32u; // tune
const ITEMS: u32 = 1u; // tune
const MOST: u32 = 2048u; // tune
const ROWS: u32 = 1u;

fn chunk_place(item: u32, row: u32, chunk: u32) -> u32 {
  return item * (params.K / 16u) + chunk;
}

fn finish(item: u32, totals: array<f32, ROWS>) {
  y[t * params.N + params.row_start + item] = totals[0] * norm_scale();
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
  load_item(min(first + lane / TEAM, params.row_count - 1u), params.K, lane);
  take_row(params.K, lane);
  round_normed_row(lane);
  int8_products(first, params.row_count, params.K, lane, place);
}
