//! What a node has for its application, as streams.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Message;
use crate::driver::{NodeEvent, Receiver};

/// The messages that come for an application. It may take its time: [`MESSAGES_WAITING_MAX`] messages wait, with at most
/// [`MESSAGES_WAITING_BYTES_MAX`] bytes; what comes then is dropped, and counted.
///
/// [`MESSAGES_WAITING_MAX`]: crate::com::limits::MESSAGES_WAITING_MAX
/// [`MESSAGES_WAITING_BYTES_MAX`]: crate::com::limits::MESSAGES_WAITING_BYTES_MAX
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
/// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
/// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
/// second.send_reliably(first.id(), "one").await?;
/// second.send_reliably(first.id(), "two").await?;
/// assert_eq!(messages.next().await.expect("the node runs").payload, "one");
/// assert_eq!(messages.next().await.expect("the node runs").payload, "two");
/// assert_eq!(messages.missed(), 0);
/// first.stop();
/// assert!(messages.next().await.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })
/// # }
/// ```
#[derive(Debug)]
pub struct Messages(pub(super) Receiver<Message>);

/// What happens to a node. [`EVENTS_WAITING_MAX`] events wait; then the oldest is dropped for a new one, and counted.
///
/// [`EVENTS_WAITING_MAX`]: crate::com::limits::EVENTS_WAITING_MAX
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
/// use p2ps::node::{Event, NodeEvent};
///
/// let (first, _, mut events) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
/// let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
/// while let Some(event) = events.next().await {
///     match event {
///         NodeEvent::Overlay(Event::NewPredecessor(Some(contact))) => {
///             assert_eq!(contact, second.contact());
///             break;
///         }
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })
/// # }
/// ```
#[derive(Debug)]
pub struct Events(pub(super) Receiver<NodeEvent>);

macro_rules! mailbox {
    ($name:ident, $item:ty) => {
        impl $name {
            /// The next one; `None` once the node has stopped.
            pub async fn next(&mut self) -> Option<$item> {
                std::future::poll_fn(|context| self.0.poll_next(context)).await
            }

            /// How many were dropped for want of room.
            pub fn missed(&self) -> u64 {
                self.0.missed()
            }
        }

        impl Stream for $name {
            type Item = $item;

            fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<$item>> {
                self.get_mut().0.poll_next(context)
            }
        }
    };
}

mailbox!(Messages, Message);
mailbox!(Events, NodeEvent);
