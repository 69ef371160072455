//! Runs the `wasm-opt` under test, and Binaryen's own, each test in a folder that vanishes with it.

#![allow(dead_code)] // Each test crate uses a part of it.

pub mod binary;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use tempfile::TempDir;

/// Every feature that engines take: what fixtures are written for.
pub const ALL: [&str; 3] = ["-all", "--disable-compact-imports", "--disable-custom-descriptors"];
/// Exports that drive forks, of every instrumented module.
pub const EXPORTS: [&str; 5] =
    ["wpk_fork_unwind_begin", "wpk_fork_unwind_end", "wpk_fork_rewind_begin", "wpk_fork_rewind_end", "wpk_fork_state"];

/// What a command did.
pub struct Run {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Run { status: output.status, stdout: output.stdout, stderr }
    }
}

impl Run {
    /// Panics unless the status is 0.
    #[track_caller]
    pub fn succeeded(self) -> Run {
        assert!(self.status.success(), "{}:\n{}", self.status, self.stderr);
        self
    }

    /// The message of a run that must have failed with status 1, and not by a signal.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!(self.status.code(), Some(1), "{}:\n{}", self.status, self.stderr);
        assert!(!self.stderr.trim().is_empty(), "status 1 without a message");
        self.stderr
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The lines of `verbose` that say why functions are on the fork path, without their prefix.
    pub fn fork_path(&self) -> Vec<&str> {
        self.verbose().filter(|line| !line.starts_with("operands of ")).collect()
    }

    /// The lines of `verbose` about operands, without their prefix.
    pub fn operands(&self) -> Vec<&str> {
        self.verbose().filter_map(|line| line.strip_prefix("operands of ")).collect()
    }

    fn verbose(&self) -> impl Iterator<Item = &str> {
        self.stderr.lines().filter_map(|line| line.strip_prefix("[fork-instrument] "))
    }

    pub fn warnings(&self) -> Vec<&str> {
        self.stderr.lines().filter_map(|line| line.strip_prefix("warning: --fork-instrument: ")).collect()
    }
}

/// A folder for one test; commands run in it, so that their arguments are plain file names.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(tempfile::tempdir().expect("a temporary folder"))
    }

    /// With one file in it.
    pub fn with(name: &str, contents: impl AsRef<[u8]>) -> Scratch {
        let scratch = Scratch::new();
        scratch.write(name, contents);
        scratch
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).expect("the temporary folder takes files");
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    #[track_caller]
    pub fn read_text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).expect("a text")
    }

    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The names of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the temporary folder is readable");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The `wasm-opt` under test.
    pub fn command(&self) -> Command {
        let mut command = Command::new(wasm_opt());
        command.current_dir(self.0.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        self.command().args(arguments).output().expect("wasm-opt starts").into()
    }

    /// Binaryen's own `wasm-opt`.
    pub fn reference(&self, arguments: &[&str]) -> Run {
        let node = node();
        let tool = deps().join(format!("binaryen-tools-{}/bin/wasm-opt", pinned("binaryen_version")));
        assert!(node.exists() && tool.exists(), "run scripts/fetch-test-tools node binaryen");
        let mut command = Command::new(node);
        command.current_dir(self.0.path()).arg(tool).args(arguments).output().expect("node starts").into()
    }
}

pub fn wasm_opt() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_wasm-opt"))
}

/// The pinned version of Node.
pub fn node() -> PathBuf {
    deps().join(format!("node-{}/bin/node", pinned("node_version")))
}

/// A file of the repository.
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
pub fn read_in_repository(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Where `scripts/fetch-test-tools` puts things.
fn deps() -> PathBuf {
    in_repository(&std::env::var("FORK_INSTRUMENT_DEPS").unwrap_or_else(|_| "third_party".into()))
}

/// A version that `scripts/lib.sh` pins.
fn pinned(variable: &str) -> String {
    let script = read_in_repository("scripts/lib.sh");
    let value = script.lines().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
    value.expect("scripts/lib.sh pins the versions").to_string()
}

/// Instruments `wat` with all features, and returns what `-S` prints.
#[track_caller]
pub fn instrumented_text(wat: &str, arguments: &[&str]) -> String {
    let scratch = Scratch::with("in.wat", wat);
    let all = [&ALL[..], &["in.wat", "-g", "--fork-instrument", "-S", "-o", "-"][..], arguments].concat();
    scratch.run(&all).succeeded().text()
}

/// The text of one function in a printed module.
#[track_caller]
pub fn function_text<'t>(module: &'t str, name: &str) -> &'t str {
    let head = format!("\n (func ${name} ");
    let start = module.find(&head).unwrap_or_else(|| panic!("there is no function {name} in\n{module}")) + 1;
    let length = module[start..].find("\n )").expect("functions end with a parenthesis");
    &module[start..start + length]
}
