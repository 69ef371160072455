//! What is changed, and what the verifier says of it.

use fork_instrument::ir::{Expr, Kind, Module, Type};

use crate::code::{Code, Found, calls};
use crate::expect_caught;

macro_rules! mutations {
    ($($name:ident: $function:literal, $problem:literal, $mutate:expr;)*) => {
        $(
            #[test]
            fn $name() {
                expect_caught(stringify!($name), $function, $problem);
            }
        )*

        pub fn mutation(name: &str) -> fn(Module<'_>) {
            match name {
                $(stringify!($name) => $mutate,)*
                _ => panic!("{name} is no mutation"),
            }
        }
    };
}

mutations! {
    a_push_is_dropped: "sites", "unwinding: the local 1 is not where the plan has it in the frame",
        |module| drop_push(module, "sites");
    another_value_is_pushed_last: "leaf", "unwinding: the local 0 is not where the plan has it in the frame",
        |module| push_zero_last(module, "leaf");
    a_push_is_dropped_in_the_resume_function: "sites", "unwinding again from the resume function: the local 1",
        |module| drop_push(module, "sites.resume");
    another_value_is_pushed_in_the_resume_function: "leaf", "unwinding again from the resume function: the local 0",
        |module| push_zero_last(module, "leaf.resume");
    another_local_is_pushed: "sites", "unwinding: the local 3 is not where",
        |module| {
            let code = Code::of(module, "sites");
            let local = code.find(|f| f.expr.kind() == Kind::LocalGet && f.position == 2 && is_pushed(f.parent));
            code.replace(local, code.build.local_get(0, Type::I32));
        };
    too_much_is_pushed: "run", "unwinding: the frame has 8 bytes too many",
        |module| {
            let code = Code::of(module, "run");
            let end = code.find(|f| f.calls(".finish"));
            let more = [end.expr.child(0), code.build.zero(Type::F64).expect("it is a number")];
            end.expr.set_child(0, code.build.call("fork.push_f64x1", &more, Type::I32));
        };
    a_test_names_another_site: "run", "site 0, the call call $loop: unwinding: the frame names another site",
        |module| {
            let code = Code::of(module, "run");
            let site = code.find(|f| f.expr.kind() == Kind::Const && f.is_in(Kind::Break));
            code.replace(site, code.build.i32(1));
        };
    the_frame_names_another_function: "other", "unwinding: the frame names another function",
        |module| {
            let code = Code::of(module, "other");
            let number = code.find(|f| {
                let is_number = f.expr.kind() == Kind::Const && f.position == 1;
                is_number && f.parent.is_some_and(|p| calls(p, ".finish"))
            });
            code.replace(number, code.build.i32(0));
        };
    an_unwound_function_returns_one: "leaf", "unwinding: it returns something other than zero",
        |module| {
            let code = Code::of(module, "leaf");
            let finish = code.find(|f| f.calls(".finish_"));
            code.replace(finish, code.build.i32_or(finish.expr, code.build.i32(1)));
        };
    a_test_is_dropped: "sites", "site 0, the call call $leaf: unwinding does not lead",
        |module| replace_state(module, "sites", Kind::Break, |code, _| code.build.i32(0));
    a_test_is_dropped_in_the_resume_function: "loop", "unwinding does not lead from the call to the end",
        |module| replace_state(module, "loop.resume", Kind::Break, |code, _| code.build.i32(0));
    a_test_is_negated: "sites", "it saves or resumes a frame while the state is normal",
        |module| replace_state(module, "sites", Kind::Break, |code, state| code.build.i32_eq(state, code.build.i32(0)));
    a_test_always_leaves: "loop", "it saves or resumes a frame while the state is normal",
        |module| replace_state(module, "loop", Kind::Break, |code, _| code.build.i32(1));
    a_test_always_leaves_in_the_resume_function: "loop", "it saves or resumes a frame while the state is normal",
        |module| replace_state(module, "loop.resume", Kind::Break, |code, _| code.build.i32(1));
    a_number_that_a_reference_is_made_again_of_is_not_kept: "numbered", "the local 2 does not keep the number",
        |module| {
            let code = Code::of(module, "numbered");
            let load = code.find(|f| f.expr.kind() == Kind::Load);
            let tee = code.find(|f| f.expr.kind() == Kind::LocalSet && f.expr.child(0).kind() == Kind::Load);
            code.replace(tee, load.expr);
        };
    a_way_to_a_join_traps: "meet", "unwinding does not lead from the call to the end of the function",
        |module| {
            let code = Code::of(module, "meet");
            let set = code.find(|f| f.expr.kind() == Kind::LocalSet && calls(f.expr.child(0), "leaf"));
            code.replace(set, code.build.block(None, &[set.expr, code.build.unreachable()], None));
        };
    a_way_to_a_join_returns_instead: "meet", "unwinding misses the place where calls that go on alike meet",
        |module| {
            let code = Code::of(module, "meet");
            let set = code.find(|f| f.expr.kind() == Kind::LocalSet && calls(f.expr.child(0), "other"));
            code.replace(set, code.build.block(None, &[set.expr, code.build.return_(Some(code.build.i32(0)))], None));
        };
    a_test_always_leaves_in_a_handler: "guarded", "it saves or resumes a frame while the state is normal",
        |module| replace_state(module, "guarded", Kind::Break, |code, _| code.build.i32(1));
    a_test_leaves_on_what_meets_a_zero: "loop", "it saves or resumes a frame while the state is normal",
        |module| replace_state(module, "loop", Kind::Break, |code, state| {
            let way = code.build.break_("met", Some(code.build.local_get(0, Type::I32)), Some(code.build.i32(1)));
            let met = [code.build.drop(way), code.build.i32(0)];
            code.build.i32_or(state, code.build.block(Some("met"), &met, Some(Type::I32)))
        });
    a_store_before_the_landing_is_executed: "leaf", "code before the landing is executed while rewinding",
        |module| {
            let store = Code::of(module, "boxed").find(|f| f.expr.kind() == Kind::Store).expr;
            Code::of(module, "leaf.resume").put_first(store);
        };
    a_load_before_the_landing_is_executed: "leaf", "rewinding does not reach the landing: something is executed that can trap",
        |module| put_first_of_leaf(module, |f| f.expr.kind() == Kind::Load);
    a_division_before_the_landing_is_executed: "leaf", "rewinding does not reach the landing: something is executed that can trap",
        |module| put_first_of_leaf(module, |f| f.expr.kind() == Kind::Binary);
    an_indirect_call_before_the_landing_is_executed: "leaf", "code before the landing is executed while rewinding",
        |module| put_first_of_leaf(module, |f| f.expr.kind() == Kind::CallIndirect);
    a_growth_before_the_landing_is_executed: "leaf", "code before the landing is executed while rewinding",
        |module| put_first_of_leaf(module, |f| f.expr.kind() == Kind::Other && f.expr.child(0).kind() == Kind::Const);
    a_field_before_the_landing_is_read: "leaf", "rewinding does not reach the landing: something is executed that can trap",
        |module| put_first_of_leaf(module, |f| f.expr.kind() == Kind::Other && f.expr.child(0).kind() == Kind::GlobalGet);
    a_reference_that_no_frame_holds_is_taken_for_some: "opened", "rewinding does not reach the landing: something is executed that can trap",
        |module| {
            let cast = Code::of(module, "opened").find(|f| f.expr.kind() == Kind::RefAs).expr;
            let code = Code::of(module, "opened.resume");
            code.put_first(code.build.drop(cast));
        };
    what_is_popped_is_written_to: "leaf", "unwinding again from the resume function: something other than the frame was written",
        |module| put_store_in(module, "fork.pop_function", 0);
    what_is_below_the_frame_is_written_to: "leaf", "unwinding: something other than the frame was written",
        |module| put_store_in(module, "fork.finish_i32", 10);
    the_position_stays_where_the_header_begins: "leaf", "unwinding: the frame lacks",
        |module| drop_first(module, "fork.finish_i32", Kind::GlobalSet);
    two_pops_are_swapped: "sites", "is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "sites.resume");
            // The helper has left both in globals.
            let sets = code.find_all(|f| f.expr.kind() == Kind::LocalSet && f.expr.child(0).kind() == Kind::GlobalGet);
            let (one, other) = (sets[0].expr, sets[1].expr);
            code.replace(sets[0], code.build.local_set(other.local(), one.child(0)));
            code.replace(sets[1], code.build.local_set(one.local(), other.child(0)));
        };
    a_pop_is_dropped: "loop", "is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "loop.resume");
            let set = code.find(|f| f.expr.kind() == Kind::LocalSet && calls(f.expr.child(0), ".pop_"));
            code.replace(set, code.build.nop());
        };
    the_header_is_not_popped: "sites", "is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "sites.resume");
            let pop = code.find(|f| f.calls(".pop_packed"));
            code.replace(pop, code.build.i32(0));
        };
    the_header_of_an_empty_frame_is_not_popped: "run", "the frame is not popped",
        |module| {
            let code = Code::of(module, "run.resume");
            let pop = code.find(|f| f.calls(".pop_header"));
            code.replace(pop, code.build.i32(0));
        };
    a_local_is_popped_before_the_header: "leaf", "the local 0 is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let header = code.find(|f| f.calls(".pop_function"));
            let list = header.parent.expect("it is a statement");
            let next = list.child(header.position + 1);
            list.set_child(header.position + 1, header.expr);
            list.set_child(header.position, next);
        };
    the_masks_of_another_function_are_used: "sites", "is not",
        |module| {
            let code = Code::of(module, "sites.resume");
            let is_mask = |e: Option<Expr<'_>>| e.is_some_and(|e| calls(e, ".unpack_mask"));
            let number = code.find(|f| f.expr.kind() == Kind::Const && f.position == 1 && is_mask(f.parent));
            code.replace(number, code.build.i64(0));
        };
    a_mask_function_gives_another_mask: "many", "site 0, the call call $leaf: unwinding: the local 0 is not where",
        |module| {
            let code = Code::of(module, "fork.masks.0");
            let masks = code.find_all(|f| f.expr.kind() == Kind::Const && f.expr.type_() == Type::I64);
            code.replace(masks[2], code.build.i64(0));
        };
    no_mask_is_used_to_pop: "many", "is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "many.resume");
            let set = code.find(|f| f.expr.kind() == Kind::GlobalSet && calls(f.expr.child(0), ".masks.0"));
            code.replace(set, code.build.drop(set.expr.child(0)));
        };
    the_mask_of_another_site_is_used_to_push: "many", "unwinding again from the resume function: the local",
        |module| {
            let code = Code::of(module, "many.resume");
            let is_shift = |e: Expr<'_>| e.kind() == Kind::Binary && calls(e.child(0), ".masks.0");
            let shift = code.find(|f| is_shift(f.expr));
            code.replace(shift, code.build.i64_shl(shift.expr.child(0), code.build.i64(63)));
        };
    a_resume_function_moves_the_position: "leaf", "the local 0 is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let position = code.build.global_get("fork.position", Type::I32);
            let header = code.find(|f| f.calls(".pop_function"));
            let moved = code.build.pointer_add(Type::I32, position, 4);
            let moved = code.build.global_set("fork.position", moved);
            code.replace(header, code.build.block(None, &[header.expr, moved], None));
        };
    another_function_is_resumed: "sites", "rewinding calls other.resume instead of resuming leaf.resume",
        |module| {
            let code = Code::of(module, "sites.resume");
            let call = code.find(|f| f.calls("leaf.resume"));
            code.replace(call, code.build.call("other.resume", &[], Type::I32));
        };
    another_part_is_chosen: "run", "rewinding calls sites.resume instead of resuming loop.resume",
        |module| {
            let code = Code::of(module, "run.resume");
            let site = code.find(|f| f.expr.kind() == Kind::LocalGet && f.is_in(Kind::Break));
            code.replace(site, code.build.i32(1));
        };
    a_comparison_is_off_by_one: "chain", "site 9, the call call $other: rewinding calls leaf.resume",
        |module| {
            let code = Code::of(module, "chain.resume");
            let bounds = code.find_all(|f| f.expr.kind() == Kind::Const && f.is_in(Kind::Binary));
            code.replace(bounds[1], code.build.i32(10));
        };
    a_local_is_written_among_comparisons: "chain", "site 0, the call call $leaf: the local 0 is not reloaded",
        |module| {
            let code = Code::of(module, "chain.resume");
            let bound = code.find_all(|f| f.expr.kind() == Kind::Binary && f.is_in(Kind::Break))[1];
            let write = code.build.local_set(0, code.build.i32(0));
            code.replace(bound, code.build.block(None, &[write, bound.expr], Some(Type::I32)));
        };
    a_callee_is_called_anew: "loop", "rewinding calls note instead of resuming leaf.resume",
        |module| replace_state(module, "loop.resume", Kind::If, |code, _| code.build.i32(0));
    a_callee_is_resumed_always: "loop", "it saves or resumes a frame while the state is normal",
        |module| replace_state(module, "loop.resume", Kind::If, |code, _| code.build.i32(1));
    a_call_before_the_landing_is_executed: "leaf", "rewinding calls note instead of resuming fork",
        |module| {
            let code = Code::of(module, "leaf.resume");
            code.put_first(code.build.call("note", &[code.build.i32(1)], Type::NONE));
        };
    a_write_before_the_landing_is_executed: "leaf", "code before the landing is executed while rewinding",
        |module| {
            let code = Code::of(module, "leaf.resume");
            code.put_first(code.build.global_set("count", code.build.i32(1)));
        };
    rewinding_depends_on_the_program: "leaf", "it depends on a value that is not known there",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let count = code.build.global_get("count", Type::I32);
            let write = code.build.global_set("count", code.build.i32(1));
            code.put_first(code.build.if_(count, write, None));
        };
    the_entry_is_called_with_other_arguments: "leaf", "the entry is called again with other arguments",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let is_argument = |e: Option<Expr<'_>>| e.is_some_and(|e| e.kind() == Kind::Binary && e.child(0).kind() == Kind::LocalGet);
            let number = code.find_all(|f| f.expr.kind() == Kind::Const && is_argument(f.parent));
            code.replace(number[1], code.build.i32(8));
        };
    an_operand_is_computed_again_of_something_else: "leaf", "operands that were computed before the call are others when it is resumed",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let is_shift = |e: Option<Expr<'_>>| e.is_some_and(|e| e.kind() == Kind::Binary && e.child(0).kind() == Kind::LocalGet);
            let shift = code.find(|f| f.expr.kind() == Kind::Const && is_shift(f.parent));
            code.replace(shift, code.build.i32(3));
        };
    another_spilled_operand_is_read: "nested", "operands that were computed before the call are others when it is resumed",
        |module| {
            let code = Code::of(module, "nested.resume");
            let operand = code.find(|f| f.expr.kind() == Kind::LocalGet && f.is_in(Kind::Store));
            code.replace(operand, code.build.local_get(0, Type::I32));
        };
    an_ordinary_call_of_the_resume_function_is_not_unwound: "loop", "site 0, the call call $leaf: unwinding does not lead from the call",
        |module| {
            let code = Code::of(module, "loop.resume");
            let call = code.find(|f| f.calls("leaf") && !f.calls("leaf.resume"));
            code.replace(call, code.build.i32_or(call.expr, trap_while_unwinding(code)));
        };
    a_way_to_a_join_traps_in_the_resume_function: "meet_again", "unwinding does not lead from the call to the end of the function",
        |module| {
            let code = Code::of(module, "meet_again.resume");
            let set = code.find(|f| f.expr.kind() == Kind::LocalSet && calls(f.expr.child(0), "leaf"));
            let trap = code.build.drop(trap_while_unwinding(code));
            code.replace(set, code.build.block(None, &[set.expr, trap], None));
        };
    a_call_after_the_landing_is_lost: "leaf", "the resume function does not go on as the function does",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let note = code.find(|f| f.calls("note"));
            code.replace(note, code.build.nop());
        };
    a_call_after_the_landing_gets_another_local: "sites", "call_indirect $table (type $unary): once the call has returned, the resume function goes on with another value",
        |module| {
            let code = Code::of(module, "sites.resume");
            let notes = code.find_all(|f| f.calls("note"));
            notes.last().expect("it calls it").expr.set_child(0, code.build.local_get(3, Type::I32));
        };
    a_local_is_written_after_the_landing: "sites", "the resume function goes on with another value",
        |module| {
            let code = Code::of(module, "sites.resume");
            let count = code.find(|f| f.expr.kind() == Kind::GlobalSet && f.expr.child(0).kind() == Kind::Binary);
            let write = code.build.local_set(0, code.build.i32(0));
            code.replace(count, code.build.block(None, &[count.expr, write], None));
        };
    a_lead_in_is_left_out_of_the_next_turn: "loop", "the resume function does not go on as the function does",
        |module| {
            let code = Code::of(module, "loop.resume");
            let note = code.find(|f| f.calls("note"));
            code.replace(note, code.build.nop());
        };
    a_condition_after_the_landing_is_negated: "loop", "the resume function does not go on as the function does",
        |module| {
            let code = Code::of(module, "loop.resume");
            let turn = code.find(|f| f.expr.kind() == Kind::LocalSet && f.is_in(Kind::Break));
            code.replace(turn, code.build.i32_eqz(turn.expr));
        };
    a_resumed_function_returns_another_value: "sites", "the resume function goes on with another value",
        |module| {
            let code = Code::of(module, "sites.resume");
            let sums = code.find_all(|f| f.expr.kind() == Kind::Binary && f.expr.child(1).kind() == Kind::LocalGet);
            let sum = *sums.last().expect("it returns one");
            code.replace(sum, sum.expr.child(0));
        };
    a_handler_of_the_resumed_call_gets_another_local: "caught", "the resume function goes on with another value",
        |module| {
            let code = Code::of(module, "caught.resume");
            let note = code.find(|f| f.calls("note"));
            note.expr.set_child(0, code.build.local_get(1, Type::I32));
        };
    what_a_handler_calls_is_lost: "caught", "the resume function does not go on as the function does",
        |module| {
            let code = Code::of(module, "caught.resume");
            let note = code.find(|f| f.calls("note"));
            code.replace(note, code.build.return_(None));
        };
    the_resume_table_has_another_function: "sites", "rewinding calls other.resume instead of resuming leaf.resume",
        |module| module.replace_references("leaf.resume", "other.resume");
    a_function_off_the_fork_path_is_changed: "apart", "a function that cannot fork was changed",
        |module| {
            let code = Code::of(module, "apart");
            code.put_first(code.build.global_set("count", code.build.i32(0)));
        };
    an_operation_is_lost: "sites", "its own operations are not those that it had",
        |module| {
            let code = Code::of(module, "sites");
            let note = code.find(|f| f.calls("note"));
            code.replace(note, code.build.nop());
        };
    an_operation_is_added: "leaf", "its own operations are not those that it had",
        |module| {
            let code = Code::of(module, "leaf");
            let note = code.find(|f| f.calls("note"));
            let both = [code.build.global_set("count", code.build.i32(1)), note.expr];
            code.replace(note, code.build.block(None, &both, None));
        };
    a_function_in_a_table_does_something_before: "leaf", "entered through a table, it does not resume",
        |module| {
            let code = Code::of(module, "leaf");
            code.put_first(code.build.global_set("count", code.build.i32(1)));
        };
    an_export_does_not_resume: "fork.root.leaf", "the export leaf does not resume the outermost frame",
        |module| {
            let code = Code::of(module, "fork.root.leaf");
            let call = code.find(|f| f.calls("leaf")).expr;
            code.function.set_body(call);
        };
    an_export_calls_something_else: "fork.root.leaf", "the export leaf does not call the function",
        |module| {
            let code = Code::of(module, "fork.root.leaf");
            let call = code.find(|f| f.calls("leaf"));
            code.replace(call, code.build.call("other", &[code.build.local_get(0, Type::I32)], Type::I32));
        };
    an_export_that_cannot_fork_is_of_another_function: "other", "the export apart does not call the function",
        |module| module.retarget_export("apart", "other");
    an_export_without_a_wrapper_does_not_resume: "run", "the export run does not resume the outermost frame",
        |module| drop_first(module, "run", Kind::If);
    a_frame_that_does_not_fit_is_not_resumed_again: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "fork.retry_i32");
            code.function.set_body(code.build.i32(0));
        };
    a_frame_that_does_not_fit_is_given_up: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "fork.finish_i32");
            let retry = code.find(|f| f.expr.kind() == Kind::CallIndirect);
            code.replace(retry, code.build.i32(0));
        };
    what_does_not_fit_twice_is_taken_to_fit: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "fork.finish_or_retry_i32x1_i32");
            let state = code.find(|f| f.expr.kind() == Kind::GlobalSet && f.expr.child(0).kind() == Kind::Const);
            code.replace(state, code.build.nop());
        };
    what_does_not_fit_twice_traps: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "fork.retry_i32");
            let end = code.find(|f| f.expr.kind() == Kind::Return);
            code.replace(end, code.build.unreachable());
        };
    what_does_not_fit_three_times_is_not_flagged: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "fork.retry_i32");
            let sets = code.find_all(|f| f.expr.kind() == Kind::GlobalSet);
            let flag = *sets.last().expect("it flags what it resumes");
            code.replace(flag, code.build.nop());
            let tries = code.find(|f| f.expr.kind() == Kind::Loop);
            code.replace(tries, code.build.block(None, &[flag.expr, tries.expr], Some(tries.expr.type_())));
        };
    calls_that_resume_again_are_nested: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let gets = code.find_all(|f| f.expr.kind() == Kind::LocalGet && f.parent.is_some_and(|p| calls(p, "retry")));
            code.replace(*gets.last().expect("a flag says whether it was resumed again"), code.build.i32(0));
        };
    what_does_not_fit_twice_is_not_resumed_again: "leaf", "does not fit",
        |module| forget_to_retry(module, "fork.retry_i32");
    a_reference_of_what_does_not_fit_twice_is_returned: "boxed", "does not fit",
        |module| forget_to_retry(module, "fork.retry_refs0");
    the_flag_of_what_is_resumed_again_stays: "leaf", "does not fit",
        |module| drop_first(module, "fork.pop_function", Kind::GlobalSet);
    in_line_a_store_is_dropped: "sites", "unwinding: the local 4 is not where the plan has it in the frame",
        |module| drop_first_store(module, "sites", 4);
    in_line_a_store_is_dropped_in_the_resume_function: "sites", "unwinding again from the resume function: ",
        |module| drop_first_store(module, "sites.resume", 4);
    in_line_another_value_is_stored: "leaf", "unwinding: the local 0 is not where the plan has it in the frame",
        |module| {
            let code = Code::of(module, "leaf");
            let value = code.find(|f| f.expr.kind() == Kind::LocalGet && f.position == 1 && f.is_in(Kind::Store) && is_at_position(f.parent));
            code.replace(value, code.build.i32(0));
        };
    in_line_the_site_is_dropped: "sites", "unwinding: the frame names another site",
        |module| drop_first_store(module, "sites", 1);
    in_line_the_site_is_dropped_in_the_resume_function: "sites", "unwinding again from the resume function: the frame names another site",
        |module| drop_first_store(module, "sites.resume", 1);
    in_line_the_number_is_dropped: "leaf", "unwinding: the frame",
        |module| drop_first_store(module, "leaf", 2);
    in_line_the_position_stays: "leaf", "unwinding: the frame lacks 0 bytes",
        |module| drop_last_set(module, "leaf", "fork.position");
    in_line_the_position_stays_in_the_resume_function: "leaf", "unwinding again from the resume function: the frame lacks",
        |module| drop_last_set(module, "leaf.resume", "fork.position");
    in_line_the_position_moves_while_the_state_is_normal: "leaf", "it saves or resumes a frame while the state is normal",
        |module| {
            let code = Code::of(module, "leaf");
            let position = code.build.global_get("fork.position", Type::I32);
            code.put_first(code.build.global_set("fork.position", position));
        };
    in_line_a_store_at_the_position_while_the_state_is_normal: "leaf", "it saves or resumes a frame while the state is normal",
        |module| {
            let store = Code::of(module, "leaf").find(|f| is_at_position(Some(f.expr))).expr;
            store.set_child(1, module.build().i32(0));
            Code::of(module, "leaf").put_first(store);
        };
    in_line_a_store_of_the_programs_is_dropped: "boxed", "its own operations are not those that it had",
        |module| {
            let code = Code::of(module, "boxed");
            let store = code.find(|f| f.expr.kind() == Kind::Store && !is_at_position(Some(f.expr)));
            code.replace(store, code.build.nop());
        };
    in_line_the_state_is_another_afterwards: "leaf", "unwinding: the state is another afterwards",
        |module| {
            let code = Code::of(module, "leaf");
            let set = last_set(&code, "fork.position");
            let state = code.build.global_set("fork.state", code.build.i32(2));
            code.replace(set, code.build.block(None, &[set.expr, state], None));
        };
    in_line_a_frame_that_does_not_fit_is_taken_to_fit: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "leaf");
            let end = code.find(|f| f.expr.kind() == Kind::Binary && f.is_in(Kind::If));
            code.replace(end, code.build.i32(0));
        };
    in_line_what_does_not_fit_twice_is_taken_to_fit: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let end = code.find_all(|f| f.expr.kind() == Kind::Binary && f.is_in(Kind::If));
            code.replace(*end.last().expect("it looks whether the frame fits"), code.build.i32(0));
        };
    in_line_a_frame_that_does_not_fit_is_given_up: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "fork.abort_i32");
            let next = code.find(|f| f.expr.kind() == Kind::CallIndirect);
            code.replace(next, code.build.i32(0));
        };
    in_line_a_load_is_dropped: "sites", "the local 1 is not reloaded from the frame",
        |module| drop_load(module, "sites.resume", 8);
    in_line_another_place_is_loaded: "sites", "the local 0 is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "sites.resume");
            let load = first_load(&code, 4);
            let address = code.build.global_get("fork.position", Type::I32);
            let other = code.build.load(&memory(module), 4, 4, address, Type::I32);
            code.replace(load, other);
        };
    in_line_the_site_is_not_loaded: "sites", "code before the landing is executed while rewinding",
        |module| {
            let code = Code::of(module, "sites.resume");
            code.replace(first_load(&code, 1), code.build.i32(2));
        };
    in_line_the_position_is_not_moved_back: "other", "the frame is not popped, or too much is",
        |module| {
            let code = Code::of(module, "other.resume");
            let set = code.find(|f| f.expr.kind() == Kind::GlobalSet && f.expr.child(0).kind() == Kind::LocalSet);
            code.replace(set, code.build.drop(set.expr.child(0)));
        };
    in_line_the_values_are_loaded_from_where_the_frame_ends: "other", "the local 0 is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "other.resume");
            let bytes = code.find(|f| f.expr.kind() == Kind::Const && f.is_in(Kind::Binary) && f.position == 1);
            code.replace(bytes, code.build.i32(0));
        };
    in_line_the_position_is_moved_back_behind_the_values: "other", "the frame is not popped, or too much is",
        |module| {
            let code = Code::of(module, "other.resume");
            let values = code.find(|f| f.expr.kind() == Kind::LocalSet && f.expr.child(0).kind() == Kind::Load);
            let position = code.build.global_get("fork.position", Type::I32);
            let moved = code.build.global_set("fork.position", code.build.pointer_add(Type::I32, position, 4));
            code.replace(values, code.build.block(None, &[values.expr, moved], None));
        };
    in_line_the_position_is_moved_back_too_far: "sites", "the local 1 is not reloaded from the frame",
        |module| {
            let code = Code::of(module, "sites.resume");
            let bytes = code.find_all(|f| f.expr.kind() == Kind::Const && f.is_in(Kind::Binary) && f.position == 1);
            code.replace(bytes[1], code.build.i32(-24i32 as u32));
        };
    in_line_a_load_at_the_position_while_the_state_is_normal: "leaf", "it saves or resumes a frame while the state is normal",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let address = code.build.global_get("fork.position", Type::I32);
            let load = code.build.drop(code.build.load(&memory(module), 4, 0, address, Type::I32));
            let after = code.find(|f| f.calls("note"));
            code.replace(after, code.build.block(None, &[load, after.expr], None));
        };
    in_line_a_load_at_the_position_in_the_function: "leaf", "its own operations are not those that it had",
        |module| {
            let code = Code::of(module, "leaf");
            let address = code.build.global_get("fork.position", Type::I32);
            let load = code.build.drop(code.build.load(&memory(module), 4, 0, address, Type::I32));
            let after = code.find(|f| f.calls("note"));
            code.replace(after, code.build.block(None, &[load, after.expr], None));
        };
    in_line_the_flag_of_what_is_resumed_again_stays: "leaf", "does not fit",
        |module| {
            let code = Code::of(module, "leaf.resume");
            let flag = code.find(|f| f.expr.kind() == Kind::GlobalSet && f.expr.child(0).kind() == Kind::Const);
            code.replace(flag, code.build.nop());
        };
    a_transition_does_nothing: "of the module", "the transition wpk_fork_unwind_begin",
        |module| {
            let code = Code::of(module, "fork.unwind_begin");
            code.function.set_body(code.build.nop());
        };
}

