//! Runs an original whose imports answer what they answered in another run.
//!
//! A fork that fails returns an error to the program. What the program does then is right if the original does the same
//! when its import returns the same error, without any fork.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail};
use fork_host::engine::{Settings, engine};
use fork_host::protocol::grow_bytes;
use fork_host::replay::{End, Event, Outcome, Value};
use wasmtime::{Engine, ExternType, Func, Instance, Module, Store, ThrownException, Trap, Val};

const STACK: usize = 16 << 20;
/// What the harness adds to the space of the buffer.
const GUARD: u64 = 4096;

struct Answers {
    events: Vec<Event>,
    next: usize,
}

/// How the original, answered as `outcome` was, differs from it. Only for modules that import functions alone.
pub fn differences(
    original: &[u8],
    root: &str,
    args: &[Value],
    reserve: u64,
    outcome: &Outcome,
) -> Result<Vec<String>> {
    // Answers beyond what was kept are not there to be given again.
    if outcome.trace.count as usize > outcome.trace.events.len() {
        return Ok(Vec::new());
    }
    let body = || run(original, root, args, reserve, outcome);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 * STACK).spawn_scoped(scope, body)?;
        thread.join().map_err(|_| anyhow!("the oracle panicked"))?
    })
}

fn shared_engine() -> Result<Engine> {
    static SHARED: Mutex<Option<Engine>> = Mutex::new(None);
    let mut shared = SHARED.lock().map_err(|_| anyhow!("an engine could not be made"))?;
    if let Some(engine) = &*shared {
        return Ok(engine.clone());
    }
    let made =
        engine(Settings { optimize: false, fuel: false, epochs: false, stack: STACK }).map_err(anyhow::Error::from)?;
    *shared = Some(made.clone());
    Ok(made)
}

fn run(original: &[u8], root: &str, args: &[Value], reserve: u64, outcome: &Outcome) -> Result<Vec<String>> {
    let engine = shared_engine()?;
    let module = Module::new(&engine, original)?;
    let answers = Arc::new(Mutex::new(Answers { events: outcome.trace.events.clone(), next: 0 }));
    let mut store = Store::new(&engine, ());
    let mut imports = Vec::new();
    for import in module.imports() {
        let ExternType::Func(ty) = import.ty() else { bail!("an import that is not a function") };
        let name = format!("{}.{}", import.module(), import.name());
        let answers = answers.clone();
        let func = Func::new(&mut store, ty, move |_, args, results| {
            let mut answers = answers.lock().map_err(|_| wasmtime::format_err!("a run failed"))?;
            let number = answers.next;
            answers.next += 1;
            let event = answers.events.get(number).cloned();
            let args: Vec<Value> = args.iter().map(value).collect();
            match event {
                Some(event) if *event.import == *name && event.args == args => {
                    results.iter_mut().zip(event.results).for_each(|(to, from)| *to = val(from));
                    Ok(())
                }
                event => wasmtime::bail!("event {number} is {event:?} instead of {name}({args:?})"),
            }
        });
        imports.push(func.into());
    }
    let instance = Instance::new(&mut store, &module, &imports)?;
    let memory = instance.get_memory(&mut store, "memory").context("no memory")?;
    grow_bytes(&mut store, memory, reserve + GUARD).context("the memory cannot grow")?;
    let root = instance.get_func(&mut store, root).context("no root")?;
    let mut results = vec![Val::I32(0); root.ty(&store).results().len()];
    let args: Vec<Val> = args.iter().copied().map(val).collect();
    let end = match root.call(&mut store, &args, &mut results) {
        Ok(()) => End::Returned(results.iter().map(value).collect()),
        Err(error) if error.downcast_ref::<ThrownException>().is_some() => {
            End::Trapped("uncaught exception".to_owned())
        }
        Err(error) => match error.downcast_ref::<Trap>() {
            Some(trap) => End::Trapped(trap.to_string()),
            None => return Ok(vec![error.root_cause().to_string()]),
        },
    };
    let mut found = outcome.faults.clone();
    let same = match (&end, &outcome.end) {
        (End::Trapped(_), End::Trapped(_)) => true,
        (a, b) => a == b,
    };
    if !same {
        found.push(format!("ended with {:?} instead of {end:?}", outcome.end));
    }
    let made = answers.lock().map_err(|_| anyhow!("a run failed"))?.next;
    if made as u64 != outcome.trace.count {
        found.push(format!("{} events instead of {made}", outcome.trace.count));
    }
    for image in outcome.memories.iter().filter(|image| image.name == "memory") {
        let hole = |at: usize| image.holes.iter().any(|hole| hole.contains(&(at as u64)));
        let pairs = memory.data(&store).iter().zip(&image.bytes).enumerate();
        if let Some((at, (a, b))) = pairs.into_iter().find(|(at, (a, b))| a != b && !hole(*at)) {
            found.push(format!("memory at {at:#x} is {b:#04x} instead of {a:#04x}"));
        }
    }
    for (name, theirs) in &outcome.globals {
        if let Some(global) = instance.get_global(&mut store, name) {
            let ours = value(&global.get(&mut store));
            if ours != *theirs {
                found.push(format!("global {name} is {theirs} instead of {ours}"));
            }
        }
    }
    Ok(found)
}

/// As the harness observes values: all NaNs are one.
fn value(val: &Val) -> Value {
    match val {
        Val::I32(number) => Value::I32(*number),
        Val::I64(number) => Value::I64(*number),
        Val::F32(bits) if f32::from_bits(*bits).is_nan() => Value::F32(f32::NAN.to_bits()),
        Val::F32(bits) => Value::F32(*bits),
        Val::F64(bits) if f64::from_bits(*bits).is_nan() => Value::F64(f64::NAN.to_bits()),
        Val::F64(bits) => Value::F64(*bits),
        Val::V128(bits) => Value::V128(bits.as_u128()),
        _ => Value::Null,
    }
}

fn val(value: Value) -> Val {
    match value {
        Value::I32(number) => Val::I32(number),
        Value::I64(number) => Val::I64(number),
        Value::F32(bits) => Val::F32(bits),
        Value::F64(bits) => Val::F64(bits),
        Value::V128(bits) => Val::V128(bits.into()),
        _ => Val::I32(0),
    }
}
