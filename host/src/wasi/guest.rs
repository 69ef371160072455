//! A program's memory as the functions see it: little-endian, pointers of either width, every access checked.

use crate::errno::Errno;

/// A program's memory.
pub struct Guest<'a> {
    bytes: &'a mut [u8],
    wide: bool,
}

impl<'a> Guest<'a> {
    /// `wide`: pointers and sizes have 64 bits.
    pub fn new(bytes: &'a mut [u8], wide: bool) -> Self {
        Self { bytes, wide }
    }

    /// Bytes in a pointer or size.
    pub fn pointer_size(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    /// `length` bytes at `address`.
    pub fn slice(&self, address: u64, length: u64) -> Result<&[u8], Errno> {
        let range = self.range(address, length)?;
        Ok(&self.bytes[range])
    }

    /// `length` bytes at `address`, to be written.
    pub fn slice_mut(&mut self, address: u64, length: u64) -> Result<&mut [u8], Errno> {
        let range = self.range(address, length)?;
        Ok(&mut self.bytes[range])
    }

    fn range(&self, address: u64, length: u64) -> Result<std::ops::Range<usize>, Errno> {
        let end = address.checked_add(length).filter(|end| *end <= self.bytes.len() as u64).ok_or(Errno::FAULT)?;
        Ok(address as usize..end as usize)
    }

    /// Writes bytes.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.slice_mut(address, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Reads a fixed number of bytes.
    pub fn array<const N: usize>(&self, address: u64) -> Result<[u8; N], Errno> {
        Ok(self.slice(address, N as u64)?.try_into().expect("the slice has N bytes"))
    }

    /// Reads a pointer or size.
    pub fn pointer(&self, address: u64) -> Result<u64, Errno> {
        if self.wide {
            Ok(u64::from_le_bytes(self.array(address)?))
        } else {
            Ok(u64::from(u32::from_le_bytes(self.array(address)?)))
        }
    }

    /// Writes a pointer or size.
    pub fn write_pointer(&mut self, address: u64, value: u64) -> Result<(), Errno> {
        let length = self.pointer_size() as usize;
        self.write(address, &value.to_le_bytes()[..length])
    }

    /// Reads a path.
    pub fn path(&self, address: u64, length: u64) -> Result<&str, Errno> {
        std::str::from_utf8(self.slice(address, length)?).map_err(|_| Errno::ILSEQ)
    }

    /// The buffers that an array of `iovec` or `ciovec` names: (address, length).
    pub fn vectors(&self, address: u64, count: u64) -> Result<Vec<(u64, u64)>, Errno> {
        let size = self.pointer_size();
        if count > 1024 {
            return Err(Errno::INVAL);
        }
        (0..count)
            .map(|index| {
                let at = address.checked_add(index * 2 * size).ok_or(Errno::FAULT)?;
                let (start, length) = (self.pointer(at)?, self.pointer(at + size)?);
                self.slice(start, length)?;
                Ok((start, length))
            })
            .collect()
    }

    /// The bytes of an array of `ciovec`, in one piece.
    pub fn gather(&self, address: u64, count: u64) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        for (start, length) in self.vectors(address, count)? {
            bytes.extend_from_slice(self.slice(start, length)?);
        }
        Ok(bytes)
    }

    /// Spreads bytes over the buffers.
    pub fn scatter(&mut self, vectors: &[(u64, u64)], mut bytes: &[u8]) -> Result<(), Errno> {
        for &(start, length) in vectors {
            let (now, later) = bytes.split_at(bytes.len().min(length as usize));
            self.write(start, now)?;
            bytes = later;
        }
        Ok(())
    }
}
