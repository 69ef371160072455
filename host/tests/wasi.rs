//! WASI functions on a plain array of bytes.

use std::path::PathBuf;

use fork_host::errno::Errno;
use fork_host::wasi::{self, Source, State, Stdio, Stop};

struct Program {
    memory: Vec<u8>,
    wide: bool,
    state: State,
}

/// Where results go, and where strings and vectors are put.
const OUT: u64 = 0;
const VECTOR: u64 = 256;
const TEXT: u64 = 512;
const DATA: u64 = 1024;

impl Program {
    fn new(test: &str, wide: bool) -> (Self, PathBuf) {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("wasi-{test}-{wide}"));
        _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let dirs = [(dir.to_str().unwrap().to_owned(), "/data".to_owned())];
        (Self { memory: vec![0; 1 << 16], wide, state: State::new(Stdio::Capture, &dirs).unwrap() }, dir)
    }

    fn call(&mut self, name: &str, args: &[u64]) -> Errno {
        let function = wasi::find(name).unwrap();
        assert_eq!(function.params.len(), args.len(), "{name}");
        function.call(&mut self.memory, self.wide, &mut self.state, args).unwrap()
    }

    #[track_caller]
    fn works(&mut self, name: &str, args: &[u64]) {
        assert_eq!(self.call(name, args), Errno::SUCCESS, "{name}");
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> u64 {
        self.memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
        bytes.len() as u64
    }

    fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.memory[at as usize..][..8].try_into().unwrap())
    }

    /// One vector for the bytes at [`DATA`].
    fn vector(&mut self, length: u64) {
        let size = if self.wide { 8 } else { 4 };
        self.put(VECTOR, &DATA.to_le_bytes()[..size]);
        self.put(VECTOR + size as u64, &length.to_le_bytes()[..size]);
    }

    fn open(&mut self, path: &str, oflags: u64, writing: bool) -> Result<u64, Errno> {
        let length = self.put(TEXT, path.as_bytes());
        let rights = if writing { 1 << 1 | 1 << 6 } else { 1 << 1 };
        match self.call("path_open", &[3, 1, TEXT, length, oflags, rights, rights, 0, OUT]) {
            Errno::SUCCESS => Ok(self.word(OUT) & 0xffff_ffff),
            errno => Err(errno),
        }
    }
}

#[test]
fn files_are_read_and_written_through_vectors_of_either_width() {
    for wide in [false, true] {
        let (mut program, dir) = Program::new("files", wide);
        let fd = program.open("f", 1, true).unwrap();
        assert_eq!(fd, 4);
        let length = program.put(DATA, b"some text");
        program.vector(length);
        program.works("fd_write", &[fd, VECTOR, 1, OUT]);
        program.works("fd_pwrite", &[fd, VECTOR, 1, 5, OUT]);
        assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"some some text");
        program.works("fd_tell", &[fd, OUT]);
        assert_eq!(program.word(OUT), 9);
        program.works("fd_seek", &[fd, -4i64 as u64, 2, OUT]);
        program.works("fd_read", &[fd, VECTOR, 1, OUT]);
        assert_eq!(program.word(OUT) as u32, 4);
        assert_eq!(&program.memory[DATA as usize..][..4], b"text");
        program.works("fd_filestat_set_size", &[fd, 3]);
        program.works("fd_filestat_get", &[fd, OUT]);
        assert_eq!((program.word(OUT + 16), program.word(OUT + 32)), (4, 3));
        program.works("fd_close", &[fd]);
        assert_eq!(program.call("fd_close", &[fd]), Errno::BADF);
    }
}

#[test]
fn paths_stay_inside_their_directory() {
    let (mut program, _) = Program::new("paths", false);
    assert_eq!(program.open("../escape", 1, true), Err(Errno::NOTCAPABLE));
    assert_eq!(program.open("/etc/passwd", 0, false), Err(Errno::NOTCAPABLE));
    assert_eq!(program.open("", 0, false), Err(Errno::NOENT));
    assert_eq!(program.open("missing", 0, false), Err(Errno::NOENT));
    let fd = program.open("f", 1 | 4, true).unwrap();
    assert_eq!(program.open("f", 1 | 4, true), Err(Errno::EXIST));
    assert_eq!(program.open("f", 2, false), Err(Errno::NOTDIR));
    assert_eq!(program.call("path_create_directory", &[fd, TEXT, 1]), Errno::NOTDIR);
}

#[test]
fn directories_are_listed_in_pieces() {
    let (mut program, dir) = Program::new("list", false);
    for name in ["b", "a", "c"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        // Room for one entry and a part of the next.
        program.works("fd_readdir", &[3, DATA, 40, cookie, OUT]);
        let used = program.word(OUT) as u32;
        if used == 0 {
            break;
        }
        cookie = program.word(DATA);
        let length = program.word(DATA + 16) as u32 as usize;
        names.push(String::from_utf8(program.memory[DATA as usize + 24..][..length].to_vec()).unwrap());
    }
    assert_eq!(names, [".", "..", "a", "b", "c"]);
}

#[test]
fn preopened_directories_have_names() {
    for (wide, size) in [(false, 4), (true, 8)] {
        let (mut program, _) = Program::new("preopen", wide);
        program.works("fd_prestat_get", &[3, OUT]);
        assert_eq!(program.word(OUT + size) as u32, 5);
        program.works("fd_prestat_dir_name", &[3, DATA, 5]);
        assert_eq!(&program.memory[DATA as usize..][..5], b"/data");
        assert_eq!(program.call("fd_prestat_get", &[4, OUT]), Errno::BADF);
    }
}

#[test]
fn addresses_outside_memory_are_faults() {
    let (mut program, _) = Program::new("faults", true);
    assert_eq!(program.call("fd_write", &[1, u64::MAX - 4, 1, OUT]), Errno::FAULT);
    assert_eq!(program.call("random_get", &[0, 1 << 40]), Errno::FAULT);
    assert_eq!(program.call("args_get", &[1 << 16, 0]), Errno::SUCCESS);
    program.state.args = vec!["x".to_owned()];
    assert_eq!(program.call("args_get", &[1 << 16, 0]), Errno::FAULT);
}

#[test]
fn deterministic_sources_repeat_themselves() {
    let look = || {
        let (mut program, _) = Program::new("sources", false);
        program.state.source = Source::Deterministic(7);
        program.works("clock_time_get", &[0, 1, OUT]);
        program.works("random_get", &[OUT + 8, 16]);
        program.memory[..24].to_vec()
    };
    assert_eq!(look(), look());
}

#[test]
fn exit_and_signals_stop_the_program() {
    let (mut program, _) = Program::new("stop", false);
    let mut stop = |name, arg| wasi::find(name).unwrap().call(&mut program.memory, false, &mut program.state, &[arg]);
    assert_eq!(stop("proc_exit", 3), Err(Stop::Exit(3)));
    assert_eq!(stop("proc_raise", 6), Err(Stop::Signal(6)));
}
