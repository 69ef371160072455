//! One process: its store, the loop that calls its root export, and `fork`.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use wasmtime::{
    AsContextMut, Caller, Error, Extern, Instance, Memory, Result, Store, Table, Trap, bail, error::Context as _,
    format_err,
};

use super::Kernel;
use super::kernel::{frame_memory, imports};
use crate::carry::Carrier;
use crate::engine::HOST_STACK;
use crate::errno::Errno;
use crate::process::{Pid, Status};
use crate::protocol::{self, Buffer, ForkExports, ForkState, copy_memory, grow_bytes, link_resume};
use crate::wasi;

/// How often the buffer grows for one fork before the fork fails.
const ATTEMPTS: u32 = 6;
/// By how much it grows each time.
const GROWTH: u64 = 4;

const SIGILL: u8 = 4;
const SIGABRT: u8 = 6;
const SIGFPE: u8 = 8;
const SIGSEGV: u8 = 11;

/// What a store knows of its process.
pub(super) struct Data {
    pub kernel: Arc<Kernel>,
    pub pid: Pid,
    pub wasi: wasi::State,
    /// Once the start function has run.
    pub instance: Option<Instance>,
    exports: Option<ForkExports>,
    /// Whether the resume functions are there.
    resumable: bool,
    /// These, if they are in a module of their own.
    resume: Option<Instance>,
    buffer: Option<Buffer>,
    /// What the program had where the buffer is, while frames are there: it may take all memory for its own.
    covered: Arc<[u8]>,
    /// Times that the buffer grew for the fork under way.
    attempts: u32,
    /// What `fork` returns when it is reached again.
    forked: i32,
    /// What the imports answered to the start function: recorded by the first process, read by the others.
    pub start_log: Vec<i32>,
    pub start_answers: std::vec::IntoIter<i32>,
}

/// The error that ends a process without a trap.
#[derive(Debug)]
pub(super) struct Ending(Status);

impl Ending {
    pub fn exit(code: u32) -> Error {
        Ending(Status::Exited(code)).into()
    }

    pub fn signal(signal: u8) -> Error {
        Ending(Status::Signaled(signal)).into()
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the process ended: {:?}", self.0)
    }
}

impl std::error::Error for Ending {}

/// A process that can be started.
pub(super) struct Process {
    store: Store<Data>,
    instance: Instance,
    /// What a child gets, in the order of the exports.
    memories: Vec<Memory>,
    tables: Vec<Table>,
}

impl Process {
    /// The first process of a program.
    pub fn first(kernel: Arc<Kernel>, pid: Pid, wasi: wasi::State) -> Result<Self> {
        Self::instantiate(kernel, pid, wasi, Vec::new())
    }

    fn instantiate(kernel: Arc<Kernel>, pid: Pid, wasi: wasi::State, start_log: Vec<i32>) -> Result<Self> {
        let data = Data {
            pid,
            wasi,
            instance: None,
            exports: None,
            resumable: false,
            resume: None,
            buffer: None,
            covered: Arc::default(),
            attempts: 0,
            forked: 0,
            start_answers: start_log.clone().into_iter(),
            start_log,
            kernel: kernel.clone(),
        };
        let mut store = Store::new(&kernel.engine, data);
        if let Some(name) = protocol::shared_memory(&kernel.module) {
            bail!("the memory {name} is shared, which this host does not support");
        }
        let imports = imports(&mut store)?;
        let instance = Instance::new(&mut store, &kernel.module, &imports)?;
        let names: Vec<String> = instance.exports(&mut store).map(|export| export.name().to_owned()).collect();
        let (mut memories, mut tables) = (Vec::new(), Vec::new());
        for name in names {
            match instance.get_export(&mut store, &name) {
                Some(Extern::Memory(memory)) => memories.push(memory),
                Some(Extern::Table(table)) if !protocol::is_resume_table(&name) => tables.push(table),
                _ => {}
            }
        }
        if protocol::is_instrumented(&kernel.module) {
            store.data_mut().exports = Some(ForkExports::find(&mut store, &instance)?);
        }
        store.data_mut().instance = Some(instance);
        store.data_mut().start_answers = Vec::new().into_iter();
        Ok(Self { store, instance, memories, tables })
    }

