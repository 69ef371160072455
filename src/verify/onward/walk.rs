//! One of two functions, from one turn to the next.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use crate::ir::{CodeRow, Kind, Type};
use crate::verify::body::{Body, Call, Instruction, Op, Target};
use crate::verify::memory::Value;
use crate::verify::operations::computed;
use crate::verify::world::World;

use super::same::{Same, Side, Term};

/// What a function does next.
pub struct Turn {
    pub what: What,
    pub operands: Vec<Term>,
    /// What locals hold by then that were set.
    pub locals: HashMap<u32, Term>,
    /// Where it goes on, with what on the stack.
    pub ways: Vec<Way>,
    /// Where it goes on if it throws.
    pub thrown: Vec<Way>,
    /// Its expression.
    pub row: u32,
}

pub struct Way {
    pub at: u32,
    pub stack: Vec<Term>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// By a hash of the operation.
    Operation(u64),
    Choice,
    /// Goes back to the start of a loop.
    Again,
    Return,
    Trap,
}

/// One of the two functions.
pub struct Follower<'a, 'm> {
    world: &'a World<'m>,
    body: &'a Body,
    side: Side,
    /// What conditions that test for zero test.
    zero_tests: HashMap<Term, Term>,
    /// Operands that only the resume function has: what a condition is forced to be while rewinding, by their row.
    forced: HashSet<u32>,
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

impl Walk<'_> {
    fn pop(&mut self) -> Term {
        self.stack.pop().expect("the stack is as high as its code says")
    }

    fn pop_several(&mut self, count: u32) -> Vec<Term> {
        let at = self.stack.len() - count as usize;
        self.stack.split_off(at)
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
}

impl<'a, 'm> Follower<'a, 'm> {
    pub fn new(world: &'a World<'m>, body: &'a Body, side: Side) -> Self {
        let forced = if side == Side::Resume { forced_operands(world, body) } else { HashSet::new() };
        Follower {
            world,
            body,
            side,
            zero_tests: HashMap::new(),
            forced,
            tuples: HashMap::new(),
            components: HashMap::new(),
        }
    }

    /// What the function does next, from a place on.
    pub fn turn(&mut self, at: u32, same: &Same) -> Turn {
        let stack = same.stack(self.side);
        let mut walk = Walk { at, stack, locals: HashMap::new(), same };
        loop {
            let Instruction { op, row } = self.body.instructions[walk.at as usize];
            walk.at += 1;
            match op {
                Op::Jump(target) => match self.jumped(walk, row, target) {
                    ControlFlow::Continue(on) => walk = on,
                    ControlFlow::Break(turn) => return turn,
                },
                Op::JumpIf(target) | Op::JumpUnless(target) => {
                    let (condition, jumps_on) = self.tested(walk.pop(), matches!(op, Op::JumpIf(_)));
                    let Term::Bits(bits) = condition else {
                        let mut ways = vec![walk.way(target), walk.here()];
                        if !jumps_on {
                            ways.reverse();
                        }
                        return self.made(walk, row, What::Choice, vec![condition], ways);
                    };
                    if (bits != 0) == jumps_on {
                        match self.jumped(walk, row, target) {
                            ControlFlow::Continue(on) => walk = on,
                            ControlFlow::Break(turn) => return turn,
                        }
                    }
                }
                Op::JumpPerhaps(target) => return self.perhaps(walk, row, target),
                Op::Table(first, count) => {
                    let index = walk.pop();
                    let targets = &self.body.targets[first as usize..(first + count) as usize];
                    let Term::Bits(bits) = index else {
                        let ways = targets.iter().map(|&target| walk.way(target)).collect();
                        return self.made(walk, row, What::Choice, vec![index], ways);
                    };
                    match self.jumped(walk, row, targets[bits.min(u64::from(count) - 1) as usize]) {
                        ControlFlow::Continue(on) => walk = on,
                        ControlFlow::Break(turn) => return turn,
                    }
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
                Op::Other { operands, result } if self.is_noticed(row) => {
                    return self.operation(walk, row, operands, result);
                }
                _ => {
                    self.compute(&mut walk, op, row);
                    if self.forced.contains(&row)
                        && let Some(forced) = walk.stack.last_mut()
                    {
                        *forced = Term::Extra;
                    }
                }
            }
        }
    }

    /// Where it goes on after a jump; a turn if that is back.
    fn jumped<'s>(&self, walk: Walk<'s>, row: u32, target: Target) -> ControlFlow<Turn, Walk<'s>> {
        let way = walk.way(target);
        match way.at < walk.at {
            true => ControlFlow::Break(self.made(walk, row, What::Again, Vec::new(), vec![way])),
            false => ControlFlow::Continue(Walk { at: way.at, stack: way.stack, ..walk }),
        }
    }

