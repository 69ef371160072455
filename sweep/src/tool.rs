//! Runs `wasm-opt` under a time limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// One run of the tool.
pub struct Run {
    /// `None` when it was stopped at the limit.
    pub status: Option<ExitStatus>,
    pub stderr: String,
    /// Seconds of processor time.
    pub cpu: f64,
    /// Peak of resident memory in bytes, where the system tells.
    pub peak: u64,
}

/// The tool and its limit.
pub struct Tool {
    pub path: PathBuf,
    pub limit: Duration,
}

impl Tool {
    pub fn run(&self, input: &Path, output: &Path, arguments: &[String]) -> Result<Run> {
        // A file, because a full pipe would block the tool.
        let messages = output.with_extension("stderr");
        let mut child = Command::new(&self.path)
            .arg(input)
            .args(arguments)
            .arg("-o")
            .arg(output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&messages)?)
            .spawn()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        let start = Instant::now();
        let (mut peak, mut cpu) = (0, 0.0_f64);
        let status = loop {
            peak = peak.max(peak_memory(child.id()).unwrap_or(0));
            cpu = cpu.max(processor_time(child.id()).unwrap_or(0.0));
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > self.limit {
                child.kill()?;
                child.wait()?;
                break None;
            }
            // A short run has to be seen, too.
            let pause = if start.elapsed() < Duration::from_millis(200) { 1 } else { 10 };
            thread::sleep(Duration::from_millis(pause));
        };
        let stderr = String::from_utf8_lossy(&fs::read(&messages)?).into_owned();
        fs::remove_file(&messages)?;
        Ok(Run { status, stderr, cpu, peak })
    }
}

fn peak_memory(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Seconds in user and system mode so far; a process that has ended can be asked until it is waited for.
fn processor_time(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the command, in parentheses, which may hold spaces: the state is field 3, the times are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Linux counts in hundredths for all programs.
    Some(ticks as f64 / 100.0)
}
