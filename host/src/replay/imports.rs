//! The imports of a module under test: entries, WASI, and functions that only leave a trace.

use std::fmt;
use std::sync::Arc;

use wasmtime::{
    AsContextMut, Caller, Engine, ExnRef, ExnRefPre, ExnType, Extern, Func, FuncType, Instance, Memory, Module, Result,
    Store, StoreLimits, StoreLimitsBuilder, Tag, TagType, Val, bail, format_err,
};

use super::answers;
use super::machine::{Fingerprint, fingerprint};
use super::outcome::{Event, FrameBytes, Trace};
use super::value::Value;
use super::{NO_LARGER_BUFFER, OnAbort, Schedule};
use crate::errno::Errno;
use crate::protocol::{Buffer, ForkExports, ForkState, grow_bytes, link_resume};
use crate::run::unsigned;
use crate::wasi::{self, Stop};

/// A [`super::Replay`], ready to run.
pub(super) struct Spec {
    pub engine: Engine,
    pub module: Module,
    pub resume: Option<Module>,
    pub instrumented: bool,
    pub entries: Vec<super::Entry>,
    pub root: String,
    pub args: Vec<Value>,
    pub schedule: Schedule,
    /// The memory with the buffer, by the name of [`super::MemoryImage`].
    pub memory: Option<String>,
    pub wide: bool,
    pub buffer: u64,
    pub buffer_cycle: Option<u64>,
    pub buffer_cycle_start: u64,
    pub reserve: u64,
    pub buffer_at: Option<u64>,
    pub on_abort: OnAbort,
    /// References are carried over to fresh instances.
    pub carry: bool,
    pub limit: super::Limit,
    pub strict: bool,
    pub trace_limit: usize,
    pub memory_limit: usize,
}

/// Which sides of a fork are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Child,
    Parent,
    Both,
}

impl Schedule {
    /// Whether to fork at a call of an entry import.
    pub(super) fn action(self, number: u64) -> Option<Action> {
        match self {
            Schedule::Never => None,
            Schedule::FollowChild => Some(Action::Child),
            Schedule::FollowParent => Some(Action::Parent),
            Schedule::ForkAt(at) => (at == number).then_some(Action::Both),
            Schedule::Random { seed } => match answers::seed("schedule", seed, &[Value::I64(number as i64)]) % 3 {
                0 => None,
                1 => Some(Action::Child),
                _ => Some(Action::Parent),
            },
        }
    }
}

/// A call of an entry import from its first arrival until it returns for good.
#[derive(Clone)]
pub(super) struct Pending {
    import: usize,
    args: Vec<Value>,
    number: u64,
    pub action: Action,
    /// The bytes after the buffer.
    guard: Vec<u8>,
    before: Option<Fingerprint>,
}

/// Where the buffer is and may grow to.
#[derive(Clone)]
pub(super) struct Area {
    pub buffer: Buffer,
    /// One past what is kept for the buffer.
    pub limit: u64,
    /// All that was ever kept for a buffer.
    pub holes: Vec<std::ops::Range<u64>>,
}

/// What has happened to the program so far, in whatever instances.
#[derive(Clone, Default)]
pub(super) struct Journal {
    pub trace: Trace,
    pub entry_calls: u64,
    pub forks: u64,
    pub aborts: u64,
    pub frame_bytes: FrameBytes,
    pub faults: Vec<String>,
    pub buffer_moved: bool,
    pub area: Option<Area>,
    pub pending: Option<Pending>,
    /// What imports answered to the start function of the first instance.
    start_log: Vec<Vec<Value>>,
}

impl Journal {
    /// What the start function of a later instance hears.
    pub fn start_answers(&self) -> std::vec::IntoIter<Vec<Value>> {
        self.start_log.clone().into_iter()
    }

    pub fn fault(&mut self, fault: String) {
        if self.faults.len() < 20 {
            self.faults.push(fault);
        }
    }
}

