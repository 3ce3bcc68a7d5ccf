// y[u, n] = v + amplitude[n] * sin(frequency[n] * v)^2,
// v = b[n] + sum_(j, i) w[n, j, i] * rows[u * stride + j * dilation, i of the group of n], rows = tail, x, zeros
// bindings: x [T, C] f32; tail [P, C] f32;
//   w [N, J, I] f32; b [N] f32; frequency [N] f32; amplitude [N] f32;
//   y [U, N] f32
// work: workgroup (i, k) computes 4 * LANES_N * NB columns of 1024 / LANES_N * MB rows; see lib/product_tiled
// tune: LANES_N lanes along the columns, MB and NB vec4 of rows and columns per lane
// lib: product_tiled, conv1d_rows, conv1d_quad, stream_quad, quad_f32, sine_squared

struct Params {
  T: u32, C: u32, P: u32, N: u32, J: u32, I: u32, stride: u32, dilation: u32, right: u32
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> tail: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> frequency: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> amplitude: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(7) var<uniform> params: Params;

const LANES_N: u32 = 16u; // tune
const MB: u32 = 2u; // tune
const NB: u32 = 1u; // tune

fn finish_quad(u: u32, n: u32, values: vec4<f32>) {
  let v = values + b[n / 4u];
  let at = frequency[n / 4u] * v;
  let sines = vec4<f32>(sine_squared(at.x), sine_squared(at.y), sine_squared(at.z), sine_squared(at.w));
  y[(u * params.N + n) / 4u] = v + amplitude[n / 4u] * sines;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  product_tiled(group, lane, conv1d_rows(), params.N, params.J * params.I);
}
