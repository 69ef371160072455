//! What a landing's operands are, and those around it that were computed before: both functions must have the same.

use std::collections::{HashMap, HashSet};

use crate::abi;
use crate::ir::{Kind, Type};
use crate::plan::{Carry, Site};
use crate::verify::body::Place;
use crate::verify::machine::{Machine, Rules, State, Stop};
use crate::verify::memory::Value;
use crate::verify::operations::computed;
use crate::verify::violation::Problem;

use super::Checker;

impl<'m> Checker<'_, 'm> {
    /// The values that locals get from the start of a row on, until a landing in it is called: the last is what they hold
    /// at the call.
    pub(super) fn sets_since(&self, start: u32, site: Site) -> HashMap<u32, Value> {
        let row = self.rows[site.0 as usize];
        let mut sets = HashMap::new();
        let mut seen = HashSet::new();
        for set in (self.body.row(start).first..row).rev() {
            let data = self.body.row(set);
            if data.kind() == Kind::LocalSet {
                let local = data.value as u32;
                let is_last = seen.insert(local);
                sets.insert(set, if is_last { self.value_at(site, local) } else { computed((local, set)) });
            }
        }
        sets
    }

    /// Executes the function from the start of a row on, up to a landing in it. Gives the landing's arguments. `None` where
    /// the way to the call depends on what is not known.
    pub(super) fn run_from<'s>(
        &'s self,
        start: u32,
        site: Site,
        state: &State,
        sets: &'s HashMap<u32, Value>,
    ) -> Option<(Machine<'s, 'm>, Vec<Value>)> {
        let row = self.rows[site.0 as usize];
        let set: HashSet<u32> = sets.keys().map(|&set| self.body.row(set).value as u32).collect();
        let locals = (0..self.body.locals.len() as u32)
            .map(|local| if set.contains(&local) { computed((local, u32::MAX)) } else { self.value_at(site, local) })
            .collect();
        let mut state = state.clone();
        self.set_state(&mut state, abi::State::Normal);
        let rules = Rules::Anything { until: row, sets };
        let before = self.body.starts[start as usize];
        let mut machine = Machine::new(self.output.world, state, &self.body, before, locals, rules);
        let Stop::Call { arguments, .. } = machine.run() else { return None };
        let all_set = machine.locals().iter().zip(0..).all(|(&value, local)| value == self.value_at(site, local));
        all_set.then_some((machine, arguments))
    }

    /// Whether the resume function, at a landing, has fewer operands on its stack than the function, since what they are
    /// operands of is never executed: the landing is in one that does not end.
    pub(super) fn lacks_what_nothing_needs(&self, site: Site, place: Place) -> bool {
        let mut row = self.rows[site.0 as usize];
        let mut lacking = self.body.calls[&row].height.saturating_sub(place.height);
        let is_less = lacking > 0;
        let mut ends = true;
        loop {
            let data = self.body.row(row);
            ends = match data.kind() {
                _ if data.type_() == Type::UNREACHABLE => false,
                // Other ways come to its end, too.
                Kind::Block | Kind::Loop => ends || data.named().is_some(),
                Kind::Try => true,
                _ => ends,
            };
            let Some(parent) = data.parent_row() else { return is_less && lacking == 0 };
            if !ends {
                let below = self.body.starts[row as usize].height - self.body.starts[parent].height;
                lacking = lacking.saturating_sub(below);
            }
            row = parent as u32;
        }
    }

    /// Whether the resume function, at a landing, has the operands on its stack that the function has there. What a local
    /// holds that was set to an equal value before is taken for it.
    pub(super) fn check_operands(&self, site: Site, place: Place, found: &[Value]) -> Result<(), Problem> {
        let row = self.rows[site.0 as usize];
        let after = self.body.calls[&row];
        if self.lacks_what_nothing_needs(site, place) {
            return Ok(());
        }
        if after.height != place.height {
            return Err(Problem::OtherOperands);
        }
        let mut statement = row;
        while self.body.starts[statement as usize].height > 0 {
            let Some(parent) = self.body.row(statement).parent_row() else { return Ok(()) };
            statement = parent as u32;
        }
        if after.height == 0 {
            return Ok(());
        }
        let sets = self.sets_since(statement, site);
        let state = self.output.world.unwinding.clone();
        let Some((machine, _)) = self.run_from(statement, site, &state, &sets) else { return Ok(()) };
        let carried = self.plan.regions.iter().flat_map(|region| &region.carried);
        let read: HashSet<u32> = carried
            .filter_map(|operand| match operand.carry {
                Carry::ReadLocal(local) => Some(local),
                _ => None,
            })
            .collect();
        let differ = |(original, found): (&Value, &Value)| {
            let is_read =
                matches!((original, found), (Value::Computed(_), Value::Local(local, _)) if read.contains(local));
            *original != Value::Unknown && original != found && !is_read
        };
        match machine.stack().iter().zip(found).any(differ) {
            true => Err(Problem::OtherOperands),
            false => Ok(()),
        }
    }
}
