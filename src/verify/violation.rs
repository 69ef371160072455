//! What can be wrong with an output.

use std::fmt;

use thiserror::Error;

use crate::plan::{LocalIndex, Site};
use crate::verify::machine::Fault;

/// An output that does not do what was planned: a defect of the pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub function: String,
    /// The landing, with its call as text.
    pub landing: Option<(Site, String)>,
    pub problem: Problem,
    /// The expression at which it was noticed.
    pub expression: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function {}", self.function)?;
        if let Some((site, call)) = &self.landing {
            write!(f, ", site {}, the call {call}", site.0)?;
        }
        write!(f, ": {}", self.problem)?;
        if let Some(expression) = &self.expression {
            write!(f, ", at {expression}")?;
        }
        Ok(())
    }
}

/// One variant for each claim that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Problem {
    #[error("a function that cannot fork was changed")]
    Changed,
    #[error("its own operations are not those that it had")]
    OperationsChanged,
    #[error("with its values in other locals, a read finds something else")]
    FindsOther(usize),
    #[error("the call is gone")]
    LandingGone,
    #[error("the local {0} does not keep the number that a reference is made again of")]
    NotCaptured(LocalIndex),
    #[error("unwinding does not lead from the call to the end of the function: {}", reason(.0))]
    NoWayOut(Fault),
    #[error("unwinding misses the place where calls that go on alike meet")]
    MissesJoin,
    #[error("on the way to where calls that go on alike meet, the local {0} gets another value")]
    LostOnTheWay(LocalIndex),
    #[error("unwinding calls {0}")]
    CallsUnwinding(String),
    #[error("{0}: it returns something other than zero")]
    ReturnsOther(During),
    #[error("it saves or resumes a frame while the state is normal")]
    FramesWhileNormal,
    #[error("{0}: the local {1} is not where the plan has it in the frame")]
    WrongSlot(During, LocalIndex),
    #[error("{0}: the frame names another site")]
    WrongSite(During),
    #[error("{0}: the frame names another function")]
    WrongFunction(During),
    #[error("{0}: the frame has {1} bytes too many")]
    FrameTooLong(During, u64),
    #[error("{0}: the frame lacks {1} bytes")]
    FrameTooShort(During, u64),
    #[error("{0}: the state is another afterwards")]
    StateChanged(During),
    #[error("{0}: something other than the frame was written to the buffer")]
    BufferChanged(During),
    #[error("rewinding does not reach the landing: {}", reason(.0))]
    NoWayIn(Fault),
    #[error("rewinding ends without having reached the landing")]
    ReturnsRewinding,
    #[error("code before the landing is executed while rewinding")]
    LeadIn(usize),
    #[error("rewinding calls {found} instead of resuming {expected}")]
    WrongCallee { found: String, expected: String },
    #[error("the entry is called again with other arguments")]
    WrongArguments,
    #[error("the local {0} is not reloaded from the frame")]
    NotReloaded(LocalIndex),
    #[error("when the landing is reached, the frame is not popped, or too much is")]
    NotPopped,
    #[error("operands that were computed before the call are others when it is resumed")]
    OtherOperands,
    #[error("once the call has returned, the resume function does not go on as the function does")]
    GoesOnOtherwise(usize),
    #[error("once the call has returned, the resume function goes on with another value")]
    GoesOnWithOther(usize),
    #[error("a frame that does not fit does not lead back to the call")]
    NoAbort,
    #[error("the export {0} does not resume the outermost frame while rewinding")]
    NoRoot(String),
    #[error("entered through a table, it does not resume the outermost frame while rewinding")]
    NoRootInTable,
    #[error("the export {0} does not call the function while the state is normal")]
    RootChanged(String),
    #[error("the transition {0} does not do what hosts are told")]
    Transition(&'static str),
}

/// When a frame was pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum During {
    /// By the function itself.
    Unwinding,
    /// By its resume function, which was unwound at the landing that it resumed.
    UnwindingAgain,
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            During::Unwinding => "unwinding",
            During::UnwindingAgain => "unwinding again from the resume function",
        })
    }
}

fn reason(fault: &Fault) -> &'static str {
    match fault {
        Fault::Effect(_) => "something is executed that can be noticed",
        Fault::Trap(_) => "something is executed that can trap",
        Fault::Undecided(_) => "it depends on a value that is not known there",
        Fault::Outside(_) => "it uses memory or a table that it must not",
        Fault::Unreachable(_) => "it traps",
        Fault::Endless => "it does not end",
    }
}

impl Fault {
    /// The expression's address.
    pub fn expression(self) -> Option<usize> {
        match self {
            Fault::Effect(address)
            | Fault::Trap(address)
            | Fault::Undecided(address)
            | Fault::Outside(address)
            | Fault::Unreachable(address) => Some(address),
            Fault::Endless => None,
        }
    }
}

impl Problem {
    /// The address of the expression that it is about.
    pub fn address(&self) -> Option<usize> {
        match self {
            Problem::FindsOther(address)
            | Problem::LeadIn(address)
            | Problem::GoesOnOtherwise(address)
            | Problem::GoesOnWithOther(address) => Some(*address),
            Problem::NoWayOut(fault) | Problem::NoWayIn(fault) => fault.expression(),
            _ => None,
        }
    }
}
