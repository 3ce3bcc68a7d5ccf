// What a workgroup of 256 lanes does for each of the REPEAT query heads that share a key head, over a chunk of 64 keys.
// Loops over heads stand in functions of their own and loops around them are spelled out, because compilers that do not
// unroll a nest of loops move its arrays out of the registers.
// The caller declares REPEAT, params and store_sum.

const LANES: u32 = 256u;
const CHUNK: u32 = 64u;
const TEAM: u32 = 8u;
const TEAMS: u32 = 32u;
const PITCH: u32 = 289u; // of a head's sums: a place more per team, and one more, so that they lie in different banks
const HALVES: u32 = 2u - REPEAT / 8u; // of a chunk that are summed at once

alias Heads = array<vec4<f32>, REPEAT>;
alias Scores = array<f32, REPEAT>;

var<workgroup> query: array<vec4<f32>, LANES>;
var<workgroup> scores: array<f32, CHUNK * REPEAT>; // then the shares of the values
var<workgroup> found: array<f32, HALVES * REPEAT * PITCH>;
var<workgroup> peaks: array<f32, 8u * REPEAT>;
var<workgroup> factors: array<f32, REPEAT>;

// Add the products of every head's query with four elements of two keys.
fn add_products(into: ptr<function, Scores>, more: ptr<function, Scores>, c: u32, key: vec4<f32>, more_key: vec4<f32>) {
  let width = params.D / 4u;
  for (var r = 0u; r < REPEAT; r++) {
    let wanted = select(vec4(0.0), query[min(r * width + c, LANES - 1u)], c < width);
    (*into)[r] += dot(wanted, key);
    (*more)[r] += dot(wanted, more_key);
  }
}

// Note what a lane found for a key of one half of a chunk.
fn keep(products: Scores, half: u32, lane: u32) {
  for (var r = 0u; r < REPEAT; r++) {
    found[(half * REPEAT + r) * PITCH + lane + lane / TEAM] = products[r];
  }
}

// Sum what each team found, and keep the scores from half n on, hidden keys far below all.
fn sum_teams(n: u32, count: u32, lane: u32) {
  if (lane < HALVES * TEAMS * REPEAT) {
    let key = lane / REPEAT;
    let place = (key / TEAMS * REPEAT + lane % REPEAT) * PITCH + key % TEAMS * (TEAM + 1u);
    var score = 0.0;
    for (var s = 0u; s < TEAM; s++) {
      score += found[place + s];
    }
    scores[n * TEAMS * REPEAT + lane] = select(-3.4e38, score, n * TEAMS + key < count);
  }
}

// Add the share of every head in four elements of the value of key i of the chunk.
fn add_value(into: ptr<function, Heads>, i: u32, value: vec4<f32>) {
  let counted = value * select(0.0, 1.0, i < CHUNK);
  for (var r = 0u; r < REPEAT; r++) {
    (*into)[r] += scores[min(i, CHUNK - 1u) * REPEAT + r] * counted;
  }
}

// Add up what the slots gathered for a head, and store it.
fn finish(gathered: vec4<f32>, row: u32, r: u32, part: u32, lane: u32) {
  let width = params.D / 4u;
  query[lane] = gathered;
  workgroupBarrier();
  if (lane < width && r < params.H / params.G) {
    var sum = gathered;
    for (var s = lane + width; s < LANES / width * width; s += width) {
      sum += query[s];
    }
    store_sum(row + r, part, lane, sum, factors[r]);
  }
  workgroupBarrier();
}
