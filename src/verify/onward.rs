//! What a resume function does once its landing has returned, beside what the function does there: it must be the same.
//!
//! Both are followed at once, with the state NORMAL, from behind the landing on. Each is executed on values that have only
//! names, up to its next *turn*: an operation that can be noticed, or a choice of the way by what is not known. Turns
//! must be equal, and so must be what they are made of. Then both go on behind them, each way.
//!
//! ```text
//! function                                 resume function, once it is resumed            the same in both
//!                                                                                         what $g returned, locals 0, 2
//! (local.set 1 (… what $g returned))       (local.set 1 (… what $g returned))             and local 1
//! (call $h (local.get 1))                  (if (global.get $state)                        turn: the call, of the same
//!                                            (then (call $h.resume))
//!                                            (else (call $h (local.get 1))))
//! (br_if $done (local.get 0))              (br_if $done (local.get 0))                    turn: the choice, by the same
//! ```
//!
//! Between turns of a pair of places counts only which locals and which entries of the stack are the same in both. A pair
//! that is reached again with fewer of those is followed again. A local that a frame does not hold is the same in both
//! only once it has been set: so frames that lack what is needed show, too.
//!
//! Operands that were computed before the landing, in its statement, are taken for the same: [`check`](super::check)
//! compares them.

use std::collections::HashMap;

use crate::ir::{Kind, Type};
use crate::plan::Site;
use crate::verify::body::{Body, Call, Instruction, Op, Target};
use crate::verify::operations::computed;
use crate::verify::violation::Problem;
use crate::verify::world::World;

use crate::verify::memory::Value;

/// A value, by what it is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Term {
    Bits(u64),
    Null,
    /// What a local held at the pair of places, in both functions.
    Local(u32),
    /// Likewise an entry of the stack.
    Entry(u32),
    /// What a local or entry held that is not the same in both.
    OwnLocal(Side, u32),
    OwnEntry(Side, u32),
    /// What a turn gives, and what a handler gets.
    Result,
    /// An operation on operands.
    Of(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Side {
    Function,
    Resume,
}

/// A place of the function, and one of its resume function.
type Pair = [u32; 2];

/// Where a landing has returned: in the function, and in its resume function.
pub struct Returned {
    pub site: Site,
    pub places: Pair,
    /// Entries of the stack, the landing's result included.
    pub height: u32,
    /// Whether the landing gives a result.
    pub gives: bool,
    /// For each local that both have, whether the resume function has it again.
    pub reloaded: Vec<bool>,
}

/// What is the same in both functions.
#[derive(Clone)]
struct Same {
    locals: Vec<u64>,
    entries: Vec<bool>,
}

impl Same {
    fn local(&self, local: u32) -> bool {
        self.locals.get(local as usize / 64).is_some_and(|bits| bits >> (local % 64) & 1 == 1)
    }

    fn set_local(&mut self, local: u32, is_same: bool) {
        let bit = 1 << (local % 64);
        let bits = &mut self.locals[local as usize / 64];
        *bits = if is_same { *bits | bit } else { *bits & !bit };
    }

    /// Keeps what is the same here and there. Whether that is less than before.
    fn meet(&mut self, other: &Same) -> bool {
        let mut is_less = false;
        for (bits, other) in self.locals.iter_mut().zip(&other.locals) {
            is_less |= *bits & !other != 0;
            *bits &= other;
        }
        for (entry, other) in self.entries.iter_mut().zip(&other.entries) {
            is_less |= *entry && !other;
            *entry &= other;
        }
        is_less
    }
}

/// What a function does next.
struct Turn {
    what: What,
    operands: Vec<Term>,
    /// What locals hold by then that were set.
    locals: HashMap<u32, Term>,
    /// Where it goes on, with what on the stack.
    ways: Vec<Way>,
    /// Where it goes on if it throws.
    thrown: Vec<Way>,
    /// The address of its expression.
    address: usize,
}

struct Way {
    at: u32,
    stack: Vec<Term>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// By a hash of the operation.
    Operation(u64),
    Choice,
    /// Goes back to the start of a loop.
    Again,
    Return,
    Trap,
}

/// One of the two functions.
struct Follower<'a, 'm> {
    world: &'a World<'m>,
    body: &'a Body,
    side: Side,
    /// What conditions that test for zero test.
    zero_tests: HashMap<Term, Term>,
    /// Components of tuples that were made.
    tuples: HashMap<Term, Vec<Term>>,
    /// What else are components of tuples.
    components: HashMap<Term, (u32, Term)>,
}

/// A function on its way to its next turn.
struct Walk<'s> {
    at: u32,
    stack: Vec<Term>,
    locals: HashMap<u32, Term>,
    same: &'s Same,
}

