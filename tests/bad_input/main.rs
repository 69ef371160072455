//! Input that is wrong, hostile or large, and outputs that cannot be written: a message and status 1, never a signal, and
//! files are as before.

mod input;
mod outputs;
mod size;
#[path = "../support/mod.rs"]
mod support;

use std::fs;

use support::binary::{leb, list, module, section, sized, validate};
use support::{ALL, Run, Scratch};

const MODULE: &str = r#"(module $m
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory $memory (export "memory") 1)
  (table $t 2 funcref)
  (global $g (mut i32) (i32.const 5))
  (tag $e (param i32))
  (elem (table $t) (i32.const 0) func $deep)
  (data $d (i32.const 8) "data")
  (func $init (global.set $g (i32.const 6)))
  (start $init)
  (func $deep (param $x i32) (result i32) (local $kept i64)
    (local.set $kept (i64.extend_i32_u (local.get $x)))
    (i32.add (call $fork) (i32.wrap_i64 (local.get $kept))))
  (func $run (export "run") (result i32) (call_indirect $t (param i32) (result i32) (i32.const 3) (i32.const 0))))"#;

fn instrument(scratch: &Scratch, input: &str) -> Run {
    scratch.run(&[&ALL[..], &[input, "-g", "--fork-instrument", "-o", "out.wasm"]].concat())
}

/// Whatever the tool makes of `input`: an error that leaves nothing behind, or a valid module.
#[track_caller]
fn refused_or_valid(scratch: &Scratch, input: &str) -> bool {
    let before = scratch.files();
    let run = instrument(scratch, input);
    let accepted = run.status.success();
    if accepted {
        validate(&scratch.read("out.wasm"));
        fs::remove_file(scratch.path("out.wasm")).expect("the output is ours");
    } else {
        run.refused();
    }
    assert_eq!(scratch.files(), before, "files were left behind");
    accepted
}

/// An error, and nothing left behind.
#[track_caller]
fn refused(scratch: &Scratch, input: &str) -> String {
    let before = scratch.files();
    let message = instrument(scratch, input).refused();
    assert_eq!(scratch.files(), before, "files were left behind");
    message
}

/// [`MODULE`] in binary, with names.
fn binary_module() -> Vec<u8> {
    let scratch = Scratch::with("in.wat", MODULE);
    scratch.run(&[&ALL[..], &["in.wat", "-g", "-o", "in.wasm"]].concat()).succeeded();
    scratch.read("in.wasm")
}

#[test]
fn the_module_that_these_tests_break_is_good() {
    let scratch = Scratch::with("in.wasm", binary_module());
    assert!(refused_or_valid(&scratch, "in.wasm"));
}

/// A function of type 0, `[] -> []`.
fn body(code: &[u8]) -> Vec<u8> {
    sized(&[&[0], code, &[0x0b]].concat())
}

/// A module of functions `[] -> []`, function 0 the import of that name, function 1 exported.
fn module_of(fork: &[u8], export: &[u8], bodies: &[Vec<u8>], custom: &[u8]) -> Vec<u8> {
    let import = [sized(b"kernel"), sized(fork), vec![0, 0]].concat();
    module(&[
        section(1, &list(&[vec![0x60, 0, 0]])),
        section(2, &list(&[import])),
        section(3, &[leb(bodies.len()), vec![0; bodies.len()]].concat()),
        section(5, &list(&[vec![0, 1]])),
        section(7, &list(&[[sized(export), vec![0, 1]].concat()])),
        section(10, &list(bodies)),
        custom.to_vec(),
    ])
}

const CALL_FORK: [u8; 2] = [0x10, 0];
