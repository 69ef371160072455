//! Rewinds from corrupted buffers: frames lie in memory that the program itself can write.
//!
//! Allowed are traps and wrong results. Not allowed are hangs that the program does not have by itself, and anything that
//! reaches the host.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use fork_host::engine::{Settings, engine};
use fork_host::protocol::{Buffer, ForkExports, ForkState, copy_memory, grow_bytes};
use wasmtime::{
    AsContextMut, Engine, ExternType, Func, Instance, Memory, Module, Store, ThrownException, Trap, Val, ValType,
};

use crate::campaign::Campaign;
use crate::finding;
use crate::generate::{Limits, Source};
use crate::generated_case;
use crate::tool::{Ran, Tool};

const STACK: usize = 4 << 20;
const SIZE: u64 = 64 << 10;
/// After this time a run hangs: programs end by themselves in a fraction of it.
const PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);

/// What became of rewinds, by what is said about them.
pub type Ends = BTreeMap<String, u64>;

#[derive(Default)]
struct World {
    exports: Option<ForkExports>,
    memory: Option<Memory>,
    buffer: Option<Buffer>,
    /// Calls of the entry until the one that forks.
    until_fork: Option<u64>,
    calls: u64,
}

/// Corrupts the buffers of generated programs.
pub fn run(campaign: &Campaign, seeds: Range<u64>) -> Result<Ends> {
    let settings = Settings { optimize: false, fuel: false, epochs: true, stack: STACK };
    let engine = engine(settings).map_err(anyhow::Error::from)?;
    let ticking = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = ticking.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    });
    let next = AtomicU64::new(seeds.start);
    let ends = Mutex::new(Ends::new());
    let started = Instant::now();
    let work = || -> Result<()> {
        let tool = Tool::new(&campaign.tool)?;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || campaign.time.is_some_and(|time| started.elapsed() > time) {
                return Ok(());
            }
            let found = one(campaign, &tool, &engine, seed)?;
            let mut ends = ends.lock().map_err(|_| anyhow!("a thread panicked"))?;
            found.into_iter().for_each(|end| *ends.entry(end).or_default() += 1);
        }
    };
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().stack_size(4 * STACK).spawn_scoped(scope, work);
        let threads = (0..campaign.jobs.max(1)).map(start).collect::<Result<Vec<_>, _>>()?;
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a rewind panicked in the host"))?)
    })?;
    ends.into_inner().map_err(|_| anyhow!("a thread panicked"))
}

/// Forks one program at a few calls, and rewinds from some corruptions of each buffer.
fn one(campaign: &Campaign, tool: &Tool, engine: &Engine, seed: u64) -> Result<Vec<String>> {
    let (mut case, choices) = generated_case(seed, Limits::default());
    // Optimisers move globals, and the fuel must stay as it is.
    case.passes.retain(|pass| pass.contains("fork-instrument"));
    let args: Vec<String> = case.options.iter().chain(&case.passes).cloned().collect();
    let Ran::Done(wasm) = tool.run(&case.wasm, &args)? else { return Ok(vec!["refused".to_owned()]) };
    let module = Module::new(engine, &wasm).map_err(anyhow::Error::from)?;
    let wide = module.exports().any(|export| matches!(export.ty(), ExternType::Memory(memory) if memory.is_64()));
    let mut source = Source::from_seed(seed ^ 0xb0f);
    let mut ends = Vec::new();
    for _ in 0..3 {
        let at = u64::from(source.below(12));
        let (mut store, instance, memory, buffer) = instantiate(engine, &module, wide, Some(at))?;
        let exports = ForkExports::find(&mut store, &instance).map_err(anyhow::Error::from)?;
        _ = call(&mut store, &instance);
        if exports.state(&mut store).map_err(anyhow::Error::from)? != ForkState::Unwinding {
            ends.push("no fork".to_owned());
            continue;
        }
        exports.unwind_end(&mut store).map_err(anyhow::Error::from)?;
        let next = buffer.next_frame(&store, memory).map_err(anyhow::Error::from)?;
        for _ in 0..6 {
            let (mut child, instance, child_memory, buffer) = instantiate(engine, &module, wide, None)?;
            copy_memory(memory, &store, child_memory, &mut child).map_err(anyhow::Error::from)?;
            let changes = corrupt(&mut source, &mut child, child_memory, &buffer, next)?;
            let exports = ForkExports::find(&mut child, &instance).map_err(anyhow::Error::from)?;
            let end = match exports.rewind_begin(&mut child, &buffer) {
                Ok(()) => call(&mut child, &instance),
                Err(error) => Err(error),
            };
            let end = describe(end);
            if end.starts_with("finding") {
                let problem = format!("{end}, forked at call {at}, then {changes}");
                let name = format!("{}-{seed}", campaign.name);
                let folder = finding::save(&campaign.findings, &name, &case, &choices, &problem)?;
                println!("{problem}, seed {seed}\n  in {}", folder.display());
            }
            ends.push(end);
        }
    }
    Ok(ends)
}

