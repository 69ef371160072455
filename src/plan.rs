//! What was decided about a function, without pointers into its code.
//!
//! ```text
//! FunctionPlan
//!   root: Region              the body, if it holds a landing
//!     Region                  a node that holds a landing: block, loop, if, try, or an expression with operands
//!       parts                 its children that are regions
//!       carried               operands computed before a landing in a later part, and needed after it
//!       test_*                where the state is tested after a landing below this node
//!   landings                  by site, in order of evaluation
//!   frame                     the locals that a frame of this function holds
//! ```
//!
//! Children are named by their position in the order of execution, so that the same plan reads the function's body and
//! any copy of it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::ir::Type;

/// Index of a region within its [`FunctionPlan`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RegionId(pub u32);

/// Number of a landing within its function, from 0, in order of evaluation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Site(pub u32);

/// Number of a function among those that have resume functions; what frames name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FunctionNumber(pub u32);

/// Index of a local in its function.
pub type LocalIndex = u32;

/// What a region's node is, as far as reaching a landing inside it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionKind {
    /// Statements; those before the part that is resumed are skipped.
    Block,
    /// The body can be entered normally even while rewinding reaches it, through the back edge.
    Loop,
    /// Condition, then-arm, else-arm; the condition is forced, not evaluated.
    If,
    /// The protected body is child 0. Catch bodies hold no landings.
    Try,
    /// Any other expression: children are operands, all needed when the expression itself executes.
    Operands,
}

/// How the value of an operand that was computed before a landing is available after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carry {
    /// The resume function computes it again: it has no effects, cannot trap, and reads only locals that the frame
    /// holds and that are not written in between.
    Recompute,
    /// This local holds the operand's value, and is not written in between: the frame holds the local. The operand is a
    /// `local.tee` of it, or an equal expression was set to it before.
    ReadLocal(LocalIndex),
    /// A new local keeps it, and the frame holds that local.
    Spill(LocalIndex, SpillReason),
}

/// Why an operand is not recomputed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SpillReason {
    /// It holds a landing or another call.
    Calls,
    /// Evaluating it again would repeat a write, a branch or the like.
    SideEffects,
    /// Evaluating it again could trap.
    Traps,
    /// It reads memory, a table or a mutable global, which may have changed.
    ReadsMutableState,
    /// It allocates: evaluated again it would be another object.
    Generative,
    /// It reads a local that is written before the landing.
    ReadsWrittenLocal,
    /// Keeping all locals that it reads would make the frame larger than keeping its value, also together with other operands.
    Cost,
    /// The option `replay` does not allow it.
    Option,
}

impl fmt::Display for SpillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpillReason::Calls => "call",
            SpillReason::SideEffects => "side effect",
            SpillReason::Traps => "trap",
            SpillReason::ReadsMutableState => "mutable state",
            SpillReason::Generative => "allocation",
            SpillReason::ReadsWrittenLocal => "local written since",
            SpillReason::Cost => "cost",
            SpillReason::Option => "option",
        })
    }
}

/// An operand that a later part's landings need.
#[derive(Clone, Copy, Debug)]
pub struct CarriedOperand {
    pub child: u32,
    pub carry: Carry,
    /// Set when the operand ends in a landing whose test must come before the value is used: the test goes between
    /// keeping the value and reading it back.
    pub test: Option<Site>,
}

/// A node that holds a landing.
#[derive(Clone, Debug)]
pub struct Region {
    pub kind: RegionKind,
    /// Sites of all landings in the node, itself included.
    pub sites: Range<u32>,
    /// The site of the node itself, if it is a landing.
    pub landing: Option<Site>,
    /// The children that are regions, by position, ascending.
    pub parts: Vec<(u32, RegionId)>,
    /// Ascending by child. Only for [`RegionKind::Operands`].
    pub carried: Vec<CarriedOperand>,
    /// A test to put in front of the child, between the operand that ends in the landing and this one.
    pub test_before: Option<(u32, Site)>,
    /// A test to put after the node, a statement.
    pub test_after: Option<Site>,
    /// The node is a `local.tee`: set the local, test, read the local.
    pub test_in_tee: Option<Site>,
    /// The node branches on what a landing in its condition returned: a test where that leads while unwinding.
    pub test_behind: Option<(Way, Site)>,
}

/// A way out of a condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Into an arm of an `if`, by child.
    Arm(u32),
    /// Into an else-arm that is not there yet.
    NewElse,
    /// A `br_if` is taken.
    Taken,
}

/// What a landing calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Callee {
    /// An entry import: called again with its arguments when rewinding reaches it.
    Entry,
    /// A function that always leaves its own frame, by its number.
    Function(FunctionNumber),
    /// Whatever function's frame comes next.
    NextFrame,
}

