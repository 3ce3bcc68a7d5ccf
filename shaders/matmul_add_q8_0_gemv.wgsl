// y[t, n] = sum_k x[t, k] * w[n, k] + r[R == 1 ? 0 : t, n], for one row of x.
// bindings: x [T, K] f32; w_q [row_count, K] int8, w_d [row_count, K / 32] f16, rows row_start.. of N;
//   r [R, N] f32, R = 1 or T; y [T, N] f32
// work: workgroup (i, j) computes weight rows (i + j * groups.x) * ROWS .., for row 0 of x; WG lanes stride over K
// lib: gemv, gemv_sums, chunk_q8_0, sum_outputs

struct Params { T: u32, N: u32, K: u32, R: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w_q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> w_d: array<u32>;
@group(0) @binding(3) var<storage, read> r: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const WG: u32 = 128u; // tune
const ROWS: u32 = 2u; // tune
const T_TILE: u32 = 1u;
const OUTPUTS: u32 = ROWS * T_TILE;

fn finish(t: u32, n: u32, value: f32) {
  y[t * params.N + n] = value + r[select(t, 0u, params.R == 1u) * params.N + n];
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  gemv(0u, (group.y * groups.x + group.x) * ROWS, lane);
}
