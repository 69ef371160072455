//! The choices that a program is made from.
//!
//! Every choice is a number, and 0 is always the simplest one. The numbers come from a seed at first, and are kept;
//! a program is made smaller by leaving numbers out or making them smaller, and generating again: whatever the
//! numbers are, the program is valid, and when they run out the rest is as simple as can be.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Where choices come from.
pub struct Source {
    rng: Option<ChaCha8Rng>,
    choices: Vec<u32>,
    next: usize,
}

impl Source {
    /// Choices that a seed determines.
    pub fn from_seed(seed: u64) -> Self {
        Self { rng: Some(ChaCha8Rng::seed_from_u64(seed)), choices: Vec::new(), next: 0 }
    }

    /// These choices, then zeros.
    pub fn from_choices(choices: &[u32]) -> Self {
        Self { rng: None, choices: choices.to_vec(), next: 0 }
    }

    /// The choices that were made so far.
    pub fn made(self) -> Vec<u32> {
        let Self { mut choices, next, .. } = self;
        choices.truncate(next);
        choices
    }

    /// The next number, as `meaning` says: kept as what it means, so that smaller numbers are simpler.
    fn word(&mut self, meaning: impl Fn(u32) -> u32) -> u32 {
        if self.next == self.choices.len() {
            let Some(rng) = &mut self.rng else { return meaning(0) };
            self.choices.push(rng.next_u32());
        }
        let choice = meaning(self.choices[self.next]);
        self.choices[self.next] = choice;
        self.next += 1;
        choice
    }

    /// A number below `count`, all alike probable.
    pub fn below(&mut self, count: u32) -> u32 {
        if count < 2 { 0 } else { self.word(|word| word % count) }
    }

    /// A number from `low` to `high`.
    pub fn range(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    /// True in one of `count` cases.
    pub fn one_in(&mut self, count: u32) -> bool {
        count > 0 && self.below(count) == count - 1
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.below(100) >= 100 - percent
    }

    /// An index into `weights`, each with the probability of its weight.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if at < *weight {
                return index;
            }
            at -= weight;
        }
        0
    }

    /// One of the items.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }

    /// Any bits.
    pub fn bits(&mut self) -> u64 {
        u64::from(self.word(|word| word)) << 32 | u64::from(self.word(|word| word))
    }
}
