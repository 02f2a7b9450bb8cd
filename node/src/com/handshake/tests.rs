use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::Geometry;

fn contact(id: u64, incarnation: u64) -> Contact {
    Contact { id: Id(id), access_point: "p2ps://127.0.0.1:3001".parse().unwrap(), incarnation }
}

fn ours() -> Welcome {
    Welcome { net: NetConfig::default(), contact: contact(1, 7) }
}

fn hello(expected: Option<(Id, u64)>) -> Hello {
    Hello::Link { net: NetConfig::default(), contact: contact(2, 1), expected }
}

type Dialled = Result<(Welcome, Option<Channel>), HandshakeError>;
type Answered = Result<Option<(Contact, Option<Channel>)>, HandshakeError>;

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (dialled, listener.accept().await.unwrap().0)
}

/// Both ends' view of one handshake.
fn shake(hello: &Hello, frames: &[u8], room: bool) -> (Dialled, Answered) {
    shake_with([None, None], hello, frames, room)
}

/// The same where the dialling and the dialled end have these keys.
fn shake_with(
    keys: [Option<&NetworkKey>; 2],
    hello: &Hello,
    frames: &[u8],
    room: bool,
) -> (Dialled, Answered) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut dialling, mut dialled) = connected().await;
        let offer = async move { offer(&mut dialling, keys[0], hello, frames).await };
        let answer = async move {
            let reach = |_: Contact| std::future::ready(());
            answer(&mut dialled, keys[1], ours(), reach, |_| room).await
        };
        tokio::join!(offer, answer)
    })
}

/// What the dialled node makes of bytes, and what it says to them.
fn shake_raw(bytes: &[u8]) -> (Answered, Vec<u8>) {
    shake_raw_with(None, bytes)
}

fn shake_raw_with(key: Option<&NetworkKey>, bytes: &[u8]) -> (Answered, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut dialling, mut dialled) = connected().await;
        dialling.write_all(bytes).await.unwrap();
        dialling.shutdown().await.unwrap();
        let answered = answer(&mut dialled, key, ours(), |_| std::future::ready(()), |_| true).await;
        drop(dialled);
        let mut said = Vec::new();
        // A reset is as good as silence here.
        let _ = dialling.read_to_end(&mut said).await;
        (answered, said)
    })
}

#[test]
fn both_ends_learn_who_the_other_is() {
    let (dialled, answered) = shake(&hello(Some((Id(1), 7))), b"", true);
    let ((welcome, ours_sealed), (who, theirs_sealed)) = (dialled.unwrap(), answered.unwrap().unwrap());
    assert_eq!((welcome, who), (ours(), contact(2, 1)));
    assert!(ours_sealed.is_none() && theirs_sealed.is_none());
}

#[test]
fn a_node_that_does_not_know_the_settings_is_told_them() {
    let (dialled, answered) = shake(&Hello::Settings, b"", true);
    assert_eq!(dialled.unwrap().0.net, NetConfig::default());
    assert!(answered.unwrap().is_none());
}

#[test]
fn other_settings_are_refused_and_both_ends_are_told_both_sides() {
    let other = NetConfig::new(Ring::DEFAULT, Geometry::Chord, 4).unwrap();
    let hello = Hello::Link { net: other, contact: contact(2, 1), expected: None };
    let (dialled, answered) = shake(&hello, &[1; 9000], true);
    let (dialled, answered) = (dialled.unwrap_err(), answered.unwrap_err());
    assert!(
        matches!(dialled, HandshakeError::OtherSettings { ours, theirs } if ours == other && theirs == NetConfig::default()),
        "{dialled}"
    );
    assert!(
        matches!(answered, HandshakeError::OtherSettings { ours, theirs } if theirs == other && ours == NetConfig::default())
    );
    assert!(dialled.to_string().contains("chord") && dialled.to_string().contains("tango(k=5, symmetric)"));
}

#[test]
fn another_node_or_another_life_than_the_one_dialled_is_noticed_before_any_message_is_read() {
    for expected in [(Id(1), 6), (Id(3), 7)] {
        let (dialled, answered) = shake(&hello(Some(expected)), &[1; 9000], true);
        for error in [dialled.unwrap_err(), answered.unwrap_err()] {
            assert!(
                matches!(error, HandshakeError::OtherNode { id, incarnation, found }
                    if (id, incarnation) == expected && found == contact(1, 7)),
                "{error}"
            );
        }
    }
}

