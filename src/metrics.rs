//! `/metrics`: the counters of gateway and logic as Prometheus text (exposition format 0.0.4).
//!
//! In: snapshots. Out: one line per number, named `im_<part>_<what>`, labels for core and code. Always: names only grow.

use im_gateway::Snapshot;
use im_logic::LogicMetrics;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// What this role has of them.
pub fn text(gateway: Option<&Snapshot>, logic: Option<&LogicMetrics>, queue_waiting: Option<usize>) -> String {
    let mut out = String::with_capacity(8 * 1024);
    // Writing to a String cannot fail.
    let _ = gateway.map(|gateway| gateway_text(&mut out, gateway));
    let _ = logic.map(|logic| logic_text(&mut out, logic));
    if let Some(waiting) = queue_waiting {
        let _ = writeln!(out, "# TYPE im_queue_waiting gauge\nim_queue_waiting {waiting}");
    }
    out
}

/// Gauges among the gateway's numbers; the others are counters.
const GAUGES: [&str; 4] = ["connections", "websocket_connections", "signed_in", "forward_backlog"];

fn gateway_text(out: &mut String, gateway: &Snapshot) -> std::fmt::Result {
    writeln!(out, "# TYPE im_gateway_driver gauge\nim_gateway_driver{{driver=\"{}\"}} 1", gateway.driver)?;
    let Some(first) = gateway.cores.first() else { return Ok(()) };
    for (at, (name, _)) in first.counters().into_iter().enumerate() {
        let (kind, suffix) = if GAUGES.contains(&name) { ("gauge", "") } else { ("counter", "_total") };
        writeln!(out, "# TYPE im_gateway_{name}{suffix} {kind}")?;
        for (core, snapshot) in gateway.cores.iter().enumerate() {
            writeln!(out, "im_gateway_{name}{suffix}{{core=\"{core}\"}} {}", snapshot.counters()[at].1)?;
        }
    }
    writeln!(out, "# TYPE im_gateway_closes_total counter")?;
    for (code, _) in &first.closes {
        let count: u64 = gateway.sum(|core| core.closes.iter().filter(|(name, _)| name == code).map(|(_, n)| n).sum());
        writeln!(out, "im_gateway_closes_total{{code=\"{code}\"}} {count}")?;
    }
    let breaks = gateway.delivery_breaks;
    writeln!(out, "# TYPE im_gateway_delivery_breaks_total counter\nim_gateway_delivery_breaks_total {breaks}")
}

fn logic_text(out: &mut String, logic: &LogicMetrics) -> std::fmt::Result {
    let counters: [(&str, &AtomicU64); 19] = [
        ("records", &logic.records),
        ("undecodable", &logic.undecodable),
        ("appended", &logic.appended),
        ("duplicates", &logic.duplicates),
        ("batches", &logic.batches),
        ("appends", &logic.appends),
        ("appends_taken", &logic.appends_taken),
        ("foreign_entries", &logic.foreign_entries),
        ("moves", &logic.moves),
        ("answers", &logic.answers),
        ("push_targets", &logic.push_targets),
        ("large_pushes", &logic.large_pushes),
        ("caught_up_entries", &logic.caught_up_entries),
        ("projections_repaired", &logic.projections_repaired),
        ("store_errors", &logic.store_errors),
        ("damaged", &logic.damaged),
        ("reads", &logic.reads),
        ("sign_ins", &logic.sign_ins),
        ("sign_ins_refused", &logic.sign_ins_refused),
    ];
    for (name, counter) in counters {
        let count = counter.load(Ordering::Relaxed);
        writeln!(out, "# TYPE im_logic_{name}_total counter\nim_logic_{name}_total {count}")?;
    }
    writeln!(out, "# TYPE im_logic_refused_total counter")?;
    for (code, count) in logic.refused() {
        writeln!(out, "im_logic_refused_total{{code=\"{code}\"}} {count}")?;
    }
    Ok(())
}
