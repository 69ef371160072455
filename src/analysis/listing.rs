//! A function's body in post-order, and how its expressions are related.

use crate::ir::{Function, Kind, Node, Type};

/// A row of the post-order listing of a body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row(pub u32);

/// A body in post-order.
pub struct Listing {
    nodes: Vec<Node>,
    /// The next sibling of each row.
    next: Vec<Option<Row>>,
    /// Loops around each row, itself included.
    loops: Vec<u32>,
}

impl Listing {
    pub fn of(function: Function<'_>) -> Listing {
        let nodes = function.nodes();
        let next = next_siblings(&nodes);
        let loops = count_loops(&nodes);
        Listing { nodes, next, loops }
    }

    /// The number of rows.
    pub fn row_count(&self) -> usize {
        self.nodes.len()
    }

    pub fn rows_in_order(&self) -> impl Iterator<Item = Row> + use<> {
        (0..self.nodes.len() as u32).map(Row)
    }

    pub fn node(&self, row: Row) -> &Node {
        &self.nodes[row.0 as usize]
    }

    pub fn parent(&self, row: Row) -> Option<Row> {
        let parent = self.node(row).parent;
        (parent != u32::MAX).then_some(Row(parent))
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

    /// The child that executes last.
    pub fn last_child(&self, row: Row) -> Option<Row> {
        (self.node(row).first < row.0).then(|| Row(row.0 - 1))
    }

    pub fn next_sibling(&self, row: Row) -> Option<Row> {
        self.next[row.0 as usize]
    }

    /// The number of loops around an expression, itself included.
    pub fn loops_around(&self, row: Row) -> u32 {
        self.loops[row.0 as usize]
    }

    /// Whether nothing of the function executes after this expression but the return of its value.
    pub fn is_tail_position(&self, row: Row) -> bool {
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
    pub fn is_protected(&self, row: Row) -> bool {
        let mut row = Some(row);
        while let Some(current) = row {
            if matches!(self.node(current).kind(), Kind::Try | Kind::TryTable) {
                return true;
            }
            row = self.parent(current);
        }
        false
    }
}

fn count_loops(nodes: &[Node]) -> Vec<u32> {
    let mut loops = vec![0; nodes.len()];
    // Parents come behind their children.
    for (row, node) in nodes.iter().enumerate().rev() {
        let around = loops.get(node.parent as usize).copied().unwrap_or(0);
        loops[row] = around + u32::from(node.kind() == Kind::Loop);
    }
    loops
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
