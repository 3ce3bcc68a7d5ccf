// grouped: the products of an expert with the rows of its slots, LINES * TM rows at a time, every `shares`-th tile by one
// workgroup of 256 lanes. The caller defines TM, TN, slots, ends, input_row(slot) (the row of x of slot t * A + a), w_row(n),
// store(slot, sums, i, column): row i of sums and the lib tile_product with a quad_*, or int8_tile.

var<private> start_slot: u32;
var<private> batch: u32;

fn x_row(m: u32) -> u32 {
  return input_row(u32(slots[start_slot + min(m, batch - 1u)]));
}

fn grouped(expert: u32, share: u32, shares: u32, quads: u32, lane: u32) {
  let end = u32(ends[expert]);
  start_slot = select(0u, u32(ends[max(expert, 1u) - 1u]), expert > 0u) + share * LINES * TM;
  while (start_slot < end) {
    batch = min(end - start_slot, LINES * TM);
    var sums = array<array<f32, TN>, TM>();
    tile_product(&sums, quads, batch, lane);
    for (var i = 0u; i < TM; i++) {
      let m = i * LINES + lane / COLUMNS;
      if (m < batch) {
        store(u32(slots[start_slot + m]), &sums, i, lane % COLUMNS);
      }
    }
    start_slot += shares * LINES * TM;
  }
}
