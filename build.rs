//! Compiles the C++ shim under `cpp/` with the flags that libbinaryen was built with.
//!
//! Binaryen's headers make each file take seconds, so objects are kept: a file is compiled again when it, a header that
//! it includes, or the compiler's command has changed. The compiler itself lists the headers (`-MMD`).

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::SystemTime;

const FILES: [&str; 13] = [
    "tree",
    "code",
    "analyses",
    "calls",
    "module",
    "names",
    "outlining",
    "references",
    "registration",
    "split",
    "state",
    "tool",
    "webs",
];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-changed=src/ir/ffi.rs");

    let build = configure(&root);
    let bridge = build.get_files().map(Path::to_path_buf);
    let sources: Vec<PathBuf> = bridge.chain(FILES.iter().map(|name| root.join(format!("cpp/{name}.cpp")))).collect();
    let units: Vec<Unit> = sources.into_iter().map(|source| Unit::new(source, &out, &build)).collect();
    compile_changed(&units);

    let mut archive = cc::Build::new();
    archive.cpp(true).objects(units.iter().map(|unit| &unit.object));
    archive.compile("fork_instrument_shim");
}

/// The flags; its only file is the one that cxx generates.
fn configure(root: &Path) -> cc::Build {
    let include = env::var("DEP_BINARYEN_INCLUDE").expect("binaryen-sys publishes its include directories");
    let flags = env::var("DEP_BINARYEN_CXXFLAGS").expect("binaryen-sys publishes its flags");
    let mut build = cxx_build::bridge("src/ir/ffi.rs");
    build.warnings(false).opt_level(1).debug(false);
    for flag in flags.split(' ') {
        build.flag(flag);
    }
    build.include(root);
    for (i, dir) in include.split(':').enumerate() {
        if i == 0 {
            build.include(dir);
        } else {
            // Third-party headers: no warnings.
            build.flag("-isystem").flag(dir);
        }
    }
    build
}

/// One file, and what its compilation writes.
struct Unit {
    source: PathBuf,
    object: PathBuf,
    /// The files that the object was made from, as a rule for make.
    headers: PathBuf,
    /// The command that it was made with; of the time when that began.
    stamp: PathBuf,
    command: Command,
}

impl Unit {
    fn new(source: PathBuf, out: &Path, build: &cc::Build) -> Unit {
        let name = source.file_name().expect("a source is a file").to_string_lossy().into_owned();
        let path = |suffix: &str| out.join(format!("{name}{suffix}"));
        let (object, headers, stamp) = (path(".o"), path(".d"), path(".command"));
        let mut command = build.get_compiler().to_command();
        command.arg("-MMD").arg("-MF").arg(&headers).arg("-c").arg(&source).arg("-o").arg(&object);
        Unit { source, object, headers, stamp, command }
    }

    /// Without the environment, which cargo changes from run to run.
    fn key(&self) -> String {
        format!("{:?} {:?}", self.command.get_program(), self.command.get_args())
    }

    fn is_current(&self) -> bool {
        let Some(begun) = modified(&self.stamp) else { return false };
        let Ok(rule) = fs::read_to_string(&self.headers) else { return false };
        fs::read_to_string(&self.stamp).is_ok_and(|key| key == self.key())
            && self.object.exists()
            && inputs(&rule).iter().all(|input| modified(input).is_some_and(|t| t < begun))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// The inputs of a rule for make: `object: source header \`, in which a space of a name is `\ `.
fn inputs(rule: &str) -> Vec<PathBuf> {
    let Some((_, list)) = rule.split_once(": ") else { return Vec::new() };
    let list = list.replace("\\\n", " ").replace("\\ ", "\0");
    list.split_whitespace().map(|name| PathBuf::from(name.replace('\0', " "))).collect()
}

/// Compiles what is not current, as many files at a time as cargo allows.
fn compile_changed(units: &[Unit]) {
    let jobs: usize = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let queue = Mutex::new(units.iter().filter(|unit| !unit.is_current()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no thread panicked").next();
                    let Some(unit) = next else { break };
                    compile(unit);
                }
            });
        }
    });
}

fn compile(unit: &Unit) {
    // An interrupted compilation leaves no stamp, and a file that changes meanwhile is newer than it.
    let _ = fs::remove_file(&unit.stamp);
    let begun = SystemTime::now();
    let mut command = Command::new(unit.command.get_program());
    command.args(unit.command.get_args());
    for (name, value) in unit.command.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let status = command.status().unwrap_or_else(|e| panic!("{:?} cannot be started: {e}", command.get_program()));
    assert!(status.success(), "{} does not compile", unit.source.display());
    write_stamp(unit, begun).unwrap_or_else(|e| panic!("{}: {e}", unit.stamp.display()));
}

fn write_stamp(unit: &Unit, begun: SystemTime) -> io::Result<()> {
    let mut stamp = File::create(&unit.stamp)?;
    stamp.write_all(unit.key().as_bytes())?;
    stamp.set_modified(begun)
}
