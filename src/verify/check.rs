//! One function and its resume function against their plan, by executing them: from each landing as if the callee was
//! being unwound, and from the start of the resume function with the frame that came of it.

mod aborts;
mod further;
mod operands;

use std::collections::HashMap;

use crate::abi;
use crate::frame::{WIDE_SITE, site_bytes_in_line, slot_size};
use crate::ir::{CodeRow, Function, Hierarchy, Kind, Name, Type};
use crate::plan::{Callee, FunctionPlan, LocalIndex, Site, Slot};
use crate::verify::Landings;
use crate::verify::body::{Body, Place};
use crate::verify::machine::{Fault, Machine, Rules, State, Stop};
use crate::verify::memory::{Cell, Value};
use crate::verify::normal::Normal;
use crate::verify::onward::{self, Returned};
use crate::verify::operations::computed;
use crate::verify::violation::{During, Problem};
use crate::verify::ways::Ways;
use crate::verify::world::World;

/// What is wrong, and at which landing.
#[derive(Clone, Debug)]
pub struct Failure {
    pub site: Option<Site>,
    pub problem: Problem,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure { site: None, problem }
    }
}

/// What all functions are checked with.
pub struct Output<'a, 'm> {
    pub world: &'a World<'m>,
    pub normal: &'a Normal<'a, 'm>,
    pub plans: &'a [&'a FunctionPlan],
    pub resume_names: &'a [String],
    /// The global below which frames must stay.
    pub limit: Option<Name>,
    /// Whether all functions that can be unwound are the module's own.
    pub is_closed: bool,
}

/// One function.
pub struct Checker<'a, 'm> {
    output: &'a Output<'a, 'm>,
    plan: &'a FunctionPlan,
    landings: &'a Landings,
    body: Body,
    resume: Body,
    /// Of the resume function.
    ways: Ways,
    /// The row of each landing.
    rows: Vec<u32>,
    /// The row of each call that comes to a join, and the join's site.
    joined: Vec<(u32, Site)>,
}

/// Whether it is one number whose bits are followed.
fn is_number(type_: Type) -> bool {
    type_.components().len() == 1 && type_.is_numeric() && type_ != Type::V128
}

/// In a frame that is expected: whatever is there.
const ANY: Cell = Cell::Initial;

/// A body, a place behind a call in it, and the call's row in the function.
type Behind<'a> = (&'a Body, Place, u32);

/// A landing that unwound.
struct Unwound {
    /// With the frame on top, and below it one of the callee.
    state: State,
    /// Where the frame starts.
    start: u64,
    /// The number of the function whose frame is below.
    callee: u32,
    frame: Vec<Cell>,
    /// What the entry was called with, if that can be told.
    arguments: Option<Vec<Value>>,
}

impl<'a, 'm> Checker<'a, 'm> {
    pub fn new(
        output: &'a Output<'a, 'm>,
        plan: &'a FunctionPlan,
        landings: &'a Landings,
        function: Function<'_>,
        resume: Function<'_>,
    ) -> Result<Self, Failure> {
        let body = Body::read(function);
        let by_address: HashMap<usize, u32> = body.calls.keys().map(|&row| (body.row(row).expression, row)).collect();
        let mut rows = Vec::new();
        for (i, address) in landings.calls.iter().enumerate() {
            let row = by_address.get(address).copied();
            let site = Some(Site(i as u32));
            rows.push(row.ok_or(Failure { site, problem: Problem::LandingGone })?);
        }
        let gone = |site| Failure { site: Some(site), problem: Problem::LandingGone };
        let row_of = |&(address, site)| Ok((by_address.get(&address).copied().ok_or(gone(site))?, site));
        let joined = landings.joined.iter().map(row_of).collect::<Result<_, Failure>>()?;
        let ways = Ways::new(rows.len(), output.world.state);
        Ok(Checker { output, plan, landings, body, resume: Body::read(resume), ways, rows, joined })
    }

