//! The numbers of the logic.
//!
//! In: its counters. Out: one line each, and the histograms. Always: the order is that of a command's path.

use super::text::Text;
use im_logic::LogicMetrics;
use std::sync::atomic::Ordering;

pub fn print(out: &mut Text, logic: &LogicMetrics) {
    for (name, counter) in [
        ("records", &logic.records),
        ("appended", &logic.appended),
        ("duplicates", &logic.duplicates),
        ("batches", &logic.batches),
        ("appends", &logic.appends),
        ("append_retries", &logic.append_retries),
        ("appends_taken", &logic.appends_taken),
        ("foreign_entries", &logic.foreign_entries),
        ("bumps", &logic.bumps),
        ("moves", &logic.moves),
        ("answers", &logic.answers),
        ("push_targets", &logic.push_targets),
        ("large_pushes", &logic.large_pushes),
        ("caught_up_entries", &logic.caught_up_entries),
        ("projections_repaired", &logic.projections_repaired),
        ("store_errors", &logic.store_errors),
        ("damaged", &logic.damaged),
        ("lost_entries", &logic.lost_entries),
        ("reads", &logic.reads),
        ("sign_ins", &logic.sign_ins),
        ("sign_ins_refused", &logic.sign_ins_refused),
    ] {
        out.counter(&format!("im_logic_{name}_total"), counter.load(Ordering::Relaxed));
    }
    out.gauge("im_logic_users_banned", logic.users_banned.load(Ordering::Relaxed));
    let partitions = [("caught_up", &logic.partitions_caught_up), ("behind", &logic.partitions_behind)];
    let partitions = partitions.into_iter().map(|(state, number)| (state, number.load(Ordering::Relaxed)));
    out.labelled(("im_logic_partitions", "gauge"), "projections", partitions);
    out.labelled(("im_logic_refused_total", "counter"), "code", logic.refused());
    out.labelled(("im_logic_dead_letters_total", "counter"), "reason", logic.set_aside());
    out.histogram("im_logic_batch_records", &logic.batch_records);
    out.histogram("im_logic_decide_seconds", &logic.decide_time);
    out.histogram("im_logic_append_seconds", &logic.append_time);
    out.histogram("im_logic_deliver_seconds", &logic.deliver_time);
}
