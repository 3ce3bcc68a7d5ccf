// values[at] = ids[0]
// bindings: values [K] i32; ids [1] i32
// work: one lane

struct Params { at: u32 }

@group(0) @binding(0) var<storage, read_write> values: array<i32>;
@group(0) @binding(1) var<storage, read> ids: array<i32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(1)
fn main() {
  values[params.at] = ids[0];
}
