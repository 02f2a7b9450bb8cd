use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::access_point::AccessPoint;
use crate::id::Span;
use crate::message::client::{ClientTalk, Rejection, Reply};
use crate::message::dictionary::{
    CHUNK_BYTES_MAX, CHUNK_ITEMS_MAX, Cursor, Holding, Item, Origin, Refusal, Request, Stored, Talk,
    VALUE_BYTES_MAX, Version, Written,
};
use crate::message::{Ack, HopVerdict, RouteError};

fn contact() -> impl Strategy<Value = Contact> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits))),
    ];
    (any::<u64>(), ip, any::<u16>(), any::<u64>()).prop_map(|(id, ip, port, incarnation)| Contact {
        id: Id(id),
        access_point: AccessPoint { ip, port },
        incarnation,
    })
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..3000).prop_map(Bytes::from)
}

fn version() -> impl Strategy<Value = Version> {
    (any::<u64>(), any::<u64>()).prop_map(|(counter, node)| Version { counter, node: Id(node) })
}

fn item() -> impl Strategy<Value = Item> {
    let origin = (any::<u64>(), any::<u64>(), any::<u64>());
    let origin =
        origin.prop_map(|(node, incarnation, sequence)| Origin { node: Id(node), incarnation, sequence });
    (any::<u64>(), version(), origin, prop::option::of(value()), any::<u32>())
        .prop_map(|(key, version, origin, value, age_s)| Item { key: Id(key), version, origin, value, age_s })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        prop::option::of(value()).prop_map(Request::Write),
        any::<u64>().prop_map(|key| Request::Read(Id(key))),
        item().prop_map(Request::Keep),
        (any::<u64>(), version()).prop_map(|(key, version)| Request::Compare { key: Id(key), version }),
        (any::<u64>(), any::<u64>()).prop_map(|(key, last)| Request::Fetch { key: Id(key), last: Id(last) }),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::NotReady),
        Just(Refusal::Full),
        Just(Refusal::Missing),
        Just(Refusal::Overloaded),
        version().prop_map(Refusal::Outdated),
        (any::<u8>(), any::<u8>()).prop_map(|(copies, wanted)| Refusal::TooFewCopies { copies, wanted }),
    ]
}

fn talk() -> impl Strategy<Value = Talk> {
    let written = (version(), any::<u8>()).prop_map(|(version, copies)| Ok(Written { version, copies }));
    let stored = (value(), version()).prop_map(|(value, version)| Stored { value, version });
    let cursor =
        || (any::<u64>(), any::<u64>()).prop_map(|(place, key)| Cursor { place: Id(place), key: Id(key) });
    let holding = prop::sample::select(vec![Holding::Whole, Holding::Acquiring, Holding::Foreign]);
    let items = prop::collection::vec(item(), 0..20);
    prop_oneof![
        (any::<u64>(), prop_oneof![written, refusal().prop_map(Err)])
            .prop_map(|(sequence, result)| Talk::Written { sequence, result }),
        (any::<u64>(), prop_oneof![prop::option::of(stored).prop_map(Ok), refusal().prop_map(Err)])
            .prop_map(|(sequence, result)| Talk::Value { sequence, result }),
        (any::<u64>(), prop_oneof![Just(Ok(())), refusal().prop_map(Err)])
            .prop_map(|(sequence, result)| Talk::Kept { sequence, result }),
        (any::<u64>(), cursor(), any::<u64>()).prop_map(|(token, cursor, last)| Talk::Fetch {
            token,
            cursor,
            last: Id(last)
        }),
        (any::<u64>(), items, prop::option::of(cursor()), holding)
            .prop_map(|(token, items, next, holding)| Talk::Items { token, items, next, holding }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(first, last)| Talk::Taken(Span { first: Id(first), last: Id(last) })),
    ]
}

