//! The tool's output files: written when the tool has ended well, and whole or not at all wherever a file can be replaced.
//!
//! Binaryen writes to where `-o` points as it goes, and does not notice a full disk. Here it writes to a file in memory
//! instead. When it has ended well, that is copied to a temporary file in the folder of the destination, which then
//! takes the destination's place; whatever goes wrong before leaves the destination as it was. Pipes, devices, files that have
//! lost their names and old files in folders that are not writable are written to as they are: a write that fails there leaves a part.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::Error;
use crate::limits;
use crate::separate;

/// Where a finished file goes, and where its bytes are.
struct Output {
    destination: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    /// Written by Binaryen.
    File(File),
    /// Made by the pass.
    Memory(Vec<u8>),
}

struct Outputs {
    files: Vec<Output>,
    /// Whether the main output was asked for.
    has_main: bool,
    /// Whether output is text.
    text: bool,
    /// Whether the pipeline runs until nothing changes.
    converges: bool,
    /// Whether passes may change types as if there were no other module.
    closed_world: bool,
    /// A pass that breaks forks of what is instrumented already.
    refused_pass: Option<String>,
    /// Whether binaries that engines do not take are refused.
    limited: bool,
}

static OUTPUTS: Mutex<Outputs> = Mutex::new(Outputs {
    files: Vec::new(),
    has_main: false,
    text: false,
    converges: false,
    closed_world: false,
    refused_pass: None,
    limited: false,
});

fn outputs() -> std::sync::MutexGuard<'static, Outputs> {
    OUTPUTS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Options of `wasm-opt` that name a file to write.
const OUTPUT_OPTIONS: &[&str] = &["-o", "--output", "-osm", "--output-source-map"];

/// Redirects all output files of a command line to memory. `-` and an empty name are standard output, and stay.
pub fn redirect(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    // These run commands on the outputs before the tool ends.
    let is_fuzz_command = |a: &OsString| {
        ["--extra-fuzz-command", "-efc"].iter().any(|option| a.as_bytes().starts_with(option.as_bytes()))
    };
    let redirects = !arguments.iter().any(is_fuzz_command);
    outputs().converges = arguments.iter().any(|a| a == "--converge" || a == "-c");
    outputs().closed_world = arguments.iter().any(|a| a == "--closed-world" || a == "-cw");
    let mut redirected = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        let (option, value) = match bytes.iter().position(|&byte| byte == b'=') {
            Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
            None => (bytes, None),
        };
        if option == b"-S" || option == b"--emit-text" {
            outputs().text = true;
        }
        if !OUTPUT_OPTIONS.iter().any(|known| known.as_bytes() == option) {
            redirected.push(argument);
            continue;
        }
        redirected.push(OsStr::from_bytes(option).to_owned());
        outputs().has_main |= option == b"-o" || option == b"--output";
        let Some(value) = value.or_else(|| arguments.next()) else { continue };
        redirected.push(match value.as_bytes() {
            b"" | b"-" => value,
            _ if !redirects => value,
            _ => redirect_file(Path::new(&value))?.into(),
        });
    }
    Ok(redirected)
}

/// A path under which the process can write to memory instead of the destination.
fn redirect_file(destination: &Path) -> Result<String, String> {
    // Binaryen's own words when a file cannot be opened; it is not created yet.
    let refuse = |e: io::Error| format!("Failed opening output file '{}': {e}", destination.display());
    let resolved = writable(destination).map_err(refuse)?;
    let file = rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|e| refuse(e.into()))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    outputs().files.push(Output { destination: resolved, bytes: Bytes::File(file) });
    Ok(path)
}

/// The one path of a file that can be written, as far as that can be told without creating it.
pub fn writable(path: &Path) -> io::Result<PathBuf> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        // Opening a pipe and closing it again would be its end for whoever reads it.
        Ok(_) => {
            rustix::fs::access(path, rustix::fs::Access::WRITE_OK)?;
            Ok(place(path))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let target = place(path);
            if folder_of(&target).is_dir() { Ok(target) } else { Err(e) }
        }
        Err(e) => Err(e),
    }
}

/// The one path of a file, whether there is one or not: what a link points to takes the new content. Pipes and devices are
/// written to as they are, and so is a file that has lost its name, which a process can still have open.
pub fn place(path: &Path) -> PathBuf {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            let is_it = |found: &PathBuf| {
                fs::metadata(found).is_ok_and(|m| (m.dev(), m.ino()) == (metadata.dev(), metadata.ino()))
            };
            fs::canonicalize(path).ok().filter(is_it).unwrap_or_else(|| path.to_path_buf())
        }
        Ok(_) => path.to_path_buf(),
        Err(_) => {
            let target = follow_links(path);
            match (fs::canonicalize(folder_of(&target)), target.file_name()) {
                (Ok(folder), Some(name)) => folder.join(name),
                _ => target,
            }
        }
    }
}

/// Where a chain of symbolic links ends, whether there is something or not.
fn follow_links(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    // As many links as systems follow.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => break,
        }
    }
    path
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Whether the main output is text.
pub fn is_text() -> bool {
    outputs().text
}

/// Whether the pipeline runs again and again until nothing changes.
pub fn converges() -> bool {
    outputs().converges
}

