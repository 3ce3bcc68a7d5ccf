// linked_sum: the sum of a value over `lanes` neighbouring lanes, a power of two up to LINKED, in each of them.

const LINKED: u32 = 4u; // lanes of which the device is certain that they share a subgroup; it sets 32 where it can

fn linked_sum(value: f32, lanes: u32) -> f32 {
  var total = value;
  for (var step = 1u; step < lanes; step *= 2u) {
    total += subgroupShuffleXor(total, step);
  }
  return total;
}
