//! Which functions are on the fork path, and why: what `verbose` says about small modules.

mod support;

use support::binary::{self, validate};
use support::{ALL, EXPORTS, Run, Scratch, instrumented_text};

const FORK: &str = r#"(import "kernel" "kernel_fork" (func $fork (result i32)))"#;

fn run(fields: &str) -> (Scratch, Run) {
    let scratch = Scratch::with("in.wat", format!("(module {FORK} {fields} (memory 1))"));
    let arguments = ["in.wat", "-g", "--fork-instrument", "--pass-arg=fork-instrument-verbose", "-o", "out.wasm"];
    let run = scratch.run(&[&ALL[..], &arguments].concat());
    (scratch, run)
}

/// The fork path of a module that imports the entry as `$fork` and has a memory.
#[track_caller]
fn assert_path(fields: &str, expected: &[&str]) {
    let (scratch, run) = run(fields);
    let run = run.succeeded();
    assert_eq!(run.fork_path(), expected);
    validate(&scratch.read("out.wasm"));
}

#[track_caller]
fn assert_refused(wat: &str, arguments: &[&str], expected: &[&str]) {
    let scratch = Scratch::with("in.wat", wat);
    let all = [&ALL[..], &["in.wat", "--fork-instrument", "-o", "out.wasm"], arguments].concat();
    let message = scratch.run(&all).refused();
    assert!(message.contains("--fork-instrument: "), "{message}");
    for part in expected {
        assert!(message.contains(part), "the message lacks {part:?}: {message}");
    }
    assert!(!scratch.has("out.wasm"), "an output in spite of an error");
}

#[test]
fn direct_calls() {
    assert_path(
        "(func $forks (drop (call $fork))) (func $idle) (func $calls_idle (call $idle))",
        &["forks calls kernel.kernel_fork"],
    );
}

#[test]
fn several_hops_of_direct_calls_and_cycles() {
    assert_path(
        "(func $a (call $b)) (func $b (call $c) (call $a)) (func $c (drop (call $fork))) (func $d (call $a) (call $e))
         (func $e (call $e))",
        &["a calls b", "b calls c", "c calls kernel.kernel_fork", "d calls a"],
    );
}

#[test]
fn code_that_cannot_be_reached_does_not_matter_to_the_result() {
    // Either answer is sound; the output must be valid.
    let (scratch, run) = run("(func $f (return) (drop (call $fork)) (unreachable))");
    run.succeeded();
    validate(&scratch.read("out.wasm"));
}

#[test]
fn indirect_calls_by_type() {
    assert_path(
        "(type $unary (func (param i32) (result i32)))
         (table $t 2 funcref)
         (elem (table $t) (i32.const 0) func $forks $idle)
         (func $forks (type $unary) (call $fork))
         (func $idle)
         (func $same_type (drop (call_indirect $t (type $unary) (i32.const 0) (i32.const 0))))
         (func $other_type (call_indirect $t (i32.const 1)))",
        &["forks calls kernel.kernel_fork", "same_type calls through the table t, which may hold forks"],
    );
}

#[test]
fn indirect_calls_by_table() {
    assert_path(
        "(table $forking 1 funcref)
         (table $idle 1 funcref)
         (elem (table $forking) (i32.const 0) func $forks)
         (elem (table $idle) (i32.const 0) func $rests)
         (func $forks (drop (call $fork)))
         (func $rests)
         (func $through_forking (call_indirect $forking (i32.const 0)))
         (func $through_idle (call_indirect $idle (i32.const 0)))",
        &["forks calls kernel.kernel_fork", "through_forking calls through the table forking, which may hold forks"],
    );
}

#[test]
fn several_hops_of_indirect_calls() {
    assert_path(
        "(type $i (func (param i32)))
         (type $l (func (param i64)))
         (type $f (func (param f32)))
         (table $t 3 funcref)
         (elem (table $t) (i32.const 0) func $one $two $three)
         (func $root (call_indirect $t (type $f) (f32.const 0) (i32.const 2)))
         (func $three (type $f) (call_indirect $t (type $l) (i64.const 0) (i32.const 1)))
         (func $two (type $l) (call_indirect $t (type $i) (i32.const 0) (i32.const 0)))
         (func $one (type $i) (drop (call $fork)))",
        &[
            "root calls through the table t, which may hold three",
            "three calls through the table t, which may hold two",
            "two calls through the table t, which may hold one",
            "one calls kernel.kernel_fork",
        ],
    );
}