    /// Runs the process on a thread of its own.
    pub fn start(self) -> std::io::Result<JoinHandle<Status>> {
        let pid = self.store.data().pid;
        let stack = self.store.data().kernel.options.stack + HOST_STACK;
        thread::Builder::new().name(format!("process {pid}")).stack_size(stack).spawn(move || self.run())
    }

    fn run(mut self) -> Status {
        let pid = self.store.data().pid;
        let mut exit = ExitOnDrop { kernel: self.store.data().kernel.clone(), pid, status: Status::Signaled(SIGABRT) };
        exit.status = match self.call_root() {
            Ok(()) => Status::Exited(0),
            Err(error) => status_of(&error).unwrap_or_else(|signal| {
                eprintln!("process {pid} was killed by signal {signal}: {error:?}");
                Status::Signaled(signal)
            }),
        };
        // Descriptors are closed and memory is free before anybody can see that the process has ended.
        drop(self);
        exit.status
    }

    /// Calls the root export, again after each fork.
    fn call_root(&mut self) -> Result<()> {
        let root = self.instance.get_typed_func::<(), ()>(&mut self.store, "_start")?;
        loop {
            root.call(&mut self.store, ())?;
            let Some(exports) = self.store.data().exports.clone() else { return Ok(()) };
            match exports.state(&mut self.store)? {
                ForkState::Normal => return Ok(()),
                ForkState::Unwinding => {}
                state => bail!("the program returned while {state:?}"),
            }
            exports.unwind_end(&mut self.store)?;
            self.store.data_mut().forked = match self.spawn() {
                Ok(pid) => pid,
                Err(error) => {
                    eprintln!("cannot fork: {error:?}");
                    Errno::AGAIN.negative()
                }
            };
            self.rewind(&exports)?;
        }
    }

    fn rewind(&mut self, exports: &ForkExports) -> Result<()> {
        let buffer = self.store.data().buffer.ok_or_else(|| format_err!("rewinding without a buffer"))?;
        exports.rewind_begin(&mut self.store, &buffer)
    }

    /// Makes the child of an unwound process and starts it.
    fn spawn(&mut self) -> Result<Pid> {
        let kernel = self.store.data().kernel.clone();
        let (wasi, start_log) = (self.store.data().wasi.clone(), self.store.data().start_log.clone());
        // The pid comes last, so that there is nothing to undo if the child cannot be made.
        let mut child = Self::instantiate(kernel.clone(), 0, wasi, start_log)?;
        for (from, to) in self.memories.iter().zip(&child.memories) {
            copy_memory(*from, &self.store, *to, &mut child.store)?;
        }
        prepare_resume(&mut child.store)?;
        if kernel.carries {
            let mut instances = vec![(self.instance, child.instance)];
            instances.extend(self.store.data().resume.zip(child.store.data().resume));
            let mut carrier = Carrier::new(&mut self.store, &mut child.store, &instances);
            for (from, to) in self.tables.iter().zip(&child.tables) {
                carrier.copy_table(*from, *to).context("what a table holds cannot be given to a child")?;
            }
        }
        (child.store.data_mut().buffer, child.store.data_mut().covered) =
            (self.store.data().buffer, self.store.data().covered.clone());
        let exports = child.store.data().exports.clone().ok_or_else(|| format_err!("not instrumented"))?;
        child.rewind(&exports)?;
        let pid = kernel.table.spawn(self.store.data().pid);
        child.store.data_mut().pid = pid;
        if let Err(error) = child.start() {
            let parent = self.store.data().pid;
            kernel.table.exit(pid, Status::Signaled(SIGABRT));
            _ = kernel.table.wait(parent, pid, 0);
            return Err(error).context("cannot start a thread");
        }
        Ok(pid)
    }
}

/// Reports the end of a process even if its thread panics, or others would wait for it for ever.
struct ExitOnDrop {
    kernel: Arc<Kernel>,
    pid: Pid,
    status: Status,
}

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        self.kernel.table.exit(self.pid, self.status);
    }
}

/// How the process ended, or the signal that says what trap it was.
fn status_of(error: &Error) -> Result<Status, u8> {
    if let Some(Ending(status)) = error.downcast_ref() {
        return Ok(*status);
    }
    Err(match error.downcast_ref::<Trap>() {
        Some(Trap::IntegerDivisionByZero | Trap::IntegerOverflow | Trap::BadConversionToInteger) => SIGFPE,
        Some(Trap::MemoryOutOfBounds | Trap::StackOverflow) => SIGSEGV,
        Some(Trap::IndirectCallToNull | Trap::BadSignature | Trap::TableOutOfBounds) => SIGILL,
        _ => SIGABRT,
    })
}

