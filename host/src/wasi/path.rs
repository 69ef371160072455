//! Functions on paths, each relative to a directory that is open; none leads out of it.

use std::sync::Arc;

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, SystemTimeSpec};
use cap_std::fs::{Dir, File, Metadata, OpenOptions};
use cap_std::time::SystemTime;

use super::descriptor::{encode_filestat, times};
use super::{Cx, Function, Stop};
use crate::descriptors::{Description, Directory, Object};
use crate::errno::Errno;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("path_create_directory", "ipp", |cx, args| {
        let (base, path) = locate(cx, args[0], args[1], args[2])?;
        Ok(base.directory()?.dir.create_dir(trim(&path))?)
    }),
    Function::new("path_filestat_get", "iippp", filestat),
    Function::new("path_filestat_set_times", "iipplli", set_times),
    Function::new("path_link", "iippipp", link),
    Function::new("path_open", "iippillip", open),
    Function::new("path_readlink", "ippppp", readlink),
    Function::new("path_remove_directory", "ipp", |cx, args| {
        let (base, path) = locate(cx, args[0], args[1], args[2])?;
        Ok(base.directory()?.dir.remove_dir(trim(&path))?)
    }),
    Function::new("path_rename", "ippipp", rename),
    Function::new("path_symlink", "ppipp", symlink),
    Function::new("path_unlink_file", "ipp", |cx, args| {
        let (base, path) = locate(cx, args[0], args[1], args[2])?;
        Ok(base.directory()?.dir.remove_file_or_symlink(path)?)
    }),
];

/// `lookupflags`: follow a symbolic link that the path ends in.
const FOLLOW: u64 = 1;

/// `oflags` of `path_open`.
const CREATE: u64 = 1;
const DIRECTORY: u64 = 2;
const EXCLUSIVE: u64 = 4;
const TRUNCATE: u64 = 8;

/// `rights` that ask for a file to be opened for reading (read, read directory) or for writing (write,
/// allocate, set size).
const READING: u64 = 1 << 1 | 1 << 14;
const WRITING: u64 = 1 << 6 | 1 << 8 | 1 << 22;

fn locate(cx: &Cx<'_>, fd: u64, address: u64, length: u64) -> Result<(Arc<Description>, String), Errno> {
    let base = cx.state.descriptors.get(fd as u32)?;
    base.directory()?;
    let path = cx.memory.path(address, length)?;
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    if path.contains('\0') {
        return Err(Errno::INVAL);
    }
    Ok((base, path.to_owned()))
}

/// A directory's name may end in slashes.
fn trim(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => path,
        trimmed => trimmed,
    }
}

fn metadata(dir: &Dir, path: &str, flags: u64) -> Result<Metadata, Errno> {
    let follow = flags & FOLLOW != 0 || path.ends_with('/');
    Ok(if follow { dir.metadata(path)? } else { dir.symlink_metadata(path)? })
}

fn filestat(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let (base, path) = locate(cx, args[0], args[2], args[3])?;
    let metadata = metadata(&base.directory()?.dir, &path, args[1])?;
    let stat = encode_filestat(&metadata, &cx.state.source);
    Ok(cx.memory.write(args[4], &stat)?)
}

fn set_times(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let (base, path) = locate(cx, args[0], args[2], args[3])?;
    let spec = |time: std::time::SystemTime| SystemTimeSpec::Absolute(SystemTime::from_std(time));
    let [access, modification] = times(args[4], args[5], args[6]).map(|time| time.map(spec));
    let dir = &base.directory()?.dir;
    if args[1] & FOLLOW != 0 {
        Ok(dir.set_times(path, access, modification)?)
    } else {
        Ok(dir.set_symlink_times(path, access, modification)?)
    }
}

fn open(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let &[fd, lookup, address, length, oflags, rights, _, fdflags, result] = args else {
        return Err(Errno::INVAL.into());
    };
    let (base, path) = locate(cx, fd, address, length)?;
    let dir = &base.directory()?.dir;
    let writing = rights & WRITING != 0;
    let is_directory = || metadata(dir, &path, lookup).is_ok_and(|metadata| metadata.is_dir());
    let object = if oflags & DIRECTORY != 0 || (oflags & CREATE == 0 && !writing && is_directory()) {
        let dir = if lookup & FOLLOW != 0 { dir.open_dir(trim(&path))? } else { dir.open_dir_nofollow(trim(&path))? };
        Object::Directory(Directory { dir, preopen: None, listing: Default::default() })
    } else if path.ends_with('/') {
        return Err(if is_directory() { Errno::ISDIR } else { Errno::NOTDIR }.into());
    } else {
        Object::File(open_file(dir, &path, lookup, oflags, rights)?)
    };
    let fd = cx.state.descriptors.open(Description::new(object, fdflags as u16))?;
    Ok(cx.memory.write(result, &fd.to_le_bytes())?)
}

fn open_file(dir: &Dir, path: &str, lookup: u64, oflags: u64, rights: u64) -> Result<File, Errno> {
    // Creating and truncating need a file open for writing, whatever the program will do with it.
    let writing = rights & WRITING != 0 || oflags & (CREATE | TRUNCATE) != 0;
    let exclusive = oflags & CREATE != 0 && oflags & EXCLUSIVE != 0;
    let mut options = OpenOptions::new();
    options
        .read(rights & READING != 0 || !writing)
        .write(writing)
        .create(oflags & CREATE != 0 && !exclusive)
        .create_new(exclusive)
        .truncate(oflags & TRUNCATE != 0)
        .follow(if lookup & FOLLOW != 0 { FollowSymlinks::Yes } else { FollowSymlinks::No });
    Ok(dir.open_with(path, &options)?)
}

fn link(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let (from, old) = locate(cx, args[0], args[2], args[3])?;
    let (to, new) = locate(cx, args[4], args[5], args[6])?;
    Ok(from.directory()?.dir.hard_link(old, &to.directory()?.dir, new)?)
}

fn rename(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let (from, old) = locate(cx, args[0], args[1], args[2])?;
    let (to, new) = locate(cx, args[3], args[4], args[5])?;
    Ok(from.directory()?.dir.rename(trim(&old), &to.directory()?.dir, trim(&new))?)
}

fn symlink(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let target = cx.memory.path(args[0], args[1])?.to_owned();
    let (base, path) = locate(cx, args[2], args[3], args[4])?;
    Ok(DirExt::symlink(&base.directory()?.dir, target, path)?)
}

fn readlink(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let (base, path) = locate(cx, args[0], args[1], args[2])?;
    let target = base.directory()?.dir.read_link(path)?;
    let target = target.to_str().ok_or(Errno::ILSEQ)?.as_bytes();
    let kept = &target[..target.len().min(args[4] as usize)];
    cx.memory.write(args[3], kept)?;
    Ok(cx.memory.write_pointer(args[5], kept.len() as u64)?)
}