#[test]
fn functions_in_no_table_are_not_called_indirectly() {
    assert_path(
        "(table $t 1 funcref) (elem (table $t) (i32.const 0) func $idle) (func $idle)
         (func $forks (drop (call $fork))) (func $calls (call_indirect $t (i32.const 0)))",
        &["forks calls kernel.kernel_fork"],
    );
}

#[test]
fn passive_segments_reach_tables_that_code_fills_only() {
    let module = |code: &str| {
        format!(
            "(table $t 1 funcref) (table $u 1 funcref) (elem $passive func $forks)
             (func $forks (drop (call $fork)))
             (func $calls_t (call_indirect $t (i32.const 0)))
             (func $calls_u (call_indirect $u (i32.const 0)))
             (func $writes {code})"
        )
    };
    assert_path(&module(""), &["forks calls kernel.kernel_fork"]);
    let through_t = "calls_t calls through the table t, which may hold forks";
    let through_u = "calls_u calls through the table u, which may hold forks";
    let init = "(table.init $t $passive (i32.const 0) (i32.const 0) (i32.const 1))";
    assert_path(&module(init), &["forks calls kernel.kernel_fork", through_t]);
    let copied = format!("{init} (table.copy $u $t (i32.const 0) (i32.const 0) (i32.const 1))");
    assert_path(&module(&copied), &["forks calls kernel.kernel_fork", through_t, through_u]);
}

#[test]
fn references_that_code_writes_into_a_table() {
    for write in [
        "(table.set $t (i32.const 0) (ref.func $forks))",
        "(drop (table.grow $t (ref.func $forks) (i32.const 1)))",
        "(table.fill $t (i32.const 0) (ref.func $forks) (i32.const 1))",
        "(local $r funcref) (local.set $r (ref.func $forks)) (table.set $t (i32.const 0) (local.get $r))",
    ] {
        assert_path(
            &format!(
                "(table $t 1 funcref) (table $untouched 1 funcref) (elem declare func $forks)
                 (func $forks (drop (call $fork)))
                 (func $calls (call_indirect $t (i32.const 0)))
                 (func $calls_untouched (call_indirect $untouched (i32.const 0)))
                 (func $writes {write})"
            ),
            &["forks calls kernel.kernel_fork", "calls calls through the table t, which may hold forks"],
        );
    }
}

#[test]
fn a_declared_segment_alone_reaches_no_table() {
    assert_path(
        "(table $t 1 funcref) (elem declare func $forks)
         (func $forks (drop (call $fork))) (func $calls (call_indirect $t (i32.const 0)))",
        &["forks calls kernel.kernel_fork"],
    );
}

#[test]
fn tables_with_an_initial_value() {
    assert_path(
        "(table $t 4 funcref (ref.func $forks))
         (func $forks (drop (call $fork))) (func $calls (call_indirect $t (i32.const 3)))",
        &["forks calls kernel.kernel_fork", "calls calls through the table t, which may hold forks"],
    );
}

#[test]
fn a_table_that_starts_with_a_reference_of_the_host_may_hold_whatever_is_exported() {
    assert_path(
        r#"(import "env" "reference" (global $reference funcref))
         (table $t 1 funcref (global.get $reference))
         (func $exported (export "exported") (drop (call $fork)))
         (func $calls (call_indirect $t (i32.const 0)))"#,
        &["exported calls kernel.kernel_fork", "calls calls through the table t, which may hold exported"],
    );
}

#[test]
fn an_imported_table_may_hold_whatever_is_exported_or_referenced() {
    assert_path(
        r#"(import "env" "table" (table $t 1 funcref))
         (elem declare func $referenced)
         (func $exported (export "exported") (drop (call $fork)))
         (func $referenced (drop (call $fork)))
         (func $private (param i32) (drop (call $fork)))
         (func $refers (drop (ref.func $referenced)))
         (func $calls (call_indirect $t (i32.const 0)))
         (func $calls_private (call_indirect $t (param i32) (i32.const 0) (i32.const 0)))"#,
        &[
            "exported calls kernel.kernel_fork",
            "referenced calls kernel.kernel_fork",
            "private calls kernel.kernel_fork",
            "calls calls through the table t, which may hold exported",
        ],
    );
}

