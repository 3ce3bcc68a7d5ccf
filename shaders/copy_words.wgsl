// y[i] = x[start + i]: makes a copy of a view whose byte offset cannot be bound.
// bindings: x [start + words] u32 words; y [words] u32 words
// work: one lane copies words lane, lane + lanes, ...

struct Params { start: u32, words: u32 }

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var i = id.x; i < params.words; i += groups.x * 256u) {
    y[i] = x[params.start + i];
  }
}
