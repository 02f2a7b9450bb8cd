//! What a plan's faults need of hosts' kernels: asked of a host before it is taken for the run, so that another can stand in for one that
//! lacks it.

use std::time::Duration;

use p2ps::agent::protocol::{HostFacts, Request};

use super::conversation::Conversation;
use super::hosts::chain;
use crate::backend::PreparedHost;
use crate::plan::targets::FaultsWith;
use crate::plan::{Plan, StepEvent};

/// How long an agent may take to say what its host is like.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// What kernels have to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KernelNeeds {
    /// To drop packets, or tell them apart.
    faults: bool,
    bandwidth: bool,
    /// Latency, jitter and loss.
    latency: bool,
}

impl KernelNeeds {
    /// What this plan needs: nothing, where its nodes make the faults.
    pub(super) fn of(plan: &Plan) -> KernelNeeds {
        let mut needs = KernelNeeds::default();
        if plan.faults == FaultsWith::Node {
            return needs;
        }
        for step in &plan.timeline {
            match &step.event {
                StepEvent::Partition { .. } => needs.faults = true,
                StepEvent::Degrade { shape, .. } => {
                    (needs.faults, needs.bandwidth) = (true, true);
                    needs.latency |= shape.latency_us > 0 || shape.jitter_us > 0 || shape.loss_ppm > 0;
                }
                _ => {}
            }
        }
        needs
    }

    pub(super) fn is_nothing(self) -> bool {
        self == KernelNeeds::default()
    }

    /// Why a host cannot do it, if it cannot.
    fn refusal(self, facts: &HostFacts) -> Option<&str> {
        let refusals = [
            (self.faults, &facts.no_kernel_faults),
            (self.bandwidth, &facts.no_kernel_bandwidth),
            (self.latency, &facts.no_kernel_latency),
        ];
        refusals.into_iter().find_map(|(needed, refusal)| refusal.as_deref().filter(|_| needed))
    }
}

/// Asks a host's agent, which ends then, whether its kernel does what is needed.
///
/// # Errors
/// Why it does not, or why that is not known.
pub(super) async fn ask(host: PreparedHost, needs: KernelNeeds) -> Result<(), String> {
    let connection = host.start().map_err(|error| chain(&error))?;
    let mut conversation = Conversation::new(connection);
    let facts = tokio::time::timeout(ANSWER_WAIT, conversation.greet("kernel faults")).await;
    let too_late = |_| Err(format!("its agent did not answer within {} s", ANSWER_WAIT.as_secs()));
    let facts = facts.unwrap_or_else(too_late);
    // One that has gone already needs no word.
    conversation.say(&Request::Stop).await.ok();
    let ended = conversation.end().await;
    let facts = facts.map_err(|error| format!("{error} {ended}"))?;
    match needs.refusal(&facts) {
        None => Ok(()),
        Some(reason) => Err(format!(
            "its kernel cannot make the plan's faults: {reason}; or leave `with: kernel` out of the plan"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(timeline: &str) -> KernelNeeds {
        let text =
            format!("name: k\nnodes: 9\nfaults: {{with: kernel}}\ntimeline:\n  - {{at: 9s, {timeline}}}\n");
        KernelNeeds::of(&crate::plan::parse("k.yaml", &text, &[]).unwrap())
    }

    #[test]
    fn a_plan_needs_what_its_steps_take() {
        let facts = HostFacts {
            no_kernel_faults: None,
            no_kernel_bandwidth: Some("no HTB".into()),
            no_kernel_latency: Some("no netem".into()),
            ..HostFacts::default()
        };
        assert_eq!(needs("partition: [{hosts: 1}, rest]").refusal(&facts), None);
        assert_eq!(needs("degrade: {bandwidth: 1MB/s}").refusal(&facts), Some("no HTB"));
        let facts = HostFacts { no_kernel_bandwidth: None, ..facts };
        assert_eq!(needs("degrade: {bandwidth: 1MB/s}").refusal(&facts), None);
        for step in ["latency: 5ms", "loss: 1%", "latency: 5ms, jitter: 1ms"] {
            assert_eq!(needs(&format!("degrade: {{{step}}}")).refusal(&facts), Some("no netem"));
        }
        assert!(needs("kill: 1").is_nothing());
    }
}