#[test]
fn an_exported_table_may_hold_whatever_is_exported_or_referenced() {
    assert_path(
        r#"(table $t (export "table") 1 funcref)
         (func $exported (export "exported") (drop (call $fork)))
         (func $calls (call_indirect $t (i32.const 0)))"#,
        &["exported calls kernel.kernel_fork", "calls calls through the table t, which may hold exported"],
    );
}

#[test]
fn a_table_of_the_module_alone_does_not_hold_what_is_exported() {
    assert_path(
        r#"(table $t 1 funcref)
         (func $exported (export "exported") (drop (call $fork)))
         (func $calls (call_indirect $t (i32.const 0)))"#,
        &["exported calls kernel.kernel_fork"],
    );
}

#[test]
fn references_in_global_initializers() {
    assert_path(
        "(type $t (func))
         (global $callback (ref $t) (ref.func $forks))
         (func $forks (type $t) (drop (call $fork)))
         (func $calls (call_ref $t (global.get $callback)))",
        &["forks calls kernel.kernel_fork", "calls calls a reference, which may be to forks"],
    );
}

#[test]
fn references_called_by_another_type_do_not_fork() {
    assert_path(
        "(type $t (func)) (type $u (func (param i32)))
         (elem declare func $forks $idle)
         (func $forks (type $t) (drop (call $fork)))
         (func $idle (type $u))
         (func $calls (call_ref $u (i32.const 0) (ref.func $idle)))
         (func $refers (drop (ref.func $forks)))",
        &["forks calls kernel.kernel_fork"],
    );
}

const HIERARCHY: &str = "(type $top (sub (func)))
    (type $middle (sub $top (func)))
    (type $bottom (sub final $middle (func)))
    (rec (type $other (sub $top (func))) (type $brand (struct)))
    (table $t 1 funcref)
    (elem (table $t) (i32.const 0) func $forks)
    (func $forks (type $middle) (drop (call $fork)))";

#[test]
fn calls_of_references_reach_subtypes_and_only_those() {
    assert_path(
        &format!(
            "{HIERARCHY}
             (func $by_top (param (ref $top)) (call_ref $top (local.get 0)))
             (func $by_middle (param (ref $middle)) (call_ref $middle (local.get 0)))
             (func $by_bottom (param (ref $bottom)) (call_ref $bottom (local.get 0)))
             (func $by_other (param (ref $other)) (call_ref $other (local.get 0)))"
        ),
        &[
            "forks calls kernel.kernel_fork",
            "by_top calls a reference, which may be to forks",
            "by_middle calls a reference, which may be to forks",
        ],
    );
}

#[test]
fn indirect_calls_reach_subtypes_and_only_those() {
    assert_path(
        &format!(
            "{HIERARCHY}
             (func $by_top (call_indirect $t (type $top) (i32.const 0)))
             (func $by_middle (call_indirect $t (type $middle) (i32.const 0)))
             (func $by_bottom (call_indirect $t (type $bottom) (i32.const 0)))
             (func $by_other (call_indirect $t (type $other) (i32.const 0)))"
        ),
        &[
            "forks calls kernel.kernel_fork",
            "by_top calls through the table t, which may hold forks",
            "by_middle calls through the table t, which may hold forks",
        ],
    );
}

#[test]
fn references_that_only_hosts_can_pass_in_are_to_exported_functions() {
    assert_path(
        r#"(type $t (func))
         (func $forks (export "forks") (type $t) (drop (call $fork)))
         (func $calls (export "calls") (param (ref $t)) (call_ref $t (local.get 0)))"#,
        &["forks calls kernel.kernel_fork", "calls calls a reference, which may be to forks"],
    );
}

