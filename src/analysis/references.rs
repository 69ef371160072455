//! Decides how the references that are live across a landing come back.
//!
//! Memory cannot hold a reference. In order of preference, at each landing:
//!
//! - it is null, by its type;
//! - it is made again: all values that reach the landing come from the same expression, one that gives the same
//!   reference in any instance ([`Rebuild`]). A number in it (the index of a `table.get`) is kept in a new local where
//!   the expression is evaluated, and the frame holds that local:
//!
//!   ```text
//!   (local.set $f (table.get $t (i32.load …)))   ;; $t is written by nobody
//!   (local.set $f (table.get $t (local.tee $fork.capture (i32.load …))))
//!   ```
//! - it is a number: an i31, or an exception, which is its tag and payload; the frame holds it;
//! - the option `refs@tables` allows to keep it in a table, and the frame holds the index;
//! - else the module is refused.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use crate::analysis::listing::Row;
use crate::analysis::regions::Tree;
use crate::error::Error;
use crate::ir::{Expr, Function, Hierarchy, Kind, Module, ReachingSets, Type, is_same_replay};
use crate::options::Refs;
use crate::plan::{Capture, Carry, FunctionPlan, LocalIndex, Rebuild, Site};

/// What of the module never changes, and what the options allow.
#[derive(Clone, Debug, Default)]
pub struct ReferenceRules {
    /// Tables that nobody writes, inside or outside, sorted.
    pub tables: Vec<String>,
    /// Globals that nobody writes, sorted.
    pub globals: Vec<String>,
    pub refs: Refs,
}

/// A reference that cannot come back. Binaryen must not be asked for names of types in parallel work.
pub struct Refusal<'m> {
    function: Function<'m>,
    local: LocalIndex,
    type_: Type,
    operand: Option<Expr<'m>>,
    landing: Expr<'m>,
}

impl<'m> Refusal<'m> {
    pub fn into_error(self, module: Module<'m>) -> Error {
        let (local, remedy) = match self.operand {
            Some(operand) => (format!("the operand {}", module.print_expression(operand)), "compute it after the call"),
            None => (format!("the local {}", self.function.local_name(self.local)), "clear it before the call"),
        };
        let (function, type_) = (self.function.name(), module.print_type(self.type_));
        let call = module.print_expression(self.landing);
        let no_table = |t: &Type| matches!(t.hierarchy(), Hierarchy::Exception | Hierarchy::I31 | Hierarchy::Other);
        if self.type_.components().iter().any(no_table) {
            return Error::UnkeepableAcrossLanding { function, local, type_, call, remedy };
        }
        Error::ReferenceAcrossLanding { function, local, type_, call, remedy }
    }
}

/// Takes what can be made again out of the locals that frames hold, or refuses the function.
pub fn settle<'m>(
    plan: &mut FunctionPlan,
    tree: &Tree,
    module: Module<'m>,
    function: Function<'m>,
    rules: &ReferenceRules,
) -> Result<(), Refusal<'m>> {
    let has_reference = |plan: &FunctionPlan, l: &LocalIndex| plan.local_type(*l).has_reference();
    if !plan.landings.iter().flat_map(|l| &l.live).any(|l| has_reference(plan, l)) {
        return Ok(());
    }
    let sets = function.reaching_sets(module);
    let operands = spilled_operands(plan, tree);
    let (rows, captures) = (OnceCell::new(), HashMap::new());
    let mut settler = Settler { plan, tree, module, function, rules, sets, rows, operands, captures };
    for site in (0..settler.plan.landings.len() as u32).map(Site) {
        settler.settle_landing(site)?;
    }
    Ok(())
}

/// The operand that each local of references was added for.
fn spilled_operands<'m>(plan: &FunctionPlan, tree: &Tree) -> HashMap<LocalIndex, Expr<'m>> {
    let mut operands = HashMap::new();
    for (id, region) in plan.region_ids().zip(&plan.regions) {
        if region.carried.is_empty() {
            continue;
        }
        let children = tree.children(tree.row_of(id));
        for carried in &region.carried {
            if let Carry::Spill(local, _) = carried.carry
                && plan.local_type(local).has_reference()
            {
                operands.insert(local, tree.node(children[carried.child as usize]).expr());
            }
        }
    }
    operands
}

struct Settler<'a, 'm> {
    plan: &'a mut FunctionPlan,
    tree: &'a Tree,
    module: Module<'m>,
    function: Function<'m>,
    rules: &'a ReferenceRules,
    sets: ReachingSets,
    /// Rows of expressions, once one is asked for.
    rows: OnceCell<HashMap<usize, Row>>,
    operands: HashMap<LocalIndex, Expr<'m>>,
    /// The local that keeps the number in an expression, by the expression's first row.
    captures: HashMap<Row, LocalIndex>,
}

