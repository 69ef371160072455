//! The tool is Binaryen's `wasm-opt`: without our pass it writes the same bytes, and with it nothing that a module
//! carries is lost.

mod support;

use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::thread;

use support::binary::{self, Mapping, Names, custom, validate};
use support::{ALL, EXPORTS, Scratch, function_text, in_repository, read_in_repository};

const PASSES: [&str; 5] = ["", "-O0", "-O2", "-Oz", "--asyncify"];
const FORMS: [&str; 3] = ["", "-S", "-g"];
const ANNOTATED: &str = include_str!("wasm_opt/annotated.wat");

/// Runs both tools on `in.wasm`, and compares all that they do.
#[track_caller]
fn compare(scratch: &Scratch, arguments: &[&str]) {
    let outputs = ["out", "out.map"];
    let observe = |run: support::Run| {
        let files = outputs.map(|name| {
            let contents = scratch.has(name).then(|| scratch.read(name));
            let _ = std::fs::remove_file(scratch.path(name));
            contents
        });
        (run.status.code(), run.stdout, files, run.stderr)
    };
    let (status, stdout, files, stderr) = observe(scratch.run(arguments));
    let reference = observe(scratch.reference(arguments));
    assert_eq!(status, reference.0, "status of {arguments:?}: {stderr}\nreference: {}", reference.3);
    assert!(stdout == reference.1, "standard output of {arguments:?} differs");
    for (name, (file, reference)) in outputs.iter().zip(files.iter().zip(&reference.2)) {
        assert_eq!(file.is_some(), reference.is_some(), "only one tool writes {name} for {arguments:?}");
        assert!(file == reference, "{name} differs for {arguments:?}");
    }
}

/// A binary with names, behind custom sections in unusual places.
fn with_custom_sections(scratch: &Scratch, input: &str) {
    scratch.run(&[&ALL, &[input, "-g", "-o", "in.wasm"][..]].concat()).succeeded();
    let plain = scratch.read("in.wasm");
    let mut module = plain[..8].to_vec();
    module.extend(custom("first", b"before everything"));
    module.extend(&plain[8..]);
    module.extend(custom("empty", b""));
    module.extend(custom("producers", b"\x00"));
    module.extend(custom("twice", b"one"));
    module.extend(custom("twice", b"\xff\x00two"));
    scratch.write("in.wasm", module);
}

#[track_caller]
fn assert_drop_in(scratch: &Scratch, passes: &[&str]) {
    for pass in passes {
        for form in FORMS {
            let mut arguments = ALL.to_vec();
            arguments.extend(["in.wasm", pass, form, "-o", "out"].iter().filter(|a| !a.is_empty()));
            compare(scratch, &arguments);
        }
    }
}

#[track_caller]
fn fixture_is_written_as_by_binaryen(path: &str) {
    let scratch = Scratch::with("in.wat", read_in_repository(path));
    with_custom_sections(&scratch, "in.wat");
    assert_drop_in(&scratch, &PASSES);
}

#[test]
fn recursion_is_written_as_by_binaryen() {
    fixture_is_written_as_by_binaryen("examples/benchmark_walk.wat");
}

#[test]
fn an_interpreter_loop_is_written_as_by_binaryen() {
    fixture_is_written_as_by_binaryen("tests/fixtures/shapes/loop_interpreter_br_table.wat");
}

#[test]
fn simd_is_written_as_by_binaryen() {
    fixture_is_written_as_by_binaryen("tests/fixtures/features/simd_locals_results_and_memory.wat");
}

#[test]
fn gc_is_written_as_by_binaryen() {
    fixture_is_written_as_by_binaryen("tests/fixtures/features/gc_landing_as_field_of_new_struct.wat");
}

#[test]
fn exceptions_are_written_as_by_binaryen() {
    let scratch = Scratch::with("in.wat", read_in_repository("tests/fixtures/shapes/try_several_clauses.wat"));
    with_custom_sections(&scratch, "in.wat");
    // Asyncify takes none.
    assert_drop_in(&scratch, &PASSES[..4]);
}

#[test]
fn several_memories_are_written_as_by_binaryen() {
    let path = "tests/fixtures/features/memory64_and_table64_with_memory32_data.wat";
    let scratch = Scratch::with("in.wat", read_in_repository(path));
    with_custom_sections(&scratch, "in.wat");
    assert_drop_in(&scratch, &PASSES[..4]);
}

