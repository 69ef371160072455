//! What code can do while the state is normal: it must neither leave for an epilogue nor resume a callee.
//!
//! Everything that can be reached is visited once, with the state as the only value that is known. Where paths meet
//! nothing else is known any more.

use std::collections::{HashMap, HashSet};

use crate::ir::Name;
use crate::verify::body::{Body, Instruction, Op, Place, Scope, Target};
use crate::verify::memory::Value;
use crate::verify::violation::Problem;
use crate::verify::world::World;

/// What the added functions do while the state is normal.
pub struct Normal<'a, 'm> {
    world: &'a World<'m>,
    resume: HashSet<Name>,
    /// For each added function: what is wrong with calling it.
    added: HashMap<Name, Option<Problem>>,
}

impl<'a, 'm> Normal<'a, 'm> {
    pub fn new(world: &'a World<'m>, resume_names: &[String]) -> Self {
        let resume = resume_names.iter().map(|n| Name::of(n)).collect();
        let mut normal = Normal { world, resume, added: HashMap::new() };
        // Callees first; there are few levels, and cycles only through what is wrong anyway.
        let mut open: Vec<(Name, bool)> = world.added.keys().map(|&name| (name, false)).collect();
        let mut entered = HashSet::new();
        while let Some((name, callees_done)) = open.pop() {
            if callees_done {
                let problem = normal.check(&world.added[&name], &[Place { at: 0, height: 0 }], false).err();
                normal.added.insert(name, problem);
            } else if entered.insert(name) {
                open.push((name, true));
                let callees = world.added[&name].instructions.iter().filter_map(|i| match i.op {
                    Op::Call { function, .. } if world.added.contains_key(&function) => Some((function, false)),
                    _ => None,
                });
                open.extend(callees);
            }
        }
        normal
    }

    /// Checks what is reached from some places of a function.
    pub fn check_function(&self, body: &Body, from: &[Place]) -> Result<(), Problem> {
        self.check(body, from, true)
    }

    /// `is_programs`: the code is the program's, which uses memory and globals.
    fn check(&self, body: &Body, from: &[Place], is_programs: bool) -> Result<(), Problem> {
        let mut visit = Visit {
            normal: self,
            body,
            is_programs,
            reached: vec![false; body.instructions.len()],
            entered: vec![false; body.scopes.len()],
            open: from.to_vec(),
        };
        while let Some(place) = visit.open.pop() {
            visit.run(place)?;
        }
        Ok(())
    }
}

struct Visit<'a, 'm> {
    normal: &'a Normal<'a, 'm>,
    body: &'a Body,
    is_programs: bool,
    reached: Vec<bool>,
    /// Scopes whose handlers are reached.
    entered: Vec<bool>,
    open: Vec<Place>,
}

impl Visit<'_, '_> {
    fn branch(&mut self, target: Target) {
        self.open.push(Place { at: target.at, height: target.height + u32::from(target.carries) });
    }

    /// What is thrown within a scope goes to its handlers, or further out.
    fn enter(&mut self, mut scope: Option<u32>) {
        while let Some(inner) = scope.filter(|&scope| !self.entered[scope as usize]) {
            self.entered[inner as usize] = true;
            let Scope { parent, handlers, .. } = &self.body.scopes[inner as usize];
            for &handler in handlers {
                self.branch(handler);
            }
            scope = *parent;
        }
    }

