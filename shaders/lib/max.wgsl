// max_lanes: the largest of a value over the WG lanes of a workgroup, returned to every lane. The caller defines WG.

var<workgroup> max_slots: array<f32, WG>;

fn max_lanes(value: f32, lane: u32) -> f32 {
  max_slots[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      max_slots[lane] = max(max_slots[lane], max_slots[lane + half]);
    }
    workgroupBarrier();
  }
  let largest = max_slots[0];
  workgroupBarrier();
  return largest;
}