#[test]
fn a_compiled_program_is_written_as_by_binaryen() {
    let scratch = Scratch::new();
    compile(&scratch, "examples/kvstore_snapshot.c", &["-O0"], &[]);
    std::fs::rename(scratch.path("out.wasm"), scratch.path("program.wasm")).expect("a rename within a folder");
    with_custom_sections(&scratch, "program.wasm");
    assert_drop_in(&scratch, &PASSES);
}

#[test]
fn source_maps_are_written_as_by_binaryen() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    let map = ["in.wat", "-g", "-o", "in.wasm", "-osm", "in.map", "-osu", "in.map"];
    scratch.run(&[&ALL, &map[..]].concat()).succeeded();
    for pass in PASSES {
        for form in FORMS {
            let mut arguments = [&ALL, &["in.wasm", "-ism", "in.map"][..]].concat();
            arguments.extend([pass, form].iter().filter(|a| !a.is_empty()));
            arguments.extend(["-o", "out", "-osm", "out.map", "-osu", "https://example.org/out.map"]);
            compare(&scratch, &arguments);
        }
    }
}

#[test]
fn text_becomes_the_binary_that_binaryen_writes() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    compare(&scratch, &["in.wat", "-all", "-o", "out"]);
    compare(&scratch, &["in.wat", "-all", "-g", "-o", "out", "-osm", "out.map"]);
    compare(&scratch, &["in.wat", "-all", "--print"]);
}

#[test]
fn pass_arguments_of_other_passes_read_files_as_binaryens_do() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    scratch.write("imports.txt", "kernel.kernel_fork\nwasi_snapshot_preview1.*\n");
    let argument = "--pass-arg=asyncify-imports@@imports.txt";
    compare(&scratch, &["in.wat", "--asyncify", argument, "-o", "out"]);
    compare(&scratch, &["in.wat", "--asyncify", "--pass-arg", "asyncify-imports@@imports.txt", "-S", "-o", "out"]);
    scratch.run(&["in.wat", "--asyncify", argument, "-o", "listed"]).succeeded();
    scratch.run(&["in.wat", "--asyncify", "--pass-arg=asyncify-imports@a.b", "-o", "unlisted"]).succeeded();
    assert_ne!(scratch.read("listed"), scratch.read("unlisted"), "the file was not read");
}

#[test]
fn errors_have_the_status_and_message_of_binaryens() {
    let scratch = Scratch::with("in.wat", "(module (func (result v128) (v128.const i64x2 0 0)))");
    scratch.write("broken.wat", "(module (func");
    for arguments in [
        &["in.wat", "-o", "out"][..],
        &["broken.wat", "-o", "out"],
        &["missing.wasm", "-o", "out"],
        &["@arguments", "-o", "out"],
        &["--no-such-option"],
        &["in.wat", "in.wat"],
        &["in.wat", "-all", "--pass-arg=asyncify@x", "-o", "out"],
    ] {
        let (ours, reference) = (scratch.run(arguments), scratch.reference(arguments));
        assert_eq!(ours.status.code(), reference.status.code(), "{arguments:?}: {}", ours.stderr);
        assert_eq!(ours.stderr, reference.stderr, "{arguments:?}");
        assert!(!scratch.has("out"), "{arguments:?} left an output");
    }
}

#[test]
fn a_file_name_that_is_not_utf_8_is_opened() {
    let scratch = Scratch::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.wat");
    std::fs::write(scratch.path("").join(name), ANNOTATED).expect("file names are bytes");
    let output = scratch.command().args([name, "-o".as_ref(), "out".as_ref()]).output().expect("wasm-opt starts");
    support::Run::from(output).succeeded();
    validate(&scratch.read("out"));
}

#[test]
fn standard_input_is_read_and_standard_output_is_written() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    scratch.run(&["in.wat", "--fork-instrument", "-o", "file.wasm"]).succeeded();
    let input = std::fs::File::open(scratch.path("in.wat")).expect("the file is there");
    let output = scratch.command().args(["-", "--fork-instrument", "-o", "-"]).stdin(input).output();
    let run = support::Run::from(output.expect("wasm-opt starts")).succeeded();
    // Binaryen writes text to standard output in text mode only.
    assert!(run.stdout == scratch.read("file.wasm"), "standard output is not what a file gets");
}

