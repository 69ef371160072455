//! Outputs that cannot be written, and what stood there before.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::support::binary::validate;
use crate::support::{self, ALL, Run, Scratch};
use crate::{MODULE, instrument};

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

#[test]
fn a_named_pipe_is_written_to() {
    let scratch = Scratch::with("in.wat", MODULE);
    instrument(&scratch, "in.wat").succeeded();
    let pipe = scratch.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo can be run").success());
    let reader = std::thread::spawn(move || fs::read(pipe).expect("the pipe can be read"));
    scratch.run(&[&["in.wat", "-g", "--fork-instrument", "-o", "pipe"], &ALL[..]].concat()).succeeded();
    assert!(reader.join().expect("the reader ends") == scratch.read("out.wasm"));
}

#[test]
fn a_resume_file_that_is_the_output_is_refused() {
    let scratch = Scratch::with("in.wat", MODULE);
    std::os::unix::fs::symlink("out.wasm", scratch.path("link.wasm")).expect("a new link");
    for old in [None, Some("old")] {
        if let Some(old) = old {
            fs::write(scratch.path("out.wasm"), old).expect("the scratch folder can be written");
        }
        for resume in ["out.wasm", "./out.wasm", "link.wasm"] {
            let resume = format!("--pass-arg=fork-instrument-resume@{resume}");
            let run = scratch.run(&["in.wat", "-all", "--fork-instrument", &resume, "-o", "out.wasm"]);
            let message = run.refused();
            assert!(message.contains("the first module goes there"), "{message}");
            assert_eq!(fs::read_to_string(scratch.path("out.wasm")).ok().as_deref(), old);
        }
    }
    let message = scratch
        .run(&["in.wat", "-all", "--fork-instrument", "--pass-arg=fork-instrument-resume@-", "-o", "a.wasm"])
        .refused();
    assert!(message.contains("a file of its own"), "{message}");
}

#[test]
fn a_resume_file_that_is_a_link_takes_the_place_of_what_it_points_to() {
    let scratch = Scratch::with("in.wat", MODULE);
    std::os::unix::fs::symlink("resume.wasm", scratch.path("link.wasm")).expect("a new link");
    let resume = "--pass-arg=fork-instrument-resume@link.wasm";
    scratch.run(&["in.wat", "-all", "--fork-instrument", resume, "-o", "out.wasm"]).succeeded();
    assert!(scratch.path("link.wasm").is_symlink());
    assert!(scratch.read("resume.wasm").starts_with(b"\0asm"));
}

#[test]
fn an_output_that_is_an_open_file_without_a_name_is_written_to() {
    let scratch = Scratch::with("in.wat", MODULE);
    instrument(&scratch, "in.wat").succeeded();
    symlink("/proc/self/fd/1", scratch.path("link")).expect("a new link");
    let mut nameless = fs::File::options().read(true).write(true).create_new(true).open(scratch.path("file")).unwrap();
    nameless.write_all(&[7; 100_000]).expect("the scratch folder can be written");
    fs::remove_file(scratch.path("file")).expect("it is there");
    let arguments = [&ALL[..], &["in.wat", "-g", "--fork-instrument", "-o", "link"]].concat();
    let stdout = nameless.try_clone().expect("another handle");
    let run: Run = scratch.command().args(arguments).stdout(stdout).output().expect("wasm-opt starts").into();
    run.succeeded();
    assert!(scratch.path("link").is_symlink(), "the link was replaced");
    let mut written = Vec::new();
    nameless.seek(SeekFrom::Start(0)).expect("it is a file");
    nameless.read_to_end(&mut written).expect("it can be read");
    assert!(written == scratch.read("out.wasm"), "{} bytes", written.len());
}

#[test]
fn an_old_output_in_a_folder_without_write_permission_is_written_to() {
    let scratch = Scratch::with("in.wat", MODULE);
    let folder = scratch.path("folder");
    fs::create_dir(&folder).expect("a new folder");
    scratch.write("folder/out.wasm", OLD);
    let inode = || fs::metadata(folder.join("out.wasm")).expect("it is there").ino();
    let old = inode();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).expect("our own folder");
    // Permissions do not bind the superuser.
    let is_bound = fs::write(folder.join("probe"), "").is_err();
    let run = scratch.run(&["in.wat", "-all", "--fork-instrument", "-o", "folder/out.wasm"]);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our own folder");
    run.succeeded();
    assert!(scratch.read("folder/out.wasm").starts_with(b"\0asm"));
    assert_eq!(inode() == old, is_bound);
}

#[test]
fn a_resume_file_is_written_whatever_the_names_of_the_others() {
    let strange = OsStr::from_bytes(b"strange\xff.wat");
    let resume = "--pass-arg=fork-instrument-resume@second.wasm";
    for (input, output) in [(strange, OsStr::new("out.wasm")), (OsStr::new("in.wat"), OsStr::from_bytes(b"\xff.wasm"))]
    {
        let scratch = Scratch::with("in.wat", MODULE);
        fs::write(scratch.path("").join(strange), MODULE).expect("file names are bytes");
        let mut command = scratch.command();
        command.args(["-all", "--fork-instrument", resume, "-o"]).args([output, input]);
        Run::from(command.output().expect("wasm-opt starts")).succeeded();
        assert!(scratch.read("second.wasm").starts_with(b"\0asm"));
        assert!(fs::read(scratch.path("").join(output)).expect("it was written").starts_with(b"\0asm"));
    }
    let scratch = Scratch::with("in.wat", MODULE);
    let command = "--extra-fuzz-command=true";
    scratch.run(&["in.wat", "-all", "--fork-instrument", resume, "-o", "out.wasm", command]).succeeded();
    assert!(scratch.read("second.wasm").starts_with(b"\0asm"));
}

#[test]
fn arguments_of_passes_that_are_not_utf_8_are_refused_or_nobodys() {
    let scratch = Scratch::with("in.wat", MODULE);
    let run = |argument: &[u8]| -> Run {
        let mut command = scratch.command();
        command.args(["in.wat", "-all", "--fork-instrument", "-o", "out.wasm"]).arg(OsStr::from_bytes(argument));
        command.output().expect("wasm-opt starts").into()
    };
    assert!(run(b"--pass-arg=fork-instrument-resume@\xff.wasm").refused().contains("UTF-8"));
    assert!(!scratch.has("out.wasm"));
    run(b"--pass-arg=a\xff@1").succeeded();
}

#[test]
fn a_resume_file_in_a_folder_that_is_not_there_leaves_standard_output_alone() {
    let scratch = Scratch::with("in.wat", MODULE);
    let resume = "--pass-arg=fork-instrument-resume@missing/second.wasm";
    let run = scratch.run(&["in.wat", "-all", "--fork-instrument", resume, "-o", "-"]);
    assert!(run.stdout.is_empty(), "{} bytes", run.stdout.len());
    assert!(run.refused().contains("missing/second.wasm"));
}

#[test]
fn where_memory_for_stacks_is_short_they_are_smaller() {
    let scratch = Scratch::with("in.wat", MODULE);
    let tool = support::wasm_opt().display().to_string();
    for (cores, kilobytes) in [(2, 900_000), (8, 6_000_000)] {
        let script = format!("ulimit -v {kilobytes}; timeout 60 {tool} in.wat -all -O1 --fork-instrument -o out.wasm");
        let run = Command::new("sh")
            .args(["-c", &script])
            .env("BINARYEN_CORES", cores.to_string())
            .current_dir(scratch.path(""))
            .output();
        Run::from(run.expect("sh starts")).succeeded();
        assert!(scratch.has("out.wasm"));
    }
}
