//! Every option as a user types it.

mod support;

use std::collections::BTreeSet;

use support::binary::validate;
use support::{ALL, Run, Scratch, function_text};

/// Two ways to the entry, a function beside them, and a chain above.
const MODULE: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "env" "clone" (func $clone (result i32)))
  (type $callback (func (param i32) (result i32)))
  (memory (export "memory") 1)
  (table $callbacks 1 funcref)
  (elem (table $callbacks) (i32.const 0) func $callback)
  (func $callback (type $callback) (i32.add (local.get 0) (call $fork)))
  (func $indirect (result i32) (call_indirect $callbacks (type $callback) (i32.const 1) (i32.const 0)))
  (func $direct (result i32) (call $fork))
  (func $caller (result i32) (i32.add (call $direct) (i32.const 1)))
  (func $cloner (result i32) (call $clone))
  (func $leaf (result i32) (i32.const 7))
  (func $above_leaf (result i32) (i32.add (call $leaf) (i32.const 1)))
  (func $run (export "run") (result i32)
    (drop (call $indirect))
    (drop (call $cloner))
    (drop (call $above_leaf))
    (call $caller)))"#;

/// The fork path of [`MODULE`] without options.
const PATH: [&str; 5] = [
    "callback calls kernel.kernel_fork",
    "indirect calls through the table callbacks, which may hold callback",
    "direct calls kernel.kernel_fork",
    "caller calls direct",
    "run calls indirect",
];

struct Session(Scratch);

impl Session {
    fn new() -> Session {
        Session(Scratch::with("in.wat", MODULE))
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let verbose = ["--pass-arg=fork-instrument-verbose", "-o", "out.wasm", "in.wat"];
        self.0.run(&[&ALL[..], &verbose, arguments].concat())
    }

    /// Runs the pass with one of its arguments, without the prefix.
    fn with(&self, argument: &str) -> Run {
        self.run(&["--fork-instrument", &format!("--pass-arg=fork-instrument-{argument}")])
    }

    /// The names on the fork path, in order.
    #[track_caller]
    fn path_with(&self, arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<String> = arguments.iter().map(|a| format!("--pass-arg=fork-instrument-{a}")).collect();
        let mut all = vec!["--fork-instrument"];
        all.extend(arguments.iter().map(String::as_str));
        let run = self.run(&all).succeeded();
        validate(&self.0.read("out.wasm"));
        let first_word = |line: &&str| line.split(' ').next().expect("a word").to_string();
        run.fork_path().iter().map(first_word).collect()
    }

    #[track_caller]
    fn refuses(&self, argument: &str) -> String {
        let message = self.with(argument).refused();
        assert!(!self.0.has("out.wasm"), "an output in spite of an error");
        assert!(message.contains("fork-instrument-"), "the message does not name the option: {message}");
        message
    }
}

#[test]
fn a_misspelt_name_of_the_pass_is_an_error_that_names_it() {
    let said = Session::new().run(&["--fork-instrumnt"]).refused();
    assert!(said.contains("--fork-instrumnt: did you mean --fork-instrument?"), "{said}");
}

#[test]
fn without_options_the_fork_path_is_that_of_kernel_fork() {
    let session = Session::new();
    assert_eq!(session.run(&["--fork-instrument"]).succeeded().fork_path(), PATH);
}

#[test]
fn an_unknown_option_is_an_error_that_names_the_valid_ones() {
    let message = Session::new().refuses("entyr@a.b");
    assert!(message.contains("fork-instrument-entyr"), "{message}");
    for option in fork_instrument_options() {
        assert!(message.contains(&format!("fork-instrument-{option}")), "{message} lacks {option}");
    }
}

/// The names in the one list that parsing and documentation come from.
fn fork_instrument_options() -> Vec<String> {
    let source = support::read_in_repository("src/options.rs");
    let list = &source[source.find("pub const OPTIONS").expect("the list")..];
    let list = &list[..list.find("\n];").expect("its end")];
    let names: Vec<String> = list
        .lines()
        .filter_map(|l| Some(l.trim().strip_prefix("name: \"")?.strip_suffix("\",")?.to_string()))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    names
}

#[test]
fn every_option_of_the_list_is_in_help() {
    let help = Scratch::new().run(&["--help"]).succeeded().text();
    for option in fork_instrument_options() {
        assert!(help.contains(&format!("fork-instrument-{option}")), "--help lacks {option}");
    }
}

