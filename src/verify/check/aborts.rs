//! Frames that do not fit: the function, and then its resume function, must lead back to the landing.

use crate::abi;
use crate::ir::Name;
use crate::plan::{Retry, Site};

use crate::verify::machine::{Machine, State, Stop};
use crate::verify::memory::Value;
use crate::verify::violation::Problem;

use super::{Checker, Unwound};

impl<'m> Checker<'_, 'm> {
    /// A frame that does not fit: the function calls what resumes it, and the resume function comes back to its landing.
    pub(super) fn abort(&self, site: Site, limit: Name) -> Result<(), Problem> {
        let world = self.output.world;
        let mut state = world.with_callee(self.callee_number(site));
        state.globals.insert(limit, Value::Bits(0));
        let start = world.position_in(&state).ok_or(Problem::NoAbort)?;
        self.set_state(&mut state, abi::State::Unwinding);
        let mut machine = self.after_call(self.behind(self.rows[site.0 as usize]), state, self.returned(site));
        let stop = machine.run();
        let is_resumed = matches!(&stop, Stop::Call { function, .. } if *function == self.own_resume());
        if !is_resumed || !self.is_aborting(&machine.state) {
            return Err(Problem::NoAbort);
        }
        let callee = self.callee_number(site);
        let unwound = Unwound { state: machine.state, start, callee, frame: Vec::new(), arguments: None };
        let mut resuming = self.resuming(&unwound.state, abi::State::Aborting, Some(limit));
        let stop = resuming.run();
        match self.overflow(site, &unwound, &mut resuming, stop)? {
            // It has gone back to its start, and came to the landing again.
            stop @ Stop::Call { .. } if self.plan.retry == Retry::Loop => {
                self.overflow(site, &unwound, &mut resuming, stop).map(drop)
            }
            // It has called itself.
            Stop::Call { function, .. } if function == self.own_resume() => self.retry(site, &unwound, &mut resuming),
            _ => Err(Problem::NoAbort),
        }
    }

    /// From the landing, at which the resume function has come to a stop, out of it while its frame does not fit. Gives
    /// where that leads.
    fn overflow(
        &self,
        site: Site,
        unwound: &Unwound,
        resuming: &mut Machine<'_, 'm>,
        stop: Stop,
    ) -> Result<Stop, Problem> {
        self.check_landing(site, unwound, &stop).map_err(|_| Problem::NoAbort)?;
        if self.output.world.position_in(&resuming.state) != Some(unwound.start) {
            return Err(Problem::NoAbort);
        }
        self.set_state(&mut resuming.state, abi::State::Unwinding);
        let stop = resuming.give(self.returned(site));
        if !self.is_aborting(&resuming.state) {
            return Err(Problem::NoAbort);
        }
        Ok(stop)
    }

    /// The resume function has called itself because its frame did not fit. If that happens to the one that it called,
    /// that one returns, and is called once more in the same state; else what it returns is returned.
    fn retry(&self, site: Site, unwound: &Unwound, caller: &mut Machine<'_, 'm>) -> Result<(), Problem> {
        let called = caller.state.clone();
        let mut again = self.resuming(&called, abi::State::Aborting, None);
        again.state.globals.clone_from(&called.globals);
        let stop = again.run();
        // What is resumed next has not been resumed again.
        let mut next = self.resuming(&unwound.state, abi::State::Aborting, None);
        let position = next.state.globals.get(&self.output.world.position).copied();
        next.state.globals.clone_from(&again.state.globals);
        next.state.globals.extend(position.map(|position| (self.output.world.position, position)));
        let stop_of_next = next.run();
        match self.overflow(site, unwound, &mut next, stop_of_next)? {
            Stop::Call { function, .. } if function == self.own_resume() => {}
            _ => return Err(Problem::NoAbort),
        }
        let stop = self.overflow(site, unwound, &mut again, stop)?;
        if stop != Stop::Return {
            return Err(Problem::NoAbort);
        }
        caller.state = again.state;
        let stop = caller.give(Value::Unknown);
        let is_same = caller.state.globals == called.globals;
        if !matches!(stop, Stop::Call { function, .. } if function == self.own_resume()) || !is_same {
            return Err(Problem::NoAbort);
        }
        self.set_state(&mut caller.state, abi::State::Normal);
        match caller.give(Value::Unknown) {
            Stop::Return => Ok(()),
            _ => Err(Problem::NoAbort),
        }
    }

    fn is_aborting(&self, state: &State) -> bool {
        state.globals[&self.output.world.state] == Value::Bits(abi::State::Aborting as u64)
    }

    /// Whether frames must stay below this global: a frame of the site that does not fit is not the end.
    pub fn is_limit(&self, site: Site, global: Name) -> bool {
        self.abort(site, global).is_ok()
    }
}
