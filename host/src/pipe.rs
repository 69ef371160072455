//! Pipes: a bounded queue of bytes between descriptors of any processes.
//!
//! An end is closed when its last owner drops it, wherever that owner lives: descriptors share an end through
//! the open file description that holds it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::errno::Errno;

/// How many bytes a pipe holds before writers block.
pub const CAPACITY: usize = 64 * 1024;
/// Writes of at most this many bytes are not interleaved with those of other writers.
pub const ATOMIC: usize = 4096;

#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    reader_closed: bool,
    writer_closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic while a pipe is locked")
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed.wait(queue).expect("no panic while a pipe is locked")
    }
}

/// The end of a pipe that bytes come out of.
pub struct Reader(Arc<Shared>);
/// The end of a pipe that bytes go into.
pub struct Writer(Arc<Shared>);

/// A new pipe.
pub fn pipe() -> (Reader, Writer) {
    let shared = Arc::new(Shared::default());
    (Reader(shared.clone()), Writer(shared))
}

impl Reader {
    /// Takes what is there, at most `buffer.len()` bytes; waits for a byte if there is none. 0 is end of file.
    pub fn read(&self, buffer: &mut [u8], nonblocking: bool) -> Result<usize, Errno> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut queue = self.0.lock();
        while queue.bytes.is_empty() {
            if queue.writer_closed {
                return Ok(0);
            }
            if nonblocking {
                return Err(Errno::AGAIN);
            }
            queue = self.0.wait(queue);
        }
        let count = buffer.len().min(queue.bytes.len());
        for (to, from) in buffer.iter_mut().zip(queue.bytes.drain(..count)) {
            *to = from;
        }
        self.0.changed.notify_all();
        Ok(count)
    }

    /// How many bytes could be read at once; `None` while a read would block.
    pub fn readable(&self) -> Option<u64> {
        let queue = self.0.lock();
        (queue.writer_closed || !queue.bytes.is_empty()).then_some(queue.bytes.len() as u64)
    }
}

impl Writer {
    /// Writes all bytes and waits for room where needed; a non-blocking write takes what fits.
    /// [`Errno::PIPE`] once no reader is left.
    pub fn write(&self, mut bytes: &[u8], nonblocking: bool) -> Result<usize, Errno> {
        let total = bytes.len();
        let mut queue = self.0.lock();
        while !bytes.is_empty() {
            if queue.reader_closed {
                return if bytes.len() < total { Ok(total - bytes.len()) } else { Err(Errno::PIPE) };
            }
            let room = CAPACITY - queue.bytes.len();
            let needed = if total <= ATOMIC { total } else { 1 };
            if room >= needed {
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                queue.bytes.extend(now);
                bytes = later;
                self.0.changed.notify_all();
            } else if !nonblocking {
                queue = self.0.wait(queue);
            } else if bytes.len() < total {
                return Ok(total - bytes.len());
            } else {
                return Err(Errno::AGAIN);
            }
        }
        Ok(total)
    }

    /// How many bytes could be written at once; `None` while a write would block.
    pub fn writable(&self) -> Option<u64> {
        let queue = self.0.lock();
        let room = CAPACITY - queue.bytes.len();
        (queue.reader_closed || room >= ATOMIC).then_some(room as u64)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.lock().reader_closed = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.lock().writer_closed = true;
        self.0.changed.notify_all();
    }
}
