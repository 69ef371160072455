//! Choosing by the site among the parts of regions.
//!
//! A region with several parts leaves the choice to its first part, if that is reached with nothing before it but the
//! lead-in. So one choice covers regions within each other, down to the first landing, loop, `try`, or operand that is
//! not the first:
//!
//! ```text
//! (block $part.2                      ;; sites from 9 on go on here
//!   (block $part.1                    ;; sites from 1 on
//!     (br_if $part.2 (i32.ge_u (local.get $site) (i32.const 9)))
//!     (br_if $part.1 (local.get $site))
//!     (call $g.resume)                ;; site 0
//!     …)
//!   …)
//! ```

use crate::ir::{Expr, Type};
use crate::plan::{FunctionPlan, Region, RegionId, RegionKind, Site};

use super::{Entry, Rewriter};

/// Sites from one on, up to those of the next that is listed, go on at a label.
pub struct Onward {
    pub from: u32,
    pub label: String,
}

/// Bytes of a comparison with a site and of a branch by it.
const COMPARISON_BYTES: u32 = 7;
/// Bytes of a `br_table`, besides one for each target, and of the block for the sites that stay.
const TABLE_BYTES: u32 = 9;
/// Bytes of subtracting the first site.
const BASE_BYTES: u32 = 3;

/// Whether sites beyond the region can be told from its own inside of it: its first part comes first.
pub fn passes_on(region: &Region, plan: &FunctionPlan) -> bool {
    let Some(&(child, _)) = region.parts.first() else { return false };
    match region.kind {
        RegionKind::Block => true,
        RegionKind::If => child > 0,
        RegionKind::Loop | RegionKind::Try => false,
        RegionKind::Operands => {
            child == 0
                && region.carried(0).is_none()
                && region.landing.is_none_or(|site| !plan.landing(site).callee.is_resumed())
        }
    }
}

/// Whether what is executed before a region only when that is entered normally costs no test of its own.
pub fn takes_lead_in(plan: &FunctionPlan, mut id: RegionId) -> bool {
    loop {
        let region = plan.region(id);
        let is_resumed = region.landing.is_some_and(|site| plan.landing(site).callee.is_resumed());
        let Some(&(child, part)) = region.parts.first() else { return is_resumed };
        match region.kind {
            RegionKind::If => return child > 0,
            RegionKind::Block | RegionKind::Operands if passes_on(region, plan) => id = part,
            _ => return false,
        }
    }
}

impl<'m> Rewriter<'_, 'm> {
    /// Code in front of a region that leaves it aside when a site beyond it is resumed. The lead-in becomes part of it
    /// where that spares a test.
    pub fn go_onward(
        &mut self,
        first: u32,
        onward: &[Onward],
        entry: Entry,
        lead_in: &mut Vec<Expr<'m>>,
    ) -> Vec<Expr<'m>> {
        let build = self.build();
        let (Some(last), Some(nearest)) = (onward.first(), onward.last()) else { return Vec::new() };
        let padding = if first > BASE_BYTES { 0 } else { first };
        let table_bytes = TABLE_BYTES + padding + last.from - first + if padding == first { 0 } else { BASE_BYTES };
        if table_bytes >= COMPARISON_BYTES * onward.len() as u32 {
            if let ([only], Entry::Any) = (onward, entry) {
                let beyond = self.while_rewinding(self.site_at_least(only.from));
                return vec![build.break_(&only.label, Some(beyond), None)];
            }
            let branches: Vec<Expr<'m>> =
                onward.iter().map(|to| build.break_(&to.label, Some(self.site_at_least(to.from)), None)).collect();
            return match entry {
                Entry::Rewinding => branches,
                Entry::Any => vec![build.if_(self.rewinding(), build.sequence(&branches), None)],
            };
        }
        let stay = self.cx.new_label("stay");
        let mut targets = vec![stay.as_str(); (padding + nearest.from - first) as usize];
        for (next, to) in onward.iter().zip(&onward[1..]).rev() {
            targets.extend(std::iter::repeat_n(to.label.as_str(), (next.from - to.from) as usize));
        }
        let index = match first - padding {
            0 => self.site(),
            base => build.i32_sub(self.site(), build.i32(base)),
        };
        let table = build.switch(&targets, &last.label, index);
        let mut code = vec![match entry {
            Entry::Rewinding => table,
            Entry::Any => build.if_(self.rewinding(), table, None),
        }];
        code.append(lead_in);
        vec![build.block(Some(&stay), &code, Some(Type::NONE))]
    }

    /// The site that is being resumed; meaningful only while rewinding.
    pub fn site(&self) -> Expr<'m> {
        let site = self.cx.site.expect("a function that chooses between sites has several");
        self.build().local_get(site, Type::I32)
    }

    pub fn site_at_least(&self, site: u32) -> Expr<'m> {
        match site {
            1 => self.site(),
            _ => self.build().i32_ge_u(self.site(), self.build().i32(site)),
        }
    }

    pub fn site_below(&self, site: u32) -> Expr<'m> {
        match site {
            1 => self.build().i32_eqz(self.site()),
            _ => self.build().i32_lt_u(self.site(), self.build().i32(site)),
        }
    }

    pub fn site_is(&self, site: Site) -> Expr<'m> {
        match site.0 {
            0 => self.build().i32_eqz(self.site()),
            _ => self.build().i32_eq(self.site(), self.build().i32(site.0)),
        }
    }
}