/// Follows both functions from where landings have returned. A failure is the site's that led there.
pub fn follow(
    world: &World<'_>,
    function: &Body,
    resume: &Body,
    locals: usize,
    returned: &[Returned],
) -> Result<(), (Site, Problem)> {
    let follower = |body, side| Follower {
        world,
        body,
        side,
        zero_tests: HashMap::new(),
        tuples: HashMap::new(),
        components: HashMap::new(),
    };
    let mut followers = [follower(function, Side::Function), follower(resume, Side::Resume)];
    let mut found: HashMap<Pair, (Same, Site)> = HashMap::new();
    let mut open = Vec::new();
    for start in returned {
        let mut same = Same { locals: vec![0; locals.div_ceil(64)], entries: vec![true; start.height as usize] };
        for (local, _) in start.reloaded.iter().zip(0..).map(|(&is, local)| (local, is)).filter(|&(_, is)| is) {
            same.set_local(local, true);
        }
        // The resumed callee can throw, too.
        let calls = start.places.map(|at| at - 1);
        let before = start.height as usize - usize::from(start.gives);
        let stack: Vec<Term> = (0..before as u32).map(Term::Entry).collect();
        let thrown = [0, 1].map(|i| followers[i].thrown(calls[i], &stack));
        let address = resume.row(resume.instructions[calls[1] as usize].row).expression;
        let reached = pair_up(&thrown, &[HashMap::new(), HashMap::new()], &same)
            .ok_or((start.site, Problem::GoesOnOtherwise(address)))?;
        for (places, same) in reached.into_iter().chain([(start.places, same)]) {
            note(&mut found, &mut open, places, same, start.site);
        }
    }
    while let Some(places) = open.pop() {
        let (same, site) = found[&places].clone();
        let [function, resume] = [0, 1].map(|i| followers[i].turn(places[i], &same));
        let otherwise = || (site, Problem::GoesOnOtherwise(resume.address));
        if function.what != resume.what || function.operands.len() != resume.operands.len() {
            return Err(otherwise());
        }
        if function.operands != resume.operands {
            return Err((site, Problem::GoesOnWithOther(resume.address)));
        }
        let locals = [function.locals, resume.locals];
        for ways in [[function.ways, resume.ways], [function.thrown, resume.thrown]] {
            for (places, same) in pair_up(&ways, &locals, &same).ok_or_else(otherwise)? {
                note(&mut found, &mut open, places, same, site);
            }
        }
    }
    Ok(())
}

/// Where both go on together, with what is the same there. `None` if they do not.
fn pair_up(ways: &[Vec<Way>; 2], locals: &[HashMap<u32, Term>; 2], before: &Same) -> Option<Vec<(Pair, Same)>> {
    let [function, resume] = ways;
    if function.len() != resume.len() {
        return None;
    }
    let value = |side: Side, local: u32| {
        let set = &locals[usize::from(side == Side::Resume)];
        set.get(&local).copied().unwrap_or(if before.local(local) {
            Term::Local(local)
        } else {
            Term::OwnLocal(side, local)
        })
    };
    let mut after = before.clone();
    for &local in locals[0].keys().chain(locals[1].keys()) {
        if (local as usize) < after.locals.len() * 64 {
            after.set_local(local, value(Side::Function, local) == value(Side::Resume, local));
        }
    }
    let together = |(function, resume): (&Way, &Way)| {
        let entries = function.stack.iter().zip(&resume.stack).map(|(f, r)| f == r).collect();
        (function.stack.len() == resume.stack.len())
            .then(|| ([function.at, resume.at], Same { entries, ..after.clone() }))
    };
    function.iter().zip(resume).map(together).collect()
}

/// Notes that a pair of places is reached.
fn note(found: &mut HashMap<Pair, (Same, Site)>, open: &mut Vec<Pair>, places: Pair, same: Same, site: Site) {
    match found.get_mut(&places) {
        Some((known, _)) => {
            if known.meet(&same) {
                open.push(places);
            }
        }
        None => {
            found.insert(places, (same, site));
            open.push(places);
        }
    }
}

impl Walk<'_> {
    fn pop(&mut self) -> Term {
        self.stack.pop().expect("the stack is as high as its code says")
    }

    fn pop_several(&mut self, count: u32) -> Vec<Term> {
        let at = self.stack.len() - count as usize;
        self.stack.split_off(at)
    }

    fn jump(&mut self, target: Target) {
        let way = self.way(target);
        (self.at, self.stack) = (way.at, way.stack);
    }

    /// Where it is, if it jumps.
    fn way(&self, target: Target) -> Way {
        let mut stack = self.stack[..target.height as usize].to_vec();
        if target.carries {
            stack.extend(self.stack.last());
        }
        Way { at: target.at, stack }
    }

    /// Where it is.
    fn here(&self) -> Way {
        Way { at: self.at, stack: self.stack.clone() }
    }

    fn with_result(mut self, result: bool) -> Self {
        self.stack.extend(result.then_some(Term::Result));
        self
    }
}

