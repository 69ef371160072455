//! Rewinds from corrupted buffers: frames lie in memory that the program itself can write.
//!
//! Allowed are traps and wrong results. Not allowed are hangs that the program does not have by itself, and anything that
//! reaches the host.
//!
//! A program whose counter lay in a frame may loop for as long as its code says, with what the counter is now. That is
//! told from a hang of the runtime by the state: once the entry is reached it is NORMAL, and only code of the program
//! is executed. Until then a rewind has fuel for all frames that fit into the memory, and whatever it does not get
//! done with that is a finding; from then on, the program has a little, so that it does not hold up the others.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use fork_host::engine::{Settings, engine};
use fork_host::protocol::{Buffer, ForkExports, ForkState, copy_memory, grow_bytes, link_resume};
use fork_host::replay::Value;
use wasmtime::{
    AsContextMut, Engine, ExternType, Func, Instance, Memory, Module, Store, StoreLimits, StoreLimitsBuilder,
    ThrownException, Trap, Val, ValType,
};

use crate::campaign::Made;
use crate::check::{Case, Verdict};
use crate::generate::{Exceptions, Limits, Source};
use crate::{generated_case, smith};

const STACK: usize = 4 << 20;
const SIZE: u64 = 64 << 10;
/// Operations until the entry is reached: some for every two bytes of a memory of some megabytes.
const REWIND_FUEL: u64 = 100_000_000;
/// Operations from then on.
const PROGRAM_FUEL: u64 = 1_000_000;
/// Where single operations take long, time ends a run: until the entry is reached, and from then on.
const REWIND_TICKS: u64 = 100;
const PROGRAM_TICKS: u64 = 10;
const TICK: Duration = Duration::from_millis(100);

#[derive(Default)]
struct World {
    exports: Option<ForkExports>,
    memory: Option<Memory>,
    buffer: Option<Buffer>,
    /// Calls of the entry until the one that forks.
    until_fork: Option<u64>,
    calls: u64,
    limits: StoreLimits,
}

/// What a program gets, however much it asks for: that a host has no limit is another matter.
const MEMORY: usize = 64 << 20;

/// The case of a seed.
pub fn case(seed: u64) -> Result<Made> {
    let made = match seed % 3 {
        0 => smith::case(seed)?,
        1 => Some(generated_case(seed, Limits::default())),
        _ => Some(generated_case(seed, Limits { exceptions: Exceptions::ByReference, ..Limits::default() })),
    };
    Ok(made.map(|(case, choices)| (Case { corrupts: true, ..case }, choices)))
}