/// The import `kernel_fork`, reached in any state.
pub(super) fn fork(caller: &mut Caller<'_, Data>) -> Result<i32> {
    let Some(exports) = caller.data().exports.clone() else {
        let reason = if caller.data().instance.is_some() {
            "the program is not instrumented: run wasm-opt --fork-instrument on it"
        } else {
            "the program is still in its start function"
        };
        eprintln!("cannot fork: {reason}");
        return Ok(Errno::NOSYS.negative());
    };
    match exports.state(&mut *caller)? {
        ForkState::Normal => {
            caller.data_mut().attempts = 0;
            unwind(caller, &exports)
        }
        ForkState::Rewinding => {
            exports.rewind_end(&mut *caller)?;
            uncover(caller)?;
            Ok(caller.data().forked)
        }
        ForkState::Aborting => {
            exports.rewind_end(&mut *caller)?;
            uncover(caller)?;
            if grow_buffer(caller)? { unwind(caller, &exports) } else { Ok(Errno::NOMEM.negative()) }
        }
        ForkState::Unwinding => bail!("fork was called while the stack unwinds"),
    }
}

fn unwind(caller: &mut Caller<'_, Data>, exports: &ForkExports) -> Result<i32> {
    if let Err(error) = prepare_resume(&mut *caller) {
        eprintln!("cannot fork: {error:?}");
        return Ok(Errno::AGAIN.negative());
    }
    let memory = frame_memory(caller)?;
    loop {
        if let Some(buffer) = caller.data().buffer {
            let range = buffer.address as usize..buffer.end() as usize;
            caller.data_mut().covered = memory.data(&*caller)[range].into();
            if exports.arm(&mut *caller, memory, &buffer)? {
                return Ok(0);
            }
            uncover(caller)?;
        }
        if !grow_buffer(caller)? {
            return Ok(Errno::NOMEM.negative());
        }
    }
}

/// Gives the program back what it had where the buffer is.
fn uncover(caller: &mut Caller<'_, Data>) -> Result<()> {
    let memory = frame_memory(caller)?;
    let covered = std::mem::take(&mut caller.data_mut().covered);
    if let Some(buffer) = caller.data().buffer {
        memory.write(&mut *caller, buffer.address as usize, &covered)?;
    }
    Ok(())
}

/// Takes a first or larger buffer from the end of the memory. An old buffer that ends there is extended, as
/// nothing outlives the fork in it. `false`: no more memory, or too many attempts.
fn grow_buffer(caller: &mut Caller<'_, Data>) -> Result<bool> {
    let memory = frame_memory(caller)?;
    let (old, first) = (caller.data().buffer, caller.data().kernel.options.buffer.max(16));
    if caller.data().attempts >= ATTEMPTS {
        return Ok(false);
    }
    caller.data_mut().attempts += u32::from(old.is_some());
    let wanted = old.map_or(first, |buffer| buffer.size.saturating_mul(GROWTH));
    let extended = old.filter(|buffer| buffer.end() == memory.data_size(&*caller) as u64);
    let Some(address) = grow_bytes(&mut *caller, memory, wanted - extended.map_or(0, |buffer| buffer.size)) else {
        return Ok(false);
    };
    let address = extended.map_or(address, |buffer| buffer.address);
    // The size asked for, not all of the pages, at first: small buffers are for tests of what happens then.
    let size = if old.is_none() { wanted } else { memory.data_size(&*caller) as u64 - address };
    caller.data_mut().buffer = Some(Buffer { address, size, wide: caller.data().kernel.frames.1 });
    Ok(true)
}

/// Instantiates the resume functions of an instance that has none yet.
fn prepare_resume(mut store: impl AsContextMut<Data = Data>) -> Result<()> {
    let mut store = store.as_context_mut();
    if store.data().resumable {
        return Ok(());
    }
    let instance = store.data().instance.ok_or_else(|| format_err!("fork in the start function"))?;
    let resume = store.data().kernel.resume_module()?;
    if let Some(module) = resume {
        let resume = link_resume(&mut store, &instance, &module)?;
        store.data_mut().resume = Some(resume);
    }
    store.data_mut().resumable = true;
    Ok(())
}
