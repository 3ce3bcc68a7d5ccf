// seen_keys, fill_query: the queries of attend_run are rows of q, and the keys that each sees follow from params (T, S,
// causal, window, block) and length.

fn seen_keys(t: u32) -> vec2<u32> {
  let end = u32(length[0]);
  return visible_keys(end - params.T + t, end, params.S, params.causal, params.window, params.block);
}

fn fill_query(t: u32, g: u32, lane: u32) {
  let repeat = params.H / params.G;
  let width = params.D / 4u;
  if (lane < repeat * width) {
    query[lane] = q[(t * params.H + g * repeat) * width + lane] * params.scale;
  }
}