/// Whether Binaryen writes to this file, too.
pub fn is_taken(destination: &Path) -> bool {
    let destination = place(destination);
    let is_it = |o: &Output| o.destination == destination && matches!(o.bytes, Bytes::File(_));
    outputs().files.iter().any(is_it)
}

/// Adds a file that is written if, and only if, the main output is; instead of one that was added before.
pub fn add(destination: &Path, bytes: Vec<u8>) {
    let destination = place(destination);
    let mut outputs = outputs();
    outputs.files.retain(|o| o.destination != destination || matches!(o.bytes, Bytes::File(_)));
    outputs.files.push(Output { destination, bytes: Bytes::Memory(bytes) });
}

/// From now on, outputs are refused that are beyond the [`crate::limits`] of engines.
pub fn limit() {
    outputs().limited = true;
}

/// Outputs that were instrumented before are refused if the pass, which breaks their forks, has run on them.
pub fn refuse_after(pass: Option<String>) {
    outputs().refused_pass = pass;
}

/// Puts all outputs in their places. An error names the file; those not yet in place are left as they were, but for one that
/// is written to as it is.
pub fn finish() -> Result<(), String> {
    let mut outputs = outputs();
    if !outputs.has_main {
        return Ok(());
    }
    let failed = |name: &str, e: io::Error| format!("Failed writing output file '{name}': {e}");
    let mut complete = Vec::new();
    for output in std::mem::take(&mut outputs.files) {
        let name = output.destination.display().to_string();
        let Some((destination, bytes)) = read(output).map_err(|e| failed(&name, e))? else { continue };
        if outputs.closed_world && separate::is_one_of_several(&bytes) {
            return Err(format!("--fork-instrument: {}", Error::ClosedWorldAfterwards(name)));
        }
        let is_ours = || separate::is_instrumented(&bytes) || separate::is_one_of_several(&bytes);
        if let Some(pass) = outputs.refused_pass.clone().filter(|_| is_ours()) {
            return Err(format!("--fork-instrument: {}", Error::PassAfterwards { pass, output: name }));
        }
        if outputs.limited
            && let Some(problem) = limits::exceeded(&bytes)
        {
            return Err(format!("--fork-instrument: {problem}"));
        }
        complete.push((name, destination, bytes));
    }
    let mut ready = Vec::new();
    for (name, destination, bytes) in complete {
        let file = prepare(&destination, &bytes).map_err(|e| failed(&name, e))?;
        ready.push((name, destination, bytes, file));
    }
    // What is written to as it is can fail; files that take others' places hardly.
    ready.sort_by_key(|(_, _, _, file)| file.is_some());
    for (name, destination, bytes, file) in ready {
        match file.map(|file| file.persist(&destination)) {
            Some(Ok(_)) => {}
            Some(Err(e)) if !is_of_folder(&e.error) => return Err(failed(&name, e.error)),
            Some(Err(_)) | None => overwrite(&destination, &bytes).map_err(|e| failed(&name, e))?,
        }
    }
    Ok(())
}

/// What an output is to hold, and where it goes; nothing if Binaryen opened no such file, like a source map of text output.
fn read(output: Output) -> io::Result<Option<(PathBuf, Vec<u8>)>> {
    let bytes = match output.bytes {
        Bytes::Memory(bytes) => bytes,
        Bytes::File(mut file) => {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            check_complete(&bytes)?;
            bytes
        }
    };
    Ok(Some((output.destination, bytes)))
}

/// Writes an output to a temporary file beside its destination. None can take the place of what is no regular file, or is in
/// a folder that is not writable.
fn prepare(destination: &Path, bytes: &[u8]) -> io::Result<Option<tempfile::NamedTempFile>> {
    let existing = fs::symlink_metadata(destination).ok();
    if existing.as_ref().is_some_and(|m| !m.is_file()) {
        return Ok(None);
    }
    if !folder_of(destination).is_dir() {
        return Err(rustix::io::Errno::NOENT.into());
    }
    let file = tempfile::Builder::new()
        .prefix(".wasm-opt-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder_of(destination));
    let mut file = match file {
        Ok(file) => file,
        Err(e) if existing.is_some() && is_of_folder(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    file.write_all(bytes)?;
    file.as_file().sync_data().or_else(|e| if e.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(e) })?;
    if let Some(existing) = existing {
        file.as_file().set_permissions(existing.permissions())?;
    }
    Ok(Some(file))
}

/// Whether files cannot be added to the folder, or that one be replaced, on which something is mounted.
fn is_of_folder(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | ResourceBusy)
}

/// Writes to a file as it is.
fn overwrite(destination: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_regular = fs::metadata(destination)?.is_file();
    let mut file = File::options().write(true).truncate(is_regular).open(destination)?;
    file.write_all(bytes)?;
    file.flush()
}

/// Binaryen does not notice when a write fails. A binary whose sections do not add up to its
/// size was cut short, and so was a text without its last parenthesis.
fn check_complete(bytes: &[u8]) -> io::Result<()> {
    let Some(mut rest) = bytes.strip_prefix(b"\0asm\x01\0\0\0") else {
        let is_cut = bytes.starts_with(b"(module") && !bytes.ends_with(b")\n");
        return if is_cut { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
    };
    while let Some((_, after_id)) = rest.split_first() {
        rest = leb128(after_id)
            .and_then(|(size, body)| body.get(size..))
            .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
    }
    Ok(())
}

/// A number and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0usize;
    for (i, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}