    /// Goes on until the code jumps, or has been seen.
    fn run(&mut self, place: Place) -> Result<(), Problem> {
        let mut at = place.at as usize;
        let mut stack = vec![Value::Unknown; place.height as usize];
        while !std::mem::replace(&mut self.reached[at], true) {
            let Instruction { op, row } = self.body.instructions[at];
            self.enter(self.body.scope_of[at]);
            if self.body.is_target[at] {
                stack.fill(Value::Unknown);
            }
            at += 1;
            if !self.step(op, row, &mut stack)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether the next instruction follows.
    fn step(&mut self, op: Op, row: u32, stack: &mut Vec<Value>) -> Result<bool, Problem> {
        let world = self.normal.world;
        let mut pop = |count: u32| stack.split_off(stack.len().saturating_sub(count as usize));
        let (operands, result) = match op {
            Op::Const(bits) => (0, Some(Value::Bits(bits))),
            Op::GlobalGet(global) if global == world.state => (0, Some(Value::Bits(0))),
            Op::Null | Op::LocalGet(_) | Op::GlobalGet(_) => (0, Some(Value::Unknown)),
            Op::LocalSet(_) | Op::Drop => (1, None),
            Op::LocalTee(_) | Op::TupleExtract(_) | Op::Cast => (1, Some(Value::Unknown)),
            Op::GlobalSet(global) => {
                self.uses_state(global == world.state || global == world.position)?;
                (1, None)
            }
            Op::Jump(target) => {
                self.branch(target);
                return Ok(false);
            }
            Op::JumpIf(target) | Op::JumpUnless(target) => {
                let condition = pop(1).pop().and_then(Value::truth);
                let jumps_on = matches!(op, Op::JumpIf(_));
                if condition != Some(!jumps_on) {
                    self.branch(target);
                }
                return Ok(condition != Some(jumps_on));
            }
            Op::JumpPerhaps(target) => {
                self.branch(target);
                let is_result = self.body.row(row).type_().is_concrete();
                pop(1);
                (0, is_result.then_some(Value::Unknown))
            }
            Op::Table(first, count) => {
                for i in first..first + count {
                    self.branch(self.body.targets[i as usize]);
                }
                return Ok(false);
            }
            Op::Load { memory, at, .. } => {
                self.uses_state(world.is_frame_access(memory, at))?;
                (1, Some(Value::Unknown))
            }
            Op::Store { memory, at, .. } => {
                self.uses_state(world.is_frame_access(memory, at))?;
                (2, None)
            }
            Op::Call { function, call } => {
                if self.normal.resume.contains(&function) {
                    return Err(Problem::FramesWhileNormal);
                }
                if let Some(Some(problem)) = self.normal.added.get(&function) {
                    return Err(problem.clone());
                }
                if call.tail {
                    return Ok(false);
                }
                (call.arguments, call.result.then_some(Value::Unknown))
            }
            Op::CallIndirect { call, .. } | Op::CallRef(call) => {
                if call.tail {
                    return Ok(false);
                }
                (call.arguments + 1, call.result.then_some(Value::Unknown))
            }
            Op::Fold(operands) => {
                let bits: Vec<Option<u64>> = pop(operands).iter().map(|v| v.bits()).collect();
                let expr = self.body.row(row).expr();
                let bits = match bits.iter().copied().collect::<Option<Vec<u64>>>() {
                    Some(known) => expr.fold(&known),
                    None => (expr.is_multiplication() && bits.contains(&Some(0))).then_some(0),
                };
                (0, Some(bits.map_or(Value::Unknown, Value::Bits)))
            }
            Op::Select => {
                let values = pop(3);
                let chosen = match values.get(2).and_then(|v| v.truth()) {
                    Some(true) => values[0],
                    Some(false) => values[1],
                    None => Value::Unknown,
                };
                (0, Some(chosen))
            }
            Op::Return(_) | Op::Unreachable => return Ok(false),
            Op::TupleMake(operands) => (operands, Some(Value::Unknown)),
            Op::Other { operands, result } => {
                // Throws and the like; the scope's handlers are visited.
                if self.body.row(row).type_() == crate::ir::Type::UNREACHABLE {
                    return Ok(false);
                }
                (operands, result.then_some(Value::Unknown))
            }
        };
        pop(operands);
        stack.extend(result);
        Ok(true)
    }

    /// Added functions have no business with memory or globals while the state is normal, and the program's none with frames.
    fn uses_state(&self, is_frame: bool) -> Result<(), Problem> {
        if self.is_programs && !is_frame { Ok(()) } else { Err(Problem::FramesWhileNormal) }
    }
}
