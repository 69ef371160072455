//! Input that is wrong, hostile or large, and outputs that cannot be written: a message and status 1, never a signal, and
//! files are as before.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use support::binary::{self, custom, leb, list, module, section, sized, validate};
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

// Input.

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

// Output.

const OLD: &[u8] = b"what stood here before";

/// A folder with a good input, and an old output.
fn with_old_output() -> Scratch {
    let scratch = Scratch::with("in.wat", MODULE);
    scratch.write("out.wasm", OLD);
    scratch.write("out.map", OLD);
    scratch
}

#[track_caller]
fn assert_untouched(scratch: &Scratch, run: Run) {
    let message = run.refused();
    assert_eq!(scratch.files(), ["in.wat", "out.map", "out.wasm"], "files came or went: {message}");
    assert!(scratch.read("out.wasm") == OLD, "the old output was changed: {message}");
    assert!(scratch.read("out.map") == OLD, "the old source map was changed: {message}");
}

#[test]
fn an_error_of_the_pass_leaves_old_outputs_untouched() {
    let scratch = with_old_output();
    let files = ["in.wat", "-all", "--fork-instrument", "-o", "out.wasm", "-osm", "out.map"];
    for argument in
        ["--pass-arg=fork-instrument-entry@x", "--pass-arg=fork-instrument-memory@none", "--fork-instrument"]
    {
        assert_untouched(&scratch, scratch.run(&[&files[..], &[argument]].concat()));
    }
}

#[test]
fn an_error_in_the_input_leaves_old_outputs_untouched() {
    let scratch = with_old_output();
    scratch.write("in.wat", "(module (func (result i32)))");
    let run = scratch.run(&["in.wat", "--fork-instrument", "-o", "out.wasm", "-osm", "out.map"]);
    assert_untouched(&scratch, run);
}

#[test]
fn a_source_map_that_cannot_be_written_leaves_the_old_output_untouched() {
    let scratch = with_old_output();
    let run = scratch.run(&["in.wat", "-all", "--fork-instrument", "-o", "out.wasm", "-osm", "no/such/folder/out.map"]);
    assert_untouched(&scratch, run);
}

#[test]
fn an_output_that_cannot_be_written_leaves_the_old_source_map_untouched() {
    let scratch = with_old_output();
    let run = scratch.run(&["in.wat", "-all", "--fork-instrument", "-o", "no/such/folder/x.wasm", "-osm", "out.map"]);
    assert_untouched(&scratch, run);
}

#[test]
fn a_disk_that_is_full_leaves_old_outputs_untouched() {
    // A limit on the size of files, instead of a full file system: the shell makes it an error, not a signal.
    let wat = MODULE.replace("\"data\"", &format!("\"{}\"", "x".repeat(30_000)));
    for form in ["", "-S"] {
        let scratch = with_old_output();
        scratch.write("in.wat", &wat);
        let script = format!(
            "trap '' XFSZ; ulimit -f 8; exec \"$0\" in.wat -all {form} --fork-instrument -o out.wasm -osm out.map"
        );
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(support::wasm_opt()).current_dir(scratch.path(""));
        assert_untouched(&scratch, command.output().expect("sh starts").into());
    }
}

#[test]
fn a_device_that_is_full_is_an_error() {
    let scratch = Scratch::with("in.wat", MODULE);
    symlink("/dev/full", scratch.path("full")).expect("a symbolic link");
    let run = scratch.run(&["in.wat", "-all", "--fork-instrument", "-o", "full"]);
    let message = run.refused();
    assert!(message.contains("full"), "{message}");
    assert_eq!(scratch.files(), ["full", "in.wat"]);
}

#[test]
fn a_full_device_as_standard_output_is_an_error() {
    let scratch = Scratch::with("in.wat", MODULE);
    for form in [&["-o", "-"][..], &["-S", "-o", "-"], &["--print"]] {
        let full = fs::File::options().write(true).open("/dev/full").expect("Linux has /dev/full");
        let arguments = [&["in.wat", "-all", "--fork-instrument"], form].concat();
        let run: Run = scratch.command().args(arguments).stdout(full).output().expect("wasm-opt starts").into();
        run.refused();
    }
}