    pub fn check(&self) -> Result<(), Failure> {
        self.check_operations()?;
        self.check_captures()?;
        self.output.normal.check_function(&self.body, &[Place { at: 0, height: 0 }])?;
        let mut resumed = Vec::new();
        for site in (0..self.rows.len() as u32).map(Site) {
            let at = |problem| Failure { site: Some(site), problem };
            let unwound = self.unwind(site).map_err(at)?;
            if self.is_ever_resumed(site) {
                resumed.push(self.rewind(site, &unwound).map_err(at)?);
            }
        }
        for &(row, site) in &self.joined {
            let from = self.behind(row);
            let join = self.body.calls[&self.rows[site.0 as usize]];
            self.arrive(from, site, &[join]).map_err(|problem| Failure { site: Some(site), problem })?;
        }
        let places: Vec<Place> = resumed.iter().map(|returned| self.place_after(returned)).collect();
        self.output.normal.check_function(&self.resume, &places)?;
        // Where operands are missing that nothing needs the stacks are not the same.
        let is_followed = |r: &&Returned| !self.lacks_what_nothing_needs(r.site, self.place_after(r));
        let followed: Vec<&Returned> = resumed.iter().filter(is_followed).collect();
        let called = onward::follow(self.output.world, &self.body, &self.resume, self.shared_locals(), &followed)
            .map_err(|(site, problem)| Failure { site: Some(site), problem })?;
        self.check_ordinary_calls(&called, &resumed)?;
        if let (Some(limit), Some(site)) = (self.output.limit, self.resumed_site()) {
            self.abort(site, limit).map_err(|problem| Failure { site: Some(site), problem })?;
        }
        Ok(())
    }

    /// Each number that a reference is made again of is kept as soon as it is there.
    fn check_captures(&self) -> Result<(), Problem> {
        let rows = &self.body.code.rows;
        let is_kept = |&&(address, local): &&(usize, LocalIndex)| {
            let parents =
                rows.iter().filter(|row| row.expression == address).filter_map(|row| rows.get(row.parent as usize));
            parents.into_iter().any(|parent| parent.kind() == Kind::LocalSet && parent.value == u64::from(local))
        };
        match self.landings.captures.iter().find(|capture| !is_kept(capture)) {
            Some(&(_, local)) => Err(Problem::NotCaptured(local)),
            None => Ok(()),
        }
    }

    /// The program's operations are all there. Functions that hosts enter through tables resume the frame on top first.
    fn check_operations(&self) -> Result<(), Problem> {
        let all = &self.body.code.rows;
        let is_added = |row: u32| self.is_added(row);
        if operations(all, 0, is_added) == self.landings.operations {
            return Ok(());
        }
        let root = all.len() as u32 - 1;
        let guard = all.iter().position(|row| row.parent == root && row.child == 0);
        match guard.filter(|_| all[root as usize].kind() == Kind::Block) {
            Some(guard) if operations(all, guard + 1, is_added) == self.landings.operations => {
                match self.output.resumes(&self.body) {
                    true => Ok(()),
                    false => Err(Problem::NoRootInTable),
                }
            }
            _ => Err(Problem::OperationsChanged),
        }
    }

    /// Whether a row calls what the pass added, sets a global that it added, or stores part of a frame.
    fn is_added(&self, row: u32) -> bool {
        let world = self.output.world;
        let data = self.body.row(row);
        let names = |is_such: &dyn Fn(Name) -> bool| data.named().is_some_and(is_such);
        match data.kind() {
            Kind::Call => names(&|function| world.added.contains_key(&function)),
            Kind::GlobalSet => names(&|global| world.is_added_global(global)),
            Kind::Store => names(&|memory| world.is_frame_access(memory, self.body.global_at(row))),
            _ => false,
        }
    }

    /// Locals that the function and its resume function both have.
    fn shared_locals(&self) -> usize {
        self.plan.locals.len() + self.plan.spills.len()
    }

    /// Where the resume function goes on, without what the landing gives.
    fn place_after(&self, returned: &Returned) -> Place {
        Place { at: returned.places[1], height: returned.height - u32::from(returned.gives) }
    }

