//! The figures that a verdict may hold and an expectation may name.

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureUnit {
    /// A share, in 0..=1.
    Share,
    /// Seconds.
    Seconds,
    /// Nothing: it is a count, or a mean of counts.
    Number,
}

impl FigureUnit {
    /// The unit of the figure with this name.
    pub fn of(name: &str) -> FigureUnit {
        let is = |part| name.split('.').any(|piece| piece == part);
        if is("success") || is("coverage") {
            FigureUnit::Share
        } else if is("latency") || name.starts_with("schedule.error") || name == "ring.converged" {
            FigureUnit::Seconds
        } else {
            FigureUnit::Number
        }
    }
}

/// The figures that a verdict may hold and an expectation may name; times in seconds, shares in 0..=1.
pub const FIGURES: &[&str] = &[
    "nodes.alive",
    "lookup.issued",
    "lookup.success",
    "lookup.wrong",
    "lookup.failed",
    "lookup.lost",
    "lookup.hops.mean",
    "lookup.hops.p50",
    "lookup.hops.p99",
    "lookup.hops.max",
    "lookup.latency.mean",
    "lookup.latency.p50",
    "lookup.latency.p99",
    "lookup.latency.max",
    "put.issued",
    "put.success",
    "put.failed",
    "put.lost",
    "put.latency.mean",
    "put.latency.p50",
    "put.latency.p99",
    "put.latency.max",
    "get.issued",
    "get.success",
    "get.found",
    "get.missing",
    "get.stale",
    "get.wrong",
    "get.failed",
    "get.lost",
    "get.latency.mean",
    "get.latency.p50",
    "get.latency.p99",
    "get.latency.max",
    "send.issued",
    "send.success",
    "send.duplicates",
    "send.wrong",
    "send.failed",
    "send.lost",
    "send.latency.mean",
    "send.latency.p50",
    "send.latency.p99",
    "send.latency.max",
    "send_reliable.issued",
    "send_reliable.success",
    "send_reliable.duplicates",
    "send_reliable.reordered",
    "send_reliable.wrong",
    "send_reliable.failed",
    "send_reliable.lost",
    "send_reliable.latency.mean",
    "send_reliable.latency.p50",
    "send_reliable.latency.p99",
    "send_reliable.latency.max",
    "broadcast.issued",
    "broadcast.success",
    "broadcast.coverage",
    "broadcast.coverage.min",
    "broadcast.duplicates",
    "broadcast.messages",
    "broadcast.wrong",
    "broadcast.failed",
    "broadcast.lost",
    "broadcast.latency.mean",
    "broadcast.latency.p50",
    "broadcast.latency.p99",
    "broadcast.latency.max",
    "multicast.issued",
    "multicast.success",
    "multicast.coverage",
    "multicast.coverage.min",
    "multicast.duplicates",
    "multicast.messages",
    "multicast.wrong",
    "multicast.failed",
    "multicast.lost",
    "multicast.latency.mean",
    "multicast.latency.p50",
    "multicast.latency.p99",
    "multicast.latency.max",
    "table.fingers.mean",
    "links.mean",
    "hop.latency.p50",
    "hop.latency.p99",
    "ring.converged",
    "schedule.error.p50",
    "schedule.error.p99",
    "schedule.error.max",
    "messages.data.sent",
    "messages.control.sent",
    "messages.ack.sent",
    "messages.lost",
    "maintenance.bytes_per_node_second",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::workload::OperationKind;

    #[test]
    fn every_kind_of_operation_has_its_figures() {
        for kind in OperationKind::ALL {
            for part in ["issued", "success", "failed", "lost", "latency.p99"] {
                let name = format!("{}.{part}", kind.as_str());
                assert!(FIGURES.contains(&name.as_str()), "{name}");
                assert_eq!(OperationKind::of_figure(&name), Some(kind));
            }
        }
        assert_eq!(OperationKind::of_figure("messages.lost"), None);
    }
}
