//! When a module's legacy exceptions stay as they are, and when the whole module is translated.

mod support;

use support::{Run, Scratch};

const FEATURES: [&str; 2] = ["--enable-exception-handling", "--enable-bulk-memory"];
const MODERN: [&str; 2] = ["--enable-reference-types", "--enable-multivalue"];

/// A module with a function off the fork path that catches, and one on it.
fn module(function: &str) -> String {
    format!(
        r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory (export "memory") 1)
  (tag $e (param i32))
  (func $throws (throw $e (i32.const 5)))
  (func $quiet (export "quiet") (result i32)
    (try (result i32)
      (do (call $throws) (i32.const 0))
      (catch $e)))
  (func $run (export "run") (result i32)
    {function}))"#
    )
}

fn instrument(function: &str, features: &[&str]) -> Run {
    let scratch = Scratch::with("in.wat", module(function));
    scratch.run(&[&FEATURES[..], features, &["in.wat", "-g", "--fork-instrument", "-S", "-o", "-"]].concat())
}

const IN_BODY: &str = "(try (result i32) (do (call $fork)) (catch $e) (catch_all (rethrow 0)))";
const IN_CATCH: &str = "(try (result i32) (do (call $throws) (i32.const 0)) (catch $e (drop) (call $fork)))";
const IN_CATCH_ALL: &str =
    "(try (result i32) (do (call $throws) (i32.const 0)) (catch_all (drop (call $fork)) (rethrow 0)))";

#[test]
fn landings_in_bodies_alone_leave_exceptions_legacy() {
    for features in [&[][..], &MODERN] {
        let run = instrument(IN_BODY, features).succeeded();
        assert_eq!(run.warnings(), Vec::<&str>::new());
        let text = run.text();
        assert!(text.contains("(catch_all") && text.contains("(rethrow"), "{text}");
        assert!(!text.contains("try_table"), "{text}");
    }
}

#[test]
fn a_landing_in_a_handler_translates_the_whole_module_with_a_warning() {
    for function in [IN_CATCH, IN_CATCH_ALL] {
        let run = instrument(function, &MODERN).succeeded();
        let warnings = run.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for part in ["function run", "call $fork", "translated to modern exception handling", "engines"] {
            assert!(warnings[0].contains(part), "{warnings:?}");
        }
        let text = run.text();
        assert!(!text.contains("(try ") && !text.contains("(try\n") && !text.contains("(rethrow"), "{text}");
        assert!(text.matches("(try_table").count() >= 2, "the function off the path is translated, too: {text}");
    }
}

#[test]
fn a_landing_in_a_handler_is_refused_where_the_translation_cannot_be() {
    let message = instrument(IN_CATCH, &[]).refused();
    for part in ["function run", "call $fork", "--enable-multivalue", "--enable-reference-types"] {
        assert!(message.contains(part), "{message}");
    }
}
