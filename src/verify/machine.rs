//! Executes a body on values that are known to some degree.
//!
//! Functions that the pass added are executed, too, whenever they are called: what a helper does is found by running
//! it. Any other call stops the machine, and who runs it says what comes back. In the function itself only operations
//! that nobody can notice may be executed, besides setting globals that the pass added (the state while unwinding only,
//! the position while rewinding and aborting, too), and storing and loading at the position;
//! the added functions may use the frames' memory otherwise, too.

use std::collections::HashMap;

use crate::abi;
use crate::ir::{Expr, Kind, Name, Type};
use crate::plan::LocalIndex;
use crate::verify::body::{Body, Call, Instruction, Op, Place, Target};
use crate::verify::memory::{Memory, Value};
use crate::verify::operations::{computed, translate, tuple};
use crate::verify::ways::Ways;
use crate::verify::world::World;

/// Instructions that one run may take.
const PATIENCE: u32 = 50_000_000;

/// Why execution cannot go on. The address is the expression's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It would do something that can be noticed.
    Effect(usize),
    /// It could trap.
    Trap(usize),
    /// It depends on a value that is not known.
    Undecided(usize),
    /// Nothing is modelled there: an address outside the buffer, another memory, an empty entry of a table.
    Outside(usize),
    /// `unreachable` is reached.
    Unreachable(usize),
    /// It does not end.
    Endless,
}

/// Why the machine stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    Return,
    /// A call of a function that the pass did not add, or of a resume function.
    Call {
        function: Name,
        arguments: Vec<Value>,
    },
    Fault(Fault),
}

/// What the function itself may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules<'a> {
    /// Only what nobody can notice.
    Harmless {
        /// Operations that read what never changes may trap: they make references again.
        rebuilds: bool,
    },
    /// Anything; what is not known gets a name. Stops at the call of this row. `local.set`s of these rows give values.
    Anything { until: u32, sets: &'a HashMap<u32, Value> },
    /// The functions that hosts call: they write the program's globals.
    Transition,
}

/// What outlives a call.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub globals: HashMap<Name, Value>,
    pub memory: Memory,
}

pub(super) struct Activation<'a> {
    pub(super) body: &'a Body,
    at: u32,
    locals: Vec<Value>,
    base: usize,
}

pub struct Machine<'a, 'm> {
    pub(super) world: &'a World<'m>,
    pub state: State,
    pub(super) rules: Rules<'a>,
    activations: Vec<Activation<'a>>,
    pub(super) stack: Vec<Value>,
    /// Short cuts through the function itself.
    ways: Option<&'a Ways>,
    steps: u32,
    /// Whether the call that the machine stopped at gives a result.
    awaits: bool,
}

impl<'a, 'm> Machine<'a, 'm> {
    /// A machine that is about to execute the body from a place on, with nothing known about the stack there.
    pub fn new(
        world: &'a World<'m>,
        state: State,
        body: &'a Body,
        place: Place,
        locals: Vec<Value>,
        rules: Rules<'a>,
    ) -> Self {
        Machine {
            world,
            state,
            rules,
            activations: vec![Activation { body, at: place.at, locals, base: 0 }],
            stack: vec![Value::Unknown; place.height as usize],
            ways: None,
            steps: 0,
            awaits: false,
        }
    }

    /// Goes through code of the function that only chooses a way at once.
    pub fn with_ways(self, ways: &'a Ways) -> Self {
        Machine { ways: Some(ways), ..self }
    }

    pub fn set_rules(&mut self, rules: Rules<'a>) {
        self.rules = rules;
    }

    /// Goes on after a call that the machine stopped at.
    pub fn give(&mut self, result: Value) -> Stop {
        if std::mem::take(&mut self.awaits) {
            self.stack.push(result);
        }
        self.run()
    }

    pub fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    /// Where the function itself goes on.
    pub fn place(&self) -> Option<Place> {
        let own = self.activations.first()?;
        let above = self.activations.get(1).map_or(self.stack.len(), |next| next.base);
        Some(Place { at: own.at, height: (above - own.base) as u32 })
    }

    /// The function's locals.
    pub fn locals(&self) -> &[Value] {
        self.activations.first().map_or(&[], |own| own.locals.as_slice())
    }

    /// What is on the stack where it has stopped.
    pub fn stack(&self) -> &[Value] {
        &self.stack
    }

    /// The value that was returned, or is on top of the stack.
    pub fn top(&self) -> Value {
        self.stack.last().copied().unwrap_or(Value::Unknown)
    }

