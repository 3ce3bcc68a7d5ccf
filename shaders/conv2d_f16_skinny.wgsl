// y[b, v, h, n] = b[n] + sum_(j, l, c) w[n, j, l, c] * x[b, v * stride + j - pad, h * stride + l - pad, c]
// bindings: x [B, H, W, C] f32;
//   w [N, J, L, C] f16; b [N] f32; y [B, V, H', N] f32
// work: workgroup (i, k) computes ROWS columns of COLS output rows; see lib/product_skinny
// tune: COLS output rows and ROWS weight rows per workgroup, at most 64 together
// lib: product_skinny, image, quad_f16

struct Params {
  B: u32, H: u32, W: u32, C: u32, N: u32, J: u32, L: u32, stride: u32, pad: u32
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const COLS: u32 = 4u; // tune
const ROWS: u32 = 8u; // tune

fn gather_quad(u: u32, q: u32) -> vec4<f32> {
  let quads = params.C / 4u;
  let pixel = image_pixel(u, q / quads);
  let value = x[min(pixel, params.B * params.H * params.W - 1u) * quads + q % quads];
  return select(vec4<f32>(), value, pixel != OUTSIDE);
}

fn finish(u: u32, n: u32, value: f32) {
  y[u * params.N + n] = value + b[n];
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  product_skinny(group, lane, image_pixels(), params.N, params.J * params.L * params.C);
}
