//! What the verifier knows of the module around the functions, all of it read from the output: what the pass added is
//! what was not there before, and which globals hold state, buffer and position is found by running the transitions.

use std::collections::{HashMap, HashSet};

use crate::abi;
use crate::ir::{FunctionRow, GlobalRow, Hierarchy, Module, Name, Type};
use crate::verify::Before;
use crate::verify::body::{Body, Op, Place};
use crate::verify::machine::{Machine, Rules, State, Stop};
use crate::verify::memory::{Cell, Memory, Value};
use crate::verify::violation::Problem;

/// What the slots of side modules start at, for the verifier.
const TABLE_BASE: u64 = 16;

/// Functions that turn references into numbers and back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference {
    Encode,
    Decode,
}

/// An active element segment.
struct Segment {
    table: Name,
    /// A global, if the offset is not constant.
    global: Option<Name>,
    offset: u64,
    functions: Vec<Option<Name>>,
}

pub struct World<'m> {
    pub module: Module<'m>,
    /// Functions that the pass added, less resume functions.
    pub added: HashMap<Name, Body>,
    /// Those of them that translate references.
    pub references: HashMap<Name, Reference>,
    /// Immutable globals.
    pub constants: HashSet<Name>,
    /// The globals that the program had.
    pub programs_globals: HashSet<Name>,
    tables: Vec<Segment>,
    /// Exported functions, by the export's name.
    pub exports: HashMap<String, Name>,
    /// The memory that holds the frames.
    pub memory: Option<Name>,
    pub state: Name,
    pub position: Name,
    /// Bytes of a function number in frames.
    pub function_bytes: u32,
    /// Added to function numbers.
    pub first_number: u64,
    /// As `unwind_begin` leaves it: the state is UNWINDING, and the position is where the first frame goes.
    pub unwinding: State,
}

impl<'m> World<'m> {
    pub fn read(
        module: Module<'m>,
        before: &Before,
        resume_names: &[String],
        function_bytes: u32,
    ) -> Result<Self, Problem> {
        let resume: HashSet<Name> = resume_names.iter().map(|name| Name::of(name)).collect();
        let is_added =
            |f: &&FunctionRow| !f.imported && !before.functions.contains(&f.name()) && !resume.contains(&f.name());
        let rows = module.functions();
        let added = rows.iter().filter(is_added);
        let bodies: HashMap<Name, Body> = added.map(|f| (f.name(), Body::read(module.function_at(f)))).collect();
        let references = bodies.iter().filter_map(|(&name, body)| Some((name, translates(body)?))).collect();
        let tables = module.table_segments().into_iter().map(|segment| Segment {
            table: segment.table_name(),
            global: segment.offset_global(),
            offset: segment.offset,
            functions: segment.function_names().collect(),
        });
        let exports = module.exports().into_iter().filter(|e| e.kind == 0);
        let exports: HashMap<String, Name> = exports.map(|e| (e.name, Name::of(&e.item))).collect();
        let globals = module.globals();
        let mut world = World {
            module,
            references,
            constants: globals.iter().filter(|g| !g.mutable_).map(|g| Name::of(&g.name)).collect(),
            programs_globals: before.globals.iter().map(|g| Name::of(g)).collect(),
            added: bodies,
            tables: tables.collect(),
            exports,
            memory: None,
            state: Name::of(""),
            position: Name::of(""),
            function_bytes,
            first_number: 0,
            unwinding: State::default(),
        };
        world.find_globals(&globals)?;
        Ok(world)
    }

    fn find_globals(&mut self, globals: &[GlobalRow]) -> Result<(), Problem> {
        let read = self.added[&self.transition(abi::STATE)?].instructions.iter().find_map(|i| match i.op {
            Op::GlobalGet(global) => Some(global),
            _ => None,
        });
        self.state = read.ok_or(Problem::Transition(abi::STATE))?;
        self.programs_globals.remove(&self.state);
        let added: Vec<&GlobalRow> = globals
            .iter()
            .filter(|g| g.mutable_ && Type::from_id(g.type_id).is_numeric())
            .filter(|g| !self.programs_globals.contains(&Name::of(&g.name)) && Name::of(&g.name) != self.state)
            .collect();
        let begin = self.transition(abi::UNWIND_BEGIN)?;
        let pointer = self.added[&begin].locals.first().copied().ok_or(Problem::Transition(abi::UNWIND_BEGIN))?;
        self.memory = self.added[&begin].instructions.iter().find_map(|i| match i.op {
            Op::Load { memory, .. } | Op::Store { memory, .. } => Some(memory),
            _ => None,
        });
        let buffer = self.find_position(&added, pointer)?;

        let mut state = State::default();
        for global in &added {
            // What the main module has set when a side module joins it: nothing is in the way.
            let ones = if Type::from_id(global.type_id).size() == 8 { u64::MAX } else { u64::from(u32::MAX) };
            state.globals.insert(Name::of(&global.name), Value::Bits(if global.imported { ones } else { 0 }));
        }
        // What other modules need besides is nothing here.
        let reserve = format!("{}reserve", abi::LINKING_PREFIX);
        if let Some(reserve) = self.module.exports().into_iter().find(|e| e.name == reserve) {
            state.globals.insert(Name::of(&reserve.item), Value::Bits(0));
        }
        let table_base = format!("{}table_base", abi::LINKING_PREFIX);
        if let Some(base) = globals.iter().find(|g| !g.mutable_ && g.base == table_base) {
            state.globals.insert(Name::of(&base.name), Value::Bits(TABLE_BASE));
            self.first_number = TABLE_BASE;
        }
        let start = Memory::BUFFER + 64;
        state.globals.extend([(self.position, Value::Bits(start)), (buffer, Value::Bits(Memory::BUFFER))]);
        state.memory.set_bytes(Memory::BUFFER, &[0; 16][..2 * pointer.size() as usize]);
        // A side module joins a main module that is unwinding already.
        let is_side = globals.iter().any(|g| g.imported && Name::of(&g.name) == self.state);
        let initial = if is_side { abi::State::Unwinding } else { abi::State::Normal };
        state.globals.insert(self.state, Value::Bits(initial as u64));
        let state = self.run_transition(abi::UNWIND_BEGIN, &[Value::Bits(Memory::BUFFER)], state)?;
        // The buffer's first word is where the next frame goes.
        let first = state.memory.load(Memory::BUFFER, pointer.size(), false, pointer);
        if state.globals[&self.state] != Value::Bits(abi::State::Unwinding as u64)
            || state.globals[&self.position] != first
        {
            return Err(Problem::Transition(abi::UNWIND_BEGIN));
        }
        self.unwinding = state;
        Ok(())
    }

