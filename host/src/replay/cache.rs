//! Engines, and the modules that were compiled last: a test runs the same module under many schedules.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use wasmtime::{Engine, Module, Result};

use crate::engine::{Settings, engine};

/// Bytes of wasm stack.
pub(super) const STACK: usize = 16 << 20;
/// How often epochs pass.
pub(super) const TICK: Duration = Duration::from_millis(50);

const KEPT: usize = 6;

/// The engine for these needs; there is one of each.
pub(super) fn shared_engine(optimize: bool, fuel: bool) -> Result<Engine> {
    static ENGINES: Mutex<Vec<(bool, bool, Engine)>> = Mutex::new(Vec::new());
    let mut engines = ENGINES.lock().expect("no panic while engines are locked");
    if let Some((.., engine)) = engines.iter().find(|entry| (entry.0, entry.1) == (optimize, fuel)) {
        return Ok(engine.clone());
    }
    let engine = engine(Settings { optimize, fuel, epochs: true, stack: STACK })?;
    let ticking = engine.clone();
    std::thread::Builder::new().name("epochs".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(TICK);
            ticking.increment_epoch();
        }
    })?;
    engines.push((optimize, fuel, engine.clone()));
    Ok(engine)
}

/// Compiles a module, or finds it among the last ones.
pub(super) fn compile(engine: &Engine, wasm: &[u8]) -> Result<Module> {
    static MODULES: LazyLock<Mutex<Vec<(u64, Module)>>> = LazyLock::new(Mutex::default);
    let lock = || MODULES.lock().expect("no panic while modules are locked");
    let mut hasher = DefaultHasher::new();
    wasm.hash(&mut hasher);
    let key = hasher.finish();
    let same = |(found, module): &&(u64, Module)| *found == key && Engine::same(module.engine(), engine);
    if let Some((_, module)) = lock().iter().find(same) {
        return Ok(module.clone());
    }
    let module = Module::new(engine, wasm)?;
    let mut modules = lock();
    if modules.len() >= KEPT {
        modules.remove(0);
    }
    modules.push((key, module.clone()));
    Ok(module)
}
