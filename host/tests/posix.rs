//! Processes, pipes and descriptors, without wasm.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fork_host::descriptors::{APPEND, Description, DescriptorTable, NONBLOCK, Object};
use fork_host::errno::Errno;
use fork_host::pipe::{CAPACITY, pipe};
use fork_host::process::{INIT, ProcessTable, Status, WNOHANG};

const PAUSE: Duration = Duration::from_millis(30);

#[test]
fn status_is_encoded_as_posix_says() {
    assert_eq!(Status::Exited(7).encode(), 7 << 8);
    assert_eq!(Status::Exited(0x1ff).encode(), 0xff << 8);
    assert_eq!(Status::Signaled(6).encode(), 6);
    assert_eq!(Status::Signaled(6).shell_code(), 134);
}

#[test]
fn a_zombie_keeps_its_status_until_it_is_waited_for() {
    let table = ProcessTable::default();
    let parent = table.spawn(INIT);
    let child = table.spawn(parent);
    assert_eq!(table.parent(child), parent);
    assert_eq!(table.wait(parent, -1, WNOHANG), Ok(None));
    table.exit(child, Status::Exited(3));
    assert_eq!(table.wait(parent, child, 0), Ok(Some((child, Status::Exited(3)))));
    assert_eq!(table.wait(parent, child, 0), Err(Errno::CHILD));
    assert_eq!(table.wait(parent, -1, WNOHANG), Err(Errno::CHILD));
}

#[test]
fn only_a_parent_may_wait_for_a_process() {
    let table = ProcessTable::default();
    let parent = table.spawn(INIT);
    let child = table.spawn(parent);
    let grandchild = table.spawn(child);
    assert_eq!(table.wait(parent, grandchild, WNOHANG), Err(Errno::CHILD));
    assert_eq!(table.wait(child, parent, WNOHANG), Err(Errno::CHILD));
    assert_eq!(table.wait(parent, -1, 0x4000), Err(Errno::INVAL));
}

#[test]
fn waiting_blocks_until_the_chosen_child_ends() {
    let table = Arc::new(ProcessTable::default());
    let parent = table.spawn(INIT);
    let (first, second) = (table.spawn(parent), table.spawn(parent));
    let waiting = {
        let table = table.clone();
        thread::spawn(move || table.wait(parent, second, 0))
    };
    table.exit(first, Status::Exited(1));
    thread::sleep(PAUSE);
    assert!(!waiting.is_finished());
    table.exit(second, Status::Signaled(11));
    assert_eq!(waiting.join().unwrap(), Ok(Some((second, Status::Signaled(11)))));
    assert_eq!(table.wait(parent, -1, 0), Ok(Some((first, Status::Exited(1)))));
}

#[test]
fn orphans_go_to_init_and_are_reaped() {
    let table = Arc::new(ProcessTable::default());
    let parent = table.spawn(INIT);
    let child = table.spawn(parent);
    let zombie = table.spawn(parent);
    table.exit(zombie, Status::Exited(0));
    table.exit(parent, Status::Exited(0));
    assert_eq!(table.parent(child), INIT);
    let all = {
        let table = table.clone();
        thread::spawn(move || table.wait_for_all())
    };
    thread::sleep(PAUSE);
    assert!(!all.is_finished());
    table.exit(child, Status::Exited(0));
    all.join().unwrap();
    assert_eq!(table.wait(INIT, -1, 0), Err(Errno::CHILD));
}

#[test]
fn a_pipe_ends_when_its_last_writer_is_gone() {
    let (reader, writer) = pipe();
    let writer = Arc::new(writer);
    let other = writer.clone();
    let mut buffer = [0; 8];
    assert_eq!(reader.read(&mut buffer, true), Err(Errno::AGAIN));
    assert_eq!(writer.write(b"abc", false), Ok(3));
    drop(writer);
    assert_eq!(reader.read(&mut buffer, false), Ok(3));
    assert_eq!(&buffer[..3], b"abc");
    let closing = thread::spawn(move || {
        thread::sleep(PAUSE);
        drop(other);
    });
    assert_eq!(reader.read(&mut buffer, false), Ok(0));
    closing.join().unwrap();
}

