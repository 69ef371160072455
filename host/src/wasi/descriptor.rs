//! Functions on descriptors: `fd_*`, and the sockets that there are none of.

use std::io::SeekFrom;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_fs_ext::{DirEntryExt, FileTypeExt, MetadataExt};
use cap_std::fs::{FileType, Metadata};

use super::{Cx, Function, Source, Stop};
use crate::descriptors::{Description, Directory, Listed, Object, Stream};
use crate::errno::Errno;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("fd_advise", "illi", |cx, args| open(cx, args).map(drop)),
    Function::new("fd_allocate", "ill", allocate),
    Function::new("fd_close", "i", |cx, args| Ok(cx.state.descriptors.close(args[0] as u32)?)),
    Function::new("fd_datasync", "i", |cx, args| Ok(open(cx, args)?.file()?.sync_data()?)),
    Function::new("fd_fdstat_get", "ip", fdstat),
    Function::new("fd_fdstat_set_flags", "ii", |cx, args| {
        open(cx, args)?.set_flags(args[1] as u16);
        Ok(())
    }),
    Function::new("fd_fdstat_set_rights", "ill", |cx, args| open(cx, args).map(drop)),
    Function::new("fd_filestat_get", "ip", filestat),
    Function::new("fd_filestat_set_size", "il", |cx, args| Ok(open(cx, args)?.file()?.set_len(args[1])?)),
    Function::new("fd_filestat_set_times", "illi", set_times),
    Function::new("fd_pread", "ipplp", pread),
    Function::new("fd_prestat_dir_name", "ipp", prestat_name),
    Function::new("fd_prestat_get", "ip", prestat),
    Function::new("fd_pwrite", "ipplp", pwrite),
    Function::new("fd_read", "ippp", read),
    Function::new("fd_readdir", "ipplp", readdir),
    Function::new("fd_renumber", "ii", |cx, args| Ok(cx.state.descriptors.renumber(args[0] as u32, args[1] as u32)?)),
    Function::new("fd_seek", "ilip", seek),
    Function::new("fd_sync", "i", |cx, args| match &open(cx, args)?.object {
        Object::File(file) => Ok(file.sync_all()?),
        Object::Directory(_) => Ok(()),
        _ => Err(Errno::INVAL.into()),
    }),
    Function::new("fd_tell", "ip", |cx, args| {
        let offset = open(cx, args)?.seek(SeekFrom::Current(0))?;
        Ok(cx.memory.write(args[1], &offset.to_le_bytes())?)
    }),
    Function::new("fd_write", "ippp", write),
    Function::new("sock_accept", "iip", |_, _| Err(Errno::NOTSOCK.into())),
    Function::new("sock_recv", "ippipp", |_, _| Err(Errno::NOTSOCK.into())),
    Function::new("sock_send", "ippip", |_, _| Err(Errno::NOTSOCK.into())),
    Function::new("sock_shutdown", "ii", |_, _| Err(Errno::NOTSOCK.into())),
];

/// The largest read at once; programs ask again for the rest.
const CHUNK: u64 = 1 << 20;

/// `rights`: everything a file or directory can be asked for.
const ALL_RIGHTS: u64 = (1 << 30) - 1;
/// `rights` of what has no offset: read, set flags, write, status, poll. The lack of seek and tell is how
/// wasi-libc knows a terminal.
const STREAM_RIGHTS: u64 = 1 << 1 | 1 << 3 | 1 << 6 | 1 << 21 | 1 << 27;

/// `filetype` numbers.
pub(super) fn filetype(ty: FileType) -> u8 {
    match ty {
        ty if ty.is_block_device() => 1,
        ty if ty.is_char_device() => 2,
        ty if ty.is_dir() => 3,
        ty if ty.is_file() => 4,
        ty if ty.is_socket() => 6,
        ty if ty.is_symlink() => 7,
        _ => 0,
    }
}

fn object_filetype(description: &Description) -> Result<u8, Errno> {
    match &description.object {
        Object::File(file) => Ok(filetype(file.metadata()?.file_type())),
        Object::Directory(_) => Ok(3),
        _ if description.is_terminal() => Ok(2),
        _ => Ok(0),
    }
}