fn contacts() -> impl Strategy<Value = Vec<Contact>> {
    prop::collection::vec(contact(), 0..=CONTACTS_MAX)
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        any::<bool>().prop_map(|maintenance| Body::Lookup { maintenance }),
        Just(Body::Join),
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(exact, payload)| Body::Data { exact, payload: Bytes::from(payload) }),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(after, payload)| Body::Reliable { after, payload: Bytes::from(payload) }),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(last, payload)| Body::Broadcast { last: Id(last), payload: Bytes::from(payload) }),
        request().prop_map(Body::Dictionary),
        (any::<u64>(), reply()).prop_map(|(incarnation, reply)| Body::Reply { incarnation, reply }),
        (any::<u64>().prop_map(Id), prop::option::of(contact()), contact())
            .prop_map(|(last, gone, heir)| Body::Change { last, gone, heir }),
        (prop::collection::vec(any::<u64>().prop_map(Id), 0..300), any::<Vec<u8>>()).prop_map(
            |(destinations, payload)| Body::Multicast { destinations, payload: Bytes::from(payload) }
        ),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let found = (contact(), any::<u16>()).prop_map(|(responsible, hops)| Found { responsible, hops });
    let result = prop_oneof![found.prop_map(Ok), Just(Err(RouteError::TimedOut))];
    let written = (version(), any::<u8>()).prop_map(|(version, copies)| Ok(Written { version, copies }));
    let stored = (value(), version()).prop_map(|(value, version)| Stored { value, version });
    prop_oneof![
        (any::<u64>(), any::<bool>(), result).prop_map(|(sequence, maintenance, result)| Reply::Answer {
            sequence,
            maintenance,
            result
        }),
        prop::collection::vec(any::<u64>().prop_map(Id), 0..=UNDELIVERABLE_MAX).prop_map(|destinations| {
            Reply::Undeliverable { destinations, reason: RouteError::NoNextHop }
        }),
        any::<u64>().prop_map(|sequence| Reply::Receipt { sequence }),
        (any::<u64>(), prop_oneof![written, refusal().prop_map(Err)])
            .prop_map(|(sequence, result)| Reply::Written { sequence, result }),
        (any::<u64>(), prop_oneof![prop::option::of(stored).prop_map(Ok), refusal().prop_map(Err)])
            .prop_map(|(sequence, result)| Reply::Value { sequence, result }),
    ]
}

fn client_talk() -> impl Strategy<Value = ClientTalk> {
    let located = prop_oneof![contact().prop_map(Ok), Just(Err(RouteError::Overloaded))];
    let reason = vec![Rejection::NotResponsible, Rejection::IdInUse, Rejection::Full];
    prop_oneof![
        any::<u64>().prop_map(|sequence| ClientTalk::Locate { sequence }),
        (any::<u64>(), located).prop_map(|(sequence, result)| ClientTalk::Located { sequence, result }),
        (any::<u64>(), any::<bool>())
            .prop_map(|(sequence, as_client)| ClientTalk::Admit { sequence, as_client }),
        (any::<u64>(), prop::option::of(contact()), contacts()).prop_map(
            |(sequence, predecessor, successors)| ClientTalk::Accepted { sequence, predecessor, successors }
        ),
        (any::<u64>(), prop::sample::select(reason))
            .prop_map(|(sequence, reason)| ClientTalk::Rejected { sequence, reason }),
        Just(ClientTalk::Farewell),
    ]
}

fn route() -> impl Strategy<Value = Message> {
    let numbers = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u16>(), any::<[u8; 2]>(), any::<u64>());
    let entry = (any::<Option<u64>>(), any::<bool>());
    (contact(), numbers, entry, body()).prop_map(
        |(source, (sequence, attempt, key, hops, [backward, turns], hop), (entry, claimed), body)| {
            Message::Route(Route {
                hops,
                backward,
                turns,
                hop,
                entry: entry.map(Id),
                claimed,
                ..Route::new(source, sequence, attempt, Id(key), body)
            })
        },
    )
}

