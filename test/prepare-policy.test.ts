import t from 'tap';
import { PreparePolicy, type SegmentRun } from '../src/sequencer/prepare-policy.js';

const KIB = 1024;
/** Of the policies below, in bytes a millisecond. */
const FILL_RATE = 1000;
/** A rate that is neither plainly low enough for such a disk nor too high for it. */
const BETWEEN = 700;
const MS = 10;

const grew = (rate: number): SegmentRun => ({ grew: true, filling: false, bytes: rate * MS, ms: MS });
const prepared = (rate: number): SegmentRun => ({ grew: false, filling: true, bytes: rate * MS, ms: MS });

function policyAfter(...runs: SegmentRun[]): PreparePolicy {
  const policy = new PreparePolicy();
  policy.filled(FILL_RATE);
  for (const run of runs) policy.ended(run);
  return policy;
}

/** What it answers when it is asked over and over: both, if it ever tries the other way. */
function answers(policy: PreparePolicy, rate: number): boolean[] {
  return [...new Set(Array.from({ length: 100 }, () => policy.pays(rate)))];
}

t.test('as long as nothing was filled past the page cache, a moderate rate pays and a high one does not', (t) => {
  const policy = new PreparePolicy();
  t.equal(policy.pays(0), true);
  t.equal(policy.pays(192 * KIB - 1), true);
  t.equal(policy.pays(192 * KIB), false);
  t.equal(policy.pays(Number.POSITIVE_INFINITY), false, 'a segment that was full within the millisecond it began in');
  policy.ended(prepared(10));
  policy.ended(grew(1000));
  t.equal(policy.pays(192 * KIB - 1), true, 'whatever the log was written at');
  t.end();
});

t.test('up to half of the rate that the disk fills a spare at, nothing else is asked', (t) => {
  const policy = policyAfter(grew(900), prepared(10));
  t.same(answers(policy, FILL_RATE / 2 - 1), [true]);
  t.equal(policy.pays(FILL_RATE / 2), false, 'from there on it is: growing was quicker');
  t.end();
});

t.test('above the rate that the disk fills a spare at it does not pay, however quick prepared segments were', (t) => {
  const policy = policyAfter(prepared(900), grew(10));
  t.same(answers(policy, FILL_RATE + 1), [false]);
  t.equal(policy.pays(FILL_RATE), true, 'a spare would just be there in time');
  t.end();
});

t.test('the newest fill rate is what counts', (t) => {
  const policy = policyAfter();
  t.equal(policy.pays(FILL_RATE * 2), false);
  policy.filled(FILL_RATE * 5);
  t.equal(policy.pays(FILL_RATE * 2), true);
  policy.filled(FILL_RATE);
  t.equal(policy.pays(FILL_RATE * 2), false);
  t.end();
});

t.test('in between it goes by which of the two ways the log was written quicker', (t) => {
  const cases: [string, SegmentRun[], boolean][] = [
    ['neither is known', [], true],
    ['it never was prepared', [grew(900)], true],
    ['it never grew', [prepared(1)], true],
    ['prepared was quicker', [prepared(800), grew(700)], true],
    ['growing was quicker', [prepared(700), grew(800)], false],
    ['as quick', [prepared(800), grew(800)], true],
  ];
  for (const [what, runs, pays] of cases) t.equal(policyAfter(...runs).pays(BETWEEN), pays, what);
  t.end();
});

t.test('one segment that was quicker than the others changes a quarter of the picture', (t) => {
  const prepare = policyAfter(grew(150), prepared(100));
  t.equal(prepare.pays(BETWEEN), false);
  prepare.ended(prepared(200));
  t.equal(prepare.pays(BETWEEN), false, '125');
  prepare.ended(prepared(300));
  t.equal(prepare.pays(BETWEEN), true, '169');
  const grow = policyAfter(prepared(150), grew(100));
  t.equal(grow.pays(BETWEEN), true);
  grow.ended(grew(200));
  t.equal(grow.pays(BETWEEN), true, '125');
  grow.ended(grew(300));
  t.equal(grow.pays(BETWEEN), false, '169');
  t.end();
});

/** Which of so many questions are answered another way than the first. */
function trialsOf(policy: PreparePolicy, questions: number): number[] {
  const answers = Array.from({ length: questions }, () => policy.pays(BETWEEN));
  return answers.flatMap((answer, i) => (answer === answers[0] ? [] : [i + 1]));
}

t.test('two segments in a row of 32 are written in the way that seems the slower one', (t) => {
  for (const runs of [[prepared(800), grew(700)], [prepared(700), grew(800)], []]) {
    t.same(trialsOf(policyAfter(...runs), 96), [30, 31, 62, 63, 94, 95]);
  }
  t.end();
});

t.test('questions with a plain answer bring no trial nearer', (t) => {
  const policy = policyAfter(prepared(800), grew(700));
  for (let i = 0; i < 29; i++) {
    t.equal(policy.pays(BETWEEN), true);
    answers(policy, FILL_RATE / 4);
    answers(policy, FILL_RATE * 2);
  }
  t.equal(policy.pays(BETWEEN), false, 'the 30th');
  t.end();
});

t.test('what a trial finds is believed', (t) => {
  const policy = policyAfter(prepared(700), grew(800));
  t.equal(policy.pays(BETWEEN), false);
  policy.ended(prepared(2000));
  t.equal(policy.pays(BETWEEN), true);
  t.end();
});

t.test('a segment that was written in both ways at once, or in no time, tells nothing', (t) => {
  const useless: [string, SegmentRun][] = [
    ['it grew while a spare was being filled', { ...grew(9000), filling: true }],
    ['it was prepared, and no spare was being filled for the next', { ...prepared(1), filling: false }],
    ['it grew in no time', { ...grew(9000), ms: 0 }],
    ['it was prepared, and the clock went back', { ...prepared(9000), ms: -5 }],
  ];
  for (const [what, run] of useless) {
    for (const runs of [
      [prepared(800), grew(700)],
      [prepared(700), grew(800)],
    ]) {
      const expected = policyAfter(...runs).pays(BETWEEN);
      t.equal(policyAfter(...runs, run).pays(BETWEEN), expected, what);
    }
    // It is no first one either.
    t.equal(policyAfter(run, prepared(700), grew(800)).pays(BETWEEN), false, what);
    t.equal(policyAfter(run, grew(700), prepared(800)).pays(BETWEEN), true, what);
  }
  t.end();
});

t.test('of a sync its bytes are taken off, at the rate that the disk fills a spare at, and a quarter stays', (t) => {
  const policy = new PreparePolicy();
  t.equal(policy.withoutBytes(10, 1_000_000_000), 10, 'at a rate that is not known nothing is');
  policy.filled(FILL_RATE);
  t.equal(policy.withoutBytes(10, 0), 10);
  t.equal(policy.withoutBytes(10, 2 * FILL_RATE), 8);
  t.equal(policy.withoutBytes(10, 7.5 * FILL_RATE), 2.5);
  t.equal(policy.withoutBytes(10, 8 * FILL_RATE), 2.5);
  t.equal(policy.withoutBytes(10, 1000 * FILL_RATE), 2.5);
  t.equal(policy.withoutBytes(0, 5 * FILL_RATE), 0, 'no sync');
  t.end();
});
