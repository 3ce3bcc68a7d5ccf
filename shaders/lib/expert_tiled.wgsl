// expert_tiled: the products of an expert with all rows that chose it, 16 * TM rows at a time, by one workgroup of 256 lanes.
// The caller defines TM, TN, experts, params (T, A), input_row(slot) (the row of x of slot t * A + a), w_row(n),
// store(slot, sums, i, column): row i of sums and these libs: tile_product, quad_*.

const BATCH: u32 = 16u * TM;

// Slots that chose the expert and wait: less than a batch, and up to 256 more of the last look.
var<workgroup> waiting: array<u32, BATCH + 256u>;
var<workgroup> found: atomic<u32>;
var<private> batch: u32;

fn x_row(m: u32) -> u32 {
  return input_row(waiting[min(m, batch - 1u)]);
}

fn expert_tiled(expert: u32, quads: u32, lane: u32) {
  if (lane == 0u) {
    atomicStore(&found, 0u);
  }
  workgroupBarrier();
  var count = 0u;
  var next = 0u;
  loop {
    // The order in which slots are found may differ between runs; what is computed for each does not depend on it.
    while (count < BATCH && next < params.T * params.A) {
      let slot = next + lane;
      if (slot < params.T * params.A && u32(experts[min(slot, params.T * params.A - 1u)]) == expert) {
        waiting[atomicAdd(&found, 1u)] = slot;
      }
      next += 256u;
      workgroupBarrier();
      count = atomicLoad(&found);
      workgroupBarrier();
    }
    if (count == 0u) {
      break;
    }
    batch = min(count, BATCH);
    var sums = array<array<f32, TN>, TM>();
    tile_product(&sums, quads, batch, lane);
    for (var i = 0u; i < TM; i++) {
      let m = i * 16u + lane / 16u;
      if (m < batch) {
        store(waiting[m], &sums, i, lane % 16u);
      }
    }
    workgroupBarrier();
    count -= batch;
    let left = waiting[batch + min(lane, 255u)];
    workgroupBarrier();
    if (lane < count) {
      waiting[lane] = left;
    }
    if (lane == 0u) {
      atomicStore(&found, count);
    }
    workgroupBarrier();
  }
}
