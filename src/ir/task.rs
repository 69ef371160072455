//! Calls from C++ into Rust: the pass itself, and work on single functions that Binaryen's threads share out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Mutex, OnceLock};

use super::ffi::bridge;
use super::{Module, Pass};

/// What runs when Binaryen runs the pass. The string is the pass's own argument (empty if none); an error is the text
/// of a fatal error.
pub type PassBody = fn(Pass<'_>, Module<'_>, &str) -> Result<(), String>;

static BODY: OnceLock<PassBody> = OnceLock::new();

/// Registers the pass with Binaryen under a name and a description for `--help`. Later calls change nothing.
pub fn register_pass(name: &str, description: &str, body: PassBody) {
    if BODY.set(body).is_ok() {
        bridge::register_pass(name, description);
    }
}

static AT_EXIT: OnceLock<fn() -> Result<(), String>> = OnceLock::new();

/// Registers what runs when Binaryen's tool ends the process after success. An error is printed, and the process then
/// ends with status 1.
pub fn at_successful_exit(finish: fn() -> Result<(), String>) {
    // Only the first counts.
    let _ = AT_EXIT.set(finish);
}

pub(super) fn finish_outputs() -> bool {
    let Some(finish) = AT_EXIT.get() else { return true };
    match catch_unwind(finish) {
        Ok(Ok(())) => true,
        Ok(Err(message)) => {
            eprintln!("Fatal: {message}");
            false
        }
        Err(panic) => {
            eprintln!("Fatal: internal error: {}", panic_text(panic));
            false
        }
    }
}

pub(super) fn run_pass(
    pass: Pin<&mut bridge::Pass>,
    module: Pin<&mut bridge::Module>,
    argument: &cxx::CxxString,
) -> String {
    let body = BODY.get().expect("Binaryen knows the pass only after register_pass");
    let argument = argument.to_string_lossy();
    let (pass, module) = (Pass::new(pass), Module::new(module));
    match catch_unwind(AssertUnwindSafe(|| body(pass, module, &argument))) {
        Ok(Ok(())) => String::new(),
        Ok(Err(message)) => message,
        Err(panic) => format!("fork-instrument: internal error: {}", panic_text(panic)),
    }
}

/// Work to do once for each index, on several threads.
pub struct FunctionTask<'a> {
    run: &'a (dyn Fn(usize) + Sync),
    panicked: Mutex<Option<String>>,
}

impl<'a> FunctionTask<'a> {
    pub(super) fn new(run: &'a (dyn Fn(usize) + Sync)) -> Self {
        FunctionTask { run, panicked: Mutex::new(None) }
    }

    /// The message of a panic in the work, if there was one.
    pub(super) fn panicked(self) -> Option<String> {
        self.panicked.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}

pub(super) fn run_function_task(task: &FunctionTask<'_>, index: usize) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (task.run)(index))) {
        *task.panicked.lock().unwrap_or_else(|e| e.into_inner()) = Some(panic_text(panic));
    }
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "unknown panic".into(), |text| text.to_string()),
    }
}
