//! What applications build on, over the core's routing: messages that arrive once and in order, or are told to have failed, and a
//! dictionary that is spread over the nodes.
//!
//! Pure, as the core is: services are told by upcalls what came for them, and act through the core.

pub mod dictionary;
pub mod reliable;

use crate::config::NetConfig;
use crate::core::digest::Digest;
use crate::core::effect::Upcall;
use crate::core::{Context, Core};
use crate::message::Body;
use dictionary::Dictionary;
use reliable::Reliable;

/// A node's services.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) reliable: Reliable,
    pub(crate) dictionary: Dictionary,
}

impl Services {
    pub(crate) fn new(net: &NetConfig) -> Services {
        Services { reliable: Reliable::default(), dictionary: Dictionary::new(net) }
    }

    /// Adds what the explorer compares.
    pub(crate) fn digest(&self, core: &Core, digest: &mut Digest) {
        let Services { reliable, dictionary } = self;
        reliable.digest(core.me.id, digest);
        dictionary.digest(core, digest);
    }

    /// Takes in what the core has for the services.
    pub(crate) fn serve(&mut self, core: &mut Core, cx: &mut Context<'_>) {
        let Services { reliable, dictionary } = self;
        dictionary.follow_range(core, cx);
        while let Some(upcall) = core.next_upcall() {
            match upcall {
                Upcall::Arrived(route) if matches!(route.body, Body::Dictionary(_)) => {
                    dictionary.on_arrived(core, cx, &route);
                }
                Upcall::Arrived(route) => reliable.on_arrived(core, cx, route),
                Upcall::Said { from, talk } => dictionary.on_said(core, cx, from, talk),
                Upcall::Receipt { from, sequence } => reliable.on_receipt(core, cx, from, sequence),
                Upcall::Refused { sequence, reason } => {
                    reliable.on_refused(sequence, reason);
                    dictionary.on_refused(core, cx, sequence, reason);
                }
                Upcall::Due(number) => {
                    reliable.on_due(core, cx, number);
                    dictionary.on_due(core, cx, number);
                }
                Upcall::Lost(contact) => dictionary.on_lost(core, cx, contact),
                Upcall::Ended => {
                    reliable.on_ended(cx);
                    dictionary.on_ended(cx);
                }
            }
        }
        dictionary.report_held(core);
    }
}