/// Whether it is a store of part of a frame.
fn is_at_position(expr: Option<Expr<'_>>) -> bool {
    let is_position = |address: Expr<'_>| address.kind() == Kind::GlobalGet;
    expr.is_some_and(|store| store.kind() == Kind::Store && is_position(store.child(0)))
}

/// Whether an expression is an access to so many bytes of a frame.
fn accesses_frame<'m>(code: &Code<'m>, bytes: u32) -> impl Fn(&Found<'m>) -> bool + use<'m> {
    let code = code.function;
    let (code, addresses) = (code.code(), code.code().addresses(code.num_params()));
    move |found| {
        let row = code.rows.iter().position(|row| row.expression == found.expr.address() && row.bytes == bytes);
        row.is_some_and(|row| code.global_at(row as u32, &addresses).is_some())
    }
}

/// Takes the first store of so many bytes of a frame out of a function.
fn drop_first_store(module: Module<'_>, function: &str, bytes: u32) {
    let code = Code::of(module, function);
    let of_frame = accesses_frame(&code, bytes);
    let store = code.find(|f| f.expr.kind() == Kind::Store && of_frame(f));
    code.replace(store, code.build.nop());
}

fn memory(module: Module<'_>) -> String {
    module.memories()[0].name.clone()
}

/// The first load of so many bytes of a frame.
fn first_load<'m>(code: &Code<'m>, bytes: u32) -> Found<'m> {
    let of_frame = accesses_frame(code, bytes);
    code.find(|f| f.expr.kind() == Kind::Load && of_frame(f))
}

