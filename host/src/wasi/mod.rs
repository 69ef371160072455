//! WASI preview 1, with descriptors that processes can share.
//!
//! Every function takes its arguments as unsigned integers, whatever the width of pointers, so that hosts bind
//! them to wasm32 and wasm64 alike and can put a call off until a fork is over. [`find`] gives a function by
//! name; [`Function::call`] does its work on a process's [`State`] and its memory.

mod descriptor;
mod guest;
mod path;
mod poll;
pub(crate) mod process;

use std::collections::HashMap;
use std::sync::LazyLock;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use wasmtime::{FuncType, Result, ValType, error::Context as _};

pub use guest::Guest;

use crate::descriptors::{Description, DescriptorTable, Directory, Object, Stream};
use crate::errno::Errno;

/// The module name of these imports.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// Where time and random bytes come from.
#[derive(Clone)]
pub enum Source {
    /// The system.
    System,
    /// A counter: each look at the clock is a millisecond later, random bytes are a function of the seed.
    Deterministic(u64),
}

/// A process's view of the system. A clone is what a forked child has: the same open file descriptions under
/// the same numbers.
#[derive(Clone)]
pub struct State {
    /// `argv`.
    pub args: Vec<String>,
    /// The environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Open descriptors.
    pub descriptors: DescriptorTable,
    /// Time and random bytes.
    pub source: Source,
    /// What was written to a captured standard output.
    pub output: Vec<u8>,
    /// What was written to a captured standard error.
    pub error: Vec<u8>,
}

/// What descriptors 0, 1 and 2 are at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stdio {
    /// The host's.
    Inherit,
    /// An empty input; output goes to [`State::output`] and [`State::error`].
    Capture,
}

impl State {
    /// A process with three standard descriptors, then the directories (host path, guest path) from 3 on.
    pub fn new(stdio: Stdio, dirs: &[(String, String)]) -> Result<Self> {
        let standard = match stdio {
            Stdio::Inherit => [Object::Stdin, Object::Stdio(Stream::Output), Object::Stdio(Stream::Error)],
            Stdio::Capture => [Object::Empty, Object::Captured(Stream::Output), Object::Captured(Stream::Error)],
        };
        let mut descriptors = DescriptorTable::default();
        let mut open = |object| descriptors.open(Description::new(object, 0)).expect("few descriptors");
        standard.into_iter().for_each(|object| _ = open(object));
        for (host, guest) in dirs {
            let dir = Dir::open_ambient_dir(host, ambient_authority())
                .with_context(|| format!("cannot open directory {host}"))?;
            open(Object::Directory(Directory { dir, preopen: Some(guest.clone()), listing: Default::default() }));
        }
        let (args, env) = (Vec::new(), Vec::new());
        Ok(Self { args, env, descriptors, source: Source::System, output: Vec::new(), error: Vec::new() })
    }
}

/// Why a function does not return success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It returns this error.
    Error(Errno),
    /// It ends the process with this exit code.
    Exit(u32),
    /// It kills the process with this signal.
    Signal(u8),
}

impl<E: Into<Errno>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Error(error.into())
    }
}

/// What a function works on.
pub struct Cx<'a> {
    /// The calling process's memory.
    pub memory: Guest<'a>,
    /// Its view of the system.
    pub state: &'a mut State,
}

type Body = fn(&mut Cx<'_>, &[u64]) -> Result<(), Stop>;

/// A function of WASI preview 1.
#[derive(Clone, Copy)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// A letter for each parameter: `i` i32, `l` i64, `p` pointer or size.
    pub params: &'static str,
    /// Whether it returns an error number; all but `proc_exit` do.
    pub returns: bool,
    body: Body,
}

impl Function {
    const fn new(name: &'static str, params: &'static str, body: Body) -> Self {
        Self { name, params, returns: true, body }
    }

    const fn without_result(name: &'static str, params: &'static str, body: Body) -> Self {
        Self { name, params, returns: false, body }
    }

    /// Does the work.
    pub fn call(&self, memory: &mut [u8], wide: bool, state: &mut State, args: &[u64]) -> Result<Errno, Stop> {
        match (self.body)(&mut Cx { memory: Guest::new(memory, wide), state }, args) {
            Ok(()) => Ok(Errno::SUCCESS),
            Err(Stop::Error(errno)) => Ok(errno),
            Err(stop) => Err(stop),
        }
    }

    /// Whether an import of this type means this function.
    pub fn has_type(&self, ty: &FuncType, wide: bool) -> bool {
        params_match(self.params, ty, wide)
            && ty.results().len() == usize::from(self.returns)
            && ty.results().all(|result| result.is_i32())
    }
}

/// Whether a function type takes what the letters of [`Function::params`] say.
pub fn params_match(letters: &str, ty: &FuncType, wide: bool) -> bool {
    let fits = |(letter, ty): (char, ValType)| match letter {
        'l' => ty.is_i64(),
        'p' if wide => ty.is_i64(),
        _ => ty.is_i32(),
    };
    letters.len() == ty.params().len() && letters.chars().zip(ty.params()).all(fits)
}

/// The function of that name.
pub fn find(name: &str) -> Option<Function> {
    static FUNCTIONS: LazyLock<HashMap<&str, Function>> = LazyLock::new(|| {
        [process::FUNCTIONS, descriptor::FUNCTIONS, path::FUNCTIONS, poll::FUNCTIONS]
            .into_iter()
            .flatten()
            .map(|function| (function.name, *function))
            .collect()
    });
    FUNCTIONS.get(name).copied()
}

/// `HOST[::GUEST]` as (host path, guest path).
pub fn parse_dir(dir: &str) -> (String, String) {
    let (host, guest) = dir.split_once("::").unwrap_or((dir, dir));
    (host.to_owned(), guest.to_owned())
}
