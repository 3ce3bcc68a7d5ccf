// sum_lanes: the sum of a value over the WG lanes of a workgroup, returned to every lane. The caller defines WG.

var<workgroup> sum_slots: array<f32, WG>;

fn sum_lanes(value: f32, lane: u32) -> f32 {
  sum_slots[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      sum_slots[lane] += sum_slots[lane + half];
    }
    workgroupBarrier();
  }
  let total = sum_slots[0];
  workgroupBarrier();
  return total;
}