fn ack() -> impl Strategy<Value = Ack> {
    let verdict = prop::sample::select(vec![
        HopVerdict::Taken,
        HopVerdict::Stale,
        HopVerdict::NotMember,
        HopVerdict::Overloaded,
    ]);
    (any::<u64>(), any::<u32>(), verdict).prop_map(|(hop, held_micros, verdict)| Ack {
        hop,
        held_micros,
        verdict,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let found = (contact(), any::<u16>()).prop_map(|(responsible, hops)| Ok(Found { responsible, hops }));
    let result = prop_oneof![found, Just(Err(RouteError::NoSuchNode))];
    prop_oneof![
        route(),
        talk().prop_map(Message::Dictionary),
        client_talk().prop_map(Message::Client),
        prop::collection::vec(ack(), 0..=ACKS_MAX).prop_map(Message::Acks),
        (any::<u64>(), any::<bool>(), result).prop_map(|(sequence, maintenance, result)| Message::Answer {
            sequence,
            maintenance,
            result
        }),
        prop::collection::vec(any::<u64>().prop_map(Id), 0..=UNDELIVERABLE_MAX)
            .prop_map(|ids| Message::Undeliverable { destinations: ids, reason: RouteError::NoNextHop }),
        (any::<u64>(), contacts())
            .prop_map(|(sequence, successors)| Message::JoinOffer { sequence, successors }),
        any::<u64>().prop_map(|sequence| Message::Receipt { sequence }),
        any::<u64>().prop_map(|sequence| Message::JoinConfirm { sequence }),
        (prop::option::of(contact()), contacts(), contacts()).prop_map(
            |(predecessor, successors, fingers)| Message::HandOver { predecessor, successors, fingers }
        ),
        prop::option::of(contact()).prop_map(|predecessor| Message::Leave { predecessor }),
        any::<bool>().prop_map(Message::LeaveTaken),
        contacts().prop_map(|successors| Message::Left { successors }),
        any::<u64>().prop_map(|token| Message::Query { token }),
        (any::<u64>(), prop::option::of(contact()), prop::option::of(any::<u64>().prop_map(Id)), contacts())
            .prop_map(|(token, predecessor, second, successors)| Message::Neighbours {
                token,
                predecessor,
                second,
                successors
            }),
        (any::<u64>(), any::<bool>()).prop_map(|(token, member)| Message::Busy { token, member }),
        prop::option::of(contact()).prop_map(|predecessor| Message::Notify { predecessor }),
        contacts().prop_map(|successors| Message::Introduce { successors }),
        (any::<u64>(), any::<u64>()).prop_map(|(token, target)| Message::Check { token, target: Id(target) }),
        (any::<u64>(), any::<bool>())
            .prop_map(|(token, responsible)| Message::Checked { token, responsible }),
    ]
}

fn full_ring() -> Ring {
    Ring::new(1 << 64).unwrap()
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_however_the_stream_is_cut(
        messages in prop::collection::vec(message(), 1..6),
        cut in 1_usize..5000,
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            let before = stream.len();
            let bytes = encode(message, &mut stream).unwrap();
            prop_assert_eq!(stream.len(), before + bytes);
        }
        let mut reader = FrameReader::default();
        let mut decoded = Vec::new();
        for chunk in stream.chunks(cut) {
            reader.feed(chunk, |body| -> Result<(), FrameError> {
                decoded.push(decode(body, full_ring()).unwrap());
                Ok(())
            }).unwrap();
        }
        prop_assert_eq!(reader.kept_bytes(), 0);
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 1..4000), cut in 1_usize..500) {
        let _ = decode(&bytes, Ring::DEFAULT);
        let mut reader = FrameReader::default();
        for chunk in bytes.chunks(cut) {
            let fed = reader.feed(chunk, |body| -> Result<(), FrameError> {
                if !body.is_empty() {
                    let _ = decode(body, Ring::DEFAULT);
                }
                Ok(())
            });
            if fed.is_err() {
                break;
            }
        }
    }

    #[test]
    fn a_message_with_one_byte_changed_never_panics(
        message in message(), place in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let mut frame = Vec::new();
        encode(&message, &mut frame).unwrap();
        let body = &mut frame[PREFIX_BYTES..];
        body[place.index(body.len())] = value;
        let _ = decode(body, full_ring());
    }
}

fn decoded(message: &Message, ring: Ring) -> Result<Message, WireError> {
    let mut frame = Vec::new();
    encode(message, &mut frame).unwrap();
    decode(&frame[PREFIX_BYTES..], ring)
}

fn someone(id: u64) -> Contact {
    Contact { id: Id(id), access_point: "p2ps://127.0.0.1:3001".parse().unwrap(), incarnation: u64::MAX }
}

#[test]
fn the_longest_lists_pass_and_longer_ones_are_refused() {
    let acks = |length| {
        Message::Acks(vec![Ack { hop: u64::MAX, held_micros: u32::MAX, verdict: HopVerdict::Taken }; length])
    };
    assert!(decoded(&acks(ACKS_MAX), Ring::DEFAULT).is_ok());
    assert!(matches!(decoded(&acks(ACKS_MAX + 1), Ring::DEFAULT), Err(WireError::TooLong { .. })));
    let left = |length| Message::Left { successors: vec![someone(7); length] };
    assert!(decoded(&left(CONTACTS_MAX), Ring::DEFAULT).is_ok());
    assert!(matches!(decoded(&left(CONTACTS_MAX + 1), Ring::DEFAULT), Err(WireError::TooLong { .. })));
    assert!(matches!(decoded(&left(100_000), Ring::DEFAULT), Err(WireError::TooLarge { .. })));
}

