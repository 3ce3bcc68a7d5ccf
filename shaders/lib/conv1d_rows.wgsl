// conv1d_rows: the output rows of a one-dimensional convolution. The caller defines params (T, P, J, stride, dilation,
// right).

fn conv1d_rows() -> u32 {
  return (params.P + params.T + params.right - (params.J - 1u) * params.dilation - 1u) / params.stride + 1u;
}