/// Forks one program at a few calls, and rewinds from some corruptions of each buffer.
pub fn rewind_corrupted(case: &Case, wasm: &[u8], second: Option<&[u8]>) -> Result<Verdict> {
    let engine = shared_engine()?;
    let module = Module::new(&engine, wasm).map_err(anyhow::Error::from)?;
    let second = second.map(|wasm| Module::new(&engine, wasm)).transpose().map_err(anyhow::Error::from)?;
    let wide = module.exports().any(|export| matches!(export.ty(), ExternType::Memory(memory) if memory.is_64()));
    let program = Program { engine, module, second, wide };
    let mut source = Source::from_seed(case.seed ^ 0xb0f);
    let mut ends = Vec::new();
    for _ in 0..3 {
        let at = u64::from(source.below(12));
        let root = source.below(case.roots.len().max(1) as u32) as usize;
        let Some(root) = case.roots.get(root) else { break };
        let Ok((mut store, instance, memory, buffer)) = program.instantiate(Some(at)) else {
            ends.push("not instantiated".to_owned());
            continue;
        };
        let exports = ForkExports::find(&mut store, &instance).map_err(anyhow::Error::from)?;
        _ = call(&mut store, &instance, root);
        if exports.state(&mut store).map_err(anyhow::Error::from)? != ForkState::Unwinding {
            ends.push("no fork".to_owned());
            continue;
        }
        exports.unwind_end(&mut store).map_err(anyhow::Error::from)?;
        let next = buffer.next_frame(&store, memory).map_err(anyhow::Error::from)?;
        let saved = buffer.data()..next;
        for _ in 0..6 {
            let (mut child, instance, child_memory, buffer) = program.instantiate(None)?;
            copy_memory(memory, &store, child_memory, &mut child).map_err(anyhow::Error::from)?;
            let changes = corrupt(&mut source, &mut child, child_memory, &buffer, saved.clone())?;
            let exports = ForkExports::find(&mut child, &instance).map_err(anyhow::Error::from)?;
            let end = match exports.rewind_begin(&mut child, &buffer) {
                Ok(()) => call(&mut child, &instance, root),
                Err(error) => Err(error),
            };
            let end = describe(end);
            if end == STOPPED {
                refuel(&mut child, REWIND_FUEL, REWIND_TICKS)?;
                let state = exports.state(&mut child).map_err(anyhow::Error::from)?;
                if state != ForkState::Normal {
                    return Ok(Verdict::Finding(format!(
                        "still {state:?} after {REWIND_FUEL} operations: {:?} forked at call {at}, then {changes}",
                        root.0
                    )));
                }
            }
            ends.push(end);
        }
    }
    Ok(Verdict::Ends(ends))
}

fn shared_engine() -> Result<Engine> {
    static SHARED: Mutex<Option<Engine>> = Mutex::new(None);
    let mut shared = SHARED.lock().map_err(|_| anyhow!("an engine could not be made"))?;
    if let Some(engine) = &*shared {
        return Ok(engine.clone());
    }
    let settings = Settings { optimize: false, fuel: true, epochs: true, stack: STACK };
    let made = engine(settings).map_err(anyhow::Error::from)?;
    let ticking = made.clone();
    std::thread::spawn(move || {
        loop {
            ticking.increment_epoch();
            std::thread::sleep(TICK);
        }
    });
    *shared = Some(made.clone());
    Ok(made)
}

/// How a run ended that could have gone on.
const STOPPED: &str = "the program was stopped";

/// Lets a program go on for so long.
fn refuel(mut store: impl AsContextMut, fuel: u64, ticks: u64) -> wasmtime::Result<()> {
    let mut store = store.as_context_mut();
    store.set_epoch_deadline(ticks);
    store.set_fuel(fuel)
}

fn describe(end: wasmtime::Result<()>) -> String {
    let Err(error) = end else { return "returned".to_owned() };
    if error.downcast_ref::<ThrownException>().is_some() {
        return "uncaught exception".to_owned();
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt | Trap::OutOfFuel) => STOPPED.to_owned(),
        Some(trap) => trap.to_string(),
        None => format!("error: {}", error.root_cause()),
    }
}

/// Changes bytes of what was saved; says which.
fn corrupt(
    source: &mut Source,
    mut store: impl AsContextMut,
    memory: Memory,
    buffer: &Buffer,
    saved: Range<u64>,
) -> Result<String> {
    let data = memory.data_mut(&mut store);
    let mut said = String::new();
    for _ in 0..source.range(1, 4) {
        // Now and then the pointer itself.
        let at = match source.one_in(12) || saved.is_empty() {
            true => buffer.address + u64::from(source.below(buffer.pointer_size() as u32)),
            false => saved.end - 1 - u64::from(source.below((saved.end - saved.start) as u32)),
        };
        let byte = data.get_mut(at as usize).context("a buffer outside the memory")?;
        let new = if source.one_in(2) { *byte ^ 1 << source.below(8) } else { source.below(256) as u8 };
        said += &format!("byte {:#x}: {byte:#04x} to {new:#04x}; ", at - buffer.address);
        *byte = new;
    }
    Ok(said)
}