/// Takes the first load of so many bytes of a frame out of a function, and what it sets.
fn drop_load(module: Module<'_>, function: &str, bytes: u32) {
    let code = Code::of(module, function);
    let load = first_load(&code, bytes).expr.address();
    let set = code.find(|f| f.expr.kind() == Kind::LocalSet && f.expr.child(0).address() == load);
    code.replace(set, code.build.nop());
}

/// The last place where a function sets a global.
fn last_set<'m>(code: &Code<'m>, global: &str) -> Found<'m> {
    let rows = code.function.code().rows;
    let is_named = |f: &Found<'_>| {
        rows.iter().any(|r| r.expression == f.expr.address() && r.named().is_some_and(|name| name.text() == global))
    };
    let sets = code.find_all(|f| f.expr.kind() == Kind::GlobalSet && is_named(f));
    *sets.last().expect("it sets the global")
}

fn drop_last_set(module: Module<'_>, function: &str, global: &str) {
    let code = Code::of(module, function);
    code.replace(last_set(&code, global), code.build.nop());
}

/// Takes the first expression of a kind out of a function; it gives nothing.
fn drop_first(module: Module<'_>, function: &str, kind: Kind) {
    let code = Code::of(module, function);
    let first = code.find(|f| f.expr.kind() == kind);
    code.replace(first, code.build.nop());
}