#[test]
fn every_option_of_the_list_is_in_the_readme() {
    let readme = support::read_in_repository("README.md");
    for option in fork_instrument_options() {
        assert!(readme.contains(&format!("`{option}")), "README.md lacks {option}");
    }
}

#[test]
fn malformed_values_are_errors() {
    let session = Session::new();
    for (argument, expected) in [
        ("entry@fork", "module.name"),
        ("entry@kernel.kernel_fork,fork", "module.name"),
        ("replay@all", "none, scalar or effects"),
        ("replay", "none, scalar or effects"),
        ("verbose@loud", "switch"),
        ("verify@thoroughly", "switch"),
        ("propagate-addlist@leaf", "switch"),
        ("ignore-indirect@callbacks", "switch"),
        ("removelist@leaf,,run", "missing"),
    ] {
        let message = session.refuses(argument);
        assert!(message.contains(expected), "{argument}: {message}");
    }
}

#[test]
fn values_missing_after_the_at_sign_are_errors() {
    let session = Session::new();
    for option in ["entry@", "roots@", "onlylist@", "addlist@", "removelist@", "memory@", "resume@"] {
        let message = session.refuses(option);
        assert!(message.contains("missing"), "{option}: {message}");
    }
}

#[test]
fn options_that_need_a_value_are_errors_without_one() {
    let session = Session::new();
    for option in ["entry", "roots", "onlylist", "addlist", "removelist", "memory", "resume"] {
        session.refuses(option);
    }
}

#[test]
fn a_list_from_a_file_that_does_not_exist_is_an_error_that_names_the_file() {
    let session = Session::new();
    for option in ["entry", "roots", "onlylist", "addlist", "removelist"] {
        let message = session.refuses(&format!("{option}@@nowhere.txt"));
        assert!(message.contains("nowhere.txt"), "{option}: {message}");
    }
}

#[test]
fn a_list_from_a_file_that_is_not_text_is_an_error() {
    let session = Session::new();
    session.0.write("names.txt", b"run\n\xff\xfe\n");
    assert!(session.refuses("onlylist@@names.txt").contains("names.txt"));
}

#[test]
fn lists_come_from_files_one_name_a_line() {
    let session = Session::new();
    session.0.write("names.txt", "callback\n\n  indirect  \r\nrun");
    assert_eq!(session.path_with(&["onlylist@@names.txt"]), ["callback", "indirect", "run"]);
    session.0.write("entries.txt", "env.clone\n");
    assert_eq!(session.path_with(&["entry@@entries.txt"]), ["cloner", "run"]);
    assert_eq!(session.path_with(&["entry@@entries.txt,kernel.kernel_fork"]).len(), PATH.len() + 1);
}

#[test]
fn a_name_in_a_list_that_matches_nothing_is_a_warning() {
    let session = Session::new();
    let run = session.with("roots@run,nor_such*").succeeded();
    assert_eq!(run.warnings().len(), 1, "{}", run.stderr);
    for list in ["addlist", "removelist"] {
        let run = session.with(&format!("{list}@run,no_such_function,nor_such*")).succeeded();
        let warnings = run.warnings().join("\n");
        assert_eq!(run.warnings().len(), 2, "{warnings}");
        assert!(warnings.contains(list), "{warnings}");
        assert!(warnings.contains("no_such_function") && warnings.contains("nor_such*"), "{warnings}");
        assert!(session.0.has("out.wasm"));
    }
    let run = session.with("onlylist@caller,direct,no_such_function").succeeded();
    assert_eq!(run.warnings().len(), 1, "{}", run.stderr);
}

#[test]
fn an_import_in_a_list_of_functions_is_a_warning() {
    let session = Session::new();
    for list in ["addlist", "removelist", "onlylist"] {
        let run = session.with(&format!("{list}@clone,run")).succeeded();
        let [warning] = run.warnings()[..] else { panic!("{}", run.stderr) };
        assert!(warning.contains(&format!("{list}: clone is imported")) && warning.contains("entry@"), "{warning}");
        // It stands for functions, too.
        assert!(session.with(&format!("{list}@cl*")).succeeded().warnings().is_empty());
    }
}

#[test]
fn an_entry_among_several_that_is_not_imported_is_a_warning() {
    let run = Session::new().with("entry@kernel.kernel_fork,kernel.vfork").succeeded();
    assert_eq!(run.warnings().len(), 1, "{}", run.stderr);
    assert!(run.warnings()[0].contains("kernel.vfork"), "{}", run.stderr);
    assert_eq!(run.fork_path(), PATH);
}