#[test]
fn help_describes_the_pass_and_all_that_binaryens_describes() {
    let scratch = Scratch::new();
    let help = scratch.run(&["--help"]).succeeded().text();
    let line = help.lines().position(|line| line.trim_start().starts_with("--fork-instrument "));
    let line = line.expect("--help lists the pass");
    let description: Vec<&str> = help.lines().skip(line).take_while(|l| !l.trim().is_empty()).collect();
    let description = description.join("\n");
    assert!(description.contains("fork"), "{description}");
    for option in ["entry@", "onlylist@", "addlist@", "removelist@", "roots@", "memory@", "ignore-indirect", "verbose"]
    {
        assert!(description.contains(&format!("fork-instrument-{option}")), "no {option} in {description}");
    }
    let reference = scratch.reference(&["--help"]).text();
    for line in reference.lines() {
        assert!(help.lines().any(|l| l == line), "--help lacks Binaryen's line {line:?}");
    }
}

#[test]
fn version_is_binaryens() {
    let version = Scratch::new().run(&["--version"]).succeeded().text();
    let (name, number) = version.trim().split_once(" version ").expect("NAME version NUMBER");
    assert_eq!(name, "wasm-opt");
    assert_eq!(number.split(' ').next(), Some("132"), "{version}");
}

// With the pass.

#[track_caller]
fn assert_instrumented(module: &[u8]) {
    validate(module);
    let exports = binary::exports(module);
    for name in EXPORTS {
        assert!(exports.iter().any(|e| e == name), "no export {name} in {exports:?}");
    }
}

#[test]
fn the_pass_runs_anywhere_in_a_pipeline() {
    for pipeline in [
        &["--fork-instrument"][..],
        &["-O2", "--fork-instrument"],
        &["--fork-instrument", "-O2"],
        &["--fork-instrument", "-Oz"],
        &["-O2", "--fork-instrument", "-O2"],
        &["-O3", "--fork-instrument", "-O4", "--vacuum"],
        &["--flatten", "-O3", "--fork-instrument", "--flatten", "-O3"],
        &["--dce", "--vacuum", "--fork-instrument", "--precompute"],
    ] {
        let scratch = Scratch::with("in.wat", ANNOTATED);
        scratch.run(&[&["in.wat"], pipeline, &["-o", "out.wasm"]].concat()).succeeded();
        assert_instrumented(&scratch.read("out.wasm"));
    }
}

/// Where size counts, helpers store frames; so they do where those check something, or other modules share the position.
#[test]
fn frames_are_stored_in_line_unless_size_counts() {
    let wat = r#"(module
      (import "kernel" "kernel_fork" (func $fork (result i32)))
      (memory (export "memory") 1)
      (func $inner (export "inner") (param $kept i32) (result i32) (drop (call $fork)) (local.get $kept)))"#;
    let scratch = Scratch::with("in.wat", wat);
    let cases = [
        (&["--fork-instrument"][..], true),
        (&["-O2", "--fork-instrument", "-O2"], true),
        (&["--fork-instrument", "--shrink-level=1"], false),
        (&["-Oz", "--fork-instrument"], false),
        (&["--fork-instrument", "--pass-arg=fork-instrument-asserts"], false),
        (&["--fork-instrument", "--pass-arg=fork-instrument-export-globals"], false),
    ];
    for (pipeline, in_line) in cases {
        scratch
            .run(&[&["in.wat", "-g", "--enable-reference-types"], pipeline, &["-S", "-o", "out.wat"]].concat())
            .succeeded();
        let text = String::from_utf8(scratch.read("out.wat")).expect("it is text");
        let own = text.split("\n (func ").find(|function| function.starts_with("$inner ")).expect("it is there");
        assert_eq!(own.contains("i32.store"), in_line, "{pipeline:?}: {own}");
        assert_eq!(own.contains("(call $fork.push_i32x1"), !in_line, "{pipeline:?}: {own}");
    }
}

/// Equal functions share a resume function: what their frames take in line counts for each of them.
#[test]
fn frames_of_many_equal_functions_are_not_in_line() {
    for (count, in_line) in [(2, true), (1000, false)] {
        let equal = |i| {
            format!("(func $f{i} (export \"f{i}\") (param $x i32) (result i32) (i32.add (call $fork) (local.get $x)))")
        };
        let functions: String = (0..count).map(equal).collect();
        let import = r#"(import "kernel" "kernel_fork" (func $fork (result i32)))"#;
        let scratch = Scratch::with("in.wat", format!("(module {import} (memory 1) {functions})"));
        scratch.run(&["in.wat", "--fork-instrument", "-S", "-o", "out.wat"]).succeeded();
        let text = String::from_utf8(scratch.read("out.wat")).expect("it is text");
        assert_eq!(text.contains("i32.store16 offset=4"), in_line, "{count} functions");
    }
}