#[test]
fn references_in_structs_and_arrays() {
    assert_path(
        "(type $t (func)) (type $s (struct (field (ref $t)))) (type $a (array (ref $t)))
         (elem $segment (ref $t) (ref.func $in_array))
         (elem declare func $in_struct)
         (func $in_struct (type $t) (drop (call $fork)))
         (func $in_array (type $t) (drop (call $fork)))
         (func $makes (result (ref $s)) (struct.new $s (ref.func $in_struct)))
         (func $makes_array (result (ref $a)) (array.new_elem $a $segment (i32.const 0) (i32.const 1)))
         (func $calls (param (ref $s)) (call_ref $t (struct.get $s 0 (local.get 0))))",
        &[
            "in_struct calls kernel.kernel_fork",
            "in_array calls kernel.kernel_fork",
            "calls calls a reference, which may be to in_struct",
        ],
    );
}

#[test]
fn tail_calls() {
    assert_path(
        "(type $t (func (result i32)))
         (table $t 1 funcref)
         (elem (table $t) (i32.const 0) func $forks)
         (func $forks (type $t) (i32.add (call $fork) (i32.const 1)))
         (func $direct (type $t) (return_call $forks))
         (func $indirect (type $t) (return_call_indirect $t (type $t) (i32.const 0)))
         (func $by_reference (type $t) (return_call_ref $t (ref.func $forks)))
         (func $above (type $t) (i32.add (call $direct) (i32.const 1)))",
        &[
            "forks calls kernel.kernel_fork",
            "direct calls forks",
            "indirect calls through the table t, which may hold forks",
            "by_reference calls a reference, which may be to forks",
            "above calls direct",
        ],
    );
}

#[test]
fn handlers_of_exceptions() {
    assert_path(
        "(tag $e)
         (func $in_body (block $h (try_table (catch_all $h) (drop (call $fork)))))
         (func $in_handler (block $h (try_table (catch_all $h) (throw $e)) (return)) (drop (call $fork)))
         (func $above (block $h (try_table (catch_all $h) (call $in_handler))))",
        &["in_body calls kernel.kernel_fork", "in_handler calls kernel.kernel_fork", "above calls in_handler"],
    );
}

// The entry itself, in all its uses.

/// No export, segment, reference or tail call of the output names the import itself.
#[track_caller]
fn assert_entry_is_called_only(fields: &str) -> String {
    let text = instrumented_text(&format!("(module {FORK} (memory 1) {fields})"), &[]);
    for (at, _) in text.match_indices("$fork") {
        let end = text[at + 5..].chars().next().expect("text goes on");
        let before = &text[..at];
        let allowed = before.ends_with("(call ") || before.ends_with("(func ");
        let is_import = before.ends_with("(func ") && before.lines().last().expect("a line").contains("(import ");
        if matches!(end, ' ' | ')' | '\n') {
            assert!(allowed && (before.ends_with("(call ") || is_import), "the entry is used otherwise:\n{text}");
        }
    }
    text
}

