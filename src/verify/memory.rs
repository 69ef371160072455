//! Values that are known to some degree, and memory that holds such values.

use crate::ir::Type;
use crate::plan::LocalIndex;

/// The component of a local that stands for all of it.
pub const WHOLE: u8 = u8::MAX;

/// What is known of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number other than a vector.
    Bits(u64),
    /// Some number other than zero.
    NonZero,
    Null,
    /// What a reference holds that was not set: null, whatever its type says.
    Unset,
    /// What a local of the function held when it was suspended; of a tuple, a component.
    Local(LocalIndex, u8),
    /// The number that stands for such a reference in a frame.
    Encoded(LocalIndex, u8),
    /// The same operations on the same operands.
    Computed(u64),
    Unknown,
}

impl Value {
    /// The value of a local when the function was suspended.
    pub fn local(local: LocalIndex) -> Value {
        Value::Local(local, WHOLE)
    }

    /// Whether it is anything but zero, if that is known.
    pub fn truth(self) -> Option<bool> {
        match self {
            Value::Bits(bits) => Some(bits != 0),
            Value::NonZero => Some(true),
            _ => None,
        }
    }

    pub fn bits(self) -> Option<u64> {
        if let Value::Bits(bits) = self { Some(bits) } else { None }
    }
}

/// A byte of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// Never written.
    Initial,
    Byte(u8),
    /// A byte of a value, by position.
    Part(Value, u8),
}

/// Addresses below are not modelled.
const START: u64 = 0x1000;
/// Addresses that are modelled, at most.
const SIZE: u64 = 1 << 28;

/// The memory that holds the frames.
#[derive(Clone, Debug, Default)]
pub struct Memory(Vec<Cell>);

impl Memory {
    /// A place for a buffer.
    pub const BUFFER: u64 = START;

    fn index(address: u64, bytes: u64) -> Option<usize> {
        let offset = address.checked_sub(START)?;
        (offset + bytes <= SIZE).then_some(offset as usize)
    }

    pub fn cell(&self, address: u64) -> Cell {
        Memory::index(address, 1).and_then(|i| self.0.get(i)).copied().unwrap_or(Cell::Initial)
    }

    pub fn cells(&self, address: u64, count: u64) -> Vec<Cell> {
        (address..address + count).map(|a| self.cell(a)).collect()
    }

    /// All that was written at or after an address, without what is initial at the end.
    pub fn from(&self, address: u64) -> &[Cell] {
        let start = Memory::index(address, 0).unwrap_or(0).min(self.0.len());
        let end = self.0.iter().rposition(|&c| c != Cell::Initial).map_or(0, |last| last + 1);
        &self.0[start..end.max(start)]
    }

    /// Forgets what is at or after an address.
    pub fn truncate(&mut self, address: u64) {
        self.0.truncate(Memory::index(address, 0).unwrap_or(0));
    }

    /// Whether the address is one that is modelled.
    pub fn set(&mut self, address: u64, cell: Cell) -> bool {
        let Some(index) = Memory::index(address, 1) else { return false };
        if self.0.len() <= index {
            self.0.resize(index + 1, Cell::Initial);
        }
        self.0[index] = cell;
        true
    }

    pub fn set_bytes(&mut self, address: u64, bytes: &[u8]) -> bool {
        bytes.iter().zip(address..).all(|(&byte, at)| self.set(at, Cell::Byte(byte)))
    }

    pub fn store(&mut self, address: u64, bytes: u32, value: Value) -> bool {
        (0..bytes).all(|i| {
            let cell = match value {
                Value::Bits(bits) => Cell::Byte(if i < 8 { (bits >> (8 * i)) as u8 } else { 0 }),
                value => Cell::Part(value, i as u8),
            };
            self.set(address + u64::from(i), cell)
        })
    }

    pub fn load(&self, address: u64, bytes: u32, signed: bool, type_: Type) -> Value {
        let cells = self.cells(address, u64::from(bytes));
        if let Some(&Cell::Part(value, 0)) = cells.first() {
            let is_whole =
                bytes == type_.size() && cells.iter().enumerate().all(|(i, &cell)| cell == Cell::Part(value, i as u8));
            return if is_whole { value } else { Value::Unknown };
        }
        let mut bits: u64 = 0;
        for (i, cell) in cells.iter().enumerate() {
            match cell {
                Cell::Byte(byte) if i < 8 => bits |= u64::from(*byte) << (8 * i),
                Cell::Byte(0) => {}
                _ => return Value::Unknown,
            }
        }
        if signed && bytes < 8 {
            let shift = 64 - 8 * bytes;
            bits = (((bits << shift) as i64) >> shift) as u64;
        }
        if type_.size() == 4 {
            bits &= u64::from(u32::MAX);
        }
        Value::Bits(bits)
    }
}
