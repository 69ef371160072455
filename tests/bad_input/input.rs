//! Modules that are wrong, or lie.

use std::fs;

use crate::support::Scratch;
use crate::support::binary::{self, custom, leb, list, section, sized, validate};
use crate::{CALL_FORK, binary_module, body, instrument, module_of, refused, refused_or_valid};

#[test]
fn an_empty_file_is_no_crash() {
    // Binaryen reads it as the text of an empty module.
    refused_or_valid(&Scratch::with("in.wasm", ""), "in.wasm");
}

#[test]
fn a_missing_file_is_named() {
    assert!(refused(&Scratch::new(), "nowhere.wasm").contains("nowhere.wasm"));
}

#[test]
fn a_folder_is_no_input() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("folder")).expect("a new folder");
    refused(&scratch, "folder");
}

#[test]
fn garbage_is_refused() {
    for garbage in [
        &b"int main() { return 0; }"[..],
        b"(module (func $f (drop (call $fork",
        b"(module (func) garbage)",
        b"\0",
        b"\0asm",
        b"\0asm\x02\0\0\0",
        b"\0asm\x0d\0\x01\0",
        b"\0asm\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff",
        b"\0asm\x01\0\0\0\x0a\xff\xff\xff\xff\x0f",
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        b"\xff\xfe(\0m\0o\0d\0u\0l\0e\0)\0",
    ] {
        refused(&Scratch::with("in.wasm", garbage), "in.wasm");
    }
}

#[test]
fn a_binary_that_ends_early_is_refused_or_valid() {
    let good = binary_module();
    let mut refusals = 0;
    for start in binary::section_starts(&good) {
        for cut in [start.saturating_sub(1), start, start + 1, start + 2, start + 3] {
            if cut < good.len() {
                let scratch = Scratch::with("in.wasm", &good[..cut]);
                refusals += usize::from(!refused_or_valid(&scratch, "in.wasm"));
            }
        }
    }
    assert!(refusals > 20, "only {refusals} of the broken modules were refused");
}

#[test]
fn a_binary_without_one_of_its_sections_is_refused_or_valid() {
    let good = binary_module();
    for range in binary::section_starts(&good).windows(2) {
        let without = [&good[..range[0]], &good[range[1]..]].concat();
        refused_or_valid(&Scratch::with("in.wasm", without), "in.wasm");
    }
}

#[test]
fn sections_twice_or_in_disorder_are_refused_or_valid() {
    let good = binary_module();
    let starts = binary::section_starts(&good);
    for range in starts.windows(2) {
        let again = [&good[..range[1]], &good[range[0]..]].concat();
        refused_or_valid(&Scratch::with("in.wasm", again), "in.wasm");
        let last = [&good[..range[0]], &good[range[1]..], &good[range[0]..range[1]]].concat();
        refused_or_valid(&Scratch::with("in.wasm", last), "in.wasm");
    }
}

#[test]
fn any_single_wrong_byte_is_refused_or_valid() {
    let good = binary_module();
    for at in 8..good.len() {
        let mut wrong = good.clone();
        wrong[at] = wrong[at].wrapping_add((at % 251) as u8 + 1);
        let scratch = Scratch::with("in.wasm", wrong);
        let run = instrument(&scratch, "in.wasm");
        assert!(matches!(run.status.code(), Some(0 | 1)), "byte {at}: {}:\n{}", run.status, run.stderr);
    }
}

/// A name section with names of functions.
fn function_names(names: &[(usize, &[u8])]) -> Vec<u8> {
    let names: Vec<Vec<u8>> = names.iter().map(|(i, name)| [leb(*i), sized(name)].concat()).collect();
    custom("name", &section(1, &list(&names)))
}

#[test]
fn names_of_imports_and_exports_that_are_not_utf_8_are_refused_or_kept() {
    let bodies = [body(&CALL_FORK)];
    for (import, export) in
        [(&b"kernel_\xff"[..], &b"run"[..]), (b"kernel_fork", b"\xff\xfe"), (b"\xc0\x80", b"\xed\xa0\x80")]
    {
        let scratch = Scratch::with("in.wasm", module_of(import, export, &bodies, &[]));
        let run = instrument(&scratch, "in.wasm");
        if run.status.success() {
            let output = scratch.read("out.wasm");
            for name in [import, export] {
                assert!(output.windows(name.len()).any(|w| w == name), "{name:?} became another name");
            }
        } else {
            run.refused();
        }
    }
}

#[test]
fn functions_whose_names_are_not_utf_8_are_not_mixed_up() {
    // The names differ in their invalid bytes only.
    let names = function_names(&[(0, b"fork"), (1, b"f\xff"), (2, b"f\xfe"), (3, b"f\xef\xbf\xbd")]);
    let bodies = [body(&[0x10, 2]), body(&CALL_FORK), body(&[0x01])];
    let scratch = Scratch::with("in.wasm", module_of(b"kernel_fork", b"run", &bodies, &names));
    let verbose = ["in.wasm", "-g", "--fork-instrument", "--pass-arg=fork-instrument-verbose", "-o", "out.wasm"];
    let run = scratch.run(&verbose);
    if run.status.success() {
        assert_eq!(run.fork_path().len(), 2, "{}", run.stderr);
        validate(&scratch.read("out.wasm"));
    } else {
        run.refused();
    }
}

