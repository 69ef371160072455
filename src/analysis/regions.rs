//! Finds a function's landings and the tree of nodes that hold them.
//!
//! A landing is a call that can be suspended and that something follows: a call whose result is at once the function's
//! own (a *tail position*) needs no frame, because nothing is left to do after it. Then the callee's frame stands for
//! both, and the function is said to elide its frame.

use std::collections::HashMap;
use std::ops::Deref;

use crate::analysis::fork_path::{CallClass, ForkPath};
use crate::analysis::listing::{Listing, Row};
use crate::frame::PUSH_GROUP;
use crate::ir::{Expr, Function, Kind, Liveness, Module, Type};
use crate::plan::{
    Callee, FunctionNumber, FunctionPlan, Landing, LocalIndex, Region, RegionId, RegionKind, Retry, Site, TestForm,
};

/// What marks the joins of a function's calls ([`joins`](crate::analysis::joins)).
#[derive(Default)]
pub struct Joined {
    /// Calls that are no landings themselves, by address, and the marker that they come to.
    pub calls: HashMap<usize, usize>,
    /// Calls that stand for the landings which meet there, by address, with the callee if it is always the same.
    pub markers: HashMap<usize, Option<u32>>,
}

/// A function's body in post-order, and which of its rows are landings and regions.
pub struct Tree {
    listing: Listing,
    landings: Vec<(Row, CallClass)>,
    /// Rows of regions, ascending; a region's id is its position.
    regions: Vec<Row>,
    region_of: HashMap<Row, RegionId>,
    /// Rows where each local is written, ascending.
    writes: HashMap<LocalIndex, Vec<Row>>,
    elides: bool,
    joined: Vec<(Row, Site)>,
    /// By site, whether it is where other calls meet.
    markers: Vec<bool>,
}

impl Deref for Tree {
    type Target = Listing;

    fn deref(&self) -> &Listing {
        &self.listing
    }
}

