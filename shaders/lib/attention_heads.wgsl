// What a workgroup of 256 lanes does for each of the REPEAT query heads that share a key head, over a chunk of 64 keys.
// Loops over heads stand in functions of their own and loops around them are spelled out, because compilers that do not
// unroll a nest of loops move its arrays out of the registers.
// The caller declares REPEAT, params and store_sum.

const LANES: u32 = 256u;
const CHUNK: u32 = 64u;
const TEAM: u32 = 8u;
const TEAMS: u32 = 32u;
const PITCH: u32 = 257u; // one more than LANES, so that the sums of a team lie in different banks

alias Heads = array<vec4<f32>, REPEAT>;
alias Scores = array<f32, REPEAT>;

var<workgroup> query: array<vec4<f32>, LANES>;
var<workgroup> scores: array<f32, CHUNK * REPEAT>;
var<workgroup> shares: array<f32, PITCH * REPEAT>;
var<workgroup> factors: array<f32, REPEAT>;

// Add the products of every head's query with four elements of two keys.
fn add_products(into: ptr<function, Scores>, more: ptr<function, Scores>, c: u32, key: vec4<f32>, more_key: vec4<f32>) {
  let width = params.D / 4u;
  for (var r = 0u; r < REPEAT; r++) {
    let wanted = query[min(r * width + c, LANES - 1u)] * select(0.0, 1.0, c < width);
    (*into)[r] += dot(wanted, key);
    (*more)[r] += dot(wanted, more_key);
  }
}

// Sum what the lanes of each team found for a key of the half n of a chunk, and keep the scores, hidden keys far below all.
fn sum_teams(products: Scores, n: u32, count: u32, lane: u32) {
  for (var r = 0u; r < REPEAT; r++) {
    shares[r * PITCH + lane] = products[r];
  }
  workgroupBarrier();
  if (lane < TEAMS * REPEAT) {
    let place = lane % REPEAT * PITCH + lane / REPEAT * TEAM;
    var score = 0.0;
    for (var s = 0u; s < TEAM; s++) {
      score += shares[place + s];
    }
    scores[n * TEAMS * REPEAT + lane] = select(-3.4e38, score, n * TEAMS + lane / REPEAT < count);
  }
  workgroupBarrier();
}

// Add the share of every head in four elements of the value of key i of the chunk.
fn add_value(into: ptr<function, Heads>, i: u32, value: vec4<f32>) {
  let counted = value * select(0.0, 1.0, i < CHUNK);
  for (var r = 0u; r < REPEAT; r++) {
    (*into)[r] += shares[min(i, CHUNK - 1u) * REPEAT + r] * counted;
  }
}

// Add up what the slots gathered for a head, and store it.
fn finish(gathered: vec4<f32>, row: u32, r: u32, part: u32, lane: u32) {
  let width = params.D / 4u;
  query[lane] = gathered;
  workgroupBarrier();
  if (lane < width && r < min(REPEAT, params.H / params.G)) {
    var sum = gathered;
    for (var s = lane + width; s < LANES / width * width; s += width) {
      sum += query[s];
    }
    store_sum(row + r, part, lane, sum, factors[r]);
  }
  workgroupBarrier();
}
