// y[t, h] = sum_i sums[t, h, i] exp(peak_i - peak) / sum_i total_i exp(peak_i - peak), where (peak_i, total_i) =
// stats[t, h, i], peak is the largest peak_i, and runs with total_i = 0 held no keys
// bindings: sums [T, H, P, D] f32; stats [T, H, P, 2] f32; y [T, H, D] f32
// work: workgroup (h, t), in strides of the grid over t; 128 lanes stride over D

struct Params { T: u32, H: u32, P: u32, D: u32 }

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 128u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  for (var t = group.y; t < params.T; t += groups.y) {
    let row = t * params.H + group.x;
    var peak = -3.4e38;
    for (var i = 0u; i < params.P; i++) {
      let run = stats[row * params.P + i];
      peak = max(peak, select(-3.4e38, run.x, run.y > 0.0));
    }
    for (var d = lane; d < params.D; d += WG) {
      var total = 0.0;
      var sum = 0.0;
      for (var i = 0u; i < params.P; i++) {
        let run = stats[row * params.P + i];
        let share = select(0.0, exp(min(run.x - peak, 0.0)), run.y > 0.0);
        total += run.y * share;
        sum += sums[(row * params.P + i) * params.D + d] * share;
      }
      y[row * params.D + d] = sum / max(total, 1e-38);
    }
  }
}
