// sum_lanes: the sum of a value over the WG lanes of a workgroup, returned to every lane. The caller defines WG, a multiple
// of 16. Two steps, because a tree waits for a barrier at every level: some lanes add 16 values each, then all lanes add
// what those found.

const SUMMERS: u32 = WG / 16u;

var<workgroup> sum_slots: array<f32, WG>;
var<workgroup> sum_parts: array<f32, SUMMERS>;

fn sum_lanes(value: f32, lane: u32) -> f32 {
  sum_slots[lane] = value;
  workgroupBarrier();
  if (lane < SUMMERS) {
    var part = 0.0;
    for (var i = 0u; i < 16u; i++) {
      part += sum_slots[i * SUMMERS + lane];
    }
    sum_parts[lane] = part;
  }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < SUMMERS; i++) {
    total += sum_parts[i];
  }
  return total;
}