impl Tree {
    pub fn build<'m>(
        module: Module<'m>,
        path: &ForkPath,
        function: Function<'m>,
        liveness: &Liveness,
        joined: &Joined,
    ) -> Tree {
        let mut tree = Tree {
            listing: Listing::of(function),
            landings: Vec::new(),
            regions: Vec::new(),
            region_of: HashMap::new(),
            writes: HashMap::new(),
            elides: false,
            joined: Vec::new(),
            markers: Vec::new(),
        };
        tree.find_landings(module, path, function.results(), liveness, joined);
        tree.find_regions();
        tree.find_joined(joined);
        for row in tree.listing.rows_in_order() {
            let node = tree.listing.node(row);
            if node.kind() == Kind::LocalSet {
                tree.writes.entry(node.local).or_default().push(row);
            }
        }
        tree
    }

    fn find_landings(
        &mut self,
        module: Module<'_>,
        path: &ForkPath,
        results: Type,
        liveness: &Liveness,
        joined: &Joined,
    ) {
        for row in self.rows_in_order() {
            let node = self.node(row);
            if !node.is_call() {
                continue;
            }
            let expr = node.expr();
            let class = match joined.markers.get(&expr.address()) {
                Some(Some(callee)) => CallClass::Direct(*callee),
                Some(None) => CallClass::Indirect,
                None if joined.calls.contains_key(&expr.address()) => continue,
                None => path.classify(module, expr),
            };
            if class == CallClass::CannotFork {
                continue;
            }
            if expr.is_return_call() {
                self.elides = true;
            } else if node.type_() == Type::UNREACHABLE || !liveness.is_reachable(expr) {
                // An operand never returns, so the call never happens.
            } else if class != CallClass::Entry && node.type_() == results && self.is_tail_position(row) {
                self.elides = true;
            } else {
                self.landings.push((row, class));
            }
        }
    }

    fn find_joined(&mut self, joined: &Joined) {
        let sites: HashMap<usize, Site> =
            (0..).map(Site).zip(&self.landings).map(|(site, l)| (self.node(l.0).expression, site)).collect();
        let calls = self.rows_in_order().filter_map(|row| Some((row, *joined.calls.get(&self.node(row).expression)?)));
        self.joined = calls.filter_map(|(row, marker)| Some((row, *sites.get(&marker)?))).collect();
        self.markers = self.landings.iter().map(|l| joined.markers.contains_key(&self.node(l.0).expression)).collect();
    }

    fn find_regions(&mut self) {
        let mut marked = vec![false; self.row_count()];
        for &(row, _) in &self.landings {
            let mut current = Some(row);
            while let Some(row) = current {
                if std::mem::replace(&mut marked[row.0 as usize], true) {
                    break;
                }
                current = self.parent(row);
            }
        }
        self.regions = self.rows_in_order().filter(|r| marked[r.0 as usize]).collect();
        self.region_of = self.regions.iter().enumerate().map(|(i, &row)| (row, RegionId(i as u32))).collect();
    }

    /// The plan with regions and landings; operands, tests and the frame are still open.
    pub fn plan(&self, function: Function<'_>, liveness: &Liveness) -> FunctionPlan {
        let mut regions: Vec<Region> = self.regions.iter().map(|&row| self.region_at(row)).collect();
        for (i, &row) in self.regions.iter().enumerate() {
            if let Some(parent) = self.parent(row) {
                let parent = self.region_of[&parent];
                regions[parent.0 as usize].parts.push((self.node(row).child, RegionId(i as u32)));
            }
        }
        let landings = self
            .landings
            .iter()
            .zip(&self.markers)
            .map(|(&(row, class), &is_join)| Landing {
                is_join,
                callee: if class == CallClass::Entry { Callee::Entry } else { Callee::NextFrame },
                direct: match class {
                    CallClass::Direct(function) => Some(function),
                    _ => None,
                },
                result: self.node(row).type_(),
                live: liveness.after(self.node(row).expr()),
                dead: Vec::new(),
                test_in_place: None,
                epilogue: 0,
                test_form: TestForm::Branch,
            })
            .collect();
        FunctionPlan {
            function: function.name(),
            number: FunctionNumber(0),
            shares_resume: false,
            root: regions.len().checked_sub(1).map(|last| RegionId(last as u32)),
            regions,
            landings,
            spills: Vec::new(),
            locals: function.local_types(),
            frame: Vec::new(),
            always: 0,
            masks: None,
            epilogues: Vec::new(),
            retry: Retry::Loop,
            in_line: false,
            loads_in_line: false,
            push_group: PUSH_GROUP,
            resume_push_group: PUSH_GROUP,
            resume_last_group: PUSH_GROUP,
            captures: Vec::new(),
            rebuilds: Vec::new(),
            joined: self.joined.iter().map(|&(row, site)| (row.0, site)).collect(),
            elides: self.elides,
            results: function.results(),
        }
    }

    fn region_at(&self, row: Row) -> Region {
        let node = self.node(row);
        let landing = self.landings.binary_search_by_key(&row, |l| l.0).ok().map(|i| Site(i as u32));
        let start = self.landings.partition_point(|l| l.0.0 < node.first) as u32;
        let end = self.landings.partition_point(|l| l.0 <= row) as u32;
        let kind = match node.kind() {
            Kind::Block => RegionKind::Block,
            Kind::Loop => RegionKind::Loop,
            Kind::If => RegionKind::If,
            Kind::Try | Kind::TryTable => RegionKind::Try,
            _ => RegionKind::Operands,
        };
        Region {
            kind,
            sites: start..end,
            landing,
            parts: Vec::new(),
            carried: Vec::new(),
            test_before: None,
            test_after: None,
            test_in_tee: None,
            test_behind: None,
        }
    }

    /// The row of each expression, by address.
    pub fn rows(&self) -> HashMap<usize, Row> {
        self.rows_in_order().map(|row| (self.node(row).expression, row)).collect()
    }

    pub fn row_of(&self, region: RegionId) -> Row {
        self.regions[region.0 as usize]
    }

    pub fn region(&self, row: Row) -> Option<RegionId> {
        self.region_of.get(&row).copied()
    }

    pub fn landing_row(&self, site: Site) -> Row {
        self.landings[site.0 as usize].0
    }

    pub fn landing_expr(&self, site: Site) -> Expr<'_> {
        self.node(self.landing_row(site)).expr()
    }

    /// Whether `earlier` has executed whenever control is at `later`, a row behind it, on the same pass through the loops
    /// around both. Only ways that are plain to see count: `earlier` is an operand of, or itself, a statement in front of
    /// one that holds `later`.
    pub fn is_before(&self, earlier: Row, later: Row) -> bool {
        let mut row = earlier;
        while let Some(parent) = self.parent(row) {
            let node = self.node(parent);
            if node.first <= later.0 && later <= parent {
                // A condition is before the arms, but one arm not before the other, nor a body before its handlers.
                let is_first = node.kind() != Kind::Try && (node.kind() != Kind::If || self.node(row).child == 0);
                return row < later && is_first;
            }
            if node.kind().is_control_flow() {
                return false;
            }
            row = parent;
        }
        false
    }

    /// The outermost loop around `later` that begins behind `earlier`.
    pub fn outermost_loop_behind(&self, earlier: Row, later: Row) -> Option<Row> {
        let mut outermost = None;
        let mut row = self.parent(later);
        while let Some(current) = row.filter(|&r| self.node(r).first > earlier.0) {
            if self.node(current).kind() == Kind::Loop {
                outermost = Some(current);
            }
            row = self.parent(current);
        }
        outermost
    }

    /// Whether the local is written by a row after `after`, up to and including `until`.
    pub fn is_written_between(&self, local: LocalIndex, after: Row, until: Row) -> bool {
        self.writes.get(&local).is_some_and(|rows| {
            let next = rows.partition_point(|&r| r <= after);
            rows.get(next).is_some_and(|&r| r <= until)
        })
    }
}