#[test]
fn a_pipe_without_readers_refuses_writes() {
    let (reader, writer) = pipe();
    drop(reader);
    assert_eq!(writer.write(b"abc", false), Err(Errno::PIPE));
    assert_eq!(writer.write(b"", false), Ok(0));
}

#[test]
fn a_full_pipe_blocks_its_writer() {
    let (reader, writer) = pipe();
    assert_eq!(writer.write(&vec![1; CAPACITY + 10], true), Ok(CAPACITY));
    assert_eq!(writer.write(b"x", true), Err(Errno::AGAIN));
    assert_eq!(writer.writable(), None);
    let writing = thread::spawn(move || writer.write(&vec![2; CAPACITY + 10], false));
    thread::sleep(PAUSE);
    assert!(!writing.is_finished());
    let mut all = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        match reader.read(&mut buffer, false).unwrap() {
            0 => break,
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
    assert_eq!(writing.join().unwrap(), Ok(CAPACITY + 10));
    assert_eq!(all.len(), 2 * CAPACITY + 10);
}

#[test]
fn descriptors_take_the_lowest_free_number() {
    let mut table = DescriptorTable::default();
    let empty = || Description::new(Object::Empty, 0);
    assert_eq!(table.open(empty()), Ok(0));
    assert_eq!(table.open(empty()), Ok(1));
    assert_eq!(table.close(0), Ok(()));
    assert_eq!(table.pipe(), Ok((0, 2)));
    assert_eq!(table.close(7), Err(Errno::BADF));
    assert_eq!(table.duplicate(7, 0), Err(Errno::BADF));
    assert_eq!(table.renumber(1, 9), Err(Errno::BADF));
    assert_eq!(table.duplicate(1, 9), Ok(()));
    assert_eq!(table.renumber(1, 9), Ok(()));
    assert!(table.get(1).is_err() && table.get(9).is_ok());
}

#[test]
fn a_duplicate_keeps_a_pipe_open() {
    let mut parent = DescriptorTable::default();
    let (from, to) = parent.pipe().unwrap();
    parent.duplicate(to, 8).unwrap();
    let mut child = parent.clone();
    let reader = parent.get(from).unwrap();
    reader.set_flags(NONBLOCK);
    let mut buffer = [0; 4];
    parent.close(to).unwrap();
    for fd in [8, to] {
        assert_eq!(reader.read(&mut buffer), Err(Errno::AGAIN));
        child.close(fd).unwrap();
    }
    assert_eq!(reader.read(&mut buffer), Err(Errno::AGAIN));
    parent.close(8).unwrap();
    assert_eq!(reader.read(&mut buffer), Ok(0));
    assert_eq!(parent.get(from).unwrap().write(b"x"), Err(Errno::BADF));
}

#[test]
fn forked_descriptors_share_offset_and_flags() {
    let path = std::env::temp_dir().join(format!("fork-host-posix-{}", std::process::id()));
    let authority = cap_std::ambient_authority();
    let mut options = cap_std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = cap_std::fs::File::open_ambient_with(&path, &options, authority).unwrap();

    let mut parent = DescriptorTable::default();
    let fd = parent.open(Description::new(Object::File(file), 0)).unwrap();
    let child = parent.clone();
    let (ours, theirs) = (parent.get(fd).unwrap(), child.get(fd).unwrap());
    ours.write(b"one ").unwrap();
    theirs.write(b"two ").unwrap();
    ours.seek(std::io::SeekFrom::Start(1)).unwrap();
    theirs.set_flags(APPEND);
    ours.write(b"three").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one two three");
    assert_eq!(theirs.write_at(b"TWO", 4), Ok(3));
    let mut buffer = [0; 7];
    assert_eq!(theirs.read_at(&mut buffer, 0), Ok(7));
    assert_eq!(&buffer, b"one TWO");
    assert_eq!(ours.seek(std::io::SeekFrom::Current(0)), Ok(13));
    std::fs::remove_file(path).unwrap();
}