impl Callee {
    /// Whether a frame of its own says where it is resumed; an entry import is called again.
    pub fn is_resumed(self) -> bool {
        self != Callee::Entry
    }
}

/// What becomes of the callee's value while the state is tested in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InPlace {
    /// The branch carries it to a label of its own.
    Carried,
    /// A local keeps it: for functions that would have too many such labels, one within the other.
    Kept(LocalIndex),
}

/// How a test brings its site along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TestForm {
    /// `br_if` with the site as its value: the smallest.
    Branch,
    /// `if` around a `br`: two bytes more. What the branch takes with it is then made only when it leaves.
    Arm,
}

/// How a resume function is resumed again whose frame does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It branches back to its start.
    Loop,
    /// What ends it resumes it. A local says whether that has resumed it already, and tries again then.
    Call,
}

/// A call that can be suspended.
#[derive(Clone, Debug)]
pub struct Landing {
    pub callee: Callee,
    /// It stands for calls that go on alike, where their ways meet, and does nothing itself.
    pub is_join: bool,
    /// Name or index of the callee before numbers are known; index into the module's functions, for a direct call.
    pub direct: Option<u32>,
    pub result: Type,
    /// Locals that its frame must hold, ascending.
    pub live: Vec<LocalIndex>,
    /// Locals that are dead there, and in its frame so that it ends as another's, ascending. Code may change them
    /// before the frame is pushed.
    pub dead: Vec<LocalIndex>,
    /// Tested where it stands.
    pub test_in_place: Option<InPlace>,
    /// Index of the epilogue that the function's test leaves for.
    pub epilogue: usize,
    /// How the function's test brings the site there.
    pub test_form: TestForm,
}

impl Landing {
    /// Whether its frame holds the slot, unless all frames do.
    pub fn holds(&self, slot: &Slot) -> bool {
        self.live.binary_search(&slot.local).is_ok() || self.dead.binary_search(&slot.local).is_ok()
    }
}

/// What some landings' tests leave for: pushes the first slots of their frames, of those that not all frames hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epilogue {
    /// Ascending.
    pub sites: Vec<Site>,
    /// In the order in which they are pushed; and whether the site's mask says if one is: all or none of them.
    pub slots: Vec<(Slot, bool)>,
    /// The epilogue that goes on pushing, a later one; `None` at the end, where only what all frames hold is left.
    pub next: Option<usize>,
    /// Where the masks are, if a slot needs them; once all plans are made.
    pub masks: Option<Masks>,
}

impl Epilogue {
    pub fn pushes_by_mask(&self) -> bool {
        self.slots.iter().any(|&(_, masked)| masked)
    }
}

/// Where a function's masks are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Masks {
    /// In one number, that of site 0 in the lowest bits; and the bits of each, at most 32.
    Packed(u64, u32),
    /// A function of ours gives them: which of these functions, and the bits of each, at most 64.
    Function(u32, u32),
}

/// One local in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    pub local: LocalIndex,
    pub type_: Type,
}

/// A number that a reference is made of, kept where the reference is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capture {
    /// Row of the number's expression in the post-order listing of the original body.
    pub row: u32,
    /// The new local that keeps it.
    pub local: LocalIndex,
}

/// A reference that is made again when a landing is resumed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rebuild {
    pub local: LocalIndex,
    /// Row, in the post-order listing of the original body, of the expression that made it; `None` for the null of a
    /// variable that was not set.
    pub row: Option<u32>,
    /// The local that holds the number in the expression, if there is one that must be kept.
    pub capture: Option<LocalIndex>,
    /// The landings before which this is what the local holds.
    pub sites: Vec<Site>,
}

