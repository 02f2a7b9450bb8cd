//! The postit example on real sockets: what one posts all see, late joiners get the board, what is withdrawn goes, also while
//! participants crash.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that cannot go on fails; the example's modules are used in part"
)]

#[path = "../examples/postit/board.rs"]
mod board;
mod participants;
#[path = "../examples/postit/session.rs"]
mod session;

use participants::Participant;
use session::Session;

async fn participant(name: &str, by: Option<&Participant>) -> Participant {
    let name = name.to_owned();
    Participant::new(by, |node, messages, orders, said| Session::new(node, messages, name, said).run(orders))
        .await
}

#[test]
fn notes_reach_all_late_joiners_get_the_board_and_withdrawn_notes_go() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut ann = participant("ann", None).await;
        let mut bob = participant("bob", Some(&ann)).await;
        ann.order("post meet at noon").await;
        let first = bob.sees("ann: meet at noon").await;
        bob.order("post bring cake").await;
        ann.sees("bob: bring cake").await;

        let mut late = participant("eve", Some(&bob)).await;
        late.sees("meet at noon").await;
        late.sees("bring cake").await;

        let note = first.split_whitespace().nth(1).unwrap();
        late.order(&format!("withdraw {note}")).await;
        for other in [&mut ann, &mut bob] {
            other.sees(&format!("- {note}")).await;
        }

        // One crashes; the others go on, and who joins now has what it left.
        bob.crash();
        ann.order("post without bob").await;
        late.sees("ann: without bob").await;
        let mut last = participant("dan", Some(&ann)).await;
        last.sees("bob: bring cake").await;
        last.sees("ann: without bob").await;
        last.order("list").await;
        last.sees("2 notes").await;

        last.order("withdraw 1/2/3").await;
        last.sees("such as 42/1").await;
        last.order("quit").await;
        last.ends().await;
    });
}
