//! `fork-run` as programs see it: each C program of `tests/processes/` does the same as instrumented wasm as it does
//! compiled for the system that the tests run on, which is what POSIX says.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use fork_host::run::{self, Options};
use support::{Scratch, in_repository};

/// Given to both, after the folder for files.
const ARGUMENTS: [&str; 3] = ["one", "with a space", ""];
const VARIABLES: [(&str, &str); 2] = [("TEST_EMPTY", ""), ("TEST_ONE", "1")];

/// What a program left behind: its status and its files.
type Traces = (i32, BTreeMap<String, String>);

fn files(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder of ours") {
        let entry = entry.expect("an entry");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read_to_string(entry.path()).expect("programs write text"));
        }
    }
}

fn traces(status: i32, folder: &Path) -> Traces {
    let mut found = BTreeMap::new();
    files(folder, "", &mut found);
    assert!(found.contains_key("out"), "the program printed nothing");
    (status, found)
}

fn native(scratch: &Scratch, source: &Path) -> Traces {
    let (program, folder) = (scratch.path("native"), scratch.path("native-files"));
    fs::create_dir(&folder).expect("a new folder");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-D_DEFAULT_SOURCE", "-I"]).arg(in_repository("examples")).arg("-o").arg(&program);
    support::Run::from(compiler.arg(source).output().expect("there is a C compiler")).succeeded();
    let mut command = Command::new(&program);
    command.arg(&folder).args(ARGUMENTS).env_clear().envs(VARIABLES);
    let status = command.status().expect("the program starts").code().expect("no signal ends it");
    traces(status, &folder)
}

/// The instrumented program; with `separate`, its resume functions are in a file of their own.
fn instrumented(scratch: &Scratch, source: &Path, level: &str, separate: bool) -> Traces {
    let folder = scratch.path("wasm-files");
    fs::create_dir(&folder).expect("a new folder");
    let mut compiler = Command::new(in_repository("scripts/build-wasm"));
    compiler.arg(level).args([scratch.path("in.wasm").as_path(), source, "--".as_ref(), "-I".as_ref()]);
    support::Run::from(compiler.arg(in_repository("examples")).output().expect("a script of ours")).succeeded();
    let features =
        ["--enable-bulk-memory", "--enable-bulk-memory-opt", "--enable-nontrapping-float-to-int", "--enable-sign-ext"];
    let mut arguments = ["--enable-reference-types", "--enable-mutable-globals", "--enable-multivalue"].to_vec();
    arguments.extend(features);
    arguments.extend(["in.wasm", level, "--fork-instrument", "-o", "out.wasm"]);
    if separate {
        arguments.push("--pass-arg=fork-instrument-resume@resume.wasm");
    }
    scratch.run(&arguments).succeeded();
    let strings = |strings: &[&str]| strings.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    let options = Options {
        args: [strings(&["program", "/files"]), strings(&ARGUMENTS)].concat(),
        env: VARIABLES.map(|(name, value)| format!("{name}={value}")).to_vec(),
        dirs: vec![(folder.display().to_string(), "/files".to_string())],
        resume: separate.then(|| scratch.path("resume.wasm")),
        ..Options::default()
    };
    let status = run::run(&scratch.read("out.wasm"), options).expect("the program runs");
    traces(status.shell_code().into(), &folder)
}

#[track_caller]
fn behaves_as_on_this_system(name: &str) {
    let source = in_repository(&format!("tests/processes/{name}.c"));
    let expected = native(&Scratch::new(), &source);
    for (level, separate) in [("-O0", false), ("-O2", false), ("-O2", true)] {
        let actual = instrumented(&Scratch::new(), &source, level, separate);
        assert_eq!(actual.1.get("out"), expected.1.get("out"), "{name} at {level}, separate: {separate}");
        assert!(actual == expected, "{name} at {level}, separate: {separate}: {actual:?}\nnative: {expected:?}");
    }
}

#[test]
fn descriptions_of_open_files_are_shared_and_descriptors_are_not() {
    behaves_as_on_this_system("descriptors");
}

#[test]
fn pipes_block_and_end_with_their_last_writer() {
    behaves_as_on_this_system("pipes");
}

#[test]
fn statuses_are_kept_zombies_reaped_and_orphans_adopted() {
    behaves_as_on_this_system("lifecycle");
}

#[test]
fn arguments_environment_clocks_and_random_bytes_are_there() {
    behaves_as_on_this_system("system");
}

/// An allocator without a bound of its own takes the page behind the first, which the host may have added, after a fork; both
/// sides of the next one read it.
const TAKES_ALL_MEMORY: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "kernel" "waitpid" (func $waitpid (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $check (param $answer i32)
    (loop $next
      (if (i32.ne (i32.load8_u (local.get $answer)) (i32.const 42)) (then (call $exit (i32.const 1))))
      (br_if $next (i32.lt_u (local.tee $answer (i32.add (local.get $answer) (i32.const 1))) (i32.const 131072)))))
  (func (export "_start") (local $child i32)
    (if (i32.eqz (call $fork)) (then (call $exit (i32.const 0))))
    (if (i32.lt_u (memory.size) (i32.const 2)) (then (drop (memory.grow (i32.const 1)))))
    (memory.fill (i32.const 65536) (i32.const 42) (i32.const 65536))
    (local.set $child (call $fork))
    (call $check (i32.const 65536))
    (if (i32.eqz (local.get $child)) (then (call $exit (i32.const 0))))
    (if (i32.ne (call $waitpid (local.get $child) (i32.const 8) (i32.const 0)) (local.get $child)) (then (call $exit (i32.const 2))))
    (call $exit (i32.load (i32.const 8)))))"#;

#[test]
fn what_a_program_has_where_the_host_put_the_buffer_is_kept() {
    let scratch = Scratch::with("in.wat", TAKES_ALL_MEMORY);
    scratch.run(&["in.wat", "--enable-bulk-memory-opt", "--fork-instrument", "-o", "out.wasm"]).succeeded();
    for buffer in [16, 64, 65_536, 1 << 20] {
        let options = Options { args: vec!["program".into()], buffer, ..Options::default() };
        let status = run::run(&scratch.read("out.wasm"), options).expect("the program runs");
        assert_eq!(status.shell_code(), 0, "a buffer of {buffer} bytes at first");
    }
}
