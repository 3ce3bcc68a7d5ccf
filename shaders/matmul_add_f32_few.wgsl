// y[t, n] = sum_k x[t, k] * w[n, k] + r[R == 1 ? 0 : t, n], for few rows of x: each weight is read once for T_TILE of them.
// bindings: x [T, K] f32; w [row_count, K] f32, rows row_start.. of N; r [R, N] f32, R = 1 or T; y [T, N] f32
// work: workgroup (i, j, z) computes weight rows (j + z * groups.y) * ROWS .. for rows i * T_TILE .. of x, so that
//   neighbours share weights; WG lanes stride over K
// lib: gemv, gemv_sums, chunk_quad, quad_f32, sum_outputs

struct Params { T: u32, N: u32, K: u32, R: u32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> r: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const WG: u32 = 128u; // tune
const ROWS: u32 = 2u; // tune
const T_TILE: u32 = 4u; // tune
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
  gemv(group.x * T_TILE, (group.z * groups.y + group.y) * ROWS, lane);
}
