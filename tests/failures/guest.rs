//! A host of one instrumented module, that forks when the test says so.

use fork_host::protocol::{Buffer, ForkExports, ForkState, copy_memory, link_resume};
use wasmtime::{Caller, Config, Engine, Instance, Linker, Memory, Module, Result, Store, bail};

use crate::support::{ALL, Scratch};

/// What `fork` returns when it fails.
pub const FAILED: i32 = -1;
/// What the import returns while the stack unwinds: nobody may use it.
const ANYTHING: i32 = 0x5eed;

/// What the host knows.
#[derive(Clone)]
pub struct Host {
    exports: Option<ForkExports>,
    memory: Option<Memory>,
    pub buffer: Buffer,
    /// Whether calls of the entry fork.
    pub forks: bool,
    /// Where to try again when frames do not fit.
    pub larger: Option<Buffer>,
    /// What `fork` returns when it was made, or not wanted.
    pub answer: i32,
    /// Forks that failed.
    pub failures: u64,
    /// Somebody changes the buffer: the entry may be reached again with other arguments.
    pub tolerant: bool,
    argument: i32,
}

impl Default for Host {
    fn default() -> Self {
        Host {
            exports: None,
            memory: None,
            buffer: Buffer { address: 0, size: 0, wide: false },
            forks: false,
            larger: None,
            answer: 0,
            failures: 0,
            tolerant: false,
            argument: 0,
        }
    }
}

/// An instance of a program that exports `run`, from an i32 to an i64, and imports an entry from an i32 to an i32.
pub struct Guest {
    pub store: Store<Host>,
    pub instance: Instance,
    pub memory: Memory,
    pub exports: ForkExports,
    module: Module,
}

/// Instruments a program in text form.
pub fn instrument(wat: &str, options: &[&str]) -> Vec<u8> {
    let scratch = Scratch::with("in.wat", wat);
    let features = if options.iter().any(|o| o.starts_with("--enable")) { &[][..] } else { &ALL[..] };
    let base = ["in.wat", "--fork-instrument", "-o", "out.wasm"];
    scratch.run(&[features, &base, options].concat()).succeeded();
    scratch.read("out.wasm")
}

/// The same with the resume functions in a second module.
pub fn instrument_separately(wat: &str) -> [Vec<u8>; 2] {
    let scratch = Scratch::with("in.wat", wat);
    let options = ["in.wat", "--fork-instrument", "--pass-arg=fork-instrument-resume@second.wasm", "-o", "out.wasm"];
    scratch.run(&[&ALL[..], &options].concat()).succeeded();
    ["out.wasm", "second.wasm"].map(|file| scratch.read(file))
}

/// An engine with that much stack, on which code without end is interrupted.
pub fn engine(stack: usize) -> Engine {
    let mut config = Config::new();
    config.wasm_memory64(true).wasm_exceptions(true).wasm_gc(true).wasm_multi_memory(true);
    config.max_wasm_stack(stack).consume_fuel(true);
    Engine::new(&config).expect("these settings fit together")
}

/// More than any test needs.
const FUEL: u64 = 10_000_000_000;

impl Guest {
    pub fn new(engine: &Engine, wasm: &[u8]) -> Guest {
        let module = Module::new(engine, wasm).expect("the output is valid");
        Guest::instantiate(&module, Host::default())
    }

    fn instantiate(module: &Module, host: Host) -> Guest {
        let mut store = Store::new(module.engine(), host);
        store.set_fuel(FUEL).expect("the engine counts");
        let mut linker = Linker::new(module.engine());
        linker.func_wrap("kernel", "kernel_fork", fork).expect("a new name");
        let instance = linker.instantiate(&mut store, module).expect("it imports nothing else");
        let memory = instance.get_memory(&mut store, "memory").expect("exported");
        let exports = ForkExports::find(&mut store, &instance).expect("instrumented");
        store.data_mut().exports = Some(exports.clone());
        store.data_mut().memory = Some(memory);
        Guest { store, instance, memory, exports, module: module.clone() }
    }