#[test]
fn a_name_section_that_lies_is_refused_or_harmless() {
    let bodies = [body(&CALL_FORK), body(&[0x10, 1])];
    let local = |function: usize, local: usize| {
        let names = list(&[[leb(local), sized(b"x")].concat()]);
        custom("name", &section(2, &list(&[[leb(function), names].concat()])))
    };
    for lie in [
        // Indices of nothing.
        function_names(&[(0, b"fork"), (1, b"f"), (7, b"none"), (4_000_000_000, b"none")]),
        local(1, 4_000_000_000),
        local(99, 0),
        // The same name for all, and the same index with two names.
        function_names(&[(0, b"f"), (1, b"f"), (2, b"f")]),
        function_names(&[(1, b"f"), (1, b"g"), (0, b"h")]),
        // Names of ours.
        function_names(&[(0, b"fork.state"), (1, b"fork.resume"), (2, b"fork.push_header")]),
        function_names(&[(0, b"fork"), (1, b"f.resume"), (2, b"f")]),
        // No names, strange ones, and long ones.
        function_names(&[(0, b""), (1, b""), (2, b"")]),
        function_names(&[(1, b"a b)\"\\\n;"), (2, b"\0")]),
        function_names(&[(1, &vec![b'x'; 1 << 20]), (2, b"*")]),
        // Sizes beyond the section.
        custom("name", &[1, 0x7f, 1, 0]),
        custom("name", &[1, 3, 0xff, 0xff, 0x03]),
        custom("name", &[1, 4, 1, 0, 0x7f, b'f']),
        // Twice.
        [function_names(&[(1, b"f")]), function_names(&[(1, b"g"), (2, b"f")])].concat(),
    ] {
        let scratch = Scratch::with("in.wasm", module_of(b"kernel_fork", b"run", &bodies, &lie));
        refused_or_valid(&scratch, "in.wasm");
    }
}

#[test]
fn a_lying_section_of_ours_counts_as_instrumented() {
    for contents in [&b""[..], b"\x01", b"\xff\xff\xff\xff\xff\xff"] {
        let section = custom("fork-instrument.abi", contents);
        let scratch = Scratch::with("in.wasm", module_of(b"kernel_fork", b"run", &[body(&CALL_FORK)], &section));
        assert!(refused(&scratch, "in.wasm").contains("already instrumented"));
    }
}

#[test]
fn an_object_file_is_refused_and_a_program_with_relocations_is_not() {
    let entry = r#"(module (import "kernel" "kernel_fork" (func $fork (result i32))) MEMORY
        (func (export "run") (result i32) (call $fork) (call $fork) (i32.add)))"#;
    for (memory, is_object) in
        [(r#"(import "env" "__linear_memory" (memory 1))"#, true), (r#"(memory (export "memory") 1)"#, false)]
    {
        let scratch = Scratch::with("in.wat", entry.replace("MEMORY", memory));
        scratch.run(&["in.wat", "-o", "in.wasm"]).succeeded();
        let relocations = [custom("linking", b"\x02"), custom("reloc.CODE", b"\x03\x00")].concat();
        scratch.write("in.wasm", [scratch.read("in.wasm"), relocations].concat());
        let run = scratch.run(&["in.wasm", "--fork-instrument", "-o", "out.wasm"]);
        if is_object {
            assert!(run.refused().contains("Instrument the program that the linker makes of it"));
            assert!(!scratch.has("out.wasm"));
        } else {
            run.succeeded();
        }
    }
}

#[test]
fn features_that_are_switched_off_are_refused_by_binaryen() {
    for (flag, field) in [
        ("simd", "(func (result v128) (v128.const i64x2 0 0))"),
        ("tail-call", "(func $f (return_call $f))"),
        ("exception-handling", "(tag $e) (func (throw $e))"),
        ("reference-types", "(func (result externref) (ref.null extern))"),
        ("bulk-memory-opt", "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))"),
        ("threads", "(func (drop (i32.atomic.load (i32.const 0))))"),
        ("gc", "(type $s (struct)) (func (drop (struct.new $s)))"),
        ("memory64", "(memory $big i64 1)"),
    ] {
        let wat = format!(
            r#"(module (import "kernel" "kernel_fork" (func $fork)) (memory 1) (func (export "run") (call $fork)) {field})"#
        );
        let scratch = Scratch::with("in.wat", wat);
        let arguments = ["in.wat", "-all", &format!("--disable-{flag}"), "--fork-instrument", "-o", "out.wasm"];
        let run = scratch.run(&arguments);
        assert!(!run.status.success(), "{flag} is not needed");
        let message = run.refused();
        assert!(message.contains("validat") || message.contains("requires") || message.contains("error"), "{message}");
        assert!(!scratch.has("out.wasm"));
    }
}

#[test]
fn the_pass_needs_no_feature_that_the_module_does_not_have() {
    let wat = r#"(module (import "kernel" "kernel_fork" (func $fork (result i32))) (memory 1) (table 1 funcref)
        (elem (i32.const 0) $run)
        (func $run (export "run") (param $x i64) (result i64) (local $y f64)
          (local.set $y (f64.const 1))
          (drop (call $fork))
          (i64.add (local.get $x) (i64.reinterpret_f64 (local.get $y)))))"#;
    let scratch = Scratch::with("in.wat", wat);
    scratch.run(&["in.wat", "-mvp", "--fork-instrument", "-o", "out.wasm"]).succeeded();
    scratch.run(&["out.wasm", "-mvp", "--vacuum", "-o", "again.wasm"]).succeeded();
}

#[test]
fn a_source_map_that_is_none_is_refused() {
    for map in ["", "garbage", "{\"version\":3}", "{\"version\":3,\"sources\":[],\"names\":[],\"mappings\":\"!!!!\"}"] {
        let scratch = Scratch::with("in.wasm", binary_module());
        scratch.write("in.map", map);
        let run = scratch.run(&["in.wasm", "-all", "-ism", "in.map", "--fork-instrument", "-o", "out.wasm"]);
        assert!(matches!(run.status.code(), Some(0 | 1)), "{map:?}: {}\n{}", run.status, run.stderr);
        assert!(run.status.success() || !scratch.has("out.wasm"));
    }
}
