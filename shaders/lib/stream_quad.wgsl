// stream_quad: four channels from 4 quad on of row `row` of tail followed by x followed by zeros. The caller binds x and tail
// as arrays of vec4 and defines params (T, P, C).

fn stream_quad(row: u32, quad: u32) -> vec4<f32> {
  let quads = params.C / 4u;
  if (row < params.P) {
    return tail[row * quads + quad];
  }
  if (row < params.P + params.T) {
    return x[(row - params.P) * quads + quad];
  }
  return vec4<f32>();
}
