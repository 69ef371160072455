//! Calls that are unwound in a resume function, though it did not resume them, and those that come to joins.

use std::collections::HashMap;

use crate::abi;
use crate::plan::Site;
use crate::verify::body::Place;
use crate::verify::machine::Stop;
use crate::verify::memory::Value;
use crate::verify::onward::{Called, Returned};
use crate::verify::violation::{During, Problem};

use super::{Behind, Checker, Failure};

impl Checker<'_, '_> {
    /// Calls that a resume function makes as the function does, once its landing has returned, are unwound as there.
    pub(super) fn check_ordinary_calls(&self, called: &[Called], resumed: &[Returned]) -> Result<(), Failure> {
        let sites: HashMap<u32, Site> = self.rows.iter().copied().zip((0..).map(Site)).collect();
        let joined: HashMap<u32, Site> = self.joined.iter().copied().collect();
        for &Called { row, after } in called {
            let at = |site: Site| move |problem| Failure { site: Some(site), problem };
            let from = (&self.resume, after, row);
            if let Some(&site) = sites.get(&row) {
                let state = self.output.world.with_callee(self.callee_number(site));
                let transition = Problem::Transition(abi::UNWIND_BEGIN);
                let start = self.output.world.position_in(&state).ok_or(transition).map_err(at(site))?;
                let mut machine = self.after_call(from, state.clone(), self.returned(site));
                self.set_state(&mut machine.state, abi::State::Unwinding);
                let (stop, frame) = (machine.run(), self.expected_frame(site));
                self.finish(stop, &machine, &state, (start, &frame), During::UnwindingAgain).map_err(at(site))?;
            }
            if let Some(&site) = joined.get(&row) {
                let join = self.rows[site.0 as usize];
                let ordinary = called.iter().filter(|call| call.row == join).map(|call| call.after);
                let resumed = resumed.iter().filter(|returned| returned.site == site).map(|r| self.place_after(r));
                let joins: Vec<Place> = ordinary.chain(resumed).collect();
                self.arrive(from, site, &joins).map_err(at(site))?;
            }
        }
        Ok(())
    }

    /// Executes a function from behind a call that is being unwound to one of the places where the join is that it is to come
    /// to.
    pub(super) fn arrive(&self, from: Behind<'_>, site: Site, joins: &[Place]) -> Result<(), Problem> {
        let mut state = self.output.world.with_callee(self.callee_number(site));
        self.set_state(&mut state, abi::State::Unwinding);
        let mut machine = self.after_call(from, state, self.returned(site));
        match machine.run() {
            Stop::Call { .. } if machine.place().is_some_and(|place| joins.contains(&place)) => {
                let is_lost = |&local: &u32| machine.locals()[local as usize] != Value::local(local);
                let lost = self.plan.landing(site).live.iter().copied().find(is_lost);
                lost.map_or(Ok(()), |local| Err(Problem::LostOnTheWay(local)))
            }
            Stop::Call { function, .. } => Err(Problem::CallsUnwinding(function.text())),
            Stop::Return => Err(Problem::MissesJoin),
            Stop::Fault(fault) => Err(Problem::NoWayOut(fault)),
        }
    }
}