#[test]
fn a_full_node_and_oneself_and_ids_off_the_ring_are_refused() {
    let (dialled, answered) = shake(&hello(None), b"", false);
    assert!(matches!(dialled, Err(HandshakeError::Full)) && matches!(answered, Err(HandshakeError::Full)));
    let link = |contact| Hello::Link { net: NetConfig::default(), contact, expected: None };
    let (dialled, answered) = shake(&link(contact(1, 7)), b"", true);
    assert!(
        matches!(dialled, Err(HandshakeError::Itself)) && matches!(answered, Err(HandshakeError::Itself))
    );
    let (dialled, _) = shake(&link(contact(1 << 32, 7)), b"", true);
    assert!(matches!(dialled, Err(HandshakeError::OffRing { .. })));
}

#[test]
fn another_version_is_refused_whatever_follows_it_and_the_answer_names_ours() {
    let mut bytes = encode(99, &hello(None)).unwrap();
    bytes.truncate(PREFIX_BYTES + FIXED_BYTES);
    bytes[..PREFIX_BYTES].copy_from_slice(&20_u32.to_le_bytes());
    bytes.extend_from_slice(&[0xff; 14]);
    let (answered, said) = shake_raw(&bytes);
    assert!(matches!(answered, Err(HandshakeError::OtherVersion { ours: PROTOCOL_VERSION, theirs: 99 })));
    assert_eq!(said[PREFIX_BYTES..PREFIX_BYTES + FIXED_BYTES], [b'P', b'2', b'P', b'S', 1, 0]);
}

#[test]
fn what_is_no_handshake_is_refused() {
    let oversized = [&u32::MAX.to_le_bytes()[..], b"P2PS"].concat();
    assert!(matches!(shake_raw(&oversized).0, Err(HandshakeError::NotP2ps)));
    assert!(matches!(shake_raw(b"GET / HTTP/1.1\r\n\r\n").0, Err(HandshakeError::NotP2ps)));
    assert!(matches!(shake_raw(b"\x0a\0\0\0P2P").0, Err(HandshakeError::Connection(_))));
    let garbage = [&8_u32.to_le_bytes()[..], b"P2PS\x01\x00\xff\xff"].concat();
    assert!(matches!(shake_raw(&garbage).0, Err(HandshakeError::Malformed)));
}

#[test]
fn the_longest_handshake_fits_its_bound() {
    let net = NetConfig::new(
        Ring::new((1 << 64) - 1).unwrap(),
        Geometry::Tango { k: 255, symmetric: true },
        crate::config::SUCCESSORS_MAX,
    )
    .unwrap();
    let access_point = "p2ps://[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
    let contact = Contact { id: Id(u64::MAX), access_point, incarnation: u64::MAX };
    let hello = Hello::Link { net, contact, expected: Some((Id(u64::MAX), u64::MAX)) };
    assert!(encode(u16::MAX, &hello).unwrap().len() - PREFIX_BYTES <= HANDSHAKE_BYTES_MAX);
}

fn key(digit: &str) -> NetworkKey {
    digit.repeat(64).parse().unwrap()
}

#[test]
fn with_the_same_key_both_ends_have_a_channel_and_frames_follow_at_once() {
    let key = key("a");
    let frames = vec![7; 3 * channel::RECORD_BYTES_MAX];
    let hello = hello(Some((Id(1), 7)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut dialling, mut dialled) = connected().await;
        let offer = offer(&mut dialling, Some(&key), &hello, &frames);
        let answer = async {
            let reach = |_: Contact| std::future::ready(());
            let answered = answer(&mut dialled, Some(&key), ours(), reach, |_| true).await;
            let (who, channel) = answered.unwrap().unwrap();
            let mut opener = channel.unwrap().opener;
            let mut heard = Vec::new();
            let mut chunk = [0; 4096];
            while heard.len() < frames.len() {
                let length = dialled.read(&mut chunk).await.unwrap();
                heard.extend(opener.open(&chunk[..length]).unwrap());
            }
            (who, heard)
        };
        let (offered, (who, heard)) = tokio::join!(offer, answer);
        let (welcome, channel) = offered.unwrap();
        assert_eq!((welcome, who), (ours(), contact(2, 1)));
        assert!(channel.is_some() && heard == frames);
    });
    let (dialled, answered) = shake_with([Some(&key), Some(&key)], &Hello::Settings, b"", true);
    assert_eq!(dialled.unwrap().0.net, NetConfig::default());
    assert!(answered.unwrap().is_none());
}

