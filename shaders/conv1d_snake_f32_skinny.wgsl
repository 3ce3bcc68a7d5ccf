// y[u, n] = v + amplitude[n] * sin(frequency[n] * v)^2,
// v = b[n] + sum_(j, i) w[n, j, i] * rows[u * stride + j * dilation, i of the group of n], rows = tail, x, zeros
// bindings: x [T, C] f32; tail [P, C] f32;
//   w [N, J, I] f32; b [N] f32; frequency [N] f32; amplitude [N] f32;
//   y [U, N] f32
// work: workgroup (i, k) computes ROWS columns of COLS output rows; see lib/product_skinny
// tune: COLS output rows and ROWS weight rows per workgroup, at most 64 together
// lib: product_skinny, conv1d_rows, conv1d_quad, stream_quad, quad_f32, sine_squared

struct Params {
  T: u32, C: u32, P: u32, N: u32, J: u32, I: u32, stride: u32, dilation: u32, right: u32
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> tail: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read> frequency: array<f32>;
@group(0) @binding(5) var<storage, read> amplitude: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

const COLS: u32 = 4u; // tune
const ROWS: u32 = 8u; // tune

fn finish(u: u32, n: u32, value: f32) {
  let v = value + b[n];
  y[u * params.N + n] = v + amplitude[n] * sine_squared(frequency[n] * v);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  product_skinny(group, lane, conv1d_rows(), params.N, params.J * params.I);
}