fn call(store: &mut Store<World>, instance: &Instance, root: &(String, Vec<Value>)) -> wasmtime::Result<()> {
    refuel(&mut *store, REWIND_FUEL, REWIND_TICKS)?;
    let run = instance.get_func(&mut *store, &root.0).ok_or_else(|| wasmtime::format_err!("no {}", root.0))?;
    let ty = run.ty(&*store);
    let args = root.1.iter().zip(ty.params());
    let args = args.map(|(arg, ty)| {
        arg.to_val(&mut *store, &ty).ok_or_else(|| wasmtime::format_err!("{arg} cannot be an argument"))
    });
    let args = args.collect::<wasmtime::Result<Vec<_>>>()?;
    let mut results = vec![Val::I32(0); ty.results().len()];
    run.call(store, &args, &mut results)
}

/// An instrumented program, compiled.
struct Program {
    engine: Engine,
    module: Module,
    second: Option<Module>,
    wide: bool,
}

type Started = (Store<World>, Instance, Memory, Buffer);

impl Program {
    fn instantiate(&self, until_fork: Option<u64>) -> Result<Started> {
        let Program { engine, module, second, wide } = self;
        let limits = StoreLimitsBuilder::new().memory_size(MEMORY).table_elements(100_000).build();
        let mut store = Store::new(engine, World { until_fork, limits, ..World::default() });
        store.limiter(|world| &mut world.limits);
        refuel(&mut store, REWIND_FUEL, REWIND_TICKS).map_err(anyhow::Error::from)?;
        let mut imports = Vec::new();
        for import in module.imports() {
            let ExternType::Func(ty) = import.ty() else { anyhow::bail!("an import that is not a function") };
            let entry = import.name() == "kernel_fork";
            let types: Arc<[ValType]> = ty.results().collect();
            imports.push(
                Func::new(&mut store, ty, move |mut caller, _, results| {
                    let number = caller.data().calls as i32;
                    for (result, ty) in results.iter_mut().zip(types.iter()) {
                        *result = match ty {
                            ValType::I64 => Val::I64(number.into()),
                            ValType::F32 => Val::F32((number as f32).to_bits()),
                            ValType::F64 => Val::F64(f64::from(number).to_bits()),
                            _ => Val::I32(number),
                        };
                    }
                    if !entry {
                        return Ok(());
                    }
                    let world = caller.data_mut();
                    let (Some(exports), Some(memory), Some(buffer)) =
                        (world.exports.clone(), world.memory, world.buffer)
                    else {
                        return Ok(());
                    };
                    world.calls += 1;
                    let forks = world.until_fork == Some(world.calls - 1);
                    match exports.state(&mut caller)? {
                        ForkState::Normal if forks => exports.arm(&mut caller, memory, &buffer).map(drop),
                        ForkState::Normal => Ok(()),
                        ForkState::Unwinding => wasmtime::bail!("called while unwinding"),
                        ForkState::Rewinding | ForkState::Aborting => {
                            exports.rewind_end(&mut caller)?;
                            refuel(caller, PROGRAM_FUEL, PROGRAM_TICKS)
                        }
                    }
                })
                .into(),
            );
        }
        let instance = Instance::new(&mut store, module, &imports).map_err(anyhow::Error::from)?;
        let memory = instance.get_memory(&mut store, "memory").context("no memory")?;
        let address = grow_bytes(&mut store, memory, SIZE).context("the memory cannot grow")?;
        let buffer = Buffer { address, size: SIZE, wide: *wide };
        let exports = ForkExports::find(&mut store, &instance).map_err(anyhow::Error::from)?;
        if let Some(second) = second {
            link_resume(&mut store, &instance, second).map_err(anyhow::Error::from)?;
        }
        let world = store.data_mut();
        (world.exports, world.memory, world.buffer) = (Some(exports), Some(memory), Some(buffer));
        Ok((store, instance, memory, buffer))
    }
}
