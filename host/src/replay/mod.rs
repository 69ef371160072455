//! Runs one module under a schedule of forks and records all that can be observed.
//!
//! An instrumented module is right if its original, run plainly, gives the same [`Outcome`] as the instrumented
//! one under every schedule. So the harness answers the entry imports (those at which the program can be forked)
//! as if there were no fork: call number *n* returns the same value whether the stack was unwound and rewound
//! in between or not, in the same instance or a fresh one.
//!
//! ```
//! use fork_host::replay::{Replay, Schedule};
//!
//! let original = br#"(module
//!     (import "kernel" "kernel_fork" (func $fork (result i32)))
//!     (memory (export "memory") 1)
//!     (func (export "run") (result i32) (call $fork)))"#;
//! # let instrumented = original;
//! let plain = Replay::new(original).run()?;
//! let forked = Replay { schedule: Schedule::Never, ..Replay::new(instrumented) }.run()?;
//! assert_eq!(plain.differences(&forked), Vec::<String>::new());
//! # Ok::<(), wasmtime::Error>(())
//! ```
//!
//! What the harness makes up, it makes up the same way in every run: results of unknown imports are functions of
//! their name, arguments and number of the call; functions of a module `throw` throw what the program has no tag for; clocks and random bytes come from a counter; imported memories,
//! tables, globals and tags have fitting types.
//!
//! What a fork copies: memories that are exported or imported, imported globals, and, with [`Replay::carry`] or where
//! the pass has exported some for it, exported and imported tables. What it does not: other memories and tables, and whether segments were dropped. A fresh
//! instance has these as its start left them.

mod answers;
mod cache;
mod imports;
mod machine;
mod outcome;
mod session;
mod value;

use std::time::Duration;

use wasmtime::Result;

pub use outcome::{End, Event, FrameBytes, MemoryImage, Outcome, Trace};
pub use value::Value;

/// The imports at which a program can be forked: a module and a name, in which `*` stands for anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Pattern of the module name.
    pub module: String,
    /// Pattern of the import's name.
    pub name: String,
}

impl Entry {
    /// `module.name`, split at the first full stop.
    pub fn parse(entry: &str) -> Self {
        let (module, name) = entry.split_once('.').unwrap_or((entry, "*"));
        Self { module: module.to_owned(), name: name.to_owned() }
    }

    /// Whether an import is meant.
    pub fn matches(&self, module: &str, name: &str) -> bool {
        glob(&self.module, module) && glob(&self.name, name)
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((prefix, rest)) => text.strip_prefix(prefix).is_some_and(|text| {
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|at| glob(rest, &text[at..]))
        }),
    }
}

/// At which calls of an entry import the program is forked, and which side is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Schedule {
    /// At none.
    Never,
    /// At each call; a fresh instance goes on and the old one is dropped.
    FollowChild,
    /// At each call; the same instance goes on.
    FollowParent,
    /// At the call of this number (from 0); both sides go on to the end, the child's is [`Outcome::second`].
    ForkAt(u64),
    /// At each call one of: no fork, follow the child, follow the parent.
    Random {
        /// The choices are a function of this and of the call's number.
        seed: u64,
    },
}

/// What to do when the frames do not fit in the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnAbort {
    /// Enlarge the buffer and unwind again, until it fits.
    Retry,
    /// Give the fork up and make the call as if none had been wanted: the outcome is that of [`Schedule::Never`].
    Perform,
    /// Give the fork up and return an error, as a host without memory does: ENOMEM from WASI functions, -48 (in
    /// every result of a number type) from others.
    ReturnError,
}

/// The fault of a run with [`OnAbort::Retry`] in which a fork did not fit in all the memory that there is.
pub const NO_LARGER_BUFFER: &str = "no memory for a larger buffer";

/// When to stop a run that does not end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Never.
    None,
    /// After this time, roughly.
    Time(Duration),
    /// After this much of wasmtime's fuel. An instrumented module needs more of it than its original.
    Fuel(u64),
}