impl Follower<'_, '_> {
    /// What the function does next, from a place on.
    fn turn(&mut self, at: u32, same: &Same) -> Turn {
        let entry = |(i, &is_same): (usize, &bool)| match is_same {
            true => Term::Entry(i as u32),
            false => Term::OwnEntry(self.side, i as u32),
        };
        let stack = same.entries.iter().enumerate().map(entry).collect();
        let mut walk = Walk { at, stack, locals: HashMap::new(), same };
        loop {
            let Instruction { op, row } = self.body.instructions[walk.at as usize];
            walk.at += 1;
            let is_back = |target: Target, walk: &Walk<'_>| target.at < walk.at;
            match op {
                Op::Jump(target) => {
                    let is_back = is_back(target, &walk);
                    walk.jump(target);
                    if is_back {
                        let ways = vec![walk.here()];
                        return self.made(walk, row, What::Again, Vec::new(), ways);
                    }
                }
                Op::JumpIf(target) | Op::JumpUnless(target) => {
                    let (condition, jumps_on) = self.tested(walk.pop(), matches!(op, Op::JumpIf(_)));
                    match condition {
                        Term::Bits(bits) if (bits != 0) != jumps_on => {}
                        Term::Bits(_) if !is_back(target, &walk) => walk.jump(target),
                        Term::Bits(_) => {
                            let ways = vec![walk.way(target)];
                            return self.made(walk, row, What::Again, Vec::new(), ways);
                        }
                        _ => {
                            let mut ways = vec![walk.way(target), walk.here()];
                            if !jumps_on {
                                ways.reverse();
                            }
                            return self.made(walk, row, What::Choice, vec![condition], ways);
                        }
                    }
                }
                Op::JumpPerhaps(target) => {
                    let operand = walk.pop();
                    let on = Way { at: walk.at, stack: walk.stack.clone() };
                    let result = self.body.row(row).type_().is_concrete();
                    let on = Way { stack: on.stack.into_iter().chain(result.then_some(Term::Result)).collect(), ..on };
                    let taken = walk.with_result(target.carries);
                    let ways = vec![taken.way(target), on];
                    return self.made(taken, row, What::Choice, vec![operand], ways);
                }
                Op::Table(first, count) => {
                    let index = walk.pop();
                    let targets = &self.body.targets[first as usize..(first + count) as usize];
                    if let Term::Bits(bits) = index {
                        walk.jump(targets[bits.min(u64::from(count) - 1) as usize]);
                        continue;
                    }
                    let ways = targets.iter().map(|&target| walk.way(target)).collect();
                    return self.made(walk, row, What::Choice, vec![index], ways);
                }
                Op::Return(value) => {
                    let values = if value { vec![walk.pop()] } else { Vec::new() };
                    return self.made(walk, row, What::Return, values, Vec::new());
                }
                Op::Unreachable => return self.made(walk, row, What::Trap, Vec::new(), Vec::new()),
                Op::Load { .. } => return self.operation(walk, row, 1, true),
                Op::Store { .. } => return self.operation(walk, row, 2, false),
                Op::GlobalSet(_) => return self.operation(walk, row, 1, false),
                Op::Call { call, .. } => return self.operation(walk, row, call.arguments, call.result),
                Op::CallIndirect { call, .. } | Op::CallRef(call) => {
                    let Call { arguments, result, .. } = call;
                    return self.operation(walk, row, arguments + 1, result);
                }
                Op::Other { operands, result } => return self.operation(walk, row, operands, result),
                _ => self.compute(&mut walk, op, row),
            }
        }
    }

    fn made(&self, walk: Walk<'_>, row: u32, what: What, operands: Vec<Term>, ways: Vec<Way>) -> Turn {
        let address = self.body.row(row).expression;
        Turn { what, operands, locals: walk.locals, ways, thrown: Vec::new(), address }
    }

    /// A turn that is an operation, and goes on behind it, unless it never does.
    fn operation(&self, mut walk: Walk<'_>, row: u32, operands: u32, result: bool) -> Turn {
        let data = self.body.row(row);
        let operands = walk.pop_several(operands);
        let ends = data.is_return || data.type_() == Type::UNREACHABLE;
        let throws =
            !data.is_return && (ends || matches!(data.kind(), Kind::Call | Kind::CallIndirect | Kind::CallRef));
        let thrown = if throws { self.thrown(walk.at - 1, &walk.stack) } else { Vec::new() };
        let walk = walk.with_result(result);
        let ways = if ends { Vec::new() } else { vec![walk.here()] };
        Turn { thrown, ..self.made(walk, row, What::Operation(data.operation), operands, ways) }
    }