#[test]
fn passes_that_are_repeated_until_nothing_shrinks_instrument_once() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    scratch.run(&["in.wat", "-O2", "--fork-instrument", "-O2", "--converge", "-o", "out.wasm"]).succeeded();
    assert_instrumented(&scratch.read("out.wasm"));
}

#[test]
fn passes_that_are_repeated_do_not_take_an_instrumented_module_for_their_own() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    scratch.run(&["in.wat", "--fork-instrument", "-o", "out.wasm"]).succeeded();
    let resume = "--pass-arg=fork-instrument-resume@second.wasm";
    let run = scratch.run(&["out.wasm", "--fork-instrument", resume, "-O2", "--converge", "-o", "again.wasm"]);
    assert!(run.refused().contains("already instrumented"));
    scratch.run(&["in.wat", "--fork-instrument", resume, "-O2", "--converge", "-o", "again.wasm"]).succeeded();
    assert!(scratch.has("second.wasm"));
}

#[test]
fn the_pass_runs_at_its_place_in_the_pipeline() {
    let wat = r#"(module
      (import "kernel" "kernel_fork" (func $fork (result i32)))
      (memory (export "memory") 1)
      (func $unused (drop (call $fork)))
      (func $run (export "run") (result i32) (call $fork)))"#;
    let scratch = Scratch::with("in.wat", wat);
    let verbose = "--pass-arg=fork-instrument-verbose";
    let after = scratch.run(&["in.wat", "-O2", "--fork-instrument", verbose, "-o", "out"]).succeeded();
    assert_eq!(after.fork_path(), ["run calls kernel.kernel_fork"]);
    let before = scratch.run(&["in.wat", "--fork-instrument", "-O2", verbose, "-o", "out"]).succeeded();
    assert_eq!(before.fork_path(), ["unused calls kernel.kernel_fork", "run calls kernel.kernel_fork"]);
}

#[test]
fn pass_arguments_are_taken_before_and_after_the_pass_and_repeatedly() {
    let wat = r#"(module
      (import "env" "fork" (func $fork (result i32)))
      (memory $small 1)
      (memory $frames 1)
      (func $off (export "off") (drop (call $fork)))
      (func $run (export "run") (drop (call $fork))))"#;
    let scratch = Scratch::with("in.wat", wat);
    let arguments = [
        "--pass-arg=fork-instrument-entry@env.fork",
        "-pa",
        "fork-instrument-memory@frames",
        "--fork-instrument",
        "--pass-arg",
        "fork-instrument-removelist@off",
        "--pass-arg=fork-instrument-verbose",
    ];
    let run = scratch.run(&[&ALL, &["in.wat", "-o", "out.wasm"], &arguments[..]].concat()).succeeded();
    assert_eq!(run.fork_path(), ["run calls env.fork"]);
    assert_instrumented(&scratch.read("out.wasm"));
}

#[test]
fn the_pass_twice_in_a_pipeline_is_refused() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    let message = scratch.run(&["in.wat", "--fork-instrument", "--fork-instrument", "-o", "out"]).refused();
    assert!(message.contains("the option is given twice"), "{message}");
    assert!(!scratch.has("out"));
}

#[test]
fn skip_pass_skips_it() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    let skip = ["in.wat", "--fork-instrument", "--skip-pass=fork-instrument", "-o", "skipped"];
    scratch.run(&skip).succeeded();
    scratch.run(&["in.wat", "-o", "plain"]).succeeded();
    assert!(scratch.read("skipped") == scratch.read("plain"));
}

/// The annotated module, instrumented; the source map beside it.
fn instrument_annotated(arguments: &[&str]) -> (Scratch, Vec<u8>) {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    scratch.run(&["in.wat", "-g", "-o", "in.wasm", "-osm", "in.map"]).succeeded();
    let files = ["in.wasm", "-ism", "in.map", "-o", "out.wasm", "-osm", "out.map", "--fork-instrument"];
    scratch.run(&[&files, arguments].concat()).succeeded();
    let module = scratch.read("out.wasm");
    assert_instrumented(&module);
    (scratch, module)
}

