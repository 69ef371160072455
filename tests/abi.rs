//! The contract with hosts: as the sources state it, and as a module shows it.
//!
//! `snapshots/abi.snap` pins all of it, with the version that stands for it. The bytes of a buffer are those that a real
//! program finds after its fork.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fork_host::replay::{End, Replay, Schedule, Value};
use fork_instrument::abi::{self, BufferLayout, State};
use fork_instrument::frame::{self, FrameLayout};
use wasmparser::{Parser, Payload, Validator};

/// Two activations on the stack: one with a local of each type and several sites, in one that has one site.
const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "log" "i64" (func $log (param i64)))
  (memory (export "memory") POINTER 1)
  (global $narrow (mut i32) (i32.const 0x11121314))
  (global $constant i32 (i32.const 5))
  (global $wide (mut i64) (i64.const 0x2122232425262728))
  (func $inner (param $a i32) (param $b i64) (param $c f32) (param $d f64) (param $e v128) (param $dead i64)
    (drop (call $fork))
    (i64.store (POINTER.const 0) (i64x2.extract_lane 0 (local.get $e)))
    (f64.store (POINTER.const 0) (local.get $d))
    (f32.store (POINTER.const 0) (local.get $c))
    (i64.store (POINTER.const 0) (local.get $b))
    (i32.store (POINTER.const 0) (local.get $a))
    (if (i64.ne (local.get $dead) (i64.const 0)) (then (drop (call $fork)))))
  (func $resumed (result i32) (call $run) (i32.const 0))
  (table (export "table") 1 funcref)
  (elem (i32.const 0) $resumed)
  (func $run (export "run") (local $address POINTER)
    (local.set $address (POINTER.const 65536))
    (call $inner (i32.const 0x31323334) (i64.const 0x4142434445464748) (f32.const 1) (f64.const -2)
      (v128.const i64x2 0x5152535455565758 0x6162636465666768) (i64.const 0))
    (global.set $narrow (i32.const 0))
    (global.set $wide (i64.const 0))
    (loop $next
      (call $log (i64.load (local.get $address)))
      (local.set $address (POINTER.add (local.get $address) (POINTER.const 8)))
      (br_if $next (POINTER.lt_u (local.get $address) (POINTER.const 65664)))))
)"#;

fn instrumented(pointer: &str) -> Vec<u8> {
    // Several tests do this at the same time.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the scratch folder can be written");
    let [input, output] = ["abi.wat", "abi.wasm"].map(|name| folder.path().join(name));
    fs::write(&input, PROGRAM.replace("POINTER", pointer)).expect("the scratch folder can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasm-opt"));
    command.args(["-all", "--disable-compact-imports", "--fork-instrument"]).arg(&input).arg("-o").arg(&output);
    let done = command.output().expect("wasm-opt can be run");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    fs::read(&output).expect("wasm-opt wrote its output")
}

/// The exports of the contract with their types.
fn exports(wasm: &[u8]) -> Vec<String> {
    let types =
        Validator::new_with_features(wasmparser::WasmFeatures::all()).validate_all(wasm).expect("a valid module");
    let types = types.as_ref();
    let mut exports = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::ExportSection(section) = payload.expect("a readable module") else { continue };
        for export in section.into_iter().map(|export| export.expect("a readable export")) {
            if export.name.starts_with("wpk_") {
                let ty = types[types.core_function_at(export.index)].unwrap_func();
                exports.push(format!("{} {:?} -> {:?}", export.name, ty.params(), ty.results()));
            }
        }
    }
    exports.sort();
    exports
}

fn custom_section<'a>(wasm: &'a [u8], name: &str) -> Option<&'a [u8]> {
    Parser::new(0).parse_all(wasm).find_map(|payload| match payload.expect("a readable module") {
        Payload::CustomSection(section) if section.name() == name => Some(section.data()),
        _ => None,
    })
}

/// The first words of the buffer after a fork, as the program finds them.
fn buffer(wasm: &[u8]) -> Vec<u64> {
    let replay = Replay { buffer: 4096, reserve: 4096, ..Replay::instrumented(wasm, Schedule::FollowParent) };
    let outcome = replay.run().expect("the program runs");
    assert_eq!((&outcome.end, outcome.forks), (&End::Returned(Vec::new()), 1), "{:?}", outcome.faults);
    let events = outcome.trace.events.iter().filter(|event| &*event.import == "log.i64");
    let words = events.map(|event| match event.args[..] {
        [Value::I64(word)] => word as u64,
        _ => panic!("{event:?}"),
    });
    words.collect()
}