#[test]
fn options_that_match_are_no_warning() {
    let session = Session::new();
    for argument in ["entry@env.*", "addlist@leaf", "removelist@ind*", "onlylist@*", "roots@run"] {
        let run = session.with(argument).succeeded();
        assert_eq!(run.warnings(), [""; 0], "{argument}");
    }
}

#[test]
fn entries_are_several_or_match_by_wildcard() {
    let session = Session::new();
    let both = ["callback", "indirect", "direct", "caller", "cloner", "run"];
    assert_eq!(session.path_with(&["entry@env.clone"]), ["cloner", "run"]);
    assert_eq!(session.path_with(&["entry@env.clone,kernel.kernel_fork"]), both);
    assert_eq!(session.path_with(&["entry@env.*"]), ["cloner", "run"]);
    assert_eq!(session.path_with(&["entry@*"]), both);
}

#[test]
fn the_pass_own_argument_is_short_for_the_entry() {
    let session = Session::new();
    for arguments in
        [&["--fork-instrument=env.clone"][..], &["--fork-instrument", "--pass-arg=fork-instrument@env.clone"]]
    {
        let run = session.run(arguments).succeeded();
        assert_eq!(run.fork_path(), ["cloner calls env.clone", "run calls cloner"], "{arguments:?}");
    }
    let run = session.run(&["--fork-instrument=env.clone,kernel.*"]).succeeded();
    assert_eq!(run.fork_path().len(), PATH.len() + 1);
    assert!(session.run(&["--fork-instrument=clone"]).refused().contains("module.name"));
}

#[test]
fn the_short_form_and_the_entry_option_instrument_alike() {
    let session = Session::new();
    session.run(&["--fork-instrument=env.clone"]).succeeded();
    let short = session.0.read("out.wasm");
    session.with("entry@env.clone").succeeded();
    assert!(short == session.0.read("out.wasm"));
}

#[test]
fn the_short_form_and_another_entry_option_are_both_heard() {
    let session = Session::new();
    let run = session.run(&["--fork-instrument=env.clone", "--pass-arg=fork-instrument-entry@kernel.kernel_fork"]);
    // Either both count, or the contradiction is an error.
    match run.status.code() {
        Some(0) => assert_eq!(run.fork_path().len(), PATH.len() + 1, "one of them was dropped silently"),
        _ => drop(run.refused()),
    }
}

#[test]
fn the_removelist_takes_functions_and_what_only_they_reach_off_the_path() {
    let session = Session::new();
    assert_eq!(session.path_with(&["removelist@direct"]), ["callback", "indirect", "run"]);
    assert_eq!(session.path_with(&["removelist@direct,indirect"]), ["callback"]);
    assert_eq!(session.path_with(&["removelist@c*"]), ["direct"]);
}

#[test]
fn the_addlist_takes_nobody_off_the_path() {
    let session = Session::new();
    for listed in ["direct", "callback", "direct,caller", "indirect", "*"] {
        let path = session.path_with(&[&format!("addlist@{listed}")]);
        for line in PATH {
            let name = line.split(' ').next().expect("a line begins with a name");
            assert!(path.iter().any(|found| found == name), "addlist@{listed} without {name}: {path:?}");
        }
    }
}

#[test]
fn the_onlylist_leaves_nothing_else_on_the_path() {
    let session = Session::new();
    assert_eq!(session.path_with(&["onlylist@direct,caller,run"]), ["direct", "caller", "run"]);
    assert_eq!(session.path_with(&["onlylist@c*"]), ["callback", "caller", "cloner"]);
}

#[test]
fn the_addlist_adds_functions_and_their_callers_only_when_told_to_propagate() {
    let session = Session::new();
    let without = ["callback", "indirect", "direct", "caller", "leaf", "run"];
    assert_eq!(session.path_with(&["addlist@leaf"]), without);
    let with = ["callback", "indirect", "direct", "caller", "leaf", "above_leaf", "run"];
    assert_eq!(session.path_with(&["addlist@leaf", "propagate-addlist"]), with);
}

#[test]
fn the_reason_of_a_listed_function_is_the_list() {
    let run = Session::new().with("addlist@leaf").succeeded();
    assert!(run.fork_path().contains(&"leaf is listed"), "{}", run.stderr);
}

