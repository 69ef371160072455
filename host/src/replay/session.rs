//! A run from its set-up to its outcome.

use std::sync::Arc;

use wasmtime::{
    AsContextMut, Error, ExternType, Module, Result, Store, ThrownException, Trap, Val, bail, error::Context as _,
    format_err,
};

use super::cache::{STACK, compile, shared_engine};
use super::imports::{Action, Exit, Spec, World, check_guard};
use super::machine::{Machine, globals, holes};
use super::outcome::{End, MemoryImage, Outcome};
use super::value::Value;
use super::{Limit, Replay};
use crate::engine::HOST_STACK;
use crate::expose;
use crate::protocol::{ForkState, has_references, has_tables_to_carry, is_instrumented};
use crate::wasi::{self, Source, Stdio};

/// Makes the run on a thread with a stack that is large enough.
pub(super) fn run(replay: &Replay<'_>) -> Result<Outcome> {
    let spec = Arc::new(prepare(replay)?);
    let mut wasi = wasi::State::new(Stdio::Capture, &replay.dirs)?;
    wasi.args = replay.program_args.clone();
    wasi.source = Source::Deterministic(0);
    let body = || match Machine::first(spec, wasi)? {
        Ok(mut machine) => drive(&mut machine),
        Err(mut failed) => {
            let end = end_of(&mut failed.store, &failed.error);
            Ok(finish(&mut failed.store, end, None))
        }
    };
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK + HOST_STACK);
        let thread = builder.spawn_scoped(scope, body)?;
        thread.join().map_err(|_| format_err!("the harness panicked"))?
    })
}

fn prepare(replay: &Replay<'_>) -> Result<Spec> {
    let engine = shared_engine(replay.optimize, matches!(replay.limit, Limit::Fuel(_)))?;
    let mut module = compile(&engine, replay.wasm).context("cannot compile the module")?;
    let carry = has_tables_to_carry(&module) || replay.carry && has_references(&module);
    if carry {
        let exposed = expose::functions_and_tags(replay.wasm)?;
        module = compile(&engine, &exposed).context("cannot compile the module")?;
    }
    let resume = replay.resume.map(|wasm| {
        let exposed = if carry { expose::functions_and_tags(wasm)? } else { wasm.to_vec() };
        compile(&engine, &exposed).context("cannot compile the resume module")
    });
    let is_func = |name: &&str| matches!(module.get_export(name), Some(ExternType::Func(_)));
    let root = match &replay.export {
        Some(name) => Some(name.as_str()).filter(is_func),
        None => ["run", "_start"].into_iter().find(is_func),
    };
    let root = root.ok_or_else(|| format_err!("the module exports no function to call"))?.to_owned();
    let calls_entry = module.imports().any(|import| {
        let is_func = matches!(import.ty(), ExternType::Func(_));
        is_func && replay.entries.iter().any(|entry| entry.matches(import.module(), import.name()))
    });
    // A module that cannot fork need not have been changed.
    let instrumented = replay.instrumented && (calls_entry || is_instrumented(&module));
    if instrumented && !is_instrumented(&module) {
        bail!("the module calls an entry import but exports no wpk_fork_state: it is not instrumented");
    }
    let (memory, wide) = choose_memory(&module, replay.memory.as_deref()).unzip();
    Ok(Spec {
        engine,
        resume: resume.transpose()?,
        instrumented,
        entries: replay.entries.clone(),
        root,
        args: replay.args.clone(),
        schedule: replay.schedule,
        memory,
        wide: wide.unwrap_or_default(),
        buffer: replay.buffer,
        buffer_cycle: replay.buffer_cycle,
        buffer_cycle_start: replay.buffer_cycle_start,
        reserve: replay.reserve,
        buffer_at: replay.buffer_at,
        on_abort: replay.on_abort,
        carry,
        limit: replay.limit,
        strict: replay.strict,
        trace_limit: replay.trace_limit,
        memory_limit: replay.memory_limit,
        module,
    })
}

/// The memory for the buffer: its name, and whether its pointers have 64 bits.
fn choose_memory(module: &Module, name: Option<&str>) -> Option<(String, bool)> {
    let exported = module.exports().map(|export| (export.name().to_owned(), export.ty()));
    let imported = module.imports().map(|import| (format!("{}.{}", import.module(), import.name()), import.ty()));
    let memories: Vec<_> = exported
        .chain(imported)
        .filter_map(|(name, ty)| match ty {
            ExternType::Memory(ty) if !ty.is_shared() => Some((name, ty.is_64())),
            _ => None,
        })
        .collect();
    match name {
        Some(name) => memories.into_iter().find(|(found, _)| found == name),
        None => memories.iter().find(|(found, _)| found == "memory").or(memories.first()).cloned(),
    }
}