    /// A program in two modules.
    pub fn of_two(engine: &Engine, [first, second]: [Vec<u8>; 2]) -> Guest {
        let mut guest = Guest::new(engine, &first);
        let second = Module::new(engine, second).expect("the second output is valid");
        link_resume(&mut guest.store, &guest.instance, &second).expect("they are a pair");
        guest
    }

    /// A fresh instance with the same memory.
    pub fn child(&self) -> Guest {
        let mut child = Guest::instantiate(&self.module, self.store.data().clone());
        copy_memory(self.memory, &self.store, child.memory, &mut child.store).expect("it can grow as far");
        child
    }

    pub fn state(&mut self) -> ForkState {
        self.exports.state(&mut self.store).expect("it cannot trap")
    }

    /// Calls `run` once; whatever it returns.
    pub fn call(&mut self, argument: i32) -> Result<i64> {
        let run = self.instance.get_typed_func::<i32, i64>(&mut self.store, "run")?;
        run.call(&mut self.store, argument)
    }

    /// Calls `run` over at most one fork, up to where it is unwound; `Some` if it has returned.
    pub fn unwind(&mut self, argument: i32) -> Option<i64> {
        let result = self.call(argument).expect("it neither traps nor throws");
        if self.state() == ForkState::Normal {
            return Some(result);
        }
        self.exports.unwind_end(&mut self.store).expect("it is unwinding");
        None
    }

    /// Rewinds what was unwound, and goes on. Forks no more.
    pub fn rewind(&mut self) -> Result<i64> {
        self.store.data_mut().forks = false;
        let buffer = self.store.data().buffer;
        self.exports.rewind_begin(&mut self.store, &buffer)?;
        self.call(0)
    }

    /// The whole life of a fork whose parent is followed: what `run` returns.
    pub fn fork_and_follow_parent(&mut self, argument: i32) -> i64 {
        self.store.data_mut().forks = true;
        match self.unwind(argument) {
            Some(result) => result,
            None => self.rewind().expect("it neither traps nor throws"),
        }
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        self.memory.write(&mut self.store, address as usize, bytes).expect("in the memory");
    }

    pub fn read(&self, address: u64, count: usize) -> Vec<u8> {
        self.memory.data(&self.store)[address as usize..][..count].to_vec()
    }
}

fn fork(mut caller: Caller<'_, Host>, argument: i32) -> Result<i32> {
    let (Some(exports), Some(memory)) = (caller.data().exports.clone(), caller.data().memory) else {
        bail!("a start function forks");
    };
    let state = exports.state(&mut caller)?;
    if state != ForkState::Normal && argument != caller.data().argument && !caller.data().tolerant {
        bail!("{state:?} with the argument {argument}, not {}", caller.data().argument);
    }
    match state {
        ForkState::Unwinding => bail!("called while unwinding"),
        ForkState::Rewinding => {
            exports.rewind_end(&mut caller)?;
            return Ok(caller.data().answer);
        }
        ForkState::Normal if !caller.data().forks => return Ok(caller.data().answer),
        ForkState::Normal => {}
        ForkState::Aborting => {
            exports.rewind_end(&mut caller)?;
            let Some(larger) = caller.data_mut().larger.take() else {
                caller.data_mut().failures += 1;
                return Ok(FAILED);
            };
            caller.data_mut().buffer = larger;
        }
    }
    caller.data_mut().argument = argument;
    let buffer = caller.data().buffer;
    if exports.arm(&mut caller, memory, &buffer)? {
        return Ok(ANYTHING);
    }
    if let Some(larger) = caller.data_mut().larger.take() {
        caller.data_mut().buffer = larger;
        if exports.arm(&mut caller, memory, &larger)? {
            return Ok(ANYTHING);
        }
    }
    caller.data_mut().failures += 1;
    Ok(FAILED)
}
