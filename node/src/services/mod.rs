//! What applications build on, over the core's routing: messages that arrive once and in order, or are told to have failed.
//!
//! Pure, as the core is: services are told by [`Upcall`]s what came for them, and act through the core.

pub mod reliable;

use crate::core::effect::Upcall;
use crate::core::{Context, Core};
use reliable::Reliable;

/// A node's services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    pub(crate) reliable: Reliable,
}

impl Services {
    /// Adds what the explorer compares.
    pub(crate) fn digest(&self, me: crate::id::Id, digest: &mut crate::core::digest::Digest) {
        let Services { reliable } = self;
        reliable.digest(me, digest);
    }

    /// Takes in what the core has for the services.
    pub(crate) fn serve(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        while let Some(upcall) = core.next_upcall() {
            match upcall {
                Upcall::Arrived(route) => self.reliable.on_arrived(core, cx, route),
                Upcall::Receipt { from, sequence } => self.reliable.on_receipt(core, cx, from, sequence),
                Upcall::Refused { sequence, reason } => self.reliable.on_refused(core, cx, sequence, reason),
                Upcall::Due(sequence) => self.reliable.on_due(core, cx, sequence),
                Upcall::Ended => self.reliable.on_ended(cx),
            }
        }
    }
}