    /// Behind a call of the function itself.
    fn behind(&self, row: u32) -> Behind<'_> {
        (&self.body, self.body.calls[&row], row)
    }

    fn own_resume(&self) -> Name {
        Name::of(self.output.resume_name(self.plan))
    }

    /// Whether any function could have left a frame for the landing to resume.
    fn is_ever_resumed(&self, site: Site) -> bool {
        let landing = self.plan.landing(site);
        landing.callee != Callee::NextFrame || self.output.number_with_results(landing.result).is_some()
    }

    /// The first landing that can be resumed.
    pub fn resumed_site(&self) -> Option<Site> {
        (0..self.rows.len() as u32).map(Site).find(|&site| self.is_ever_resumed(site))
    }

    /// The number of a function that the landing could have called.
    fn callee_number(&self, site: Site) -> u32 {
        let landing = self.plan.landing(site);
        match landing.callee {
            Callee::Function(number) => number.0,
            _ => self.output.number_with_results(landing.result).unwrap_or(self.plan.number.0),
        }
    }

    fn set_state(&self, state: &mut State, to: abi::State) {
        state.globals.insert(self.output.world.state, Value::Bits(to as u64));
    }

    /// Executes the function from the landing on, as when the callee returns because it is unwound.
    fn unwind(&self, site: Site) -> Result<Unwound, Problem> {
        let world = self.output.world;
        let callee = self.callee_number(site);
        let state = world.with_callee(callee);
        let start = world.position_in(&state).ok_or(Problem::Transition(abi::UNWIND_BEGIN))?;
        let row = self.rows[site.0 as usize];
        let is_entry = self.plan.landing(site).callee == Callee::Entry;
        let sets = if is_entry { self.sets_since(row, site) } else { HashMap::new() };
        let evaluated = is_entry.then(|| self.run_from(row, site, &state, &sets)).flatten();
        let (mut machine, arguments) = match evaluated {
            Some((machine, arguments)) => (machine, Some(arguments)),
            None => (self.after_call(self.behind(row), state.clone(), self.returned(site)), None),
        };
        self.set_state(&mut machine.state, abi::State::Unwinding);
        machine.set_rules(Rules::Harmless { rebuilds: false });
        let frame = self.expected_frame(site);
        let stop = machine.give(self.returned(site));
        self.finish(stop, &machine, &state, (start, &frame), During::Unwinding)?;
        Ok(Unwound { state: machine.state, start, callee, frame, arguments })
    }

    /// What the callee returns when it is unwound.
    fn returned(&self, site: Site) -> Value {
        let landing = self.plan.landing(site);
        let is_known = self.output.is_closed && landing.callee != Callee::Entry;
        if is_known && is_number(landing.result) { Value::Bits(0) } else { Value::Unknown }
    }

    /// A machine that is about to go on behind a call, which has returned a value.
    fn after_call<'s>(&'s self, (body, after, row): Behind<'s>, state: State, returned: Value) -> Machine<'s, 'm> {
        let is_shared = |local: u32| (local as usize) < self.shared_locals() || std::ptr::eq(body, &self.body);
        let value = |local| if is_shared(local) { Value::local(local) } else { Value::Unknown };
        let locals = (0..body.locals.len() as u32).map(value).collect();
        let rules = Rules::Harmless { rebuilds: false };
        let mut machine = Machine::new(self.output.world, state, body, after, locals, rules);
        if self.body.row(row).type_().is_concrete() {
            machine.push(returned);
        }
        machine
    }

    /// What a local holds at a landing: a reference that is made again is not followed.
    fn value_at(&self, site: Site, local: u32) -> Value {
        let is_rebuilt = self.plan.rebuilds.iter().any(|r| r.local == local && r.sites.contains(&site));
        if is_rebuilt { Value::Unknown } else { Value::local(local) }
    }

    /// Executes the resume function with the frame on top, up to the landing, and from there as when the callee is
    /// unwound again. Gives where the landing returns.
    fn rewind(&self, site: Site, unwound: &Unwound) -> Result<Returned, Problem> {
        let mut machine = self.resuming(&unwound.state, abi::State::Rewinding, None);
        let stop = machine.run();
        let arguments = self.check_landing(site, unwound, &stop)?;
        self.check_reloaded(site, unwound, &machine)?;
        let differ = |(original, found): (&Value, &Value)| *original != Value::Unknown && original != found;
        if unwound.arguments.iter().flatten().zip(arguments).any(differ) {
            return Err(Problem::WrongArguments);
        }
        let place = machine.place().ok_or(Problem::ReturnsRewinding)?;
        self.check_operands(site, place, machine.stack())?;
        let returned = self.returns(site, place, machine.locals());
        let mut below = machine.state.clone();
        below.memory.truncate(unwound.start);
        machine.state.memory.truncate(unwound.start);
        self.set_state(&mut machine.state, abi::State::Unwinding);
        let stop = machine.give(self.returned(site));
        self.finish(stop, &machine, &below, (unwound.start, &unwound.frame), During::UnwindingAgain)?;
        Ok(returned)
    }

    /// Where the landing returns, in the resume function at a place, with these locals.
    fn returns(&self, site: Site, place: Place, locals: &[Value]) -> Returned {
        let row = self.rows[site.0 as usize];
        let after = self.body.calls[&row];
        let gives = self.body.row(row).type_().is_concrete();
        let is_rebuilt = |local: u32| self.value_at(site, local) == Value::Unknown;
        let is_there = |(local, &value): (u32, &Value)| value == Value::local(local) || is_rebuilt(local);
        Returned {
            site,
            places: [after.at, place.at],
            height: place.height + u32::from(gives),
            gives,
            reloaded: (0..).zip(locals).take(self.shared_locals()).map(is_there).collect(),
        }
    }

    /// The resume function, about to run with nothing known but the frames.
    fn resuming(&self, state: &State, kind: abi::State, limit: Option<Name>) -> Machine<'_, 'm> {
        let world = self.output.world;
        let mut fresh = State { memory: state.memory.clone(), ..world.unwinding.clone() };
        fresh.globals.insert(world.position, state.globals[&world.position]);
        if let Some(limit) = limit {
            fresh.globals.insert(limit, state.globals[&limit]);
        }
        self.set_state(&mut fresh, kind);
        let rules = Rules::Harmless { rebuilds: !self.plan.rebuilds.is_empty() };
        let unset = |type_: &Type| if type_.hierarchy() == Hierarchy::None { Value::Unknown } else { Value::Unset };
        let locals = self.resume.locals.iter().map(unset).collect();
        Machine::new(world, fresh, &self.resume, Place { at: 0, height: 0 }, locals, rules).with_ways(&self.ways)
    }

    /// Whether the machine stopped where the landing is resumed. Gives the arguments of that call.
    fn check_landing<'s>(&self, site: Site, unwound: &Unwound, stop: &'s Stop) -> Result<&'s Vec<Value>, Problem> {
        let output = self.output;
        let expected = match self.plan.landing(site).callee {
            Callee::Entry => self.landings.entries[site.0 as usize].clone(),
            Callee::Function(number) => output.resume_names[number.0 as usize].clone(),
            Callee::NextFrame => output.resume_names[unwound.callee as usize].clone(),
        };
        match stop {
            Stop::Return => Err(Problem::ReturnsRewinding),
            Stop::Fault(Fault::Effect(address)) => Err(Problem::LeadIn(*address)),
            Stop::Fault(fault) => Err(Problem::NoWayIn(*fault)),
            Stop::Call { function, .. } if *function != Name::of(&expected) => {
                Err(Problem::WrongCallee { found: function.text(), expected })
            }
            Stop::Call { arguments, .. } => Ok(arguments),
        }
    }

    /// Whether the frame is popped, and its locals are where they were.
    fn check_reloaded(&self, site: Site, unwound: &Unwound, machine: &Machine<'_, 'm>) -> Result<(), Problem> {
        let world = self.output.world;
        for slot in self.held_slots(site) {
            let is_live = self.plan.landing(site).live.binary_search(&slot.local).is_ok();
            if is_live && machine.locals().get(slot.local as usize) != Some(&Value::local(slot.local)) {
                return Err(Problem::NotReloaded(slot.local));
            }
        }
        if world.position_in(&machine.state) != Some(unwound.start) {
            return Err(Problem::NotPopped);
        }
        if machine.state.memory.from(0) != unwound.state.memory.from(0) {
            return Err(Problem::BufferChanged(During::UnwindingAgain));
        }
        Ok(())
    }

    /// Whether the function returned, with the frame on top of what was there before: given are where it starts, and its
    /// bytes.
    fn finish(
        &self,
        stop: Stop,
        machine: &Machine<'_, 'm>,
        before: &State,
        (start, frame): (u64, &[Cell]),
        during: During,
    ) -> Result<(), Problem> {
        match stop {
            Stop::Return => {}
            Stop::Call { function, .. } => return Err(Problem::CallsUnwinding(function.text())),
            Stop::Fault(fault) => return Err(Problem::NoWayOut(fault)),
        }
        if is_number(self.plan.results) && machine.top() != Value::Bits(0) {
            return Err(Problem::ReturnsOther(during));
        }
        let found = machine.state.memory.from(start);
        self.compare_frames(found, frame, during)?;
        let end = start + frame.len() as u64;
        let state = machine.state.globals.get(&self.output.world.state);
        if state != Some(&Value::Bits(abi::State::Unwinding as u64)) {
            return Err(Problem::StateChanged(during));
        }
        if self.output.world.position_in(&machine.state) != Some(end) {
            return Err(Problem::FrameTooShort(during, 0));
        }
        let mut below = machine.state.memory.clone();
        below.truncate(start);
        if below.from(0) != before.memory.from(0) { Err(Problem::BufferChanged(during)) } else { Ok(()) }
    }

    fn compare_frames(&self, found: &[Cell], expected: &[Cell], during: During) -> Result<(), Problem> {
        let fits = |(e, f): &(&Cell, &Cell)| **e == ANY || e == f;
        if found.len() == expected.len() && expected.iter().zip(found).all(|pair| fits(&pair)) {
            return Ok(());
        }
        let slot = expected.iter().zip(found).find(|pair| !fits(pair));
        if let Some((Cell::Part(Value::Local(local, _) | Value::Encoded(local, _), _), _)) = slot {
            return Err(Problem::WrongSlot(during, *local));
        }
        if found.len() > expected.len() {
            return Err(Problem::FrameTooLong(during, (found.len() - expected.len()) as u64));
        }
        if found.len() < expected.len() {
            return Err(Problem::FrameTooShort(during, (expected.len() - found.len()) as u64));
        }
        let number = expected.len() - self.output.world.function_bytes as usize;
        if found[number..] != expected[number..] {
            return Err(Problem::WrongFunction(during));
        }
        Err(Problem::WrongSite(during))
    }

    /// The slots that the frames of a site hold, in the order in which they are pushed.
    fn held_slots(&self, site: Site) -> impl Iterator<Item = &Slot> {
        let mask = self.plan.mask(site);
        let sometimes = self.plan.sometimes().iter().enumerate().filter(move |(i, _)| mask >> i & 1 == 1);
        sometimes.map(|(_, slot)| slot).chain(self.plan.always())
    }

    /// The frame of a site, as `frame.rs` documents it. What a slot holds that this site does not need is all one.
    fn expected_frame(&self, site: Site) -> Vec<Cell> {
        let plan = self.plan;
        let mut cells = Vec::new();
        for slot in self.held_slots(site) {
            let is_live = plan.landing(site).live.binary_search(&slot.local).is_ok();
            let components = slot.type_.components();
            for (component, &type_) in components.iter().enumerate() {
                let component = if components.len() == 1 { crate::verify::memory::WHOLE } else { component as u8 };
                let value = match type_.is_numeric() {
                    true => Value::Local(slot.local, component),
                    false => Value::Encoded(slot.local, component),
                };
                let cell = |byte| if is_live { Cell::Part(value, byte as u8) } else { ANY };
                cells.extend((0..slot_size(type_)).map(cell));
            }
        }
        if plan.landings.len() > 1 {
            let bytes = (site.0 as u16).to_le_bytes();
            if plan.in_line {
                cells.extend(bytes[..site_bytes_in_line(plan) as usize].iter().copied().map(Cell::Byte));
            } else {
                cells.extend(bytes.into_iter().filter(|_| site.0 >= WIDE_SITE).map(Cell::Byte));
                cells.push(Cell::Byte(site.0.min(WIDE_SITE) as u8));
            }
        }
        let world = self.output.world;
        let number = u64::from(plan.number.0) + world.first_number;
        cells.extend(number.to_le_bytes()[..world.function_bytes as usize].iter().map(|&b| Cell::Byte(b)));
        cells
    }
}