    /// Where it goes on if an instruction throws.
    fn thrown(&self, at: u32, stack: &[Term]) -> Vec<Way> {
        let mut ways = Vec::new();
        let mut scope = self.body.scope_of[at as usize];
        while let Some(inner) = scope {
            let inner = &self.body.scopes[inner as usize];
            ways.extend(inner.handlers.iter().map(|handler| {
                let entries = stack[..handler.height as usize].iter().copied();
                Way { at: handler.at, stack: entries.chain(handler.carries.then_some(Term::Result)).collect() }
            }));
            scope = inner.parent.filter(|_| !inner.catches_all);
        }
        ways
    }

    /// What a condition tests, and whether it holds if that is not zero.
    fn tested(&self, mut condition: Term, mut holds: bool) -> (Term, bool) {
        while let Some(&tested) = self.zero_tests.get(&condition) {
            (condition, holds) = (tested, !holds);
        }
        (condition, holds)
    }

    /// An operation that nobody can notice.
    fn compute(&mut self, walk: &mut Walk<'_>, op: Op, row: u32) {
        let term = match op {
            Op::Const(bits) => Term::Bits(bits),
            Op::Null => Term::Null,
            Op::LocalGet(local) => walk.locals.get(&local).copied().unwrap_or(match walk.same.local(local) {
                true => Term::Local(local),
                false => Term::OwnLocal(self.side, local),
            }),
            Op::LocalSet(local) => {
                let value = walk.pop();
                walk.locals.insert(local, value);
                return;
            }
            Op::LocalTee(local) => {
                let value = walk.pop();
                walk.locals.insert(local, value);
                value
            }
            Op::GlobalGet(global) if global == self.world.state => Term::Bits(0),
            Op::GlobalGet(global) => of(global),
            Op::Fold(operands) => {
                let operands = walk.pop_several(operands);
                self.fold(row, &operands)
            }
            Op::Select => {
                let operands = walk.pop_several(3);
                match self.tested(operands[2], true) {
                    (Term::Bits(bits), holds) if (bits != 0) == holds => operands[0],
                    (Term::Bits(_), _) => operands[1],
                    _ if operands[0] == operands[1] => operands[0],
                    _ => of(operands),
                }
            }
            Op::Drop => {
                walk.pop();
                return;
            }
            Op::TupleMake(count) => {
                let parts = walk.pop_several(count);
                self.tuple(parts)
            }
            Op::TupleExtract(component) => {
                let tuple = walk.pop();
                match self.tuples.get(&tuple) {
                    Some(parts) => parts[component as usize],
                    None => {
                        let part = of((component, tuple));
                        self.components.insert(part, (component, tuple));
                        part
                    }
                }
            }
            Op::Cast => return,
            other => unreachable!("{other:?} is a turn"),
        };
        walk.stack.push(term);
    }

    /// All components of a tuple in their order are the tuple.
    fn tuple(&mut self, parts: Vec<Term>) -> Term {
        let whole = parts.first().and_then(|part| self.components.get(part)).map(|&(_, tuple)| tuple);
        let is_part =
            |(i, part): (u32, &Term)| self.components.get(part).is_some_and(|&c| Some(c) == whole.map(|w| (i, w)));
        match whole {
            Some(whole) if (0..).zip(&parts).all(is_part) => whole,
            _ => {
                let tuple = of(&parts);
                self.tuples.insert(tuple, parts);
                tuple
            }
        }
    }

    fn fold(&mut self, row: u32, operands: &[Term]) -> Term {
        let data = self.body.row(row);
        let expr = data.expr();
        let bits = |term: &Term| if let Term::Bits(bits) = term { Some(*bits) } else { None };
        if let Some(known) = operands.iter().map(bits).collect::<Option<Vec<u64>>>()
            && let Some(bits) = expr.fold(&known)
        {
            return Term::Bits(bits);
        }
        if let [left, right] = *operands {
            match (left, right) {
                (other, Term::Bits(0)) | (Term::Bits(0), other) if expr.is_or() => return other,
                (_, Term::Bits(0)) | (Term::Bits(0), _) if expr.is_and() || expr.is_multiplication() => {
                    return Term::Bits(0);
                }
                _ => {}
            }
        }
        let term = of((data.operation, operands));
        if expr.is_zero_test() {
            self.zero_tests.insert(term, operands[0]);
        }
        term
    }
}

/// What has no other name.
fn of(parts: impl std::hash::Hash) -> Term {
    match computed(parts) {
        Value::Computed(name) => Term::Of(name),
        _ => unreachable!("a computed value is a hash"),
    }
}