/// What a store holds.
pub(super) struct World {
    pub spec: Arc<Spec>,
    pub journal: Journal,
    pub wasi: wasi::State,
    /// Set once the start function has run, and the other handles with it.
    pub instance: Option<Instance>,
    pub exports: Option<ForkExports>,
    pub memory: Option<Memory>,
    /// Memories and globals to compare in strict runs.
    pub observed: super::machine::Observed,
    pub resumable: bool,
    /// The resume functions, if they are in a module of their own.
    pub resume_instance: Option<Instance>,
    /// The start function runs in an instance that is not the first: it hears what it heard then.
    pub start_answers: Option<std::vec::IntoIter<Vec<Value>>>,
    pub limits: StoreLimits,
}

impl World {
    pub fn new(spec: Arc<Spec>, journal: Journal, wasi: wasi::State) -> Self {
        let limits = StoreLimitsBuilder::new().memory_size(spec.memory_limit).build();
        Self {
            limits,
            spec,
            journal,
            wasi,
            instance: None,
            exports: None,
            memory: None,
            observed: super::machine::Observed::default(),
            resumable: false,
            resume_instance: None,
            start_answers: None,
        }
    }

    /// What the store of a fresh instance holds until that has started.
    pub fn of_a_child(&self) -> Self {
        let answers = self.journal.start_answers();
        Self { start_answers: Some(answers), ..Self::new(self.spec.clone(), self.journal.clone(), self.wasi.clone()) }
    }
}

/// The error by which a program exits.
#[derive(Debug)]
pub(super) struct Exit(pub u32);

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit with {}", self.0)
    }
}

impl std::error::Error for Exit {}

struct Import {
    index: usize,
    name: Arc<str>,
    entry: bool,
    /// It throws an exception whose tag the program does not know.
    throws: bool,
    wasi: Option<wasi::Function>,
    ty: FuncType,
}

/// A function for the import of that index in the module.
pub(super) fn function(store: &mut Store<World>, index: usize, module: &str, name: &str, ty: FuncType) -> Func {
    let spec = store.data().spec.clone();
    let wasi = (module == wasi::MODULE).then(|| wasi::find(name)).flatten();
    let import = Import {
        index,
        name: format!("{module}.{name}").into(),
        entry: spec.entries.iter().any(|entry| entry.matches(module, name)),
        throws: module == "throw",
        wasi: wasi.filter(|function| function.has_type(&ty, spec.wide)),
        ty: ty.clone(),
    };
    Func::new(store, ty, move |mut caller, args, results| import.call(&mut caller, args, results))
}

type Cx<'a, 'b> = &'a mut Caller<'b, World>;

impl Import {
    fn call(&self, cx: Cx<'_, '_>, args: &[Val], results: &mut [Val]) -> Result<()> {
        if let Some(answers) = &mut cx.data_mut().start_answers {
            let answer = answers.next().unwrap_or_default();
            return self.repeat(cx, &answer, results);
        }
        if self.entry {
            self.enter(cx, args, results)?;
        } else {
            if cx.data().journal.pending.is_some() {
                let state = state(cx)?;
                cx.data_mut().journal.fault(format!("{} was called while {state:?}", self.name));
            }
            self.perform(cx, args, results, cx.data().journal.trace.count)?;
            if self.throws {
                return throw(cx);
            }
        }
        if cx.data().instance.is_none() {
            let results = results.iter().map(|result| Value::exact(cx.as_context_mut(), result)).collect();
            cx.data_mut().journal.start_log.push(results);
        }
        Ok(())
    }

    fn repeat(&self, cx: Cx<'_, '_>, answer: &[Value], results: &mut [Val]) -> Result<()> {
        for ((index, result), ty) in results.iter_mut().enumerate().zip(self.ty.results()) {
            let known = answer.get(index).and_then(|answer| answer.to_val(cx.as_context_mut(), &ty));
            *result = known.map_or_else(|| answers::value(cx.as_context_mut(), &ty, 0), Ok)?;
        }
        Ok(())
    }