/// The description of the descriptor in the first argument.
fn open(cx: &Cx<'_>, args: &[u64]) -> Result<Arc<Description>, Stop> {
    Ok(cx.state.descriptors.get(args[0] as u32)?)
}

fn allocate(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let description = open(cx, args)?;
    let file = description.file()?;
    let end = args[1].checked_add(args[2]).ok_or(Errno::FBIG)?;
    if file.metadata()?.len() < end {
        file.set_len(end)?;
    }
    Ok(())
}

fn fdstat(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let description = open(cx, args)?;
    let filetype = object_filetype(&description)?;
    let rights = match description.object {
        Object::File(_) | Object::Directory(_) => ALL_RIGHTS,
        _ => STREAM_RIGHTS,
    };
    let mut stat = [0; 24];
    stat[0] = filetype;
    stat[2..4].copy_from_slice(&description.flags().to_le_bytes());
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    stat[16..24].copy_from_slice(&rights.to_le_bytes());
    Ok(cx.memory.write(args[1], &stat)?)
}

/// A `filestat`. With deterministic sources the times are zero, and so are the numbers that the host chose.
pub(super) fn encode_filestat(metadata: &Metadata, source: &Source) -> [u8; 64] {
    let nanoseconds = |time: std::io::Result<cap_std::time::SystemTime>| {
        let time = time.ok().map(cap_std::time::SystemTime::into_std);
        time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default().as_nanos() as u64
    };
    let modified = nanoseconds(metadata.modified());
    let mut fields = [
        metadata.dev(),
        metadata.ino(),
        u64::from(filetype(metadata.file_type())),
        metadata.nlink(),
        metadata.len(),
        nanoseconds(metadata.accessed()),
        modified,
        modified,
    ];
    if let Source::Deterministic(_) = source {
        for index in [0, 1, 3, 5, 6, 7] {
            fields[index] = 0;
        }
    }
    let mut stat = [0; 64];
    for (bytes, field) in stat.chunks_exact_mut(8).zip(fields) {
        bytes.copy_from_slice(&field.to_le_bytes());
    }
    stat
}

fn filestat(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let description = open(cx, args)?;
    let stat = match &description.object {
        Object::File(file) => encode_filestat(&file.metadata()?, &cx.state.source),
        Object::Directory(directory) => encode_filestat(&directory.dir.dir_metadata()?, &cx.state.source),
        _ => {
            let mut stat = [0; 64];
            stat[16] = object_filetype(&description)?;
            stat
        }
    };
    Ok(cx.memory.write(args[1], &stat)?)
}

/// The times that `fstflags` ask for: (access, modification).
pub(super) fn times(access: u64, modification: u64, flags: u64) -> [Option<SystemTime>; 2] {
    let time = |nanoseconds, set, now| match flags {
        flags if flags & now != 0 => Some(SystemTime::now()),
        flags if flags & set != 0 => Some(UNIX_EPOCH + Duration::from_nanos(nanoseconds)),
        _ => None,
    };
    [time(access, 1, 2), time(modification, 4, 8)]
}

fn set_times(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let [access, modification] = times(args[1], args[2], args[3]);
    let mut times = std::fs::FileTimes::new();
    times = access.map_or(times, |time| times.set_accessed(time));
    times = modification.map_or(times, |time| times.set_modified(time));
    Ok(open(cx, args)?.file()?.try_clone()?.into_std().set_times(times)?)
}

fn prestat(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let description = open(cx, args)?;
    let name = preopen(&description)?;
    let size = cx.memory.pointer_size();
    cx.memory.write_pointer(args[1], 0)?;
    Ok(cx.memory.write_pointer(args[1] + size, name.len() as u64)?)
}

fn prestat_name(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let description = open(cx, args)?;
    let name = preopen(&description)?;
    if (name.len() as u64) > args[2] {
        return Err(Errno::NAMETOOLONG.into());
    }
    Ok(cx.memory.write(args[1], name.as_bytes())?)
}

