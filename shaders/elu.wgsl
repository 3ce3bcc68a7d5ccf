// y = x where x > 0, else exp(x) - 1
// bindings: x [T, N] f32; y [T, N] f32
// work: a workgroup takes 1024 values at a time, a lane four of them that lie 256 apart

struct Params { T: u32, N: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

fn activate(value: f32) -> f32 {
  // exp(x) - 1 cancels near zero; the series is exact there to the last bits.
  let low = min(value, 0.0);
  let series = low * (1.0 + low * (1.0 / 2.0 + low * (1.0 / 6.0 + low * (1.0 / 24.0 + low / 120.0))));
  let negative = select(exp(low) - 1.0, series, low > -0.1);
  return select(negative, value, value > 0.0);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let count = params.T * params.N;
  for (var start = group.x * 1024u; start < count; start += groups.x * 1024u) {
    for (var i = start + lane; i < min(start + 1024u, count); i += 256u) {
      y[i] = activate(x[i]);
    }
  }
}
