//! The layout of frames in the buffer.
//!
//! ```text
//! lower addresses
//!   locals           in the order of the plan's frame, those that the site's mask holds, no padding
//!   site             nothing in functions with a single site; 1 byte; 2 bytes followed by the byte 255 for sites from 255 on
//!   function         2 bytes; 4 in modules with 65,536 or more resumable functions
//! higher addresses   the position
//! ```
//!
//! Frames are pushed upwards and popped from the top, so what is read first is written last.

use crate::ir::{Hierarchy, Type};
use crate::plan::{FunctionPlan, Site};

/// Stands for the site in frames that hold none.
pub const NO_SITE: i32 = -1;
/// Sites below this take one byte.
pub const WIDE_SITE: u32 = 255;
/// Locals of one type that a push helper takes at once, at most.
pub const PUSH_GROUP: usize = 8;

/// Slots of a function that can be in some frames and not in others, at most.
pub const MASK_BITS: usize = 64;

/// The table of masks, looked up by function number and site: for each function an entry of four bytes (bits 0 to 23
/// the offset of its masks in the table, bits 24 to 31 the number of bits), then the masks, by site, each in the least
/// number of bytes. `None` when no function has slots that only some frames hold, or the table is too large.
pub fn mask_table(plans: &[&FunctionPlan]) -> Option<Vec<u8>> {
    if plans.iter().all(|p| p.sometimes().is_empty()) {
        return None;
    }
    let mut entries: Vec<u8> = Vec::new();
    let mut masks: Vec<u8> = Vec::new();
    for plan in plans {
        let bits = plan.sometimes().len();
        let offset = plans.len() * 4 + masks.len();
        if offset >= 1 << 24 {
            return None;
        }
        entries.extend((offset as u32 | (bits as u32) << 24).to_le_bytes());
        for site in (0..plan.landings.len() as u32).map(Site) {
            masks.extend(&plan.mask(site).to_le_bytes()[..bits.div_ceil(8)]);
        }
    }
    entries.extend(masks);
    Some(entries)
}

/// Widths that hold for all frames of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameLayout {
    /// Bytes of a function number: 2 or 4.
    pub function_bytes: u32,
    /// Bytes of the largest payload of an exception.
    pub payload_bytes: u32,
}

impl FrameLayout {
    pub fn for_functions(count: usize) -> FrameLayout {
        FrameLayout { function_bytes: if count < 0x10000 { 2 } else { 4 }, payload_bytes: 0 }
    }

    /// The size of the function's largest frame, in bytes.
    pub fn largest_frame(self, plan: &FunctionPlan) -> u64 {
        let site: u32 = match plan.landings.len() as u32 {
            0 | 1 => 0,
            count if count <= WIDE_SITE => 1,
            _ => 3,
        };
        let payload = |t: Type| if t.hierarchy() == Hierarchy::Exception { self.payload_bytes } else { 0 };
        let payloads = |t: Type| t.components().into_iter().map(payload).sum::<u32>();
        let slots: u64 = plan.frame.iter().map(|s| u64::from(slot_size(s.type_) + payloads(s.type_))).sum();
        slots + u64::from(site + self.function_bytes)
    }
}

/// Bytes of a local in a frame. A reference is a number of four bytes: an i31, an index in a table, or a tag, below
/// which is the payload.
pub fn slot_size(type_: Type) -> u32 {
    type_.components().into_iter().map(|t| if t.is_numeric() { t.size() } else { 4 }).sum()
}
