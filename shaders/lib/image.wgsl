// image_pixel: which pixel of B images of H x W output pixel u of a two-dimensional convolution sees at a tap, or OUTSIDE.
// The caller defines params (B, H, W, J, L, stride, pad).

const OUTSIDE: u32 = 0xffffffffu;

fn image_rows() -> u32 {
  return (params.H + 2u * params.pad - params.J) / params.stride + 1u;
}

fn image_columns() -> u32 {
  return (params.W + 2u * params.pad - params.L) / params.stride + 1u;
}

fn image_pixels() -> u32 {
  return params.B * image_rows() * image_columns();
}

fn image_pixel(u: u32, tap: u32) -> u32 {
  let columns = image_columns();
  let line = u / columns;
  let rows = image_rows();
  let image = line / rows;
  // Padding wraps below zero and is then too large, like what lies beyond the other edge.
  let row = (line - image * rows) * params.stride + tap / params.L - params.pad;
  let column = (u - line * columns) * params.stride + tap % params.L - params.pad;
  let inside = row < params.H && column < params.W;
  return select(OUTSIDE, (image * params.H + row) * params.W + column, inside);
}