    /// An entry import, reached in any state.
    fn enter(&self, cx: Cx<'_, '_>, args: &[Val], results: &mut [Val]) -> Result<()> {
        let exact: Vec<Value> = args.iter().map(|arg| Value::exact(cx.as_context_mut(), arg)).collect();
        let Some(pending) = cx.data_mut().journal.pending.take() else {
            let number = cx.data().journal.entry_calls;
            cx.data_mut().journal.entry_calls += 1;
            let action = cx.data().exports.as_ref().and(cx.data().spec.schedule.action(number));
            let Some(action) = action else { return self.perform(cx, args, results, number) };
            let start = cx.data().spec.buffer_cycle_start;
            if let (Some(cycle), Some(area)) = (cx.data().spec.buffer_cycle, &mut cx.data_mut().journal.area) {
                area.buffer.size = spread(start + number, cycle);
            }
            let pending = Pending { import: self.index, args: exact, number, action, guard: Vec::new(), before: None };
            return self.unwind(cx, pending, args, results);
        };
        let state = state(cx)?;
        if pending.import != self.index {
            cx.data_mut().journal.fault(format!("{} was reached while {state:?} for another import", self.name));
        }
        if pending.args != exact {
            let fault = format!("{}: {state:?} it got {exact:?} instead of {:?}", self.name, pending.args);
            cx.data_mut().journal.fault(fault);
        }
        match state {
            ForkState::Rewinding => {
                self.arrive(cx, &pending, state)?;
                self.perform(cx, args, results, pending.number)
            }
            ForkState::Aborting => {
                cx.data_mut().journal.aborts += 1;
                self.arrive(cx, &pending, state)?;
                if self.make_room(cx)? {
                    self.unwind(cx, pending, args, results)
                } else {
                    self.give_up(cx, args, results, pending.number)
                }
            }
            ForkState::Normal | ForkState::Unwinding => {
                cx.data_mut().journal.fault(format!("{} was reached again while {state:?}", self.name));
                bail!("an entry import was reached again while {state:?}");
            }
        }
    }

    /// Ends the rewinding and checks that it left all as it was.
    fn arrive(&self, cx: Cx<'_, '_>, pending: &Pending, state: ForkState) -> Result<()> {
        check_guard(&mut *cx, pending)?;
        let exports = cx.data().exports.clone().ok_or_else(|| format_err!("no fork exports"))?;
        exports.rewind_end(&mut *cx)?;
        let after = exports.state(&mut *cx)?;
        if after != ForkState::Normal {
            cx.data_mut().journal.fault(format!("wpk_fork_rewind_end left the module {after:?}"));
        }
        if let Some(before) = &pending.before {
            let changes = before.changes(&fingerprint(cx.as_context_mut())?);
            for change in changes {
                cx.data_mut().journal.fault(format!("{state:?} changed {change}"));
            }
        }
        Ok(())
    }

    /// Starts to unwind; if there is no room even for that, does what the options say.
    fn unwind(&self, cx: Cx<'_, '_>, mut pending: Pending, args: &[Val], results: &mut [Val]) -> Result<()> {
        prepare_resume(cx.as_context_mut())?;
        let number = pending.number;
        let Some(memory) = cx.data().memory else { bail!("there is no memory for the fork buffer") };
        let exports = cx.data().exports.clone().ok_or_else(|| format_err!("no fork exports"))?;
        loop {
            let area = cx.data().journal.area.clone();
            let area = area.ok_or_else(|| format_err!("the memory cannot grow, and no buffer_at is given"))?;
            pending.guard = guard(cx, &area)?;
            pending.before = if cx.data().spec.strict { Some(fingerprint(cx.as_context_mut())?) } else { None };
            if exports.arm(&mut *cx, memory, &area.buffer)? {
                cx.data_mut().journal.pending = Some(pending);
                // Anything will do, so nothing that might happen to be right.
                for (result, ty) in results.iter_mut().zip(self.ty.results()) {
                    *result = answers::value(cx.as_context_mut(), &ty, !number)?;
                }
                return Ok(());
            }
            cx.data_mut().journal.aborts += 1;
            check_guard(&mut *cx, &pending)?;
            if !self.make_room(cx)? {
                return self.give_up(cx, args, results, number);
            }
        }
    }