/// Takes what a function returns whose frame did not fit for its result.
fn forget_to_retry(module: Module<'_>, helper: &str) {
    let code = Code::of(module, helper);
    let retry = code.find(|f| f.expr.kind() == Kind::GlobalGet && !f.is_in(Kind::Call));
    code.replace(retry, code.build.i32(0));
}

/// Whether a helper takes it for a frame: in a resume function, where the frame ends, too.
fn is_pushed(parent: Option<Expr<'_>>) -> bool {
    parent.is_some_and(|p| [".push_", ".finish_again", ".finish_or_retry"].iter().any(|name| calls(p, name)))
}

/// Pushes zero instead of the first of the last values.
fn push_zero_last(module: Module<'_>, function: &str) {
    let code = Code::of(module, function);
    let value = code.find(|f| f.expr.kind() == Kind::LocalGet && is_pushed(f.parent));
    code.replace(value, code.build.i32(0));
}

/// Executes an expression of `apart` while `leaf` is resumed.
fn put_first_of_leaf(module: Module<'_>, is_wanted: fn(&Found<'_>) -> bool) {
    let expression = Code::of(module, "apart").find(is_wanted).expr;
    let code = Code::of(module, "leaf.resume");
    code.put_first(code.build.drop(expression));
}

/// Drops the first push: its frame lacks some locals.
fn drop_push(module: Module<'_>, function: &str) {
    let code = Code::of(module, function);
    let push = code.find(|f| f.calls(".push_"));
    code.replace(push, push.expr.child(0));
}