#[test]
fn custom_sections_survive_the_pass() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    with_custom_sections(&scratch, "in.wat");
    let before = binary::custom_sections(&scratch.read("in.wasm"));
    scratch.run(&[&ALL, &["in.wasm", "-g", "--fork-instrument", "-o", "out.wasm"][..]].concat()).succeeded();
    let module = scratch.read("out.wasm");
    assert_instrumented(&module);
    let kept = |sections: Vec<(String, Vec<u8>)>| -> Vec<(String, Vec<u8>)> {
        sections.into_iter().filter(|(name, _)| name != "name" && name != "fork-instrument.abi").collect()
    };
    assert_eq!(kept(before.clone()), kept(binary::custom_sections(&module)));
    assert!(kept(before).len() >= 5, "the sections were not there to begin with");
}

#[test]
fn the_module_carries_the_version_of_the_contract() {
    let (_scratch, module) = instrument_annotated(&[]);
    let section = binary::custom_section(&module, "fork-instrument.abi").expect("the section");
    let source = read_in_repository("src/abi.rs");
    let version = source.lines().find_map(|l| l.strip_prefix("pub const VERSION: u32 = ")).expect("a version");
    assert_eq!(section, binary::leb(version.trim_end_matches(';').parse().expect("a number")));
}

#[test]
fn the_features_section_survives_the_pass_and_gains_nothing() {
    let scratch = Scratch::with("in.wat", ANNOTATED);
    for features in [&["-mvp", "--enable-sign-ext"][..], &["-mvp", "--enable-bulk-memory"], &["-all"]] {
        scratch.run(&[&["in.wat", "--emit-target-features", "-o", "in.wasm"], features].concat()).succeeded();
        scratch.run(&["in.wasm", "--vacuum", "-o", "plain.wasm"]).succeeded();
        scratch.run(&["in.wasm", "--fork-instrument", "-o", "out.wasm"]).succeeded();
        let section = |file: &str| binary::custom_section(&scratch.read(file), "target_features");
        assert!(section("plain.wasm").is_some());
        assert_eq!(section("plain.wasm"), section("out.wasm"), "{features:?}");
        assert_instrumented(&scratch.read("out.wasm"));
    }
}

#[test]
fn data_survives_the_pass() {
    let (_scratch, module) = instrument_annotated(&[]);
    assert_eq!(binary::data(&module), [b"hello, child"]);
}

#[test]
fn names_of_functions_and_locals_survive_the_pass() {
    let (_scratch, module) = instrument_annotated(&["-g"]);
    let names = Names::of(&module);
    assert_eq!(names.locals_of("deep"), ["kept", "x"]);
    assert_eq!(names.locals_of("run"), ["depth"]);
    assert_eq!(names.locals_of("unrelated"), ["first", "second"]);
}

#[test]
fn resume_functions_carry_the_names_of_saved_locals() {
    let (_scratch, module) = instrument_annotated(&["-g"]);
    let names = Names::of(&module);
    assert!(names.locals_of("deep.resume").contains(&"kept"), "{:?}", names.locals_of("deep.resume"));
    assert!(names.locals_of("run.resume").contains(&"depth"), "{:?}", names.locals_of("run.resume"));
}

#[test]
fn names_are_left_out_without_debug_info() {
    let (_scratch, module) = instrument_annotated(&[]);
    assert!(binary::custom_section(&module, "name").is_none());
}