    /// Enlarges the buffer if the options say so: in the space kept for it, then by growing the memory.
    fn make_room(&self, cx: Cx<'_, '_>) -> Result<bool> {
        if cx.data().spec.on_abort != OnAbort::Retry {
            return Ok(false);
        }
        let (Some(mut area), Some(memory)) = (cx.data().journal.area.clone(), cx.data().memory) else {
            return Ok(false);
        };
        let wanted = (area.buffer.size * 2).max(64);
        if area.buffer.end() < area.limit {
            area.buffer.size = wanted.min(area.limit - area.buffer.address);
        } else if let Some(address) = grow_bytes(cx.as_context_mut(), memory, wanted + GUARD) {
            let limit = memory.data_size(&*cx) as u64;
            area.buffer = Buffer { address, size: wanted, ..area.buffer };
            area.limit = limit - GUARD;
            area.holes.push(address..limit);
            cx.data_mut().journal.buffer_moved = true;
        } else {
            cx.data_mut().journal.fault(NO_LARGER_BUFFER.to_owned());
            return Ok(false);
        }
        cx.data_mut().journal.area = Some(area);
        Ok(true)
    }

    fn give_up(&self, cx: Cx<'_, '_>, args: &[Val], results: &mut [Val], number: u64) -> Result<()> {
        if cx.data().spec.on_abort != OnAbort::ReturnError {
            return self.perform(cx, args, results, number);
        }
        let errno = Errno::NOMEM.negative();
        for (result, ty) in results.iter_mut().zip(self.ty.results()) {
            *result = answers::error(cx.as_context_mut(), &ty, if self.wasi.is_some() { -errno } else { errno })?;
        }
        self.record(cx, args, results);
        Ok(())
    }

    /// Does what the import is for, once for each call.
    fn perform(&self, cx: Cx<'_, '_>, args: &[Val], results: &mut [Val], number: u64) -> Result<()> {
        if let Some(function) = self.wasi {
            return self.perform_wasi(cx, function, args, results);
        }
        let observed: Vec<Value> = args.iter().map(|arg| Value::observe(cx.as_context_mut(), arg)).collect();
        let seed = answers::seed(&self.name, number, &observed);
        for ((index, result), ty) in results.iter_mut().enumerate().zip(self.ty.results()) {
            *result = answers::value(cx.as_context_mut(), &ty, seed.rotate_right(8 * index as u32))?;
        }
        self.record(cx, args, results);
        Ok(())
    }

    fn perform_wasi(&self, cx: Cx<'_, '_>, function: wasi::Function, args: &[Val], results: &mut [Val]) -> Result<()> {
        // The buffer can be in another one, and the call can come from the module of resume functions. While the program
        // starts, its instance is not known yet.
        let exported = match cx.data().instance {
            Some(instance) => instance.get_export(&mut *cx, "memory"),
            None => cx.get_export("memory"),
        };
        let exported = exported.and_then(Extern::into_memory);
        let chosen = cx.data().spec.memory.clone();
        let memory = exported
            .or(cx.data().memory)
            .or_else(|| cx.get_export(&chosen?)?.into_memory())
            .ok_or_else(|| format_err!("{} was called, but there is no memory", self.name))?;
        let numbers: Vec<u64> = args.iter().map(unsigned).collect();
        let (bytes, world) = memory.data_and_store_mut(&mut *cx);
        let result = function.call(bytes, world.spec.wide, &mut world.wasi, &numbers);
        if let (Ok(errno), Some(slot)) = (result, results.first_mut()) {
            *slot = Val::I32(errno.0.into());
        }
        self.record(cx, args, results);
        match result {
            Err(Stop::Exit(code)) => Err(Exit(code).into()),
            Err(stop) => bail!("the program stopped itself: {stop:?}"),
            Ok(_) => Ok(()),
        }
    }

    fn record(&self, cx: Cx<'_, '_>, args: &[Val], results: &[Val]) {
        let mut observe =
            |values: &[Val]| values.iter().map(|value| Value::observe(cx.as_context_mut(), value)).collect::<Vec<_>>();
        let event = Event { import: self.name.clone(), args: observe(args), results: observe(results) };
        let limit = cx.data().spec.trace_limit;
        cx.data_mut().journal.trace.push(event, limit);
    }
}

