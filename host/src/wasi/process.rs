//! Arguments, environment, clocks, random bytes, and the end of the process.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Cx, Function, Source, Stop};
use crate::errno::Errno;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("args_get", "pp", |cx, args| strings(cx, args, |cx| cx.state.args.clone())),
    Function::new("args_sizes_get", "pp", |cx, args| sizes(cx, args, |cx| cx.state.args.clone())),
    Function::new("environ_get", "pp", |cx, args| strings(cx, args, |cx| cx.state.env.clone())),
    Function::new("environ_sizes_get", "pp", |cx, args| sizes(cx, args, |cx| cx.state.env.clone())),
    Function::new("clock_res_get", "ip", clock_resolution),
    Function::new("clock_time_get", "ilp", clock_time),
    Function::new("random_get", "pp", random),
    Function::new("sched_yield", "", |_, _| {
        std::thread::yield_now();
        Ok(())
    }),
    Function::without_result("proc_exit", "i", |_, args| Err(Stop::Exit(args[0] as u32))),
    Function::new("proc_raise", "i", |_, args| Err(Stop::Signal(args[0] as u8 & 0x7f))),
];

fn strings(cx: &mut Cx<'_>, args: &[u64], of: fn(&Cx<'_>) -> Vec<String>) -> Result<(), Stop> {
    let &[mut pointers, mut bytes] = args else { return Err(Errno::INVAL.into()) };
    for string in of(cx) {
        cx.memory.write_pointer(pointers, bytes)?;
        cx.memory.write(bytes, string.as_bytes())?;
        cx.memory.write(bytes + string.len() as u64, &[0])?;
        pointers += cx.memory.pointer_size();
        bytes += string.len() as u64 + 1;
    }
    Ok(())
}

fn sizes(cx: &mut Cx<'_>, args: &[u64], of: fn(&Cx<'_>) -> Vec<String>) -> Result<(), Stop> {
    let strings = of(cx);
    let bytes: usize = strings.iter().map(|string| string.len() + 1).sum();
    cx.memory.write_pointer(args[0], strings.len() as u64)?;
    Ok(cx.memory.write_pointer(args[1], bytes as u64)?)
}

/// Clocks by number: realtime, monotonic, and two of CPU time that stand for the monotonic one.
pub(super) fn now(cx: &mut Cx<'_>, clock: u64) -> Result<u64, Errno> {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    if clock > 3 {
        return Err(Errno::INVAL);
    }
    if let Source::Deterministic(ticks) = &mut cx.state.source {
        *ticks = ticks.wrapping_add(1);
        return Ok(*ticks % (1 << 40) * 1_000_000);
    }
    let elapsed = match clock {
        0 => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        _ => START.elapsed(),
    };
    Ok(elapsed.as_nanos() as u64)
}

fn clock_resolution(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    if args[0] > 3 {
        return Err(Errno::INVAL.into());
    }
    let resolution = if matches!(cx.state.source, Source::System) { 1u64 } else { 1_000_000 };
    Ok(cx.memory.write(args[1], &resolution.to_le_bytes())?)
}

fn clock_time(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let now = now(cx, args[0])?;
    Ok(cx.memory.write(args[2], &now.to_le_bytes())?)
}

fn random(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let bytes = cx.memory.slice_mut(args[0], args[1])?;
    match &mut cx.state.source {
        Source::System => getrandom::fill(bytes).map_err(|_| Errno::IO)?,
        Source::Deterministic(state) => {
            for byte in bytes {
                *state = state.wrapping_add(1);
                *byte = mix(*state) as u8;
            }
        }
    }
    Ok(())
}

/// SplitMix64's output function: a good hash of a counter.
pub(crate) fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
