//! Finds a function's landings and the tree of nodes that hold them.
//!
//! A landing is a call that can be suspended and that something follows: a call whose result is at once the function's
//! own (a *tail position*) needs no frame, because nothing is left to do after it. Then the callee's frame stands for
//! both, and the function is said to elide its frame.

use std::collections::HashMap;

use crate::analysis::fork_path::{CallClass, ForkPath};
use crate::ir::{Function, Kind, Liveness, Module, Node, Type};
use crate::plan::{Callee, FunctionNumber, FunctionPlan, Landing, LocalIndex, Region, RegionId, RegionKind, Site};

/// A row of the post-order listing of a body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row(pub u32);

/// A function's body in post-order, and which of its rows are landings and regions.
pub struct Tree {
    nodes: Vec<Node>,
    /// The next sibling of each row.
    next: Vec<Option<Row>>,
    landings: Vec<(Row, CallClass)>,
    /// Rows of regions, ascending; a region's id is its position.
    regions: Vec<Row>,
    region_of: HashMap<Row, RegionId>,
    /// Rows where each local is written, ascending.
    writes: HashMap<LocalIndex, Vec<Row>>,
    elides: bool,
}

impl Tree {
    pub fn build<'m>(module: Module<'m>, path: &ForkPath, function: Function<'m>, liveness: &Liveness) -> Tree {
        let nodes = function.nodes();
        let next = next_siblings(&nodes);
        let mut tree = Tree {
            nodes,
            next,
            landings: Vec::new(),
            regions: Vec::new(),
            region_of: HashMap::new(),
            writes: HashMap::new(),
            elides: false,
        };
        tree.find_landings(module, path, function.results(), liveness);
        tree.find_regions();
        for (row, node) in tree.nodes.iter().enumerate() {
            if node.kind() == Kind::LocalSet {
                tree.writes.entry(node.local).or_default().push(Row(row as u32));
            }
        }
        tree
    }

    fn find_landings(&mut self, module: Module<'_>, path: &ForkPath, results: Type, liveness: &Liveness) {
        for row in (0..self.nodes.len() as u32).map(Row) {
            let node = self.node(row);
            if !node.is_call() {
                continue;
            }
            let expr = node.expr();
            let class = path.classify(module, expr);
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

    /// Whether nothing of the function executes after this expression but the return of its value.
    fn is_tail_position(&self, row: Row) -> bool {
        let mut row = row;
        loop {
            let node = self.node(row);
            let Some(parent) = self.parent(row) else { return true };
            match self.node(parent).kind() {
                Kind::Return => return !self.is_protected(parent),
                Kind::Block => {
                    if let Some(next) = self.next_sibling(row) {
                        let is_void_return = self.node(next).kind() == Kind::Return && self.children(next).is_empty();
                        return node.type_() == Type::NONE && is_void_return && !self.is_protected(parent);
                    }
                }
                Kind::If if node.child > 0 => {}
                Kind::Loop => {}
                _ => return false,
            }
            row = parent;
        }
    }

    /// Whether an exception thrown here could be caught in this function.
    fn is_protected(&self, row: Row) -> bool {
        let mut row = Some(row);
        while let Some(current) = row {
            if matches!(self.node(current).kind(), Kind::Try | Kind::TryTable) {
                return true;
            }
            row = self.parent(current);
        }
        false
    }

    fn find_regions(&mut self) {
        let mut marked = vec![false; self.nodes.len()];
        for &(row, _) in &self.landings {
            let mut current = Some(row);
            while let Some(row) = current {
                if std::mem::replace(&mut marked[row.0 as usize], true) {
                    break;
                }
                current = self.parent(row);
            }
        }
        self.regions = (0..self.nodes.len() as u32).map(Row).filter(|r| marked[r.0 as usize]).collect();
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
            .map(|&(row, class)| Landing {
                callee: if class == CallClass::Entry { Callee::Entry } else { Callee::NextFrame },
                direct: match class {
                    CallClass::Direct(function) => Some(function),
                    _ => None,
                },
                result: self.node(row).type_(),
                live: liveness.after(self.node(row).expr()),
                test_in_place: None,
                epilogue: 0,
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
            captures: Vec::new(),
            rebuilds: Vec::new(),
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
        }
    }

    /// The row of each expression, by address.
    pub fn rows(&self) -> HashMap<usize, Row> {
        self.nodes.iter().enumerate().map(|(row, node)| (node.expression, Row(row as u32))).collect()
    }

    pub fn node(&self, row: Row) -> &Node {
        &self.nodes[row.0 as usize]
    }

    pub fn parent(&self, row: Row) -> Option<Row> {
        let parent = self.node(row).parent;
        (parent != u32::MAX).then_some(Row(parent))
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

    /// Rows of the children, in order of execution.
    pub fn children(&self, row: Row) -> Vec<Row> {
        let mut children = Vec::new();
        let first = self.node(row).first;
        let mut end = row.0;
        while end > first {
            let child = Row(end - 1);
            children.push(child);
            end = self.node(child).first;
        }
        children.reverse();
        children
    }

    fn next_sibling(&self, row: Row) -> Option<Row> {
        self.next[row.0 as usize]
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

    pub fn rows_in_order(&self) -> impl Iterator<Item = Row> + use<> {
        (0..self.nodes.len() as u32).map(Row)
    }

    /// Whether the local is written by a row after `after`, up to and including `until`.
    pub fn is_written_between(&self, local: LocalIndex, after: Row, until: Row) -> bool {
        self.writes.get(&local).is_some_and(|rows| {
            let next = rows.partition_point(|&r| r <= after);
            rows.get(next).is_some_and(|&r| r <= until)
        })
    }
}

fn next_siblings(nodes: &[Node]) -> Vec<Option<Row>> {
    let mut next = vec![None; nodes.len()];
    // The child of each row that was listed last.
    let mut last_child: Vec<Option<usize>> = vec![None; nodes.len()];
    for (row, node) in nodes.iter().enumerate() {
        if node.parent == u32::MAX {
            continue;
        }
        if let Some(previous) = last_child[node.parent as usize].replace(row) {
            next[previous] = Some(Row(row as u32));
        }
    }
    next
}