/// Everything that was decided about one function of the fork path.
#[derive(Clone, Debug)]
pub struct FunctionPlan {
    pub function: String,
    /// Meaningful once all plans are made, and only with landings. Equal functions share a number.
    pub number: FunctionNumber,
    /// The number is another function's, an equal one, whose resume function serves both.
    pub shares_resume: bool,
    pub regions: Vec<Region>,
    pub root: Option<RegionId>,
    pub landings: Vec<Landing>,
    /// Types of the locals to add, for operands that are spilled and numbers that are captured; the first has the index
    /// `locals.len()`.
    pub spills: Vec<Type>,
    /// Types of the locals before the transform.
    pub locals: Vec<Type>,
    /// In the order in which they are pushed. All frames hold the last [`always`](Self::always) slots; which of the
    /// others a frame holds depends on its site ([`mask`](Self::mask)).
    pub frame: Vec<Slot>,
    pub always: usize,
    /// Where the masks are, if there are such slots; once all plans are made.
    pub masks: Option<Masks>,
    /// Every site is in one of them.
    pub epilogues: Vec<Epilogue>,
    /// Whether it stores its frames itself, and its resume function does, instead of calling helpers.
    pub in_line: bool,
    /// Whether its resume function, which then stores its frames itself, loads them itself, too.
    pub loads_in_line: bool,
    /// How many locals the function pushes with one call, at most.
    pub push_group: usize,
    /// Likewise its resume function.
    pub resume_push_group: usize,
    /// How many locals what ends a frame of the resume function takes, at most.
    pub resume_last_group: usize,
    /// How its resume function is resumed again whose frame does not fit.
    pub retry: Retry,
    pub captures: Vec<Capture>,
    pub rebuilds: Vec<Rebuild>,
    /// Rows, in the post-order listing of the original body, of calls that can be suspended but are no landings, with
    /// the site of the join that they come to.
    pub joined: Vec<(u32, Site)>,
    /// Whether it can return with another function's frame on top instead of its own: it ends in a call that can be
    /// suspended.
    pub elides: bool,
    pub results: Type,
}

impl FunctionPlan {
    pub fn region(&self, id: RegionId) -> &Region {
        &self.regions[id.0 as usize]
    }

    pub fn region_ids(&self) -> impl Iterator<Item = RegionId> + use<> {
        (0..self.regions.len() as u32).map(RegionId)
    }

    pub fn landing(&self, site: Site) -> &Landing {
        &self.landings[site.0 as usize]
    }

    pub fn local_type(&self, local: LocalIndex) -> Type {
        let index = local as usize;
        self.locals.get(index).copied().unwrap_or_else(|| self.spills[index - self.locals.len()])
    }

    /// Adds a local for values that must be kept.
    pub fn add_spill(&mut self, type_: Type) -> LocalIndex {
        self.spills.push(type_);
        (self.locals.len() + self.spills.len() - 1) as LocalIndex
    }

    pub fn sites(&self) -> impl Iterator<Item = Site> + use<> {
        (0..self.landings.len() as u32).map(Site)
    }

    /// Slots that only some frames hold.
    pub fn sometimes(&self) -> &[Slot] {
        &self.frame[..self.frame.len() - self.always]
    }

    /// Slots that all frames hold.
    pub fn always(&self) -> &[Slot] {
        &self.frame[self.frame.len() - self.always..]
    }

    /// One epilogue for all sites, which pushes by mask.
    pub fn common_epilogue(&self) -> Epilogue {
        let slots = self.sometimes().iter().map(|&slot| (slot, true)).collect();
        Epilogue { sites: self.sites().collect(), slots, masks: self.masks, next: None }
    }

    /// The epilogues that tests leave for.
    pub fn kinds_of_frames(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.epilogues.len()).filter(|&index| !self.epilogues[index].sites.is_empty())
    }

    /// Which of [`sometimes`](Self::sometimes) the frames of a site hold: bit i for the i-th of them.
    pub fn mask(&self, site: Site) -> u64 {
        let landing = self.landing(site);
        self.sometimes().iter().enumerate().filter(|(_, slot)| landing.holds(slot)).map(|(i, _)| 1 << i).sum()
    }

    /// How the operands are available that landings' statements need after them, for users; `None` if there are none.
    pub fn explain_operands(&self) -> Option<String> {
        let (mut recomputed, mut read, mut spilled) = (0, 0, BTreeMap::new());
        for carried in self.regions.iter().flat_map(|region| &region.carried) {
            match carried.carry {
                Carry::Recompute => recomputed += 1,
                Carry::ReadLocal(_) => read += 1,
                Carry::Spill(_, reason) => *spilled.entry(reason).or_insert(0) += 1,
            }
        }
        let total: usize = spilled.values().sum();
        let reasons: Vec<String> = spilled.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let spilled = format!("{total} spilled ({})", reasons.join(", "));
        let parts = [(recomputed, format!("{recomputed} recomputed")), (read, format!("{read} read from a local"))];
        let parts = parts.into_iter().chain([(total, spilled)]).filter(|&(count, _)| count > 0);
        let parts: Vec<String> = parts.map(|(_, part)| part).collect();
        (!parts.is_empty()).then(|| format!("[fork-instrument] operands of {}: {}", self.function, parts.join(", ")))
    }

    /// Whether the function can be suspended.
    pub fn is_resumable(&self) -> bool {
        !self.landings.is_empty()
    }

    /// Whether it gets a resume function of its own.
    pub fn has_own_resume(&self) -> bool {
        self.is_resumable() && !self.shares_resume
    }
}

impl Region {
    pub fn carried(&self, child: u32) -> Option<&CarriedOperand> {
        self.carried.iter().find(|c| c.child == child)
    }
}
