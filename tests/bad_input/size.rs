//! Modules as large and as nested as nobody has.

use crate::support::Scratch;
use crate::support::binary::{self, leb, sized, validate};
use crate::{CALL_FORK, body, module_of, refused_or_valid};

/// Refused by name, or instrumented; valid, then, if engines take the input.
#[track_caller]
fn large_input(module: Vec<u8>) {
    let engines_take_it = wasmparser::Validator::new().validate_all(&module).is_ok();
    let scratch = Scratch::with("in.wasm", module);
    let run = scratch.run(&["in.wasm", "-all", "--fork-instrument", "-o", "out.wasm"]);
    if run.status.success() {
        let output = scratch.read("out.wasm");
        assert!(binary::exports(&output).iter().any(|e| e == "wpk_fork_state"));
        if engines_take_it {
            validate(&output);
        }
    } else {
        let message = run.refused();
        assert!(message.contains("--fork-instrument") || message.contains("rror"), "{message}");
    }
}

#[test]
fn a_body_of_twenty_megabytes_is_no_crash() {
    let mut code = Vec::new();
    while code.len() < 20 << 20 {
        code.extend([0x01; 4096]);
        code.extend([0x41, 5, 0x1a]);
    }
    code.extend(CALL_FORK);
    large_input(module_of(b"kernel_fork", b"run", &[body(&code)], &[]));
}

#[test]
fn a_hundred_thousand_functions_are_instrumented() {
    let mut bodies = Vec::new();
    for i in 2..=100_000usize {
        bodies.push(body(&[&CALL_FORK[..], &[0x10], &leb(i)].concat()));
    }
    bodies.push(body(&CALL_FORK));
    let scratch = Scratch::with("in.wasm", module_of(b"kernel_fork", b"run", &bodies, &[]));
    scratch.run(&["in.wasm", "-all", "--fork-instrument", "-o", "out.wasm"]).succeeded();
    validate(&scratch.read("out.wasm"));
}

#[test]
fn tens_of_thousands_of_locals_are_no_crash() {
    // 20,000 locals of type i64, each set before and read after the landing.
    let mut code = [leb(1), leb(20_000), vec![0x7e]].concat();
    for i in 0..20_000usize {
        code.extend([&[0x42, 1, 0x21], &leb(i)[..]].concat());
    }
    code.extend(CALL_FORK);
    for i in 0..20_000usize {
        code.extend([&[0x20], &leb(i)[..], &[0x1a]].concat());
    }
    code.push(0x0b);
    large_input(module_of(b"kernel_fork", b"run", &[sized(&code)], &[]));
}

#[test]
fn ten_thousand_nested_blocks_loops_and_ifs_are_no_stack_overflow() {
    for open in [&[0x02, 0x40][..], &[0x03, 0x40], &[0x41, 1, 0x04, 0x40]] {
        let mut code = Vec::new();
        for _ in 0..10_000 {
            code.extend(open);
            code.extend(CALL_FORK);
        }
        code.extend([0x0b; 10_000]);
        large_input(module_of(b"kernel_fork", b"run", &[body(&code)], &[]));
    }
}

#[test]
fn ten_thousand_nested_operands_are_no_stack_overflow() {
    // 1 + (1 + (1 + ... fork() ...)), by the operand stack.
    let mut code = [0x41, 1].repeat(10_000);
    code.extend(CALL_FORK);
    code.extend([0x6a].repeat(9_999));
    code.push(0x1a);
    large_input(module_of(b"kernel_fork", b"run", &[body(&code)], &[]));
}

#[test]
fn ten_thousand_landings_in_one_function_are_no_crash() {
    large_input(module_of(b"kernel_fork", b"run", &[body(&CALL_FORK.repeat(10_000))], &[]));
}

#[test]
fn a_chain_of_fifty_thousand_calls_is_no_stack_overflow() {
    let mut bodies: Vec<Vec<u8>> = (2..=50_000usize).map(|i| body(&[&[0x10], &leb(i)[..]].concat())).collect();
    bodies.push(body(&CALL_FORK));
    large_input(module_of(b"kernel_fork", b"run", &bodies, &[]));
}

#[test]
fn a_recursion_of_types_and_a_huge_table_are_no_crash() {
    let wat = r#"(module (import "kernel" "kernel_fork" (func $fork)) (memory 65536)
        (rec (type $t (sub (func (param (ref null $t)) (result (ref null $t))))))
        (table 10000000 (ref null $t))
        (elem (i32.const 0) (ref null $t) (ref.func $run))
        (func $run (export "run") (type $t) (call $fork) (call_indirect (type $t) (ref.null $t) (i32.const 9999999))))"#;
    refused_or_valid(&Scratch::with("in.wat", wat), "in.wat");
}

/// What the refusal of a module says that engines take, but not its output.
#[track_caller]
fn refused_output(bodies: &[Vec<u8>]) -> String {
    let module = module_of(b"kernel_fork", b"run", bodies, &[]);
    validate(&module);
    let scratch = Scratch::with("in.wasm", module);
    let message = scratch.run(&["in.wasm", "-all", "--fork-instrument", "-o", "out.wasm"]).refused();
    assert!(message.contains("function") && message.contains("removelist"), "{message}");
    message
}

#[test]
fn more_landings_than_frames_can_tell_apart_are_refused() {
    let message = refused_output(&[body(&CALL_FORK.repeat(65_520))]);
    assert!(message.contains("65520 calls") && message.contains("65519 apart"), "{message}");
}

#[test]
fn more_locals_than_engines_take_are_refused() {
    // All of type i64, set before a landing and read behind it; the site is one more, in the resume function.
    let mut code = [leb(1), leb(50_000), vec![0x7e]].concat();
    code.extend([CALL_FORK, CALL_FORK].concat());
    for i in 0..50_000usize {
        code.extend([&[0x20], &leb(i)[..], &[0x1a]].concat());
    }
    code.push(0x0b);
    let message = refused_output(&[sized(&code)]);
    assert!(message.contains("locals in the output, and engines take 50000"), "{message}");
}

#[test]
fn a_larger_body_than_engines_take_is_refused() {
    let store = [0x41, 8, 0x41, 5, 0x36, 2, 0];
    let mut code = store.repeat(7_600_000 / store.len());
    code.extend(CALL_FORK.repeat(17_000));
    let message = refused_output(&[body(&code)]);
    assert!(message.contains("has a body of") && message.contains("engines take 7654321"), "{message}");
}
