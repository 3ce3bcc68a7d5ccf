// y[b, v, h, n] = b[n] + sum_(j, l, c) w[n, j, l, c] * x[b, v * stride + j - pad, h * stride + l - pad, c]
// bindings: x [B, H, W, C] f32;
//   w [N, J, L, C] f16; b [N] f32; y [B, V, H', N] f32
// work: workgroup (i, k) computes 4 * LANES_N * NB columns of 1024 / LANES_N * MB rows; see lib/product_tiled
// tune: LANES_N lanes along the columns, MB and NB vec4 of rows and columns per lane
// lib: product_tiled, image, quad_f16

struct Params {
  B: u32, H: u32, W: u32, C: u32, N: u32, J: u32, L: u32, stride: u32, pad: u32
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

const LANES_N: u32 = 16u; // tune
const MB: u32 = 2u; // tune
const NB: u32 = 1u; // tune

fn gather_quad(u: u32, q: u32) -> vec4<f32> {
  let quads = params.C / 4u;
  let pixel = image_pixel(u, q / quads);
  let value = x[min(pixel, params.B * params.H * params.W - 1u) * quads + q % quads];
  return select(vec4<f32>(), value, pixel != OUTSIDE);
}

fn finish_quad(u: u32, n: u32, values: vec4<f32>) {
  y[(u * params.N + n) / 4u] = values + b[n / 4u];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  product_tiled(group, lane, image_pixels(), params.N, params.J * params.L * params.C);
}
