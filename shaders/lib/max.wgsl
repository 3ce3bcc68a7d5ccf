// max_lanes: the largest of a value over the WG lanes of a workgroup, returned to every lane. The caller defines WG, a
// multiple of 16. Two steps, as in sum_lanes.

const JUDGES: u32 = WG / 16u;

var<workgroup> max_slots: array<f32, WG>;
var<workgroup> max_parts: array<f32, JUDGES>;

fn max_lanes(value: f32, lane: u32) -> f32 {
  max_slots[lane] = value;
  workgroupBarrier();
  if (lane < JUDGES) {
    var part = max_slots[lane];
    for (var i = 1u; i < 16u; i++) {
      part = max(part, max_slots[i * JUDGES + lane]);
    }
    max_parts[lane] = part;
  }
  workgroupBarrier();
  var largest = max_parts[0];
  for (var i = 1u; i < JUDGES; i++) {
    largest = max(largest, max_parts[i]);
  }
  return largest;
}
