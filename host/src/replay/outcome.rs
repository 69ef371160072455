//! What a run showed, and how two runs differ.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use super::value::Value;

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The export returned these values.
    Returned(Vec<Value>),
    /// The program called `proc_exit`.
    Exited(u32),
    /// The kind of trap, or the error of the host, without a backtrace.
    Trapped(String),
    /// It ran into [`super::Limit`].
    Stopped,
}

/// A call of an import.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// `module.name`.
    pub import: Arc<str>,
    /// Arguments.
    pub args: Vec<Value>,
    /// Results; for a WASI function its error number.
    pub results: Vec<Value>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?}) -> {:?}", self.import, self.args, self.results)
    }
}

/// The calls of imports, in order.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The first ones, up to [`super::Replay::trace_limit`].
    pub events: Vec<Event>,
    /// How many there were.
    pub count: u64,
    /// A hash of all of them.
    pub hash: u64,
}

impl Trace {
    pub(super) fn push(&mut self, event: Event, limit: usize) {
        let mut hasher = DefaultHasher::new();
        (self.hash, &event).hash(&mut hasher);
        self.hash = hasher.finish();
        self.count += 1;
        if self.events.len() < limit {
            self.events.push(event);
        }
    }
}

/// The final contents of a memory.
#[derive(Clone, Debug)]
pub struct MemoryImage {
    /// The name of its export, or `module.name` of its import.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The fork buffer and what is kept for it: zeros in `bytes`.
    pub holes: Vec<Range<u64>>,
}

impl MemoryImage {
    /// A hash of the bytes outside the holes.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        hasher.finish()
    }

    /// The first address at which the two differ, outside both holes.
    fn first_difference(&self, other: &Self) -> Option<usize> {
        let in_a_hole = |at: usize| {
            let mut holes = self.holes.iter().chain(&other.holes);
            holes.any(|hole| hole.contains(&(at as u64)))
        };
        if self.bytes == other.bytes {
            return None;
        }
        let pairs = self.bytes.iter().zip(&other.bytes).enumerate();
        pairs.filter(|(_, (a, b))| a != b).map(|(at, _)| at).find(|at| !in_a_hole(*at))
    }
}

/// Bytes that frames and saved globals took, at the forks whose unwinding came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameBytes {
    /// The most at one fork.
    pub max: u64,
    /// Over all forks.
    pub total: u64,
    /// At the last fork.
    pub last: u64,
}

/// Everything observable about a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The calls of imports.
    pub trace: Trace,
    /// What a WASI program wrote.
    pub stdout: Vec<u8>,
    /// What a WASI program wrote.
    pub stderr: Vec<u8>,
    /// Exported and imported memories.
    pub memories: Vec<MemoryImage>,
    /// Exported globals.
    pub globals: Vec<(String, Value)>,
    /// Calls of the entry imports, each counted once however often it was reached again.
    pub entry_calls: u64,
    /// Forks that were made.
    pub forks: u64,
    /// Times that frames did not fit, and the program was rewound or not even unwound.
    pub aborts: u64,
    /// What the frames took.
    pub frame_bytes: FrameBytes,
    /// Breaches of the contract between host and module; none in a run that went well.
    pub faults: Vec<String>,
    /// Whether the memory grew for a larger buffer, which the program can see.
    pub buffer_moved: bool,
    /// The child's outcome, with [`super::Schedule::ForkAt`].
    pub second: Option<Box<Outcome>>,
}

impl Outcome {
    /// How `other` differs from this run, which is the reference; empty if it does not. What only `other` has
    /// (more exports) does not count. Both sides of a fork are compared, and faults are differences.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (whose, outcome) in [("reference: ", self), ("", other)] {
            found.extend(outcome.faults.iter().map(|fault| format!("{whose}{fault}")));
        }
        match (&self.end, &other.end) {
            // Where they stopped is a matter of speed; what they did until then is not.
            (End::Stopped, End::Stopped) => {
                let common = self.trace.events.len().min(other.trace.events.len());
                self.compare_events(other, common, &mut found);
            }
            (end, other_end) => {
                if end != other_end {
                    found.push(format!("ended with {other_end:?} instead of {end:?}"));
                }
                self.compare_trace(other, &mut found);
                self.compare_state(other, &mut found);
            }
        }
        if let Some(second) = &other.second {
            found.extend(self.differences(second).into_iter().map(|difference| format!("child: {difference}")));
        }
        let mut seen = HashSet::new();
        found.retain(|difference| seen.insert(difference.clone()));
        found
    }

    fn compare_events(&self, other: &Self, count: usize, found: &mut Vec<String>) {
        let pairs = self.trace.events.iter().zip(&other.trace.events).take(count).enumerate();
        if let Some((index, (a, b))) = pairs.into_iter().find(|(_, (a, b))| a != b) {
            found.push(format!("event {index} is {b:?} instead of {a:?}"));
        }
    }

    fn compare_trace(&self, other: &Self, found: &mut Vec<String>) {
        if self.entry_calls != other.entry_calls {
            found.push(format!("{} entry calls instead of {}", other.entry_calls, self.entry_calls));
        }
        let (a, b) = (&self.trace, &other.trace);
        if a.count == b.count && a.hash == b.hash {
            return;
        }
        let before = found.len();
        self.compare_events(other, usize::MAX, found);
        if a.count != b.count {
            let kept = a.events.len().min(b.events.len());
            let longer = if a.events.len() > kept { ("missing", &a.events) } else { ("additional", &b.events) };
            let next = longer.1.get(kept).map(|event| format!("; first {}: {event:?}", longer.0));
            found.push(format!("{} events instead of {}{}", b.count, a.count, next.unwrap_or_default()));
        } else if found.len() == before {
            found.push("the traces differ after the events that were kept".to_owned());
        }
    }

    fn compare_state(&self, other: &Self, found: &mut Vec<String>) {
        for (name, a, b) in [("stdout", &self.stdout, &other.stdout), ("stderr", &self.stderr, &other.stderr)] {
            if a != b {
                let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                found.push(format!("{name} differs from byte {at} on ({} bytes instead of {})", b.len(), a.len()));
            }
        }
        for (name, a) in &self.globals {
            match other.globals.iter().find(|(other_name, _)| other_name == name) {
                Some((_, b)) if a == b => {}
                Some((_, b)) => found.push(format!("global {name} is {b} instead of {a}")),
                None => found.push(format!("global {name} is not exported")),
            }
        }
        for a in &self.memories {
            let Some(b) = other.memories.iter().find(|b| a.name == b.name) else {
                found.push(format!("memory {} is not exported", a.name));
                continue;
            };
            let grown = (self.buffer_moved || other.buffer_moved) && !(a.holes.is_empty() && b.holes.is_empty());
            if a.bytes.len() != b.bytes.len() && !grown {
                found.push(format!("memory {} has {} bytes instead of {}", a.name, b.bytes.len(), a.bytes.len()));
            }
            if let Some(at) = a.first_difference(b) {
                let (b, a_byte) = (b.bytes[at], a.bytes[at]);
                found.push(format!("memory {} at {at:#x} is {b:#04x} instead of {a_byte:#04x}", a.name));
            }
        }
    }
}