/// A run to make. Start from [`Replay::new`] and change fields.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    /// The module, in binary or text form.
    pub wasm: &'a [u8],
    /// The module with its resume functions, if they are not inside.
    pub resume: Option<&'a [u8]>,
    /// Whether the module is expected to have the fork exports. If not, the schedule is ignored.
    pub instrumented: bool,
    /// The entry imports; by default `kernel.kernel_fork`.
    pub entries: Vec<Entry>,
    /// The export to call. By default `run`, or `_start` if there is no `run`.
    pub export: Option<String>,
    /// Its arguments.
    pub args: Vec<Value>,
    /// When to fork.
    pub schedule: Schedule,
    /// The exported memory that holds the buffer; by default `memory`, or else the first one exported, or else
    /// the first one imported.
    pub memory: Option<String>,
    /// Bytes in the buffer.
    pub buffer: u64,
    /// Another size at every fork: calls of an entry get buffers of all sizes below this one in turn, spread so that a few calls
    /// see small ones and large ones.
    pub buffer_cycle: Option<u64>,
    /// Where in that cycle the first call is.
    pub buffer_cycle_start: u64,
    /// Bytes that the memory grows by right after instantiation, in all runs alike so that programs see the same
    /// `memory.size`. The buffer is at their start, and grows into the rest.
    pub reserve: u64,
    /// Where the buffer is if the memory cannot grow, or if this is set and `reserve` is 0.
    pub buffer_at: Option<u64>,
    /// What to do when frames do not fit.
    pub on_abort: OnAbort,
    /// Give the child what the parent's tables and imported globals of references hold: its own functions for the
    /// parent's, copies of structs and arrays. For modules without such tables and globals this changes nothing;
    /// those with tables that the pass has exported for hosts get it in any case.
    pub carry: bool,
    /// When to stop.
    pub limit: Limit,
    /// Compile with optimisation; else compile fast.
    pub optimize: bool,
    /// Check at each fork that unwinding and rewinding changed nothing outside the buffer: exported and imported
    /// memories and exported globals.
    pub strict: bool,
    /// `argv` of WASI programs.
    pub program_args: Vec<String>,
    /// Directories of WASI programs: (host path, guest path).
    pub dirs: Vec<(String, String)>,
    /// How many events the trace keeps in full; beyond, it only hashes and counts them.
    pub trace_limit: usize,
    /// Bytes beyond which no memory grows, in the original and in the instrumented module alike.
    pub memory_limit: usize,
}

impl<'a> Replay<'a> {
    /// A plain run of `wasm`.
    pub fn new(wasm: &'a [u8]) -> Self {
        Self {
            wasm,
            resume: None,
            instrumented: false,
            entries: vec![Entry::parse("kernel.kernel_fork")],
            export: None,
            args: Vec::new(),
            schedule: Schedule::Never,
            memory: None,
            buffer: 1 << 20,
            buffer_cycle: None,
            buffer_cycle_start: 0,
            reserve: 1 << 20,
            buffer_at: None,
            on_abort: OnAbort::Retry,
            carry: false,
            limit: Limit::Time(Duration::from_secs(60)),
            optimize: false,
            strict: false,
            program_args: vec!["program".to_owned()],
            dirs: Vec::new(),
            trace_limit: 100_000,
            memory_limit: usize::MAX,
        }
    }

    /// A run of the instrumented module `wasm` under `schedule`.
    pub fn instrumented(wasm: &'a [u8], schedule: Schedule) -> Self {
        Self { instrumented: true, schedule, ..Self::new(wasm) }
    }

    /// Makes the run. Errors are those of the set-up (the module does not compile, has no fork exports…) and traps
    /// in the fork exports when no call of the program is under way; what the program does wrong is part of the
    /// outcome, and so are other breaches of the contract ([`Outcome::faults`]).
    pub fn run(&self) -> Result<Outcome> {
        session::run(self)
    }
}
