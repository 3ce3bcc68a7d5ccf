// tile_product: adds the products of LINES * TM rows of x with COLUMNS * TN weight rows to sums, TM x TN of them for each of
// LINES x COLUMNS lanes, x rounded to int8 and w q8_0, through tiles of STEP blocks of 32 values of K in workgroup memory.
// Lane l gets rows LINES i + l / COLUMNS of x, COLUMNS j + l % COLUMNS of w. The caller defines TM, TN, STEP, LINES (a power
// of two), x_q and w_q (arrays of vec4<u32>), x_d (array of Scale), w_d (array of u32), x_row(m) and w_row(n) (rows to
// read, always within bounds) and, before this lib, tile_q8 or tile_q16: PLANES int8 for each value of x, the Scale of a block
// of 32 of them, and how tiles are multiplied. Of x only the first `rows` count; `quads` is K / 4. Ends with a barrier.

const COLUMNS: u32 = 256u / LINES;
const X_ROWS: u32 = LINES * TM;
const W_ROWS: u32 = COLUMNS * TN;
const X_PARTS: u32 = 2u * STEP * PLANES; // of 16 int8 in each row of a tile
const W_PARTS: u32 = 2u * STEP;
const X_STRIDE: u32 = X_ROWS + 8u / X_PARTS; // keeps lanes that store neighbouring parts in different banks
const W_STRIDE: u32 = W_ROWS + 8u / W_PARTS;
const X_LOADS: u32 = (X_ROWS * X_PARTS + 255u) / 256u;
const W_LOADS: u32 = (W_ROWS * W_PARTS + 255u) / 256u;
const X_SCALES: u32 = (X_ROWS * STEP + 255u) / 256u;
const W_SCALES: u32 = (W_ROWS * STEP + 255u) / 256u;
const X_SIZE: u32 = X_STRIDE * X_PARTS;
const W_SIZE: u32 = W_STRIDE * W_PARTS;
const X_BLOCKS: u32 = X_ROWS * STEP;
const W_BLOCKS: u32 = W_ROWS * STEP;

var<workgroup> x_tile: array<vec4<u32>, X_SIZE>;
var<workgroup> w_tile: array<vec4<u32>, W_SIZE>;
var<workgroup> x_scales: array<Scale, X_BLOCKS>;
var<workgroup> w_scales: array<f32, W_BLOCKS>;

fn add_dot(sum: i32, a: vec4<u32>, b: vec4<u32>) -> i32 {
  return sum + dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

fn tile_product(sums: ptr<function, array<array<f32, TN>, TM>>, quads: u32, rows: u32, lane: u32) {
  let column = lane % COLUMNS;
  let line = lane / COLUMNS;
  let blocks = quads / 8u;
  // Neighbouring lanes load the parts of a row; those of the next tile are under way while this one is used.
  var x_from: array<u32, X_LOADS>;
  var w_from: array<u32, W_LOADS>;
  var next_x: array<vec4<u32>, X_LOADS>;
  var next_w: array<vec4<u32>, W_LOADS>;
  var x_scale_from: array<u32, X_SCALES>;
  var w_scale_from: array<u32, W_SCALES>;
  var next_x_scale: array<Scale, X_SCALES>;
  var next_w_scale: array<f32, W_SCALES>;
  for (var i = 0u; i < X_LOADS; i++) {
    x_from[i] = x_row(min((lane + 256u * i) / X_PARTS, X_ROWS - 1u)) * blocks * (2u * PLANES);
  }
  for (var i = 0u; i < W_LOADS; i++) {
    w_from[i] = w_row(min((lane + 256u * i) / W_PARTS, W_ROWS - 1u)) * blocks * 2u;
  }
  for (var i = 0u; i < X_SCALES; i++) {
    x_scale_from[i] = x_row((lane + 256u * i) % X_ROWS) * blocks;
  }
  for (var i = 0u; i < W_SCALES; i++) {
    w_scale_from[i] = w_row((lane + 256u * i) % W_ROWS) * blocks;
  }
  for (var start = 0u; start < blocks + STEP; start += STEP) {
    if (start > 0u) {
      for (var i = 0u; i < X_LOADS; i++) {
        let load = lane + 256u * i;
        if (load < X_ROWS * X_PARTS) {
          x_tile[load % X_PARTS * X_STRIDE + load / X_PARTS] = next_x[i];
        }
      }
      for (var i = 0u; i < W_LOADS; i++) {
        let load = lane + 256u * i;
        if (load < W_ROWS * W_PARTS) {
          w_tile[load % W_PARTS * W_STRIDE + load / W_PARTS] = next_w[i];
        }
      }
      for (var i = 0u; i < X_SCALES; i++) {
        if (lane + 256u * i < X_BLOCKS) {
          x_scales[lane + 256u * i] = next_x_scale[i];
        }
      }
      for (var i = 0u; i < W_SCALES; i++) {
        if (lane + 256u * i < W_BLOCKS) {
          w_scales[lane + 256u * i] = next_w_scale[i];
        }
      }
      workgroupBarrier();
    }
    if (start < blocks) {
      // What lies beyond K is read again from its last block and gets a scale of zero.
      for (var i = 0u; i < X_LOADS; i++) {
        let part = (lane + 256u * i) % X_PARTS;
        next_x[i] = x_q[x_from[i] + min(start * (2u * PLANES) + part, blocks * (2u * PLANES) - 1u)];
      }
      for (var i = 0u; i < W_LOADS; i++) {
        let part = (lane + 256u * i) % W_PARTS;
        next_w[i] = w_q[w_from[i] + min(start * 2u + part, blocks * 2u - 1u)];
      }
      for (var i = 0u; i < X_SCALES; i++) {
        let block = start + (lane + 256u * i) / X_ROWS;
        next_x_scale[i] = select(Scale(), x_d[x_scale_from[i] + min(block, blocks - 1u)], block < blocks);
      }
      for (var i = 0u; i < W_SCALES; i++) {
        let block = w_scale_from[i] + min(start + (lane + 256u * i) / W_ROWS, blocks - 1u);
        let both = unpack2x16float(w_d[block / 2u]);
        next_w_scale[i] = select(both.x, both.y, (block & 1u) != 0u);
      }
    }
    if (start > 0u) {
      multiply_tile(sums, rows, line, column);
      workgroupBarrier();
    }
  }
}
