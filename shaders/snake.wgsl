// y[t, c] = x[t, c] + amplitude[c] * sin(frequency[c] * x[t, c])^2
// bindings: x [T, C] f32; frequency [C] f32; amplitude [C] f32; y [T, C] f32
// work: a workgroup takes 1024 values at a time, a lane four of them that lie 256 apart
// lib: sine_squared

struct Params { T: u32, C: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> frequency: array<f32>;
@group(0) @binding(2) var<storage, read> amplitude: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let count = params.T * params.C;
  for (var start = group.x * 1024u; start < count; start += groups.x * 1024u) {
    for (var i = start + lane; i < min(start + 1024u, count); i += 256u) {
      let c = i % params.C;
      y[i] = x[i] + amplitude[c] * sine_squared(frequency[c] * x[i]);
    }
  }
}