fn describe(end: wasmtime::Result<()>) -> String {
    let Err(error) = end else { return "returned".to_owned() };
    if error.downcast_ref::<ThrownException>().is_some() {
        return "uncaught exception".to_owned();
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => format!("finding: still running after {PATIENCE:?}"),
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
    next: u64,
) -> Result<String> {
    // The first saved global is the fuel: with more of it the program itself would run longer.
    let first = buffer.data() + 4;
    let data = memory.data_mut(&mut store);
    let mut said = String::new();
    for _ in 0..source.range(1, 4) {
        // Now and then the pointer itself.
        let at = match source.one_in(12) || next <= first {
            true => buffer.address + u64::from(source.below(buffer.pointer_size() as u32)),
            false => next - 1 - u64::from(source.below((next - first) as u32)),
        };
        let byte = data.get_mut(at as usize).context("a buffer outside the memory")?;
        let new = if source.one_in(2) { *byte ^ 1 << source.below(8) } else { source.below(256) as u8 };
        said += &format!("byte {:#x}: {byte:#04x} to {new:#04x}; ", at - buffer.address);
        *byte = new;
    }
    Ok(said)
}

fn call(store: &mut Store<World>, instance: &Instance) -> wasmtime::Result<()> {
    store.set_epoch_deadline((PATIENCE.as_millis() / TICK.as_millis()) as u64);
    let run = instance.get_func(&mut *store, "run").ok_or_else(|| wasmtime::format_err!("no run"))?;
    let mut results = vec![Val::I32(0); run.ty(&*store).results().len()];
    run.call(store, &[], &mut results)
}

type Made = (Store<World>, Instance, Memory, Buffer);

fn instantiate(engine: &Engine, module: &Module, wide: bool, until_fork: Option<u64>) -> Result<Made> {
    let mut store = Store::new(engine, World { until_fork, ..World::default() });
    store.set_epoch_deadline(1 << 30);
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
                let (Some(exports), Some(memory), Some(buffer)) = (world.exports.clone(), world.memory, world.buffer)
                else {
                    return Ok(());
                };
                world.calls += 1;
                let forks = world.until_fork == Some(world.calls - 1);
                match exports.state(&mut caller)? {
                    ForkState::Normal if forks => exports.arm(&mut caller, memory, &buffer).map(drop),
                    ForkState::Normal => Ok(()),
                    ForkState::Unwinding => wasmtime::bail!("called while unwinding"),
                    ForkState::Rewinding | ForkState::Aborting => exports.rewind_end(&mut caller),
                }
            })
            .into(),
        );
    }
    let instance = Instance::new(&mut store, module, &imports).map_err(anyhow::Error::from)?;
    let memory = instance.get_memory(&mut store, "memory").context("no memory")?;
    let address = grow_bytes(&mut store, memory, SIZE).context("the memory cannot grow")?;
    let buffer = Buffer { address, size: SIZE, wide };
    let exports = ForkExports::find(&mut store, &instance).map_err(anyhow::Error::from)?;
    let world = store.data_mut();
    (world.exports, world.memory, world.buffer) = (Some(exports), Some(memory), Some(buffer));
    Ok((store, instance, memory, buffer))
}