    pub fn run(&mut self) -> Stop {
        while !self.activations.is_empty() {
            self.steps += 1;
            if self.steps > PATIENCE {
                return Stop::Fault(Fault::Endless);
            }
            match self.step() {
                Ok(None) => {}
                Ok(Some(stop)) => return stop,
                Err(fault @ (Fault::Undecided(_) | Fault::Effect(_))) => {
                    if !self.skip() {
                        return Stop::Fault(fault);
                    }
                }
                Err(fault) => return Stop::Fault(fault),
            }
        }
        Stop::Return
    }

    /// Whether the last instruction is within an expression that has no effects as a whole, such as one that catches
    /// what it throws: its value is not known then, and the machine goes on behind.
    fn skip(&mut self) -> bool {
        if self.activations.is_empty() || !matches!(self.rules, Rules::Harmless { .. }) {
            return false;
        }
        let is_own = self.is_own();
        let Activation { body, at, base, .. } = *self.activation();
        let mut row = Some(body.instructions[at as usize - 1].row as usize);
        while let Some(current) = row {
            let node = body.row(current as u32);
            if let Some(end) = body.ends.get(&(current as u32)) {
                let effects = self.world.module.effects(node.expr());
                // What is around it calls, too.
                if effects.calls {
                    return false;
                }
                // In helpers what follows an expression that always leaves is unreachable, and no trap.
                let traps = effects.traps && is_own;
                let computes = !(traps || effects.side_effects) && effects.writes.is_empty();
                if computes {
                    self.activation().at = end.at;
                    self.stack.truncate(base + end.height as usize);
                    self.push_if(node.type_().is_concrete(), Value::Unknown);
                    return true;
                }
            }
            row = node.parent_row();
        }
        false
    }

