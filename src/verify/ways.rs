//! Which way a resume function goes for each site, found once for all of them.
//!
//! Regions choose among their parts by comparing the site with constants. Executing each landing's way from the start
//! would take as many steps as there are comparisons, for each landing. So code that does nothing but that is executed
//! on ranges of values of the local instead, when the machine comes to it first:
//!
//! ```text
//! (br_if $part.2 (i32.ge_u (local.get $site) (i32.const 9)))     ;; 0..9 goes on, 9..20 goes to $part.2
//! (br_if $part.1 (i32.ge_u (local.get $site) (i32.const 4)))     ;; 0..4 goes on, 4..9 goes to $part.1
//! (call $pop_i32)                                                ;; 0..4 ends here
//! ```
//!
//! Where a range ends is the first statement that does anything else. Nothing on the way to it changes the machine but
//! where it is, so that a machine with a value out of the range can go there at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use crate::ir::{Comparison, Name};
use crate::verify::body::{Body, Op, Place, Target};

/// Instructions that are looked at for one start, at most: as many times the body.
const PATIENCE: usize = 16;

/// Ways that were found in a body.
pub struct Ways {
    /// Values that the local can have: up to this.
    values: u64,
    /// The global with the state.
    state: Name,
    /// By the instruction that they start at, and the state.
    found: RefCell<HashMap<(u32, u64), Ends>>,
}

/// Where ranges of values end, by their first value, ascending.
type Ends = Vec<(u64, Place)>;

/// A value on the stack, as it depends on the local.
#[derive(Clone, Copy)]
enum Known {
    Bits(u64),
    /// The local, less this.
    Less(u64),
    /// Whether the local is within, or outside of, some values.
    Within(u64, u64),
    Outside(u64, u64),
}

/// Values that go the same way, and how far.
#[derive(Clone)]
struct Way {
    values: Range<u64>,
    at: u32,
    /// The height of what was on the stack before, and what came on top of it.
    height: u32,
    stack: Vec<Known>,
    /// The last place with nothing on top.
    statement: Place,
}

impl Way {
    fn go_to(&mut self, target: Target) {
        self.at = target.at;
        self.stack.truncate(target.height.saturating_sub(self.height) as usize);
        self.height = self.height.min(target.height);
    }
}

/// What comes after an instruction.
enum Next {
    /// The same way goes on.
    On,
    /// Its values part.
    Part(Vec<Way>),
    /// It ends before the statement.
    End,
}

impl Ways {
    /// Ways for values of a local below a bound.
    pub fn new(values: usize, state: Name) -> Ways {
        Ways { values: values as u64, state, found: RefCell::default() }
    }

    /// Where a machine gets to, with nothing changed, that is about to read a local with this value. `None` if it
    /// must go on by itself.
    pub fn follow(&self, body: &Body, from: Place, value: u64, state: u64) -> Option<Place> {
        if value >= self.values {
            return None;
        }
        let mut found = self.found.borrow_mut();
        let ends = found.entry((from.at, state)).or_insert_with(|| self.find(body, from, state));
        let after = ends.partition_point(|&(first, _)| first <= value);
        let (_, end) = ends[after.checked_sub(1)?];
        (end.at != from.at).then_some(end)
    }

    fn find(&self, body: &Body, from: Place, state: u64) -> Ends {
        let Op::LocalGet(local) = body.instructions[from.at as usize].op else { return Vec::new() };
        let start =
            Way { values: 0..self.values, at: from.at, height: from.height, stack: Vec::new(), statement: from };
        let (mut open, mut ends) = (vec![start], Vec::new());
        let mut patience = PATIENCE * body.instructions.len();
        while let Some(mut way) = open.pop() {
            loop {
                if way.stack.is_empty() {
                    way.statement = Place { at: way.at, height: way.height };
                }
                let next = if patience == 0 { Next::End } else { self.step(body, local, state, &mut way) };
                patience = patience.saturating_sub(1);
                match next {
                    Next::On => {}
                    Next::Part(ways) => {
                        open.extend(ways);
                        break;
                    }
                    Next::End => {
                        ends.push((way.values.start, way.statement));
                        break;
                    }
                }
            }
        }
        ends.sort_unstable_by_key(|&(first, _)| first);
        ends
    }