    /// Finds the global with the position: its value is what `unwind_end` writes to the buffer. Gives that of the
    /// buffer.
    fn find_position(&mut self, added: &[&GlobalRow], pointer: Type) -> Result<Name, Problem> {
        let candidates: Vec<Name> =
            added.iter().filter(|g| Type::from_id(g.type_id) == pointer).map(|g| Name::of(&g.name)).collect();
        let marker = |i: usize| Memory::BUFFER + 64 * i as u64;
        let mut state = State::default();
        state.globals.extend(candidates.iter().enumerate().map(|(i, &g)| (g, Value::Bits(marker(i)))));
        state.globals.insert(self.state, Value::Bits(abi::State::Unwinding as u64));
        let state = self.run_transition(abi::UNWIND_END, &[], state)?;
        let problem = Problem::Transition(abi::UNWIND_END);
        let written = (0..candidates.len()).find(|&i| state.memory.cell(marker(i)) != Cell::Initial);
        let buffer = written.ok_or(problem.clone())?;
        let stored = state.memory.load(marker(buffer), pointer.size(), false, pointer);
        let position = (0..candidates.len()).find(|&i| stored == Value::Bits(marker(i))).ok_or(problem)?;
        self.position = candidates[position];
        Ok(candidates[buffer])
    }

    fn transition(&self, export: &'static str) -> Result<Name, Problem> {
        let function = self.exports.get(export).filter(|f| self.added.contains_key(f));
        function.copied().ok_or(Problem::Transition(export))
    }

    fn run_transition(&self, export: &'static str, arguments: &[Value], state: State) -> Result<State, Problem> {
        let body = &self.added[&self.transition(export)?];
        let mut locals = arguments.to_vec();
        locals.resize_with(body.locals.len(), || Value::Bits(0));
        let mut machine = Machine::new(self, state, body, Place { at: 0, height: 0 }, locals, Rules::Transition);
        match machine.run() {
            Stop::Return => Ok(machine.state),
            _ => Err(Problem::Transition(export)),
        }
    }

    /// The function at an index of a table, by the module's active segments.
    pub fn table_entry(&self, table: Name, index: u64, state: &State) -> Option<Name> {
        let segments = self.tables.iter().filter(|s| s.table == table);
        let mut found = segments.filter_map(|segment| {
            let offset = match segment.global {
                Some(global) => state.globals.get(&global)?.bits()?,
                None => segment.offset,
            };
            segment.functions.get(index.checked_sub(offset)? as usize).copied()
        });
        found.next_back()?
    }

    /// The state with the frame of some function on top: its number is all that others look at.
    pub fn with_callee(&self, number: u32) -> State {
        let mut state = self.unwinding.clone();
        let position = self.position_in(&state).unwrap_or(Memory::BUFFER);
        let bytes = (u64::from(number) + self.first_number).to_le_bytes();
        state.memory.set_bytes(position, &bytes[..self.function_bytes as usize]);
        state.globals.insert(self.position, Value::Bits(position + u64::from(self.function_bytes)));
        state
    }

    /// Whether an access to memory is part of pushing or popping a frame: its address is the position, or taken from it.
    pub fn is_frame_access(&self, memory: Name, at: Option<Name>) -> bool {
        at == Some(self.position) && self.memory.is_none_or(|m| m == memory)
    }

    /// Whether a global is one that the pass added.
    pub fn is_added_global(&self, global: Name) -> bool {
        !self.programs_globals.contains(&global)
    }

    pub fn position_in(&self, state: &State) -> Option<u64> {
        state.globals.get(&self.position)?.bits()
    }
}

/// By its type: a reference to a number, or a number to a reference. What calls through a table resumes a function.
fn translates(body: &Body) -> Option<Reference> {
    if body.instructions.iter().any(|instruction| matches!(instruction.op, Op::CallIndirect { .. })) {
        return None;
    }
    let is_reference = |t: Type| t.components().len() == 1 && t.hierarchy() != Hierarchy::None;
    match body.locals[..body.params as usize] {
        [value] if is_reference(value) && body.results == Type::I32 => Some(Reference::Encode),
        [Type::I32] if is_reference(body.results) => Some(Reference::Decode),
        _ => None,
    }
}
