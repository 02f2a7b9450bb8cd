//! Operations at their source: attempts, time-outs, ends. Each ends once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::Dictionary;
use crate::core::digest::Digest;
use crate::core::effect::Output;
use crate::core::{Context, Core};
use crate::id::Id;
use crate::message::dictionary::{Answer, DictionaryError, Refusal, Request, VALUE_BYTES_MAX};
use crate::message::{Body, RouteError};
use crate::time::Time;

/// The most operations that a node has on their way.
pub const OPERATIONS_MAX: usize = 1024;

/// The most bytes that the values of those operations have together.
pub const OPERATIONS_BYTES_MAX: usize = 16 << 20;

/// How long an operation is tried before it has failed.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long until the next attempt where the responsible was not ready; each pause is twice the last, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(40);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The operations that started here.
#[derive(Clone, Debug, Default)]
pub(super) struct Operations {
    pending: BTreeMap<u64, Pending>,
    bytes: usize,
}

impl Operations {
    pub(super) fn digest(&self, me: Id, digest: &mut Digest) {
        let Operations { pending, bytes: _ } = self;
        digest.unordered(pending, |digest, (sequence, pending)| {
            let Pending { operation, key, wish, attempts, refusals, due, gives_up_at, failure } = pending;
            digest.token(me, *sequence);
            digest.id(*key);
            digest.plain(&(operation, wish, attempts, refusals, failure));
            digest.time(*due);
            digest.time(*gives_up_at);
        });
    }
}

/// An operation on its way.
#[derive(Clone, Debug)]
struct Pending {
    operation: u64,
    key: Id,
    wish: Wish,
    attempts: u32,
    /// Attempts that were refused in a row.
    refusals: u32,
    due: Time,
    gives_up_at: Time,
    failure: DictionaryError,
}

/// What an operation is to do.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Wish {
    /// Give the key this value, or none.
    Write(Option<Bytes>),
    Read,
}

impl Wish {
    fn bytes(&self) -> usize {
        match self {
            Wish::Write(Some(value)) => value.len(),
            Wish::Write(None) | Wish::Read => 0,
        }
    }
}

impl Dictionary {
    /// Does an operation for the application, and says later how it ended.
    pub(crate) fn operate(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        operation: u64,
        key: Id,
        wish: Wish,
    ) {
        let room = self.operations.pending.len() < OPERATIONS_MAX
            && self.operations.bytes + wish.bytes() <= OPERATIONS_BYTES_MAX;
        let refusal = if wish.bytes() > VALUE_BYTES_MAX {
            Some(DictionaryError::ValueTooLarge)
        } else {
            let refusal = core.send_refusal(&Bytes::new()).or((!room).then_some(RouteError::Overloaded));
            refusal.map(DictionaryError::Route)
        };
        if let Some(reason) = refusal {
            return cx.out.push(Output::Answered { operation, result: Err(reason) });
        }
        self.operations.bytes += wish.bytes();
        let pending = Pending {
            operation,
            key,
            wish,
            attempts: 0,
            refusals: 0,
            due: cx.now,
            gives_up_at: cx.now + OPERATION_TIMEOUT,
            failure: DictionaryError::Route(RouteError::TimedOut),
        };
        let sequence = core.next_token();
        self.operations.pending.insert(sequence, pending);
        self.attempt(core, cx, sequence);
    }

    /// Writes go to the key's responsible; reads too, and then to the other places in turn.
    fn attempt(&mut self, core: &mut Core, cx: &mut Context<'_>, sequence: u64) {
        let Some(pending) = self.operations.pending.get_mut(&sequence) else { return };
        let (place, request) = match &pending.wish {
            Wish::Write(value) => (pending.key, Request::Write(value.clone())),
            Wish::Read => {
                let index = (pending.attempts % u32::from(self.places.count)) as u8;
                (self.places.place(pending.key, index), Request::Read(pending.key))
            }
        };
        pending.attempts += 1;
        pending.due = (cx.now + ATTEMPT_TIMEOUT).min(pending.gives_up_at);
        core.set_service_timer(pending.due, sequence);
        let route = core.new_route(sequence, place, Body::Dictionary(request));
        core.dispatch(cx, route);
    }

    /// It is time to try an operation again, or to give it up.
    pub(super) fn on_operation_due(&mut self, core: &mut Core, cx: &mut Context<'_>, sequence: u64) {
        let Some(pending) = self.operations.pending.get(&sequence) else { return };
        if cx.now >= pending.gives_up_at {
            let failure = pending.failure;
            self.end(core, cx, sequence, Err(failure));
        } else {
            self.attempt(core, cx, sequence);
        }
    }

    /// The responsible has answered.
    pub(super) fn on_answer(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        sequence: u64,
        result: Result<Answer, Refusal>,
    ) {
        let Some(pending) = self.operations.pending.get(&sequence) else { return };
        let is_write = matches!(pending.wish, Wish::Write(_));
        match result {
            Ok(answer) if is_write != matches!(answer, Answer::Written(_)) => {}
            Ok(answer) => self.end(core, cx, sequence, Ok(answer)),
            Err(refusal @ (Refusal::Full | Refusal::TooFewCopies { .. })) => {
                self.end(core, cx, sequence, Err(refusal.into()));
            }
            Err(refusal) => self.pause(core, cx, sequence, refusal.into()),
        }
    }

    /// The request could not go on.
    pub(super) fn on_operation_refused(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        sequence: u64,
        reason: RouteError,
    ) {
        self.pause(core, cx, sequence, DictionaryError::Route(reason));
    }

    /// A read that was refused asks the next place at once, until it has been round; everything else waits.
    fn pause(&mut self, core: &mut Core, cx: &mut Context<'_>, sequence: u64, failure: DictionaryError) {
        let Some(pending) = self.operations.pending.get_mut(&sequence) else { return };
        pending.failure = failure;
        pending.refusals += 1;
        core.cancel_service_timer(pending.due, sequence);
        let turns = match pending.wish {
            Wish::Read => u32::from(self.places.count),
            Wish::Write(_) => 1,
        };
        let rounds = pending.refusals / turns;
        let pause = match pending.refusals % turns {
            0 => (PAUSE_MIN * (1 << rounds.min(8))).min(PAUSE_MAX),
            _ => Duration::ZERO,
        };
        pending.due = (cx.now + core.jittered(pause)).min(pending.gives_up_at);
        core.set_service_timer(pending.due, sequence);
    }

    fn end(
        &mut self,
        core: &mut Core,
        cx: &mut Context<'_>,
        sequence: u64,
        result: Result<Answer, DictionaryError>,
    ) {
        let Some(pending) = self.operations.pending.remove(&sequence) else { return };
        self.operations.bytes -= pending.wish.bytes();
        core.cancel_service_timer(pending.due, sequence);
        cx.out.push(Output::Answered { operation: pending.operation, result });
    }

    /// The node is no member any more: what it still waits for has failed.
    pub(super) fn fail_operations(&mut self, cx: &mut Context<'_>) {
        for (_, Pending { operation, .. }) in std::mem::take(&mut self.operations.pending) {
            cx.out.push(Output::Answered { operation, result: Err(RouteError::NotMember.into()) });
        }
        self.operations.bytes = 0;
    }
}