    /// A branch on what only an engine knows, with a value for either way.
    fn perhaps(&self, mut walk: Walk<'_>, row: u32, target: Target) -> Turn {
        let operand = walk.pop();
        let result = |is: bool| is.then_some(Term::Result);
        let on = walk.stack.iter().copied().chain(result(self.body.row(row).type_().is_concrete())).collect();
        let taken = walk.stack[..target.height as usize].iter().copied().chain(result(target.carries)).collect();
        let ways = vec![Way { at: target.at, stack: taken }, Way { at: walk.at, stack: on }];
        let branch = self.body.row(row).operation;
        self.made(walk, row, What::Operation(branch), vec![operand], ways)
    }

    fn made(&self, walk: Walk<'_>, row: u32, what: What, operands: Vec<Term>, ways: Vec<Way>) -> Turn {
        Turn { what, operands, locals: walk.locals, ways, thrown: Vec::new(), row }
    }

    /// A turn that is an operation, and goes on behind it, unless it never does.
    fn operation(&self, mut walk: Walk<'_>, row: u32, operands: u32, result: bool) -> Turn {
        let data = self.body.row(row);
        let operands = walk.pop_several(operands);
        let ends = data.is_return || data.type_() == Type::UNREACHABLE;
        let throws =
            !data.is_return && (ends || matches!(data.kind(), Kind::Call | Kind::CallIndirect | Kind::CallRef));
        let thrown = if throws { self.thrown(walk.at - 1, &walk.stack) } else { Vec::new() };
        walk.stack.extend(result.then_some(Term::Result));
        let ways = if ends { Vec::new() } else { vec![walk.here()] };
        Turn { thrown, ..self.made(walk, row, What::Operation(data.operation), operands, ways) }
    }

    /// Where it goes on if an instruction throws.
    pub fn thrown(&self, at: u32, stack: &[Term]) -> Vec<Way> {
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

    /// Whether anybody could notice that an operation is done, or how often. What it reads stays the same until the next turn.
    /// Whether it can trap depends on types, which are not the same in both.
    fn is_noticed(&self, row: u32) -> bool {
        let data = self.body.row(row);
        let effects = self.world.module.shallow_effects(data.expr());
        data.type_() == Type::UNREACHABLE || effects.calls || effects.side_effects || effects.generative
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
            Op::LocalGet(local) => {
                walk.locals.get(&local).copied().unwrap_or_else(|| walk.same.value(self.side, local))
            }
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
            Op::Other { operands, .. } => {
                let operands = walk.pop_several(operands);
                of((self.body.row(row).operation, operands))
            }
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

/// The first operands of choices by the state between two values: conditions that are forced while rewinding.
fn forced_operands(world: &World<'_>, body: &Body) -> HashSet<u32> {
    let rows = &body.code.rows;
    let is_state = |row: &CodeRow| row.kind() == Kind::GlobalGet && row.named() == Some(world.state);
    let by_state: HashSet<u32> = rows
        .iter()
        .filter(|row| is_state(row) && row.child == 2)
        .map(|row| row.parent)
        .filter(|&parent| rows.get(parent as usize).is_some_and(|parent| parent.kind() == Kind::Select))
        .collect();
    let is_first = |row: &CodeRow| row.child == 0 && by_state.contains(&row.parent);
    (0..).zip(rows).filter(|(_, row)| is_first(row)).map(|(index, _)| index).collect()
}

/// What has no other name.
fn of(parts: impl std::hash::Hash) -> Term {
    match computed(parts) {
        Value::Computed(name) => Term::Of(name),
        _ => unreachable!("a computed value is a hash"),
    }
}
