// visible_keys: the first visible position and the one after the last for the query at position `own`, of the `end`
// positions in a ring of `rows`: later positions are hidden if causal, those `window` or more before, those of other blocks.

fn visible_keys(own: u32, end: u32, rows: u32, causal: u32, window: u32, block: u32) -> vec2<u32> {
  var first = end - min(end, rows);
  var last = end;
  if (causal != 0u) {
    last = min(last, own + 1u);
  }
  if (window != 0u) {
    first = max(first, own + 1u - min(own + 1u, window));
  }
  if (block != 0u) {
    first = max(first, own / block * block);
    last = min(last, (own / block + 1u) * block);
  }
  return vec2(first, max(first, last));
}

// The row of a ring in which the position `offset` behind the one in row `start` lies; offset is at most rows.
fn ring_row(start: u32, offset: u32, rows: u32) -> u32 {
  let row = start + offset;
  return select(row, row - rows, row >= rows);
}
