//! POSIX processes for an instrumented WASI command.
//!
//! A process is a store, an instance and a thread. `kernel_fork` unwinds the caller's stack; once the root
//! export has returned, the driver builds the child from a fresh instance with the caller's memory and open file
//! descriptions, rewinds both, and the import answers with the child's pid here and 0 there.

mod kernel;
mod process;

pub(crate) use kernel::unsigned;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use wasmtime::{Engine, ExternType, Module, Result, bail, error::Context as _, format_err};

use crate::engine::{Settings, engine};
use crate::expose;
use crate::process::{INIT, Pid, ProcessTable, Status};
use crate::protocol;
use crate::wasi;

/// What to run and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// `argv`, the program's name first.
    pub args: Vec<String>,
    /// The environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Directories to open: (host path, guest path).
    pub dirs: Vec<(String, String)>,
    /// The file of the module with the resume functions, binary or text: read and compiled at the first fork.
    pub resume: Option<PathBuf>,
    /// Bytes of the fork buffer at first; it grows when a stack does not fit.
    pub buffer: u64,
    /// Bytes of stack for a process's wasm code.
    pub stack: usize,
    /// Optimise compiled code.
    pub optimize: bool,
}

impl Default for Options {
    fn default() -> Self {
        let (args, env, dirs) = (Vec::new(), Vec::new(), Vec::new());
        Self { args, env, dirs, resume: None, buffer: 1 << 20, stack: 16 << 20, optimize: true }
    }
}

/// What all processes of a program share.
struct Kernel {
    engine: Engine,
    module: Module,
    /// The resume functions, once a process has forked.
    resume: OnceLock<Result<Option<Module>, String>>,
    table: ProcessTable,
    options: Options,
    /// Pointers have 64 bits.
    wide: bool,
    /// The name of the export that is the program's memory.
    memory: String,
    /// The same of the memory that the frames go to, and whether its pointers have 64 bits.
    frames: (String, bool),
    /// Children get what tables hold; all functions and tags are exported for it.
    carries: bool,
}

impl Kernel {
    /// The module of resume functions; none if the program has them itself.
    fn resume_module(&self) -> Result<Option<Module>> {
        let load = || -> Result<Option<Module>> {
            let Some(path) = &self.options.resume else {
                if protocol::needs_resume_module(&self.module) {
                    bail!("the program's resume functions are in a module of their own: pass it with --resume FILE");
                }
                return Ok(None);
            };
            let mut bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            if self.carries {
                bytes = expose::functions_and_tags(&bytes)?;
            }
            Module::new(&self.engine, bytes).with_context(|| format!("cannot compile {}", path.display())).map(Some)
        };
        let module = self.resume.get_or_init(|| load().map_err(|error| format!("{error:?}")));
        module.clone().map_err(|error| format_err!("{error}"))
    }
}

/// Runs a program until it and all its descendants have ended; the status of the first process.
///
/// `wasm` is a module in binary or text form. Standard input and output are those of the host.
pub fn run(wasm: &[u8], options: Options) -> Result<Status> {
    let settings = Settings { optimize: options.optimize, fuel: false, epochs: false, stack: options.stack };
    let engine = engine(settings)?;
    let mut module = Module::new(&engine, wasm)?;
    let carries = protocol::has_references(&module);
    if carries {
        module = Module::new(&engine, expose::functions_and_tags(wasm)?)?;
    }
    let Some((memory, wide)) = protocol::choose_memory(&module, "memory") else {
        bail!("the program exports no memory");
    };
    let frames =
        protocol::choose_memory(&module, protocol::FRAME_MEMORY).filter(|(name, _)| name == protocol::FRAME_MEMORY);
    let frames = frames.unwrap_or_else(|| (memory.clone(), wide));
    if !matches!(module.get_export("_start"), Some(ExternType::Func(_))) {
        bail!("the program exports no function _start");
    }
    kernel::check_imports(&module, wide)?;

    let mut wasi = wasi::State::new(wasi::Stdio::Inherit, &options.dirs)?;
    wasi.args = options.args.clone();
    wasi.env = options.env.clone();
    let table = ProcessTable::default();
    let resume = OnceLock::new();
    let kernel = Arc::new(Kernel { engine, module, resume, table, options, wide, memory, frames, carries });

    let pid: Pid = kernel.table.spawn(INIT);
    let first = process::Process::first(kernel.clone(), pid, wasi)?;
    let thread = first.start().context("cannot start a thread")?;
    let status = thread.join().map_err(|_| format_err!("the host panicked in process {pid}"))?;
    kernel.table.wait_for_all();
    Ok(status)
}
