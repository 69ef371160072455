//! CPU time and memory of this process.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use wasmtime::{Result, format_err};

/// CPU seconds of this process, or of the children that it waited for.
fn cpu(usage: &Usage) -> f64 {
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

/// CPU seconds of this process so far, all threads.
pub fn process() -> Result<f64> {
    Ok(cpu(&getrusage(UsageWho::RUSAGE_SELF)?))
}

/// CPU seconds of the children that have ended, and the most memory that one of them had, in bytes.
pub fn children() -> Result<(f64, u64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((cpu(&usage), usage.max_rss() as u64 * 1024))
}

/// CPU seconds of this thread so far.
pub fn thread() -> Result<f64> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.num_nanoseconds() as f64 / 1e9)
}

/// The most memory that this process had at once, in bytes. The kernel's `ru_maxrss` would count the memory of the
/// process that started this one, too.
pub fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.trim().parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| format_err!("/proc/self/status has no VmHWM"))
}