    pub(super) fn activation(&mut self) -> &mut Activation<'a> {
        self.activations.last_mut().expect("the machine is running")
    }

    pub(super) fn is_own(&self) -> bool {
        self.activations.len() == 1
    }

    pub(super) fn pop(&mut self) -> Value {
        self.stack.pop().expect("the stack is as high as its code says")
    }

    pub(super) fn pop_several(&mut self, count: u32) -> Vec<Value> {
        let at = self.stack.len() - count as usize;
        self.stack.split_off(at)
    }

    fn push_if(&mut self, result: bool, value: Value) {
        if result {
            self.stack.push(value);
        }
    }

    pub(super) fn expr(&mut self, row: u32) -> Expr<'m> {
        self.activation().body.row(row).expr()
    }

    fn address(&mut self, row: u32) -> usize {
        self.activation().body.row(row).expression
    }

    fn jump(&mut self, target: Target) {
        let value = target.carries.then(|| self.pop());
        let activation = self.activation();
        activation.at = target.at;
        let height = activation.base + target.height as usize;
        self.stack.truncate(height);
        self.stack.extend(value);
    }

    fn step(&mut self) -> Result<Option<Stop>, Fault> {
        let activation = self.activation();
        let Instruction { op, row } = activation.body.instructions[activation.at as usize];
        activation.at += 1;
        match op {
            Op::Call { .. } | Op::CallIndirect { .. } | Op::CallRef(_) | Op::Other { .. } if self.is_last(row) => {
                return Err(Fault::Unreachable(self.address(row)));
            }
            Op::Const(bits) => self.stack.push(Value::Bits(bits)),
            Op::Null => self.stack.push(Value::Null),
            Op::LocalGet(local) => {
                let value = self.activation().locals[local as usize];
                match self.short_cut(value) {
                    Some(place) => {
                        self.activation().at = place.at;
                        self.stack.truncate(place.height as usize);
                    }
                    None => self.stack.push(value),
                }
            }
            Op::LocalSet(local) => {
                let value = self.pop();
                self.set_local(local, row, value);
            }
            Op::LocalTee(local) => {
                let value = self.pop();
                let value = self.set_local(local, row, value);
                self.stack.push(value);
            }
            Op::GlobalGet(global) => {
                let value = self.global(global, row);
                self.stack.push(value);
            }
            Op::GlobalSet(global) => self.set_global(global, row)?,
            Op::Jump(target) => self.jump(target),
            Op::JumpIf(target) => {
                if self.decide(row)? {
                    self.jump(target);
                }
            }
            Op::JumpUnless(target) => {
                if !self.decide(row)? {
                    self.jump(target);
                }
            }
            Op::JumpPerhaps(_) => return Err(Fault::Undecided(self.address(row))),
            Op::Table(first, count) => {
                let Value::Bits(index) = self.pop() else { return Err(Fault::Undecided(self.address(row))) };
                let index = index.min(u64::from(count) - 1) as u32;
                let target = self.activation().body.targets[(first + index) as usize];
                self.jump(target);
            }
            Op::Load { memory, .. } | Op::Store { memory, .. } if !self.is_frames(memory) => {
                return Err(Fault::Outside(self.address(row)));
            }
            Op::Load { offset, bytes, signed, type_, memory, at } => {
                let is_frame = self.world.is_frame_access(memory, at);
                let value = self.load(row, (offset, bytes, signed, type_), is_frame)?;
                self.stack.push(value);
            }
            Op::Store { offset, bytes, memory, at } => {
                let is_frame = self.world.is_frame_access(memory, at);
                self.store(row, offset, bytes, is_frame)?;
            }
            Op::Call { function, call } => return self.call(row, function, call),
            Op::CallIndirect { table, call } => return self.call_indirect(row, table, call),
            Op::CallRef(call) => {
                self.pop();
                self.pop_several(call.arguments);
                let value = self.noticed(row)?;
                self.push_if(call.result, value);
            }
            Op::Fold(operands) => self.fold(row, operands)?,
            Op::Select => self.select(),
            Op::Drop => drop(self.pop()),
            Op::Return(value) => {
                let value = value.then(|| self.pop());
                let finished = self.activations.pop().expect("the machine is running");
                self.stack.truncate(finished.base);
                self.stack.extend(value);
            }
            Op::Unreachable => return Err(Fault::Unreachable(self.address(row))),
            Op::TupleMake(count) => {
                let parts = self.pop_several(count);
                self.stack.push(tuple(&parts));
            }
            Op::TupleExtract(component) => {
                let value = match self.pop() {
                    Value::Local(local, _) => Value::Local(local, component as u8),
                    Value::Unknown => Value::Unknown,
                    other => self.apply(row, &[other]),
                };
                self.stack.push(value);
            }
            Op::Cast => self.cast(row)?,
            Op::Other { operands, result } => {
                let operands = self.pop_several(operands);
                let value = self.other(row, &operands)?;
                self.push_if(result, value);
            }
        }
        Ok(None)
    }

    /// The value stays the same, if it can be of the type.
    fn cast(&mut self, row: u32) -> Result<(), Fault> {
        let is_unset = self.stack.last() == Some(&Value::Unset);
        let takes_null = self.activation().body.row(row).type_().is_defaultable();
        if is_unset && !takes_null { Err(Fault::Trap(self.address(row))) } else { Ok(()) }
    }

    /// Where the function goes on that has just been told to read a local with this value, if it does nothing on the way.
    fn short_cut(&mut self, value: Value) -> Option<Place> {
        let ways = self.ways.filter(|_| self.is_own())?;
        let state = self.state.globals.get(&self.world.state)?.bits()?;
        let height = self.stack.len() as u32;
        let &mut Activation { body, at, .. } = self.activation();
        ways.follow(body, Place { at: at - 1, height }, value.bits()?, state)
    }

    /// Whether the function itself ends with this operation, though anything goes: a throw, or a tail call.
    fn is_last(&mut self, row: u32) -> bool {
        matches!(self.rules, Rules::Anything { .. })
            && self.is_own()
            && self.activation().body.row(row).type_() == Type::UNREACHABLE
    }

    /// The value that the local gets.
    fn set_local(&mut self, local: LocalIndex, row: u32, value: Value) -> Value {
        let value = match self.rules {
            Rules::Anything { sets, .. } if self.is_own() => sets.get(&row).copied().unwrap_or(value),
            _ => value,
        };
        self.activation().locals[local as usize] = value;
        value
    }

    fn global(&mut self, global: Name, row: u32) -> Value {
        if let Some(&value) = self.state.globals.get(&global) {
            return value;
        }
        if self.world.constants.contains(&global) {
            return computed(global);
        }
        match self.rules {
            Rules::Anything { .. } => computed(row),
            _ => Value::Unknown,
        }
    }

    fn set_global(&mut self, global: Name, row: u32) -> Result<(), Fault> {
        let value = self.pop();
        let is_programs = self.world.programs_globals.contains(&global);
        // The position moves in all states but the normal one.
        let drives = self.is_own()
            && (global == self.world.state && !self.is(&[abi::State::Unwinding])
                || global == self.world.position
                    && !self.is(&[abi::State::Unwinding, abi::State::Rewinding, abi::State::Aborting]));
        match self.rules {
            Rules::Harmless { .. } if is_programs || drives => {
                return Err(Fault::Effect(self.address(row)));
            }
            // The program's own are not followed.
            _ if is_programs => {}
            _ => drop(self.state.globals.insert(global, value)),
        }
        Ok(())
    }

    /// Whether the state is one of these.
    fn is(&self, states: &[abi::State]) -> bool {
        let state = self.state.globals.get(&self.world.state).and_then(|value| value.bits());
        states.iter().any(|&one| state == Some(one as u64))
    }

    fn decide(&mut self, row: u32) -> Result<bool, Fault> {
        let condition = self.pop();
        if let Some(truth) = condition.truth() {
            return Ok(truth);
        }
        // An operand that is computed again can choose by what the frame holds between references, which trap as far as
        // their types say if they are null. The other one is not looked at.
        let is_restored = matches!(condition, Value::Local(..) | Value::Computed(_));
        if is_restored && self.is_own() && matches!(self.rules, Rules::Harmless { .. }) {
            let chosen = self.activation().body.row(row);
            let is_value = chosen.kind() == Kind::If && chosen.type_().is_concrete();
            if is_value && self.world.module.effects(chosen.expr()).traps {
                return Ok(true);
            }
        }
        Err(Fault::Undecided(self.address(row)))
    }

    /// The value of an operation of the function itself that can be noticed: only if anything goes.
    fn noticed(&mut self, row: u32) -> Result<Value, Fault> {
        match self.rules {
            Rules::Anything { .. } if self.is_own() => Ok(computed(row)),
            _ => Err(Fault::Effect(self.address(row))),
        }
    }

    /// Whether an access to the memory is one of the program's own, or to the frames.
    fn is_frames(&self, memory: Name) -> bool {
        self.is_own() && !matches!(self.rules, Rules::Transition) || self.world.memory.is_none_or(|m| m == memory)
    }

    fn place_in_memory(&mut self, row: u32, offset: u64) -> Result<u64, Fault> {
        let pointer = self.pop().bits().ok_or_else(|| Fault::Undecided(self.address(row)))?;
        Ok(pointer.wrapping_add(offset))
    }

    fn load(&mut self, row: u32, access: (u64, u32, bool, Type), is_frame: bool) -> Result<Value, Fault> {
        let (offset, bytes, signed, type_) = access;
        if !is_frame && self.is_own() && !matches!(self.rules, Rules::Transition) {
            self.pop();
            return match self.rules {
                Rules::Anything { .. } => Ok(computed(row)),
                _ => Err(Fault::Trap(self.address(row))),
            };
        }
        let address = self.place_in_memory(row, offset)?;
        Ok(self.state.memory.load(address, bytes, signed, type_))
    }

    fn store(&mut self, row: u32, offset: u64, bytes: u32, is_frame: bool) -> Result<(), Fault> {
        let value = self.pop();
        if !is_frame && self.is_own() && !matches!(self.rules, Rules::Transition) {
            self.pop();
            return self.noticed(row).map(drop);
        }
        let address = self.place_in_memory(row, offset)?;
        if self.state.memory.store(address, bytes, value) { Ok(()) } else { Err(Fault::Outside(self.address(row))) }
    }

    fn call(&mut self, row: u32, function: Name, call: Call) -> Result<Option<Stop>, Fault> {
        let arguments = self.pop_several(call.arguments);
        if let Rules::Anything { until, .. } = self.rules
            && self.is_own()
            && row != until
            && !self.world.added.contains_key(&function)
        {
            self.push_if(call.result, computed(row));
            return Ok(None);
        }
        if let Some(&reference) = self.world.references.get(&function) {
            self.stack.push(translate(reference, arguments[0]));
            return Ok(None);
        }
        let tail = call.tail;
        if tail {
            let finished = self.activations.pop().expect("the machine is running");
            self.stack.truncate(finished.base);
        }
        match self.world.added.get(&function) {
            Some(body) => {
                let mut locals = arguments;
                locals.resize_with(body.locals.len(), || Value::Bits(0));
                self.activations.push(Activation { body, at: 0, locals, base: self.stack.len() });
                Ok(None)
            }
            None => {
                self.awaits = call.result && !(tail && self.activations.is_empty());
                Ok(Some(Stop::Call { function, arguments }))
            }
        }
    }

    fn call_indirect(&mut self, row: u32, table: Name, call: Call) -> Result<Option<Stop>, Fault> {
        let index = self.pop();
        if let Rules::Anything { until, .. } = self.rules
            && self.is_own()
            && row != until
        {
            self.pop_several(call.arguments);
            self.push_if(call.result, computed(row));
            return Ok(None);
        }
        let Value::Bits(index) = index else {
            let address = self.address(row);
            return Err(if self.is_own() { Fault::Effect(address) } else { Fault::Undecided(address) });
        };
        match self.world.table_entry(table, index, &self.state) {
            Some(function) => self.call(row, function, call),
            None => Err(Fault::Outside(self.address(row))),
        }
    }
}