#[test]
fn keys_that_do_not_match_are_refused_and_both_ends_are_told_how() {
    use KeyMismatch::{Differ, OnlyOurs, OnlyTheirs};
    let (a, b) = (key("a"), key("b"));
    for (keys, dialling, dialled) in [
        ([Some(&a), None], OnlyOurs, OnlyTheirs),
        ([None, Some(&a)], OnlyTheirs, OnlyOurs),
        ([Some(&a), Some(&b)], Differ, Differ),
    ] {
        for hello in [hello(None), Hello::Settings] {
            let (offered, answered) = shake_with(keys, &hello, &[1; 9000], true);
            let (offered, answered) = (offered.unwrap_err(), answered.unwrap_err());
            assert!(matches!(offered, HandshakeError::OtherKey(told) if told == dialling), "{offered}");
            assert!(matches!(answered, HandshakeError::OtherKey(told) if told == dialled), "{answered}");
            assert!(offered.is_final() && offered.to_string().contains("network key"), "{offered}");
        }
    }
}

#[test]
fn other_refusals_are_told_through_the_channel() {
    let key = key("a");
    let keys = [Some(&key), Some(&key)];
    let (dialled, answered) = shake_with(keys, &hello(None), &[1; 9000], false);
    assert!(matches!(dialled, Err(HandshakeError::Full)) && matches!(answered, Err(HandshakeError::Full)));
    let other = NetConfig::new(Ring::DEFAULT, Geometry::Chord, 4).unwrap();
    let hello = Hello::Link { net: other, contact: contact(2, 1), expected: None };
    let (dialled, _) = shake_with(keys, &hello, &[1; 9000], true);
    assert!(matches!(dialled, Err(HandshakeError::OtherSettings { ours, .. }) if ours == other));
}

#[test]
fn a_stranger_is_told_that_there_is_a_key_and_nothing_more() {
    let key = key("a");
    let refusal = encode(PROTOCOL_VERSION, &Reply::OtherKey(KeyMismatch::OnlyOurs)).unwrap();
    for hello in [hello(None), Hello::Settings] {
        let (answered, said) = shake_raw_with(Some(&key), &encode(PROTOCOL_VERSION, &hello).unwrap());
        assert!(matches!(answered, Err(HandshakeError::OtherKey(KeyMismatch::OnlyOurs))));
        assert_eq!(said, refusal);
    }
    let garbage = [&9_u32.to_le_bytes()[..], b"P2PS\x01\x00\xff\xff\xff"].concat();
    assert_eq!(shake_raw_with(Some(&key), &garbage).1, refusal);
    let short = [&8_u32.to_le_bytes()[..], b"P2PS\x01\x00\x02\xff"].concat();
    assert!(matches!(shake_raw_with(Some(&key), &short).0, Err(HandshakeError::Malformed)));
    let bare = [&6_u32.to_le_bytes()[..], b"P2PS\x01\x00"].concat();
    assert_eq!(shake_raw_with(Some(&key), &bare).1, refusal);
}

#[test]
fn what_does_not_belong_behind_an_opening_is_refused() {
    let key = key("a");
    let (_, opening) = Dialling::begin(&key, &prologue()).unwrap();
    let hello = encode(PROTOCOL_VERSION, &Hello::Open(opening)).unwrap();
    assert_eq!(hello[PREFIX_BYTES + FIXED_BYTES], OPEN_TAG);
    for behind in [vec![0xff; 2], vec![0; 20], vec![9, 1], [&40_u16.to_le_bytes()[..], &[7; 40]].concat()] {
        let (answered, said) = shake_raw_with(Some(&key), &[&hello[..], &behind].concat());
        let whole = behind[..2] != [9, 1];
        let refused = match answered.unwrap_err() {
            HandshakeError::Channel(ChannelError::Altered) => whole,
            HandshakeError::Connection(_) => !whole,
            _ => false,
        };
        assert!(refused, "{behind:?}");
        assert!(said.len() <= hello.len(), "an opening, and nothing more");
    }
}

#[test]
fn a_node_with_a_key_believes_no_welcome_in_the_open() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let key = key("a");
        let (_, opening) = Dialling::begin(&key, &prologue()).unwrap();
        for reply in [Reply::Welcome(ours()), Reply::Full, Reply::Open(opening)] {
            let (mut dialling, mut dialled) = connected().await;
            dialled.write_all(&encode(PROTOCOL_VERSION, &reply).unwrap()).await.unwrap();
            let offered = offer(&mut dialling, Some(&key), &hello(None), b"secret").await;
            let error = offered.unwrap_err();
            assert!(matches!(error, HandshakeError::Malformed | HandshakeError::Channel(_)), "{error}");
            drop(dialling);
            let mut said = Vec::new();
            dialled.read_to_end(&mut said).await.unwrap();
            let hello = encode(PROTOCOL_VERSION, &Hello::Open(opening)).unwrap();
            assert_eq!(said.len(), hello.len(), "an opening, and nothing more");
        }
    });
}
