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

use std::collections::HashMap;

use crate::ir::{Hierarchy, Type};
use crate::plan::{Epilogue, FunctionNumber, FunctionPlan, Masks, Site, Slot};

/// Stands for the site in frames that hold none.
pub const NO_SITE: i32 = -1;
/// Sites below this take one byte.
pub const WIDE_SITE: u32 = 255;
/// Locals of one type that a push helper takes at once, at most.
pub const PUSH_GROUP: usize = 6;
/// Likewise where the call is to need no room in the engine's frame: wasmtime passes six integers in registers, two of them
/// its own, and one is the site.
pub const SMALL_PUSH_GROUP: usize = 3;
/// Likewise of a helper that takes the function's number, too.
pub const LAST_GROUP: usize = 2;
/// How many locals of one type pop helpers take, the largest first.
pub const POP_GROUPS: [usize; 4] = [8, 4, 2, 1];

/// Slots of a function that can be in some frames and not in others, at most.
pub const MASK_BITS: usize = 64;

/// The masks of a function by site.
pub type MasksBySite = Vec<u64>;

/// What the functions that give masks are to give, by number.
#[derive(Default)]
pub struct MaskFunctions {
    pub masks: Vec<MasksBySite>,
    /// The first so many serve functions on the fork path themselves, the others only resume functions.
    pub shared: usize,
}

/// Tells functions and epilogues where their masks are. A function's masks say which slots of
/// [`FunctionPlan::sometimes`] a frame holds: a bit for each, the last slot's the lowest. Gives those that do not fit in
/// one number, for which there are to be functions; functions with equal masks share them.
pub fn lay_out_masks(plans: &mut [FunctionPlan]) -> MaskFunctions {
    let mut numbers: HashMap<MasksBySite, u32> = HashMap::new();
    let mut shared = 0;
    for is_shared in [true, false] {
        for plan in plans.iter_mut().filter(|plan| plan.has_own_resume() && needs_masks(plan)) {
            if plan.epilogues.iter().any(Epilogue::pushes_by_mask) != is_shared {
                continue;
            }
            plan.masks = Some(packed(plan).unwrap_or_else(|| {
                let next = numbers.len() as u32;
                let number = *numbers.entry(plan.sites().map(|site| mask(plan, site)).collect()).or_insert(next);
                Masks::Function(number, plan.sometimes().len() as u32)
            }));
            for epilogue in plan.epilogues.iter_mut().filter(|epilogue| epilogue.pushes_by_mask()) {
                epilogue.masks = plan.masks;
            }
        }
        if is_shared {
            shared = numbers.len();
        }
    }
    push_as_owners_do(plans);
    let mut masks: Vec<(u32, MasksBySite)> = numbers.into_iter().map(|(masks, number)| (number, masks)).collect();
    masks.sort_unstable();
    MaskFunctions { masks: masks.into_iter().map(|(_, masks)| masks).collect(), shared }
}

/// Functions that load their frames themselves know what the frames of each site hold.
fn needs_masks(plan: &FunctionPlan) -> bool {
    !plan.sometimes().is_empty() && !plan.loads_in_line
}

/// Of the functions that share a number the first has the resume function: the others' frames are like its own.
fn push_as_owners_do(plans: &mut [FunctionPlan]) {
    let owners = plans.iter().enumerate().filter(|(_, plan)| plan.has_own_resume());
    let owners: HashMap<FunctionNumber, usize> = owners.map(|(index, plan)| (plan.number, index)).collect();
    let sharing: Vec<usize> = (0..plans.len()).filter(|&index| plans[index].shares_resume).collect();
    for index in sharing {
        let owner = plans[owners[&plans[index].number]].clone();
        let plan = &mut plans[index];
        (plan.frame, plan.always, plan.masks) = (owner.frame, owner.always, owner.masks);
        (plan.epilogues, plan.push_group, plan.in_line) = (owner.epilogues, owner.push_group, owner.in_line);
        for (landing, owners) in plan.landings.iter_mut().zip(&owner.landings) {
            (landing.epilogue, landing.test_form) = (owners.epilogue, owners.test_form);
            landing.dead.clone_from(&owners.dead);
        }
    }
}

/// The mask of a site.
fn mask(plan: &FunctionPlan, site: Site) -> u64 {
    plan.mask(site).reverse_bits() >> (u64::BITS as usize - plan.sometimes().len())
}

/// All masks in one number, if they fit.
fn packed(plan: &FunctionPlan) -> Option<Masks> {
    let bits = plan.sometimes().len();
    let fits = plan.landings.len() > 1 && plan.landings.len() * bits <= u64::BITS as usize;
    let masks = || plan.sites().map(|site| mask(plan, site) << (site.0 as usize * bits)).sum();
    fits.then(|| Masks::Packed(masks(), bits as u32))
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
        let size = |slot: &Slot| u64::from(slot_size(slot.type_) + payloads(slot.type_));
        let sometimes: Vec<u64> = plan.sometimes().iter().map(size).collect();
        let held =
            |mask: u64| sometimes.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, size)| size).sum();
        let most: u64 = plan.sites().map(|site| held(plan.mask(site))).max().unwrap_or(0);
        most + plan.always().iter().map(size).sum::<u64>() + u64::from(site + self.function_bytes)
    }
}

/// Bytes of the site in a frame that is stored and loaded in line, where it has one.
pub fn site_bytes_in_line(plan: &FunctionPlan) -> u32 {
    match plan.landings.len() as u32 {
        0 | 1 => 0,
        count if count <= WIDE_SITE => 1,
        _ => 2,
    }
}

/// Bytes of a local in a frame. A reference is a number of four bytes: an i31, an index in a table, or a tag, below
/// which is the payload.
pub fn slot_size(type_: Type) -> u32 {
    type_.components().into_iter().map(|t| if t.is_numeric() { t.size() } else { 4 }).sum()
}