#[test]
fn names_with_commas_in_parentheses_are_one_name() {
    let wat = MODULE.replace("$direct ", r#"$"direct(int, char)" "#).replace("$direct)", r#"$"direct(int, char)")"#);
    let session = Session(Scratch::with("in.wat", wat));
    let run = session.with("removelist@direct(int, char)").succeeded();
    assert_eq!(run.warnings(), [""; 0]);
    let expected = [PATH[0], PATH[1], "run calls indirect"];
    assert_eq!(run.fork_path(), expected);
}

#[test]
fn names_beyond_ascii_match() {
    let wat = MODULE.replace("$direct ", "$\"größe\" ").replace("$direct)", "$\"größe\")");
    let session = Session(Scratch::with("in.wat", wat));
    let run = session.with("removelist@größe").succeeded();
    assert_eq!(run.warnings(), [""; 0]);
    assert_eq!(run.fork_path().len(), 3, "{}", run.stderr);
}

#[test]
fn ignore_indirect_assumes_that_tables_do_not_fork() {
    let session = Session::new();
    assert_eq!(session.path_with(&["ignore-indirect"]), ["callback", "direct", "caller", "run"]);
}

#[test]
fn switches_take_true_and_false() {
    let session = Session::new();
    let ignored = session.path_with(&["ignore-indirect"]);
    assert_eq!(session.path_with(&["ignore-indirect@true"]), ignored);
    assert_eq!(session.path_with(&["ignore-indirect@1"]), ignored);
    assert_eq!(session.path_with(&["ignore-indirect@false"]).len(), PATH.len());
    assert_eq!(session.path_with(&["ignore-indirect@0"]).len(), PATH.len());
}

#[test]
fn a_switch_or_choice_given_twice_means_the_last() {
    let session = Session::new();
    // As everywhere in Binaryen.
    let ignored = session.path_with(&["ignore-indirect"]);
    assert_eq!(session.path_with(&["ignore-indirect@false", "ignore-indirect@true"]), ignored);
    session
        .run(&["--fork-instrument", "--pass-arg=fork-instrument-replay@no", "--pass-arg=fork-instrument-replay@none"])
        .succeeded();
}

#[test]
fn verbose_gives_one_line_a_function_in_the_same_order_every_time() {
    let session = Session::new();
    let first = session.run(&["--fork-instrument"]).succeeded().stderr;
    // The operand of callback is the only one in front of a landing.
    assert_eq!(first.lines().count(), PATH.len() + 1, "more than the lines of verbose:\n{first}");
    for _ in 0..10 {
        assert_eq!(session.run(&["--fork-instrument"]).succeeded().stderr, first);
    }
}

#[test]
fn verbose_says_how_operands_are_available_after_calls_and_why_they_are_spilled() {
    let operands = r#"(module
      (import "kernel" "kernel_fork" (func $fork (result i32)))
      (import "env" "ask" (func $ask (result i32)))
      (import "env" "take" (func $take (param i32 i32 i32 i32 i32 i32 i32)))
      (memory (export "memory") 1)
      (global $global (mut i32) (i32.const 1))
      (func $many (param $x i32) (param $y i32)
        (call $take
          (i32.const 1) (i32.add (local.get $x) (i32.const 1)) (local.tee $y (i32.load (local.get $x)))
          (i32.div_u (local.get $x) (local.get $y)) (call $ask) (global.get $global) (call $fork))
        (drop (local.get $x)))
      (func $cost (param $x i32) (param $y i32) (result i32) (i32.add (i32.mul (local.get $x) (local.get $y)) (call $fork)))
      (func $none (drop (call $fork)))
      (func (export "run")
        (call $many (i32.const 1) (i32.const 2)) (drop (call $cost (i32.const 1) (i32.const 2))) (call $none)))"#;
    let scratch = Scratch::with("in.wat", operands);
    let with = |replay: &str| {
        let options = ["in.wat", "-o", "out.wasm", "--fork-instrument", "--pass-arg=fork-instrument-verbose", replay];
        scratch.run(&[&ALL[..], &options].concat()).succeeded()
    };
    assert_eq!(
        with("--pass-arg=fork-instrument-replay@effects").operands(),
        [
            "many: 2 recomputed, 1 read from a local, 3 spilled (1 call, 1 trap, 1 mutable state)",
            "cost: 1 spilled (1 cost)"
        ]
    );
    assert_eq!(
        with("--pass-arg=fork-instrument-replay@none").operands(),
        ["many: 6 spilled (1 call, 1 side effect, 1 trap, 1 mutable state, 2 option)", "cost: 1 spilled (1 option)"]
    );
}