/// Replaces the state in the first branch or choice that depends on it.
fn replace_state<'m>(
    module: Module<'m>,
    function: &str,
    kind: Kind,
    with: impl FnOnce(&Code<'m>, Expr<'m>) -> Expr<'m>,
) {
    let code = Code::of(module, function);
    let state = code.state_in(kind);
    code.replace(state, with(&code, state.expr));
}

/// Lets a helper write to the buffer, so many bytes in front of the position that it leaves.
fn put_store_in(module: Module<'_>, helper: &str, before: u32) {
    let code = Code::of(module, helper);
    let moved = code.find_all(|f| f.expr.kind() == Kind::GlobalSet && f.expr.child(0).kind() != Kind::Const);
    let moved = *moved.last().expect("it moves the position");
    // That of a function which the verifier has not come to when it finds this.
    let store = Code::of(module, "boxed").find(|f| f.expr.kind() == Kind::Store).expr;
    store.set_child(0, code.build.i32_sub(code.build.global_get("fork.position", Type::I32), code.build.i32(before)));
    store.set_child(1, code.build.i32(1));
    code.replace(moved, code.build.block(None, &[moved.expr, store], None));
}

/// A zero that traps unless the state is normal.
fn trap_while_unwinding(code: Code<'_>) -> Expr<'_> {
    let state = code.build.global_get("fork.state", Type::I32);
    code.build.if_(state, code.build.unreachable(), Some(code.build.i32(0)))
}