impl Output<'_, '_> {
    /// The name of the function's resume function, which equal functions share.
    pub fn resume_name(&self, plan: &FunctionPlan) -> &str {
        &self.resume_names[plan.number.0 as usize]
    }

    /// A function that returns this, as its resume function does.
    pub fn number_with_results(&self, results: Type) -> Option<u32> {
        self.plans.iter().find(|p| p.results.top() == results.top()).map(|p| p.number.0)
    }
}

/// Kinds of expressions that both the program and the pass use, or whose types Binaryen refines.
fn is_glue(kind: Kind) -> bool {
    kind.is_control_flow()
        || matches!(
            kind,
            Kind::Break
                | Kind::BrOn
                | Kind::Switch
                | Kind::LocalGet
                | Kind::LocalSet
                | Kind::GlobalGet
                | Kind::Drop
                | Kind::Return
                | Kind::Const
                | Kind::Unary
                | Kind::Binary
                | Kind::Select
                | Kind::Nop
                | Kind::Unreachable
                | Kind::TupleMake
                | Kind::TupleExtract
                | Kind::RefNull
                | Kind::RefCast
                | Kind::RefAs
                | Kind::RefTest
        )
}

/// A hash of the program's own operations in their order, from a row on: all that is no glue, and not added.
pub fn operations(rows: &[CodeRow], first: usize, is_added: impl Fn(u32) -> bool) -> u64 {
    let is_own = |&(index, row): &(usize, &CodeRow)| !is_glue(row.kind()) && !is_added(index as u32);
    let rows = rows.iter().enumerate().skip(first);
    let operations: Vec<u64> = rows.filter(is_own).map(|(_, row)| row.operation).collect();
    match computed(operations) {
        Value::Computed(hash) => hash,
        _ => unreachable!("a computed value is a hash"),
    }
}
