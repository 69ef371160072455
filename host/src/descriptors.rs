//! File descriptors and the open file descriptions behind them.
//!
//! As POSIX has it, a descriptor is a process's own name for an *open file description*, which holds the offset
//! and the status flags. `fork` copies the names ([`DescriptorTable`] is `Clone`) and shares the descriptions.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use cap_std::fs::{Dir, File, FileExt};

use crate::errno::Errno;
use crate::pipe;

/// `fdflags`: every write goes to the end of the file.
pub const APPEND: u16 = 1;
/// `fdflags`: reads and writes do not block.
pub const NONBLOCK: u16 = 4;

/// How many descriptors a process may have.
const LIMIT: u32 = 1 << 16;

/// Seeking to the end and writing there are one step for all descriptions of this host.
static APPENDING: Mutex<()> = Mutex::new(());

/// Standard output or standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Descriptor 1 at the start.
    Output,
    /// Descriptor 2 at the start.
    Error,
}

/// A directory that is open.
pub struct Directory {
    /// The capability.
    pub dir: Dir,
    /// The name that the program finds it by, if it was given one at the start.
    pub preopen: Option<String>,
    /// What the last `fd_readdir` from the beginning saw.
    pub listing: Mutex<Vec<Listed>>,
}

/// An entry of a directory.
pub struct Listed {
    /// Serial number of the file.
    pub inode: u64,
    /// A WASI `filetype`.
    pub filetype: u8,
    /// Its name in the directory.
    pub name: Vec<u8>,
}

/// What an open file description refers to.
pub enum Object {
    /// The host's standard input.
    Stdin,
    /// Nothing: always at the end.
    Empty,
    /// The host's standard output or error.
    Stdio(Stream),
    /// Standard output or error, kept by the process's WASI state.
    Captured(Stream),
    /// A file, whose offset the system keeps.
    File(File),
    /// A directory.
    Directory(Directory),
    /// A pipe's end.
    Reader(pipe::Reader),
    /// A pipe's end.
    Writer(pipe::Writer),
}

/// An open file description.
pub struct Description {
    /// What it refers to.
    pub object: Object,
    flags: AtomicU16,
}

impl Description {
    /// A description of `object` with WASI `fdflags`.
    pub fn new(object: Object, flags: u16) -> Arc<Self> {
        Arc::new(Self { object, flags: AtomicU16::new(flags) })
    }

    /// The `fdflags`.
    pub fn flags(&self) -> u16 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the `fdflags`.
    pub fn set_flags(&self, flags: u16) {
        self.flags.store(flags, Ordering::Relaxed);
    }

    fn nonblocking(&self) -> bool {
        self.flags() & NONBLOCK != 0
    }

    /// The file, or the error for what has no offset.
    pub fn file(&self) -> Result<&File, Errno> {
        match &self.object {
            Object::File(file) => Ok(file),
            Object::Directory(_) => Err(Errno::ISDIR),
            _ => Err(Errno::SPIPE),
        }
    }

    /// The directory, or the error for what is none.
    pub fn directory(&self) -> Result<&Directory, Errno> {
        match &self.object {
            Object::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Reads at the offset and moves it.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match &self.object {
            Object::Stdin => Ok(io::stdin().lock().read(buffer)?),
            Object::Empty => Ok(0),
            Object::File(file) => Ok((&*file).read(buffer)?),
            Object::Directory(_) => Err(Errno::ISDIR),
            Object::Reader(reader) => reader.read(buffer, self.nonblocking()),
            Object::Stdio(_) | Object::Captured(_) | Object::Writer(_) => Err(Errno::BADF),
        }
    }

    /// Writes at the offset (or the end, with [`APPEND`]) and moves it.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match &self.object {
            Object::Stdio(Stream::Output) => {
                let mut output = io::stdout().lock();
                output.write_all(bytes).and_then(|()| output.flush())?;
                Ok(bytes.len())
            }
            Object::Stdio(Stream::Error) => {
                io::stderr().lock().write_all(bytes)?;
                Ok(bytes.len())
            }
            Object::File(file) if self.flags() & APPEND != 0 => {
                let _appending = APPENDING.lock().expect("no panic while appending");
                let mut file = file;
                file.seek(SeekFrom::End(0))?;
                Ok(file.write(bytes)?)
            }
            Object::File(file) => Ok((&*file).write(bytes)?),
            Object::Writer(writer) => writer.write(bytes, self.nonblocking()),
            Object::Directory(_) => Err(Errno::ISDIR),
            Object::Stdin | Object::Empty | Object::Captured(_) | Object::Reader(_) => Err(Errno::BADF),
        }
    }

    /// Reads at `offset` and leaves the description's own alone.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        Ok(self.file()?.read_at(buffer, offset)?)
    }

    /// Writes at `offset` and leaves the description's own alone.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        Ok(self.file()?.write_at(bytes, offset)?)
    }

    /// Moves the offset.
    pub fn seek(&self, to: SeekFrom) -> Result<u64, Errno> {
        let mut file = self.file()?;
        Ok(file.seek(to)?)
    }

    /// Whether programs shall take it for a terminal.
    pub fn is_terminal(&self) -> bool {
        match self.object {
            Object::Stdin => io::stdin().is_terminal(),
            Object::Stdio(Stream::Output) => io::stdout().is_terminal(),
            Object::Stdio(Stream::Error) => io::stderr().is_terminal(),
            _ => false,
        }
    }
}

/// A process's descriptors.
#[derive(Clone, Default)]
pub struct DescriptorTable {
    entries: BTreeMap<u32, Arc<Description>>,
}

impl DescriptorTable {
    /// Gives a description the lowest free number.
    pub fn open(&mut self, description: Arc<Description>) -> Result<u32, Errno> {
        let fd = (0..LIMIT).find(|fd| !self.entries.contains_key(fd)).ok_or(Errno::MFILE)?;
        self.entries.insert(fd, description);
        Ok(fd)
    }

    /// The description behind a number.
    pub fn get(&self, fd: u32) -> Result<Arc<Description>, Errno> {
        self.entries.get(&fd).cloned().ok_or(Errno::BADF)
    }

    /// Frees a number; the description ends with its last descriptor.
    pub fn close(&mut self, fd: u32) -> Result<(), Errno> {
        self.entries.remove(&fd).map(drop).ok_or(Errno::BADF)
    }

    /// Makes `new` another name for what `old` names; what `new` named before is closed.
    pub fn duplicate(&mut self, old: u32, new: u32) -> Result<(), Errno> {
        let description = self.get(old)?;
        if new >= LIMIT {
            return Err(Errno::BADF);
        }
        self.entries.insert(new, description);
        Ok(())
    }

    /// Moves `from` to `to`, which must be open and is closed.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<(), Errno> {
        self.get(to)?;
        let description = self.entries.remove(&from).ok_or(Errno::BADF)?;
        self.entries.insert(to, description);
        Ok(())
    }

    /// A new pipe: the descriptors to read from and to write to.
    pub fn pipe(&mut self) -> Result<(u32, u32), Errno> {
        let (reader, writer) = pipe::pipe();
        let from = self.open(Description::new(Object::Reader(reader), 0))?;
        match self.open(Description::new(Object::Writer(writer), 0)) {
            Ok(to) => Ok((from, to)),
            Err(errno) => {
                self.close(from)?;
                Err(errno)
            }
        }
    }
}