#[test]
fn an_exported_entry_gets_a_frame_of_its_own() {
    let text = assert_entry_is_called_only(r#"(export "fork" (func $fork))"#);
    assert!(text.contains(r#"(export "fork" (func $"#), "the export is gone:\n{text}");
}

#[test]
fn a_tail_called_entry_gets_a_frame_of_its_own() {
    assert_entry_is_called_only(r#"(func (export "run") (result i32) (return_call $fork))"#);
    assert_path(
        r#"(func $run (export "run") (result i32) (return_call $fork))"#,
        &["run calls fork_entry.fork", "fork_entry.fork calls kernel.kernel_fork"],
    );
}

#[test]
fn a_referenced_entry_gets_a_frame_of_its_own() {
    assert_entry_is_called_only(
        r#"(type $t (func (result i32))) (elem declare func $fork)
           (func (export "run") (result i32) (call_ref $t (ref.func $fork)))"#,
    );
}

#[test]
fn an_entry_in_a_table_gets_a_frame_of_its_own() {
    assert_entry_is_called_only(
        r#"(table $t 1 funcref) (elem (table $t) (i32.const 0) func $fork)
           (func (export "run") (result i32) (call_indirect $t (result i32) (i32.const 0)))"#,
    );
    assert_path(
        r#"(table $t 1 funcref) (elem (table $t) (i32.const 0) func $fork)
           (func $run (export "run") (result i32) (call_indirect $t (result i32) (i32.const 0)))"#,
        &["run calls through the table t, which may hold fork_entry.fork", "fork_entry.fork calls kernel.kernel_fork"],
    );
}

#[test]
fn an_entry_that_is_used_in_every_way_at_once_gets_one_frame() {
    let text = assert_entry_is_called_only(
        r#"(type $t (func (result i32)))
           (table $t 2 (ref null $t)) (elem (table $t) (i32.const 0) (ref $t) (ref.func $fork))
           (global $g (ref $t) (ref.func $fork))
           (elem $passive (ref $t) (ref.func $fork))
           (export "a" (func $fork)) (export "b" (func $fork))
           (func (export "run") (result i32)
             (drop (call $fork))
             (drop (call_ref $t (ref.func $fork)))
             (return_call $fork))"#,
    );
    assert_eq!(text.matches("(func $fork_entry.fork (").count(), 1, "{text}");
}

#[test]
fn an_entry_whose_stand_in_has_a_taken_name() {
    assert_entry_is_called_only(
        r#"(export "fork" (func $fork)) (func $fork_entry.fork) (export "other" (func $fork_entry.fork))"#,
    );
}

#[test]
fn an_entry_that_is_called_nowhere_leaves_functions_alone() {
    let (scratch, run) = run(r#"(func $idle (export "idle") (param $x i32) (result i32) (local.get $x))"#);
    assert_eq!(run.succeeded().fork_path(), [""; 0]);
    let exports = binary::exports(&scratch.read("out.wasm"));
    for name in EXPORTS {
        assert!(exports.iter().any(|e| e == name), "hosts find no {name}");
    }
}

#[test]
fn an_entry_that_is_imported_twice_is_one_entry() {
    assert_path(
        r#"(import "kernel" "kernel_fork" (func $again (result i32)))
           (func $one (drop (call $fork))) (func $two (drop (call $again)))"#,
        &["one calls kernel.kernel_fork", "two calls kernel.kernel_fork"],
    );
}

#[test]
fn an_entry_that_is_not_a_function_is_refused() {
    for (import, kind) in
        [("(global $fork i32)", "global"), ("(memory 1)", "memory"), ("(table 1 funcref)", "table"), ("(tag)", "tag")]
    {
        let wat = format!(r#"(module (import "kernel" "kernel_fork" {import}))"#);
        assert_refused(&wat, &[], &["kernel.kernel_fork", kind]);
    }
}

#[test]
fn a_module_without_the_entry_is_left_as_it_is_with_a_warning() {
    let wat = r#"(module (import "env" "fork" (func $other (result i32))) (memory 1)
        (func (export "run") (result i32) (i32.add (call $other) (i32.const 1))))"#;
    let scratch = Scratch::with("in.wat", wat);
    let run = scratch.run(&["in.wat", "-g", "--fork-instrument", "-o", "out.wasm"]).succeeded();
    assert_eq!(run.warnings().len(), 1, "{}", run.stderr);
    assert!(run.warnings()[0].contains("kernel.kernel_fork"), "{}", run.stderr);
    scratch.run(&["in.wat", "-g", "-o", "plain.wasm"]).succeeded();
    assert!(scratch.read("out.wasm") == scratch.read("plain.wasm"), "the module was changed");
}

#[test]
fn a_function_of_the_module_itself_with_the_entry_s_name_is_no_entry() {
    let wat = r#"(module (memory 1) (func $kernel.kernel_fork (export "kernel.kernel_fork"))
        (func (export "run") (call $kernel.kernel_fork)))"#;
    let scratch = Scratch::with("in.wat", wat);
    let run = scratch.run(&["in.wat", "--fork-instrument", "-o", "out.wasm"]).succeeded();
    assert_eq!(run.warnings().len(), 1, "{}", run.stderr);
}

// What cannot be instrumented.

#[test]
fn a_start_function_on_the_path_is_refused_by_name() {
    let wat =
        format!("(module {FORK} (memory 1) (start $init) (func $init (call $deep)) (func $deep (drop (call $fork))))");
    assert_refused(&wat, &[], &["start function init", "fork-instrument-removelist@init"]);
}

#[test]
fn the_remedy_for_a_start_function_helps() {
    let wat =
        format!("(module {FORK} (memory 1) (start $init) (func $init (call $deep)) (func $deep (drop (call $fork))))");
    let scratch = Scratch::with("in.wat", wat);
    let arguments = ["in.wat", "--fork-instrument", "--pass-arg=fork-instrument-removelist@init", "-o", "out.wasm"];
    scratch.run(&arguments).succeeded();
    validate(&scratch.read("out.wasm"));
}

#[test]
fn a_start_function_off_the_path_is_kept() {
    let (scratch, run) =
        run("(start $init) (global $g (mut i32) (i32.const 0)) (func $init (global.set $g (i32.const 1)))
        (func $forks (drop (call $fork)))");
    run.succeeded();
    let module = scratch.read("out.wasm");
    let start = |p: &wasmparser::Payload| matches!(p, wasmparser::Payload::StartSection { .. });
    assert!(binary::payloads(&module).iter().any(start), "the start function is gone");
}

#[test]
fn an_entry_as_start_function_is_refused() {
    let wat = r#"(module (import "kernel" "kernel_fork" (func $fork)) (memory 1) (start $fork))"#;
    assert_refused(wat, &[], &["start function"]);
}

#[test]
fn a_module_without_memory_is_refused() {
    let wat = format!("(module {FORK} (func (export \"run\") (drop (call $fork))))");
    assert_refused(&wat, &[], &["no memory"]);
}

#[test]
fn an_imported_memory_is_as_good_as_any() {
    let wat = format!(
        r#"(module {FORK} (import "env" "memory" (memory 1)) (func (export "run") (result i32) (call $fork)))"#
    );
    let scratch = Scratch::with("in.wat", wat);
    scratch.run(&["in.wat", "--fork-instrument", "-o", "out.wasm"]).succeeded();
    validate(&scratch.read("out.wasm"));
}

#[test]
fn several_memories_without_a_choice_are_refused() {
    let wat = format!("(module {FORK} (memory $a 1) (memory $b 1) (func (export \"run\") (drop (call $fork))))");
    assert_refused(&wat, &[], &["several memories (a, b)", "fork-instrument-memory@"]);
}

#[test]
fn an_instrumented_module_is_refused() {
    let scratch =
        Scratch::with("in.wat", format!("(module {FORK} (memory 1) (func (export \"run\") (drop (call $fork))))"));
    scratch.run(&["in.wat", "--fork-instrument", "-o", "once.wasm"]).succeeded();
    let message = scratch.run(&["once.wasm", "--fork-instrument", "-o", "twice.wasm"]).refused();
    assert!(message.contains("already instrumented"), "{message}");
    // Without its custom section it still has the exports.
    let once = scratch.read("once.wasm");
    let section = binary::custom("fork-instrument.abi", &binary::custom_section(&once, "fork-instrument.abi").unwrap());
    let at = once.windows(section.len()).position(|w| w == section).expect("the section is in the file");
    scratch.write("bare.wasm", [&once[..at], &once[at + section.len()..]].concat());
    let message = scratch.run(&["bare.wasm", "--fork-instrument", "-o", "twice.wasm"]).refused();
    assert!(message.contains("wpk_fork_"), "{message}");
    assert!(!scratch.has("twice.wasm"));
}

#[test]
fn a_module_of_resume_functions_is_refused() {
    let scratch =
        Scratch::with("in.wat", format!("(module {FORK} (memory 1) (func (export \"run\") (drop (call $fork))))"));
    let resume = "--pass-arg=fork-instrument-resume@resume.wasm";
    scratch.run(&["in.wat", "-all", "--fork-instrument", resume, "-o", "first.wasm"]).succeeded();
    let message = scratch.run(&["resume.wasm", "-all", "--fork-instrument", "-o", "out.wasm"]).refused();
    assert!(message.contains("has the resume functions of another"), "{message}");
}

#[test]
fn exports_with_names_of_the_contract_are_refused_by_name() {
    for name in EXPORTS.iter().chain(&["wpk_fork_resume", "wpk_fork_resume_i32", "wpk_fork_resume_i64_f32"]) {
        for export in ["(func $run)", "(memory 0)", "(global $g)"] {
            let wat = format!(
                r#"(module {FORK} (memory 1) (global $g i32 (i32.const 0)) (func $run (drop (call $fork)))
                   (export "{name}" {export}))"#
            );
            assert_refused(&wat, &[], &[&format!("\"{name}\"")]);
        }
    }
}

#[test]
fn exports_with_similar_names_are_kept() {
    let (scratch, run) = run(r#"(func $run (export "wpk_fork") (export "wpk_fork_states") (export "wpk_fork_resumed")
        (drop (call $fork)))"#);
    run.succeeded();
    let exports = binary::exports(&scratch.read("out.wasm"));
    for name in ["wpk_fork", "wpk_fork_states", "wpk_fork_resumed"] {
        assert!(exports.iter().any(|e| e == name), "{exports:?}");
    }
}

/// Names that the pass injects, as it prints them.
fn injected_names(text: &str) -> Vec<(&str, String)> {
    let mut names = Vec::new();
    for kind in ["func", "global", "table", "elem"] {
        let head = format!("\n ({kind} $");
        for (at, _) in text.match_indices(&head) {
            let rest = &text[at + head.len()..];
            let name = &rest[..rest.find([' ', ')', '\n']).expect("a name ends")];
            if name.starts_with("fork.") || name.contains(".resume") {
                names.push((kind, name.to_string()));
            }
        }
    }
    names
}

#[test]
fn names_of_users_that_are_like_injected_ones_are_kept_apart() {
    let body = |extra: &str| {
        format!(
            r#"(module {FORK} (memory 1) {extra}
               (func $deep (param $x i32) (result i32) (i32.add (call $fork) (local.get $x)))
               (func $run (export "run") (param $x i32) (result i64)
                 (i64.extend_i32_u (call $deep (i32.add (local.get $x) (i32.const 1))))))"#
        )
    };
    let first = instrumented_text(&body(""), &[]);
    let taken = injected_names(&first);
    assert!(taken.len() > 10, "{taken:?}");
    let mut extra = String::new();
    for (i, (kind, name)) in taken.iter().enumerate() {
        extra += &match *kind {
            "func" => format!("(func ${name} (export \"user{i}\") (result i32) (i32.const {i}))\n"),
            "global" => format!("(global ${name} (export \"user{i}\") (mut f64) (f64.const {i}))\n"),
            "table" => format!("(table ${name} (export \"user{i}\") 1 externref)\n"),
            _ => format!("(elem ${name} externref (ref.null extern))\n"),
        };
    }
    let scratch = Scratch::with("in.wat", body(&extra));
    for passes in [&["--fork-instrument"][..], &["--fork-instrument", "-O2"]] {
        scratch.run(&[&ALL[..], &["in.wat", "-g", "-o", "out.wasm"], passes].concat()).succeeded();
        let module = scratch.read("out.wasm");
        validate(&module);
        let exports = binary::exports(&module);
        for (i, (kind, name)) in taken.iter().enumerate() {
            let is_there = exports.contains(&format!("user{i}"));
            assert!(is_there || *kind == "elem", "the user's {kind} {name} is gone");
        }
    }
    let second = instrumented_text(&body(&extra), &[]);
    for (i, (kind, name)) in taken.iter().enumerate() {
        if *kind == "func" {
            let kept = support::function_text(&second, name);
            assert!(kept.contains(&format!("i32.const {i}")), "the user's {name} became\n{kept}");
        }
    }
}

#[test]
fn labels_and_locals_of_users_that_are_like_injected_ones_are_kept_apart() {
    let (scratch, run) = run(r#"(func $run (export "run") (param $fork.state i32) (result i32)
             (local $fork.buffer i32)
             (block $fork.epilogue
               (loop $fork.again.0
                 (block $fork.landing.0
                   (br_if $fork.landing.0 (local.get $fork.state))
                   (local.set $fork.buffer (call $fork))
                   (br_if $fork.epilogue (local.get $fork.buffer))
                   (br_if $fork.again.0 (i32.add (call $fork) (local.get $fork.state))))))
             (i32.add (local.get $fork.buffer) (local.get $fork.state)))"#);
    run.succeeded();
    validate(&scratch.read("out.wasm"));
}