/// What the sources state.
fn constants() -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| writeln!(text, "{name}: {value}").expect("memory suffices");
    line("custom section", format!("{} = {:?}", abi::SECTION, abi::section_data()));
    for (name, value) in [
        ("unwind begin", abi::UNWIND_BEGIN),
        ("unwind end", abi::UNWIND_END),
        ("rewind begin", abi::REWIND_BEGIN),
        ("rewind end", abi::REWIND_END),
        ("state", abi::STATE),
        ("resume", abi::RESUME),
        ("resume with results", &abi::resume_export(&["i32", "f64"])),
        ("module of resume functions imports", abi::RESUME_MODULE),
        ("table that it fills", abi::RESUME_TABLE),
    ] {
        line(name, value.to_owned());
    }
    for state in State::ALL {
        line("state", format!("{state:?} = {}", state as u32));
    }
    for pointer in [4, 8] {
        let layout = BufferLayout { pointer };
        let at = format!("position {}, end {}, globals {}", layout.position(), layout.end(), layout.globals());
        line(&format!("buffer, pointers of {pointer} bytes"), at);
    }
    for functions in [1, 0xffff, 0x10000] {
        let bytes = FrameLayout::for_functions(functions).function_bytes;
        line(&format!("function number among {functions}"), format!("{bytes} bytes"));
    }
    line("sites of more than a byte", format!("from {} on", frame::WIDE_SITE));
    text
}

/// What modules show.
fn observed() -> String {
    let mut text = String::new();
    for pointer in ["i32", "i64"] {
        let wasm = instrumented(pointer);
        writeln!(text, "\nmemory of {pointer}").expect("memory suffices");
        exports(&wasm).iter().for_each(|export| writeln!(text, "  {export}").expect("memory suffices"));
        for (index, word) in buffer(&wasm).into_iter().enumerate() {
            let bytes = word.to_le_bytes().map(|byte| format!("{byte:02x}")).join(" ");
            writeln!(text, "  {:#04x}: {bytes}", 8 * index).expect("memory suffices");
        }
    }
    text
}

fn snapshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots")
}

#[test]
fn the_contract_changes_only_with_its_version() {
    let version = format!("version: {}", abi::VERSION);
    let text = format!("{version}\n{}{}", constants(), observed());
    let pinned = fs::read_to_string(snapshots().join("abi.snap")).unwrap_or_default();
    // After the metadata, which ends with a line of its own.
    let pinned = pinned.splitn(3, "---\n").nth(2).unwrap_or_default();
    let changed = !pinned.is_empty() && pinned.trim_end() != text.trim_end();
    if changed && pinned.lines().next() == Some(&version) {
        let differs = text.lines().zip(pinned.lines()).find(|(now, then)| now != then);
        panic!(
            "the contract with hosts is not what snapshots/abi.snap says. If that is meant, raise VERSION in src/abi.rs, \
             describe the change in docs/abi.md, and accept the snapshot.\nfirst difference: {differs:?}\n{text}"
        );
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(snapshots());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("abi", text));
}

#[test]
fn modules_carry_the_version() {
    for pointer in ["i32", "i64"] {
        let wasm = instrumented(pointer);
        assert_eq!(custom_section(&wasm, "fork-instrument.abi"), Some(&abi::section_data()[..]));
    }
}

#[test]
fn transitions_take_pointers_of_the_memory() {
    for pointer in ["i32", "i64"] {
        let capitals = pointer.to_uppercase();
        let expected = [
            "wpk_fork_resume_i32 [] -> [I32]".to_owned(),
            format!("wpk_fork_rewind_begin [{capitals}] -> []"),
            "wpk_fork_rewind_end [] -> []".to_owned(),
            "wpk_fork_state [] -> [I32]".to_owned(),
            format!("wpk_fork_unwind_begin [{capitals}] -> []"),
            "wpk_fork_unwind_end [] -> []".to_owned(),
        ];
        assert_eq!(exports(&instrumented(pointer)), expected);
    }
}