/// Runs to the end, through all forks on the way.
fn drive(machine: &mut Machine) -> Result<Outcome> {
    let spec = machine.store.data().spec.clone();
    let mut second = None;
    loop {
        let end = call_root(machine)?;
        let Some(pending) = machine.store.data().journal.pending.clone() else {
            note_state(machine, &end)?;
            return Ok(finish(&mut machine.store, end, second));
        };
        let exports = machine.store.data().exports.clone().ok_or_else(|| format_err!("no fork exports"))?;
        let area = machine.store.data().journal.area.clone().ok_or_else(|| format_err!("no fork buffer"))?;
        let state = exports.state(&mut machine.store)?;
        if !matches!(end, End::Returned(_)) || state != ForkState::Unwinding {
            if !matches!(end, End::Stopped) {
                machine.store.data_mut().journal.fault(format!("the program ended while {state:?}"));
            }
            return Ok(finish(&mut machine.store, end, second));
        }
        exports.unwind_end(&mut machine.store)?;
        measure(&mut machine.store, &area)?;
        check_guard(&mut machine.store, &pending)?;
        machine.store.data_mut().journal.forks += 1;
        match pending.action {
            Action::Parent => {}
            Action::Child => drop(machine.fork()?),
            Action::Both => {
                let parent = machine.fork()?;
                begin_rewind(machine)?;
                second = Some(Box::new(drive(machine)?));
                *machine = parent;
            }
        }
        if spec.instrumented {
            begin_rewind(machine)?;
        }
    }
}

fn begin_rewind(machine: &mut Machine) -> Result<()> {
    let exports = machine.store.data().exports.clone().ok_or_else(|| format_err!("no fork exports"))?;
    let area = machine.store.data().journal.area.clone().ok_or_else(|| format_err!("no fork buffer"))?;
    exports.rewind_begin(&mut machine.store, &area.buffer).context("wpk_fork_rewind_begin")
}

/// A program that is done is in the normal state.
fn note_state(machine: &mut Machine, end: &End) -> Result<()> {
    if let (Some(exports), End::Returned(_)) = (machine.store.data().exports.clone(), end) {
        let state = exports.state(&mut machine.store)?;
        if state != ForkState::Normal {
            machine.store.data_mut().journal.fault(format!("the program returned while {state:?}"));
        }
    }
    Ok(())
}

/// Notes how much was saved.
fn measure(store: &mut Store<World>, area: &super::imports::Area) -> Result<()> {
    let Some(memory) = store.data().memory else { return Ok(()) };
    let next = area.buffer.next_frame(&*store, memory)?;
    let journal = &mut store.data_mut().journal;
    if next < area.buffer.data() || next > area.buffer.end() {
        journal.fault(format!("after unwinding the next frame goes to {next:#x}, which is outside the buffer"));
        return Ok(());
    }
    let bytes = next - area.buffer.data();
    let frames = &mut journal.frame_bytes;
    (frames.max, frames.total, frames.last) = (frames.max.max(bytes), frames.total + bytes, bytes);
    Ok(())
}

fn call_root(machine: &mut Machine) -> Result<End> {
    let spec = machine.store.data().spec.clone();
    let root = machine.instance.get_func(&mut machine.store, &spec.root);
    let root = root.ok_or_else(|| format_err!("no function {}", spec.root))?;
    let ty = root.ty(&machine.store);
    if ty.params().len() != spec.args.len() {
        bail!("{} takes {} arguments, not {}", spec.root, ty.params().len(), spec.args.len());
    }
    let args =
        spec.args.iter().zip(ty.params()).map(|(arg, ty)| {
            arg.to_val(&mut machine.store, &ty).ok_or_else(|| format_err!("{arg} cannot be an argument"))
        });
    let args = args.collect::<Result<Vec<_>>>()?;
    let mut results = vec![Val::I32(0); ty.results().len()];
    Ok(match root.call(&mut machine.store, &args, &mut results) {
        Ok(()) => End::Returned(results.iter().map(|val| Value::observe(&mut machine.store, val)).collect()),
        Err(error) => end_of(&mut machine.store, &error),
    })
}

fn end_of(store: &mut Store<World>, error: &Error) -> End {
    if let Some(Exit(code)) = error.downcast_ref() {
        return End::Exited(*code);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt | Trap::OutOfFuel) => return End::Stopped,
        Some(trap) => return End::Trapped(trap.to_string()),
        None => {}
    }
    if error.downcast_ref::<ThrownException>().is_some() {
        return End::Trapped(format!("uncaught exception {:?}", exception(store)));
    }
    End::Trapped(format!("error of the host: {}", error.root_cause()))
}

/// What an exception that nobody caught carries.
fn exception(store: &mut Store<World>) -> Vec<Value> {
    let Some(exception) = store.take_pending_exception() else { return Vec::new() };
    let Ok(fields) = exception.fields(&mut *store) else { return Vec::new() };
    let fields: Vec<Val> = fields.collect();
    fields.iter().map(|field| Value::observe(store.as_context_mut(), field)).collect()
}

fn finish(store: &mut Store<World>, end: End, second: Option<Box<Outcome>>) -> Outcome {
    let globals = globals(&mut *store);
    let observed = store.data().observed.memories.clone();
    let image = |(name, memory): (String, wasmtime::Memory)| {
        let holes = holes(store.data(), &name);
        let mut bytes = memory.data(&*store).to_vec();
        for hole in &holes {
            let length = bytes.len() as u64;
            bytes[hole.start.min(length) as usize..hole.end.min(length) as usize].fill(0);
        }
        MemoryImage { name, bytes, holes }
    };
    let memories = observed.into_iter().map(image).collect();
    let world = store.data_mut();
    let journal = std::mem::take(&mut world.journal);
    Outcome {
        end,
        trace: journal.trace,
        stdout: std::mem::take(&mut world.wasi.output),
        stderr: std::mem::take(&mut world.wasi.error),
        memories,
        globals,
        entry_calls: journal.entry_calls,
        forks: journal.forks,
        aborts: journal.aborts,
        frame_bytes: journal.frame_bytes,
        faults: journal.faults,
        buffer_moved: journal.buffer_moved,
        second,
    }
}
