// y[b, v, h, n] = b[n] + sum_(j, l, c) w[n, j, l, c] * x[b, v * stride + j - pad, h * stride + l - pad, c]
// bindings: x [B, H, W, C] f32;
//   w [N, J, L, C] f32; b [N] f32; y [B, V, H', N] f32
// work: one lane computes one output at a time; neighbouring lanes have neighbouring n
// lib: product_direct, image, value_f32

struct Params {
  B: u32, H: u32, W: u32, C: u32, N: u32, J: u32, L: u32, stride: u32, pad: u32
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

fn gather(u: u32, n: u32, tap: u32, i: u32) -> f32 {
  let pixel = image_pixel(u, tap);
  return select(0.0, x[min(pixel, params.B * params.H * params.W - 1u) * params.C + i], pixel != OUTSIDE);
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let columns = params.N;
  let count = image_pixels() * columns;
  for (var at = id.x; at < count; at += groups.x * 256u) {
    let n = at % columns;
    y[at] = product_direct(at / columns, n, params.J * params.L, params.C) + b[n];
  }
}
