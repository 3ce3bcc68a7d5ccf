// y[t * M + m, n] = b[n] + sum_(q, c) w[m, n, q, c] * rows[t + q, c], rows = tail, x: rows of M * N columns
// bindings: x [T, C] f32; tail [P, C] f32;
//   w [M, N, Q, C] f32; b [N] f32; y [M T, N] f32
// work: one lane computes one output at a time; neighbouring lanes have neighbouring n
// lib: product_direct, stream_value, value_f32

struct Params {
  T: u32, C: u32, P: u32, M: u32, N: u32, Q: u32
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> tail: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

fn gather(u: u32, n: u32, tap: u32, i: u32) -> f32 {
  return stream_value(u + tap, i);
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let columns = params.M * params.N;
  let count = params.T * columns;
  for (var at = id.x; at < count; at += groups.x * 256u) {
    let n = at % columns;
    y[at] = product_direct(at / columns, n, params.Q, params.C) + b[n % params.N];
  }
}
