// q[i] = round(x[i] / d[i / 16]), d[c] = max |x[i]| of chunk c / n, n from 127 down to 124 with the least squared error: rows
// rounded to int8 in chunks of 16, for kernels that multiply int8 with int8
// bindings: x [C, 16] f32; q [C, 16] int8; d [C] f32
// work: a lane rounds a chunk, in strides of the grid

struct Params { C: u32 }

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> q: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> d: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var chunk = id.x; chunk < params.C; chunk += groups.x * WG) {
    var values: array<vec4<f32>, 4>;
    var largest = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
      values[i] = x[chunk * 4u + i];
      largest = max(largest, abs(values[i]));
    }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    // Below the normal numbers the inverse would overflow; such a chunk is as good as zero.
    let inverse = select(0.0, 1.0 / most, most > 1e-35);
    // The largest value is exact with any n, the others fall differently.
    var best = 127.0;
    var least = 3.4e38;
    for (var n = 127.0; n >= 124.0; n -= 1.0) {
      var errors = vec4<f32>();
      for (var i = 0u; i < 4u; i++) {
        let scaled = values[i] * (inverse * n);
        let off = scaled - round(scaled);
        errors += off * off;
      }
      let error = (errors.x + errors.y + errors.z + errors.w) / (n * n);
      best = select(best, n, error < least);
      least = min(least, error);
    }
    var words: vec4<u32>;
    for (var i = 0u; i < 4u; i++) {
      words[i] = pack4xI8(vec4<i32>(round(values[i] * (inverse * best))));
    }
    q[chunk] = words;
    d[chunk] = most / best;
  }
}
