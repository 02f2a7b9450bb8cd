//! The community panel example on real sockets: all edit at once while some join, leave and crash, and all copies become equal.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that cannot go on fails; the example's modules are used in part"
)]

#[path = "../examples/community_panel/panel.rs"]
mod panel;
mod participants;
#[path = "../examples/community_panel/session.rs"]
mod session;

use participants::Participant;
use session::Session;

async fn participant(by: Option<&Participant>) -> Participant {
    Participant::new(by, |node, messages, orders, said| Session::new(node, messages, said).run(orders)).await
}

#[test]
fn all_edit_at_once_under_churn_and_their_copies_become_equal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut people = vec![participant(None).await];
        for _ in 1..5 {
            people.push(participant(people.first()).await);
        }
        for round in 0..10 {
            for (number, person) in people.iter().enumerate() {
                // Between others' lines, not only at the end: the copies conflict.
                person.order(&format!("append {round} of {number}")).await;
                person.order(&format!("insert 1 {round} before, of {number}")).await;
            }
        }
        people[0].sees_last("all lines", |text| text.ends_with("--- 100 lines")).await;
        let crashed = people.remove(3);
        crashed.crash();
        people.push(participant(people.first()).await);
        for person in &mut people {
            person.sees_last("all lines", |text| text.ends_with("--- 100 lines")).await;
        }
        people.remove(1).order("quit").await;
        for (number, person) in people.iter().enumerate() {
            person.order(&format!("replace {} changed by {number}", number + 2)).await;
        }
        people[2].order("append the end").await;
        let mut texts = Vec::new();
        for person in &mut people {
            let is_whole = |text: &str| {
                text.ends_with("--- 101 lines")
                    && text.contains("the end")
                    && (0..4).all(|number| text.contains(&format!("changed by {number}")))
            };
            texts.push(person.sees_last("everything", is_whole).await);
        }
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:#?}");
    });
}