#[test]
fn without_verbose_the_pass_is_silent() {
    let session = Session::new();
    let run = session.0.run(&[&ALL[..], &["in.wat", "--fork-instrument", "-o", "out.wasm"]].concat()).succeeded();
    assert_eq!(run.stderr, "");
    assert!(run.stdout.is_empty());
}

#[test]
fn verbose_changes_nothing_in_the_output() {
    let session = Session::new();
    session.with("verbose@0").succeeded();
    let silent = session.0.read("out.wasm");
    session.with("verbose").succeeded();
    assert!(silent == session.0.read("out.wasm"));
}

#[test]
fn verify_changes_nothing_in_the_output() {
    let session = Session::new();
    session.with("verify@0").succeeded();
    let unverified = session.0.read("out.wasm");
    session.with("verify").succeeded();
    assert!(unverified == session.0.read("out.wasm"));
}

const TWO_MEMORIES: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory $data 1)
  (memory $frames 1)
  (func (export "run") (param $x i32) (result i32) (i32.add (call $fork) (local.get $x))))"#;

#[test]
fn memory_chooses_where_frames_go() {
    for (chosen, other) in [("frames", "data"), ("data", "frames")] {
        let argument = format!("--pass-arg=fork-instrument-memory@{chosen}");
        let text = support::instrumented_text(TWO_MEMORIES, &[&argument]);
        assert!(text.contains(&format!("i32.store ${chosen} ")), "no store to {chosen}:\n{text}");
        assert!(!text.contains(&format!("i32.store ${other} ")), "a store to {other}:\n{text}");
    }
}

