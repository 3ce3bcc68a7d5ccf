// y[u, n] = v + amplitude[n] * sin(frequency[n] * v)^2,
// v = b[n] + sum_(j, i) w[n, j, i] * rows[u * stride + j * dilation, i of the group of n], rows = tail, x, zeros
// bindings: x [T, C] f32; tail [P, C] f32;
//   w [N, J, I] f16; b [N] f32; frequency [N] f32; amplitude [N] f32;
//   y [U, N] f32
// work: one lane computes one output at a time; neighbouring lanes have neighbouring n
// lib: product_direct, conv1d_rows, stream_value, value_f16, sine_squared

struct Params {
  T: u32, C: u32, P: u32, N: u32, J: u32, I: u32, stride: u32, dilation: u32, right: u32
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> tail: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<u32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read> frequency: array<f32>;
@group(0) @binding(5) var<storage, read> amplitude: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

fn gather(u: u32, n: u32, tap: u32, i: u32) -> f32 {
  let group = n / (params.N / (params.C / params.I));
  return stream_value(u * params.stride + tap * params.dilation, group * params.I + i);
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let columns = params.N;
  let count = conv1d_rows() * columns;
  for (var at = id.x; at < count; at += groups.x * 256u) {
    let n = at % columns;
    let v = product_direct(at / columns, n, params.J, params.I) + b[n];
    y[at] = v + amplitude[n] * sine_squared(frequency[n] * v);
  }
}
