// stream_value: channel `channel` of row `row` of tail followed by x followed by zeros. The caller binds x and tail as arrays
// of f32 and defines params (T, P, C).

fn stream_value(row: u32, channel: u32) -> f32 {
  if (row < params.P) {
    return tail[row * params.C + channel];
  }
  if (row < params.P + params.T) {
    return x[(row - params.P) * params.C + channel];
  }
  return 0.0;
}
