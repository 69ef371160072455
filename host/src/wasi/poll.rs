//! `poll_oneoff`: clocks, and whether a pipe would block. Other descriptors are always ready.

use std::time::{Duration, Instant};

use super::process::now;
use super::{Cx, Function, Source, Stop};
use crate::descriptors::Object;
use crate::errno::Errno;

pub(super) const FUNCTIONS: &[Function] = &[Function::new("poll_oneoff", "pppp", poll)];

const SUBSCRIPTION_SIZE: u64 = 48;
const EVENT_SIZE: u64 = 32;
/// `eventtype` of a clock; 1 is reading, 2 writing.
const CLOCK: u8 = 0;
const READ: u8 = 1;
/// How often pipes are looked at while all of them would block.
const INTERVAL: Duration = Duration::from_millis(1);

struct Subscription {
    userdata: [u8; 8],
    kind: u8,
    fd: u32,
    /// When a clock is due.
    due: Option<Instant>,
}

fn poll(cx: &mut Cx<'_>, args: &[u64]) -> Result<(), Stop> {
    let &[input, output, count, result] = args else { return Err(Errno::INVAL.into()) };
    if count == 0 || count > 4096 {
        return Err(Errno::INVAL.into());
    }
    let subscriptions =
        (0..count).map(|index| subscription(cx, input + index * SUBSCRIPTION_SIZE)).collect::<Result<Vec<_>, _>>()?;
    let events = loop {
        let events: Vec<_> = subscriptions.iter().filter_map(|subscription| event(cx, subscription)).collect();
        if !events.is_empty() {
            break events;
        }
        let only_clocks = subscriptions.iter().all(|subscription| subscription.kind == CLOCK);
        let due = subscriptions.iter().filter_map(|subscription| subscription.due).min();
        let rest = due.map_or(INTERVAL, |due| due.saturating_duration_since(Instant::now()));
        std::thread::sleep(if only_clocks { rest } else { rest.min(INTERVAL) });
    };
    for (index, event) in events.iter().enumerate() {
        cx.memory.write(output + index as u64 * EVENT_SIZE, event)?;
    }
    Ok(cx.memory.write_pointer(result, events.len() as u64)?)
}

fn subscription(cx: &mut Cx<'_>, at: u64) -> Result<Subscription, Stop> {
    let bytes: [u8; SUBSCRIPTION_SIZE as usize] = cx.memory.array(at)?;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let kind = bytes[8];
    if kind > 2 {
        return Err(Errno::INVAL.into());
    }
    let due = if kind == CLOCK {
        let absolute = word(40) & 1 != 0;
        let timeout = if absolute { word(24).saturating_sub(now(cx, word(16) & 0xffff_ffff)?) } else { word(24) };
        // Time that does not pass by itself need not be waited for.
        let waits = matches!(cx.state.source, Source::System);
        Some(Instant::now() + if waits { Duration::from_nanos(timeout) } else { Duration::ZERO })
    } else {
        None
    };
    let userdata = bytes[..8].try_into().expect("eight bytes");
    Ok(Subscription { userdata, kind, fd: word(16) as u32, due })
}

/// The event, if what was asked for has happened.
fn event(cx: &Cx<'_>, subscription: &Subscription) -> Option<[u8; EVENT_SIZE as usize]> {
    let (errno, bytes) = if let Some(due) = subscription.due {
        (due <= Instant::now()).then_some((Errno::SUCCESS, 0))?
    } else {
        match cx.state.descriptors.get(subscription.fd) {
            Err(errno) => (errno, 0),
            Ok(description) => match &description.object {
                Object::Reader(reader) if subscription.kind == READ => (Errno::SUCCESS, reader.readable()?),
                Object::Writer(writer) if subscription.kind != READ => (Errno::SUCCESS, writer.writable()?),
                _ => (Errno::SUCCESS, 1),
            },
        }
    };
    let mut event = [0; EVENT_SIZE as usize];
    event[..8].copy_from_slice(&subscription.userdata);
    event[8..10].copy_from_slice(&errno.0.to_le_bytes());
    event[10] = subscription.kind;
    event[16..24].copy_from_slice(&bytes.to_le_bytes());
    Some(event)
}
