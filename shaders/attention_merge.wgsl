// y[t, h] = sum_i sums[t, h, i] exp(peak_i - peak) / sum_i total_i exp(peak_i - peak), where (peak_i, total_i) =
// stats[t, h, i], peak is the largest peak_i, and runs with total_i = 0 held no keys
// bindings: sums [T, H, P, D] f32; stats [T, H, P, 2] f32; y [T, H, D] f32
// work: workgroup (h, t, c) computes 32 elements of D from 32 c on; 8 lanes share an element, 8 runs each at a time. P up
//   to 256

struct Params { T: u32, H: u32, P: u32, D: u32 }

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 256u;
const COLUMNS: u32 = 32u;
const SLOTS: u32 = 8u;
const BATCH: u32 = 8u;

var<workgroup> runs: array<vec2<f32>, WG>;
var<workgroup> partial: array<vec2<f32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = (group.y * params.H + group.x) * params.P;
  let d = group.z * COLUMNS + lane % COLUMNS;
  let slot = lane / COLUMNS;
  if (lane < params.P) {
    runs[lane] = stats[row + lane];
  }
  workgroupBarrier();
  var peak = -3.4e38;
  for (var i = 0u; i < params.P; i++) {
    peak = max(peak, select(-3.4e38, runs[i].x, runs[i].y > 0.0));
  }
  var sum = vec2(0.0);
  for (var base = slot; base < params.P; base += SLOTS * BATCH) {
    var parts: array<f32, BATCH>;
    for (var n = 0u; n < BATCH; n++) {
      let i = min(base + n * SLOTS, params.P - 1u);
      parts[n] = sums[(row + i) * params.D + min(d, params.D - 1u)];
    }
    for (var n = 0u; n < BATCH; n++) {
      let i = base + n * SLOTS;
      let run = runs[min(i, params.P - 1u)];
      let share = select(0.0, exp(min(run.x - peak, 0.0)), i < params.P && run.y > 0.0);
      sum += share * vec2(parts[n], run.y);
    }
  }
  partial[lane] = sum;
  workgroupBarrier();
  if (slot == 0u && d < params.D) {
    for (var n = 1u; n < SLOTS; n++) {
      sum += partial[n * COLUMNS + lane];
    }
    y[(group.y * params.H + group.x) * params.D + d] = sum.x / max(sum.y, 1e-38);
  }
}