#[test]
fn memories_can_be_named_as_they_are_exported() {
    let exported = TWO_MEMORIES.replace("(memory $frames 1)", r#"(memory $frames (export "stack") 1)"#);
    let text = support::instrumented_text(&exported, &["--pass-arg=fork-instrument-memory@stack"]);
    assert!(text.contains("i32.store $frames ") && !text.contains("i32.store $data "), "{text}");
    // The internal name goes before the export's.
    let crossed = exported.replace(r#""stack""#, r#""data""#);
    let text = support::instrumented_text(&crossed, &["--pass-arg=fork-instrument-memory@data"]);
    assert!(text.contains("i32.store $data ") && !text.contains("i32.store $frames "), "{text}");
}

#[test]
fn a_memory_that_is_not_there_is_an_error_that_names_those_that_are() {
    let session =
        Session(Scratch::with("in.wat", TWO_MEMORIES.replace("(memory $data", r#"(memory $data (export "m")"#)));
    let message = session.refuses("memory@heap");
    for name in ["heap", "data (exported as m)", "frames"] {
        assert!(message.contains(name), "{message}");
    }
}

/// A function of the fork path in an exported table, and one in the same table that is not.
const ROOTS: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory 1)
  (table $threads (export "threads") 3 funcref)
  (elem (table $threads) (i32.const 0) func $first $second $other)
  (func $first (result i32) (call $fork))
  (func $second (result i32) (i32.add (call $fork) (i32.const 1)))
  (func $other (result i32) (i32.const 1)))"#;

/// Whether a function looks at the state before anything else.
fn tests_on_entry(module: &str, function: &str) -> bool {
    let body = function_text(module, function);
    let test = body.find("global.get $fork.state");
    test.is_some_and(|at| at < body.find("call $fork)").expect("it calls the entry"))
}

#[test]
fn functions_in_exported_tables_are_roots() {
    let text = support::instrumented_text(ROOTS, &[]);
    assert!(tests_on_entry(&text, "first") && tests_on_entry(&text, "second"), "{text}");
}

#[test]
fn roots_leaves_only_the_named_functions_enterable_through_a_table() {
    let text = support::instrumented_text(ROOTS, &["--pass-arg=fork-instrument-roots@second"]);
    assert!(!tests_on_entry(&text, "first") && tests_on_entry(&text, "second"), "{text}");
    let text = support::instrumented_text(ROOTS, &["--pass-arg=fork-instrument-roots@none*"]);
    assert!(!tests_on_entry(&text, "first") && !tests_on_entry(&text, "second"), "{text}");
}

#[test]
fn roots_that_are_not_there_are_refused() {
    let scratch = Scratch::with("in.wat", ROOTS);
    let pass = ["--fork-instrument", "--pass-arg=fork-instrument-roots@second,thirdd", "-o", "out.wasm"];
    let message = scratch.run(&[&ALL[..], &["in.wat"], &pass].concat()).refused();
    assert!(message.contains("roots@thirdd: no function has this name"), "{message}");
}

#[test]
fn functions_that_exported_globals_can_hold_are_roots() {
    let without = ROOTS.replace(r#" (export "threads")"#, "");
    for (global, is_open) in [
        (r#"(global (export "thread") (mut funcref) (ref.func $first))"#, true),
        (r#"(global (import "env" "thread") (mut funcref))"#, true),
        (r#"(global $thread funcref (ref.func $first))"#, false),
        (r#"(global (export "thread") (mut i32) (i32.const 0))"#, false),
    ] {
        let at = without.find("(memory").expect("it has one");
        let text = support::instrumented_text(
            &format!("{}{global}{}", &without[..at], &without[at..]),
            &["--pass-arg=fork-instrument-refs@tables"],
        );
        assert_eq!(tests_on_entry(&text, "first"), is_open, "{global}: {text}");
    }
}

#[test]
fn a_list_given_twice_is_refused_unless_it_is_the_same() {
    let run = |arguments: &[&str]| Session::new().run(arguments);
    for list in ["entry", "roots", "onlylist", "addlist", "removelist"] {
        let arguments = ["a.b", "c.d"].map(|name| format!("--pass-arg=fork-instrument-{list}@{name}"));
        let message = run(&[&arguments[0], "--fork-instrument", &arguments[1]]).refused();
        assert!(message.contains(&arguments[1]) && message.contains("a.b: write all names in one"), "{message}");
        let bare = arguments.each_ref().map(|argument| argument.strip_prefix("--pass-arg=").expect("its start"));
        let message = run(&["--fork-instrument", "-pa", bare[0], "--pass-arg", bare[1]]).refused();
        assert!(message.contains(&arguments[1]), "{message}");
    }
    let entry = "fork-instrument-entry@kernel.kernel_fork";
    run(&["--fork-instrument", "-pa", entry, "-pa", entry]).succeeded();
}

#[test]
fn functions_in_a_table_of_the_module_alone_are_no_roots() {
    let wat = ROOTS.replace(r#" (export "threads")"#, "");
    let text = support::instrumented_text(&wat, &[]);
    assert!(!tests_on_entry(&text, "first"), "{text}");
}

#[test]
fn a_closed_world_of_several_modules_is_refused() {
    for option in ["resume@second.wasm", "export-globals", "import-globals"] {
        let argument = format!("--pass-arg=fork-instrument-{option}");
        let message = Session::new().run(&["--closed-world", "--fork-instrument", &argument]).refused();
        assert!(message.contains("--closed-world") && message.contains(&argument[..25]), "{message}");
    }
    let session = Session::new();
    session.run(&["--closed-world", "--fork-instrument", "-O3"]).succeeded();
    validate(&session.0.read("out.wasm"));
}

#[test]
fn a_closed_world_of_several_modules_is_refused_in_later_commands_too() {
    for (option, outputs) in [
        ("resume@second.wasm", &["out.wasm", "second.wasm"][..]),
        ("export-globals", &["out.wasm"]),
        ("import-globals", &["out.wasm"]),
    ] {
        let session = Session::new();
        session.run(&["--fork-instrument", &format!("--pass-arg=fork-instrument-{option}")]).succeeded();
        for output in outputs {
            for (format, ending) in [("--emit-text", "wat"), ("-g", "wasm")] {
                let later = &format!("{output}.later.{ending}");
                let optimize = [output, "-all", "-O2", format, "-o", later];
                let message = session.0.run(&[&optimize[..], &["--closed-world"]].concat()).refused();
                assert!(message.contains("--closed-world") && message.contains(later), "{message}");
                assert!(!session.0.has(later), "{option}: {later}");
                session.0.run(&optimize).succeeded();
                // A text is an input, too.
                let message = session.0.run(&[later, "-all", "-O2", "-cw", "-o", "latest.wasm"]).refused();
                assert!(message.contains("--closed-world") && !session.0.has("latest.wasm"), "{message}");
            }
        }
    }
    let session = Session::new();
    session.run(&["--fork-instrument"]).succeeded();
    session.0.run(&["out.wasm", "-all", "-O2", "--closed-world", "-o", "later.wasm"]).succeeded();
}

/// Binaryen's passes that leave a pair of modules as it was when only one of the two goes through them.
const OF_ONE_MODULE: &str = "
    abstract-type-refining avoid-reinterprets cfp cfp-reftest coalesce-locals coalesce-locals-learning code-folding code-pushing
    const-hoisting constraint-analysis dae dae-optimizing dae2 dce dealign dfo directize discard-global-effects
    duplicate-function-elimination duplicate-import-elimination dwarfdump emit-target-features flatten fork-instrument func-metrics
    generate-global-effects global-refining gsi gsi-desc-cast gto gufa gufa-cast-all gufa-optimizing heap-store-optimization
    heap2local inline-main inlining inlining-optimizing licm limit-segments local-cse local-subtyping memory-packing merge-blocks
    merge-j2cl-itables merge-locals merge-similar-functions metrics minimize-rec-groups monomorphize monomorphize-always name-types
    nm no-full-inline no-inline no-partial-inline once-reduction optimize-added-constants optimize-added-constants-propagate
    optimize-casts optimize-for-js optimize-instructions optimize-j2cl outlining pick-load-signs precompute precompute-propagate
    print print-boundary print-call-graph print-features print-full print-function-map print-minified propagate-debug-locs
    propagate-globals-globally remove-unused-brs remove-unused-module-elements remove-unused-names
    remove-unused-nonfunction-module-elements remove-unused-types reorder-functions reorder-functions-by-name reorder-globals
    reorder-locals reorder-types rereloop roundtrip rse signature-pruning signature-refining simplify-globals
    simplify-globals-optimizing simplify-locals simplify-locals-nonesting simplify-locals-nostructure simplify-locals-notee
    simplify-locals-notee-nostructure souperify souperify-single-use ssa ssa-nomerge string-gathering strip strip-debug strip-dwarf
    strip-producers strip-target-features strip-toolchain-annotations symbolmap tuple-optimization type-finalizing type-merging
    type-refining type-refining-gufa type-ssa type-unfinalizing unsubtyping untee vacuum";

#[test]
fn every_pass_is_for_one_of_two_modules_or_for_both() {
    let help = Session::new().0.run(&["--help"]).text();
    let (_, passes) = help.split_once("Optimization passes:").expect("passes have a heading");
    let (passes, _) = passes.split_once("Optimization options:").expect("they end");
    let names = passes.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next());
    let passes: BTreeSet<&str> = names.filter(|name| !name.starts_with('-')).collect();
    let of_all = fork_instrument::options::later::OF_ALL_MODULES.iter().copied();
    let known: BTreeSet<&str> = OF_ONE_MODULE.split_whitespace().chain(of_all).collect();
    assert!(passes.len() > 150, "{passes:?}");
    assert_eq!(passes.symmetric_difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn later_passes_that_would_change_one_of_two_modules_only_are_refused() {
    let session = Session::new();
    let resume = "--pass-arg=fork-instrument-resume@second.wasm";
    for pass in ["--trap-mode-clamp", "--fpcast-emu", "--set-globals=x=1"] {
        let message = session.run(&["--fork-instrument", pass, resume]).refused();
        let name = pass.split('=').next().expect("it has a name");
        assert!(message.contains(&format!("{name} comes later")) && message.contains("second.wasm"), "{message}");
        assert!(!session.0.has("out.wasm") && !session.0.has("second.wasm"));
    }
    let message = session.run(&["--emit-exnref", "--fork-instrument", resume]).refused();
    assert!(message.contains("put --translate-to-exnref before"), "{message}");
    let repeated = ["--trap-mode-clamp", "--fork-instrument", resume, "-O2", "--converge"];
    assert!(session.run(&repeated).refused().contains("in a command without --converge"));
    session.run(&["--emit-exnref", "-O2", resume]).succeeded();
    session.run(&["--trap-mode-clamp", "--fork-instrument", resume, "-O2", "--strip-debug"]).succeeded();
    session.run(&["--fork-instrument", "--trap-mode-clamp"]).succeeded();
}

#[test]
fn later_passes_that_would_break_forks_are_refused() {
    let lowerings = ["--memory64-lowering", "--multi-memory-lowering", "--multi-memory-lowering-with-bounds-checks"];
    for pass in ["--spill-pointers", "--stack-check"].into_iter().chain(lowerings) {
        let session = Session::new();
        let message = session.run(&["--fork-instrument", pass]).refused();
        assert!(message.contains(&format!("{pass} comes later")), "{message}");
        assert!(message.contains("Put it before --fork-instrument"), "{message}");
        let repeated = session.run(&[pass, "--fork-instrument", "-O2", "--converge"]).refused();
        assert!(repeated.contains("in a command without --converge"), "{repeated}");
        assert!(!session.0.has("out.wasm"));
        let program = Scratch::with(
            "in.wat",
            MODULE.replacen("(memory", "(global $__stack_pointer (mut i32) (i32.const 99)) (memory", 1),
        );
        program.run(&["in.wat", "-all", "-g", "--fork-instrument", "-o", "out.wasm"]).succeeded();
        for (format, ending) in [("--emit-text", "wat"), ("-g", "wasm")] {
            let later = format!("later.{ending}");
            let message = program.run(&["out.wasm", "-all", pass, format, "-o", &later]).refused();
            assert!(message.contains("is instrumented") && message.contains(pass), "{message}");
            assert!(!program.has(&later));
        }
        // Without ours, Binaryen's passes are nobody's.
        let others = ["(module (memory 1) (global $__stack_pointer (mut i32) (i32.const 9)))", "other.wat"];
        session.0.write(others[1], others[0]);
        session.0.run(&[others[1], "-all", pass, "-o", "other.wasm"]).succeeded();
    }
    Session::new().run(&["--memory64-lowering", "--fork-instrument"]).succeeded();
}

#[test]
fn a_resume_file_that_the_command_line_names_elsewhere_is_refused() {
    let session = Session::new();
    session.0.write("list", "kernel.kernel_fork");
    for (file, others) in [
        ("in.wat", &[][..]),
        ("./in.wat", &[]),
        ("map", &["--symbolmap=./map"]),
        ("./map", &["-osm", "map"]),
        ("list", &["--pass-arg=fork-instrument-entry@@list"]),
        // Binaryen hands on the last.
        ("in.wat", &["--pass-arg=fork-instrument-resume@second.wasm", "--pass-arg=fork-instrument-resume@in.wat"]),
    ] {
        let resume = format!("--pass-arg=fork-instrument-resume@{file}");
        let message = session.run(&[&["--fork-instrument", &resume], others].concat()).refused();
        assert!(message.contains("names that file elsewhere"), "{message}");
        assert_eq!(session.0.files(), ["in.wat", "list"], "{file}");
    }
    assert_eq!(session.0.read_text("in.wat"), MODULE);
    // A value that is no file.
    session.run(&["--fork-instrument", "--pass-arg=fork-instrument-resume@2", "-ol", "2"]).succeeded();
    assert!(session.0.has("2"));
}

#[test]
fn exported_functions_that_hosts_can_get_otherwise_are_those_functions() {
    let opened = r#"(table (export "table") 2 funcref) (elem (i32.const 0) $callback)"#;
    let handed = r#"(import "env" "take" (func $take (param funcref)))
        (func (export "give") (call $take (ref.func $callback)))"#;
    for (more, options) in [(opened, &["--pass-arg=fork-instrument-roots@main"][..]), (handed, &[])] {
        let (imports, rest) =
            if more.starts_with("(import") { more.split_at(more.find('\n').unwrap()) } else { ("", more) };
        let module = format!(
            r#"(module (import "kernel" "kernel_fork" (func $fork (result i32))) {imports} (memory (export "memory") 1) {rest}
                (func $callback (export "callback") (result i32) (call $fork))
                (func $main (export "main") (result i32) (call $callback)))"#
        );
        let scratch = Scratch::with("in.wat", module);
        let pass = ["in.wat", "--fork-instrument", "-S", "-o", "out.wat"];
        scratch.run(&[&ALL[..], &pass, options].concat()).succeeded();
        let text = scratch.read_text("out.wat");
        assert!(text.contains(r#"(export "callback" (func $callback))"#), "{text}");
    }
}

#[test]
fn options_of_other_passes_are_left_alone() {
    let session = Session::new();
    let run = session.run(&["--fork-instrument", "--pass-arg=asyncify-imports@a.b", "--pass-arg=forked@x"]).succeeded();
    assert_eq!(run.fork_path(), PATH);
}

#[test]
fn options_of_ours_without_the_pass_are_nobodys() {
    let session = Session::new();
    session.0.run(&["in.wat", "-all", "--vacuum", "--pass-arg=fork-instrument-entry@x", "-o", "out.wasm"]).succeeded();
    assert!(session.0.has("out.wasm"));
}