#[test]
fn the_largest_payload_passes_and_a_larger_one_is_refused() {
    let data = |bytes| {
        let body = Body::Data { exact: true, payload: Bytes::from(vec![0; bytes]) };
        Message::Route(Route::new(someone(1), 1, 0, Id(2), body))
    };
    assert!(decoded(&data(PAYLOAD_BYTES_MAX), Ring::DEFAULT).is_ok());
    assert!(matches!(decoded(&data(PAYLOAD_BYTES_MAX + 1), Ring::DEFAULT), Err(WireError::TooLong { .. })));
    let mut buffer = vec![7];
    assert!(encode(&data(FRAME_BYTES_MAX), &mut buffer).is_err());
    assert_eq!(buffer, [7], "a message that cannot be sent leaves nothing behind");
}

#[test]
fn a_full_chunk_of_items_passes_and_a_larger_one_is_refused() {
    let item = |bytes: usize| Item {
        key: Id(u64::MAX),
        version: Version { counter: u64::MAX, node: Id(u64::MAX) },
        origin: Origin { node: Id(u64::MAX), incarnation: u64::MAX, sequence: u64::MAX },
        value: Some(Bytes::from(vec![0; bytes])),
        age_s: u32::MAX,
    };
    let chunk = |items: Vec<Item>| {
        Message::Dictionary(Talk::Items { token: u64::MAX, items, next: None, holding: Holding::Whole })
    };
    // As many items as there can be, and the last one of them as large as can be.
    let mut full = vec![item(CHUNK_BYTES_MAX / CHUNK_ITEMS_MAX); CHUNK_ITEMS_MAX - 1];
    full.push(item(VALUE_BYTES_MAX));
    assert!(decoded(&chunk(full.clone()), full_ring()).is_ok());
    full.push(item(0));
    assert!(matches!(decoded(&chunk(full), full_ring()), Err(WireError::TooLong { .. })));
    let too_large = chunk(vec![item(VALUE_BYTES_MAX + 1)]);
    assert!(matches!(decoded(&too_large, full_ring()), Err(WireError::TooLong { .. })));
}

#[test]
fn ids_off_the_ring_are_refused_wherever_they_stand() {
    let ring = Ring::new(100).unwrap();
    let route = |source, key, entry| {
        Message::Route(Route { entry, ..Route::new(someone(source), 1, 0, Id(key), Body::Join) })
    };
    assert!(decoded(&route(99, 99, Some(Id(99))), ring).is_ok());
    for message in [
        route(100, 1, None),
        route(1, 100, None),
        route(1, 1, Some(Id(100))),
        Message::Left { successors: vec![someone(100)] },
        Message::Notify { predecessor: Some(someone(100)) },
        Message::HandOver { predecessor: Some(someone(100)), successors: Vec::new(), fingers: Vec::new() },
        Message::HandOver { predecessor: None, successors: Vec::new(), fingers: vec![someone(100)] },
        Message::Check { token: 1, target: Id(100) },
        Message::Dictionary(Talk::Taken(Span { first: Id(1), last: Id(100) })),
        Message::Dictionary(Talk::Fetch {
            token: 1,
            cursor: Cursor { place: Id(1), key: Id(100) },
            last: Id(1),
        }),
        Message::Answer {
            sequence: 1,
            maintenance: false,
            result: Ok(Found { responsible: someone(100), hops: 1 }),
        },
    ] {
        assert!(matches!(decoded(&message, ring), Err(WireError::OffRing { .. })), "{message:?}");
    }
}

#[test]
fn an_oversized_frame_is_refused_by_its_prefix_alone() {
    let mut reader = FrameReader::default();
    let prefix = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    assert_eq!(reader.feed(&prefix[..3], |_| Ok::<(), FrameError>(())), Ok(()));
    assert!(reader.feed(&prefix[3..], |_| Ok::<(), FrameError>(())).is_err());
    assert!(reader.kept_bytes() <= PREFIX_BYTES);
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let mut frame = Vec::new();
    encode(&Message::LeaveTaken(true), &mut frame).unwrap();
    frame.push(0);
    assert_eq!(decode(&frame[PREFIX_BYTES..], Ring::DEFAULT), Err(WireError::Trailing { bytes: 1 }));
}
