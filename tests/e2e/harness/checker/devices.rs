//! What each device of the run must have been shown, and where its user's cursors must stand.
//!
//! In: events, commands, read-backs. Out: breaches. Always: a device applies the seqs of a conversation rising, each once,
//! none left out but those below a rejoining, up to the head.

use super::{Breach, Command};
use crate::harness::history::{Device, Event, Op};
use crate::harness::read_back::ReadBack;
use std::collections::BTreeMap;

pub fn check(
    events: &[Event],
    commands: &BTreeMap<Op, Command<'_>>,
    read_backs: &[ReadBack],
    breaches: &mut Vec<Breach>,
) {
    let applied = shown(events, breaches);
    knows_the_heads(events, commands, &applied, read_backs, breaches);
    cursors(events, read_backs, breaches);
}

/// The last seq each device was shown, by conversation.
type Applied<'a> = BTreeMap<(&'a Device, &'a str), u64>;

fn shown<'a>(events: &'a [Event], breaches: &mut Vec<Breach>) -> Applied<'a> {
    let mut applied: Applied<'a> = BTreeMap::new();
    for event in events {
        let Event::Applied { device, log, entry } = event else { continue };
        let last = applied.insert((device, log), entry.seq);
        let follows = last.is_none_or(|last| entry.seq == last + 1 || (entry.seq > last && rejoins(entry, device)));
        if !follows {
            breaches.push(Breach::Shown(format!("{device:?} {log}: {} behind {last:?}", entry.seq)));
        }
    }
    applied
}

/// Between a leaving and a rejoining lies what the device may not read.
fn rejoins(entry: &im_proto::client::Entry, device: &Device) -> bool {
    use im_proto::client::entry::Content;
    matches!(&entry.content, Some(Content::MembersAdded(added)) if added.user_ids.contains(&device.user))
}

/// Every device that took part was shown everything its user may read.
fn knows_the_heads(
    events: &[Event],
    commands: &BTreeMap<Op, Command<'_>>,
    applied: &Applied<'_>,
    read_backs: &[ReadBack],
    breaches: &mut Vec<Breach>,
) {
    let mut devices: Vec<&Device> = events
        .iter()
        .filter_map(|event| match event {
            Event::Applied { device, .. } => Some(device),
            _ => None,
        })
        .chain(commands.values().map(|command| command.device))
        .collect();
    devices.sort();
    devices.dedup();
    for device in devices {
        let Some(read) = read_backs.iter().find(|read| read.user == device.user) else { continue };
        for conversation in &read.conversations {
            let state = &conversation.state;
            let last = applied.get(&(device, state.conversation_id.as_str())).copied().unwrap_or(0);
            if last != state.head_seq {
                let text = format!("{device:?} {}: at {last} of {}", state.conversation_id, state.head_seq);
                breaches.push(Breach::Diverged(text));
            }
        }
    }
}

/// A device never sees its user's cursor fall, and the last one it was told of is kept.
fn cursors(events: &[Event], read_backs: &[ReadBack], breaches: &mut Vec<Breach>) {
    let mut told: BTreeMap<(&Device, &str), u64> = BTreeMap::new();
    for event in events {
        let Event::ReadMarked { device, log, seq } = event else { continue };
        let last = told.entry((device, log)).or_default();
        if seq < last {
            breaches.push(Breach::Cursor(format!("{device:?} {log}: fell from {last} to {seq}")));
        }
        *last = *seq.max(last);
    }
    for ((device, log), seq) in told {
        let Some(read) = read_backs.iter().find(|read| read.user == device.user) else { continue };
        let kept = read.conversations.iter().find(|c| c.state.conversation_id == log).map(|c| c.state.read_seq);
        if kept.is_none_or(|kept| kept < seq) {
            breaches.push(Breach::Cursor(format!("{device:?} {log}: {seq} was acked, {kept:?} is kept")));
        }
    }
}