/// Throws an exception of a new tag.
fn throw(cx: Cx<'_, '_>) -> Result<()> {
    let ty = TagType::new(FuncType::new(cx.engine(), [], []));
    let tag = Tag::new(&mut *cx, &ty)?;
    let allocator = ExnRefPre::new(&mut *cx, ExnType::from_tag_type(&ty)?);
    let exception = ExnRef::new(&mut *cx, &allocator, &tag, &[])?;
    cx.as_context_mut().throw(exception)
}

/// Bytes after the buffer that are watched.
pub(super) const GUARD: u64 = 4096;

fn state(cx: Cx<'_, '_>) -> Result<ForkState> {
    match cx.data().exports.clone() {
        Some(exports) => exports.state(cx),
        None => Ok(ForkState::Normal),
    }
}

/// The bytes after the buffer's end. What is kept for the buffer holds a pattern there.
fn guard(cx: Cx<'_, '_>, area: &Area) -> Result<Vec<u8>> {
    let Some(memory) = cx.data().memory else { return Ok(Vec::new()) };
    let data = memory.data_mut(&mut *cx);
    let start = area.buffer.end().min(data.len() as u64) as usize;
    let end = (start + GUARD as usize).min(data.len());
    let kept = area.holes.iter().find(|hole| hole.contains(&(start as u64)));
    if let Some(hole) = kept {
        data[start..end.min(hole.end as usize)].fill(0xa5);
    }
    Ok(data[start..end].to_vec())
}

/// Notes a fault if the bytes after the buffer have changed.
pub(super) fn check_guard(mut cx: impl AsContextMut<Data = World>, pending: &Pending) -> Result<()> {
    let mut cx = cx.as_context_mut();
    let (Some(memory), Some(area)) = (cx.data().memory, cx.data().journal.area.clone()) else { return Ok(()) };
    let end = area.buffer.end() as usize;
    let data = memory.data(&cx);
    let now = data.get(end.min(data.len())..).unwrap_or_default();
    let changed = pending.guard.iter().zip(now).position(|(before, now)| before != now);
    if let Some(offset) = changed {
        cx.data_mut().journal.fault(format!("byte {offset} after the end of the fork buffer was written"));
    }
    Ok(())
}

/// Instantiates the resume functions of an instance that has none yet.
pub(super) fn prepare_resume(mut store: impl AsContextMut<Data = World>) -> Result<()> {
    let mut store = store.as_context_mut();
    if store.data().resumable {
        return Ok(());
    }
    if let (Some(module), Some(instance)) = (store.data().spec.resume.clone(), store.data().instance) {
        let resume = link_resume(&mut store, &instance, &module)?;
        store.data_mut().resume_instance = Some(resume);
    }
    store.data_mut().resumable = true;
    Ok(())
}

/// A size below `cycle` for each of so many calls: all are different, and those of a few calls are spread over all.
fn spread(number: u64, cycle: u64) -> u64 {
    let wide = |number: u64| u128::from(number);
    let has_no_factor = |&stride: &u64| gcd(stride, cycle) == 1;
    let stride = (cycle / 8 * 5..cycle).find(has_no_factor).unwrap_or(1);
    u64::try_from(wide(number % cycle) * wide(stride) % wide(cycle)).expect("it is below the cycle")
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn sizes_are_all_different_and_few_of_them_are_spread() {
        for cycle in [1, 2, 7, 16, 100, 317, 1024] {
            let mut sizes: Vec<u64> = (0..cycle).map(|number| spread(number, cycle)).collect();
            sizes.sort_unstable();
            assert_eq!(sizes, (0..cycle).collect::<Vec<u64>>());
            assert_eq!(spread(cycle + 3, cycle), spread(3, cycle));
        }
        let mut few: Vec<u64> = (0..20).map(|number| spread(number, 317)).collect();
        few.sort_unstable();
        assert!(few.windows(2).all(|pair| pair[1] - pair[0] < 317 / 6), "{few:?}");
    }
}