impl<'m> Settler<'_, 'm> {
    fn settle_landing(&mut self, site: Site) -> Result<(), Refusal<'m>> {
        let live = self.plan.landing(site).live.clone();
        for local in live {
            let type_ = self.plan.local_type(local);
            if !type_.has_reference() {
                continue;
            }
            if type_.is_null() {
                self.plan_rebuild(site, local, None, None);
                continue;
            }
            if let Some(sources) = self.sources(site, local)
                && self.rebuild(site, local, &sources)
            {
                continue;
            }
            let keepable = |t: &Type| match t.hierarchy() {
                Hierarchy::None | Hierarchy::I31 | Hierarchy::Exception => true,
                Hierarchy::Function | Hierarchy::Extern | Hierarchy::Any => self.rules.refs == Refs::Tables,
                Hierarchy::Other => false,
            };
            let components = type_.components();
            // The components of a tuple are set all at once: there is no way to have one of them be null.
            let has_holes = components.len() > 1 && components.iter().any(|t| !t.is_defaultable());
            if has_holes || !components.iter().all(keepable) {
                return Err(self.refusal(site, local));
            }
        }
        Ok(())
    }

    /// The expressions that the local's value at the landing can come from; `None` if it is not known.
    fn sources(&self, site: Site, local: LocalIndex) -> Option<Vec<Expr<'m>>> {
        if let Some(&operand) = self.operands.get(&local) {
            return Some(vec![operand]);
        }
        let landing = self.tree.node(self.tree.landing_row(site)).expr();
        self.values(landing, local)
    }

    /// The values of the sets that reach a read, copies of other locals followed.
    fn values(&self, at: Expr<'m>, local: LocalIndex) -> Option<Vec<Expr<'m>>> {
        let mut values = Vec::new();
        let mut copies = HashSet::new();
        let mut open = vec![(at, local)];
        while let Some((at, local)) = open.pop() {
            let is_copied = copies.contains(&at.address());
            for set in self.sets.at(at, local) {
                let value = match set {
                    Some(set) => set.child(0),
                    None if local < self.function.num_params() || !self.plan.local_type(local).is_defaultable() => {
                        return None;
                    }
                    None => self.module.build().zero(self.plan.local_type(local))?,
                };
                if value.kind() == Kind::LocalGet {
                    if copies.insert(value.address()) {
                        open.push((value, value.local()));
                    }
                    continue;
                }
                // What a copied value was made of may have changed since.
                if is_copied && self.captured(value).is_none_or(|c| !c.is_empty()) {
                    return None;
                }
                values.push(value);
            }
        }
        Some(values)
    }

    fn row_of(&self, expr: Expr<'m>) -> Option<Row> {
        self.rows.get_or_init(|| self.tree.rows()).get(&expr.address()).copied()
    }

    fn captured(&self, expr: Expr<'m>) -> Option<Vec<Expr<'m>>> {
        self.module.replayable(expr, &self.rules.tables, &self.rules.globals)
    }

    /// Plans to make the reference again, if all its sources are the same but for numbers that can be kept.
    fn rebuild(&mut self, site: Site, local: LocalIndex, sources: &[Expr<'m>]) -> bool {
        let Some(&first) = sources.first() else { return false };
        let mut captures = Vec::new();
        for &source in sources {
            let Some(captured) = self.captured(source) else { return false };
            if !is_same_replay(first, source) {
                return false;
            }
            // Captures are put where the operand stands, which no landing's path may lead through.
            let rows: Option<Vec<Row>> = captured.iter().map(|&c| self.row_of(c)).collect();
            match rows {
                Some(rows) if rows.iter().all(|&r| self.tree.region(r).is_none()) => captures.push(rows),
                _ => return false,
            }
        }
        let mut kept = None;
        if !captures[0].is_empty() {
            let known = captures.iter().map(|rows| self.captures.get(&rows[0]).copied()).collect::<Vec<_>>();
            let capture = match known[0] {
                Some(capture) if known.iter().all(|&k| k == known[0]) => capture,
                None if known.iter().all(Option::is_none) => {
                    let capture = self.plan.add_spill(first_type(self.tree, captures[0][0]));
                    for rows in &captures {
                        self.captures.insert(rows[0], capture);
                        self.plan.captures.push(Capture { row: rows[0].0, local: capture });
                    }
                    capture
                }
                // Some of the expressions share another local with expressions that do not reach this landing.
                _ => return false,
            };
            kept = Some(capture);
        }
        // The null of a local that was never set has no row.
        let source = self.row_of(first).map(|row| row.0);
        self.plan_rebuild(site, local, source, kept);
        true
    }

    /// Takes the local out of the landing's frame, and what it is made of into it. Without a `source` it is null.
    fn plan_rebuild(&mut self, site: Site, local: LocalIndex, source: Option<u32>, capture: Option<LocalIndex>) {
        let landing = &mut self.plan.landings[site.0 as usize];
        landing.live.retain(|&l| l != local);
        if let Some(capture) = capture
            && let Err(place) = landing.live.binary_search(&capture)
        {
            landing.live.insert(place, capture);
        }
        match self.plan.rebuilds.iter_mut().find(|r| (r.local, r.row, r.capture) == (local, source, capture)) {
            Some(rebuild) => rebuild.sites.push(site),
            None => self.plan.rebuilds.push(Rebuild { local, row: source, capture, sites: vec![site] }),
        }
    }

    fn refusal(&self, site: Site, local: LocalIndex) -> Refusal<'m> {
        Refusal {
            function: self.function,
            local,
            type_: self.plan.local_type(local),
            operand: self.operands.get(&local).copied(),
            landing: self.tree.node(self.tree.landing_row(site)).expr(),
        }
    }
}

fn first_type(tree: &Tree, row: Row) -> Type {
    tree.node(row).type_()
}
