//! Why a module cannot be instrumented. Each message says what was found, where, and what to do.

use thiserror::Error;

use crate::verify::violation::Violation;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("unknown option --pass-arg={argument}{meant} The options are {known}")]
    UnknownOption { argument: String, meant: String, known: String },
    #[error("--pass-arg={argument}: {problem}")]
    BadOption { argument: String, problem: String },
    #[error("this module is already instrumented (it has a custom section \"{0}\"): instrument the original instead")]
    AlreadyInstrumented(&'static str),
    #[error(
        "this module has the resume functions of another (it imports from \"{0}\"): instrument the program's own module, before \
         the pass splits it"
    )]
    ResumeModule(&'static str),
    #[error("the module has an export \"{0}\", a name that hosts drive forks by: rename that export")]
    ExportTaken(String),
    #[error(
        "the module has no memory to save frames in: link it with a memory, or give the frames one of their own with \
         --pass-arg=fork-instrument-in-secondary-memory"
    )]
    NoMemory,
    #[error(
        "the module imports no memory, and frames are in the main module's, which side modules import: passes in front of \
         --fork-instrument can have removed the import if the program has no use for it: put them behind, or declare it again"
    )]
    NoSharedMemory,
    #[error(
        "the module has several memories ({0}): name the one that holds the frames with \
         --pass-arg=fork-instrument-memory@NAME"
    )]
    SeveralMemories(String),
    #[error("--pass-arg=fork-instrument-memory@{0}: there is no such memory; the memories are {1}")]
    UnknownMemory(String, String),
    #[error(
        "an additional memory for the frames needs the feature multi-memory in a module that has a memory: pass \
         --enable-multimemory if the engine has it"
    )]
    NoMultiMemory,
    #[error(
        "sharing the resume table needs the feature reference-types: pass --enable-reference-types if the engine has it"
    )]
    NoReferenceTypes,
    #[error(
        "the global {0} holds several values, which only Binaryen's text has: put --roundtrip in front of --fork-instrument, which makes \
         a global of each"
    )]
    TupleGlobal(String),
    #[error("the entry {0} is imported as a {1}, not as a function: check --pass-arg=fork-instrument-entry")]
    EntryNotAFunction(String, String),
    #[error(
        "the start function {0} can reach the fork import: a fork cannot happen while the module is being \
         instantiated. Export the function and let the host call it, or take it off the fork path with \
         --pass-arg=fork-instrument-removelist@{0}"
    )]
    StartForks(String),
    #[error(
        "the start function is the entry {0}: a fork cannot happen while the module is being instantiated. Let an exported function \
         call it, or check --pass-arg=fork-instrument-entry"
    )]
    StartIsEntry(String),
    #[error(
        "function {function} switches to another stack, at {call}: a fork can save the stack that it is on, and no other. \
         Instrument a build of the program without stack switching"
    )]
    SeveralStacks { function: String, call: String },
    #[error(
        "function {function} calls {call}, which Binaryen makes another call of later: let it do so before, with --intrinsic-lowering \
         in front of --fork-instrument"
    )]
    Intrinsic { function: String, call: &'static str },
    #[error(
        "function {function}: {local} of type {type_} is live across the call {call} and cannot be saved in memory: \
         {remedy}, or keep such references in tables with --pass-arg=fork-instrument-refs@tables"
    )]
    ReferenceAcrossLanding { function: String, local: String, type_: String, call: String, remedy: &'static str },
    #[error(
        "function {function}: {local} of type {type_} is live across the call {call}, and such references can be saved \
         neither in memory nor in tables: {remedy}, or take the function off the fork path with \
         --pass-arg=fork-instrument-removelist@{function}"
    )]
    UnkeepableAcrossLanding { function: String, local: String, type_: String, call: String, remedy: &'static str },
    #[error(
        "function {function} returns {type_}, to which nothing can be cast, so that no resume function can return it: take the \
         function off the fork path with --pass-arg=fork-instrument-removelist@{function}"
    )]
    ResultBeyondCasts { function: String, type_: String },
    #[error(
        "function {function} returns {type_}, which has no default value to return while it is unwound: make the result \
         nullable, or take the function off the fork path with --pass-arg=fork-instrument-removelist@{function}"
    )]
    ResultWithoutDefault { function: String, type_: String },
    #[error(
        "function {function}: a landing in a catch body of legacy exception handling, at the call {call}: such a module is \
         translated to modern exception handling, which needs --enable-multivalue and --enable-reference-types"
    )]
    LandingInLegacyCatch { function: String, call: String },
    #[error(
        "the mutable global {0} holds a reference, which memory cannot: nothing may write it, or import it from the host, or keep \
         such references in tables with --pass-arg=fork-instrument-refs@tables, for a host that carries these over"
    )]
    ReferenceGlobal(String),
    #[error(
        "the mutable global {0} holds a reference that can be kept neither in memory nor in tables: nothing may write it, or import \
         it from the host"
    )]
    UnkeepableGlobal(String),
    #[error(
        "the global {0} holds an object that the program changes, or compares with others that a child gets copies of, and \
         memory cannot hold it: keep such objects in tables with --pass-arg=fork-instrument-refs@tables, for a host that \
         carries these over"
    )]
    ObjectInGlobal(String),
    #[error(
        "the global {0} holds an object that the program changes, or compares with others that a child gets copies of, and \
         it cannot get another one, because it is exported: leave out the export, or make the global mutable"
    )]
    FixedObjectInGlobal(String),
    #[error(
        "the element segment {0} holds an object that the program changes, or compares with others that a child gets copies \
         of, and nothing but a fresh instance fills a passive segment: make the object in a function, or let the segment be \
         an active one of a table"
    )]
    ObjectInSegment(String),
    #[error(
        "the resume functions cannot be in a module of their own: that needs a table to meet in, and this module has an \
         imported table and no reference types. Enable reference types, or leave out --pass-arg=fork-instrument-resume"
    )]
    NoTableForSeparate,
    #[error(
        "{0} needs mutable globals in exports and imports: pass --enable-mutable-globals if the engine has it, or leave out \
         that option"
    )]
    NoMutableGlobals(&'static str),
    #[error(
        "function {function} has {count} calls in which it can be suspended, and frames can tell {most} apart: split it, compile it \
         with less inlining, or take it off the fork path with --pass-arg=fork-instrument-removelist@{function}"
    )]
    TooManyLandings { function: String, count: usize, most: usize },
    #[error(
        "the module has {count} functions that can be suspended, and without reference types {most} can be told apart: pass \
         --enable-reference-types if the engine has it"
    )]
    TooManyFunctions { count: usize, most: usize },
    #[error(
        "--closed-world says that no other module has types and functions of this one, but with {0} another has: run the passes that \
         want it before, by a command of their own, or leave out that option"
    )]
    ClosedWorld(&'static str),
    #[error(
        "--closed-world says that no other module has types and functions of {0}, but it was made to be linked with another, \
         which has: leave that option out, or optimise with it before --fork-instrument"
    )]
    ClosedWorldAfterwards(String),
    #[error(
        "--{pass} comes later, and would change the first module only, not {second}, which the resume functions are in by then: put \
         {earlier} before --fork-instrument, or run it on both files by commands of their own if it can be run on them one by one"
    )]
    LaterPass { pass: String, second: String, earlier: &'static str },
    #[error(
        "--{pass} comes later, and would break forks: it changes the stack pointer, its limits or memories behind the back of \
         what saves and resumes. Put {earlier} before --fork-instrument"
    )]
    LaterPassOfProgram { pass: String, earlier: &'static str },
    #[error(
        "{output} is instrumented, and --{pass} would break its forks: it changes the stack pointer, its limits or memories behind \
         the back of what saves and resumes. Use it on the program before --fork-instrument"
    )]
    PassAfterwards { pass: String, output: String },
    #[error("the option is given twice: the second would instrument what the first has made. Leave one out")]
    PassTwice,
    #[error(
        "--pass-arg=fork-instrument-resume@{0}: the command line names that file elsewhere, too, and the resume functions would \
         take its place: choose another one"
    )]
    ResumeFileTaken(String),
    #[error(
        "this is an object file, for a linker: it has relocations, which would no longer fit. Instrument the program that the linker \
         makes of it"
    )]
    ObjectFile,
    #[error("the output is not what was planned ({0}): this is a defect of the pass, please report it with the module")]
    Violation(Box<Violation>),
    #[error("{0}")]
    Binaryen(String),
}