fn preopen(description: &Description) -> Result<&str, Errno> {
    match &description.object {
        Object::Directory(Directory { preopen: Some(name), .. }) => Ok(name),
        _ => Err(Errno::BADF),
    }
}

fn read(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    read_with(cx, args, args[3], |description, buffer| description.read(buffer))
}

fn pread(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let offset = args[3];
    read_with(cx, args, args[4], |description, buffer| description.read_at(buffer, offset))
}

fn read_with(
    cx: &mut Cx<'_>,
    args: &[u64],
    result: u64,
    read: impl FnOnce(&Description, &mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Stop> {
    let description = open(cx, args)?;
    let vectors = cx.memory.vectors(args[1], args[2])?;
    let length = vectors.iter().fold(0u64, |sum, (_, length)| sum.saturating_add(*length)).min(CHUNK);
    let mut buffer = vec![0; length as usize];
    let count = read(&description, &mut buffer)?;
    cx.memory.scatter(&vectors, &buffer[..count])?;
    Ok(cx.memory.write_pointer(result, count as u64)?)
}

fn write(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let description = open(cx, args)?;
    let bytes = cx.memory.gather(args[1], args[2])?;
    let count = match description.object {
        Object::Captured(stream) => {
            let kept = if stream == Stream::Output { &mut cx.state.output } else { &mut cx.state.error };
            kept.extend_from_slice(&bytes);
            bytes.len()
        }
        _ => description.write(&bytes)?,
    };
    Ok(cx.memory.write_pointer(args[3], count as u64)?)
}

fn pwrite(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let bytes = cx.memory.gather(args[1], args[2])?;
    let count = open(cx, args)?.write_at(&bytes, args[3])?;
    Ok(cx.memory.write_pointer(args[4], count as u64)?)
}

fn seek(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let to = match args[2] {
        0 => SeekFrom::Start(args[1]),
        1 => SeekFrom::Current(args[1] as i64),
        2 => SeekFrom::End(args[1] as i64),
        _ => return Err(Errno::INVAL.into()),
    };
    let offset = open(cx, args)?.seek(to)?;
    Ok(cx.memory.write(args[3], &offset.to_le_bytes())?)
}

fn readdir(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let &[_, address, length, cookie, result] = args else { return Err(Errno::INVAL.into()) };
    let description = open(cx, args)?;
    let directory = description.directory()?;
    let mut listing = directory.listing.lock().expect("no panic while a listing is locked");
    if cookie == 0 {
        *listing = list(directory)?;
    }
    let mut bytes = Vec::new();
    for (index, entry) in listing.iter().enumerate().skip(cookie as usize) {
        let inode = if matches!(cx.state.source, Source::System) { entry.inode } else { 0 };
        bytes.extend_from_slice(&(index as u64 + 1).to_le_bytes());
        bytes.extend_from_slice(&inode.to_le_bytes());
        bytes.extend_from_slice(&(entry.name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&u32::from(entry.filetype).to_le_bytes());
        bytes.extend_from_slice(&entry.name);
        if bytes.len() as u64 >= length {
            break;
        }
    }
    bytes.truncate(length as usize);
    cx.memory.write(address, &bytes)?;
    Ok(cx.memory.write_pointer(result, bytes.len() as u64)?)
}

/// The entries in the order of their names, after `.` and `..`.
fn list(directory: &Directory) -> Result<Vec<Listed>, Errno> {
    let itself = directory.dir.dir_metadata()?.ino();
    let mut entries = Vec::new();
    for entry in directory.dir.entries()? {
        let entry = entry?;
        let inode = entry.full_metadata().map_or(0, |metadata| metadata.ino());
        let name = entry.file_name().to_string_lossy().into_owned().into_bytes();
        entries.push(Listed { inode, filetype: filetype(entry.file_type()?), name });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let dot = |name: &str| Listed { inode: itself, filetype: 3, name: name.into() };
    entries.splice(0..0, [dot("."), dot("..")]);
    Ok(entries)
}
