// y[t, h] = sum_i sums[t, h, i] exp(peak_i - peak) / sum_i total_i exp(peak_i - peak), where (peak_i, total_i) =
// stats[t, h, i], peak is the largest peak_i, and runs with total_i = 0 held no keys
// bindings: sums [T, H, P, D] f32; stats [T, H, P, 2] f32; y [T, H, D] f32
// work: workgroup (h, t, c) computes 32 elements of D from 32 c on; 8 lanes share an element, each merges every eighth run

struct Params { T: u32, H: u32, P: u32, D: u32 }

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 256u;
const COLUMNS: u32 = 32u;
const SLOTS: u32 = 8u;
const BATCH: u32 = 4u; // loads in flight per lane

var<workgroup> lane_stats: array<vec2<f32>, WG>;
var<workgroup> lane_sums: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = (group.y * params.H + group.x) * params.P;
  let d = group.z * COLUMNS + lane % COLUMNS;
  let slot = lane / COLUMNS;
  var peak = -3.4e38;
  var total = 0.0;
  var sum = 0.0;
  for (var base = slot; base < params.P; base += SLOTS * BATCH) {
    var runs: array<vec2<f32>, BATCH>;
    var parts: array<f32, BATCH>;
    for (var n = 0u; n < BATCH; n++) {
      let i = row + min(base + n * SLOTS, params.P - 1u);
      runs[n] = stats[i];
      parts[n] = sums[i * params.D + min(d, params.D - 1u)];
    }
    var largest = peak;
    for (var n = 0u; n < BATCH; n++) {
      largest = max(largest, select(-3.4e38, runs[n].x, runs[n].y > 0.0));
    }
    let fade = exp(peak - largest);
    peak = largest;
    total *= fade;
    sum *= fade;
    for (var n = 0u; n < BATCH; n++) {
      let held = base + n * SLOTS < params.P && runs[n].y > 0.0;
      let share = select(0.0, exp(min(runs[n].x - peak, 0.0)), held);
      total += share * runs[n].y;
      sum += share * parts[n];
    }
  }
  lane_stats[lane] = vec2(peak, total);
  lane_sums[lane] = sum;
  workgroupBarrier();
  if (slot == 0u && d < params.D) {
    for (var n = 1u; n < SLOTS; n++) {
      peak = max(peak, lane_stats[n * COLUMNS + lane].x);
    }
    total = 0.0;
    sum = 0.0;
    for (var n = 0u; n < SLOTS; n++) {
      let place = n * COLUMNS + lane;
      let share = exp(lane_stats[place].x - peak);
      total += share * lane_stats[place].y;
      sum += share * lane_sums[place];
    }
    y[(group.y * params.H + group.x) * params.D + d] = sum / max(total, 1e-38);
  }
}