    fn step(&self, body: &Body, local: u32, state: u64, way: &mut Way) -> Next {
        let instruction = body.instructions[way.at as usize];
        way.at += 1;
        let value = match instruction.op {
            Op::Const(bits) => Some(Known::Bits(bits)),
            Op::LocalGet(read) if read == local => Some(Known::Less(0)),
            Op::GlobalGet(global) if global == self.state => Some(Known::Bits(state)),
            Op::Fold(1) => way.stack.pop().and_then(|operand| fold_one(body, instruction.row, operand)),
            Op::Fold(2) => {
                let right = way.stack.pop();
                way.stack.pop().zip(right).and_then(|(left, right)| fold_two(body, instruction.row, left, right))
            }
            Op::Select => {
                let condition = way.stack.pop();
                let if_false = way.stack.pop();
                match (way.stack.pop(), if_false, condition) {
                    (Some(if_true), Some(if_false), Some(Known::Bits(bits))) => {
                        Some(if bits != 0 { if_true } else { if_false })
                    }
                    _ => None,
                }
            }
            Op::Jump(target) if !target.carries => {
                way.go_to(target);
                return Next::On;
            }
            Op::JumpIf(target) if !target.carries => return jump(way, target, true),
            Op::JumpUnless(target) if !target.carries => return jump(way, target, false),
            Op::Table(first, count) => return choose(body, way, first, count),
            _ => None,
        };
        match value {
            Some(value) => {
                way.stack.push(value);
                Next::On
            }
            None => Next::End,
        }
    }
}

fn fold_one(body: &Body, row: u32, operand: Known) -> Option<Known> {
    let expr = body.row(row).expr();
    match operand {
        Known::Bits(bits) => expr.fold(&[bits]).map(Known::Bits),
        _ if !expr.is_zero_test() => None,
        Known::Less(0) => Some(Known::Within(0, 1)),
        Known::Less(_) => None,
        Known::Within(first, end) => Some(Known::Outside(first, end)),
        Known::Outside(first, end) => Some(Known::Within(first, end)),
    }
}

fn fold_two(body: &Body, row: u32, left: Known, right: Known) -> Option<Known> {
    let expr = body.row(row).expr();
    match (left, right) {
        (Known::Bits(left), Known::Bits(right)) => expr.fold(&[left, right]).map(Known::Bits),
        // By the state, a condition counts or does not.
        (Known::Bits(0), _) if expr.is_multiplication() => Some(Known::Bits(0)),
        (Known::Bits(_), Known::Within(..) | Known::Outside(..)) if expr.is_multiplication() => Some(right),
        (Known::Bits(_), Known::Less(0)) if expr.is_multiplication() => Some(Known::Outside(0, 1)),
        (Known::Less(0), Known::Bits(bits)) => Some(match expr.comparison()? {
            Comparison::AtLeast => Known::Outside(0, bits),
            Comparison::Below => Known::Within(0, bits),
            Comparison::Equal => Known::Within(bits, bits + 1),
            Comparison::Difference => Known::Less(bits),
        }),
        _ => None,
    }
}

/// A conditional jump: each value jumps or does not.
fn jump(way: &mut Way, target: Target, when: bool) -> Next {
    let (first, end, inside) = match way.stack.pop() {
        Some(Known::Bits(bits)) => {
            if (bits != 0) == when {
                way.go_to(target);
            }
            return Next::On;
        }
        Some(Known::Within(first, end)) => (first, end, when),
        Some(Known::Outside(first, end)) => (first, end, !when),
        Some(Known::Less(0)) => (0, 1, !when),
        _ => return Next::End,
    };
    let Range { start, end: limit } = way.values;
    let (first, end) = (first.clamp(start, limit), end.clamp(start, limit));
    let part = |values: Range<u64>, jumps: bool| {
        let mut part = Way { values, ..way.clone() };
        if jumps {
            part.go_to(target);
        }
        part
    };
    let end = end.max(first);
    let parts = [(start..first, !inside), (first..end, inside), (end..limit, !inside)];
    Next::Part(parts.into_iter().filter(|(values, _)| !values.is_empty()).map(|(v, jumps)| part(v, jumps)).collect())
}

/// A `br_table`: neighbours that go to the same target stay together.
fn choose(body: &Body, way: &mut Way, first: u32, count: u32) -> Next {
    let Some(Known::Less(less)) = way.stack.pop() else { return Next::End };
    let default = u64::from(count) - 1;
    // Below what is subtracted, the index wraps around.
    let index = |value: u64| value.checked_sub(less).map_or(default, |index| index.min(default));
    let target = |value: u64| body.targets[first as usize + index(value) as usize];
    let mut ways: Vec<Way> = Vec::new();
    let mut value = way.values.start;
    while value < way.values.end {
        let here = target(value);
        if here.carries {
            return Next::End;
        }
        let mut end = value + 1;
        while end < way.values.end && target(end).at == here.at {
            end += 1;
        }
        let mut part = Way { values: value..end, ..way.clone() };
        part.go_to(here);
        ways.push(part);
        value = end;
    }
    Next::Part(ways)
}
