// y[t * M + m, n] = b[n] + sum_(q, c) w[m, n, q, c] * rows[t + q, c], rows = tail, x: rows of M * N columns
// bindings: x [T, C] f32; tail [P, C] f32;
//   w [M, N, Q, C] f16; b [N] f32; y [M T, N] f32
// work: workgroup (i, k) computes 4 * LANES_N * NB columns of 1024 / LANES_N * MB rows; see lib/product_tiled
// tune: LANES_N lanes along the columns, MB and NB vec4 of rows and columns per lane
// lib: product_tiled, stream_quad, quad_f16

struct Params {
  T: u32, C: u32, P: u32, M: u32, N: u32, Q: u32
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> tail: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<uniform> params: Params;

const LANES_N: u32 = 16u; // tune
const MB: u32 = 2u; // tune
const NB: u32 = 1u; // tune

fn gather_quad(u: u32, q: u32) -> vec4<f32> {
  let tap = q / (params.C / 4u);
  return stream_quad(u + tap, q - tap * (params.C / 4u));
}

fn finish_quad(u: u32, n: u32, values: vec4<f32>) {
  y[(u * (params.M * params.N) + n) / 4u] = values + b[n % params.N / 4u];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  product_tiled(group, lane, params.T, params.M * params.N, params.Q * params.C);
}