/// Locations that a source map gives to the code of a function.
fn locations(scratch: &Scratch, module: &[u8], function: &str) -> Vec<String> {
    let range = binary::bodies(module)[&Names::of(module).index(function)].clone();
    let mappings = binary::mappings(&scratch.read_text("out.map"));
    let inside = |m: &&Mapping| range.contains(&m.offset);
    let mut found: Vec<String> = mappings.iter().filter(inside).filter_map(|m| m.location.clone()).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn the_source_map_covers_functions_as_before() {
    let (scratch, module) = instrument_annotated(&["-g"]);
    assert_eq!(locations(&scratch, &module, "deep"), ["deep.c:3:7", "deep.c:4:9", "deep.c:5:11"]);
    assert_eq!(locations(&scratch, &module, "run"), ["run.c:10:3", "run.c:11:5"]);
    assert_eq!(locations(&scratch, &module, "unrelated"), ["run.c:20:3"]);
}

#[test]
fn the_source_map_covers_resume_functions_from_the_landing_on() {
    let (scratch, module) = instrument_annotated(&["-g"]);
    assert_eq!(locations(&scratch, &module, "deep.resume"), ["deep.c:4:9", "deep.c:5:11"]);
}

#[test]
fn the_call_of_a_resume_function_has_the_location_of_the_landing() {
    let (scratch, module) = instrument_annotated(&["-g"]);
    assert_eq!(locations(&scratch, &module, "run.resume"), ["run.c:10:3", "run.c:11:5"]);
}

#[test]
fn injected_code_has_no_source() {
    let (scratch, module) = instrument_annotated(&["-g"]);
    for name in Names::of(&module).functions.values().filter(|n| n.starts_with("fork.")) {
        assert_eq!(locations(&scratch, &module, name), [""; 0], "{name}");
    }
    let names = Names::of(&module);
    let mappings = binary::mappings(&scratch.read_text("out.map"));
    let covers = |offset: usize| mappings.iter().rfind(|m| m.offset <= offset).and_then(|m| m.location.clone());
    for (index, body) in binary::bodies(&module) {
        if names.functions[&index].starts_with("fork.") {
            assert_eq!(covers(body.end - 1), None, "{} looks like user code", names.functions[&index]);
        }
    }
}

#[test]
fn locations_are_printed_in_text_output() {
    let (scratch, _module) = instrument_annotated(&["-g"]);
    let print = ["in.wasm", "-ism", "in.map", "-g", "--fork-instrument", "-S", "-o", "-"];
    let text = scratch.run(&print).succeeded().text();
    let resume = function_text(&text, "deep.resume");
    assert!(resume.contains(";;@ deep.c:4:9") && resume.contains(";;@ deep.c:5:11"), "{resume}");
    assert!(!resume.contains("deep.c:3:7"), "what precedes the landing is in the resume function:\n{resume}");
}

// Debug info.

fn compile(scratch: &Scratch, source: &str, options: &[&str], flags: &[&str]) {
    let run = Command::new(in_repository("scripts/build-wasm"))
        .args(options)
        .args([scratch.path("out.wasm"), in_repository(source)])
        .arg("--")
        .args(flags)
        .output()
        .expect("scripts/build-wasm starts");
    support::Run::from(run).succeeded();
}

/// DWARF goes through, or the tool says what to strip, and that helps.
#[track_caller]
fn debug_info_is_kept_or_named(version: &str, pass: &str) {
    let scratch = Scratch::new();
    compile(&scratch, "tests/wasm_opt/fork.c", &["-O1", "-g"], &[version]);
    let run = scratch.run(&["out.wasm", pass, "-g", "-o", "debug.wasm"]);
    if run.status.success() {
        validate(&scratch.read("debug.wasm"));
        return;
    }
    let message = run.refused();
    assert!(message.contains("--strip-dwarf"), "{message}");
    assert!(!scratch.has("debug.wasm"));
    scratch.run(&["out.wasm", "--strip-dwarf", pass, "-g", "-o", "debug.wasm"]).succeeded();
    validate(&scratch.read("debug.wasm"));
}

#[test]
fn dwarf_4_goes_through_the_pass_or_the_error_says_what_to_strip() {
    debug_info_is_kept_or_named("-gdwarf-4", "--fork-instrument");
}

#[test]
fn dwarf_5_goes_through_the_pass_or_the_error_says_what_to_strip() {
    debug_info_is_kept_or_named("-gdwarf-5", "--fork-instrument");
}

#[test]
fn dwarf_goes_through_without_passes_or_the_error_says_what_to_strip() {
    thread::scope(|scope| {
        scope.spawn(|| debug_info_is_kept_or_named("-gdwarf-4", "--vacuum"));
        scope.spawn(|| debug_info_is_kept_or_named("-gdwarf-5", "--vacuum"));
    });
}

#[test]
fn stripped_debug_info_is_no_obstacle() {
    let scratch = Scratch::new();
    compile(&scratch, "tests/wasm_opt/fork.c", &["-O1", "-g"], &["-gdwarf-5"]);
    scratch.run(&["out.wasm", "--strip-dwarf", "--fork-instrument", "-g", "-o", "stripped.wasm"]).succeeded();
    let module = scratch.read("stripped.wasm");
    assert_instrumented(&module);
    assert!(binary::custom_sections(&module).iter().all(|(name, _)| !name.starts_with(".debug_")));
    assert!(Names::of(&module).functions.values().any(|n| n == "deep"), "names were stripped, too");
}
