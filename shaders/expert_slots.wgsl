// slots[ends[e - 1] .. ends[e]] = the slots t * A + a with experts[t, a] = e, in order
// bindings: experts [T, A] i32; slots [T, A] i32; ends [E] i32
// work: workgroup e lists the slots of one expert; a lane looks at a run of neighbouring slots, twice

struct Params { T: u32, A: u32 }

@group(0) @binding(0) var<storage, read> experts: array<i32>;
@group(0) @binding(1) var<storage, read_write> slots: array<i32>;
@group(0) @binding(2) var<storage, read_write> ends: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

const WG: u32 = 256u;

var<workgroup> counts: array<vec2<u32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let expert = i32(group.x);
  let all = params.T * params.A;
  let run = (all + WG - 1u) / WG;
  let first = min(lane * run, all);
  let last = min(first + run, all);
  // How many slots of the run belong to the expert, and to those before it.
  var found = vec2<u32>();
  for (var slot = first; slot < last; slot++) {
    found += vec2(u32(experts[slot] == expert), u32(experts[slot] < expert));
  }
  counts[lane] = found;
  workgroupBarrier();
  for (var reach = 1u; reach < WG; reach *= 2u) {
    let before = select(vec2<u32>(), counts[lane - min(reach, lane)], lane >= reach);
    workgroupBarrier();
    counts[lane] += before;
    workgroupBarrier();
  }
  let start = counts[WG - 1u].y;
  var place = start + counts[lane].x - found.x;
  for (var slot = first; slot < last; slot++) {
    if (experts[slot] == expert) {
      slots[place] = i32(slot);
      place += 1u;
    }
  }
  if (lane == 0u) {
    ends[group.x] = i32(start + counts[WG - 1u].x);
  }
}
