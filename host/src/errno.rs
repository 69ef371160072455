//! Error numbers of WASI preview 1, which are those of wasi-libc.

use std::io;

/// An error number as WASI preview 1 numbers them; 0 is success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub u16);

macro_rules! errnos {
    ($($name:ident = $number:literal,)*) => {
        #[allow(missing_docs)]
        impl Errno {
            $(pub const $name: Errno = Errno($number);)*
        }
    };
}

errnos! {
    SUCCESS = 0, ACCES = 2, AGAIN = 6, BADF = 8, BUSY = 10, CHILD = 12, EXIST = 20, FAULT = 21, FBIG = 22,
    ILSEQ = 25, INTR = 27, INVAL = 28, IO = 29, ISDIR = 31, LOOP = 32, MFILE = 33, MLINK = 34, NAMETOOLONG = 37,
    NODEV = 43, NOENT = 44, NOMEM = 48, NOSPC = 51, NOSYS = 52, NOTDIR = 54, NOTEMPTY = 55, NOTSOCK = 57,
    NOTSUP = 58, NOTTY = 59, NXIO = 60, OVERFLOW = 61, PERM = 63, PIPE = 64, RANGE = 68, ROFS = 69, SPIPE = 70,
    SRCH = 71, TIMEDOUT = 73, TXTBSY = 74, XDEV = 75, NOTCAPABLE = 76,
}

impl Errno {
    /// The value a system call of the `kernel` module returns for this error.
    pub fn negative(self) -> i32 {
        -i32::from(self.0)
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::*;
        match error.kind() {
            NotFound => Errno::NOENT,
            // The sandbox of directories refuses a path that leaves it without asking the system.
            PermissionDenied if error.raw_os_error().is_none() => Errno::NOTCAPABLE,
            PermissionDenied => Errno::ACCES,
            AlreadyExists => Errno::EXIST,
            WouldBlock => Errno::AGAIN,
            NotADirectory => Errno::NOTDIR,
            IsADirectory => Errno::ISDIR,
            DirectoryNotEmpty => Errno::NOTEMPTY,
            ReadOnlyFilesystem => Errno::ROFS,
            StorageFull => Errno::NOSPC,
            NotSeekable => Errno::SPIPE,
            FileTooLarge => Errno::FBIG,
            ResourceBusy => Errno::BUSY,
            ExecutableFileBusy => Errno::TXTBSY,
            CrossesDevices => Errno::XDEV,
            TooManyLinks => Errno::MLINK,
            InvalidFilename => Errno::NAMETOOLONG,
            InvalidInput => Errno::INVAL,
            InvalidData => Errno::ILSEQ,
            TimedOut => Errno::TIMEDOUT,
            Interrupted => Errno::INTR,
            BrokenPipe => Errno::PIPE,
            Unsupported => Errno::NOTSUP,
            OutOfMemory => Errno::NOMEM,
            // ELOOP has no stable kind; 40 is Linux's number, 62 that of the BSDs.
            _ if matches!(error.raw_os_error(), Some(40 | 62)) => Errno::LOOP,
            _ if error.raw_os_error() == Some(9) => Errno::BADF,
            _ => Errno::IO,
        }
    }
}
