// y[t, n] = sum_k m[t, k] * w[n, k], m[t, k] = x[t, k] / sqrt(mean(x[t, :]^2) + epsilon) * g[k]
// bindings: x [T, K] f32; g [K] f32; w_q [row_count, K] int8, w_d [row_count, K / 32] f16, rows row_start.. of N;
//   y [T, N] f32
// work: workgroup (i, j, t) computes weight rows (i + j * groups.x) * ROWS .. for row t of x; WG lanes stride over K
// lib: norm_gemv, chunk_q8_0, sum_outputs

struct Params { K: u32, N: u32, epsilon: f32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> w_d: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const WG: u32 = 128u; // tune
const ROWS: u32 = 2u; // tune
const PRODUCTS: u32 = ROWS;
const OUTPUTS: u32 = PRODUCTS + 1u;

var<private> first: u32;

fn product_row(r: u32) -> u32 {
  return min(first + r, params.row_count - 1u);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  first = (group.y * groups.x + group.x) * ROWS;
  norm_gemv(group.z, lane);
  if (lane < ROWS && first + lane < params.row_count) {
    y[group.z * params.N + params.row_start + first + lane] = norm_totals[lane] * norm_scale();
  }
}
