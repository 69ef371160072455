//! The table of processes: who is whose child, who has ended, and with what status.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::errno::Errno;

/// A process id, positive.
pub type Pid = i32;

/// The process that adopts orphans and reaps them at once: the host itself.
pub const INIT: Pid = 1;
/// `waitpid` option: do not block.
pub const WNOHANG: i32 = 1;

const WUNTRACED: i32 = 2;
const WCONTINUED: i32 = 8;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It returned or called `exit` with this code; the low eight bits count.
    Exited(u32),
    /// It was killed by this signal, as a trap does.
    Signaled(u8),
}

impl Status {
    /// The POSIX encoding that `waitpid` stores.
    pub fn encode(self) -> i32 {
        match self {
            Status::Exited(code) => ((code & 0xff) << 8) as i32,
            Status::Signaled(signal) => i32::from(signal & 0x7f),
        }
    }

    /// What a shell's `$?` says.
    pub fn shell_code(self) -> u8 {
        match self {
            Status::Exited(code) => code as u8,
            Status::Signaled(signal) => 128 | signal,
        }
    }
}

struct Entry {
    parent: Pid,
    ended: Option<Status>,
}

#[derive(Default)]
struct Processes {
    last: Pid,
    entries: BTreeMap<Pid, Entry>,
}

/// All processes of one program.
pub struct ProcessTable {
    processes: Mutex<Processes>,
    changed: Condvar,
}

impl Default for ProcessTable {
    fn default() -> Self {
        let processes = Processes { last: INIT, entries: BTreeMap::new() };
        Self { processes: Mutex::new(processes), changed: Condvar::new() }
    }
}

impl ProcessTable {
    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().expect("no panic while the process table is locked")
    }

    /// Adds a running child of `parent`.
    pub fn spawn(&self, parent: Pid) -> Pid {
        let mut processes = self.lock();
        processes.last += 1;
        let pid = processes.last;
        processes.entries.insert(pid, Entry { parent, ended: None });
        pid
    }

    /// The parent of a process, [`INIT`] if that one has ended.
    pub fn parent(&self, pid: Pid) -> Pid {
        self.lock().entries.get(&pid).map_or(INIT, |entry| entry.parent)
    }

    /// Records the end of a process. It stays a zombie until its parent waits for it; its own children are
    /// given to [`INIT`].
    pub fn exit(&self, pid: Pid, status: Status) {
        let mut processes = self.lock();
        for entry in processes.entries.values_mut().filter(|entry| entry.parent == pid) {
            entry.parent = INIT;
        }
        if let Some(entry) = processes.entries.get_mut(&pid) {
            entry.ended = Some(status);
        }
        processes.entries.retain(|_, entry| entry.parent != INIT || entry.ended.is_none());
        self.changed.notify_all();
    }

    /// Waits for a child of `caller`: any one if `pid` is -1 (or 0, there being one process group).
    /// `Ok(None)` says that with [`WNOHANG`] no such child has ended yet.
    pub fn wait(&self, caller: Pid, pid: Pid, options: i32) -> Result<Option<(Pid, Status)>, Errno> {
        if options & !(WNOHANG | WUNTRACED | WCONTINUED) != 0 {
            return Err(Errno::INVAL);
        }
        let mut processes = self.lock();
        loop {
            let mut children = processes
                .entries
                .iter()
                .filter(|(child, entry)| entry.parent == caller && (pid == -1 || pid == 0 || pid == **child))
                .peekable();
            if children.peek().is_none() {
                return Err(Errno::CHILD);
            }
            let ended = children.find_map(|(child, entry)| entry.ended.map(|status| (*child, status)));
            if let Some((child, status)) = ended {
                processes.entries.remove(&child);
                return Ok(Some((child, status)));
            }
            if options & WNOHANG != 0 {
                return Ok(None);
            }
            processes = self.changed.wait(processes).expect("no panic while the process table is locked");
        }
    }

    /// Waits until no process runs.
    pub fn wait_for_all(&self) {
        let mut processes = self.lock();
        while processes.entries.values().any(|entry| entry.ended.is_none()) {
            processes = self.changed.wait(processes).expect("no panic while the process table is locked");
        }
    }
}
