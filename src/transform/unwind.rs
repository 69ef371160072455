//! The function itself: as it was, but for a test after each landing, and the epilogue.

use crate::ir::{Expr, Function, Module};
use crate::plan::{Carry, FunctionPlan, RegionId};
use crate::transform::FunctionCx;
use crate::transform::epilogue::push_frame;
use crate::transform::references;
use crate::transform::runtime::Runtime;

/// Lets the function unwind.
pub fn instrument<'m>(module: Module<'m>, function: Function<'m>, plan: &FunctionPlan, runtime: &Runtime) {
    let Some(root) = plan.root else { return };
    for &type_ in &plan.spills {
        function.add_local(type_, "fork.operand");
    }
    let cx = FunctionCx::unwind(module, function, plan, runtime);
    let body = rewrite(&cx, root, function.body());
    body.finalize();
    function.set_body(push_frame(&cx, body, function.results()));
    references::relax(module, function, plan);
    function.refinalize(module);
}

fn rewrite<'m>(cx: &FunctionCx<'_, 'm>, id: RegionId, expr: Expr<'m>) -> Expr<'m> {
    stacker::maybe_grow(64 * 1024, 4 * 1024 * 1024, || rewrite_region(cx, id, expr))
}

fn rewrite_region<'m>(cx: &FunctionCx<'_, 'm>, id: RegionId, expr: Expr<'m>) -> Expr<'m> {
    let region = cx.plan.region(id);
    for &(child, part) in &region.parts {
        expr.set_child(child, rewrite(cx, part, expr.child(child)));
    }
    for carried in &region.carried {
        if let Carry::Spill(local, _) = carried.carry {
            let operand = expr.child(carried.child);
            let kept = match carried.test {
                Some(site) => cx.keep_and_test(local, operand, site),
                None => cx.build.local_tee(local, operand, cx.plan.local_type(local)),
            };
            expr.set_child(carried.child, kept);
        }
    }
    cx.add_test_before(region, expr);
    for arm in [1, 2] {
        cx.add_test_in_arm(region, expr, arm, false);
    }
    let expr = cx.add_test_behind(region, expr);
    cx.add_tests_around(region, expr)
}
