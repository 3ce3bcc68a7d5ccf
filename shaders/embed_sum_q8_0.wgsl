// y[t, n] = scale * sum_q w[offsets[q] + ids[t, q], n]
// bindings: w_q [row_count, N] int8, w_d [row_count, N / 32] f16, rows row_start.. of V; ids [T, Q] i32;
//   offsets [Q] i32; y [T, N] f32
// work: lane i of column j writes y[t, i] for t = j, j + groups.y, ..; the first row range sets y, those after it add to it
// lib: value_q8_0

struct Params { T: u32, N: u32, Q: u32, scale: f32, row_start: u32, row_count: u32 }

@group(0) @binding(0) var<storage, read> w_q: array<u32>;
@group(0) @binding(1) var<storage, read> w_d: array<u32>;
@group(0) @binding(2) var<storage, read> ids: array<i32>;
@group(0) @binding(3) var<storage, read> offsets: array<i32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var t = id.y; t < params.T; t += groups.y) {
    var sum = 0.0;
    for (var q = 0u; q < params.Q; q++) {
      let row = u32(offsets[q] + ids[t * params.Q + q]) - params.row_start;
      if (id.x < params.N && row < params.row_count) {
        sum += weight_value(row * params.N + id.x);
      }
    }
    if (id.x < params.N) {
      let i = t * params.N + id.x;
      let before = select(y[i], 0.0, params.row_start == 0u);
      y[i] = before + params.scale * sum;
    }
  }
}
