//! The tool's output files: written whole, or not at all.
//!
//! Binaryen writes to where `-o` points as it goes, and does not notice a full disk. Here it writes to a file in memory
//! instead. When it has ended well, that is copied to a temporary file in the folder of the destination, which then
//! takes the destination's place; whatever goes wrong before leaves the destination as it was.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
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
    /// Whether binaries that engines do not take are refused.
    limited: bool,
}

static OUTPUTS: Mutex<Outputs> = Mutex::new(Outputs {
    files: Vec::new(),
    has_main: false,
    text: false,
    converges: false,
    closed_world: false,
    limited: false,
});

fn outputs() -> std::sync::MutexGuard<'static, Outputs> {
    OUTPUTS.lock().unwrap_or_else(|e| e.into_inner())
}

/// Options of `wasm-opt` that name a file to write.
const OUTPUT_OPTIONS: &[&str] = &["-o", "--output", "-osm", "--output-source-map"];

/// Redirects all output files of a command line to memory. `-` and an empty name are standard output, and stay.
pub fn redirect(arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    // An argument that is no text is left alone, and so are all with it.
    let texts: Option<Vec<String>> = arguments.iter().map(|a| a.to_str().map(String::from)).collect();
    match texts {
        Some(texts) => Ok(redirect_texts(texts)?.into_iter().map(OsString::from).collect()),
        None => Ok(arguments),
    }
}

fn redirect_texts(arguments: Vec<String>) -> Result<Vec<String>, String> {
    // These run commands on the outputs before the tool ends.
    let is_fuzz_command = |a: &String| a.starts_with("--extra-fuzz-command") || a.starts_with("-efc");
    if arguments.iter().any(is_fuzz_command) {
        return Ok(arguments);
    }
    outputs().converges = arguments.iter().any(|a| a == "--converge" || a == "-c");
    outputs().closed_world = arguments.iter().any(|a| a == "--closed-world" || a == "-cw");
    let mut redirected = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option.to_string(), Some(value.to_string())),
            None => (argument.clone(), None),
        };
        if option == "-S" || option == "--emit-text" {
            outputs().text = true;
        }
        if !OUTPUT_OPTIONS.contains(&option.as_str()) {
            redirected.push(argument);
            continue;
        }
        redirected.push(option.clone());
        let Some(value) = value.or_else(|| arguments.next()) else { continue };
        let is_main = option == "-o" || option == "--output";
        outputs().has_main |= is_main;
        redirected.push(match value.as_str() {
            "" | "-" => value,
            path => redirect_file(Path::new(path))?,
        });
    }
    Ok(redirected)
}

/// A path under which the process can write to memory instead of the destination.
fn redirect_file(destination: &Path) -> Result<String, String> {
    // Binaryen's own words when a file cannot be opened; it is not created yet.
    let refuse = |e: io::Error| format!("Failed opening output file '{}': {e}", destination.display());
    let destination = match fs::metadata(destination) {
        Ok(metadata) if metadata.is_dir() => return Err(refuse(io::Error::from(io::ErrorKind::IsADirectory))),
        // Opening a pipe and closing it again would be its end for whoever reads it.
        Ok(_) => {
            rustix::fs::access(destination, rustix::fs::Access::WRITE_OK).map_err(|e| refuse(e.into()))?;
            resolve(destination)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let target = resolve(destination);
            if !folder_of(&target).is_dir() {
                return Err(refuse(e));
            }
            target
        }
        Err(e) => return Err(refuse(e)),
    };
    let file = rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|e| refuse(e.into()))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    outputs().files.push(Output { destination, bytes: Bytes::File(file) });
    Ok(path)
}

/// The one path of a file, whether there is one or not: what a link points to takes the new content. Pipes and devices are
/// written to as they are.
fn resolve(path: &Path) -> PathBuf {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
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
    let destination = resolve(destination);
    let is_it = |o: &Output| o.destination == destination && matches!(o.bytes, Bytes::File(_));
    outputs().files.iter().any(is_it)
}

/// Adds a file that is written if, and only if, the main output is; instead of one that was added before.
pub fn add(destination: &Path, bytes: Vec<u8>) {
    let destination = resolve(destination);
    let mut outputs = outputs();
    outputs.files.retain(|o| o.destination != destination || matches!(o.bytes, Bytes::File(_)));
    outputs.files.push(Output { destination, bytes: Bytes::Memory(bytes) });
}

/// From now on, outputs are refused that are beyond the [`crate::limits`] of engines.
pub fn limit() {
    outputs().limited = true;
}

/// Puts all outputs in their places. An error names the file; those not yet in place are left as they were.
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
        if outputs.limited
            && let Some(problem) = limits::exceeded(&bytes)
        {
            return Err(format!("--fork-instrument: {problem}"));
        }
        complete.push((name, destination, bytes));
    }
    let mut ready = Vec::new();
    for (name, destination, bytes) in complete {
        let prepared = prepare(destination, &bytes).map_err(|e| failed(&name, e))?;
        ready.extend(prepared.map(|p| (name, p)));
    }
    for (name, (file, destination)) in ready {
        file.persist(&destination).map_err(|e| failed(&name, e.error))?;
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

/// Writes an output to a temporary file beside its destination; directly if that is no regular file.
fn prepare(destination: PathBuf, bytes: &[u8]) -> io::Result<Option<(tempfile::NamedTempFile, PathBuf)>> {
    let existing = fs::metadata(&destination).ok();
    if existing.as_ref().is_some_and(|m| !m.is_file()) {
        let mut file = File::options().write(true).open(&destination)?;
        file.write_all(bytes)?;
        file.flush()?;
        return Ok(None);
    }
    if !folder_of(&destination).is_dir() {
        return Err(rustix::io::Errno::NOENT.into());
    }
    let mut file = tempfile::Builder::new()
        .prefix(".wasm-opt-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder_of(&destination))?;
    file.write_all(bytes)?;
    file.as_file().sync_data().or_else(|e| if e.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(e) })?;
    if let Some(existing) = existing {
        file.as_file().set_permissions(existing.permissions())?;
    }
    Ok(Some((file, destination)))
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