#[test]
fn a_reader_that_goes_away_is_an_error_without_a_crash() {
    // More than a pipe holds.
    let scratch = Scratch::with("in.wat", MODULE.replace("\"data\"", &format!("\"{}\"", "x".repeat(200_000))));
    let mut child = scratch
        .command()
        .args(["in.wat", "-all", "--fork-instrument", "-S", "-o", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wasm-opt starts");
    drop(child.stdout.take());
    let run: Run = child.wait_with_output().expect("wasm-opt ends").into();
    // The signal for a closed pipe is what every command may end by.
    use std::os::unix::process::ExitStatusExt;
    assert!(run.status.code() == Some(1) || run.status.signal() == Some(13), "{}\n{}", run.status, run.stderr);
}

#[test]
fn outputs_in_places_that_cannot_be_written_are_errors_that_name_them() {
    let scratch = Scratch::with("in.wat", MODULE);
    fs::create_dir(scratch.path("folder")).expect("a new folder");
    for place in ["no/such/folder/out.wasm", "folder", "folder/", "in.wat/out.wasm", "/proc/out.wasm", "/proc/version"]
    {
        let run = scratch.run(&["in.wat", "-all", "--fork-instrument", "-o", place]);
        let message = run.refused();
        assert!(message.contains(place.trim_end_matches('/')), "{message}");
        assert_eq!(scratch.files(), ["folder", "in.wat"]);
        assert_eq!(scratch.read_text("in.wat"), MODULE);
    }
}

#[test]
fn a_folder_without_write_permission_is_an_error() {
    let scratch = Scratch::with("in.wat", MODULE);
    let folder = scratch.path("folder");
    fs::create_dir(&folder).expect("a new folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).expect("our own folder");
    if fs::write(folder.join("probe"), "").is_ok() {
        // Permissions do not bind the superuser.
        return;
    }
    let run = scratch.run(&["in.wat", "-all", "--fork-instrument", "-o", "folder/out.wasm"]);
    assert!(run.refused().contains("folder/out.wasm"));
}

#[test]
fn an_output_equal_to_the_input_replaces_it() {
    for form in ["-S", "-g"] {
        let scratch = Scratch::with("in.wat", MODULE);
        let run = |output| scratch.run(&["in.wat", "-all", form, "--fork-instrument", "-o", output]);
        run("other").succeeded();
        run("in.wat").succeeded();
        assert!(scratch.read("in.wat") == scratch.read("other"));
    }
}

#[test]
fn an_error_leaves_an_input_that_is_the_output_untouched() {
    let scratch = Scratch::with("in.wat", MODULE);
    let run = scratch.run(&["in.wat", "-all", "--fork-instrument", "--fork-instrument", "-o", "in.wat"]);
    run.refused();
    assert_eq!(scratch.read_text("in.wat"), MODULE);
    assert_eq!(scratch.files(), ["in.wat"]);
}

#[test]
fn permission_bits_of_an_old_output_are_kept() {
    for mode in [0o600, 0o644, 0o755, 0o640] {
        let scratch = with_old_output();
        let path = scratch.path("out.wasm");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own file");
        instrument(&scratch, "in.wat").succeeded();
        let now = fs::metadata(&path).expect("the output is there").permissions().mode() & 0o777;
        assert_eq!(now, mode, "{now:o} instead of {mode:o}");
        validate(&scratch.read("out.wasm"));
    }
}

#[test]
fn a_new_output_has_the_permission_bits_that_any_new_file_has() {
    let scratch = Scratch::with("in.wat", MODULE);
    instrument(&scratch, "in.wat").succeeded();
    let mode = |name| fs::metadata(scratch.path(name)).expect("the file is there").permissions().mode();
    assert_eq!(mode("out.wasm"), mode("in.wat"));
}

#[test]
fn an_output_that_is_a_symbolic_link_stays_one() {
    let scratch = with_old_output();
    symlink("out.wasm", scratch.path("link")).expect("a symbolic link");
    symlink("new.wasm", scratch.path("dangling")).expect("a symbolic link");
    for link in ["link", "dangling"] {
        scratch.run(&["in.wat", "-all", "--fork-instrument", "-o", link]).succeeded();
        assert!(fs::symlink_metadata(scratch.path(link)).expect("it is there").is_symlink(), "{link} was replaced");
    }
    validate(&scratch.read("out.wasm"));
    validate(&scratch.read("new.wasm"));
}

#[test]
fn an_output_that_is_a_pipe_is_written_to() {
    let scratch = Scratch::with("in.wat", MODULE);
    instrument(&scratch, "in.wat").succeeded();
    let arguments = ["in.wat", "-all", "-g", "--fork-instrument", "-o", "/dev/stdout"];
    let run = scratch.run(&[&arguments[..], &ALL[1..]].concat()).succeeded();
    assert!(run.stdout == scratch.read("out.wasm"));
    assert_eq!(scratch.run(&[&arguments[..5], &["/dev/null"]].concat()).succeeded().stderr, "");
}

#[test]
fn nothing_but_the_outputs_is_left_in_the_folder() {
    let scratch = Scratch::with("in.wat", MODULE);
    scratch.run(&["in.wat", "-all", "--fork-instrument", "-o", "out.wasm", "-osm", "out.map"]).succeeded();
    assert_eq!(scratch.files(), ["in.wat", "out.map", "out.wasm"]);
}

#[test]
fn every_spelling_of_the_output_option_is_as_safe() {
    for output in [&["-o", "out.wasm"][..], &["-o=out.wasm"], &["--output", "out.wasm"], &["--output=out.wasm"]] {
        let scratch = with_old_output();
        let arguments = [&["in.wat", "-all", "--fork-instrument"], output].concat();
        let run = scratch.run(&[&arguments[..], &["--output-source-map=no/such/folder/x"]].concat());
        assert_untouched(&scratch, run);
        scratch.run(&arguments).succeeded();
        validate(&scratch.read("out.wasm"));
    }
}

#[test]
fn a_command_on_the_output_finds_it() {
    let scratch = Scratch::with("in.wat", MODULE);
    let command = "--extra-fuzz-command=wc -c <out.wasm";
    let run = scratch.run(&["in.wat", "-all", "--vacuum", "-o", "out.wasm", command]).succeeded();
    let size = scratch.read("out.wasm").len();
    assert!(run.text().contains(&size.to_string()), "not {size} bytes: {}", run.text());
}

// Size.

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
