// q[i] = round(x[i] / (256 d[i / 32])), rest[i] = round(x[i] / d[i / 32] - 256 q[i]) within +-127, d[c] = m / (256 * 127) with m
// the largest |x[i]| of chunk c: rows rounded to two int8 a value in chunks of 32, for kernels that multiply int8 with int8
// bindings: x [C, 32] f32; q [C, 2, 2, 16] int8, 16 q and their rests, twice a chunk; d [C] f32
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
    var values: array<vec4<f32>, 8>;
    var largest = vec4<f32>();
    for (var i = 0u; i < 8u; i++) {
      values[i] = x[chunk * 8u + i];
      largest = max(largest, abs(values[i]));
    }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    // Below the normal numbers the inverse would overflow; such a chunk is as good as zero.
    let inverse = select(0.0, 127.0 / most, most > 1e-35);
    for (var half = 0u; half < 2u; half++) {
      var words: vec4<u32>;
      var rests: vec4<u32>;
      for (var i = 0u; i < 4u; i++) {
        let scaled = values[4u * half + i] * inverse;
        let whole = round(scaled);
        words[i] = pack4xI8(vec4<i32>(whole));
        rests[i] = pack4xI8(vec4<i32>(clamp(round((scaled - whole) * 256.0), vec4(-127.0), vec4(127.0))));
      }
      q[4u * chunk + 2u * half] = words;
      q[4u * chunk + 2u * half + 1u] = rests;
    }
    d[chunk] = most / (256.0 * 127.0);
  }
}
