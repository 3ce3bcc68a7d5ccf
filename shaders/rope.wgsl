// y[t, h, j] = x[t, h, j] * cos - x[t, h, j + D/2] * sin; y[t, h, j + D/2] = x[t, h, j + D/2] * cos + x[t, h, j] * sin
// bindings: x [T, H, D] f32; table [T, D] f32, cos in the first half of a row, sin in the second; y [T, H, D] f32
// work: one lane per pair (j, j + D/2), in strides of the grid

struct Params { T: u32, H: u32, D: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let half = params.D / 2u;
  for (var i = id.x; i < params.T * params.H * half; i += groups.x * WG) {
    let head = i / half;
    let j = i % half;
    let row = head / params.H * params.D;
    let cosine = table[row + j];
    let sine = table[row + half + j];
    let low = x[head * params.D + j];
    let high = x[head * params.D + half + j];
    y[head * params.D + j] = low * cosine - high * sine;
    y[head * params.D + half + j] = high * cosine + low * sine;
  }
}
