//! Runs `wasm-opt`, and says what came of it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A `wasm-opt`, and a folder for its files. For one thread.
pub struct Tool {
    path: PathBuf,
    dir: PathBuf,
    /// Of the processor.
    timeout: Duration,
    cores: u32,
}

/// What a run of the tool led to.
#[derive(Debug)]
pub enum Ran {
    /// Status 0, and the output.
    Done(Vec<u8>),
    /// Status 1, with this message.
    Refused(String),
    /// Anything else: what it is, and the message.
    Broken(String),
}

/// How the message about a tool that does not end begins.
pub const SLOW: &str = "slow";

/// Texts that no message to a user has; the last is the verifier's.
const NEVER: [&str; 7] = [
    "panicked",
    "internal error",
    "Assertion",
    "terminate called",
    "AddressSanitizer",
    "runtime error:",
    "please report it",
];

impl Tool {
    pub fn new(path: &Path) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("fork-fuzz-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self { path: path.to_owned(), dir, timeout: Duration::from_secs(20), cores: 1 })
    }

    /// Where `wasm-opt` is, if nothing says so: in the environment, or next to this program, or where cargo puts it.
    pub fn find(given: Option<&Path>) -> Result<PathBuf> {
        let named = given.map(Path::to_owned).or_else(|| std::env::var_os("WASM_OPT").map(PathBuf::from));
        let this = std::env::current_exe()?;
        let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join("wasm-opt"));
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
        let built = ["release", "debug"].map(|profile| target.join(profile).join("wasm-opt"));
        let found = match named {
            Some(path) => Some(path).filter(|path| path.is_file()),
            None => beside.chain(built).find(|path| path.is_file()),
        };
        found.context("there is no wasm-opt: build it with `cargo build --bin wasm-opt`, or set WASM_OPT to its path")
    }

    /// Another file for the tool.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Where the tool may put a second module.
    pub fn second(&self) -> PathBuf {
        self.dir.join("resume.wasm")
    }

    /// The second module that the last run wrote.
    pub fn take_second(&self) -> Result<Option<Vec<u8>>> {
        let path = self.second();
        if !path.exists() {
            return Ok(None);
        }
        let wasm = fs::read(&path)?;
        fs::remove_file(&path)?;
        Ok(Some(wasm))
    }

    /// Runs on `input` with these arguments; the files are added.
    pub fn run(&self, input: &[u8], args: &[String]) -> Result<Ran> {
        let file = |name: &str| self.dir.join(name);
        let (from, to, said) = (file("in.wasm"), file("out.wasm"), file("said"));
        fs::write(&from, input)?;
        _ = fs::remove_file(&to);
        let mut command = Command::new(&self.path);
        command.args(args).arg(&from).arg("-o").arg(&to).env("BINARYEN_CORES", self.cores.to_string());
        command.env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&said)?);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.path.display()))?;
        let started = Instant::now();
        let mut pause = Duration::from_micros(500);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            // On a busy machine a process can wait for long; a fast one is not slow then.
            let waited = started.elapsed();
            if waited > self.timeout && (waited > 20 * self.timeout || cpu_time(child.id()) > self.timeout) {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(pause);
            pause = (pause * 5 / 4).min(Duration::from_millis(20));
        };
        let said = String::from_utf8_lossy(&fs::read(&said)?).trim().to_owned();
        let left = to.exists();
        let Some(status) = status else {
            return Ok(Ran::Broken(format!("{SLOW}: killed after {:?}", self.timeout)));
        };
        if let Some(signal) = status.signal() {
            return Ok(Ran::Broken(format!("killed by signal {signal}: {said}")));
        }
        if let Some(text) = NEVER.iter().find(|text| said.contains(*text)) {
            return Ok(Ran::Broken(format!("says {text:?}: {said}")));
        }
        Ok(match (status.code(), left) {
            (Some(0), true) => Ran::Done(fs::read(&to)?),
            (Some(0), false) => Ran::Broken(format!("status 0 without an output: {said}")),
            (Some(1), true) => Ran::Broken(format!("status 1 and yet an output: {said}")),
            (Some(1), false) if said.is_empty() => Ran::Broken("status 1 without a message".to_owned()),
            (Some(1), false) => Ran::Refused(said),
            (code, _) => Ran::Broken(format!("status {code:?}: {said}")),
        })
    }
}

/// What a process has used of the processor.
fn cpu_time(process: u32) -> Duration {
    /// The kernel counts in these.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name of the program, in parentheses, may hold spaces. The 14th and 15th fields are user and system time.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

impl Drop for Tool {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.dir);
    }
}
